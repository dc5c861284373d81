/* Publishers: requests from templates, so many at a time on each connection, answers checked. Theory in load.h. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { REST = 1 << 18, TEMPLATES_MAX = 4096, FIELDS_MAX = 16 };

/* In a template a run of 12 `@` stands for the request's number, 19 `%` for the clock in ns, 6 `&` for the connection. */
struct field { size_t at; char kind; };
struct template { char *text; size_t size; struct field fields[FIELDS_MAX]; int count; };

static struct publisher *all;
static struct template templates[TEMPLATES_MAX];
static int template_count, ready_count, idle_count;
static int *idle;       /* connections that may take one more request */
static int64_t sent, waiting;
static uint64_t begin_ns;

static void find_fields(struct template *one) {
    for (size_t i = 0; i < one->size; i++) {
        size_t width = one->text[i] == '@' ? 12 : one->text[i] == '%' ? 19 : one->text[i] == '&' ? 6 : 0;
        if (!width || i + width > one->size) continue;
        size_t run = 1;
        while (run < width && one->text[i + run] == one->text[i]) run++;
        if (run < width) continue;
        if (one->count == FIELDS_MAX) fail("too many fields in a template");
        one->fields[one->count++] = (struct field){i, one->text[i]};
        i += width - 1;
    }
}

static void put_digits(char *at, int width, uint64_t value) {
    for (int i = width - 1; i >= 0; i--, value /= 10) at[i] = (char)('0' + value % 10);
}

static void fill(struct template *one, int index, uint64_t stamp) {
    for (int i = 0; i < one->count; i++) {
        char *at = one->text + one->fields[i].at;
        if (one->fields[i].kind == '@') put_digits(at, 12, (uint64_t)(opt.base + sum.published));
        else if (one->fields[i].kind == '%') put_digits(at, 19, stamp);
        else put_digits(at, 6, (uint64_t)index);
    }
}

void publishers_open(void) {
    for (char *at = opt.requests; at && at < opt.requests + opt.requests_size; template_count++) {
        if (template_count == TEMPLATES_MAX) fail("too many templates");
        struct template *one = &templates[template_count];
        uint32_t size;
        memcpy(&size, at, sizeof size); /* length-prefixed, as bodies may hold anything */
        one->text = at + sizeof size;
        one->size = size;
        at += sizeof size + size;
        find_fields(one);
    }
    all = calloc((size_t)opt.pubs + 1, sizeof *all);
    idle = calloc((size_t)opt.pubs + 1, sizeof *idle);
    if (!all || !idle) fail("no memory");
    for (int i = 0; i < opt.pubs; i++) {
        all[i].fd = connect_to(opt.pub_port);
        all[i].rest = malloc(REST);
        watch(all[i].fd, EPOLLOUT, 1, (uint32_t)i, false);
    }
}

bool publishers_ready(void) { return ready_count == opt.pubs; }
int64_t publishers_busy(void) { return waiting; }
void publishers_begin(uint64_t at_ns) { begin_ns = at_ns; sent = 0; }

static void is_free(int index) {
    if (!all[index].open) {
        all[index].open = true;
        ready_count++;
    }
    idle[idle_count++] = index;
}

static void transmit(int index, uint64_t stamp) {
    struct template *one = &templates[sum.published % template_count];
    struct publisher *by = &all[index];
    fill(one, index, stamp);
    by->began_ns[(by->first + by->waiting++) % PIPELINE_MAX] = stamp;
    by->lines = opt.answer_lines;
    sum.published++;
    sent++;
    waiting++;
    if (by->waiting < opt.pipeline) idle[idle_count++] = index;
    if (send(by->fd, one->text, one->size, MSG_NOSIGNAL) != (ssize_t)one->size) fail("a request did not go out whole");
}

/* Send what may be sent now: at its time when there is a rate, else as the window allows. */
void publishers_pump(bool go, int64_t most) {
    while (go && idle_count && sum.published < most) {
        uint64_t now = now_ns();
        if (opt.rate > 0) {
            uint64_t due = begin_ns + (uint64_t)((double)sent * 1e9 / opt.rate);
            if (due > now) return;
            now = due;
        } else if (opt.subs && sum.produced + publishers_busy() - sum.complete >= opt.window) {
            return;
        }
        transmit(idle[--idle_count], now);
    }
}

static void answered(struct publisher *by, int index, const char *answer, size_t size, const char *body, bool good) {
    if (!good || (opt.expect && !memmem(answer, size, opt.expect, strlen(opt.expect)))) {
        sum.errors++;
        complain("answer", answer, size);
    } else if (opt.answers_have_events) {
        size_t marker = strlen(opt.marker), left;
        for (; (left = (size_t)(answer + size - body)) && (body = memmem(body, left, opt.marker, marker)); body += marker)
            sum.produced++;
    } else {
        sum.produced++;
    }
    if (measuring) {
        sum.answered++;
        note(&answer_ns, now_ns() - by->began_ns[by->first]);
    }
    by->first = (by->first + 1) % PIPELINE_MAX;
    waiting--;
    if (by->waiting-- == opt.pipeline) is_free(index);
}

/* Returns the bytes of a whole answer at the beginning of `rest`, 0 while there is none. */
static size_t whole_http(struct publisher *by, const char **body, bool *good) {
    char *end = memmem(by->rest, by->rest_size, "\r\n\r\n", 4);
    if (!end) return 0;
    size_t head = (size_t)(end - by->rest) + 4, length = 0;
    *end = 0;
    char *found = strcasestr(by->rest, "\r\ncontent-length:");
    if (found) length = strtoull(found + 17, NULL, 10);
    else if (strcasestr(by->rest, "\r\ntransfer-encoding:")) fail("an answer in chunks");
    *end = '\r';
    *body = by->rest + head;
    *good = by->rest_size > 12 && by->rest[9] == '2';
    return by->rest_size >= head + length ? head + length : 0;
}

static size_t whole_lines(struct publisher *by, bool *good) {
    while (by->rest_size >= 6 && memcmp(by->rest, "PING\r\n", 6) == 0) { /* NATS asks whether we are there */
        by->rest_size -= 6;
        memmove(by->rest, by->rest + 6, by->rest_size);
        if (send(by->fd, "PONG\r\n", 6, MSG_NOSIGNAL) != 6) fail("a pong did not go out");
    }
    char *at = by->rest, *end = by->rest + by->rest_size;
    *good = *by->rest != '-';
    for (int i = 0; i < by->lines; i++) {
        if (at == end) return 0;
        at = memchr(at, '\n', (size_t)(end - at));
        if (!at++) return 0;
    }
    return (size_t)(at - by->rest);
}

static void greet(struct publisher *by, int index) {
    watch(by->fd, EPOLLIN, 1, (uint32_t)index, true);
    if (!opt.greeting_size) { is_free(index); return; }
    struct template one = {.text = opt.greeting, .size = opt.greeting_size};
    find_fields(&one);
    char text[2048];
    memcpy(text, one.text, one.size);
    one.text = text;
    fill(&one, index, 0);
    by->lines = opt.greeting_lines;
    by->greeting = true;
    if (send(by->fd, text, one.size, MSG_NOSIGNAL) != (ssize_t)one.size) fail("a greeting did not go out whole");
}

void publisher_turn(uint32_t number) {
    int index = (int)number;
    struct publisher *by = &all[index];
    if (!by->open && !by->greeting) { greet(by, index); return; }
    ssize_t got = recv(by->fd, by->rest + by->rest_size, REST - by->rest_size - 1, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) fail("the server closed a publisher");
    by->rest_size += (size_t)got;
    by->rest[by->rest_size] = 0;
    while (by->rest_size && (by->greeting || by->waiting)) {
        const char *body = by->rest;
        bool good = true;
        size_t size = opt.answer_lines ? whole_lines(by, &good) : whole_http(by, &body, &good);
        if (!size) break;
        if (by->open) answered(by, index, by->rest, size, body, good);
        else { by->greeting = false; is_free(index); }
        by->rest_size -= size;
        memmove(by->rest, by->rest + size, by->rest_size);
    }
}
