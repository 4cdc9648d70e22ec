/* tests/api/large_blocks_test.c -- large untyped objects, arrays of pointers, and regions that are scanned:
 * each pointer in them is found, wherever it lies, by every kernel that the processor has.
 *
 * Such blocks go through the filter (mark/filter.c).  Blocks of 200 bytes to 24 KiB, at the alignments that
 * size classes give, hold none, one (often the first or last), some and nothing but pointers among
 * numbers; what they point to is reachable by nothing else.  With and without something registered outside
 * the heap, since the filter has a version for each.
 *
 * Requirements: MK-3, MK-14, AL-10 (interior pointers), FR-21, TU-4 (simd).
 * Seed: GREY_TEST_SEED or the clock; printed.
 */
#include "support_child.h"
#include "support_foreign.h"
#include "support_heap.h"

#include "os/simd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BLOCKS = 64, LEAVES_MAX = 1 << 17, LEAF = 32, REGION = 64 << 10 };

struct pointer {
    void *to;
};
GREY_TYPE(pointer_type, struct pointer, to);

static void **blocks[BLOCKS + 1]; /* a root; the last: who holds the regions */
static struct leaf {
    uintptr_t hidden; /* ~address */
    void **slot;
} * leaves; /* not scanned */
static size_t n_leaves;
static struct region kept, scanned;
static uint64_t state;

static uint64_t next_random(void) /* splitmix64 */
{
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* A leaf that only the slot leads to; interior: by any of its bytes. */
static void fill_slot(void **slot, bool interior)
{
    assert_true(n_leaves < LEAVES_MAX);
    char *leaf = heap_marked_leaf(LEAF, n_leaves);
    leaves[n_leaves++] = (struct leaf){~(uintptr_t)leaf, slot};
    grey_store(slot, leaf + (interior ? next_random() % LEAF : 0));
}

enum { NONE, ONE, SOME, ALL, KINDS };

static void fill_block(void **block, size_t words, unsigned kind, bool typed)
{
    size_t chosen = next_random() % 4, one = chosen == 0   ? 0
                                             : chosen == 1 ? words - 1
                                                           : next_random() % words;
    for (size_t i = 0; i < words; i++) {
        if (kind == ALL || (kind == ONE && i == one) || (kind == SOME && next_random() % 10 == 0))
            fill_slot(&block[i], !typed);
        else if (!typed)
            ((uintptr_t *)block)[i] = next_random() >> 40; /* a number */
    }
}

static void make_blocks(void)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        size_t words = 25 + next_random() % (i % 4 == 0 ? 3000 : 300);
        bool typed = i % 3 == 0;
        void *block = typed ? grey_new_array(&pointer_type, words) : grey_alloc(words * sizeof(void *));
        assert_non_null(block);
        grey_store((void **)&blocks[i], block);
        fill_block(block, words, (unsigned)(next_random() % KINDS), typed);
    }
}

/* What lies outside the heap: a region that a block leads to, and in it more leaves. */
static void make_regions(void)
{
    region_new(&kept, 100, 0);
    region_new(&scanned, REGION, GREY_FOREIGN_SCAN);
    void **holder = grey_alloc(4096);
    assert_non_null(holder);
    grey_store((void **)&blocks[BLOCKS], holder);
    grey_store(&holder[300], region_start(&kept));
    grey_store(&holder[511], region_start(&scanned) + 5);
    fill_block((void **)region_start(&scanned), REGION / sizeof(void *), SOME, false);
}

static bool with_regions;
static void make(void)
{
    n_leaves = 0;
    make_blocks();
    if (with_regions)
        make_regions();
}

static void drop_half(void)
{
    for (size_t i = 0; i < n_leaves; i += 2)
        grey_store(leaves[i].slot, NULL);
}

static void assert_intact(size_t first, size_t step)
{
    for (size_t i = first; i < n_leaves; i += step)
        if (!heap_leaf_is_intact((const void *)~leaves[i].hidden, i))
            fail_msg("what slot %p of a large block points to was freed", (void *)leaves[i].slot);
}

static void every_pointer_is_found(void)
{
    region_thread(make);
    heap_collect_twice();
    heap_reuse_free_memory();
    assert_intact(0, 1);
    struct grey_stats before = heap_figures();
    region_thread(drop_half);
    heap_assert_freed(&before, n_leaves / 2);
    heap_reuse_free_memory();
    assert_intact(1, 2);
    if (!with_regions)
        return;
    region_assert_lives(&kept);
    region_assert_lives(&scanned);
    grey_store((void **)&blocks[BLOCKS], NULL);
    heap_wipe_stack();
    region_settle();
    region_assert_died(&kept);
    region_assert_died(&scanned);
}

static void with_kernel(void **given)
{
    static const char *const names[] = {"portable", "AVX2", "AVX-512"};
    enum os_simd simd = *(const enum os_simd *)*given;
    if (simd > os_simd_supported()) {
        printf("large_blocks_test: %s isn't tested: %s\n", names[simd],
               OS_SIMD_KERNELS ? "this processor hasn't got it" : "this build has no vector kernels");
        skip();
    }
    const char *environment = getenv("GREY_DEBUG");
    char debug[256];
    snprintf(debug, sizeof(debug), "%s,simd=%d", environment != NULL ? environment : "", (int)simd);
    struct grey_options options = GREY_OPTIONS_INIT;
    options.debug = debug;
    assert_int_equal(grey_init(&options), 0);
    memset(blocks, 0, sizeof(blocks));
    assert_int_equal(grey_root_add(blocks, sizeof(blocks)), 0);
    with_regions = false;
    every_pointer_is_found();
    with_regions = true;
    every_pointer_is_found();
    assert_int_equal(grey_root_remove(blocks, sizeof(blocks)), 0);
    grey_shutdown();
    region_unmap(region_start(&kept), kept.size);
    region_unmap(region_start(&scanned), scanned.size);
}

int main(void)
{
    static enum os_simd levels[] = {OS_SIMD_PORTABLE, OS_SIMD_AVX2, OS_SIMD_AVX512};
    const char *given = getenv("GREY_TEST_SEED");
    state = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    printf("large_blocks_test: GREY_TEST_SEED=%llu\n", (unsigned long long)state);
    leaves = malloc(LEAVES_MAX * sizeof(*leaves));
    const struct CMUnitTest tests[] = {
        {"portable", with_kernel, NULL, NULL, &levels[0]},
        {"AVX2", with_kernel, NULL, NULL, &levels[1]},
        {"AVX-512", with_kernel, NULL, NULL, &levels[2]},
    };
    int failed = cmocka_run_group_tests_name("large_blocks", tests, NULL, NULL);
    free(leaves);
    return failed;
}
