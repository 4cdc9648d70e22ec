/* peer.h -- one vocabulary for Grey and for what a user would pick instead.
 *
 * A workload is written once against these names and compiled with one of
 *
 *     PEER_GREY      this library
 *     PEER_BOEHM     Boehm, Demers and Weiser's collector, libgc
 *     PEER_MALLOC    malloc and free; glibc's, or another one that is put in front by LD_PRELOAD
 *
 * The shim must give each peer what its own user would write, and no more:
 *
 *   - peer_new and the two peer_alloc leave the contents open, because a user of malloc doesn't ask for
 *     zeroed memory that he is about to fill; collectors zero what they scan.  peer_init_null writes a
 *     null pointer only where the memory isn't zero already.
 *   - peer_store is a release store for all; Grey's has the barrier.
 *   - peer_free is free, or nothing.
 *   - Grey is told by types where the pointers are.  Boehm's typed allocation is slower than its
 *     conservative one and hardly used, so it gets GC_MALLOC, and GC_MALLOC_ATOMIC for leaf objects.
 *
 * Boehm is set up in its own favour: thread-local free lists and parallel marking (compiled into the
 * distributions' builds), no incremental mode, and interior pointers from the heap not honoured, which
 * saves its extra byte an object; no workload needs them.  Its heap budget is Grey's: it collects after
 * allocating (2 x live scanned bytes) / divisor, so 2 lets a heap grow by what is live, as GREY_GC=100.
 */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#if defined(PEER_BOEHM)
#define GC_THREADS /* redirects pthread_create: has to come before pthread.h */
#include <gc/gc.h>
#elif defined(PEER_GREY)
#include "grey.h"
#elif !defined(PEER_MALLOC)
#error "peer.h: define PEER_GREY, PEER_BOEHM or PEER_MALLOC"
#endif

#include "bench.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Times during which threads of the program were held up on behalf of collections; ns. */
struct peer_pauses {
    uint64_t cycles; /* collections */
    double p50, p99, max;
};

static inline void *peer_checked(void *p)
{
    if (__builtin_expect(p == NULL, 0))
        bench_fail("out of memory");
    return p;
}

#if defined(PEER_GREY)

#define PEER_NAME "grey"
#define PEER_COLLECTS 1
#define PEER_TYPE GREY_TYPE
#define PEER_TYPE_LEAF GREY_TYPE_LEAF
#define PEER_ARRAY GREY_ARRAY
#define PEER_ROOT GREY_ROOT
#define peer_store(slot, value) grey_store(slot, value)
#define peer_init_null(slot) ((void)(slot))
#define peer_type grey_type

static inline void peer_start(unsigned workers)
{
    char debug[512];
    const char *given = getenv("GREY_DEBUG");
    if (workers != 0) {
        snprintf(debug, sizeof debug, "%s%sworkers=%u", given != NULL ? given : "", given != NULL ? "," : "",
                 workers);
        setenv("GREY_DEBUG", debug, 1);
    }
    int error = grey_init(NULL);
    if (error != 0)
        bench_fail("grey_init: %s", strerror(error));
    BENCH_CHECK(grey_thread_attach() == 0);
}

static inline void *peer_new(const struct grey_type *type) { return peer_checked(grey_new(type)); }
static inline void *peer_new_array(const struct grey_type *type, size_t n)
{
    return peer_checked(grey_new_array(type, n));
}
static inline void *peer_alloc(size_t size) { return peer_checked(grey_alloc(size)); }
static inline void *peer_alloc_leaf(size_t size) { return peer_checked(grey_alloc_leaf(size)); }
static inline void peer_free(void *p) { (void)p; }

static inline void peer_collect(void) { grey_collect(); }
/* While collection is off, objects may be known from malloc memory only. */
static inline void peer_collection(bool on) { grey_set_percent(on ? 100 : -1); }

/* Which stores pay for a cycle?  The library's own word is the only exact answer. */
static inline bool peer_marking(void) { return __atomic_load_n(&grey_phase_, __ATOMIC_RELAXED) != 0; }

static inline struct grey_stats peer_stats(void)
{
    struct grey_stats stats = GREY_STATS_INIT;
    BENCH_CHECK(grey_stats_read(&stats) == 0);
    return stats;
}

static inline void peer_pauses(struct peer_pauses *out)
{
    struct grey_stats stats = peer_stats();
    *out = (struct peer_pauses){stats.cycles, (double)stats.pause_p50_ns, (double)stats.pause_p99_ns,
                                (double)stats.pause_max_ns};
}

static inline int peer_blocking_call(int (*fn)(void *), void *arg) { return grey_blocking_call(fn, arg); }
static inline int peer_thread_create(pthread_t *thread, void *(*start)(void *), void *arg)
{
    return grey_thread_create(thread, NULL, start, arg);
}
static inline int peer_thread_join(pthread_t thread) { return grey_thread_join(thread, NULL); }

#else /* what Boehm and malloc have in common */

struct peer_type {
    size_t size;
};
#define PEER_TYPE(id, T, ...) static const struct peer_type id = {sizeof(T)}
#define PEER_TYPE_LEAF(id, T) static const struct peer_type id = {sizeof(T)}
#define PEER_ROOT(T, name) static __typeof__(T) name /* Boehm scans data and BSS */
#define peer_store(slot, value) __atomic_store_n((slot), (value), __ATOMIC_RELEASE)
static inline bool peer_marking(void) { return false; }

#endif

#if defined(PEER_BOEHM)

#define PEER_NAME "boehm"
#define PEER_COLLECTS 1
#define peer_init_null(slot) ((void)(slot))

/* Boehm stops the world for the whole of a collection; its events tell for how long.  Written under
 * its lock, with all other threads stopped or waiting. */
enum { PEER_STOPS = 1 << 16 };
static double *peer_stop_ns; /* malloc memory, which it doesn't scan */
static size_t peer_stops;
static uint64_t peer_stopped_at;

static inline void peer_event(GC_EventType event)
{
    if (event == GC_EVENT_PRE_STOP_WORLD)
        peer_stopped_at = bench_now();
    else if (event == GC_EVENT_POST_START_WORLD)
        peer_stop_ns[peer_stops++ % PEER_STOPS] = (double)(bench_now() - peer_stopped_at);
}

static inline void peer_start(unsigned workers)
{
    GC_set_all_interior_pointers(0);
    GC_set_free_space_divisor(2);
    if (workers != 0)
        GC_set_markers_count(workers);
    peer_stop_ns = peer_checked(malloc(PEER_STOPS * sizeof *peer_stop_ns));
    GC_INIT();
    GC_start_mark_threads(); /* else they start with the first thread */
    GC_set_warn_proc(GC_ignore_warn_proc);
    GC_set_on_collection_event(peer_event);
}

static inline void *peer_new(const struct peer_type *type) { return peer_checked(GC_MALLOC(type->size)); }
static inline void *peer_new_array(const struct peer_type *type, size_t n)
{
    /* Its manual's advice for big ones, which here are held by their first byte. */
    size_t size = type->size * n;
    return peer_checked(size > 100000 ? GC_MALLOC_IGNORE_OFF_PAGE(size) : GC_MALLOC(size));
}
static inline void *peer_alloc(size_t size) { return peer_checked(GC_MALLOC(size)); }
static inline void *peer_alloc_leaf(size_t size) { return peer_checked(GC_MALLOC_ATOMIC(size)); }
static inline void peer_free(void *p) { (void)p; }

static inline void peer_collect(void) { GC_gcollect(); }
static inline void peer_collection(bool on)
{
    if (on)
        GC_enable();
    else
        GC_disable();
}

static inline void peer_pauses(struct peer_pauses *out)
{
    size_t n = peer_stops < PEER_STOPS ? peer_stops : PEER_STOPS;
    *out = (struct peer_pauses){.cycles = peer_stops};
    if (n == 0)
        return;
    out->p50 = bench_quantile(peer_stop_ns, n, 0.5);
    out->p99 = bench_quantile(peer_stop_ns, n, 0.99);
    out->max = bench_quantile(peer_stop_ns, n, 1);
}

struct peer_call {
    int (*fn)(void *);
    void *arg;
    int result;
};
static inline void *peer_call_blocked(void *arg)
{
    struct peer_call *call = arg;
    call->result = call->fn(call->arg);
    return NULL;
}
static inline int peer_blocking_call(int (*fn)(void *), void *arg)
{
    struct peer_call call = {fn, arg, 0};
    GC_do_blocking(peer_call_blocked, &call);
    return call.result;
}

#elif defined(PEER_MALLOC)

#define PEER_NAME "malloc"
#define PEER_COLLECTS 0
#define peer_init_null(slot) ((void)(*(slot) = NULL))

static inline void peer_start(unsigned workers) { (void)workers; }
static inline void *peer_new(const struct peer_type *type) { return peer_checked(malloc(type->size)); }
static inline void *peer_new_array(const struct peer_type *type, size_t n)
{
    return peer_checked(calloc(n, type->size));
}
static inline void *peer_alloc(size_t size) { return peer_checked(malloc(size)); }
static inline void *peer_alloc_leaf(size_t size) { return peer_checked(malloc(size)); }
static inline void peer_free(void *p) { free(p); }
static inline void peer_pauses(struct peer_pauses *out) { *out = (struct peer_pauses){0}; }
static inline int peer_blocking_call(int (*fn)(void *), void *arg) { return fn(arg); }

#endif

#if !defined(PEER_GREY)
static inline int peer_thread_create(pthread_t *thread, void *(*start)(void *), void *arg)
{
    return pthread_create(thread, NULL, start, arg);
}
static inline int peer_thread_join(pthread_t thread) { return pthread_join(thread, NULL); }
#endif

/* Runs fn on n threads, each with its element of an array, and waits for them. */
enum { PEER_THREADS = 4096 };
static inline void peer_run(unsigned n, void *(*fn)(void *), void *elements, size_t element_size)
{
    static pthread_t threads[PEER_THREADS];
    BENCH_CHECK(n >= 1 && n <= PEER_THREADS);
    for (unsigned i = 0; i < n; i++)
        BENCH_CHECK(peer_thread_create(&threads[i], fn, (char *)elements + i * element_size) == 0);
    for (unsigned i = 0; i < n; i++)
        BENCH_CHECK(peer_thread_join(threads[i]) == 0);
}

/* For the report: how many pauses of each kind there were, by length. */
#if defined(PEER_GREY)
static inline void peer_print_ledger(const char *workload, const char *name)
{
    static const char *const kinds[] = {"handshake", "hold", "assist", "scavenge", "wait"};
    for (size_t kind = 0; kind < sizeof kinds / sizeof kinds[0]; kind++) {
        char metric[64], series[32];
        struct grey_metric pauses;
        snprintf(metric, sizeof metric, "/gc/pauses/%s:seconds", kinds[kind]);
        snprintf(series, sizeof series, "pause:%s", kinds[kind]);
        BENCH_CHECK(grey_metric_read(metric, &pauses) == 0 && pauses.kind == GREY_METRIC_HISTOGRAM);
        bench_series_begin(workload, PEER_NAME, series, "us", name);
        for (size_t i = 0; i < pauses.n; i++)
            if (pauses.counts[i] != 0)
                bench_series_point(pauses.bounds[i] * 1e6, (double)pauses.counts[i]);
        bench_series_end();
    }
}
#elif defined(PEER_BOEHM)
static inline void peer_print_ledger(const char *workload, const char *name)
{
    size_t n = peer_stops < PEER_STOPS ? peer_stops : PEER_STOPS;
    bench_series_begin(workload, PEER_NAME, "pause:stop", "us", name);
    for (size_t i = 0; i < n; i++)
        bench_series_point(peer_stop_ns[i] / 1e3, 1);
    bench_series_end();
}
#else
static inline void peer_print_ledger(const char *workload, const char *name) { (void)workload, (void)name; }
#endif

/* What a collector adds to a result: how long it held the program up. */
static inline void peer_print_pauses(const char *workload, const struct bench_section *section,
                                     const char *name)
{
    struct peer_pauses pauses;
    peer_pauses(&pauses);
    if (pauses.cycles == 0)
        return;
    struct bench_result result = {workload, PEER_NAME, "pause_p99", "us", BENCH_LOWER, pauses.p99 / 1e3};
    bench_print(&result, section, "%s", name);
    result.metric = "pause_max";
    result.value = pauses.max / 1e3;
    bench_print(&result, section, "%s", name);
    result.metric = "collections";
    result.unit = "n";
    result.value = (double)pauses.cycles;
    bench_print(&result, section, "%s", name);
    peer_print_ledger(workload, name);
}

#endif
