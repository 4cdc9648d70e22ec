/* main.c -- threads that read a file through rings, abandon the rings, and go on using what they read.
 *
 * Each thread opens a ring, keeps it full of reads for a while, and then, three times of four, just forgets
 * it with reads in flight; otherwise it closes it by hand.  The reads that were answered go on living: on
 * the thread's stack, and on a shelf from which any other thread may take them.  They are checked when they
 * arrive and again when they are let go of: every word of the file says where it belongs, so a buffer that
 * was used anew too early cannot look right.
 *
 * At the end all rings must be closed, all tables unmapped and all buffers back, and no descriptor left open.
 * Exits with 0 then, with 1 if not, and with 77 where io_uring isn't permitted.
 */
#include "file.h"
#include "ring.h"

#include <dirent.h>
#include <getopt.h>
#include <grey.h>
#include <inttypes.h>
#include <liburing.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    HELD = 8,
    SHELF = 32,
    MOST_THREADS = 256,
    SKIPPED = 77,
    MOST_READS = 400,
    BLOCK = 4096,
    MOST_CYCLES = 6
};

static struct {
    unsigned threads, depth, buffers;
    double seconds;
    size_t file_size;
    uint64_t seed;
    bool direct;
} options = {.threads = 4, .depth = 32, .buffers = 4096, .seconds = 2, .file_size = 16 << 20};

/* Answered reads that anybody may take. */
struct shelf {
    struct read *reads[SHELF];
};
GREY_ROOT(struct shelf, shelf);

struct reader {
    pthread_t thread;
    uint64_t random, reads, bytes, faults;
};

static atomic_bool stop; /* relaxed: a moment later is as good */
static pthread_barrier_t all_stopped;
static int file;

/* ---- reading ---------------------------------------------------------------------------------- */

/* Starts reads until the ring is full.  Every second one is left to a thread of the kernel's, so that it is
 * really in flight although the file is in memory. */
static void fill(struct reader *reader, struct ring *ring)
{
    for (;;) {
        uint64_t draw = next_random(&reader->random);
        uint32_t size = BLOCK * (1 + (uint32_t)(draw % (BUFFER_SIZE / BLOCK)));
        uint64_t blocks = (options.file_size - BUFFER_SIZE) / BLOCK;
        int error = ring_read(ring, file, (draw >> 8) % blocks * BLOCK, size, draw >> 63 ? IOSQE_ASYNC : 0);
        if (error == EAGAIN)
            return;
        if (error != 0)
            die("cannot read", error);
    }
}

static void check(struct reader *reader, const struct read *read)
{
    if (!file_is_right(read->data, read->size, read->offset))
        reader->faults++;
}

/* Keeps the read in some place, and lets go of one that was kept before. */
static void keep(struct reader *reader, struct read *read, struct read **held)
{
    uint64_t draw = next_random(&reader->random);

    if (draw % 4 == 0) {
        read = grey_exchange(&shelf.reads[(draw >> 8) % SHELF], read);
        if (read == NULL)
            return;
        check(reader, read);
    }
    struct read **place = &held[(draw >> 16) % HELD];
    if (*place != NULL)
        check(reader, *place);
    *place = read; /* a stack needs no grey_store */
}

/* The life of one ring. */
static void use_a_ring(struct reader *reader, struct read **held)
{
    struct ring *ring = ring_open(options.depth);
    uint64_t draw = next_random(&reader->random);

    if (ring == NULL)
        die("cannot open a ring", errno);
    for (uint64_t n = 1 + (draw >> 8) % MOST_READS; n > 0; n--) {
        fill(reader, ring);
        struct read *read = ring_wait(ring);
        if (read == NULL || read->result != (int32_t)read->size ||
            !file_is_right(read->data, read->size, read->offset)) {
            reader->faults++;
            continue;
        }
        reader->reads++;
        reader->bytes += read->size;
        keep(reader, read, held);
    }
    if (draw % 4 == 0)
        ring_close(ring);
}

/* Called in a blocking region, as all waiting should be. */
static int wait_for_all(void *arg)
{
    (void)arg;
    return pthread_barrier_wait(&all_stopped);
}

static void *run_reader(void *arg)
{
    struct read *held[HELD] = {NULL};

    while (!atomic_load_explicit(&stop, memory_order_relaxed))
        use_a_ring(arg, held);
    /* A thread's stack is unmapped when it ends.  If others went on, rings would be mapped in its place, and
     * old pointers to the stack, which one finds in many places, would be pointers to them. */
    grey_blocking_call(wait_for_all, NULL);
    return NULL;
}

/* ---- the end ---------------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int sleep_for(void *seconds) { return usleep((useconds_t)(*(double *)seconds * 1e6)); }

static unsigned count_descriptors(void)
{
    unsigned n = 0;
    DIR *folder = opendir("/proc/self/fd");

    if (folder == NULL)
        die("/proc/self/fd", errno);
    while (readdir(folder) != NULL)
        n++;
    closedir(folder);
    return n;
}

static bool is_all_back(void)
{
    struct ring_figures rings = ring_figures();
    struct buffer_figures buffers = buffer_figures();

    return rings.opened == rings.closed_by_hand + rings.closed_by_cleanup &&
           rings.opened == rings.tables_unmapped && buffers.taken == buffers.back;
}

/* Two cycles are needed: what a ring's cleanup needs is unreachable only after it has run.  More, if a word
 * on some stack happens to look like a pointer. */
static void drop_everything(void)
{
    for (unsigned i = 0; i < SHELF; i++)
        grey_store(&shelf.reads[i], NULL);
    for (int cycle = 0; cycle < MOST_CYCLES && !is_all_back(); cycle++) {
        grey_collect();
        grey_cleanup_wait(-1);
    }
}

static bool report(const struct reader *readers, double seconds, unsigned descriptors_left)
{
    uint64_t reads = 0, bytes = 0, faults = 0;
    struct ring_figures rings = ring_figures();
    struct buffer_figures buffers = buffer_figures();
    struct grey_stats stats = GREY_STATS_INIT;

    for (unsigned i = 0; i < options.threads; i++) {
        reads += readers[i].reads;
        bytes += readers[i].bytes;
        faults += readers[i].faults;
    }
    grey_stats_read(&stats);
    printf("seed %" PRIu64 ", %u threads, depth %u, %.1f s\n", options.seed, options.threads, options.depth,
           seconds);
    printf("reads: %" PRIu64 ", %.0f a second, %.0f MiB/s, %" PRIu64 " faults\n", reads,
           (double)reads / seconds, (double)bytes / seconds / (1 << 20), faults);
    printf("rings: %" PRIu64 " opened, %" PRIu64 " closed by hand, %" PRIu64
           " by their cleanup, with %" PRIu64 " reads in flight; %" PRIu64
           " tables unmapped, %u descriptors left\n",
           rings.opened, rings.closed_by_hand, rings.closed_by_cleanup, rings.abandoned,
           rings.tables_unmapped, descriptors_left);
    printf("buffers: %" PRIu64 " taken, %" PRIu64 " back, %" PRIu64 " waits for one\n", buffers.taken,
           buffers.back, buffers.waits);
    printf("collector: %" PRIu64 " cycles; pauses p50 %.1f us, p99 %.1f us, max %.1f us\n", stats.cycles,
           (double)stats.pause_p50_ns / 1e3, (double)stats.pause_p99_ns / 1e3,
           (double)stats.pause_max_ns / 1e3);
    return faults == 0 && reads > 0 && is_all_back() && descriptors_left == 0;
}

/* ---- options ---------------------------------------------------------------------------------- */

static void usage(FILE *to)
{
    fputs("usage: ring [options]\n"
          "  --threads N       readers (4)\n"
          "  --depth N         reads in flight in each ring (32)\n"
          "  --buffers N       of 16 KiB, for all (4096)\n"
          "  --seconds S       how long they read (2)\n"
          "  --file-size MIB   of the file, in TMPDIR or /tmp (16)\n"
          "  --direct          past the page cache (O_DIRECT)\n"
          "  --seed N          of all random choices (by the clock)\n"
          "  --help            print this\n",
          to);
}

static double number(const char *text, double least, double most)
{
    char *end;
    double n = strtod(text, &end);

    if (end != text && *end == '\0' && n >= least && n <= most)
        return n;
    fprintf(stderr, "ring: %s is not a number from %g to %g\n", text, least, most);
    exit(2);
}

static void read_arguments(int argc, char **argv)
{
    static const struct option names[] = {{"threads", required_argument, NULL, 't'},
                                          {"depth", required_argument, NULL, 'd'},
                                          {"buffers", required_argument, NULL, 'b'},
                                          {"seconds", required_argument, NULL, 's'},
                                          {"direct", no_argument, NULL, 'o'},
                                          {"file-size", required_argument, NULL, 'f'},
                                          {"seed", required_argument, NULL, 'x'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    int option;

    options.seed = (uint64_t)time(NULL);
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        if (option == 't')
            options.threads = (unsigned)number(optarg, 1, MOST_THREADS);
        else if (option == 'd')
            options.depth = (unsigned)number(optarg, 1, 1024);
        else if (option == 'b')
            options.buffers = (unsigned)number(optarg, 1, 1e6);
        else if (option == 's')
            options.seconds = number(optarg, 0, 1e6);
        else if (option == 'f')
            options.file_size = (size_t)number(optarg, 1, 1e6) << 20;
        else if (option == 'x')
            options.seed = strtoull(optarg, NULL, 0);
        else if (option == 'o')
            options.direct = true;
        else {
            usage(option == 'h' ? stdout : stderr);
            exit(option == 'h' ? 0 : 2);
        }
    }
    /* What is reachable at most, and room for the abandoned rings that the collector doesn't know yet. */
    unsigned least = SHELF + options.threads * (HELD + 2 + 4 * options.depth);
    if (optind < argc || options.buffers < least) {
        if (optind == argc)
            fprintf(stderr, "ring: --buffers must be at least %u\n", least);
        usage(stderr);
        exit(2);
    }
}

/* Static, because addresses left on the main thread's stack could be those of a ring opened later. */
static void probe(void)
{
    static struct io_uring uring;
    int error = io_uring_queue_init(1, &uring, 0);

    if (error == 0) {
        io_uring_queue_exit(&uring);
        return;
    }
    fprintf(stderr, "ring: io_uring: %s\n", strerror(-error));
    exit(error == -ENOSYS || error == -EPERM ? SKIPPED : 1);
}

int main(int argc, char **argv)
{
    static struct reader readers[MOST_THREADS];

    read_arguments(argc, argv);
    probe();
    file = file_make(options.seed, options.file_size, options.direct);
    int error = buffers_open(options.buffers);
    if (error == 0)
        error = grey_init(NULL);
    if (error != 0)
        die("cannot start", error);
    unsigned descriptors = count_descriptors();
    double start = now();
    pthread_barrier_init(&all_stopped, NULL, options.threads);
    for (unsigned i = 0; i < options.threads; i++) {
        readers[i].random = options.seed ^ (i + 1) * 0xd1342543de82ef95;
        error = grey_thread_create(&readers[i].thread, NULL, run_reader, &readers[i]);
        if (error != 0)
            die("cannot start a thread", error);
    }
    grey_blocking_call(sleep_for, &options.seconds);
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    for (unsigned i = 0; i < options.threads; i++)
        grey_thread_join(readers[i].thread, NULL);
    double seconds = now() - start;

    drop_everything();
    bool passed = report(readers, seconds, count_descriptors() - descriptors);
    grey_shutdown();
    buffers_close();
    close(file);
    puts(passed ? "ring: all as expected" : "ring: FAILED");
    return passed ? 0 : 1;
}
