/* check.c -- the checker's options, threads and figures.
 *
 * Each thread drives its connections in rounds: it fills a pipeline on every one of them, then reads
 * and checks all answers.  At the end every key is read once more.
 */
#include "check.h"

#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct options options = {.host = "127.0.0.1",
                          .port = 6380,
                          .seconds = 5,
                          .keys = 10000,
                          .threads = 2,
                          .connections = 8,
                          .pipeline = 16,
                          .value_min = 16,
                          .value_max = 512};

/* Latencies by powers of two, each in 16 steps. */
enum { STEPS = 16, BUCKETS = 64 * STEPS, MOST_REQUEST_BYTES = 128 * 1024, MOST_PIPELINE = 4096 };

struct runner {
    pthread_t thread;
    unsigned number;
    int64_t deadline;
    uint64_t operations, longest;
    uint64_t latencies[BUCKETS];
    struct faults faults;
};

int64_t now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ll + time.tv_nsec;
}

uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static unsigned bucket_of(uint64_t ns)
{
    unsigned power = 63 - (unsigned)__builtin_clzll(ns | STEPS);

    return power * STEPS + (unsigned)(ns >> (power - 4)) % STEPS;
}

static uint64_t bucket_end(unsigned bucket)
{
    return (uint64_t)(STEPS + bucket % STEPS + 1) << (bucket / STEPS - 4);
}

static void record(struct runner *runner, uint64_t ns, unsigned n)
{
    runner->latencies[bucket_of(ns)] += n;
    runner->operations += n;
    if (ns > runner->longest)
        runner->longest = ns;
}

static redisContext *connect_to_server(void)
{
    redisContext *context = redisConnect(options.host, options.port);

    if (context == NULL || context->err != 0) {
        fprintf(stderr, "cached_check: cannot connect to %s port %d\n", options.host, options.port);
        exit(1);
    }
    return context;
}

static void give_up(const redisContext *context)
{
    fprintf(stderr, "cached_check: the server hung up: %s\n", context->errstr);
    exit(1);
}

static void flush(redisContext *context)
{
    int done = 0;

    while (done == 0) {
        if (redisBufferWrite(context, &done) != REDIS_OK)
            give_up(context);
    }
}

/* Reads n answers to what was sent at that time. */
static void read_answers(struct runner *runner, struct model *model, redisContext *context, unsigned n,
                         int64_t sent)
{
    for (unsigned i = 0; i < n; i++) {
        redisReply *reply = NULL;
        if (redisGetReply(context, (void **)&reply) != REDIS_OK)
            give_up(context);
        model_check(model, reply, &runner->faults);
        freeReplyObject(reply);
    }
    record(runner, (uint64_t)(now_ns() - sent), n);
}

static void run_round(struct runner *runner, struct model **models, redisContext **contexts)
{
    unsigned sent[options.connections];
    int64_t when[options.connections];

    for (unsigned c = 0; c < options.connections; c++) {
        size_t bytes = 0;
        /* A request that fits the sockets' buffers can be written before any answer is read. */
        for (sent[c] = 0; sent[c] < options.pipeline && bytes < MOST_REQUEST_BYTES; sent[c]++)
            bytes += model_send(models[c], contexts[c]);
        when[c] = now_ns();
        flush(contexts[c]);
    }
    for (unsigned c = 0; c < options.connections; c++)
        read_answers(runner, models[c], contexts[c], sent[c], when[c]);
}

static void *run(void *arg)
{
    struct runner *runner = arg;
    struct model *models[options.connections];
    redisContext *contexts[options.connections];
    unsigned n_keys = options.keys / (options.threads * options.connections);

    n_keys = n_keys < 5 ? 5 : n_keys;
    for (unsigned c = 0; c < options.connections; c++) {
        unsigned number = runner->number * options.connections + c;
        contexts[c] = connect_to_server();
        models[c] = model_new(number, n_keys, options.seed + number * 1000003ull);
    }
    while (now_ns() < runner->deadline)
        run_round(runner, models, contexts);
    for (unsigned c = 0; c < options.connections; c++) {
        for (unsigned i = 0; i < n_keys; i++) {
            int64_t sent = now_ns();
            model_send_read(models[c], contexts[c], i);
            flush(contexts[c]);
            read_answers(runner, models[c], contexts[c], 1, sent);
        }
        redisFree(contexts[c]);
        model_free(models[c]);
    }
    return NULL;
}

/* In microseconds. */
static double percentile(const uint64_t *latencies, uint64_t n, uint64_t longest, double part)
{
    uint64_t wanted = (uint64_t)((double)n * part), seen = 0;

    for (unsigned b = 0; b < BUCKETS; b++) {
        seen += latencies[b];
        if (seen > wanted)
            return (double)(bucket_end(b) < longest ? bucket_end(b) : longest) / 1000;
    }
    return (double)longest / 1000;
}

static int check_values(void)
{
    struct runner *runners = calloc(options.threads, sizeof *runners);
    static uint64_t latencies[BUCKETS];
    uint64_t n = 0, longest = 0;
    struct faults faults = {0, 0, 0};
    int64_t start = now_ns();
    redisContext *context = connect_to_server();

    /* Keys of an earlier run would not be what the models say. */
    freeReplyObject(redisCommand(context, "FLUSHALL"));
    redisFree(context);
    for (unsigned t = 0; t < options.threads; t++) {
        runners[t].number = t;
        runners[t].deadline = start + (int64_t)(options.seconds * 1e9);
        if (pthread_create(&runners[t].thread, NULL, run, &runners[t]) != 0)
            return 1;
    }
    for (unsigned t = 0; t < options.threads; t++) {
        pthread_join(runners[t].thread, NULL);
        for (unsigned b = 0; b < BUCKETS; b++)
            latencies[b] += runners[t].latencies[b];
        n += runners[t].operations;
        longest = runners[t].longest > longest ? runners[t].longest : longest;
        faults.lost += runners[t].faults.lost;
        faults.corrupt += runners[t].faults.corrupt;
        faults.errors += runners[t].faults.errors;
    }
    free(runners);
    double seconds = (double)(now_ns() - start) / 1e9;
    printf("operations %" PRIu64 ", %.0f a second\n", n, (double)n / seconds);
    printf("latency us: p50 %.0f, p99 %.0f, p99.9 %.0f, max %.0f\n", percentile(latencies, n, longest, 0.5),
           percentile(latencies, n, longest, 0.99), percentile(latencies, n, longest, 0.999),
           (double)longest / 1000);
    printf("lost %" PRIu64 ", corrupt %" PRIu64 ", errors %" PRIu64 "\n", faults.lost, faults.corrupt,
           faults.errors);
    return faults.lost + faults.corrupt + faults.errors != 0;
}

static void usage(int status)
{
    fputs("usage: cached_check [--host ADDRESS] [--port N] [--seconds S] [--keys N] [--value-size MIN:MAX]\n"
          "                    [--pipeline N] [--threads N] [--connections N] [--seed N] [--evicting]\n"
          "       cached_check --hostile [--host ADDRESS] [--port N] [--seconds S] [--seed N]\n"
          "Empties the server, drives it with random commands and checks every answer; --hostile sends\n"
          "malformed and dropped commands instead.  --evicting: the server may forget keys.\n",
          status == 0 ? stdout : stderr);
    exit(status);
}

static void read_arguments(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"host", 1, NULL, 'h'},     {"port", 1, NULL, 'p'},        {"seconds", 1, NULL, 's'},
        {"keys", 1, NULL, 'k'},     {"value-size", 1, NULL, 'v'},  {"pipeline", 1, NULL, 'P'},
        {"threads", 1, NULL, 't'},  {"connections", 1, NULL, 'c'}, {"seed", 1, NULL, 'S'},
        {"evicting", 0, NULL, 'e'}, {"hostile", 0, NULL, 'H'},     {"help", 0, NULL, '?'},
        {NULL, 0, NULL, 0}};
    unsigned *const numbers[] = {['k'] = &options.keys,
                                 ['P'] = &options.pipeline,
                                 ['t'] = &options.threads,
                                 ['c'] = &options.connections};
    int option;

    options.seed = (uint64_t)now_ns();
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (option == 'h')
            options.host = optarg;
        else if (option == 'p')
            options.port = atoi(optarg);
        else if (option == 's')
            options.seconds = atof(optarg);
        else if (option == 'S')
            options.seed = strtoull(optarg, NULL, 0);
        else if (option == 'e')
            options.evicting = true;
        else if (option == 'H')
            options.hostile = true;
        else if (option == 'v' && sscanf(optarg, "%zu:%zu", &options.value_min, &options.value_max) == 2 &&
                 options.value_min <= options.value_max)
            continue;
        else if (option < (int)(sizeof numbers / sizeof numbers[0]) && numbers[option] != NULL &&
                 atoi(optarg) > 0)
            *numbers[option] = (unsigned)atoi(optarg);
        else
            usage(optarg == NULL && optopt == 0 ? 0 : 2);
    }
    if (optind < argc || options.pipeline > MOST_PIPELINE)
        usage(2);
}

int main(int argc, char **argv)
{
    read_arguments(argc, argv);
    printf("seed %" PRIu64 "\n", options.seed);
    fflush(stdout);
    if (!options.hostile)
        return check_values();
    unsigned faults = hostile_run();
    printf("hostile faults %u\n", faults);
    return faults != 0;
}
