/* Subscribers: decode, cut, check order and content, note latencies. Theory in load.h. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROOM = 1 << 20 };

static struct subscriber *all;
static int opened, pending, ready_count;
static bool returning;
static int32_t *place_of;      /* number - base -> place in the order + 1 */
static uint16_t *seen_by;      /* place -> how many subscribers have it */
static char *ring;             /* the bytes of the last RING blocks */
static uint32_t *ring_size;
static int64_t *ring_place;    /* whose bytes stand there + 1 */
static char *buffer;

static void drop(struct subscriber *one) {
    struct linger at_once = {1, 0}; /* a reset: thousands of ports in TIME_WAIT would end the next run */
    setsockopt(one->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(one->fd);
    one->step = ENDED;
}

static void became_ready(struct subscriber *one) {
    if (!one->ready) {
        one->ready = true;
        ready_count++;
        pending--;
    }
}

static void ended(struct subscriber *one, const char *why) {
    complain(why, buffer, 0);
    sum.closed++;
    if (!one->ready) pending--;
    drop(one);
}

void subscribers_open(void) {
    if (!all) {
        all = calloc((size_t)opt.subs + 1, sizeof *all);
        place_of = calloc(EVENTS_MAX, sizeof *place_of);
        seen_by = calloc(EVENTS_MAX, sizeof *seen_by);
        ring = malloc((size_t)RING * RING_BYTES);
        ring_size = calloc(RING, sizeof *ring_size);
        ring_place = calloc(RING, sizeof *ring_place);
        buffer = malloc(2 * ROOM);
        if (!all || !place_of || !seen_by || !ring || !ring_size || !ring_place || !buffer) fail("no memory");
    }
    while (opened < opt.subs && pending < opt.burst) {
        struct subscriber *one = &all[opened];
        if (!returning) one->at = -1;
        one->sampled = opened % opt.sample == 0;
        one->fd = connect_to(opt.sub_port);
        one->step = CONNECTING;
        one->chunk_step = 0;
        one->rest_size = 0;
        one->ready = one->served = false;
        watch(one->fd, EPOLLOUT, 0, (uint32_t)opened, false);
        opened++;
        pending++;
    }
}

bool subscribers_ready(void) { return ready_count == opt.subs; }
bool subscribers_served(void) { return sum.served == opt.subs; }

void subscribers_leave(void) {
    for (int i = 0; i < opt.subs; i++)
        if (all[i].step != ENDED) drop(&all[i]);
}

void subscribers_return(void) {
    returning = true;
    opened = pending = ready_count = 0;
    subscribers_open();
}

int64_t subscribers_lost(void) { /* deliveries that never came */
    int64_t lost = 0;
    for (int i = 0; i < opt.subs; i++) lost += sum.order_size - (all[i].at < 0 ? 0 : all[i].at);
    return lost;
}

/* Take the number of one event; return its place, or -1 when it is out of order. */
static int64_t take_number(struct subscriber *one, const char *digits, const char *end) {
    int64_t number = 0;
    while (digits < end && *digits >= '0' && *digits <= '9') number = number * 10 + (*digits++ - '0');
    int64_t slot = number - opt.base;
    if (slot < 0 || slot >= EVENTS_MAX) { sum.gaps++; complain("a number out of range", digits - 20, 40); return -1; }
    if (one->at < 0) one->at = 0;
    if (!place_of[slot]) {
        if (one->at != sum.order_size) { sum.gaps++; complain("left out, before number", digits - 12, 12); }
        place_of[slot] = (int32_t)++sum.order_size;
    }
    int64_t place = place_of[slot] - 1;
    if (place != one->at) { sum.gaps++; complain("out of order", digits - 12, 12); }
    if (place < one->at) return -1; /* a second time */
    one->at = place + 1;
    seen_by[place]++;
    while (sum.complete < sum.order_size && seen_by[sum.complete] == opt.subs) sum.complete++;
    sum.taken++;
    if (measuring) sum.deliveries++;
    return place;
}

static void check_content(int64_t place, const char *block, size_t size) {
    /* What one subscriber took by sync another may get as the first by its stream: places come in any order. */
    size_t slot = (size_t)(place % RING), most = size < RING_BYTES ? size : RING_BYTES;
    char *kept = ring + slot * RING_BYTES;
    if (ring_place[slot] < place + 1) {
        memcpy(kept, block, most);
        ring_size[slot] = (uint32_t)size;
        ring_place[slot] = place + 1;
    } else if (ring_place[slot] == place + 1 && (ring_size[slot] != size || memcmp(kept, block, most) != 0)) {
        sum.different++;
        complain("other bytes than another subscriber's", block, size);
    }
}

static void take_block(struct subscriber *one, const char *block, size_t size, uint64_t now) {
    if (opt.storm && size > 4 && memcmp(block, "id: ", 4) == 0) {
        const char *end = memchr(block, '\n', size);
        size_t length = (size_t)(end - block) - 4;
        if (length < ID_MAX) { memcpy(one->id, block + 4, length); one->id[length] = 0; }
        if (returning && !one->served) {
            one->served = true;
            sum.served++;
            note(&served_ns, now - storm_began_ns);
        }
    }
    size_t marker = strlen(opt.marker);
    const char *found = NULL;
    if (size > 14 && memcmp(block, "event:", 6) == 0 && memcmp(block + 6 + (block[6] == ' '), "message", 7) != 0) {
        if (memcmp(block, "event: reset", 12) == 0) sum.resets++;
        if (memcmp(block, "event: bye", 10) == 0) complain("bye", block, size);
        const char *id = memmem(block, size, "\nid: ", 5);
        if (id && opt.storm) sscanf(id + 5, "%79[^\n]", one->id);
    } else if (one->marker_hint + marker < size && memcmp(block + one->marker_hint, opt.marker, marker) == 0) {
        found = block + one->marker_hint;
    } else {
        found = memmem(block, size, opt.marker, marker);
    }
    if (!found || found[marker] < '0' || found[marker] > '9') {
        sum.other_blocks++;
        return;
    }
    one->marker_hint = (size_t)(found - block);
    int64_t place = take_number(one, found + marker, block + size);
    if (place < 0) return;
    const char *content = opt.raw ? found : block; /* a line protocol's pings come in between */
    check_content(place, content, (size_t)(block + size - content));
    if (!measuring) return;
    sum.delivered_bytes += (int64_t)size;
    if (!one->sampled) return;
    const char *stamp = memmem(block, size, opt.stamp, strlen(opt.stamp));
    if (stamp) note(&delivery_ns, now - strtoull(stamp + strlen(opt.stamp), NULL, 10));
}

/* Remove the chunked coding in place; return the bytes that are left. */
static size_t unchunk(struct subscriber *one, char *data, size_t size) {
    char *in = data, *out = data, *end = data + size;
    while (in < end) {
        if (one->chunk_step == 2) {
            size_t most = (size_t)(end - in) < one->chunk_left ? (size_t)(end - in) : one->chunk_left;
            memmove(out, in, most);
            out += most, in += most;
            one->chunk_left -= most;
            if (!one->chunk_left) one->chunk_step = 3;
        } else {
            char c = *in++;
            if (one->chunk_step == 3) {
                if (c == '\n') one->chunk_step = 0;
            } else if (c == '\n') {
                one->chunk_step = one->chunk_left ? 2 : 3;
            } else if (one->chunk_step == 0) {
                if (c >= '0' && c <= '9') one->chunk_left = one->chunk_left * 16 + (uint64_t)(c - '0');
                else if ((c | 32) >= 'a' && (c | 32) <= 'f') one->chunk_left = one->chunk_left * 16 + (uint64_t)((c | 32) - 'a' + 10);
                else one->chunk_step = 1;
            }
        }
    }
    return (size_t)(out - data);
}

static void keep_rest(struct subscriber *one, const char *data, size_t size) {
    if (size > one->rest_room) {
        one->rest_room = size + 512;
        free(one->rest);
        one->rest = malloc(one->rest_room);
        if (!one->rest) fail("no memory");
    }
    memcpy(one->rest, data, size);
    one->rest_size = size;
}

static void send_first(struct subscriber *one, uint32_t index) {
    char text[4096];
    const char *request = opt.sub_request;
    size_t size = opt.sub_request_size;
    one->step = opt.raw ? BODY : HEAD;
    if (returning) {
        size = (size_t)snprintf(text, sizeof text, opt.sync_request, one->id);
        request = text;
        one->step = SYNCING;
    }
    if (send(one->fd, request, size, MSG_NOSIGNAL) != (ssize_t)size) { ended(one, "could not send"); return; }
    watch(one->fd, EPOLLIN, 0, index, true);
}

/* The answer to sync: the missed events, and the cursor to stream from. Returns false while it is not whole. */
static bool take_sync(struct subscriber *one, char *data, size_t size) {
    char *body = memmem(data, size, "\r\n\r\n", 4);
    if (!body) return false;
    char *length = memmem(data, (size_t)(body - data), "ontent-length: ", 15);
    if (!length) length = memmem(data, (size_t)(body - data), "ontent-Length: ", 15);
    if (!length) { ended(one, "a sync answer without a length"); return true; }
    size_t whole = strtoull(length + 15, NULL, 10);
    body += 4;
    if ((size_t)(data + size - body) < whole) return false;
    if (memcmp(data, "HTTP/1.1 200", 12) != 0) { complain("sync", data, size); ended(one, "sync refused"); return true; }
    if (!memmem(body, whole, "\"mode\":\"delta\"", 14)) sum.resets++;
    char *cursor = memmem(body, whole, "\"cursor\":\"", 10);
    if (cursor) sscanf(cursor + 10, "%79[^\"]", one->id);
    size_t marker = strlen(opt.marker);
    for (char *at = body; (at = memmem(at, (size_t)(body + whole - at), opt.marker, marker)); at += marker)
        take_number(one, at + marker, body + whole);
    char text[4096];
    int many = snprintf(text, sizeof text, opt.again_request, one->id);
    one->rest_size = 0;
    one->step = HEAD;
    if (send(one->fd, text, (size_t)many, MSG_NOSIGNAL) != many) ended(one, "could not send");
    return true;
}

/* Returns the bytes that follow the head, or NULL while it is not whole. */
static char *take_head(struct subscriber *one, char *data, size_t size) {
    char *body = memmem(data, size, "\r\n\r\n", 4);
    if (!body) return NULL;
    *body = 0;
    if (!strstr(data, " 200 ") || strstr(data, " 200 ") > data + 16) { complain("no stream", data, size); ended(one, "no stream"); return NULL; }
    one->chunked = strcasestr(data, "transfer-encoding: chunked") != NULL;
    one->step = BODY;
    became_ready(one);
    return body + 4;
}

void subscriber_turn(uint32_t index, uint32_t events) {
    struct subscriber *one = &all[index];
    if (one->step == ENDED) return;
    if (one->step == CONNECTING) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(one->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error || (events & EPOLLHUP)) ended(one, "could not connect");
        else send_first(one, index);
        return;
    }
    size_t kept = one->rest_size;
    if (kept) memcpy(buffer, one->rest, kept);
    if (kept >= ROOM) fail("a block beyond 1 MiB");
    ssize_t got = recv(one->fd, buffer + kept, ROOM, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) { ended(one, "the server closed a stream"); return; }
    uint64_t now = now_ns();
    if (measuring) sum.reads++;
    char *data = buffer, *fresh = buffer + kept;
    size_t fresh_size = (size_t)got;
    if (one->step == SYNCING) {
        if (!take_sync(one, buffer, kept + fresh_size)) keep_rest(one, buffer, kept + fresh_size);
        return;
    }
    if (one->step == HEAD) {
        char *body = take_head(one, buffer, kept + fresh_size);
        if (one->step == ENDED) return;
        if (!body) { keep_rest(one, buffer, kept + fresh_size); return; }
        fresh_size = (size_t)(buffer + kept + fresh_size - body);
        data = fresh = body;
    } else if (opt.raw) {
        became_ready(one);
        if (!sum.published) return; /* greetings: they are no blocks */
    }
    if (one->chunked) fresh_size = unchunk(one, fresh, fresh_size);
    char *end = fresh + fresh_size, *from = data, *look = data;
    for (char *line; look < end && (line = memchr(look, '\n', (size_t)(end - look))); look = line + 1)
        if (line + 1 < end && line[1] == '\n') {
            take_block(one, from, (size_t)(line + 1 - from), now);
            from = ++line + 1;
        }
    keep_rest(one, from, (size_t)(end - from));
}
