/* growth.c -- does a byte of heap cost the same when there are a hundred times as many?
 *
 * The live heap doubles from 64 MiB to 2 GiB (--mib N; --full: 8 GiB, which needs 20 GiB of memory).  At
 * each size all objects are replaced once, in an order that jumps through the heap: with the heap allowed to
 * double that is one collection's worth of garbage.  What that costs, divided by the bytes, should not
 * depend on the size, nor should what it costs to grow there from half of it.
 *
 * Objects are pairs of 128 bytes: a record, with a pointer to its leaf.  Every one is checked when it is
 * replaced, and all of them at the end.
 */
#include "peer.h"

enum { BLOCK = 512, LEAF_WORDS = 16, FIRST_MIB = 64 };

struct record {
    uint64_t *leaf; /* its number in the first and the last word */
    uint64_t number, unused[14];
};
PEER_TYPE(record_type, struct record, leaf);
_Static_assert(sizeof(struct record) == 128, "a record is as large as its leaf");

struct slot {
    struct record *record;
};
PEER_TYPE(slot_type, struct slot, record);

struct block {
    struct slot *slots; /* BLOCK of them: a table without large objects */
};
PEER_TYPE(block_type, struct block, slots);
PEER_ROOT(struct block *, blocks);

static struct slot *slot_of(size_t number) { return &blocks[number / BLOCK].slots[number % BLOCK]; }

static void record_put(size_t number)
{
    struct record *record = peer_new(&record_type);
    uint64_t *leaf = peer_alloc_leaf(LEAF_WORDS * sizeof(uint64_t));
    leaf[0] = leaf[LEAF_WORDS - 1] = record->number = number;
    peer_store(&record->leaf, leaf);
    peer_store(&slot_of(number)->record, record);
}

static void record_check(size_t number)
{
    const struct record *record = slot_of(number)->record;
    BENCH_CHECK(record->number == number && record->leaf[0] == number &&
                record->leaf[LEAF_WORDS - 1] == number);
}

static void record_replace(size_t number)
{
    struct record *old = slot_of(number)->record;
    record_check(number);
    record_put(number);
    peer_free(old->leaf);
    peer_free(old);
}

static void grow(size_t from, size_t to)
{
    for (size_t number = from; number < to; number++) {
        if (number % BLOCK == 0)
            peer_store(&blocks[number / BLOCK].slots, (struct slot *)peer_new_array(&slot_type, BLOCK));
        record_put(number);
    }
}

/* n is a power of two and the factor odd: each number once. */
static void replace_all(size_t n)
{
    for (size_t i = 0; i < n; i++)
        record_replace((i * 0x9e3779b97f4a7c15u) & (n - 1));
}

static void print(const char *metric, size_t mib, size_t bytes, const struct bench_section *section)
{
    struct bench_result result = {"growth", PEER_NAME, "", "ns/B", BENCH_LOWER, 0};
    char name[32];
    snprintf(name, sizeof name, "%s_cpu", metric);
    result.metric = name;
    result.value = (double)section->cpu_ns / (double)bytes;
    bench_print(&result, section, "live_mib=%zu", mib);
    snprintf(name, sizeof name, "%s_wall", metric);
    result.value = (double)section->wall_ns / (double)bytes;
    bench_print(&result, section, "live_mib=%zu", mib);
}

int main(int argc, char **argv)
{
    struct bench_options options;
    bench_parse(argc, argv, &options);
    size_t last = options.mib != 0 ? options.mib : options.full ? 8192 : options.quick ? 16 : 2048;
    size_t first = options.quick ? 4 : FIRST_MIB, n = 0;
    BENCH_CHECK(last >= first && last <= 1u << 16);
    peer_start(options.workers);
    size_t pair = 2 * sizeof(struct record), most = (last << 20) / pair;
    peer_store(&blocks, (struct block *)peer_new_array(&block_type, (most + BLOCK - 1) / BLOCK));

    struct bench_section section, all = {0, 0, 0};
    for (size_t mib = first; mib <= last; mib *= 2) {
        size_t grown = (mib << 20) / pair;
        bench_begin(&section);
        grow(n, grown);
        bench_end(&section);
        print("grow", mib, (grown - n) * pair, &section);
        n = grown;
        bench_begin(&section);
        replace_all(n);
        bench_end(&section);
        print("replace", mib, n * pair, &section);
        all.cpu_ns += section.cpu_ns;
        all.rss_mib = section.rss_mib;
    }
    for (size_t number = 0; number < n; number++)
        record_check(number);
    peer_print_pauses("growth", &all, "all");
    return 0;
}
