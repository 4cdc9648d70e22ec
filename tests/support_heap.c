/* tests/support_heap.c -- see support_heap.h.
 *
 * Whether an object was freed is not a question that the interface answers, so tests ask in two ways:
 * freed_objects must have grown by nearly the number that was dropped (a few may be kept by words that
 * happen to lie on a stack), and what must live is checked word by word after everything that is free was
 * handed out again and overwritten.
 */
#include "support_child.h"

#include "os/os.h"
#include "support_heap.h"
#include "sweep/sweep.h"

#include <string.h>
#include <unistd.h>

struct grey_stats heap_figures(void)
{
    struct grey_stats stats = GREY_STATS_INIT;
    assert_int_equal(grey_stats_read(&stats), 0);
    return stats;
}

struct grey_stats heap_figures_at_rest(void)
{
    struct grey_stats before = heap_figures();
    int equal = 0; /* readings in a row: a sweeper that waits for a processor is not at rest */
    for (int ms = 0; ms < PATIENCE_MS; ms += 10) {
        usleep(10000);
        struct grey_stats now = heap_figures();
        bool same = memcmp(&before, &now, sizeof(now)) == 0;
        bool working = __atomic_load_n(&grey_phase_, __ATOMIC_RELAXED) != 0 || !sweep_done();
        equal = same && !working ? equal + 1 : 0;
        if (equal == 20)
            return now;
        before = now;
    }
    fail_msg("the figures do not come to rest");
    return before;
}

void heap_assert_unchanged(const struct grey_stats *before, const struct grey_stats *after)
{
    assert_int_equal(before->allocated_objects, after->allocated_objects);
    assert_int_equal(before->allocated_bytes, after->allocated_bytes);
    assert_int_equal(before->heap_objects, after->heap_objects);
    assert_int_equal(before->freed_objects, after->freed_objects);
    assert_int_equal(before->mapped, after->mapped);
    assert_int_equal(before->threads, after->threads);
}

/* Unsanitized: else a redzone, and what was there before, lies between the array and the caller's frame. */
OS_UNSANITIZED void heap_wipe_stack(void)
{
    volatile char dead[64 << 10];
    for (size_t i = 0; i < sizeof(dead); i++)
        dead[i] = 0;
}

void heap_collect_twice(void)
{
    heap_wipe_stack();
    grey_collect();
    heap_wipe_stack();
    grey_collect();
}

void heap_assert_freed(const struct grey_stats *before, uint64_t n)
{
    heap_collect_twice();
    struct grey_stats after = heap_figures();
    uint64_t freed = after.freed_objects - before->freed_objects;
    if (freed < n - n / 10)
        fail_msg("only %llu of %llu objects died", (unsigned long long)freed, (unsigned long long)n);
}

__attribute__((noinline)) static void fill_free_memory(void)
{
    for (size_t size = 16; size <= 1024; size += size < 256 ? 16 : 64)
        for (int i = 0; i < 300; i++) {
            unsigned char *p = grey_alloc_leaf(size);
            assert_non_null(p);
            memset(p, 0xee, size);
            p = grey_alloc(size);
            assert_non_null(p);
            memset(p, 0xee, size);
        }
}

void heap_reuse_free_memory(void)
{
    fill_free_memory();
    heap_collect_twice();
}

static uint64_t word_of(uint64_t number, size_t i) { return (number + 1) * 0x9e3779b97f4a7c15u ^ i; }

void *heap_marked_leaf(size_t size, uint64_t number)
{
    uint64_t *leaf = grey_alloc_leaf(size);
    assert_non_null(leaf);
    for (size_t i = 0; i < size / 8; i++)
        leaf[i] = word_of(number, i);
    return leaf;
}

int heap_leaf_is_intact(const void *leaf, uint64_t number)
{
    const uint64_t *words = leaf;
    for (size_t i = 0; i < grey_size(leaf) / 8 && i < 2; i++)
        if (words[i] != word_of(number, i))
            return 0;
    return grey_base(leaf) == leaf;
}
