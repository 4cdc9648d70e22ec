/* tests/api/external_test.c -- grey_external_add: memory that Grey does not see, for which its objects stand.
 *
 * Requirements: FR-42, FR-43, PC-2.  What is counted brings the next cycle as allocation does, and is neither
 * heap, nor goal, nor under the limit; what was taken back brings none; with automatic cycles off nothing
 * does; foreign regions by themselves never do.  Whether a cycle was meant is seen from automatic cycles
 * alone, so gcstress, which begins its own, leaves nothing to see in most of it.
 */
#include "support_child.h"
#include "support_foreign.h"
#include "support_heap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const int64_t MIB = 1 << 20;

static bool stressed(void)
{
    const char *debug = getenv("GREY_DEBUG");
    return debug != NULL && strstr(debug, "gcstress") != NULL;
}

/* A few slow paths, 64 KiB in all: too little to bring a cycle by itself. */
static void allocate_little(void)
{
    for (int i = 0; i < 16; i++)
        assert_non_null(grey_alloc_leaf(4096));
}

/* A heap at rest: the next cycle is 4 MiB of allocation away, less what the pacer gains by being early. */
static struct grey_stats at_rest(void)
{
    grey_collect();
    grey_collect();
    return heap_figures_at_rest();
}

static bool cycle_comes(const struct grey_stats *before, unsigned ms)
{
    for (unsigned waited = 0; waited < ms; waited++) {
        if (heap_figures().cycles > before->cycles)
            return true;
        usleep(1000);
    }
    return false;
}

static int set_up(void **unused)
{
    (void)unused;
    assert_int_equal(grey_thread_attach(), 0);
    grey_set_percent(100);
    return 0;
}

static void little_allocation_alone(void **unused)
{
    (void)unused;
    if (stressed())
        skip();
    struct grey_stats before = at_rest();
    allocate_little();
    assert_false(cycle_comes(&before, 300));
}

/* One big handle, then many small ones. */
static void brings_cycles(void **unused)
{
    (void)unused;
    for (int i = 0; i < 5; i++) {
        struct grey_stats before = at_rest();
        grey_external_add(64 * MIB);
        allocate_little();
        assert_true(cycle_comes(&before, PATIENCE_MS));
    }
    struct grey_stats before = at_rest();
    for (int i = 0; i < 400; i++) {
        grey_external_add(MIB / 4);
        assert_non_null(grey_alloc_leaf(4096));
        uint64_t cycles = heap_figures().cycles;
        for (int ms = 0; i % 40 == 39 && ms < 200 && heap_figures().cycles == cycles; ms++)
            usleep(1000); /* one cycle at a time; a handshake may cut this short (MK-12) */
    }
    assert_true(heap_figures_at_rest().cycles >= before.cycles + 3);
}

static void taken_back(void **unused)
{
    (void)unused;
    if (stressed())
        skip();
    struct grey_stats before = at_rest();
    for (int i = 0; i < 2000; i++) {
        grey_external_add(MIB / 4);
        grey_external_add(-MIB / 4);
    }
    grey_external_add(0);
    allocate_little();
    assert_false(cycle_comes(&before, 300));
}

/* Negative without end, and sums that do not fit: the next cycles come all the same. */
static void extremes(void **unused)
{
    (void)unused;
    static const int64_t sums[] = {-1, INT64_MIN, INT64_MAX, INT64_MAX, INT64_MIN, -1, INT64_MIN, INT64_MIN};
    for (size_t i = 0; i < sizeof(sums) / sizeof(sums[0]); i++) {
        grey_external_add(sums[i]);
        allocate_little();
    }
    struct grey_stats before = at_rest();
    for (int i = 0; i < 64 * 256 && heap_figures().cycles == before.cycles; i++)
        assert_non_null(grey_alloc_leaf(4096)); /* 64 MiB */
    assert_true(cycle_comes(&before, PATIENCE_MS));
    before = at_rest();
    grey_external_add(64 * MIB);
    allocate_little();
    assert_true(cycle_comes(&before, PATIENCE_MS));
}

/* Heap, goal and limit know nothing of it. */
static void no_heap(void **unused)
{
    (void)unused;
    size_t limit = grey_set_memory_limit((size_t)256 << 20);
    struct grey_stats before = at_rest();
    grey_external_add(1024 * MIB);
    struct grey_stats after = heap_figures();
    assert_true(after.heap_live < before.heap_live + 16 * (uint64_t)MIB);
    after = at_rest();
    assert_true(after.heap_live < before.heap_live + 16 * (uint64_t)MIB);
    assert_true(after.heap_goal < before.heap_goal + 16 * (uint64_t)MIB);
    assert_true(after.heap_goal + 16 * (uint64_t)MIB > before.heap_goal);
    assert_true(after.mapped < before.mapped + 16 * (uint64_t)MIB);
    grey_set_memory_limit(limit);
}

static void off_means_off(void **unused)
{
    (void)unused;
    if (stressed())
        skip();
    grey_set_percent(-1);
    struct grey_stats before = at_rest();
    grey_external_add(1024 * MIB);
    allocate_little();
    assert_false(cycle_comes(&before, 300));
    grey_set_percent(100);
}

/* FR-42, FR-43 */
static struct region huge;
static void add_huge(void) { region_add(&huge, region_map((size_t)1 << 34, PROT_NONE), (size_t)1 << 34, 0); }
static void regions_bring_none(void **unused)
{
    (void)unused;
    if (stressed())
        skip();
    struct grey_stats before = at_rest();
    region_thread(add_huge);
    allocate_little();
    assert_false(cycle_comes(&before, 300));
    region_settle();
    region_assert_died(&huge);
}

/* What it is for: handles die, although nobody collects and they are small. */
enum { SMALL = 300, BATCH = 30 };
static struct region handles[SMALL];
static bool each_brought_one = true;
/* A cycle for each batch, which alone is far from bringing one: what is made in a cycle lives to the next. */
static void add_handles(void)
{
    for (int i = 0; i < SMALL; i += BATCH) {
        struct grey_stats before = heap_figures();
        for (int k = i; k < i + BATCH; k++) {
            region_new(&handles[k], 64, 0);
            grey_external_add(MIB);
            allocate_little();
        }
        each_brought_one &= cycle_comes(&before, PATIENCE_MS);
    }
}
static void handles_die_in_time(void **unused)
{
    (void)unused;
    uint64_t forced = at_rest().forced_cycles;
    region_thread(add_handles);
    assert_true(each_brought_one);
    unsigned died = 0;
    for (int i = 0; i < PATIENCE_MS && died < SMALL / 2; i++) {
        usleep(1000);
        died = 0;
        for (int k = 0; k < SMALL; k++)
            died += atomic_load(&handles[k].died);
    }
    assert_true(died >= SMALL / 2);
    assert_int_equal(heap_figures().forced_cycles, forced);
}

enum { THREADS = 4, ROUNDS = 20000 };
static void *add_and_take_back(void *unused)
{
    for (int i = 0; i < ROUNDS; i++) {
        grey_external_add(1000 + i);
        grey_external_add(-1000 - i);
    }
    return unused;
}
/* Nothing is lost between threads, attached or not: in the end it is as if nothing had been. */
static void from_many_threads(void **unused)
{
    (void)unused;
    if (stressed())
        skip();
    pthread_t threads[THREADS];
    struct grey_stats before = at_rest();
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add_and_take_back, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    grey_external_add(MIB / 2);
    allocate_little();
    assert_false(cycle_comes(&before, 300));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(little_allocation_alone),
        cmocka_unit_test(brings_cycles),
        cmocka_unit_test(taken_back),
        cmocka_unit_test(extremes),
        cmocka_unit_test(no_heap),
        cmocka_unit_test(off_means_off),
        cmocka_unit_test(regions_bring_none),
        cmocka_unit_test(handles_die_in_time),
        cmocka_unit_test(from_many_threads),
    };
    return cmocka_run_group_tests_name("memory elsewhere", tests, set_up, NULL);
}
