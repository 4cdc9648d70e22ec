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
    unsigned seconds;    /* cache, threads: of each measured section */
    unsigned rate;       /* cache: operations a second, instead of shares of the capacity */
    size_t entries;      /* cache */
    size_t mib;          /* graph, store; growth: the last size */
    bool full;           /* growth: to 8 GiB */
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

/* Points of a curve for the report, which belong to no row of the table:
 *
 *     series workload=cache peer=grey case=... name=latency unit=us points=0.5:3.1,0.9:7.2,...
 *
 * Begin, any number of points, end. */
void bench_series_begin(const char *workload, const char *peer, const char *name, const char *unit,
                        const char *case_name);
void bench_series_point(double x, double y);
void bench_series_end(void);

/* Times in ns: exact up to 127, then to 1/64 of the value; longest is exact.  30 KiB, so that a thread can
 * count every operation without a store that misses the cache.  Zeroed is empty. */
enum { BENCH_STEPS = 64, BENCH_BUCKETS = 59 * BENCH_STEPS };
struct bench_histogram {
    uint64_t counts[BENCH_BUCKETS], n, longest;
};
static inline unsigned bench_bucket(uint64_t ns)
{
    if (ns < BENCH_STEPS)
        return (unsigned)ns;
    unsigned shift = 57 - (unsigned)__builtin_clzll(ns);
    return shift * BENCH_STEPS + (unsigned)(ns >> shift);
}
static inline void bench_count(struct bench_histogram *histogram, uint64_t ns)
{
    histogram->counts[bench_bucket(ns)]++;
    histogram->n++;
    if (ns > histogram->longest)
        histogram->longest = ns;
}
void bench_merge(struct bench_histogram *into, const struct bench_histogram *from);
/* The highest time that the fraction's bucket stands for, at most the longest; 0 if there are none. */
double bench_percentile(const struct bench_histogram *histogram, double fraction);
/* Percentiles from the median to the longest, evenly spaced in the number of nines; microseconds. */
void bench_print_percentiles(const char *workload, const char *peer, const char *name, const char *case_name,
                             const struct bench_histogram *histogram);

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
