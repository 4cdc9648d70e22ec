/* bench.c -- options, clocks, costs and results of the benchmarks.
 *
 * Peak memory is VmHWM, not ru_maxrss: the latter survives exec, so that a child of a big process (the
 * Python driver) would begin with its parent's peak.  Writing 5 to clear_refs resets VmHWM, which gives
 * each section of a program its own; where a kernel refuses that, the peak is the program's.
 */
#include "bench.h"

#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static uint64_t seed_given = 1;

void bench_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    fputs("bench: failed: ", stderr);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, " (seed %llu)\n", (unsigned long long)seed_given);
    va_end(arguments);
    _exit(1); /* other threads still run: no destructors beside them */
}

static _Noreturn void usage(const char *program)
{
    fprintf(stderr,
            "usage: %s [--quick] [--full] [--threads N] [--workers N] [--depth N] [--mib N] [--entries N] "
            "[--seconds N] [--rate N] [--variant NAME] [--seed N]\n",
            program);
    exit(2);
}

static unsigned long long number(const char *program, const char *text)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (end == text || *end != '\0' || value > UINT32_MAX)
        usage(program);
    return value;
}

void bench_parse(int argc, char **argv, struct bench_options *options)
{
    memset(options, 0, sizeof *options);
    options->seed = 1;
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        if (strcmp(name, "--quick") == 0) {
            options->quick = true;
            continue;
        }
        if (strcmp(name, "--full") == 0) {
            options->full = true;
            continue;
        }
        if (i + 1 == argc)
            usage(argv[0]);
        const char *value = argv[++i];
        if (strcmp(name, "--threads") == 0)
            options->threads = (unsigned)number(argv[0], value);
        else if (strcmp(name, "--workers") == 0)
            options->workers = (unsigned)number(argv[0], value);
        else if (strcmp(name, "--depth") == 0)
            options->depth = (unsigned)number(argv[0], value);
        else if (strcmp(name, "--mib") == 0)
            options->mib = (size_t)number(argv[0], value);
        else if (strcmp(name, "--entries") == 0)
            options->entries = (size_t)number(argv[0], value);
        else if (strcmp(name, "--seconds") == 0)
            options->seconds = (unsigned)number(argv[0], value);
        else if (strcmp(name, "--rate") == 0)
            options->rate = (unsigned)number(argv[0], value);
        else if (strcmp(name, "--seed") == 0)
            options->seed = number(argv[0], value);
        else if (strcmp(name, "--variant") == 0)
            options->variant = value;
        else
            usage(argv[0]);
    }
    seed_given = options->seed;
}

uint64_t bench_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* All threads of the process, the collector's own among them. */
static uint64_t process_cpu(void)
{
    struct rusage usage_now;
    getrusage(RUSAGE_SELF, &usage_now);
    uint64_t us = ((uint64_t)usage_now.ru_utime.tv_sec + (uint64_t)usage_now.ru_stime.tv_sec) * 1000000u +
                  (uint64_t)usage_now.ru_utime.tv_usec + (uint64_t)usage_now.ru_stime.tv_usec;
    return us * 1000u;
}

static void reset_peak(void)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, "5", 1) != 1)
        fputs("bench: peak memory can't be reset here: it is that of the whole program\n", stderr);
    close(fd);
}

/* By hand: stdio would allocate, and be the peer's allocator under measurement. */
static double peak_mib(void)
{
    char text[4096];
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    BENCH_CHECK(fd >= 0);
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    BENCH_CHECK(length > 0);
    text[length] = '\0';
    const char *line = strstr(text, "VmHWM:");
    BENCH_CHECK(line != NULL);
    return (double)strtoull(line + strlen("VmHWM:"), NULL, 10) / 1024;
}

void bench_begin(struct bench_section *section)
{
    reset_peak();
    section->cpu_ns = process_cpu();
    section->wall_ns = bench_now();
}

void bench_end(struct bench_section *section)
{
    section->wall_ns = bench_now() - section->wall_ns;
    section->cpu_ns = process_cpu() - section->cpu_ns;
    section->rss_mib = peak_mib();
}

void bench_print(const struct bench_result *result, const struct bench_section *section, const char *format,
                 ...)
{
    va_list arguments;
    printf("result workload=%s peer=%s case=", result->workload, result->peer);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf(" metric=%s value=%.6g unit=%s better=%s cpu_s=%.6g rss_mib=%.1f\n", result->metric, result->value,
           result->unit, result->better == BENCH_HIGHER ? "higher" : "lower", (double)section->cpu_ns / 1e9,
           section->rss_mib);
    fflush(stdout);
}

static bool series_empty;

void bench_series_begin(const char *workload, const char *peer, const char *name, const char *unit,
                        const char *case_name)
{
    printf("series workload=%s peer=%s case=%s name=%s unit=%s points=", workload, peer, case_name, name,
           unit);
    series_empty = true;
}

void bench_series_point(double x, double y)
{
    printf("%s%.9g:%.6g", series_empty ? "" : ",", x, y);
    series_empty = false;
}

void bench_series_end(void)
{
    putchar('\n');
    fflush(stdout);
}

void bench_merge(struct bench_histogram *into, const struct bench_histogram *from)
{
    for (size_t i = 0; i < BENCH_BUCKETS; i++)
        into->counts[i] += from->counts[i];
    into->n += from->n;
    if (from->longest > into->longest)
        into->longest = from->longest;
}

double bench_percentile(const struct bench_histogram *histogram, double fraction)
{
    uint64_t below = (uint64_t)(fraction * (double)histogram->n), seen = 0;
    for (uint64_t i = 0; i < BENCH_BUCKETS; i++) {
        seen += histogram->counts[i];
        if (seen > below) {
            uint64_t shift = i < 2 * BENCH_STEPS ? 0 : i / BENCH_STEPS - 1;
            uint64_t high = ((i - shift * BENCH_STEPS + 1) << shift) - 1;
            return (double)(high < histogram->longest ? high : histogram->longest);
        }
    }
    return (double)histogram->longest;
}

void bench_print_percentiles(const char *workload, const char *peer, const char *name, const char *case_name,
                             const struct bench_histogram *histogram)
{
    enum { PER_NINE = 8 };
    bench_series_begin(workload, peer, name, "us", case_name);
    for (int i = 0;; i++) {
        double rest = 0.5 * pow(10, -(double)i / PER_NINE); /* the share above */
        if (rest * (double)histogram->n < 1)
            break;
        bench_series_point(1 - rest, bench_percentile(histogram, 1 - rest) / 1e3);
    }
    bench_series_point(1, (double)histogram->longest / 1e3);
    bench_series_end();
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_quantile(double *values, size_t n, double fraction)
{
    BENCH_CHECK(n > 0);
    qsort(values, n, sizeof *values, compare);
    size_t rank = (size_t)(fraction * (double)(n - 1) + 0.5);
    return values[rank];
}
