/* Options, the loop with its phases, and the result as one line of JSON. Theory in load.h. */
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct options opt = {.pipeline = 1, .window = 256, .burst = 256, .sample = 1, .warm_s = 1, .seconds = 5, .drain_s = 10,
                      .marker = "\"version\":", .stamp = "\"note\":\"", .publish = true};
struct totals sum;
struct spread delivery_ns, answer_ns, served_ns;
bool measuring;
uint64_t storm_began_ns;

static int epoll_fd;
static double ready_s, measured_s, cpu_s, storm_s;

uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void fail(const char *why) {
    fprintf(stderr, "load: %s (%s) %s\n", why, strerror(errno), sum.first_error);
    exit(1);
}

void complain(const char *what, const char *bytes, size_t size) {
    if (sum.first_error[0]) return;
    int many = snprintf(sum.first_error, sizeof sum.first_error, "%s: ", what);
    for (size_t i = 0; i < size && many < (int)sizeof sum.first_error - 2; i++)
        sum.first_error[many++] = bytes[i] < 32 || bytes[i] == '"' || bytes[i] == '\\' ? ' ' : bytes[i];
    sum.first_error[many] = 0;
}

void note(struct spread *spread, uint64_t ns) {
    uint64_t bucket = ns / 1000 / BUCKET_US;
    if (!spread->buckets && !(spread->buckets = calloc(BUCKETS, sizeof *spread->buckets))) fail("no memory");
    if ((int64_t)ns < 0) bucket = 0;
    spread->buckets[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    spread->count++;
    if (ns > spread->max_ns) spread->max_ns = ns;
}

double percentile_ms(const struct spread *spread, double percent) {
    uint64_t before = 0, at = (uint64_t)((double)spread->count * percent / 100);
    for (int i = 0; spread->count && i < BUCKETS; i++)
        if ((before += spread->buckets[i]) > at) return (i + 0.5) * BUCKET_US / 1000;
    return 0;
}

int connect_to(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0) fail("no socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) fail("cannot connect");
    return fd;
}

void watch(int fd, uint32_t events, uint32_t kind, uint32_t index, bool again) {
    struct epoll_event event = {.events = events, .data.u64 = (uint64_t)kind << 32 | index};
    if (epoll_ctl(epoll_fd, again ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll");
}

static double cpu_now(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* With a lag given, the window follows the rate: as many events under way as are delivered in that time. */
static void adapt(uint64_t now) {
    static uint64_t then;
    static int64_t taken;
    if (opt.lag_s <= 0 || !opt.subs || now - then < 200000000u) return;
    double rate = (double)(sum.taken - taken) * 1e9 / (double)(now - then) / opt.subs;
    if (then && sum.taken > taken) opt.window = rate * opt.lag_s < 8 ? 8 : rate * opt.lag_s > 2048 ? 2048 : (int)(rate * opt.lag_s);
    then = now;
    taken = sum.taken;
}

/* Turn the loop for `seconds`, or until `over` says so; return whether it did. */
static bool turn(double seconds, bool (*over)(void), bool publish, int64_t most) {
    uint64_t until = now_ns() + (uint64_t)(seconds * 1e9);
    struct epoll_event events[512];
    for (uint64_t now; (now = now_ns()) < until;) {
        if (over && over()) return true;
        if (publish) adapt(now);
        publishers_pump(publish, most);
        int wait_ms = opt.rate > 0 && publish ? 0 : (int)((until - now) / 1000000) + 1;
        struct timespec nap = {0, opt.rate > 0 && publish ? 50000 : (wait_ms > 20 ? 20000000 : wait_ms * 1000000L)};
        int many = epoll_pwait2(epoll_fd, events, 512, &nap, NULL);
        for (int i = 0; i < many; i++) {
            uint32_t index = (uint32_t)events[i].data.u64;
            if (events[i].data.u64 >> 32) publisher_turn(index);
            else subscriber_turn(index, events[i].events);
        }
        subscribers_open();
    }
    return over && over();
}

static bool all_ready(void) { return publishers_ready() && subscribers_ready(); }
static bool all_complete(void) { return !publishers_busy() && (!opt.subs || sum.complete >= sum.produced) && sum.complete == (opt.subs ? sum.order_size : 0); }
static bool all_answered(void) { return !publishers_busy(); }

static void say(const char *word) { printf("%s\n", word); fflush(stdout); }

static void publish_some(int64_t many, bool subscribed) {
    double rate = opt.rate;
    int window = opt.window, subs = opt.subs;
    int64_t most = sum.published + many;
    opt.rate = 0;
    if (!subscribed) opt.window = 1 << 30;
    for (uint64_t until = now_ns() + 20000000000u; sum.published < most && now_ns() < until;) turn(0.01, NULL, true, most);
    turn(20, subscribed ? all_complete : all_answered, false, 0);
    opt.rate = rate;
    opt.window = window;
    opt.subs = subs;
}

static void storm(void) {
    publish_some(opt.away, true);
    subscribers_leave();
    publish_some(opt.away, false); /* what they miss */
    say("MEASURING");
    measuring = true;
    double cpu = cpu_now();
    storm_began_ns = now_ns();
    publishers_begin(storm_began_ns);
    subscribers_return();
    bool done = turn(opt.drain_s, subscribers_served, opt.publish, INT64_MAX);
    storm_s = (double)(now_ns() - storm_began_ns) / 1e9;
    say("MEASURED");
    if (!done) complain("not all were served in time", "", 0);
    cpu_s = cpu_now() - cpu;
    measured_s = storm_s;
    turn(1, NULL, opt.publish, INT64_MAX);
}

static void flow(void) {
    publishers_begin(now_ns());
    turn(opt.warm_s, NULL, opt.publish, INT64_MAX);
    say("MEASURING");
    measuring = true;
    uint64_t began = now_ns();
    double cpu = cpu_now();
    turn(opt.seconds, NULL, opt.publish, INT64_MAX);
    measuring = false;
    measured_s = (double)(now_ns() - began) / 1e9;
    cpu_s = cpu_now() - cpu;
    say("MEASURED");
}

static char *load_file(const char *name, size_t *size) {
    int fd = open(name, O_RDONLY);
    struct stat about;
    if (fd < 0 || fstat(fd, &about) < 0) fail(name);
    char *text = calloc(1, (size_t)about.st_size + 1);
    if (!text || read(fd, text, (size_t)about.st_size) != about.st_size) fail(name);
    close(fd);
    *size = (size_t)about.st_size;
    return text;
}

static void set_option(char *name, char *value) {
    struct { const char *name; int *at; } numbers[] = {
        {"subs", &opt.subs}, {"sub_port", &opt.sub_port}, {"pubs", &opt.pubs}, {"pub_port", &opt.pub_port},
        {"window", &opt.window}, {"burst", &opt.burst}, {"answer_lines", &opt.answer_lines},
        {"greeting_lines", &opt.greeting_lines}, {"pipeline", &opt.pipeline}, {"sample", &opt.sample}, {"away", &opt.away}};
    struct { const char *name; bool *at; } switches[] = {
        {"raw", &opt.raw}, {"answers_have_events", &opt.answers_have_events}, {"storm", &opt.storm}, {"publish", &opt.publish}};
    struct { const char *name; double *at; } times[] = {
        {"rate", &opt.rate}, {"warm_s", &opt.warm_s}, {"seconds", &opt.seconds}, {"drain_s", &opt.drain_s},
        {"lag_s", &opt.lag_s}};
    struct { const char *name; const char **at; } texts[] = {
        {"marker", &opt.marker}, {"stamp", &opt.stamp}, {"expect", &opt.expect}};
    struct { const char *name; char **at; size_t *size; } files[] = {
        {"sub_request", &opt.sub_request, &opt.sub_request_size}, {"sync_request", &opt.sync_request, &opt.sync_request_size},
        {"again_request", &opt.again_request, &opt.again_request_size}, {"greeting", &opt.greeting, &opt.greeting_size},
        {"requests", &opt.requests, &opt.requests_size}};
#define EACH(list) for (size_t i = 0; i < sizeof list / sizeof *list; i++) if (!strcmp(list[i].name, name))
    EACH(numbers) { *numbers[i].at = atoi(value); return; }
    EACH(switches) { *switches[i].at = atoi(value); return; }
    EACH(times) { *times[i].at = atof(value); return; }
    EACH(texts) { *texts[i].at = value; return; }
    EACH(files) { *files[i].at = load_file(value, files[i].size); return; }
    if (!strcmp(name, "base")) { opt.base = atoll(value); return; }
    fail(name);
}

static void show(const char *name, const struct spread *spread) {
    printf(",\"%s\":{\"count\":%lu,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"p99.9\":%.3f,\"max\":%.3f}", name, (unsigned long)spread->count,
           percentile_ms(spread, 50), percentile_ms(spread, 90), percentile_ms(spread, 99), percentile_ms(spread, 99.9), (double)spread->max_ns / 1e6);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (!value) fail("options are name=value");
        *value = 0;
        set_option(argv[i], value + 1);
    }
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    uint64_t began = now_ns();
    publishers_open();
    subscribers_open();
    if (!turn(60, all_ready, false, 0)) fail("not all connections were ready within a minute");
    ready_s = (double)(now_ns() - began) / 1e9;
    turn(0.3, NULL, false, 0);
    say("READY");
    if (opt.storm) storm();
    else flow();
    measuring = false;
    bool drained = turn(opt.drain_s, opt.subs ? all_complete : all_answered, false, 0);
    int64_t lost = opt.subs ? subscribers_lost() : 0;
    if (sum.order_size < sum.produced) lost += (sum.produced - sum.order_size) * opt.subs;
    printf("{\"subs\":%d,\"ready_s\":%.3f,\"seconds\":%.4f,\"deliveries\":%ld,\"bytes\":%ld,\"reads\":%ld,\"published\":%ld,\"answered\":%ld,\"produced\":%ld,",
           opt.subs, ready_s, measured_s, sum.deliveries, sum.delivered_bytes, sum.reads, sum.published, sum.answered, sum.produced);
    printf("\"gaps\":%ld,\"different\":%ld,\"resets\":%ld,\"lost\":%ld,\"closed\":%ld,\"errors\":%ld,\"other_blocks\":%ld,\"drained\":%s,\"load_cpu_s\":%.3f,\"storm_s\":%.3f,\"window\":%d,\"first_error\":\"%s\"",
           sum.gaps, sum.different, sum.resets, lost, sum.closed, sum.errors, sum.other_blocks, drained ? "true" : "false", cpu_s, storm_s, opt.window, sum.first_error);
    show("delivery_ms", &delivery_ns);
    show("answer_ms", &answer_ns);
    show("served_ms", &served_ns);
    printf("}\n");
    return 0;
}
