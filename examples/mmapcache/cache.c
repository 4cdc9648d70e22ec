/* cache.c -- mappings that live as long as somebody points into them.
 *
 * Each mapping of a segment is a foreign region.  The cache points to `resident` of them; a reader who was
 * given a record points to the segment it lies in.  When a segment is dropped from the cache its pointer is
 * overwritten and that is all: if no reader is there the next cycle finds the region dead and its cleanup
 * unmaps it, and if one is there it stays mapped until he too has let go.  Nothing counts references, so
 * a lookup of a resident segment writes nothing that others read but a flag, and that only if it isn't set.
 *
 * A segment that was dropped and is asked for again while an old reader still holds it is mapped a second
 * time.  Both mappings show the same pages of the page cache; the second costs address space only.
 *
 * Two things bound the number of mappings.  grey_external_add tells the collector that each stands for
 * more than the few words that point to it, so that cycles come in time.  And n_mapped is a hard limit,
 * as the kernel's own (vm.max_map_count): who reaches it asks the collector for what is garbage by now, and
 * waits.  That is how a program treats any scarce thing that garbage may still hold.
 */
#include "cache.h"

#include <grey.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

/* What one mapping is worth in bytes of heap: more than the page table and the kernel's records of it, less
 * than the 128 KiB of page cache that it shows, which the kernel takes back when it likes.  Larger means more
 * cycles and fewer mappings: large enough that cycles mostly come before the limit is reached. */
enum { MAPPING_WORTH = 32 * 1024 };

/* A page more than the region.  A pointer just past the end of a region keeps it too if it lies on a stack,
 * and the start of whatever the kernel maps next, a thread's stack say, may well be written down there. */
enum { MAPPING_SIZE = SEGMENT_SIZE + 4096 };

/* An open-addressed table: no pointers, so the collector never reads it. */
struct slot {
    uint64_t key;
    uint32_t segment;
    uint32_t offset; /* 0: free */
};

struct cache {
    struct slot *index;
    const struct segment **segments; /* by number; NULL: not resident */
    atomic_uchar *used;              /* by number; relaxed: a hint for eviction */
    uint32_t *clock;                 /* the resident ones: under the lock, as all below */
    size_t index_mask;
    pthread_mutex_t lock;
    unsigned hand, n_resident;
    struct cache_options options;
};
GREY_TYPE(cache_type, struct cache, index, segments, used, clock);

/* Outside of the heap, for the cleanups: no cleanup has to find its cache, which may be gone.  Relaxed order
 * throughout: figures, and a limit that protects nothing but itself. */
static atomic_uint_fast64_t n_misses, n_waits, n_ever_mapped, n_ever_unmapped, n_mapped, most_mapped;

struct cache_figures cache_figures(void)
{
    return (struct cache_figures){atomic_load_explicit(&n_misses, memory_order_relaxed),
                                  atomic_load_explicit(&n_waits, memory_order_relaxed),
                                  atomic_load_explicit(&n_ever_mapped, memory_order_relaxed),
                                  atomic_load_explicit(&n_ever_unmapped, memory_order_relaxed),
                                  atomic_load_explicit(&most_mapped, memory_order_relaxed)};
}

/* ---- mapping ---------------------------------------------------------------------------------- */

/* The cleanup of a region: nobody points into it any more, and nobody can again. */
static void unmap_segment(uintptr_t start, size_t size, void *arg)
{
    (void)size;
    (void)arg;
    munmap((void *)start, MAPPING_SIZE);
    atomic_fetch_sub_explicit(&n_mapped, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&n_ever_unmapped, 1, memory_order_relaxed);
    /* grey_external_add is not taken back here: it counts what came since the last cycle, as allocation
     * does, not what there is. */
}

static bool take_permit(unsigned limit)
{
    uint64_t n = atomic_load_explicit(&n_mapped, memory_order_relaxed);

    do {
        if (n >= limit)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&n_mapped, &n, n + 1, memory_order_relaxed,
                                                    memory_order_relaxed));
    uint64_t most = atomic_load_explicit(&most_mapped, memory_order_relaxed);
    while (most < n + 1 && !atomic_compare_exchange_weak_explicit(&most_mapped, &most, n + 1,
                                                                  memory_order_relaxed, memory_order_relaxed))
        ;
    return true;
}

/* With a permit, which goes back if it fails. */
static const struct segment *map_segment(const struct cache *cache, uint32_t number)
{
    void *start =
        mmap(NULL, MAPPING_SIZE, PROT_READ, MAP_SHARED, cache->options.file, (off_t)number * SEGMENT_SIZE);
    int error =
        start == MAP_FAILED ? errno : grey_foreign_add(start, SEGMENT_SIZE, 0, unmap_segment, NULL, NULL);

    if (error != 0) {
        if (start != MAP_FAILED)
            munmap(start, MAPPING_SIZE);
        atomic_fetch_sub_explicit(&n_mapped, 1, memory_order_relaxed);
        errno = error;
        return NULL;
    }
    grey_external_add(MAPPING_WORTH);
    atomic_fetch_add_explicit(&n_ever_mapped, 1, memory_order_relaxed);
    return start;
}

/* ---- the resident segments --------------------------------------------------------------------- */

/* Puts a segment in the place of one that was not used since the hand last passed (second chance, an
 * approximation of LRU).  Under the lock. */
static void make_resident(struct cache *cache, uint32_t number, const struct segment *segment)
{
    unsigned at = cache->n_resident;

    if (at < cache->options.resident) {
        cache->n_resident++;
    } else {
        while (atomic_exchange_explicit(&cache->used[cache->clock[cache->hand]], 0, memory_order_relaxed) !=
               0)
            cache->hand = (cache->hand + 1) % cache->options.resident;
        at = cache->hand;
        cache->hand = (cache->hand + 1) % cache->options.resident;
        grey_store(&cache->segments[cache->clock[at]], NULL);
    }
    cache->clock[at] = number;
    grey_store(&cache->segments[number], segment);
}

static const struct segment *load_segment(struct cache *cache, uint32_t number)
{
    while (!take_permit(cache->options.most_mapped)) {
        atomic_fetch_add_explicit(&n_waits, 1, memory_order_relaxed);
        grey_collect();
        grey_cleanup_wait(-1);
    }
    pthread_mutex_lock(&cache->lock);
    const struct segment *segment = cache->segments[number];
    if (segment != NULL) { /* somebody else was faster */
        atomic_fetch_sub_explicit(&n_mapped, 1, memory_order_relaxed);
    } else {
        segment = map_segment(cache, number);
        if (segment != NULL)
            make_resident(cache, number, segment);
    }
    pthread_mutex_unlock(&cache->lock);
    return segment;
}

static const struct segment *get_segment(struct cache *cache, uint32_t number)
{
    /* Acquire: pairs with the release of grey_store, under which the mapping was made.  From this load on
     * the pointer is on this thread's stack, and the mapping stays. */
    const struct segment *segment = __atomic_load_n(&cache->segments[number], __ATOMIC_ACQUIRE);

    if (segment == NULL) {
        atomic_fetch_add_explicit(&n_misses, 1, memory_order_relaxed);
        segment = load_segment(cache, number);
    }
    if (atomic_load_explicit(&cache->used[number], memory_order_relaxed) == 0)
        atomic_store_explicit(&cache->used[number], 1, memory_order_relaxed);
    return segment;
}

/* ---- the index -------------------------------------------------------------------------------- */

/* The slot of the key, or the free one where it belongs.  Keys are random, so they are their own hash. */
static struct slot *find_slot(const struct cache *cache, uint64_t key)
{
    size_t i = key & cache->index_mask;

    while (cache->index[i].offset != 0 && cache->index[i].key != key)
        i = (i + 1) & cache->index_mask;
    return &cache->index[i];
}

static bool add_to_index(struct cache *cache, const struct segment *segment, uint32_t number, size_t *room)
{
    if (segment->number != number || segment->n_records > *room)
        return false;
    *room -= segment->n_records;
    for (const struct record *r = segment_next(segment, NULL); r != NULL; r = segment_next(segment, r)) {
        uint32_t offset = (uint32_t)((const char *)r - (const char *)segment);
        *find_slot(cache, r->key) = (struct slot){r->key, number, offset};
    }
    return true;
}

/* The objects that the cache consists of. */
static struct cache *new_cache(const struct cache_options *options)
{
    struct cache *cache = grey_new(&cache_type);
    size_t n_slots = 64;

    if (cache == NULL)
        return NULL;
    while (n_slots < options->n_records * 2)
        n_slots *= 2;
    pthread_mutex_init(&cache->lock, NULL);
    cache->options = *options;
    cache->index_mask = n_slots - 1;
    grey_store(&cache->index, grey_zalloc_leaf(n_slots * sizeof *cache->index));
    grey_store(&cache->segments, grey_alloc(options->n_segments * sizeof *cache->segments));
    grey_store(&cache->used, grey_zalloc_leaf(options->n_segments * sizeof *cache->used));
    grey_store(&cache->clock, grey_zalloc_leaf(options->resident * sizeof *cache->clock));
    bool whole =
        cache->index != NULL && cache->segments != NULL && cache->used != NULL && cache->clock != NULL;
    return whole ? cache : NULL;
}

struct cache *cache_new(const struct cache_options *options)
{
    struct cache *cache = new_cache(options);
    size_t room = options->n_records;

    for (uint32_t i = 0; cache != NULL && i < options->n_segments; i++) {
        const struct segment *segment = get_segment(cache, i);
        if (segment == NULL)
            return NULL;
        if (!add_to_index(cache, segment, i, &room)) {
            errno = EIO;
            return NULL;
        }
    }
    return cache;
}

const struct record *cache_find(struct cache *cache, uint64_t key)
{
    const struct slot *slot = find_slot(cache, key);

    if (slot->offset == 0) {
        errno = ENOENT;
        return NULL;
    }
    const struct segment *segment = get_segment(cache, slot->segment);
    return segment != NULL ? (const struct record *)((const char *)segment + slot->offset) : NULL;
}
