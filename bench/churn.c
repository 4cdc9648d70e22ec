/* churn.c -- allocation at full speed by several threads, with a working set: the server's daily bread.
 *
 * Each thread has a ring of 10,000 slots and replaces the object in a slot over and over; sizes are
 * random, 16 to 512 bytes or 1 to 32 KiB, and every second object on average is a leaf (bytes without
 * pointers), the other one untyped.  The first and the last word of an object say whose it is, and
 * are checked when it leaves the ring: an object freed too early would carry another's.
 *
 * The variant "buffers" is 32 KiB to 1 MiB in a ring of 128 slots, all of them leaf objects, with a word of
 * every page written, since a buffer is filled: memory that an allocator has given back to the operating
 * system has its price here.
 */
#include "peer.h"

struct object {
    uint64_t tag; /* and the same in the last word */
};
struct slot {
    struct object *object;
};
PEER_TYPE(slot_type, struct slot, object);

enum { PAGE = 4096 };

struct variant {
    const char *name, *sizes;
    uint32_t low, high; /* sizes, both included */
    uint32_t slots;
    bool buffers; /* leaf objects only, every page of them written */
    uint64_t count, quick_count;
};
static const struct variant variants[] = {
    {"small", "16-512", 16, 512, 10000, false, 10000000, 200000},
    {"large", "1K-32K", 1024, 32768, 10000, false, 300000, 15000},
    {"buffers", "32K-1M", 32768, 1048576, 128, true, 200000, 1000},
};

struct task {
    const struct variant *variant;
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
static uint32_t size_of(uint64_t random, const struct variant *variant)
{
    uint32_t range = variant->high - variant->low + 1;
    return (variant->low + (uint32_t)(((random >> 32) * range) >> 32)) & ~(uint32_t)7;
}

static struct object *object_make(const struct task *task, uint64_t random, uint64_t slot)
{
    uint32_t size = size_of(random, task->variant);
    bool leaf = task->variant->buffers || (random & 1) != 0;
    struct object *object = leaf ? peer_alloc_leaf(size) : peer_alloc(size);
    if (task->variant->buffers)
        for (uint32_t i = PAGE; i < size; i += PAGE)
            *(uint64_t *)((char *)object + i) = random;
    object->tag = tag_of(task->thread, slot, size);
    *last_word(object, size) = object->tag;
    return object;
}

static void object_check(struct object *object, const struct task *task, uint64_t slot)
{
    uint64_t tag = object->tag;
    uint32_t size = (uint32_t)(tag ^ tag_of(task->thread, slot, 0));
    BENCH_CHECK(size >= task->variant->low && size <= task->variant->high);
    BENCH_CHECK(tag == tag_of(task->thread, slot, size));
    BENCH_CHECK(*last_word(object, size) == tag);
}

static void *run(void *arg)
{
    struct task *task = arg;
    uint64_t seed = task->seed, slots = task->variant->slots;
    struct slot *ring = peer_new_array(&slot_type, slots);
    for (uint64_t i = 0, slot = 0; i < task->count; i++) {
        struct object *object = object_make(task, bench_random(&seed), slot), *old = ring[slot].object;
        if (old != NULL) {
            object_check(old, task, slot);
            peer_free(old);
        }
        peer_store(&ring[slot].object, object);
        slot = slot + 1 < slots ? slot + 1 : 0;
    }
    for (uint64_t slot = 0; slot < slots; slot++) {
        object_check(ring[slot].object, task, slot);
        peer_free(ring[slot].object);
    }
    peer_free(ring);
    return NULL;
}

static const struct variant *find(const char *name)
{
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++)
        if (name == NULL || strcmp(name, variants[i].name) == 0)
            return &variants[i];
    bench_fail("no variant %s", name);
}

int main(int argc, char **argv)
{
    struct bench_options options;
    bench_parse(argc, argv, &options);
    unsigned threads = options.threads != 0 ? options.threads : 1;
    const struct variant *variant = find(options.variant);
    BENCH_CHECK(threads <= PEER_THREADS);
    peer_start(options.workers);

    static struct task tasks[PEER_THREADS];
    uint64_t count = options.quick ? variant->quick_count : variant->count;
    for (unsigned i = 0; i < threads; i++)
        tasks[i] = (struct task){variant, count, options.seed + i, i};
    /* Once before, shorter: heap and threads find their size.  What the kernel takes to clear a page at the first
     * touch is a server's first minute, and on a virtual machine it can be most of a short run. */
    for (unsigned i = 0; i < threads; i++)
        tasks[i].count = count / 4 > variant->slots ? count / 4 : variant->slots;
    peer_run(threads, run, tasks, sizeof tasks[0]);
    for (unsigned i = 0; i < threads; i++)
        tasks[i].count = count;
    struct bench_section section;
    bench_begin(&section);
    peer_run(threads, run, tasks, sizeof tasks[0]);
    bench_end(&section);

    char name[64];
    snprintf(name, sizeof name, "%s,threads=%u", variant->sizes, threads);
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
