/* A load generator for event streams: many subscribers and some publishers in one epoll loop, one core.
 *
 * Subscribers (subscribers.c) decode the chunked coding, cut the stream at blank lines, and take the number behind
 * MARKER out of each block. The first to meet a number fixes its place in the order; everybody else must meet the
 * numbers in that order, none left out, none twice, and with the same bytes. Publishers (publishers.c) send a request
 * when the one before was answered, either at a given rate (open loop) or as long as fewer than WINDOW events are on
 * their way to the slowest subscriber (closed loop over the whole system: the rate that a server can keep up). With
 * LAG_S the window is what was lately delivered in that time, so that a fast server may gather and a slow one is
 * not flooded.
 */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BUCKET_US = 10, BUCKETS = 1 << 21, EVENTS_MAX = 1 << 23, RING = 4096, RING_BYTES = 4096, ID_MAX = 80, PIPELINE_MAX = 64 };

struct spread { uint32_t *buckets; uint64_t count; uint64_t max_ns; };

enum step { CONNECTING, SYNCING, HEAD, BODY, ENDED };

struct subscriber {
    int fd;
    enum step step;
    bool chunked, sampled, ready, served;
    uint8_t chunk_step;      /* 0 size, 1 extension up to LF, 2 data, 3 the CRLF after it */
    uint64_t chunk_left;
    int64_t at;              /* place in the order of the next event, -1 before the first one */
    char *rest;              /* bytes of a block that has not ended */
    size_t rest_size, rest_room, marker_hint;
    char id[ID_MAX];
};

struct publisher {
    int fd;
    bool greeting, open;
    int waiting, first;      /* requests without an answer; where the oldest of them is in the ring of times */
    uint64_t began_ns[PIPELINE_MAX];
    char *rest;
    size_t rest_size;
    int lines;               /* of a line protocol: answers' lines still to come */
};

struct options {
    int pipeline, subs, sub_port, pubs, pub_port, window, burst, answer_lines, greeting_lines, sample, away;
    bool raw, answers_have_events, storm, publish;
    double rate, warm_s, seconds, drain_s, lag_s;
    int64_t base;            /* the first number that an event can have */
    const char *marker, *stamp, *expect;
    char *sub_request, *sync_request, *again_request, *greeting, *requests;
    size_t sub_request_size, sync_request_size, again_request_size, greeting_size, requests_size;
};

struct totals {
    int64_t taken, deliveries, delivered_bytes, reads, gaps, different, resets, other_blocks, closed;
    int64_t published, answered, produced, errors;
    int64_t order_size, complete, served;
    char first_error[400];
};

extern struct options opt;
extern struct totals sum;
extern struct spread delivery_ns, answer_ns, served_ns;
extern bool measuring;
extern uint64_t storm_began_ns;

uint64_t now_ns(void);
void fail(const char *why);
void complain(const char *what, const char *bytes, size_t size);
void note(struct spread *spread, uint64_t ns);
double percentile_ms(const struct spread *spread, double percent);
int connect_to(int port);
void watch(int fd, uint32_t events, uint32_t kind, uint32_t index, bool again);

void subscribers_open(void);            /* connects further ones, as many as may be pending */
bool subscribers_ready(void);
bool subscribers_served(void);
void subscriber_turn(uint32_t index, uint32_t events);
void subscribers_leave(void);           /* all at once, by reset, keeping their cursors */
void subscribers_return(void);
int64_t subscribers_lost(void);

void publishers_open(void);
bool publishers_ready(void);
void publisher_turn(uint32_t index);
void publishers_pump(bool go, int64_t most);
int64_t publishers_busy(void);
void publishers_begin(uint64_t at_ns);

#endif
