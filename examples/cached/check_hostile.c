/* check_hostile.c -- what no decent client would send.
 *
 * Malformed commands must be refused with an error and a closed connection; clients that vanish in the
 * middle of a command, never read, or send noise must leave nothing behind: afterwards the server must
 * answer, with the key it held and no connection but ours, and its memory must have stopped growing.
 */
#include "check.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { NOISE_ROUNDS = 200, DROP_ROUNDS = 300, NEVER_READ = 400, PATIENCE_MS = 5000 };

/* A server that keeps what hostile clients made it take grows by the same again and again.  One that is new, or under
 * a sanitizer, which keeps 256 MiB of freed blocks (AddressSanitizer) or shadows of all that was ever touched, grows
 * and then stops. */
enum { MOST_GROWTH = 32 << 20, MOST_PERIODS = 6 };

static int dial(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    int descriptor = socket(AF_INET, SOCK_STREAM, 0);

    if (inet_pton(AF_INET, options.host, &address.sin_addr) != 1 || descriptor < 0 ||
        connect(descriptor, (struct sockaddr *)&address, sizeof address) != 0) {
        perror("cached_check: connect");
        exit(1);
    }
    return descriptor;
}

/* Sends what the server takes; false when it hung up. */
static bool send_all(int descriptor, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(descriptor, bytes, n, MSG_NOSIGNAL);
        if (sent < 0)
            return false;
        bytes += sent;
        n -= (size_t)sent;
    }
    return true;
}

/* Reads until the server closes; -1 if it doesn't in time.  A reset counts as closing. */
static ssize_t read_to_end(int descriptor, char *text, size_t room)
{
    struct pollfd wait = {.fd = descriptor, .events = POLLIN};
    size_t size = 0;

    for (;;) {
        char bytes[4096];
        if (poll(&wait, 1, PATIENCE_MS) != 1)
            return -1;
        ssize_t n = recv(descriptor, bytes, sizeof bytes, 0);
        if (n <= 0)
            return (ssize_t)size;
        size_t kept = (size_t)n < room - size ? (size_t)n : room - size;
        memcpy(text + size, bytes, kept);
        size += kept;
    }
}

static const char *const malformed[] = {
    "*abc\r\n",
    "*-1\r\n",
    "*1048577\r\n",
    "*2147483648\r\n",
    "*99999999999999999999999\r\n",
    "*\r\n",
    "*1x\r\n",
    "* 1\r\n",
    "*+1\r\n",
    "*1\r\n#4\r\nPING\r\n",
    "*1\r\nPING\r\n",
    "*1\r\n$-1\r\n",
    "*1\r\n$-4\r\nPING\r\n",
    "*1\r\n$536870913\r\n",
    "*1\r\n$9223372036854775807\r\n",
    "*1\r\n$18446744073709551617\r\n",
    "*1\r\n$x\r\n",
    "*1\r\n$\r\n",
    "*1\r\n$4\r\nPINGxx",
    "*2\r\n$3\r\nGET\r\n$1\r\naGET\r\n",
    "get \"unbalanced\r\n",
    "set 'a b\r\n",
};

static unsigned check_malformed(void)
{
    unsigned faults = 0;

    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
        char text[256];
        int descriptor = dial();
        send_all(descriptor, malformed[i], strlen(malformed[i]));
        ssize_t n = read_to_end(descriptor, text, sizeof text - 1);
        text[n > 0 ? n : 0] = '\0';
        if (n < 0 || strncmp(text, "-ERR Protocol error: ", 21) != 0) {
            fprintf(stderr, "cached_check: malformed input %zu: %s\n", i, n < 0 ? "not closed" : text);
            faults++;
        }
        close(descriptor);
    }
    return faults;
}

/* Lines that never end must be refused, too. */
static unsigned check_endless(void)
{
    static const char *const starts[] = {"x", "*1", "*1\r\n$1"};
    static char filler[256 * 1024];
    unsigned faults = 0;

    memset(filler, '1', sizeof filler);
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        char text[256];
        int descriptor = dial();
        send_all(descriptor, starts[i], strlen(starts[i]));
        send_all(descriptor, filler, sizeof filler);
        if (read_to_end(descriptor, text, sizeof text) < 0) {
            fprintf(stderr, "cached_check: endless line %zu: not closed\n", i);
            faults++;
        }
        close(descriptor);
    }
    return faults;
}

static void drop_clients(uint64_t *random)
{
    static char filler[64 * 1024];

    for (int i = 0; i < DROP_ROUNDS; i++) {
        char start[128];
        int descriptor = dial();
        int n = snprintf(start, sizeof start, "*%d\r\n$4\r\nMSET\r\n$1\r\na\r\n$%d\r\n", 3 + i % 1000,
                         1 + (int)(next_random(random) % (100 << 20)));
        send_all(descriptor, start, next_random(random) % (size_t)(n + 1));
        if (i % 2 == 0)
            send_all(descriptor, filler, next_random(random) % sizeof filler);
        close(descriptor);
    }
}

/* Correct commands with a few bytes changed, and plain noise. */
static void send_noise(uint64_t *random)
{
    static const char command[] = "*3\r\n$3\r\nSET\r\n$5\r\nnoise\r\n$5\r\nvalue\r\n"
                                  "*2\r\n$3\r\nGET\r\n$5\r\nnoise\r\n";

    for (int i = 0; i < NOISE_ROUNDS; i++) {
        char text[512];
        size_t n = sizeof command - 1;
        int descriptor = dial();
        memcpy(text, command, n);
        if (i % 4 == 0) {
            n = sizeof text;
            for (size_t k = 0; k < n; k++)
                text[k] = (char)next_random(random);
        }
        for (uint64_t k = next_random(random) % 4; k > 0; k--)
            text[next_random(random) % n] = (char)next_random(random);
        send_all(descriptor, text, n);
        close(descriptor);
    }
}

/* Asks for far more than it takes: the server must stop reading from it, not buffer it all. */
static unsigned never_read(redisContext *context)
{
    static const char get[] = "*2\r\n$3\r\nGET\r\n$11\r\nhostile:big\r\n";
    int descriptor = dial();

    for (int i = 0; i < NEVER_READ; i++)
        send(descriptor, get, sizeof get - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    redisReply *reply = redisCommand(context, "PING");
    bool answered = reply != NULL && reply->type == REDIS_REPLY_STATUS;
    freeReplyObject(reply);
    close(descriptor);
    return answered ? 0 : 1;
}

/* One figure of INFO. */
static long long figure(redisContext *context, const char *name)
{
    redisReply *reply = redisCommand(context, "INFO");
    char line[64];

    snprintf(line, sizeof line, "\n%s:", name);
    const char *at = reply != NULL && reply->type == REDIS_REPLY_STRING ? strstr(reply->str, line) : NULL;
    long long value = at != NULL ? atoll(at + strlen(line)) : -1;
    freeReplyObject(reply);
    return value;
}

static unsigned one_round(redisContext *context, uint64_t *random)
{
    unsigned faults = check_malformed() + check_endless();

    drop_clients(random);
    send_noise(random);
    return faults + never_read(context);
}

/* Closed clients are noticed when their loop comes round to them. */
static unsigned check_left_behind(redisContext *context)
{
    long long clients = -1;

    for (int wait = 0; wait < 100 && clients != 1; wait++) {
        usleep(50 * 1000);
        clients = figure(context, "connected_clients");
    }
    redisReply *reply = redisCommand(context, "GET hostile:witness");
    bool kept = reply != NULL && reply->type == REDIS_REPLY_STRING && strcmp(reply->str, "saw it all") == 0;
    freeReplyObject(reply);
    printf("hostile: clients left %lld, witness %s\n", clients, kept ? "kept" : "lost");
    return (clients != 1) + !kept;
}

/* Rounds for as long as was asked for; again while the server has grown in each such period. */
static unsigned check_growth(redisContext *context, uint64_t *random)
{
    unsigned faults = one_round(context, random);
    long long growth;
    int period = 0;

    do {
        long long resident = figure(context, "used_memory_rss");
        int64_t deadline = now_ns() + (int64_t)(options.seconds * 1e9);
        do
            faults += one_round(context, random);
        while (now_ns() < deadline && faults == 0);
        growth = figure(context, "used_memory_rss") - resident;
        printf("hostile: resident memory grew by %lld KiB\n", growth / 1024);
    } while (growth > MOST_GROWTH && faults == 0 && ++period < MOST_PERIODS);
    return faults + (growth > MOST_GROWTH);
}

unsigned hostile_run(void)
{
    static char value[1 << 20];
    uint64_t random = options.seed;
    redisContext *context = redisConnect(options.host, options.port);

    if (context == NULL || context->err != 0) {
        fprintf(stderr, "cached_check: cannot connect\n");
        return 1;
    }
    freeReplyObject(redisCommand(context, "FLUSHALL"));
    freeReplyObject(redisCommand(context, "SET hostile:witness %s", "saw it all"));
    freeReplyObject(redisCommand(context, "SET hostile:big %b", value, sizeof value));
    unsigned faults = check_growth(context, &random);
    faults += check_left_behind(context);
    redisFree(context);
    return faults;
}
