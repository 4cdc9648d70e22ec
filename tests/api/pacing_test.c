/* tests/api/pacing_test.c -- when cycles come, as a program sees it: the goal after a setter, the memory
 * limit, and what gcpacertrace and balance change.
 *
 * Requirements: PC-1, PC-2, PC-11, PC-12, PC-13, PC-15, TU-5, TU-9, TR-2.  The rules themselves are tested in
 * unit/pacer*_test.c.
 */
#include "support_child.h"
#include "support_heap.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint64_t MIB = 1 << 20;

enum { BLOCKS = 128 };
GREY_ROOT(
    struct { void *blocks[BLOCKS]; }, held);

/* Leaves of a mebibyte: what is live is known but for what the test itself needs. */
__attribute__((noinline)) static void hold(int from, int to)
{
    for (int i = from; i < to; i++) {
        void *block = grey_alloc_leaf(MIB);
        assert_non_null(block);
        grey_store(&held.blocks[i], block);
    }
}

__attribute__((noinline)) static void allocate(uint64_t bytes, size_t size)
{
    for (uint64_t done = 0; done < bytes; done += size)
        assert_non_null(grey_alloc_leaf(size));
}

static bool cycle_comes(uint64_t cycles)
{
    for (int ms = 0; ms < 20000; ms++) {
        if (heap_figures().cycles > cycles)
            return true;
        usleep(1000);
    }
    return false;
}

static void assert_goal(uint64_t low, uint64_t high)
{
    uint64_t goal = heap_figures().heap_goal;
    if (goal < low * MIB || goal > high * MIB)
        fail_msg("the goal is %.2f MiB, not in [%d, %d]", (double)goal / (double)MIB, (int)low, (int)high);
}

static int set_up(void **unused)
{
    (void)unused;
    grey_set_percent(100);
    grey_set_memory_limit(SIZE_MAX);
    return 0;
}

static int tear_down(void **unused)
{
    (void)unused;
    set_up(NULL);
    grey_clear(&held, sizeof(held));
    heap_wipe_stack();
    heap_collect_twice();
    grey_trim(); /* what is mapped counts against a limit */
    return 0;
}

/* PC-13, TestSetGCPercent */
static void percent_moves_the_goal(void **unused)
{
    (void)unused;
    hold(0, 100);
    heap_collect_twice();
    assert_goal(180, 220);
    assert_int_equal(grey_set_percent(50), 100);
    assert_goal(130, 170);
    assert_int_equal(grey_set_percent(-5), 50);
    assert_true(heap_figures().heap_goal == UINT64_MAX);
    assert_int_equal(grey_set_percent(100), -1);
    assert_goal(180, 220);
}

/* Lower than what is there already: a cycle begins, whoever allocates next and even if nobody does. */
static void lowered_percent_brings_a_cycle(void **unused)
{
    (void)unused;
    hold(0, 100);
    heap_collect_twice();
    hold(100, 120);
    uint64_t cycles = heap_figures_at_rest().cycles;
    grey_set_percent(10);
    assert_true(cycle_comes(cycles));
    assert_goal(120, 145);
}

static void lowered_limit_brings_a_cycle(void **unused)
{
    (void)unused;
    hold(0, 60);
    heap_collect_twice();
    hold(60, 90);
    grey_set_percent(-1);
    uint64_t cycles = heap_figures_at_rest().cycles;
    assert_true(grey_set_memory_limit(80 * MIB) == SIZE_MAX);
    assert_true(cycle_comes(cycles));
}

/* PC-11, PC-12: the smaller goal wins, also with the percentage off; back again at once. */
static void limit_moves_the_goal(void **unused)
{
    (void)unused;
    hold(0, 100);
    heap_collect_twice();
    assert_goal(180, 220);
    assert_true(grey_set_memory_limit(160 * MIB) == SIZE_MAX);
    assert_goal(100, 156);
    assert_true(heap_figures().heap_goal < 160 * MIB * 97 / 100);
    assert_true(grey_set_memory_limit(1024 * MIB) == 160 * MIB);
    assert_goal(180, 220);
    grey_set_percent(-1);
    assert_goal(900, 1024);
    assert_true(grey_set_memory_limit(0) == 1024 * MIB); /* only reads */
    assert_goal(900, 1024);
    assert_true(grey_set_memory_limit(SIZE_MAX) == 1024 * MIB);
    assert_true(heap_figures().heap_goal == UINT64_MAX);
}

/* PC-15: less than what lives is no error, and the program goes on. */
static void limit_below_what_lives(void **unused)
{
    (void)unused;
    hold(0, 40);
    grey_set_memory_limit(1);
    uint64_t cycles = heap_figures().cycles;
    allocate(8 * MIB, 4096);
    assert_true(cycle_comes(cycles));
    grey_set_memory_limit(SIZE_MAX);
    for (int i = 0; i < 40; i++)
        assert_non_null(held.blocks[i]);
}

static uint64_t free_pages(void)
{
    struct grey_metric value;
    assert_int_equal(grey_metric_read("/memory/classes/heap/free:bytes", &value), 0);
    return value.u64;
}

/* TestMemoryLimitNoGCPercent: percent off, the limit alone; what lives goes up in steps.  What the heap has
 * free is left out: the goal is about what is in use, and to give the rest back is not the pacer's business.
 * The limit is soft: where the collector does not get a processor in time it may be passed for a moment. */
static void limit_is_kept(void **unused)
{
    (void)unused;
    const uint64_t limit = 160 * MIB;
    grey_set_percent(-1);
    grey_set_memory_limit(limit);
    uint64_t forced = heap_figures().forced_cycles, cycles = heap_figures_at_rest().cycles;
    uint64_t most = 0, past = 0;
    for (int live = 0; live < 110; live += 10) { /* up to 70 percent of it */
        hold(live, live + 10);
        for (int i = 0; i < 150; i++) {
            allocate(MIB, 16384);
            struct grey_stats stats = heap_figures();
            uint64_t retained = stats.mapped - stats.released - free_pages();
            most = retained > most ? retained : most;
            past += retained > limit + 16 * MIB;
        }
    }
    if (past > 11 * 150 / 10 || most > limit + limit / 2)
        fail_msg("%.1f MiB retained with a limit of %.1f; too many %d times", (double)most / (double)MIB,
                 (double)limit / (double)MIB, (int)past);
    struct grey_stats stats = heap_figures_at_rest();
    assert_true(stats.cycles >= cycles + 5);
    assert_int_equal(stats.forced_cycles, forced);
}

/* ---- from any thread --------------------------------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 3000 };
static _Atomic int over;

static void *set_often(void *arg)
{
    int mine = *(int *)arg;
    bool right = true;
    for (int i = 0; i < ROUNDS; i++) {
        int old = grey_set_percent(100 + mine);
        right &= old >= 100 && old <= 100 + THREADS;
        size_t limit = grey_set_memory_limit((512 + (size_t)mine) * MIB);
        right &= limit == SIZE_MAX || (limit >= 512 * MIB && limit <= (512 + THREADS) * MIB);
    }
    atomic_fetch_add(&over, 1);
    return right ? arg : NULL;
}

/* TU-9; not attached.  Each value that is returned was set by somebody. */
static void set_by_many_threads(void **unused)
{
    (void)unused;
    pthread_t threads[THREADS];
    int numbers[THREADS];
    atomic_store(&over, 0);
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i + 1;
        assert_int_equal(pthread_create(&threads[i], NULL, set_often, &numbers[i]), 0);
    }
    while (atomic_load(&over) < THREADS)
        allocate(MIB, 1024);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_non_null(result);
    }
    heap_collect_twice();
    assert_goal(4, 16);
}

/* ---- GREY_DEBUG ----------------------------------------------------------------------------------------------- */

/* A quiet program of 100 MiB: by the square root it gets an eighth of what the percentage would give. */
static void quiet(void)
{
    hold(0, 100);
    for (int i = 0; i < 4; i++) {
        usleep(50000);
        grey_collect();
    }
    uint64_t goal = heap_figures().heap_goal / MIB;
    CHILD_CHECK(getenv("BALANCED") != NULL ? goal >= 110 && goal <= 120 : goal >= 190 && goal <= 210);
}

/* GREY_DEBUG as it is, and more; the variant's own cycles would blur what is looked at. */
static const char *debug_with(const char *more)
{
    static char text[300];
    const char *debug = getenv("GREY_DEBUG");
    snprintf(text, sizeof(text), "GREY_DEBUG=%s,gcstress=0,%s", debug != NULL ? debug : "", more);
    return text;
}

static void balance(void **unused)
{
    (void)unused;
    child_passes("quiet", (const char *const[]){debug_with("balance=1"), "BALANCED=1", NULL});
    child_passes("quiet", (const char *const[]){debug_with("balance=0"), NULL});
    child_passes("quiet", NULL);
}

static void three_cycles(void)
{
    hold(0, 20);
    for (int i = 0; i < 3; i++)
        grey_collect();
    allocate(64 * MIB, 8192);
}

struct lines {
    uint64_t scan, start, goal; /* MiB */
    double ratio;
    uint64_t used, heap, stacks, roots, expected; /* B */
    uint64_t from, to, trigger, next;
    double cons_mark;
};

/* The two lines about one cycle. */
static const char *parse(const char *text, struct lines *l)
{
    int length = 0;
    long long missed;
    unsigned long n[12];
    if (sscanf(text, "pacer: assist ratio=%lf (scan %lu MB in %lu->%lu MB)\n%n", &l->ratio, &n[0], &n[1],
               &n[2], &length) != 4 ||
        length == 0)
        return NULL;
    const char *second = text + length;
    length = 0;
    int found = sscanf(
        second,
        "pacer: %lu%% CPU (25 exp.) for %lu+%lu+%lu B work (%lu B exp.) in %lu B -> %lu B (goal %lld, "
        "cons/mark %lf), next %lu B -> %lu B\n%n",
        &n[3], &n[4], &n[5], &n[6], &n[7], &n[8], &n[9], &missed, &l->cons_mark, &n[10], &n[11], &length);
    if (found != 11 || length == 0)
        return NULL;
    l->scan = n[0], l->start = n[1], l->goal = n[2], l->used = n[3], l->heap = n[4], l->stacks = n[5];
    l->roots = n[6], l->expected = n[7], l->from = n[8], l->to = n[9], l->trigger = n[10], l->next = n[11];
    return second + length;
}

static void pacer_is_traced(void **unused)
{
    (void)unused;
    const struct child_end *end =
        child_run("three_cycles", (const char *const[]){debug_with("gcpacertrace=1"), NULL});
    assert_int_equal(end->status, 0);
    const char *text = end->message;
    unsigned cycles = 0;
    struct lines last = {0};
    for (; *text != '\0'; cycles++) {
        struct lines lines;
        text = parse(text, &lines);
        assert_non_null(text);
        assert_true(lines.ratio > 0 && lines.used <= 100 && lines.cons_mark >= 0);
        assert_true(lines.trigger <= lines.next && lines.from <= lines.to);
        assert_int_equal(lines.scan, lines.expected >> 20);
        assert_int_equal(lines.start, lines.from >> 20);
        if (cycles > 0) { /* planned as the line before says */
            assert_int_equal(lines.expected, last.heap + last.stacks + last.roots);
            assert_true(lines.goal == last.next >> 20 || lines.goal >= lines.start);
        }
        last = lines;
    }
    assert_true(cycles >= 3);
    child_passes("three_cycles", (const char *const[]){debug_with("gcpacertrace=0"), NULL});
}

int main(int argc, char **argv)
{
    static const struct child_case cases[] = {{"quiet", quiet}, {"three_cycles", three_cycles}};
    CHILD_MAIN(argc, argv, cases);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(percent_moves_the_goal, tear_down),
        cmocka_unit_test_teardown(lowered_percent_brings_a_cycle, tear_down),
        cmocka_unit_test_teardown(lowered_limit_brings_a_cycle, tear_down),
        cmocka_unit_test_teardown(limit_moves_the_goal, tear_down),
        cmocka_unit_test_teardown(limit_below_what_lives, tear_down),
        cmocka_unit_test_teardown(limit_is_kept, tear_down),
        cmocka_unit_test_teardown(set_by_many_threads, tear_down),
        cmocka_unit_test(balance),
        cmocka_unit_test(pacer_is_traced),
    };
    return cmocka_run_group_tests_name("pacing", tests, set_up, NULL);
}
