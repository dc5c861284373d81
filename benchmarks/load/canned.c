/* The simplest sender: accept so many connections, answer each with the head of an event stream, and then write
 * rounds of canned frames to all of them for so many seconds. What a reader takes from it is the reader's ceiling.
 *
 * canned SUBSCRIBERS FRAMES_IN_A_WRITE FRAME_BYTES SECONDS; prints its port, and at the end how many deliveries.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char HEAD[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void write_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t many = send(fd, data, size, MSG_NOSIGNAL);
        if (many < 0 && errno != EAGAIN) exit(0); /* the reader has gone */
        if (many < 0) poll(&(struct pollfd){fd, POLLOUT, 0}, 1, 1000);
        else data += many, size -= (size_t)many;
    }
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    int many = atoi(argv[1]), frames = atoi(argv[2]), frame_bytes = atoi(argv[3]);
    double seconds = atof(argv[4]);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    if (bind(listener, (struct sockaddr *)&at, length) || listen(listener, 4096) || getsockname(listener, (struct sockaddr *)&at, &length)) return 1;
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    int *fds = calloc((size_t)many, sizeof *fds);
    char request[4096];
    for (int i = 0; i < many; i++) {
        fds[i] = accept4(listener, NULL, NULL, 0);
        if (fds[i] < 0 || recv(fds[i], request, sizeof request, 0) <= 0) return 1;
        write_all(fds[i], HEAD, sizeof HEAD - 1);
    }
    sleep(1); /* until the reader has begun to measure */
    char *round = malloc((size_t)frames * (size_t)(frame_bytes + 64) + 64), *frame = malloc((size_t)frame_bytes + 64);
    long number = 1, deliveries = 0;
    for (double end = now_s() + seconds; now_s() < end;) {
        char *put = round + sprintf(round, "%08x\r\n", frames * frame_bytes);
        for (int i = 0; i < frames; i++) {
            int used = sprintf(frame, "id: k-%012ld\ndata: {\"version\":%012ld,\"pad\":\"", number, number);
            number++;
            memset(frame + used, 'x', (size_t)(frame_bytes - used));
            memcpy(frame + frame_bytes - 4, "\"}\n\n", 4);
            memcpy(put, frame, (size_t)frame_bytes);
            put += frame_bytes;
        }
        memcpy(put, "\r\n", 2);
        put += 2;
        for (int i = 0; i < many; i++) write_all(fds[i], round, (size_t)(put - round));
        deliveries += (long)many * frames;
    }
    printf("%ld\n", deliveries);
    fflush(stdout);
    sleep(1);
    return 0;
}
