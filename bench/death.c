/* death.c -- many things that die in one cycle, beside threads that allocate and store (Grey only).
 *
 *     none       objects that are only freed
 *     regions    foreign regions; each one's cleanup runs
 *     cleanups   objects with a cleanup each
 *
 * Whoever dies, the threads of the program must not be held up for longer.  What the library counts as a
 * pause is read from its own ledger: the difference over the rounds, from the moment when the last pointers
 * are dropped until the last cleanup has run.  A thread that allocates also sweeps now and then, which is no
 * pause but its share of the work; so the threads also take the processor time of each piece of 64
 * allocations and stores, in which a long sweep would show.
 *
 * A quantile is the upper bound of its bucket in the ledger's histogram.
 */
#include "peer.h"

#if !defined(PEER_GREY)
#error "death.c: define PEER_GREY"
#endif

#include <math.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 10000, PIECE = 64, PIECES_MOST = 1 << 20, REGION = 4096, BUCKETS_MOST = 4096, LOST_MOST = 64 };

struct held {
    void *p;
};
PEER_TYPE(held_type, struct held, p);
PEER_ROOT(struct held *, all); /* what is to die */

static size_t n_deaths = 100000;
static unsigned n_rounds = 10;
static _Atomic bool measuring, stop;
static _Atomic unsigned n_started;
static _Atomic uint64_t n_run;
static uintptr_t reserved, unused; /* addresses for regions, that nobody touches: all, those not yet given */

static void object_died(void *arg)
{
    (void)arg;
    atomic_fetch_add_explicit(&n_run, 1, memory_order_relaxed);
}
static void region_died(uintptr_t start, size_t size, void *arg)
{
    (void)arg;
    BENCH_CHECK((start - reserved) % REGION == 0 && size == REGION);
    atomic_fetch_add_explicit(&n_run, 1, memory_order_relaxed);
}

/* Its own frame, so that none of the pointers stays on main's. */
static __attribute__((noinline)) void fill(const char *variant)
{
    struct held *held = peer_new_array(&held_type, n_deaths);
    peer_store(&all, held);
    for (size_t i = 0; i < n_deaths; i++) {
        if (strcmp(variant, "regions") == 0) {
            void *start = (void *)unused; // NOLINT(performance-no-int-to-ptr)
            unused += REGION;             /* each only once: a stale word somewhere may keep some */
            BENCH_CHECK(grey_foreign_add(start, REGION, 0, region_died, NULL, NULL) == 0);
            peer_store(&held[i].p, start);
            continue;
        }
        void *object = peer_alloc_leaf(64);
        peer_store(&held[i].p, object);
        if (strcmp(variant, "cleanups") == 0)
            BENCH_CHECK(grey_cleanup_add(object, object_died, NULL, NULL) == 0);
    }
}

/* ---- the threads --------------------------------------------------------------------------------------- */

struct task {
    uint64_t seed;
    double *pieces;
    size_t n;
};

static uint64_t thread_cpu(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void *run(void *arg)
{
    struct task *task = arg;
    struct held *ring = peer_new_array(&held_type, SLOTS);
    atomic_fetch_add(&n_started, 1);
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        bool count = atomic_load_explicit(&measuring, memory_order_relaxed);
        uint64_t begin = thread_cpu();
        for (int i = 0; i < PIECE; i++) {
            size_t size = 16 + bench_below(&task->seed, 497);
            uint64_t *object = peer_alloc(size);
            object[0] = size;
            struct held *slot = &ring[bench_below(&task->seed, SLOTS)];
            BENCH_CHECK(slot->p == NULL || *(uint64_t *)slot->p - 16 < 497);
            peer_store(&slot->p, object);
        }
        if (count && task->n < PIECES_MOST)
            task->pieces[task->n++] = (double)(thread_cpu() - begin);
    }
    return NULL;
}

/* ---- the ledger ---------------------------------------------------------------------------------------- */

struct pauses {
    const char *name; /* of the metric */
    size_t n;
    uint64_t counts[BUCKETS_MOST];
    double bounds[BUCKETS_MOST + 1];
};
static struct pauses wall = {.name = "/gc/pauses/total:seconds"};
static struct pauses cpu = {.name = "/gc/pauses/total:cpu-seconds"};

/* Taken off before a round and added after it, modulo 2^64. */
static void pauses_add(struct pauses *pauses, bool after)
{
    struct grey_metric metric;
    BENCH_CHECK(grey_metric_read(pauses->name, &metric) == 0 && metric.n <= BUCKETS_MOST);
    pauses->n = metric.n;
    memcpy(pauses->bounds, metric.bounds, (metric.n + 1) * sizeof(double));
    for (size_t i = 0; i < metric.n; i++)
        pauses->counts[i] += after ? metric.counts[i] : -metric.counts[i];
}

static uint64_t pauses_count(const struct pauses *pauses)
{
    uint64_t n = 0;
    for (size_t i = 0; i < pauses->n; i++)
        n += pauses->counts[i];
    return n;
}

static double pauses_quantile(const struct pauses *pauses, double fraction)
{
    uint64_t n = pauses_count(pauses), rank = (uint64_t)ceil(fraction * (double)n), sum = 0;
    size_t i = 0;
    BENCH_CHECK(n > 0);
    while (i + 1 < pauses->n && (sum += pauses->counts[i]) < rank)
        i++;
    return isfinite(pauses->bounds[i + 1]) ? pauses->bounds[i + 1] : pauses->bounds[i];
}

/* ---- rounds -------------------------------------------------------------------------------------------- */

struct times {
    double collect, over; /* ns */
};

static struct times one_round(const char *variant)
{
    fill(variant);
    peer_collect(); /* they are old, and the fill's own cycle is over */
    pauses_add(&wall, false);
    pauses_add(&cpu, false);
    atomic_store(&measuring, true);
    uint64_t begin = bench_now();
    peer_store(&all, NULL);
    peer_collect();
    uint64_t collected = bench_now();
    BENCH_CHECK(grey_cleanup_wait(-1));
    uint64_t over = bench_now();
    usleep(1000); /* pieces and pauses that were going on */
    atomic_store(&measuring, false);
    pauses_add(&wall, true);
    pauses_add(&cpu, true);
    return (struct times){(double)(collected - begin), (double)(over - begin)};
}

static const struct {
    const char *name;
    double fraction;
} quantiles[] = {{"p50", 0.5}, {"p99", 0.99}, {"p9999", 0.9999}, {"max", 1}};
enum { QUANTILES = sizeof quantiles / sizeof *quantiles };

static void print(const char *what, const char *part, const char *unit, double value, const char *name,
                  const struct bench_section *section)
{
    char metric[64];
    snprintf(metric, sizeof metric, "%s%s%s", what, part[0] != '\0' ? "_" : "", part);
    struct bench_result result = {"death", PEER_NAME, metric, unit, BENCH_LOWER, value};
    bench_print(&result, section, "%s", name);
}

static void print_all(struct task *tasks, unsigned threads, const char *name,
                      const struct bench_section *section)
{
    for (size_t i = 0; i < QUANTILES; i++)
        print("pause", quantiles[i].name, "us", pauses_quantile(&wall, quantiles[i].fraction) * 1e6, name,
              section);
    for (size_t i = 0; i < QUANTILES; i++)
        print("pause_cpu", quantiles[i].name, "us", pauses_quantile(&cpu, quantiles[i].fraction) * 1e6, name,
              section);
    print("pauses", "", "1", (double)pauses_count(&wall), name, section);
    size_t n = 0;
    for (unsigned i = 0; i < threads; i++)
        n += tasks[i].n;
    double *pieces = peer_checked(malloc(n * sizeof *pieces));
    n = 0;
    for (unsigned i = 0; i < threads; i++) {
        memcpy(pieces + n, tasks[i].pieces, tasks[i].n * sizeof *pieces);
        n += tasks[i].n;
        free(tasks[i].pieces);
    }
    for (size_t i = 0; i < QUANTILES; i++)
        print("piece_cpu", quantiles[i].name, "us", bench_quantile(pieces, n, quantiles[i].fraction) / 1e3,
              name, section);
    free(pieces);
}

int main(int argc, char **argv)
{
    struct bench_options options;
    bench_parse(argc, argv, &options);
    const char *variant = options.variant != NULL ? options.variant : "none";
    unsigned threads = options.threads != 0 ? options.threads : 2;
    bool counted = strcmp(variant, "none") != 0;
    BENCH_CHECK(!counted || strcmp(variant, "regions") == 0 || strcmp(variant, "cleanups") == 0);
    BENCH_CHECK(threads <= PEER_THREADS);
    if (options.quick) {
        n_deaths = 5000;
        n_rounds = 2;
    }
    peer_start(options.workers);
    void *addresses = mmap(NULL, n_deaths * REGION * (n_rounds + 1), PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    BENCH_CHECK(addresses != MAP_FAILED);
    reserved = unused = (uintptr_t)addresses;

    pthread_t ids[PEER_THREADS];
    static struct task tasks[PEER_THREADS];
    for (unsigned i = 0; i < threads; i++) {
        tasks[i] = (struct task){options.seed + i, peer_checked(malloc(PIECES_MOST * sizeof(double))), 0};
        BENCH_CHECK(peer_thread_create(&ids[i], run, &tasks[i]) == 0);
    }
    while (atomic_load(&n_started) < threads)
        usleep(1000);
    double collect[64], over[64];
    BENCH_CHECK(n_rounds <= 64);
    one_round(variant); /* warms up */
    memset(wall.counts, 0, sizeof wall.counts);
    memset(cpu.counts, 0, sizeof cpu.counts);
    struct bench_section section;
    bench_begin(&section);
    for (unsigned i = 0; i < n_rounds; i++) {
        struct times times = one_round(variant);
        collect[i] = times.collect / 1e6;
        over[i] = times.over / 1e6;
    }
    bench_end(&section);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < threads; i++)
        BENCH_CHECK(peer_thread_join(ids[i]) == 0);
    uint64_t all_deaths = counted ? n_deaths * (n_rounds + 1) : 0;
    BENCH_CHECK(atomic_load(&n_run) <= all_deaths && atomic_load(&n_run) + LOST_MOST >= all_deaths);

    char name[64];
    snprintf(name, sizeof name, "%s,deaths=%zu,threads=%u", variant, n_deaths, threads);
    print("cycle", "", "ms", bench_quantile(collect, n_rounds, 0.5), name, &section);
    print("all_run", "", "ms", bench_quantile(over, n_rounds, 0.5), name, &section);
    print_all(tasks, threads, name, &section);
    return 0;
}
