/* fragments.c -- what an allocation costs in a heap that long use has torn to pieces.
 *
 * A heap that doesn't move its objects can end with a few of them in every span, or with hardly a hole in
 * any.  Three live heaps of the same size (--mib, 64 if not said) of objects of 64 bytes:
 *
 *     fresh   as it was allocated
 *     tenth   one of every ten that were allocated, at random: spans 10 % full
 *     nine    nine of every ten: holes of one cell, mostly, so a run is one object
 *
 * Beside each, a ring of 10,000 slots whose objects are replaced over and over.  Reported is an allocation
 * into that ring, with what it takes to collect meanwhile.  Every object is checked when it leaves the ring,
 * and the live heap at the end.
 */
#include "peer.h"

enum { SLOTS = 10000, BLOCK = 512 };

struct object {
    struct object *next;
    uint64_t tag, unused[6];
};
PEER_TYPE(object_type, struct object, next);

struct slot {
    struct object *object;
};
PEER_TYPE(slot_type, struct slot, object);

struct block {
    struct slot *slots; /* BLOCK of them: a table without large objects */
};
PEER_TYPE(block_type, struct block, slots);
PEER_ROOT(struct block *, blocks);
PEER_ROOT(struct slot *, ring);

static uint64_t tag_of(uint64_t number) { return number * 0x9e3779b97f4a7c15u; }
static struct slot *slot_of(size_t number) { return &blocks[number / BLOCK].slots[number % BLOCK]; }

static struct object *object_make(uint64_t number)
{
    struct object *object = peer_new(&object_type);
    object->tag = tag_of(number);
    return object;
}

/* Of the heap that is filled, `kept` of 10 objects stay. */
static size_t fill(size_t live, unsigned kept, uint64_t *seed)
{
    size_t n = live * 10 / kept;
    peer_store(&blocks, (struct block *)peer_new_array(&block_type, (n + BLOCK - 1) / BLOCK));
#if PEER_COLLECTS
    peer_collection(false);
#endif
    for (size_t i = 0; i < n; i++) {
        if (i % BLOCK == 0)
            peer_store(&blocks[i / BLOCK].slots, (struct slot *)peer_new_array(&slot_type, BLOCK));
        peer_store(&slot_of(i)->object, object_make(i));
    }
    for (size_t i = 0; i < n; i++)
        if (bench_below(seed, 10) >= kept) {
            peer_free(slot_of(i)->object);
            peer_store(&slot_of(i)->object, NULL);
        }
#if PEER_COLLECTS
    peer_collection(true);
    peer_collect();
#endif
    return n;
}

static uint64_t made; /* objects, by churn */

static void churn(uint64_t count)
{
    size_t slot = made % SLOTS;
    for (uint64_t end = made + count; made < end; made++) {
        struct object *old = ring[slot].object, *object = object_make(made);
        if (old != NULL) {
            BENCH_CHECK(old->tag == tag_of(made - SLOTS));
            peer_free(old);
        }
        peer_store(&ring[slot].object, object);
        slot = slot + 1 < SLOTS ? slot + 1 : 0;
    }
}

static void check(size_t n)
{
    for (size_t i = 0; i < n; i++)
        BENCH_CHECK(slot_of(i)->object == NULL || slot_of(i)->object->tag == tag_of(i));
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        unsigned kept;
    } heaps[] = {{"fresh", 10}, {"tenth", 1}, {"nine", 9}};
    struct bench_options options;
    bench_parse(argc, argv, &options);
    size_t mib = options.mib != 0 ? options.mib : options.quick ? 4 : 64;
    uint64_t count = options.quick ? 100000 : 5000000;
    size_t which = 0;
    while (options.variant != NULL && strcmp(heaps[which].name, options.variant) != 0)
        if (++which == sizeof heaps / sizeof heaps[0])
            bench_fail("no variant %s", options.variant);
    peer_start(options.workers);
    size_t n = fill((mib << 20) / sizeof(struct object), heaps[which].kept, &options.seed);
    peer_store(&ring, (struct slot *)peer_new_array(&slot_type, SLOTS));

    churn(count / 2); /* the heap finds its size: the kernel's part in that is not the allocator's */
    struct bench_section section;
    bench_begin(&section);
    churn(count);
    bench_end(&section);
    check(n);
    struct bench_result result = {"fragments", PEER_NAME,   "alloc",
                                  "ns",        BENCH_LOWER, (double)section.wall_ns / (double)count};
    bench_print(&result, &section, "%s,live_mib=%zu", heaps[which].name, mib);
    result = (struct bench_result){"fragments", PEER_NAME,   "cpu_per_alloc",
                                   "ns",        BENCH_LOWER, (double)section.cpu_ns / (double)count};
    bench_print(&result, &section, "%s,live_mib=%zu", heaps[which].name, mib);
    peer_print_pauses("fragments", &section, heaps[which].name);
    return 0;
}
