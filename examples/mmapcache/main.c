/* main.c -- many threads read a table in a file through the cache, and check all they read.
 *
 * Each reader keeps some of the records it found on its stack, long after the cache has dropped their
 * segments, and passes others on to whoever comes next through a shelf that all share.  Then it checks
 * them again: bytes of a mapping that was unmapped too early would be gone, with a SIGSEGV, or be others.
 *
 * When the readers have ended the main thread drops the cache and the shelf, collects, and waits for the
 * cleanups: all that was mapped must be unmapped then.  Exits with 0 if it is and every record was intact.
 */
#include "cache.h"

#include <getopt.h>
#include <grey.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { HELD = 8, SHELF = 64, MOST_THREADS = 256, SAMPLE_MILLISECONDS = 50, MOST_CYCLES = 5 };

static struct {
    unsigned threads, resident, most_mapped;
    double seconds;
    size_t file_size;
    uint64_t seed;
} options = {.threads = 8, .resident = 64, .most_mapped = 1024, .seconds = 2, .file_size = 64 << 20};

/* All that the threads share in heap and mappings. */
struct shared {
    struct cache *cache;
    const struct record *shelf[SHELF];
};
GREY_ROOT(struct shared, shared);

struct reader {
    pthread_t thread;
    bool is_first;
    uint64_t random, lookups, faults;
};

static atomic_bool stop; /* relaxed: a moment later is as good */
static pthread_barrier_t all_readers;
static int file;
static size_t n_records;
static char path[] = "/tmp/mmapcache.XXXXXX";

static void die(const char *what, int error)
{
    fprintf(stderr, "mmapcache: %s: %s\n", what, strerror(error));
    exit(1);
}

/* ---- reading ---------------------------------------------------------------------------------- */

/* Four of five lookups go to a fifth of the file. */
static uint64_t draw_key(uint64_t *random)
{
    uint64_t draw = next_random(random);
    size_t of = draw % 5 != 0 ? n_records / 5 + 1 : n_records;

    return table_file_key(options.seed, (draw >> 8) % of);
}

static void check(struct reader *reader, const struct record *record)
{
    if (!record_is_intact(record))
        reader->faults++;
}

static void read_one(struct reader *reader, const struct record **held)
{
    uint64_t key = draw_key(&reader->random), draw = next_random(&reader->random);
    const struct record *record = cache_find(shared.cache, key);

    reader->lookups++;
    if (record == NULL || record->key != key) {
        reader->faults++;
        return;
    }
    check(reader, record);
    if (draw % 16 == 0) {
        record = grey_exchange(&shared.shelf[(draw >> 8) % SHELF], record);
        if (record == NULL)
            return;
        check(reader, record);
    }
    const struct record **place = &held[(draw >> 16) % HELD];
    if (*place != NULL)
        check(reader, *place);
    *place = record; /* a stack needs no grey_store */
}

/* By the first reader, not by the main thread, on whose stack some of the pointers it had might be left at
 * the end. */
static void open_cache(void)
{
    struct cache_options cache = {file, options.file_size / SEGMENT_SIZE, n_records, options.resident,
                                  options.most_mapped};

    grey_store(&shared.cache, cache_new(&cache));
    if (shared.cache == NULL)
        die("cannot open the table", errno);
}

/* Called in a blocking region, as all waiting should be. */
static int wait_for_all(void *arg)
{
    (void)arg;
    return pthread_barrier_wait(&all_readers);
}

static void *run_reader(void *arg)
{
    struct reader *reader = arg;
    const struct record *held[HELD] = {NULL};

    if (reader->is_first)
        open_cache();
    grey_blocking_call(wait_for_all, NULL);
    while (!atomic_load_explicit(&stop, memory_order_relaxed))
        read_one(reader, held);
    /* A thread's stack is unmapped when it ends.  If others went on, segments would be mapped in its place,
     * and old pointers to the stack, which one finds in many places, would be pointers to them. */
    grey_blocking_call(wait_for_all, NULL);
    return NULL;
}

/* ---- watching --------------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Lines of the address space that show the file. */
static unsigned count_mappings(void)
{
    char line[512];
    unsigned n = 0;
    FILE *maps = fopen("/proc/self/maps", "r");

    if (maps == NULL)
        die("/proc/self/maps", errno);
    while (fgets(line, sizeof line, maps) != NULL)
        n += strstr(line, path) != NULL;
    fclose(maps);
    return n;
}

/* Called in a blocking region: a thread that sleeps need not be woken for each cycle. */
static int sleep_a_little(void *arg)
{
    (void)arg;
    return usleep(SAMPLE_MILLISECONDS * 1000);
}

/* The most mappings seen while the readers run; *seconds: for how long they did. */
static unsigned run_readers(struct reader *readers, double *seconds)
{
    unsigned most = 0;
    double start = now();

    pthread_barrier_init(&all_readers, NULL, options.threads);
    for (unsigned i = 0; i < options.threads; i++) {
        readers[i].is_first = i == 0;
        readers[i].random = options.seed ^ (i + 1) * 0xd1342543de82ef95;
        int error = grey_thread_create(&readers[i].thread, NULL, run_reader, &readers[i]);
        if (error != 0)
            die("cannot start a thread", error);
    }
    while (now() - start < options.seconds) {
        grey_blocking_call(sleep_a_little, NULL);
        unsigned n = count_mappings();
        most = n > most ? n : most;
    }
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    for (unsigned i = 0; i < options.threads; i++)
        grey_thread_join(readers[i].thread, NULL);
    *seconds = now() - start;
    return most;
}

/* One cycle is enough unless a word on some stack happens to look like a pointer to a segment. */
static void drop_everything(void)
{
    struct cache_figures figures = cache_figures();

    grey_store(&shared.cache, NULL);
    for (unsigned i = 0; i < SHELF; i++)
        grey_store(&shared.shelf[i], NULL);
    for (int i = 0; i < MOST_CYCLES && figures.segments_mapped != figures.segments_unmapped; i++) {
        grey_collect();
        grey_cleanup_wait(-1);
        figures = cache_figures();
    }
}

static bool report(const struct reader *readers, double seconds, unsigned most_seen)
{
    uint64_t lookups = 0, faults = 0;
    unsigned left = count_mappings();
    struct cache_figures figures = cache_figures();
    struct grey_stats stats = GREY_STATS_INIT;

    for (unsigned i = 0; i < options.threads; i++) {
        lookups += readers[i].lookups;
        faults += readers[i].faults;
    }
    grey_stats_read(&stats);
    printf("seed %" PRIu64 ", %u threads, %.1f s, %zu records in %zu segments\n", options.seed,
           options.threads, seconds, n_records, options.file_size / SEGMENT_SIZE);
    printf("lookups: %" PRIu64 ", %.0f a second, %.1f %% not resident, %" PRIu64 " faults\n", lookups,
           (double)lookups / seconds, 100.0 * (double)figures.misses / (double)(lookups + 1), faults);
    printf("segments: %" PRIu64 " mapped, %" PRIu64 " unmapped, %" PRIu64 " MiB in all\n",
           figures.segments_mapped, figures.segments_unmapped, figures.segments_mapped * SEGMENT_SIZE >> 20);
    printf("mappings: at most %" PRIu64 " of %u allowed, %u seen in /proc/self/maps, %u left\n",
           figures.most_at_a_time, options.most_mapped, most_seen, left);
    printf("collector: %" PRIu64 " cycles, %" PRIu64 " of them waited for; pauses p50 %.1f us, p99 %.1f us, "
           "max %.1f us\n",
           stats.cycles, figures.waits, (double)stats.pause_p50_ns / 1e3, (double)stats.pause_p99_ns / 1e3,
           (double)stats.pause_max_ns / 1e3);
    return faults == 0 && lookups > 0 && left == 0 && figures.segments_mapped == figures.segments_unmapped &&
           figures.most_at_a_time <= options.most_mapped && most_seen <= options.most_mapped;
}

/* ---- options ---------------------------------------------------------------------------------- */

static void usage(FILE *to)
{
    fputs("usage: mmapcache [options]\n"
          "  --threads N       readers (8)\n"
          "  --seconds S       how long they read (2)\n"
          "  --file-size SIZE  of the table, such as 64m or 2g (64m)\n"
          "  --resident N      segments of 128 KiB that the cache keeps mapped (64)\n"
          "  --most-mapped N   mappings at any time (1024, at least what all readers can hold)\n"
          "  --seed N          of all random choices (by the clock)\n"
          "  --help            print this\n",
          to);
}

static double number(const char *text, double least, double most)
{
    char *end;
    double n = strtod(text, &end);

    if (end != text && (*end == 'k' || *end == 'm' || *end == 'g'))
        n *= 1 << (*end == 'k' ? 10 : *end == 'm' ? 20 : 30), end++;
    if (end != text && *end == '\0' && n >= least && n <= most)
        return n;
    fprintf(stderr, "mmapcache: %s is not a number from %g to %g\n", text, least, most);
    exit(2);
}

static void read_arguments(int argc, char **argv)
{
    static const struct option names[] = {{"threads", required_argument, NULL, 't'},
                                          {"seconds", required_argument, NULL, 's'},
                                          {"file-size", required_argument, NULL, 'f'},
                                          {"resident", required_argument, NULL, 'r'},
                                          {"seed", required_argument, NULL, 'x'},
                                          {"most-mapped", required_argument, NULL, 'm'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    int option;

    options.seed = (uint64_t)time(NULL);
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        if (option == 't')
            options.threads = (unsigned)number(optarg, 1, MOST_THREADS);
        else if (option == 's')
            options.seconds = number(optarg, 0, 1e6);
        else if (option == 'f')
            options.file_size = (size_t)number(optarg, SEGMENT_SIZE, 1e12);
        else if (option == 'r')
            options.resident = (unsigned)number(optarg, 1, 60000);
        else if (option == 'm')
            options.most_mapped = (unsigned)number(optarg, 1, 60000);
        else if (option == 'x')
            options.seed = strtoull(optarg, NULL, 0);
        else {
            usage(option == 'h' ? stdout : stderr);
            exit(option == 'h' ? 0 : 2);
        }
    }
    /* A reader holds HELD records and has two more in hand. */
    unsigned reachable = options.resident + SHELF + options.threads * (HELD + 2);
    if (optind < argc || options.most_mapped <= reachable) {
        if (optind == argc)
            fprintf(stderr, "mmapcache: --most-mapped must be more than %u\n", reachable);
        usage(stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    static struct reader readers[MOST_THREADS];
    double seconds;

    read_arguments(argc, argv);
    file = mkstemp(path);
    if (file < 0)
        die(path, errno);
    unlink(path);
    int error = table_file_write(file, options.file_size / SEGMENT_SIZE, options.seed, &n_records);
    if (error != 0)
        die(path, error);
    error = grey_init(NULL);
    if (error != 0)
        die("grey", error);
    unsigned most_seen = run_readers(readers, &seconds);
    drop_everything();
    bool passed = report(readers, seconds, most_seen);
    grey_shutdown();
    close(file);
    puts(passed ? "mmapcache: all as expected" : "mmapcache: FAILED");
    return passed ? 0 : 1;
}
