/* index.c -- the range index beside what else could find the region that an address lies in.
 *
 *     grey    the range index, behind the test of the bounds of all regions, as the marker uses it
 *     array   a sorted array and binary search; nobody may change it meanwhile
 *     tree    the C library's balanced tree (tsearch) under a mutex
 *
 * It looks inside the library, since programs look words up only one at a time (grey_foreign_find).  A
 * lookup is hot when everything was looked at before, in random order: then it is a rate. It is cold after
 * a sweep through more memory than the caches hold: then every lookup is timed by itself, and the median
 * printed.  After each sweep only a few are made, at most one in 32 regions, so that they stay cold; the
 * upper levels that they share become warm, as they do in a marker.  (A few regions are never cold in a
 * program that looks them up.)
 *
 * At the end the same lookups go on beside a thread that removes and inserts as fast as it can: there the
 * array needs a lock as well, for which it gets a reader-writer lock; the tree has its mutex always.
 */
#include "bench.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

#include "foreign/index.h"

#if defined(PEER_GREY)
#include "barrier/barrier.h"
#include "foreign/epoch.h"
#define PEER_NAME "grey"
#elif defined(PEER_ARRAY)
#define PEER_NAME "array"
#elif defined(PEER_TREE)
#include <search.h>
#define PEER_NAME "tree"
#else
#error "index.c: define PEER_GREY, PEER_ARRAY or PEER_TREE"
#endif

enum {
    SECTION = 64,
    SWEEP_BYTES = 96 << 20,
    KEYS = 1 << 16,
    PIECE = 1024,
    COLD_LEAST = 512,
    COLD_MOST = 4096
};

static bool quick;
static uint64_t seed;
static struct index_range *regions; /* in order of address */
static size_t n_regions;
static volatile uintptr_t sink;

static void *checked(void *p)
{
    BENCH_CHECK(p != NULL);
    return p;
}

/* ---- peers ------------------------------------------------------------------------------------------- */

#if defined(PEER_GREY)

typedef struct epoch_reader *peer_reader;
static struct index ranges;
static peer_reader peer_reader_new(void) { return checked(epoch_reader_new()); }
static inline void peer_enter(peer_reader reader) { epoch_enter(reader); }
static inline void peer_leave(peer_reader reader) { epoch_leave(reader); }
static inline bool peer_find(uintptr_t p, struct index_range *out)
{
    return outside_may_matter(p) && index_find(&ranges, p, out);
}
static void peer_insert(const struct index_range *range)
{
    BENCH_CHECK(index_insert(&ranges, range->start, range->end, range->value) == 0);
}
static void peer_remove(uintptr_t start) { BENCH_CHECK(index_remove(&ranges, start)); }
static void peer_build(void)
{
    os_memory_init();
    BENCH_CHECK(epoch_init() == 0);
    index_init(&ranges);
    outside_set(OUTSIDE_REGIONS, regions[0].start, regions[n_regions - 1].end + 1);
}
static void peer_share(bool shared) { (void)shared; }

#elif defined(PEER_ARRAY)

typedef int peer_reader;
static struct index_range *array;
static size_t array_count;
static pthread_rwlock_t array_lock = PTHREAD_RWLOCK_INITIALIZER;
static bool array_shared;
static peer_reader peer_reader_new(void) { return 0; }
static inline void peer_enter(peer_reader reader)
{
    (void)reader;
    if (array_shared)
        pthread_rwlock_rdlock(&array_lock);
}
static inline void peer_leave(peer_reader reader)
{
    (void)reader;
    if (array_shared)
        pthread_rwlock_unlock(&array_lock);
}
/* The number of ranges that start at or below p. */
static inline size_t array_below(uintptr_t p)
{
    size_t low = 0, high = array_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (array[middle].start <= p)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}
static __attribute__((noinline)) bool peer_find(uintptr_t p, struct index_range *out)
{
    size_t below = array_below(p);
    if (below == 0 || p >= array[below - 1].end)
        return false;
    *out = array[below - 1];
    return true;
}
static void peer_insert(const struct index_range *range)
{
    if (array_shared)
        pthread_rwlock_wrlock(&array_lock);
    size_t at = array_below(range->start);
    memmove(&array[at + 1], &array[at], (array_count++ - at) * sizeof *array);
    array[at] = *range;
    if (array_shared)
        pthread_rwlock_unlock(&array_lock);
}
static void peer_remove(uintptr_t start)
{
    if (array_shared)
        pthread_rwlock_wrlock(&array_lock);
    size_t at = array_below(start);
    BENCH_CHECK(at != 0 && array[at - 1].start == start);
    memmove(&array[at - 1], &array[at], (array_count-- - at) * sizeof *array);
    if (array_shared)
        pthread_rwlock_unlock(&array_lock);
}
static void peer_build(void) { array = checked(malloc((n_regions + 1) * sizeof *array)); }
static void peer_share(bool shared) { array_shared = shared; }

#else

typedef int peer_reader;
static void *tree;
static pthread_mutex_t tree_lock = PTHREAD_MUTEX_INITIALIZER;
static peer_reader peer_reader_new(void) { return 0; }
static inline void peer_enter(peer_reader reader) { (void)reader; }
static inline void peer_leave(peer_reader reader) { (void)reader; }
/* Ranges that overlap are equal, so one byte finds the range that it lies in. */
static int tree_compare(const void *a, const void *b)
{
    const struct index_range *x = a, *y = b;
    return x->end <= y->start ? -1 : x->start >= y->end;
}
static __attribute__((noinline)) bool peer_find(uintptr_t p, struct index_range *out)
{
    struct index_range key = {p, p + 1, 0};
    pthread_mutex_lock(&tree_lock);
    struct index_range **found = tfind(&key, &tree, tree_compare);
    if (found != NULL)
        *out = **found;
    pthread_mutex_unlock(&tree_lock);
    return found != NULL;
}
static void peer_insert(const struct index_range *range)
{
    struct index_range *own = checked(malloc(sizeof *own));
    *own = *range;
    pthread_mutex_lock(&tree_lock);
    BENCH_CHECK(*(struct index_range **)checked(tsearch(own, &tree, tree_compare)) == own);
    pthread_mutex_unlock(&tree_lock);
}
static void peer_remove(uintptr_t start)
{
    struct index_range key = {start, start + 1, 0};
    pthread_mutex_lock(&tree_lock);
    struct index_range *own = **(struct index_range ***)checked(&(void *){tfind(&key, &tree, tree_compare)});
    checked(tdelete(&key, &tree, tree_compare));
    pthread_mutex_unlock(&tree_lock);
    free(own);
}
static void peer_build(void) {}
static void peer_share(bool shared) { (void)shared; }

#endif

/* ---- regions and addresses --------------------------------------------------------------------------- */

/* Never touched, so they may be anywhere. */
static void make_regions(size_t n)
{
    uint64_t random = seed;
    uintptr_t at = 0x100000000000;
    regions = checked(malloc(n * sizeof *regions));
    n_regions = n;
    for (size_t i = 0; i < n; i++) {
        at += 16 + bench_below(&random, 2048);
        uintptr_t size = 64 + bench_below(&random, 65536);
        regions[i] = (struct index_range){at, at + size, (uint32_t)i};
        at += size;
    }
}

static uint32_t *shuffled(size_t n, uint64_t *random)
{
    uint32_t *order = checked(malloc(n * sizeof *order));
    for (size_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    for (size_t i = n; i > 1; i--) {
        uint32_t j = bench_below(random, (uint32_t)i), other = order[i - 1];
        order[i - 1] = order[j];
        order[j] = other;
    }
    return order;
}

/* The array could not be built in random order in any time: it is told to append. */
static void build(void)
{
    peer_build();
#if defined(PEER_ARRAY)
    for (size_t i = 0; i < n_regions; i++)
        peer_insert(&regions[i]);
#else
    uint64_t random = seed + 1;
    uint32_t *order = shuffled(n_regions, &random);
    for (size_t i = 0; i < n_regions; i++)
        peer_insert(&regions[order[i]]);
    free(order);
#endif
}

/* A byte of a random region; or of the gap before one, and for one region alone behind it, out of bounds. */
static uintptr_t random_address(uint64_t *random, bool hit)
{
    const struct index_range *region = &regions[bench_below(random, (uint32_t)n_regions)];
    if (hit)
        return region->start + bench_below(random, (uint32_t)(region->end - region->start));
    return region == regions ? regions[n_regions - 1].end + 8 : region->start - 1 - bench_below(random, 16);
}

/* ---- lookups ----------------------------------------------------------------------------------------- */

static void print(const char *metric, const char *unit, enum bench_better better, double value,
                  const struct bench_section *section)
{
    struct bench_result result = {"index", PEER_NAME, metric, unit, better, value};
    bench_print(&result, section, "regions=%zu", n_regions);
}

/* All keys, in sections of SECTION; returns how many were found. */
static size_t look_up(peer_reader reader, const uintptr_t *keys, size_t n)
{
    size_t found = 0;
    uintptr_t sum = 0;
    for (size_t i = 0; i < n;) {
        size_t end = i + SECTION < n ? i + SECTION : n;
        peer_enter(reader);
        for (; i < end; i++) {
            struct index_range range;
            if (peer_find(keys[i], &range)) {
                sum += range.value + range.start;
                found++;
            }
        }
        peer_leave(reader);
    }
    sink = sum;
    return found;
}

static uintptr_t *make_keys(bool hit, size_t n)
{
    uint64_t random = seed + 2;
    uintptr_t *keys = checked(malloc(n * sizeof *keys));
    for (size_t i = 0; i < n; i++)
        keys[i] = random_address(&random, hit);
    return keys;
}

/* The median over pieces that are short beside the scheduler's: what other programs took isn't in it. */
static void measure_hot(peer_reader reader, const char *metric, const uintptr_t *keys, size_t n_keys,
                        bool hit)
{
    size_t rounds = quick ? 1 : 3 + 40 * KEYS / n_keys, n = 0;
    double *values = checked(malloc(rounds * (n_keys / PIECE) * sizeof *values));
    struct bench_section section;
    look_up(reader, keys, n_keys);
    bench_begin(&section);
    for (size_t i = 0; i < rounds; i++) {
        for (size_t at = 0; at + PIECE <= n_keys; at += PIECE) {
            uint64_t begin = bench_now();
            BENCH_CHECK(look_up(reader, keys + at, PIECE) == (hit ? PIECE : 0));
            values[n++] = (double)(bench_now() - begin) / PIECE;
        }
    }
    bench_end(&section);
    print(metric, "ns", BENCH_LOWER, bench_quantile(values, n, 0.5), &section);
    free(values);
}

static void measure_all_hot(peer_reader reader)
{
    size_t n = n_regions > KEYS ? n_regions : KEYS;
    uintptr_t *hits = make_keys(true, n), *misses = make_keys(false, n);
    measure_hot(reader, "hit_hot", hits, n, true);
    measure_hot(reader, "miss_hot", misses, n, false);
    for (size_t i = 0; i < KEYS; i++) /* far away: the bounds alone turn them away */
        hits[i] += i % 2 != 0 ? (uintptr_t)1 << 46 : 0 - ((uintptr_t)1 << 43);
    measure_hot(reader, "miss_bounds", hits, KEYS, false);
    free(hits);
    free(misses);
}

static void measure_sections(peer_reader reader)
{
    enum { N = 1000000 };
    struct bench_section section;
    bench_begin(&section);
    for (int i = 0; i < N; i++) {
        peer_enter(reader);
        peer_leave(reader);
    }
    bench_end(&section);
    print("section", "ns", BENCH_LOWER, (double)section.wall_ns / N, &section);
}

/* ---- cold -------------------------------------------------------------------------------------------- */

static void sweep_caches(void)
{
    static char *memory;
    if (memory == NULL)
        memory = memset(checked(malloc(SWEEP_BYTES)), 1, SWEEP_BYTES);
    uintptr_t sum = 0;
    for (size_t i = 0; i < SWEEP_BYTES; i += 64)
        sum += (uintptr_t)memory[i]++;
    sink = sum;
}

static inline uint64_t ticks(void)
{
    unsigned processor;
    _mm_lfence();
    uint64_t now = __rdtscp(&processor);
    _mm_lfence();
    return now;
}

static double ns_per_tick(void)
{
    uint64_t begin = bench_now(), first = ticks();
    while (bench_now() - begin < 20000000)
        ;
    return (double)(bench_now() - begin) / (double)(ticks() - first);
}

static double empty_ticks(void)
{
    double values[1000];
    for (size_t i = 0; i < 1000; i++) {
        uint64_t begin = ticks();
        values[i] = (double)(ticks() - begin);
    }
    return bench_quantile(values, 1000, 0.5);
}

static void measure_cold(peer_reader reader, const char *metric, bool hit)
{
    size_t batch = n_regions / 32 < COLD_MOST ? n_regions / 32 : COLD_MOST;
    size_t sweeps = quick ? 3 : 30, n = 0;
    double *values = checked(malloc(batch * sweeps * sizeof *values)), ns = ns_per_tick(),
           none = empty_ticks();
    uint64_t random = seed + 3;
    static uintptr_t keys[COLD_MOST];
    struct bench_section section;
    bench_begin(&section);
    for (size_t i = 0; i < sweeps; i++) {
        sweep_caches();
        for (size_t k = 0; k < batch; k++)
            keys[k] = random_address(&random, hit);
        peer_enter(reader);
        for (size_t k = 0; k < batch; k++) {
            struct index_range range = {0};
            uint64_t begin = ticks();
            bool found = peer_find(keys[k], &range);
            values[n++] = ((double)(ticks() - begin) - none) * ns;
            BENCH_CHECK(found == hit && (!hit || (range.start <= keys[k] && keys[k] < range.end)));
        }
        peer_leave(reader);
    }
    bench_end(&section);
    print(metric, "ns", BENCH_LOWER, bench_quantile(values, n, 0.5), &section);
    free(values);
}

/* ---- changes, and lookups beside them ------------------------------------------------------------------ */

static void measure_changes(void)
{
    size_t n = quick ? 100 : 20000, most = 128;
#if defined(PEER_ARRAY)
    n = quick ? 10 : 400; /* it moves half of itself */
    most = 16;
#endif
    n = n < n_regions ? n : n_regions;
    uint64_t random = seed + 4;
    size_t piece = n < most ? n : most, pieces = n / piece, count = pieces * (1 + (quick ? 100 : 5000) / n);
    uint32_t *order = shuffled(n_regions, &random);
    double *removing = checked(malloc(count * sizeof *removing));
    double *inserting = checked(malloc(count * sizeof *inserting));
    struct bench_section section;
    bench_begin(&section);
    for (size_t k = 0; k < count; k++) {
        const uint32_t *these = order + k % pieces * piece;
        uint64_t begin = bench_now();
        for (size_t i = 0; i < piece; i++)
            peer_remove(regions[these[i]].start);
        uint64_t middle = bench_now();
        for (size_t i = 0; i < piece; i++)
            peer_insert(&regions[these[i]]);
        inserting[k] = (double)(bench_now() - middle) / (double)piece;
        removing[k] = (double)(middle - begin) / (double)piece;
    }
    bench_end(&section);
    print("remove", "ns", BENCH_LOWER, bench_quantile(removing, count, 0.5), &section);
    print("insert", "ns", BENCH_LOWER, bench_quantile(inserting, count, 0.5), &section);
    free(removing);
    free(inserting);
    free(order);
}

static atomic_bool writer_stop;

/* Every other region goes and comes back; what is looked up beside it stays. */
static void *write_all_the_time(void *changes)
{
    uint64_t random = seed + 5, n = 0;
    while (!atomic_load_explicit(&writer_stop, memory_order_relaxed)) {
        const struct index_range *region = &regions[bench_below(&random, (uint32_t)n_regions) | 1];
        peer_remove(region->start);
        peer_insert(region);
        n += 2;
    }
    *(uint64_t *)changes = n;
    return NULL;
}

static void measure_reading(peer_reader reader, const char *metric, const uintptr_t *keys)
{
    uint64_t wanted = quick ? 10000000 : 1000000000, lookups = 0;
    struct bench_section section;
    bench_begin(&section);
    uint64_t begin = bench_now(), took;
    do {
        BENCH_CHECK(look_up(reader, keys, KEYS) == KEYS);
        lookups += KEYS;
        took = bench_now() - begin;
    } while (took < wanted);
    bench_end(&section);
    print(metric, "M/s", BENCH_HIGHER, (double)lookups * 1e3 / (double)took, &section);
}

static void measure_beside_writer(peer_reader reader)
{
    uintptr_t *keys = make_keys(true, KEYS);
    uint64_t random = seed + 6, changes = 0;
    pthread_t writer;
    struct bench_section section;
    for (size_t i = 0; i < KEYS; i++) {
        const struct index_range *region = &regions[bench_below(&random, (uint32_t)n_regions) & ~1u];
        keys[i] = region->start + (keys[i] & 63);
    }
    peer_share(true);
    measure_reading(reader, "read_alone", keys);
    BENCH_CHECK(pthread_create(&writer, NULL, write_all_the_time, &changes) == 0);
    bench_begin(&section);
    measure_reading(reader, "read_beside_writer", keys);
    bench_end(&section);
    atomic_store(&writer_stop, true);
    pthread_join(writer, NULL);
    peer_share(false);
    print("changes_beside_reader", "M/s", BENCH_HIGHER, (double)changes * 1e3 / (double)section.wall_ns,
          &section);
    free(keys);
}

int main(int argc, char **argv)
{
    struct bench_options options;
    bench_parse(argc, argv, &options);
    quick = options.quick;
    seed = options.seed;
    size_t n = options.variant != NULL ? strtoull(options.variant, NULL, 10) : 1000;
    BENCH_CHECK(n > 0 && n < UINT32_MAX);
    make_regions(n);
    build();
    peer_reader reader = peer_reader_new();
    measure_all_hot(reader);
    if (n >= COLD_LEAST) {
        measure_cold(reader, "hit_cold", true);
        measure_cold(reader, "miss_cold", false);
    }
    measure_sections(reader);
    measure_changes();
    if (n > 1)
        measure_beside_writer(reader);
    return 0;
}
