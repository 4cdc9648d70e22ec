/* pinned.c -- ring_pinned: reads into buffers in the Grey heap that nothing points to but the kernel.
 *
 * A C interface that works in the background keeps what it was given where no collector looks.  Until it has
 * answered, that must be kept alive by call:
 *
 *     user_data    a handle (grey_hold): a number, so that it can lie anywhere, and never given twice, so
 *     that
 *                  an answer that comes late or twice is known as such
 *     the read     what the handle holds, with all it points to: pinner and iovecs
 *     the buffers  in the iovecs, which are a leaf object: the kernel's format, and the kernel reads them;
 *     the
 *                  collector doesn't.  So each buffer is pinned.  One pinner has them all, and one call lets
 *                  them go
 *
 * When the answer is there the order is: find the read by its number, store the buffers' addresses where the
 * collector sees them, unpin, drop the handle.
 *
 * Meanwhile the main thread collects, one cycle after the other: a buffer that is not kept is free within
 * milliseconds and is given to the next read of any thread, and one of the two reads the wrong part of the
 * file. Every word that was read is checked, when it has come and again later.
 */
#include "file.h"
#include "queue.h"

#include <errno.h>
#include <getopt.h>
#include <grey.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MOST_THREADS = 256, MOST_PIECES = 4, BLOCK = 4096, MOST_BLOCKS = 4, HELD = 8 };

struct read {
    struct grey_pinner *pinner;
    struct iovec *vector; /* a leaf object */
    unsigned n;
    uint64_t offset;
    size_t size;
    void *pieces[MOST_PIECES]; /* the buffers, once the read is done */
};
GREY_TYPE(read_type, struct read, pinner, vector, GREY_ARRAY(pieces, MOST_PIECES));

struct reader {
    pthread_t thread;
    uint64_t random, reads, pieces, bytes, faults;
};

static struct {
    unsigned threads, depth, cycles;
    double seconds;
    size_t file_size;
    uint64_t seed;
    bool direct, uring;
} options = {.threads = 4, .depth = 32, .cycles = 10, .seconds = 2, .file_size = 16 << 20, .uring = true};

static atomic_bool stop; /* relaxed: a moment later is as good */
static int file;

/* ---- a read ----------------------------------------------------------------------------------- */

/* A buffer of some blocks, pinned, and known to the iovec only. */
static size_t add_piece(struct read *read, unsigned i, size_t blocks)
{
    void *buffer = grey_alloc_leaf_aligned(BLOCK, blocks * BLOCK);
    int error = buffer != NULL ? grey_pin(read->pinner, buffer) : ENOMEM;

    if (error != 0)
        die("cannot pin", error);
    read->vector[i] = (struct iovec){buffer, blocks * BLOCK};
    return blocks * BLOCK;
}

/* Not inlined: what is left of it on the stack would keep the buffers. */
__attribute__((noinline)) static void begin_read(struct reader *reader, struct queue *queue)
{
    uint64_t draw = next_random(&reader->random);
    struct read *read = grey_new(&read_type);
    struct grey_pinner *pinner = grey_pinner_new();
    struct iovec *vector = grey_zalloc_leaf(MOST_PIECES * sizeof *vector);

    if (read == NULL || pinner == NULL || vector == NULL)
        die("cannot read", ENOMEM);
    grey_store(&read->pinner, pinner);
    grey_store(&read->vector, vector);
    read->n = 1 + (unsigned)(draw % MOST_PIECES);
    for (unsigned i = 0; i < read->n; i++)
        read->size += add_piece(read, i, 1 + (draw >> (8 + 2 * i)) % MOST_BLOCKS);
    read->offset = (draw >> 16) % (options.file_size / BLOCK - MOST_PIECES * MOST_BLOCKS) * BLOCK;
    grey_handle handle = grey_hold(read);
    if (handle == 0)
        die("cannot hold", errno);
    queue_read(queue, file, vector, read->n, read->offset, handle);
}

struct waiting {
    struct queue *queue;
    struct completion completion;
};

static int wait_for_one(void *arg)
{
    struct waiting *waiting = arg;

    waiting->completion = queue_wait(waiting->queue);
    return 0;
}

static struct read *end_read(struct reader *reader, struct queue *queue)
{
    struct waiting waiting = {.queue = queue};

    grey_blocking_call(wait_for_one, &waiting);
    struct read *read = grey_held(waiting.completion.user_data);
    if (read == NULL || waiting.completion.result != (int32_t)read->size) {
        reader->faults++;
        return NULL;
    }
    for (unsigned i = 0; i < read->n; i++) {
        if (grey_pin_count(read->vector[i].iov_base) != 1)
            reader->faults++;
        grey_store(&read->pieces[i], read->vector[i].iov_base);
    }
    grey_unpin(read->pinner);
    if (!grey_drop(waiting.completion.user_data) || grey_held(waiting.completion.user_data) != NULL)
        reader->faults++;
    return read;
}

static bool is_right(const struct read *read)
{
    uint64_t offset = read->offset;

    for (unsigned i = 0; i < read->n; i++) {
        if (!file_is_right(read->pieces[i], read->vector[i].iov_len, offset))
            return false;
        offset += read->vector[i].iov_len;
    }
    return true;
}

/* ---- readers ---------------------------------------------------------------------------------- */

/* Checks it now, and the one that it takes the place of for the last time. */
static void keep(struct reader *reader, struct read *read, struct read **held)
{
    struct read **place = &held[reader->reads % HELD];

    reader->faults += !is_right(read) + (*place != NULL && !is_right(*place));
    *place = read; /* a stack needs no grey_store */
    reader->reads++;
    reader->pieces += read->n;
    reader->bytes += read->size;
}

static void *run_reader(void *arg)
{
    struct reader *reader = arg;
    struct read *held[HELD] = {NULL};
    struct queue *queue = queue_open(options.depth, options.uring);
    unsigned in_flight = 0;

    if (queue == NULL)
        die("cannot open a queue", errno);
    for (;;) {
        bool stopping = atomic_load_explicit(&stop, memory_order_relaxed);
        for (; in_flight < options.depth && !stopping; in_flight++)
            begin_read(reader, queue);
        if (in_flight == 0)
            break;
        struct read *read = end_read(reader, queue);
        in_flight--;
        if (read != NULL)
            keep(reader, read, held);
    }
    queue_close(queue);
    return NULL;
}

/* ---- main ------------------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static bool report(const struct reader *readers, double seconds)
{
    uint64_t reads = 0, pieces = 0, bytes = 0, faults = 0;
    struct grey_stats stats = GREY_STATS_INIT;

    for (unsigned i = 0; i < options.threads; i++) {
        reads += readers[i].reads;
        pieces += readers[i].pieces;
        bytes += readers[i].bytes;
        faults += readers[i].faults;
    }
    grey_stats_read(&stats);
    printf("seed %" PRIu64 ", %u threads, depth %u, %s, %.1f s\n", options.seed, options.threads,
           options.depth, options.uring ? "io_uring" : "preadv in threads", seconds);
    printf("reads: %" PRIu64 ", %.0f a second, %.0f MiB/s, %" PRIu64 " buffers pinned, %" PRIu64
           " faults; %" PRIu64 " pins left\n",
           reads, (double)reads / seconds, (double)bytes / seconds / (1 << 20), pieces, faults, stats.pins);
    printf("collector: %" PRIu64 " cycles; pauses p50 %.1f us, p99 %.1f us, max %.1f us; %" PRIu64
           " bytes live\n",
           stats.cycles, (double)stats.pause_p50_ns / 1e3, (double)stats.pause_p99_ns / 1e3,
           (double)stats.pause_max_ns / 1e3, stats.heap_live);
    return faults == 0 && reads > 0 && stats.pins == 0;
}

static void usage(FILE *to)
{
    fputs("usage: ring_pinned [options]\n"
          "  --threads N       readers (4)\n"
          "  --depth N         reads in flight of each (32)\n"
          "  --seconds S       how long they read, at least (2)\n"
          "  --cycles N        and over how many cycles (10)\n"
          "  --file-size MIB   of the file, in TMPDIR or /tmp (16)\n"
          "  --direct          past the page cache (O_DIRECT)\n"
          "  --no-uring        preadv in threads, as where io_uring is not permitted\n"
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
    fprintf(stderr, "ring_pinned: %s is not a number from %g to %g\n", text, least, most);
    exit(2);
}

static void read_arguments(int argc, char **argv)
{
    static const struct option names[] = {{"threads", required_argument, NULL, 't'},
                                          {"depth", required_argument, NULL, 'd'},
                                          {"seconds", required_argument, NULL, 's'},
                                          {"cycles", required_argument, NULL, 'c'},
                                          {"direct", no_argument, NULL, 'o'},
                                          {"no-uring", no_argument, NULL, 'n'},
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
        else if (option == 's')
            options.seconds = number(optarg, 0, 1e6);
        else if (option == 'c')
            options.cycles = (unsigned)number(optarg, 1, 1e9);
        else if (option == 'f')
            options.file_size = (size_t)number(optarg, 1, 1e6) << 20;
        else if (option == 'x')
            options.seed = strtoull(optarg, NULL, 0);
        else if (option == 'o')
            options.direct = true;
        else if (option == 'n')
            options.uring = false;
        else {
            usage(option == 'h' ? stdout : stderr);
            exit(option == 'h' ? 0 : 2);
        }
    }
    if (optind < argc) {
        usage(stderr);
        exit(2);
    }
}

/* Some containers refuse io_uring. */
static void choose_queue(void)
{
    struct queue *queue = options.uring ? queue_open(1, true) : NULL;

    if (queue != NULL) {
        queue_close(queue);
    } else if (options.uring) {
        if (errno != EPERM && errno != ENOSYS)
            die("io_uring", errno);
        fprintf(stderr, "ring_pinned: io_uring: %s; threads do it instead\n", strerror(errno));
        options.uring = false;
    }
}

int main(int argc, char **argv)
{
    static struct reader readers[MOST_THREADS];

    read_arguments(argc, argv);
    choose_queue();
    file = file_make(options.seed, options.file_size, options.direct);
    int error = grey_init(NULL);
    if (error != 0)
        die("cannot start", error);
    double start = now();
    for (unsigned i = 0; i < options.threads; i++) {
        readers[i].random = options.seed ^ (i + 1) * 0xd1342543de82ef95;
        error = grey_thread_create(&readers[i].thread, NULL, run_reader, &readers[i]);
        if (error != 0)
            die("cannot start a thread", error);
    }
    for (unsigned n = 0; n < options.cycles || now() - start < options.seconds; n++)
        grey_collect();
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    for (unsigned i = 0; i < options.threads; i++)
        grey_thread_join(readers[i].thread, NULL);
    double seconds = now() - start;
    bool passed = report(readers, seconds);
    grey_shutdown();
    close(file);
    puts(passed ? "ring_pinned: all as expected" : "ring_pinned: FAILED");
    return passed ? 0 : 1;
}
