/* handshake.c -- what a cycle costs when there is nothing to mark but many threads to ask.
 *
 * The heap is all but empty (64 KiB of garbage a cycle); N other threads are
 *
 *     idle        asleep in a plain read(), where only a signal reaches them
 *     blocked     the same inside a blocking region, where nobody needs to ask them
 *     computing   reading the clock in a loop, without ever entering the collector
 *     deep        the same with 1 MiB of stack in use, where one word in four points into the heap
 *
 * and the main thread asks for collections, a millisecond apart.  Reported: the length of a collection,
 * and how long threads were held up, once as the collector says (Grey: its pause statistics; Boehm: from stop
 * to start of the world) and once as the computing threads see it themselves: gaps of more than 2
 * us between two looks at the clock.  With more computing threads than processors those gaps are
 * mostly the scheduler's.
 */
#include "peer.h"

#include <time.h>
#include <unistd.h>

enum { CYCLES = 200, GAPS = 4096, LITTER = 4096, DEEP = 1 << 20 };

struct task {
    char kind; /* the variant's first letter */
    int read_end;
    size_t n_gaps; /* seen; the last GAPS are kept */
    double gaps[GAPS];
};

/* Each thread holds an object on its stack only, so a stack that was not scanned shows. */
struct kept {
    uint64_t id;
    struct kept *self;
};
PEER_TYPE(kept_type, struct kept, self);

static bool done;
static unsigned started;

static int wait_for_end(void *arg)
{
    struct task *task = arg;
    char byte;
    return read(task->read_end, &byte, 1) == 0 ? 0 : 1; /* ends when the other end is closed */
}

static void compute(struct task *task)
{
    uint64_t last = bench_now();
    while (!__atomic_load_n(&done, __ATOMIC_RELAXED)) {
        uint64_t now = bench_now();
        if (now - last > 2000)
            task->gaps[task->n_gaps++ % GAPS] = (double)(now - last);
        last = now;
    }
}

static __attribute__((noinline)) void compute_deep(struct task *task, struct kept *kept)
{
    struct kept *frame[DEEP / sizeof(struct kept *)];
    for (size_t i = 0; i < sizeof frame / sizeof *frame; i++)
        frame[i] = i % 4 == 0 ? kept : NULL;
    __asm__ volatile("" : : "r"(frame) : "memory"); /* else it isn't made */
    compute(task);
    __asm__ volatile("" : : "r"(frame) : "memory");
}

static void *run(void *arg)
{
    struct task *task = arg;
    struct kept *kept = peer_new(&kept_type);
    kept->id = (uint64_t)(uintptr_t)task;
    peer_store(&kept->self, kept);
    __atomic_fetch_add(&started, 1, __ATOMIC_RELEASE); /* main waits for it */
    if (task->kind == 'c')
        compute(task);
    else if (task->kind == 'd')
        compute_deep(task, kept);
    else if (task->kind == 'b')
        BENCH_CHECK(peer_blocking_call(wait_for_end, task) == 0);
    else
        BENCH_CHECK(wait_for_end(task) == 0);
    __asm__ volatile("" : "+r"(kept)); /* alive across all of the above */
    BENCH_CHECK(kept->self == kept && kept->id == (uint64_t)(uintptr_t)task);
    return NULL;
}

/* Allocates beside the threads' objects between cycles: a slot that was freed wrongly is used again. */
static void litter(void)
{
    for (int i = 0; i < LITTER; i++) {
        struct kept *kept = peer_new(&kept_type);
        kept->id = 0;
        peer_store(&kept->self, (struct kept *)NULL);
    }
}

static size_t collect(double *cycles, size_t want, uint64_t limit_ns)
{
    uint64_t start = bench_now();
    size_t n = 0;
    while (n < want && (n < 5 || bench_now() - start < limit_ns)) {
        uint64_t from = bench_now();
        peer_collect();
        cycles[n++] = (double)(bench_now() - from);
        litter();
        struct timespec pause = {0, 1000000};
        nanosleep(&pause, NULL);
    }
    return n;
}

static void print(const char *metric, double ns, const struct bench_section *section, const char *name)
{
    struct bench_result result = {"handshake", PEER_NAME, metric, "us", BENCH_LOWER, ns / 1e3};
    bench_print(&result, section, "%s", name);
}

static void print_gaps(struct task *tasks, unsigned threads, const struct bench_section *section,
                       const char *name)
{
    size_t n = 0;
    double *all = peer_checked(malloc((size_t)threads * GAPS * sizeof(double)));
    for (unsigned i = 0; i < threads; i++)
        for (size_t gap = 0; gap < tasks[i].n_gaps && gap < GAPS; gap++)
            all[n++] = tasks[i].gaps[gap];
    if (n > 0) {
        print("gap_p50", bench_quantile(all, n, 0.5), section, name);
        print("gap_p99", bench_quantile(all, n, 0.99), section, name);
        print("gap_max", bench_quantile(all, n, 1), section, name);
    }
    free(all);
}

int main(int argc, char **argv)
{
    struct bench_options options;
    bench_parse(argc, argv, &options);
    const char *kind = options.variant != NULL ? options.variant : "idle";
    unsigned threads = options.threads != 0 ? options.threads : 2;
    BENCH_CHECK(strcmp(kind, "idle") == 0 || strcmp(kind, "blocked") == 0 || strcmp(kind, "computing") == 0 ||
                strcmp(kind, "deep") == 0);
    BENCH_CHECK(threads <= PEER_THREADS);
    peer_start(options.workers);

    int ends[2];
    pthread_t ids[PEER_THREADS];
    struct task *tasks = peer_checked(calloc(threads, sizeof *tasks));
    BENCH_CHECK(pipe(ends) == 0);
    for (unsigned i = 0; i < threads; i++) {
        tasks[i].kind = kind[0];
        tasks[i].read_end = ends[0];
        BENCH_CHECK(peer_thread_create(&ids[i], run, &tasks[i]) == 0);
    }
    while (__atomic_load_n(&started, __ATOMIC_ACQUIRE) < threads)
        usleep(1000);

    double cycles[CYCLES];
    struct bench_section section;
    bench_begin(&section);
    size_t n = collect(cycles, options.quick ? 10 : CYCLES, options.quick ? 500000000u : 5000000000u);
    bench_end(&section);
    __atomic_store_n(&done, true, __ATOMIC_RELAXED);
    close(ends[1]);
    for (unsigned i = 0; i < threads; i++)
        BENCH_CHECK(peer_thread_join(ids[i]) == 0);

    char name[64];
    struct peer_pauses pauses;
    peer_pauses(&pauses);
    BENCH_CHECK(pauses.cycles >= n);
    snprintf(name, sizeof name, "%s,threads=%u", kind, threads);
    print("cycle_p50", bench_quantile(cycles, n, 0.5), &section, name);
    print("cycle_max", bench_quantile(cycles, n, 1), &section, name);
    print("pause_p50", pauses.p50, &section, name);
    print("pause_p99", pauses.p99, &section, name);
    print("pause_max", pauses.max, &section, name);
    print_gaps(tasks, threads, &section, name);
    peer_print_ledger("handshake", name);
    free(tasks);
    return 0;
}
