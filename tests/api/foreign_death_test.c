/* tests/api/foreign_death_test.c -- the end of foreign regions: neighbours, sizes, rings, 100,000 at once.
 *
 * Requirements: FR-7, FR-19, FR-21 .. FR-23, FR-25 .. FR-28, FR-40, FR-42, FR-44, MK-21, OR-10.
 */
#include "support_child.h"
#include "support_foreign.h"
#include "support_heap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
enum { SIZE = 4096, BIG = 1 << 20, WORDS = BIG / 8 };

GREY_ROOT(void *, root);
static struct region kept, second, third;
static bool rooted;
static void drop_root(void) { grey_store(&root, NULL); }

struct record {
    uint64_t number;
    void *pointer;
};
GREY_TYPE(record_type, struct record, pointer);

/* ---- neighbours ------------------------------------------------------------------------------------ */

enum { STARTS, HOLDS, ENDS };
static _Atomic int step;
static pthread_t holder;
static _Atomic uintptr_t hidden_middle;

static int await_end(void *unused)
{
    (void)unused;
    while (atomic_load(&step) != ENDS)
        usleep(100);
    return 0;
}
static void *hold_middle(void *unused)
{
    (void)unused;
    void *volatile local = (char *)~atomic_load(&hidden_middle);
    atomic_store(&step, HOLDS);
    grey_blocking_call(await_end, NULL);
    local = NULL;
    return local;
}
static void end_holder(void)
{
    atomic_store(&step, ENDS);
    assert_int_equal(grey_thread_join(holder, NULL), 0);
}
static void make_neighbours(void)
{
    char *start = region_map(3 * SIZE, PROT_READ | PROT_WRITE);
    atomic_store(&step, STARTS);
    region_add(&kept, start, SIZE, 0);
    region_add(&second, start + SIZE, SIZE, 0);
    region_add(&third, start + 2 * SIZE, SIZE, 0);
    atomic_store(&hidden_middle, ~(uintptr_t)(start + SIZE));
    if (rooted)
        grey_store(&root, start + SIZE);
    else
        assert_int_equal(grey_thread_create(&holder, NULL, hold_middle, NULL), 0);
    while (!rooted && atomic_load(&step) != HOLDS)
        grey_safepoint();
    grey_keep_alive(start);
    grey_keep_alive(start + SIZE);
    grey_keep_alive(start + 2 * SIZE);
}

/* FR-7, FR-23: from the heap only the one that starts there, from a stack both; and each has its own life. */
static void neighbours(void **unused)
{
    (void)unused;
    for (int stack = 0; stack < 2; stack++) {
        rooted = !stack;
        region_thread(make_neighbours);
        region_settle();
        assert_int_equal(atomic_load(&kept.died), stack ? 0 : 1);
        region_assert_lives(&second);
        region_assert_died(&third);
        region_thread(stack ? end_holder : drop_root);
        region_settle();
        region_assert_died(&kept);
        region_assert_died(&second);
    }
}

/* ---- ends ------------------------------------------------------------------------------------------ */

static struct region ends[12];
static void make_ends(void)
{
    static const size_t sizes[] = {1, 2, 7, 8, 4095, 300000};
    for (size_t i = 0; i < LENGTH(ends); i++) {
        char *start = region_map(sizes[i / 2], PROT_READ | PROT_WRITE);
        region_add(&ends[i], start + (i % 4 == 3), sizes[i / 2], i % 2 ? GREY_FOREIGN_SCAN : 0);
    }
}

/* FR-25, FR-26, FR-44: any size, scanned or not, in one cycle that began after the last pointer was gone. */
static void all_sizes(void **unused)
{
    (void)unused;
    region_thread(drop_root);
    region_settle();
    struct grey_stats before = heap_figures();
    region_thread(make_ends);
    region_settle();
    struct grey_stats after = heap_figures();
    for (size_t i = 0; i < LENGTH(ends); i++)
        region_assert_died(&ends[i]);
    assert_true(after.foreign_regions == before.foreign_regions);
    assert_true(after.foreign_bytes == before.foreign_bytes);
    assert_true(after.foreign_died == before.foreign_died + LENGTH(ends));
    assert_true(after.cleanups_run == before.cleanups_run + LENGTH(ends));
    region_settle();
    for (size_t i = 0; i < LENGTH(ends); i++)
        region_assert_died(&ends[i]);
}

/* FR-28, MK-21: dropped before the cycle, queued when grey_collect returns; in the same cycle. */
static void make_rooted(void)
{
    region_new(&kept, SIZE, 0);
    grey_store(&root, region_start(&kept));
}
static void in_the_same_cycle(void **unused)
{
    (void)unused;
    for (int i = 0; i < 20; i++) {
        region_thread(make_rooted);
        region_settle();
        region_assert_lives(&kept);
        region_thread(drop_root);
        uint64_t died = heap_figures().foreign_died;
        grey_collect();
        assert_true(heap_figures().foreign_died == died + 1);
        assert_true(grey_cleanup_wait(-1));
        region_assert_died(&kept);
    }
}

/* FR-40: of an unscanned one parts may go, and come back as something else; it is never read. */
static void make_holes(void)
{
    char *start = region_map(64 * SIZE, PROT_READ | PROT_WRITE);
    region_add(&kept, start, 64 * SIZE, 0);
    assert_int_equal(munmap(start, 16 * SIZE), 0);
    assert_int_equal(mprotect(start + 20 * SIZE, SIZE, PROT_NONE), 0);
    grey_store(&root, start + 30 * SIZE);
}
static void partly_unmapped(void **unused)
{
    (void)unused;
    region_thread(make_holes);
    region_settle();
    region_assert_lives(&kept);
    region_thread(drop_root);
    region_settle();
    region_assert_died(&kept); /* region_dies checks the range */
}

/* ---- regions that hold things ---------------------------------------------------------------------- */

enum { LEAFS = 400, STEP = WORDS / LEAFS };
static void make_holder_of_leafs(void)
{
    char *start = region_map(BIG, PROT_READ | PROT_WRITE);
    region_add(&kept, start + 3, BIG - 3, GREY_FOREIGN_SCAN);
    grey_store(&root, start + 5);
    void **words = (void **)(void *)start;
    for (int i = 0; i < LEAFS; i++)
        grey_store(&words[WORDS - 1 - i * STEP], heap_marked_leaf(64, (uint64_t)i));
}
static void check_leafs(void)
{
    void **words = (void **)(void *)(region_start(&kept) - 3);
    for (int i = 0; i < LEAFS; i++)
        assert_true(heap_leaf_is_intact(words[WORDS - 1 - i * STEP], (uint64_t)i));
}
/* FR-21: all of it, in pieces. */
static void scanned_keeps(void **unused)
{
    (void)unused;
    struct grey_stats before = heap_figures_at_rest();
    region_thread(make_holder_of_leafs);
    region_settle();
    region_thread(heap_reuse_free_memory);
    region_thread(check_leafs);
    before = heap_figures();
    region_thread(drop_root);
    region_settle();
    region_assert_died(&kept);
    heap_assert_freed(&before, LEAFS);
}

/* FR-22, and heap objects in the ring: CF-4 for regions. */
enum { RING = 40 };
static struct region ring[RING];
static void make_ring(void)
{
    for (int i = 0; i < RING; i++)
        region_new(&ring[i], SIZE, GREY_FOREIGN_SCAN);
    for (int i = 0; i < RING; i++) {
        void **words = (void **)(void *)region_start(&ring[i]);
        void *next = region_start(&ring[(i + 1) % RING]) + 5;
        grey_store(&words[1], (void *)words);
        if (i % 2 == 0) {
            grey_store(&words[100], next);
            continue;
        }
        struct record *object = grey_new(&record_type);
        grey_store(&object->pointer, next);
        grey_store(&words[100], (void *)object);
    }
    if (rooted)
        grey_store(&root, region_start(&ring[RING / 2]));
    for (int i = 0; i < RING; i++)
        grey_keep_alive(region_start(&ring[i]));
}
static void rings(void **unused)
{
    (void)unused;
    for (int round = 0; round < 2; round++) {
        rooted = round != 0;
        region_thread(make_ring);
        region_settle();
        for (int i = 0; rooted && i < RING; i++)
            region_assert_lives(&ring[i]);
        region_thread(drop_root);
        region_settle();
        for (int i = 0; i < RING; i++)
            region_assert_died(&ring[i]);
    }
}

/* ---- very many at once ----------------------------------------------------------------------------- */

enum { MANY = 100000, EACH = 64 };
static struct region *many;
static char *many_memory;
static _Atomic bool many_over;
static void make_many(void)
{
    for (size_t i = 0; i < MANY; i++)
        region_add(&many[i], many_memory + i * EACH, i % 3 == 0 ? EACH : EACH - 1, 0);
    grey_store(&root, many_memory + MANY / 2 * EACH);
}
static void *allocate_meanwhile(void *unused)
{
    (void)unused;
    while (!atomic_load(&many_over)) {
        void **list = NULL;
        for (int i = 0; i < 1000; i++) {
            void **cell = grey_alloc(48);
            grey_store(&cell[0], (void *)list);
            list = cell;
        }
    }
    return NULL;
}

/* FR-27: the target is 1 ms; asserted is what no machine's scheduling explains. */
static void very_many(void **unused)
{
    (void)unused;
    many = calloc(MANY, sizeof(*many));
    assert_non_null(many);
    many_memory = region_map((size_t)MANY * EACH, PROT_READ | PROT_WRITE);
    region_thread(make_many);
    struct grey_stats before = heap_figures();
    assert_true(before.foreign_regions >= 1);
    pthread_t threads[2];
    atomic_store(&many_over, false);
    for (size_t i = 0; i < LENGTH(threads); i++)
        assert_int_equal(grey_thread_create(&threads[i], NULL, allocate_meanwhile, NULL), 0);
    region_settle();
    struct grey_stats after = heap_figures();
    atomic_store(&many_over, true);
    for (size_t i = 0; i < LENGTH(threads); i++)
        assert_int_equal(grey_thread_join(threads[i], NULL), 0);
    region_settle(); /* what the stacks of the two held by chance */
    fprintf(stderr, "%d regions died; longest pause so far: %.3f ms before, %.3f ms after\n", MANY - 1,
            (double)before.pause_max_ns / 1e6, (double)after.pause_max_ns / 1e6);
    assert_true(after.pause_max_ns < before.pause_max_ns + 1000000000);
    size_t died = 0;
    for (size_t i = 0; i < MANY; i++)
        died += atomic_load(&many[i].died) == 1;
    assert_int_equal(died, MANY - 1);
    region_assert_lives(&many[MANY / 2]);
    region_thread(drop_root);
    region_settle();
    region_assert_died(&many[MANY / 2]);
    region_unmap(many_memory, (size_t)MANY * EACH);
    free(many);
}

static int attach(void **unused)
{
    (void)unused;
    return grey_thread_attach();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours),        cmocka_unit_test(all_sizes),
        cmocka_unit_test(in_the_same_cycle), cmocka_unit_test(partly_unmapped),
        cmocka_unit_test(scanned_keeps),     cmocka_unit_test(rings),
        cmocka_unit_test(very_many),
    };
    return cmocka_run_group_tests_name("foreign memory: death", tests, attach, NULL);
}
