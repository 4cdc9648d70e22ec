/* alloc.c -- what one allocation costs, by size, collection and reclamation included.
 *
 * One thread, a ring of 10,000 slots, one size at a time: each allocation replaces the object that was
 * allocated 10,000 ago.  Typed objects have one pointer field (null here) and the size is known to the
 * compiler, as in most programs; leaf objects have none.  What is measured includes the store into the
 * ring, the tag that is written into each object and its check when it leaves.
 */
#include "peer.h"

enum { SLOTS = 10000 };

struct slot {
    void *object;
};
PEER_TYPE(slot_type, struct slot, object);

static uint64_t tag_of(size_t slot, size_t size)
{
    return ((uint64_t)slot << 16 | size) * 0x9e3779b97f4a7c15u;
}

/* One loop for each size and kind, so that the size is a constant and the allocation inline. */
#define LOOP(name, T, N, allocate)                                                                           \
    static void name(struct slot *ring, uint64_t count)                                                      \
    {                                                                                                        \
        size_t slot = 0;                                                                                     \
        for (uint64_t i = 0; i < count; i++) {                                                               \
            struct T *old = ring[slot].object;                                                               \
            struct T *object = allocate;                                                                     \
            object->tag = tag_of(slot, N);                                                                   \
            if (old != NULL) {                                                                               \
                BENCH_CHECK(old->tag == tag_of(slot, N));                                                    \
                peer_free(old);                                                                              \
            }                                                                                                \
            peer_store(&ring[slot].object, (void *)object);                                                  \
            slot = slot + 1 < SLOTS ? slot + 1 : 0;                                                          \
        }                                                                                                    \
        for (slot = 0; slot < SLOTS; slot++) {                                                               \
            struct T *object = ring[slot].object;                                                            \
            BENCH_CHECK(object->tag == tag_of(slot, N));                                                     \
            peer_free(object);                                                                               \
            peer_store(&ring[slot].object, NULL);                                                            \
        }                                                                                                    \
    }

#define SIZE(N)                                                                                              \
    struct object##N {                                                                                       \
        union {                                                                                              \
            struct {                                                                                         \
                struct object##N *next;                                                                      \
                uint64_t tag;                                                                                \
            };                                                                                               \
            unsigned char bytes[N];                                                                          \
        };                                                                                                   \
    };                                                                                                       \
    PEER_TYPE(type##N, struct object##N, next);                                                              \
    LOOP(typed##N, object##N, N, peer_new(&type##N))                                                         \
    LOOP(leaf##N, object##N, N, peer_alloc_leaf(N))

SIZE(16)
SIZE(32)
SIZE(64)
SIZE(128)
SIZE(512)

static const struct kind {
    const char *name;
    size_t size;
    void (*loop)(struct slot *ring, uint64_t count);
} kinds[] = {
    {"typed", 16, typed16},   {"typed", 32, typed32}, {"typed", 64, typed64}, {"typed", 128, typed128},
    {"typed", 512, typed512}, {"leaf", 16, leaf16},   {"leaf", 32, leaf32},   {"leaf", 64, leaf64},
    {"leaf", 128, leaf128},   {"leaf", 512, leaf512},
};

int main(int argc, char **argv)
{
    struct bench_options options;
    bench_parse(argc, argv, &options);
    peer_start(options.workers);
    struct slot *ring = peer_new_array(&slot_type, SLOTS);
    uint64_t count = options.quick ? 100000 : 10000000;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct bench_section section;
        kinds[i].loop(ring, SLOTS); /* the first objects of a size: first touches, types, spans */
        bench_begin(&section);
        kinds[i].loop(ring, count);
        bench_end(&section);
        struct bench_result result = {"alloc", PEER_NAME,   "alloc",
                                      "ns",    BENCH_LOWER, (double)section.wall_ns / (double)count};
        bench_print(&result, &section, "%s,size=%zu", kinds[i].name, kinds[i].size);
    }
    peer_free(ring);
    return 0;
}
