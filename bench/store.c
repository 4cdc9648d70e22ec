/* store.c -- what the store barrier costs: ns a store, plain, with no cycle running, and during marking.
 *
 * Two patterns: hot stores 4,096 objects round and round (after the first round of a cycle all are
 * marked: what remains is the test), cold stores two million in random order (each store misses the
 * cache, and may be the first to meet its object in this cycle).  The values stay alive in an array of
 * their own, so a raw store loses nothing, and is the baseline.
 *
 * For "on" a second thread runs collections back to back over a heap of --mib (256) megabytes.
 * Batches of stores are timed, and counted only if marking was going on before and after; the median
 * batch is reported, for one during which the thread lost its processor says nothing of the barrier.
 * Peers without a barrier print the plain store alone.
 */
#include "peer.h"

struct node {
    struct node *next;
    uint64_t id, unused[6];
};
PEER_TYPE(node_type, struct node, next);

struct slot {
    struct node *node;
};
PEER_TYPE(slot_type, struct slot, node);

PEER_ROOT(struct slot *, values);
PEER_ROOT(struct slot *, slots);

enum { BATCH = 8192, BATCHES = 20000 };

struct pattern {
    const char *name;
    uint32_t objects; /* a power of two */
    uint32_t *order;  /* which object goes into which slot; malloc memory */
};

static void pattern_make(struct pattern *pattern, uint64_t *seed)
{
    uint32_t n = pattern->objects;
    pattern->order = peer_checked(malloc(n * sizeof *pattern->order));
    peer_store(&values, (struct slot *)peer_new_array(&slot_type, n));
    peer_store(&slots, (struct slot *)peer_new_array(&slot_type, n));
    for (uint32_t i = 0; i < n; i++) {
        struct node *node = peer_new(&node_type);
        node->id = i;
        peer_init_null(&node->next);
        peer_store(&values[i].node, node);
        pattern->order[i] = i;
    }
    for (uint32_t i = n - 1; i > 0; i--) {
        uint32_t j = bench_below(seed, i + 1), other = pattern->order[j];
        pattern->order[j] = pattern->order[i];
        pattern->order[i] = other;
    }
}

static void pattern_free(struct pattern *pattern)
{
    for (uint32_t i = 0; i < pattern->objects; i++)
        peer_free(values[i].node);
    peer_free(values);
    peer_free(slots);
    free(pattern->order);
}

/* Every slot holds what the order says, and the objects are whole. */
static void pattern_check(const struct pattern *pattern)
{
    for (uint32_t i = 0; i < pattern->objects; i++) {
        BENCH_CHECK(values[i].node->id == i);
        BENCH_CHECK(slots[i].node == NULL || slots[i].node->id == pattern->order[i]);
    }
}

#define BATCH_OF(name, store)                                                                                \
    __attribute__((noinline)) static void name(const struct pattern *pattern, uint32_t first)                \
    {                                                                                                        \
        struct slot *to = slots, *from = values;                                                             \
        const uint32_t *order = pattern->order;                                                              \
        uint32_t mask = pattern->objects - 1;                                                                \
        for (uint32_t i = 0; i < BATCH; i++) {                                                               \
            uint32_t slot = (first + i) & mask;                                                              \
            store(&to[slot].node, from[order[slot]].node);                                                   \
        }                                                                                                    \
    }
#define PLAIN_STORE(slot, value) __atomic_store_n((slot), (value), __ATOMIC_RELEASE)
BATCH_OF(batch_plain, PLAIN_STORE)

static double samples[BATCHES];

/* Median ns a store over batches with marking on or off as asked; gives up after limit_ns, then the
 * number of batches may be 0. */
static size_t measure(const struct pattern *pattern, void (*batch)(const struct pattern *, uint32_t),
                      bool marking, size_t want, uint64_t limit_ns, double *median)
{
    uint64_t start = bench_now();
    uint32_t first = 0;
    size_t n = 0;
    while (n < want) {
        bool before = peer_marking();
        uint64_t from = bench_now();
        batch(pattern, first);
        uint64_t to = bench_now();
        first += BATCH;
        if (before == marking && peer_marking() == marking)
            samples[n++] = (double)(to - from) / BATCH;
        if (to - start > limit_ns)
            break;
    }
    if (n > 0)
        *median = bench_quantile(samples, n, 0.5);
    return n;
}

static void report(const struct pattern *pattern, const char *mode, double ns,
                   const struct bench_section *section)
{
    struct bench_result result = {"store", PEER_NAME, "store", "ns", BENCH_LOWER, ns};
    bench_print(&result, section, "%s,barrier=%s", pattern->name, mode);
}

static void run_mode(const struct pattern *pattern, const char *mode,
                     void (*batch)(const struct pattern *, uint32_t), bool marking, bool quick)
{
    struct bench_section section;
    double ns = 0;
    size_t want = quick ? 200 : BATCHES;
    uint64_t limit = quick ? 2000000000u : 10000000000u;
    bench_begin(&section);
    size_t n = measure(pattern, batch, marking, want, limit, &ns);
    bench_end(&section);
    if (n == 0)
        bench_fail("no batch of stores with barrier %s in %llu s", mode,
                   (unsigned long long)limit / 1000000000u);
    report(pattern, mode, ns, &section);
    pattern_check(pattern);
}

#if defined(PEER_GREY)
BATCH_OF(batch_barrier, peer_store)

PEER_ROOT(struct node *, ballast);
static bool collecting; /* the second thread goes on while it is set */

static void *collect(void *arg)
{
    (void)arg;
    while (__atomic_load_n(&collecting, __ATOMIC_RELAXED))
        peer_collect();
    return NULL;
}

/* Something to mark, so that cycles are long: a list, whose marking can't be hurried. */
static void ballast_make(size_t mib)
{
    for (size_t i = 0; i < mib * 1024 * 1024 / sizeof(struct node); i++) {
        struct node *node = peer_new(&node_type);
        node->id = i;
        peer_store(&node->next, ballast);
        peer_store(&ballast, node);
    }
}

static void ballast_check(size_t mib)
{
    size_t n = mib * 1024 * 1024 / sizeof(struct node);
    for (const struct node *node = ballast; node != NULL; node = node->next)
        BENCH_CHECK(node->id == --n);
    BENCH_CHECK(n == 0);
}

static void run_on(const struct pattern *pattern, bool quick)
{
    pthread_t thread;
    __atomic_store_n(&collecting, true, __ATOMIC_RELAXED);
    BENCH_CHECK(peer_thread_create(&thread, collect, NULL) == 0);
    run_mode(pattern, "on", batch_barrier, true, quick);
    __atomic_store_n(&collecting, false, __ATOMIC_RELAXED);
    BENCH_CHECK(peer_thread_join(thread) == 0);
}
#endif

int main(int argc, char **argv)
{
    struct bench_options options;
    bench_parse(argc, argv, &options);
    uint64_t seed = options.seed;
    peer_start(options.workers);
    struct pattern patterns[] = {{"hot", 4096, NULL}, {"cold", options.quick ? 1u << 16 : 1u << 21, NULL}};
#if defined(PEER_GREY)
    size_t mib = options.mib != 0 ? options.mib : options.quick ? 16 : 256;
    ballast_make(mib);
    /* No cycle but those that are asked for: a raw store beside a cycle would be misuse. */
    peer_collection(false);
#endif
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        pattern_make(&patterns[i], &seed);
        run_mode(&patterns[i], "plain", batch_plain, false, options.quick);
#if defined(PEER_GREY)
        run_mode(&patterns[i], "off", batch_barrier, false, options.quick);
        run_on(&patterns[i], options.quick);
#endif
        pattern_free(&patterns[i]);
    }
#if defined(PEER_GREY)
    ballast_check(mib);
#endif
    return 0;
}
