/* bench.h -- what every benchmark needs and no peer knows of: options, clocks, costs, results.
 *
 * A benchmark is one .c file, compiled once for each peer (peer.h).  It prints one line for each result,
 *
 *     result workload=churn peer=grey case=16-512,threads=2 metric=rate value=12.3 unit=M/s
 *            better=higher cpu_s=1.21 rss_mib=33.0
 *
 * on one line of key=value pairs, which scripts/bench reads.  Every result carries the processor time and the
 * peak memory of the section that it measures: a collector can buy speed with either, so a figure
 * without them says little.
 *
 * Every benchmark checks what it computed and ends with status 1 if an object was lost: it is a test as
 * well.
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bench_options {
    bool quick;          /* sizes that take a fraction of a second, to see that it works */
    unsigned threads;    /* 0: the benchmark's own choice, as for all of these */
    unsigned workers;    /* mark workers; 0: the collector's own choice */
    unsigned depth;      /* binary_trees */
    size_t mib;          /* graph, store */
    const char *variant; /* graph, churn, handshake; NULL: the first */
    uint64_t seed;       /* printed when a check fails; 1 if not given, so that peers see the same input */
};
void bench_parse(int argc, char **argv, struct bench_options *options);

/* Prints the message and the seed, exits with status 1. */
_Noreturn void bench_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define BENCH_CHECK(x)                                                                                       \
    do {                                                                                                     \
        if (__builtin_expect(!(x), 0))                                                                       \
            bench_fail("%s:%d: %s", __FILE__, __LINE__, #x);                                                 \
    } while (0)

uint64_t bench_now(void); /* CLOCK_MONOTONIC, ns */

/* What a measured section cost. */
struct bench_section {
    uint64_t wall_ns, cpu_ns;
    double rss_mib; /* peak */
};
void bench_begin(struct bench_section *section);
void bench_end(struct bench_section *section);

enum bench_better { BENCH_LOWER, BENCH_HIGHER };
struct bench_result {
    const char *workload, *peer, *metric, *unit;
    enum bench_better better;
    double value;
};
/* The format makes the name of the case: pairs with commas between them, no blanks. */
void bench_print(const struct bench_result *result, const struct bench_section *section, const char *format,
                 ...) __attribute__((format(printf, 3, 4)));

/* Sorts values; the fraction's quantile (0.5 is the median).  n is at least 1. */
double bench_quantile(double *values, size_t n, double fraction);

/* splitmix64: small, and good enough to pick sizes and edges with. */
static inline uint64_t bench_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* One of [0, n), n < 2^32, without a division. */
static inline uint32_t bench_below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(((bench_random(state) >> 32) * n) >> 32);
}

#endif
