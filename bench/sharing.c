/* sharing.c -- what two threads gain when they read memory at random, and when they also mark in shared words.
 *
 * Marking a random graph is two things: reads of objects all over the heap, sixteen of them under way at once,
 * and bits set in mark words that all workers share.  Each thread here does its part of a fixed number of reads,
 * over --mib (128) megabytes of 64-byte objects in huge pages; first reads alone, then as marking reads: a bit is
 * tested for each, and set where it was clear, and only then the object is read.  The words are laid out as the
 * heap's are, a mark word beside an allocation word for 64 granules.  Of the objects that are met again, three in
 * four, only the bit is looked at.  Time divided by that of one thread says what a second mark worker could gain at
 * best on this machine: a word that the other processor has written must come from its cache.
 */
#include "peer.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

enum { RING = 16, OBJECT = 64, THREADS_MOST = 64, HUGE_PAGE = 2 << 20 };
static const uint64_t reads = 8000000; /* of 2 million objects: each is met four times, as in graph.c */

static char *objects;
static struct {
    _Atomic uint64_t mark, allocated;
} * words; /* one for 16 objects, as 64-byte objects have four granules each */
static uint32_t n_objects;
static unsigned threads;
static pthread_barrier_t barrier;

static void *map(size_t bytes)
{
    char *at = mmap(NULL, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        bench_fail("no memory");
    at += -(uintptr_t)at & (HUGE_PAGE - 1);
    madvise(at, bytes, MADV_HUGEPAGE);
    memset(at, 1, bytes);
    return at;
}

static uint64_t count_marks(void)
{
    uint64_t n = 0;
    for (size_t i = 0; i < n_objects / 16 + 1; i++)
        n += (uint64_t)__builtin_popcountll(words[i].mark);
    return n;
}

/* Both loops ask for a line when they choose an object, and use it sixteen objects later.  Each object read adds 1. */
static uint64_t read_only(uint64_t n, uint64_t *seed)
{
    uint32_t ring[RING] = {0};
    uint64_t sum = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint32_t next = bench_below(seed, n_objects), at = ring[i % RING];
        ring[i % RING] = next;
        __builtin_prefetch(objects + (size_t)next * OBJECT);
        sum += (uint64_t)objects[(size_t)at * OBJECT];
    }
    return sum;
}

static uint64_t read_and_mark(uint64_t n, uint64_t *seed)
{
    uint32_t ring[RING] = {0};
    uint64_t sum = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint32_t next = bench_below(seed, n_objects), at = ring[i % RING];
        uint64_t bit = (uint64_t)1 << (at % 16 * 4);
        ring[i % RING] = next;
        __builtin_prefetch(&words[next / 16]);
        __builtin_prefetch(objects + (size_t)next * OBJECT);
        if ((atomic_load_explicit(&words[at / 16].mark, memory_order_relaxed) & bit) != 0)
            continue;
        /* relaxed: only the bit counts, as for a mark; who set it reads the object */
        if ((atomic_fetch_or_explicit(&words[at / 16].mark, bit, memory_order_relaxed) & bit) == 0)
            sum += (uint64_t)objects[(size_t)at * OBJECT];
    }
    return sum;
}

struct task {
    pthread_t thread;
    uint64_t seed, sum;
    uint64_t (*loop)(uint64_t n, uint64_t *seed);
};

static void *run(void *arg)
{
    struct task *task = arg;
    pthread_barrier_wait(&barrier);
    task->sum = task->loop(reads / threads, &task->seed);
    pthread_barrier_wait(&barrier);
    return NULL;
}

static uint64_t measure(const char *name, uint64_t (*loop)(uint64_t, uint64_t *), uint64_t seed)
{
    uint64_t sum = 0;
    struct task tasks[THREADS_MOST];
    struct bench_section section;
    memset(words, 0, (n_objects / 16 + 1) * sizeof *words);
    BENCH_CHECK(pthread_barrier_init(&barrier, NULL, threads + 1) == 0);
    for (unsigned i = 0; i < threads; i++) {
        tasks[i] = (struct task){.seed = seed + i, .loop = loop};
        BENCH_CHECK(pthread_create(&tasks[i].thread, NULL, run, &tasks[i]) == 0);
    }
    bench_begin(&section);
    uint64_t begin = bench_now();
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    uint64_t took = bench_now() - begin;
    bench_end(&section);
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(tasks[i].thread, NULL);
        sum += tasks[i].sum;
    }
    pthread_barrier_destroy(&barrier);
    struct bench_result result = {"sharing", PEER_NAME,   name,
                                  "ns",      BENCH_LOWER, (double)took / (double)reads};
    bench_print(&result, &section, "threads=%u", threads);
    return sum;
}

int main(int argc, char **argv)
{
    struct bench_options options;
    bench_parse(argc, argv, &options);
    threads = options.threads != 0 ? options.threads : 1;
    BENCH_CHECK(threads <= THREADS_MOST);
    size_t bytes = (options.mib != 0 ? options.mib : options.quick ? 4 : 128) << 20;
    BENCH_CHECK(bytes / OBJECT < UINT32_MAX);
    n_objects = (uint32_t)(bytes / OBJECT);
    objects = map(bytes);
    words = map((n_objects / 16 + 1) * sizeof *words);
    BENCH_CHECK(measure("read", read_only, options.seed) == reads / threads * threads);
    BENCH_CHECK(measure("read_and_mark", read_and_mark, options.seed) == count_marks());
    return 0;
}
