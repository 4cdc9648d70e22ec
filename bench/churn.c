/* churn.c -- allocation at full speed by several threads, with a working set: the server's daily bread.
 *
 * Each thread has a ring of 10,000 slots and replaces the object in a slot over and over; sizes are
 * random, 16 to 512 bytes or 1 to 32 KiB, and every second object on average is a leaf (bytes without
 * pointers), the other one untyped.  The first and the last word of an object say whose it is, and
 * are checked when it leaves the ring: an object freed too early would carry another's.
 */
#include "peer.h"

struct object {
    uint64_t tag; /* and the same in the last word */
};
struct slot {
    struct object *object;
};
PEER_TYPE(slot_type, struct slot, object);

enum { SLOTS = 10000 };

struct task {
    uint32_t low, high; /* sizes, both included */
    uint64_t count, seed, thread;
};

static uint64_t tag_of(uint64_t thread, uint64_t slot, uint32_t size)
{
    return ((thread << 48) | (slot << 24) | size) ^ 0x5bd1e995a5a5c3c3u;
}

static uint64_t *last_word(struct object *object, uint32_t size)
{
    return (uint64_t *)object + size / sizeof(uint64_t) - 1;
}

/* Sizes are multiples of 8, so that the last word is whole. */
static uint32_t size_of(uint64_t random, const struct task *task)
{
    uint32_t range = task->high - task->low + 1;
    return (task->low + (uint32_t)(((random >> 32) * range) >> 32)) & ~(uint32_t)7;
}

static void object_check(struct object *object, const struct task *task, uint64_t slot)
{
    uint64_t tag = object->tag;
    uint32_t size = (uint32_t)(tag ^ tag_of(task->thread, slot, 0));
    BENCH_CHECK(size >= task->low && size <= task->high && tag == tag_of(task->thread, slot, size));
    BENCH_CHECK(*last_word(object, size) == tag);
}

static void *run(void *arg)
{
    struct task *task = arg;
    uint64_t seed = task->seed;
    struct slot *ring = peer_new_array(&slot_type, SLOTS);
    for (uint64_t i = 0, slot = 0; i < task->count; i++) {
        uint64_t random = bench_random(&seed);
        uint32_t size = size_of(random, task);
        struct object *object = (random & 1) != 0 ? peer_alloc_leaf(size) : peer_alloc(size);
        struct object *old = ring[slot].object;
        object->tag = tag_of(task->thread, slot, size);
        *last_word(object, size) = object->tag;
        if (old != NULL) {
            object_check(old, task, slot);
            peer_free(old);
        }
        peer_store(&ring[slot].object, object);
        slot = slot + 1 < SLOTS ? slot + 1 : 0;
    }
    for (uint64_t slot = 0; slot < SLOTS; slot++) {
        object_check(ring[slot].object, task, slot);
        peer_free(ring[slot].object);
    }
    peer_free(ring);
    return NULL;
}

int main(int argc, char **argv)
{
    struct bench_options options;
    bench_parse(argc, argv, &options);
    unsigned threads = options.threads != 0 ? options.threads : 1;
    bool large = options.variant != NULL && strcmp(options.variant, "large") == 0;
    BENCH_CHECK(threads <= PEER_THREADS);
    BENCH_CHECK(large || options.variant == NULL || strcmp(options.variant, "small") == 0);
    peer_start(options.workers);

    static struct task tasks[PEER_THREADS];
    uint64_t count = large ? 300000 : 10000000;
    if (options.quick)
        count = large ? 15000 : 200000;
    for (unsigned i = 0; i < threads; i++)
        tasks[i] = (struct task){large ? 1024 : 16, large ? 32768 : 512, count, options.seed + i, i};
    struct bench_section section;
    bench_begin(&section);
    peer_run(threads, run, tasks, sizeof tasks[0]);
    bench_end(&section);

    char name[64];
    snprintf(name, sizeof name, "%s,threads=%u", large ? "1K-32K" : "16-512", threads);
    double millions = (double)(count * threads) / 1e6;
    struct bench_result result = {"churn", PEER_NAME,    "rate",
                                  "M/s",   BENCH_HIGHER, millions / ((double)section.wall_ns / 1e9)};
    bench_print(&result, &section, "%s", name);
    result = (struct bench_result){"churn", PEER_NAME,   "cpu_per_alloc",
                                   "ns",    BENCH_LOWER, (double)section.cpu_ns / (millions * 1e6)};
    bench_print(&result, &section, "%s", name);
    peer_print_pauses("churn", &section, name);
    return 0;
}
