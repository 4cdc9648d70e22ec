/* settings.c -- options and knobs.
 *
 * The knobs show Grey's two: gc-percent (how much the heap may grow before the next cycle: less memory
 * against more work) and gc-memory-limit (a soft limit, near which cycles come more often).
 */
#include "settings.h"

#include <getopt.h>
#include <grey.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

struct settings settings = {.bind = "127.0.0.1",
                            .port = 6380,
                            .metrics_port = -1,
                            .threads = 2,
                            .mmap_size = 256 << 20,
                            .mmap_threshold = 32 << 10};

enum { MOST_THREADS = 256 };

/* Relaxed: values that are a moment old are as good. */
static atomic_uint_fast64_t maxmemory;
static atomic_size_t zero_copy = 16 << 10;

uint64_t settings_maxmemory(void) { return atomic_load_explicit(&maxmemory, memory_order_relaxed); }

size_t settings_zero_copy(void) { return atomic_load_explicit(&zero_copy, memory_order_relaxed); }

static void get_maxmemory(char *text, size_t size)
{
    snprintf(text, size, "%llu", (unsigned long long)settings_maxmemory());
}

static bool set_maxmemory(struct slice value)
{
    size_t bytes;

    if (!slice_size(value, &bytes))
        return false;
    atomic_store_explicit(&maxmemory, bytes, memory_order_relaxed);
    return true;
}

static void get_zero_copy(char *text, size_t size) { snprintf(text, size, "%zu", settings_zero_copy()); }

static bool set_zero_copy(struct slice value)
{
    size_t bytes;

    if (!slice_size(value, &bytes))
        return false;
    atomic_store_explicit(&zero_copy, bytes, memory_order_relaxed);
    return true;
}

/* The percentage can only be read by setting it: the lock keeps the two steps together. */
static pthread_mutex_t percent_lock = PTHREAD_MUTEX_INITIALIZER;

static void get_percent(char *text, size_t size)
{
    pthread_mutex_lock(&percent_lock);
    int percent = grey_set_percent(100);
    grey_set_percent(percent);
    pthread_mutex_unlock(&percent_lock);
    snprintf(text, size, "%d", percent);
}

static bool set_percent(struct slice value)
{
    int64_t percent;

    if (!slice_integer(value, &percent) || percent < -1 || percent > INT_MAX)
        return false;
    pthread_mutex_lock(&percent_lock);
    grey_set_percent((int)percent);
    pthread_mutex_unlock(&percent_lock);
    return true;
}

static void get_memory_limit(char *text, size_t size)
{
    size_t limit = grey_set_memory_limit(0);

    snprintf(text, size, "%zu", limit == SIZE_MAX ? 0 : limit);
}

static bool set_memory_limit(struct slice value)
{
    size_t limit;

    if (!slice_size(value, &limit))
        return false;
    grey_set_memory_limit(limit == 0 ? SIZE_MAX : limit);
    return true;
}

static void get_policy(char *text, size_t size) { snprintf(text, size, "allkeys-lru"); }

/* redis-benchmark asks for these two: nothing is ever written to a disk. */
static void get_save(char *text, size_t size) { snprintf(text, size, "%s", ""); }

static void get_appendonly(char *text, size_t size) { snprintf(text, size, "no"); }

static const struct knob knobs[] = {
    {"maxmemory", get_maxmemory, set_maxmemory},
    {"maxmemory-policy", get_policy, NULL},
    {"zero-copy", get_zero_copy, set_zero_copy},
    {"gc-percent", get_percent, set_percent},
    {"gc-memory-limit", get_memory_limit, set_memory_limit},
    {"save", get_save, NULL},
    {"appendonly", get_appendonly, NULL},
};

const struct knob *settings_knobs(size_t *n)
{
    *n = sizeof knobs / sizeof knobs[0];
    return knobs;
}

static void usage(FILE *to)
{
    fputs("usage: cached [options]\n"
          "  --bind ADDRESS       listen on this address (127.0.0.1)\n"
          "  --port N             listen on this port (6380); 0 takes a free one\n"
          "  --threads N          threads that serve clients (2)\n"
          "  --maxmemory SIZE     evict keys beyond this, 700mb for example (no limit)\n"
          "  --zero-copy SIZE     send values of this size and more without copying (16kb); 0: none\n"
          "  --mmap-file PATH     keep large values in this file, which is overwritten, not in the heap\n"
          "  --mmap-size SIZE     of the file (256mb)\n"
          "  --mmap-threshold SIZE  of the values that go there (32kb)\n"
          "  --metrics-port N     serve OpenMetrics at http://ADDRESS:N/metrics; 0 takes a free one\n"
          "  --help               print this\n",
          to);
}

static int number(const char *text, int least, int most)
{
    int64_t n;

    if (slice_integer(slice_of(text), &n) && n >= least && n <= most)
        return (int)n;
    fprintf(stderr, "cached: %s is not a number from %d to %d\n", text, least, most);
    exit(2);
}

static size_t size_of(const char *text)
{
    size_t size;

    if (slice_size(slice_of(text), &size))
        return size;
    fprintf(stderr, "cached: %s is not a size\n", text);
    exit(2);
}

void settings_read_arguments(int argc, char **argv)
{
    static const struct option options[] = {{"bind", required_argument, NULL, 'b'},
                                            {"port", required_argument, NULL, 'p'},
                                            {"threads", required_argument, NULL, 't'},
                                            {"maxmemory", required_argument, NULL, 'm'},
                                            {"zero-copy", required_argument, NULL, 'z'},
                                            {"mmap-file", required_argument, NULL, 'f'},
                                            {"mmap-size", required_argument, NULL, 's'},
                                            {"mmap-threshold", required_argument, NULL, 'l'},
                                            {"metrics-port", required_argument, NULL, 'x'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'b':
            settings.bind = optarg;
            break;
        case 'p':
            settings.port = number(optarg, 0, 65535);
            break;
        case 't':
            settings.threads = (unsigned)number(optarg, 1, MOST_THREADS);
            break;
        case 'x':
            settings.metrics_port = number(optarg, 0, 65535);
            break;
        case 'm':
            atomic_store_explicit(&maxmemory, size_of(optarg), memory_order_relaxed);
            break;
        case 'z':
            atomic_store_explicit(&zero_copy, size_of(optarg), memory_order_relaxed);
            break;
        case 'f':
            settings.mmap_file = optarg;
            break;
        case 's':
            settings.mmap_size = size_of(optarg);
            break;
        case 'l':
            settings.mmap_threshold = size_of(optarg);
            break;
        case 'h':
            usage(stdout);
            exit(0);
        default:
            usage(stderr);
            exit(2);
        }
    }
    if (optind < argc) {
        usage(stderr);
        exit(2);
    }
}
