/* tests/hooks/hidden_test.c -- each way to hide a pointer from the marker, by force (BA-2 .. BA-6, BA-12).
 *
 * A white object is lost if its last reference moves from where the marker has yet to look to where it has
 * looked already.  There are four ways: from a stack into a black object; from the heap to a stack, then
 * erased; from an unscanned object into a black one by a bulk move; the same by exchange and
 * compare-exchange.  Each runs with the marker or the collector stopped where it has to be, with rounds
 * held after 0, 1, 2 and 32 that were not clean (BA-3).  Then: objects that never see a store but their
 * first, born at each step of a cycle; a program that makes every round not clean; memory refused to the
 * mark queues; a thread that cannot be signalled.
 *
 * clobberfree=1 destroys what is freed, a second cycle sees to it that the first one's sweep is over, and
 * every scenario ends with a verified heap.
 */
#include "support_hooks.h"

#include "mutator/mutator.h"
#include "os/options.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { LENGTH = 40 };

static const char *const held_after[] = {"clobberfree=1,holdround=0", "clobberfree=1,holdround=1",
                                         "clobberfree=1,holdround=2", "clobberfree=1"};
enum { CONFIGURATIONS = 4 };

GREY_ROOT(struct cell *, black);  /* scanned when the stop is reached */
GREY_ROOT(struct cell *, source); /* whoever it leads to isn't scanned yet */

static void up(const char *debug)
{
    black = source = NULL; /* they led into the heap that is gone */
    hooks_up(debug);
}

/* ---- from a stack into a black object ------------------------------------------------------------------ */

/* Not scanned; for the stack of the actor, which is not looked at between the two uses, and on which the
 * compiler might leave a second copy. */
static struct cell *unseen;

__attribute__((noinline)) static void make_unseen(void) { unseen = cells_new(LENGTH); }
__attribute__((noinline)) static void store_unseen(void) { grey_store(&black->other, unseen); }

static void stack_to_black(void)
{
    grey_store(&black, cells_new(1));
    make_unseen();
    wipe_stack();
    stage_set(1);
    stage_await(2);
    store_unseen();
    wipe_stack();
    stage_set(3);
    stage_await(4);
    cells_check(black->other, LENGTH);
}

static void test_stack_to_black(void **state)
{
    (void)state;
    for (int i = 0; i < CONFIGURATIONS; i++) {
        up(held_after[i]);
        pthread_t actor = actor_start(stack_to_black);
        stage_await(1);
        int stop =
            stop_at(OS_HOOK_ROUND_START, NULL); /* all that roots lead to is black; no stack was seen */
        cycle_begin();
        assert_true(stop_reached(stop, PATIENCE_MS));
        stage_set(2);
        stage_await(3);
        stop_release(stop);
        cycle_await(1);
        cycles_run(1);
        stage_set(4);
        actor_join(actor);
        hooks_down();
    }
}

/* ---- from where the marker has not been ---------------------------------------------------------------- */

static void make_both(void)
{
    grey_store(&black, cells_new(1));
    struct cell *from = cells_new(1);
    grey_store(&from->other, cells_new(LENGTH));
    grey_store(&source, from);
}

static void heap_to_stack(void)
{
    make_both();
    wipe_stack();
    stage_set(1);
    stage_await(2);
    struct cell *list = source->other;
    grey_store(&source->other, NULL);
    stage_set(3);
    stage_await(4);
    cells_check(list, LENGTH);
}

static void heap_to_heap(void)
{
    make_both();
    wipe_stack();
    stage_set(1);
    stage_await(2);
    grey_move(&black->other, &source->other, sizeof(black->other));
    grey_clear(&source->other, sizeof(source->other));
    stage_set(3);
    stage_await(4);
    cells_check(black->other, LENGTH);
}

__attribute__((noinline)) static void by_exchange_only(void)
{
    struct cell *list = grey_exchange(&source->other, NULL);
    HOOKS_CHECK(grey_exchange(&black->other, list) == NULL);
}

static void by_exchange(void)
{
    make_both();
    wipe_stack();
    stage_set(1);
    stage_await(2);
    by_exchange_only();
    wipe_stack();
    stage_set(3);
    stage_await(4);
    cells_check(black->other, LENGTH);
}

__attribute__((noinline)) static void by_compare_exchange_only(void)
{
    struct cell *list = source->other, *none = NULL;
    HOOKS_CHECK(grey_compare_exchange(&black->other, &none, list));
    HOOKS_CHECK(grey_compare_exchange(&source->other, &list, NULL));
}

static void by_compare_exchange(void)
{
    make_both();
    wipe_stack();
    stage_set(1);
    stage_await(2);
    by_compare_exchange_only();
    wipe_stack();
    stage_set(3);
    stage_await(4);
    cells_check(black->other, LENGTH);
}

/* The actor moves the list while whoever was to scan the source stands before it. */
static void before_the_source_is_scanned(void (*move)(void))
{
    for (int i = 0; i < CONFIGURATIONS; i++) {
        up(held_after[i]);
        pthread_t actor = actor_start(move);
        stage_await(1);
        int stop = stop_at(OS_HOOK_MARK_SCAN, source);
        cycle_begin();
        assert_true(stop_reached(stop, PATIENCE_MS));
        stage_set(2);
        stage_await(3);
        stop_release(stop);
        cycle_await(1);
        cycles_run(1);
        stage_set(4);
        actor_join(actor);
        hooks_down();
    }
}

static void test_heap_to_stack(void **state)
{
    (void)state;
    before_the_source_is_scanned(heap_to_stack);
}
static void test_heap_to_heap(void **state)
{
    (void)state;
    before_the_source_is_scanned(heap_to_heap);
}
static void test_exchange(void **state)
{
    (void)state;
    before_the_source_is_scanned(by_exchange);
}
static void test_compare_exchange(void **state)
{
    (void)state;
    before_the_source_is_scanned(by_compare_exchange);
}

/* ---- initialising stores, at each step ----------------------------------------------------------------- */

/* A new object takes the list over; afterwards only it leads there. */
__attribute__((noinline)) static struct cell *wrap(struct cell *list)
{
    struct cell *fresh = cells_new(1);
    grey_store(&fresh->other, list);
    return fresh;
}

static void initialising(void)
{
    struct cell *list = cells_new(LENGTH);
    stage_set(1);
    stage_await(2);
    list = wrap(list);
    wipe_stack();
    stage_set(3);
    stage_await(4);
    cells_check(list, 1);
    cells_check(list->other, LENGTH);
}

static void test_initialising_stores(void **state)
{
    (void)state;
    static const enum os_hook steps[] = {OS_HOOK_AFTER_ARM,   OS_HOOK_AFTER_BLACKEN, OS_HOOK_ROOTS,
                                         OS_HOOK_ROUND_START, OS_HOOK_ROUND_END,     OS_HOOK_CLOSED,
                                         OS_HOOK_FINISH,      OS_HOOK_AFTER_FINISH};
    for (int i = 0; i < CONFIGURATIONS; i++)
        for (size_t k = 0; k < sizeof(steps) / sizeof(steps[0]); k++) {
            up(held_after[i]);
            pthread_t actor = actor_start(initialising);
            stage_await(1);
            int stop = stop_at(steps[k], NULL);
            cycle_begin();
            assert_true(stop_reached(stop, PATIENCE_MS));
            stage_set(2);
            stage_within(3, 30); /* a held actor comes to it later */
            stop_release(stop);
            stage_await(3);
            cycle_await(1);
            cycles_run(1);
            stage_set(4);
            actor_join(actor);
            hooks_down();
        }
}

/* ---- a program that makes every round not clean (BA-3) ------------------------------------------------- */

/* It walks a private chain and cuts each edge behind it, always one ahead of the tracer. */
enum { CHAIN = 60 };
static struct cell *_Atomic scanned_now; /* the tracer stands before it */
static _Atomic uint32_t walker_runs;

/* In the order of addresses: the address of a cell is also one past the end of the cell before (D-4). */
__attribute__((noinline)) static struct cell *chain_upwards(void)
{
    struct cell *first = cells_new(1), *last = first;
    for (int i = 1; i < CHAIN; i++) {
        grey_store(&last->next, cells_new(1));
        last = last->next;
    }
    return first;
}

static void one_ahead(void)
{
    struct cell *at = chain_upwards();
    wipe_stack(); /* the next cells' addresses */
    stage_set(1);
    while (at != NULL && atomic_load(&walker_runs)) {
        if (atomic_load(&scanned_now) != at)
            continue;
        struct cell *next = at->next;
        grey_store(&at->next, NULL);
        at = next;
        wipe_stack();
        atomic_store(&scanned_now, NULL);
    }
    for (; at != NULL; at = at->next)
        HOOKS_CHECK(grey_base(at) == at && at->check == ~(uint64_t)(uintptr_t)at);
}

static void let_walker_go_ahead(enum os_hook point, const void *what)
{
    if (point == OS_HOOK_HOLD) /* the walker can do nothing any more */
        atomic_store(&walker_runs, 0);
    if (point != OS_HOOK_MARK_SCAN || !atomic_load(&walker_runs))
        return;
    atomic_store(&scanned_now, (struct cell *)what);
    for (uint64_t end = os_now() + 200000000;
         atomic_load(&scanned_now) != NULL && atomic_load(&walker_runs) && os_now() < end;)
        os_yield();
    atomic_store(&scanned_now, NULL);
}

static void test_every_round_unclean(void **state)
{
    (void)state;
    for (int i = 0; i < CONFIGURATIONS; i++) {
        up(held_after[i]);
        atomic_store(&walker_runs, 1);
        pthread_t actor = actor_start(one_ahead);
        stage_await(1);
        uint64_t rounds = os_counter_read(OS_COUNT_rounds), held = os_counter_read(OS_COUNT_rounds_held);
        atomic_store(&hooks_also, let_walker_go_ahead);
        cycles_run(1);
        atomic_store(&hooks_also, NULL);
        for (uint64_t end = os_now() + 5000000000; os_now() < end;) /* counted when the cycle is reported */
            if (os_counter_read(OS_COUNT_rounds_held) != held)
                break;
        rounds = os_counter_read(OS_COUNT_rounds) - rounds;
        held = os_counter_read(OS_COUNT_rounds_held) - held;
        fprintf(stderr, "holdround=%d: %d rounds, %d held\n", os_debug.holdround, (int)rounds, (int)held);
        assert_true(held >= 1);
        assert_true(rounds >= (uint64_t)os_debug.holdround + 1);
        cycles_run(1);
        atomic_store(&walker_runs, 0);
        actor_join(actor);
        hooks_down();
    }
}

/* ---- no memory for the mark queues --------------------------------------------------------------------- */

/* A tracer's own stack has 16,384 entries: the table nearly fills it, the tables in its last words do. */
enum { WIDTH = 16300, TABLES = 50, TABLE = 300, BLOCKS = 1 << 16 };
static struct mark_block *taken[BLOCKS];

static struct cell **table_new(size_t n)
{
    struct cell **table = grey_alloc(n * sizeof(*table));
    HOOKS_CHECK(table != NULL);
    return table;
}

static void wide(void)
{
    void **table = (void **)table_new(WIDTH);
    for (int i = 0; i < WIDTH; i++) {
        if (i < WIDTH - TABLES) {
            grey_store(&table[i], (void *)cells_new(2));
            continue;
        }
        struct cell **inner = table_new(TABLE);
        for (int k = 0; k < TABLE; k++)
            grey_store(&inner[k], cells_new(2));
        grey_store(&table[i], (void *)inner);
    }
    stage_set(1);
    stage_await(2);
    for (int i = 0; i < WIDTH - TABLES; i++)
        cells_check(table[i], 2);
    for (int i = WIDTH - TABLES; i < WIDTH; i++)
        for (int k = 0; k < TABLE; k++)
            cells_check(((struct cell **)table[i])[k], 2);
}

/* One cycle without memory for its queues, until something was dropped; it gets memory then, and must end.
 * A mapping can slip through between two refusals: then nothing is dropped. */
static bool cycle_overflows(void)
{
    uint64_t over = cycles_over();
    /* The table is on a stack: it is marked in the first round, when its copies have been given. */
    int stop = stop_at(OS_HOOK_COPY_TEST, NULL);
    cycle_begin();
    HOOKS_CHECK(stop_reached(stop, PATIENCE_MS));
    size_t n = 0;
    bool released = false, overflowed = false;
    while (!overflowed && cycles_over() == over) {
        for (int i = 0; i < 1000 && !overflowed; i++) {
            os_fail_mapping(1, ENOMEM);
            while (n < BLOCKS && (taken[n] = work_block_get_ready()) != NULL)
                n++;
            if (!released)
                stop_release(stop);
            released = true;
            overflowed = atomic_load(&work_overflowed);
        }
    }
    os_fail_mapping(1, 0);
    while (n > 0)
        work_block_put(taken[--n]);
    cycle_await(over + 1);
    return overflowed;
}

static void test_overflow(void **state)
{
    (void)state;
    up(held_after[3]);
    pthread_t actor = actor_start(wide);
    stage_await(1);
    int cycles = 0;
    for (bool overflowed = false; !overflowed; cycles++) {
        assert_true(cycles < 1000);
        overflowed = cycle_overflows();
    }
    fprintf(stderr, "%d cycles until the queues overflowed\n", cycles);
    cycles_run(2);
    stage_set(2);
    actor_join(actor);
    hooks_down();
}

/* ---- a thread that cannot be signalled ----------------------------------------------------------------- */

static _Atomic uint64_t steps_of_other;

static void deaf(void)
{
    struct cell *list = cells_new(LENGTH);
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    stage_set(1);
    stage_await(2);
    grey_safepoint();
    pthread_sigmask(SIG_UNBLOCK, &all, NULL);
    stage_await(3);
    cells_check(list, LENGTH);
}

static void other(void)
{
    struct cell *list = cells_new(LENGTH);
    while (!stage_within(3, 0)) {
        cells_check(list, LENGTH);
        list = cells_new(LENGTH);
        atomic_fetch_add(&steps_of_other, 1);
    }
}

static void test_thread_without_signal(void **state)
{
    (void)state;
    for (int i = 0; i < CONFIGURATIONS; i++) {
        up(held_after[i]);
        pthread_t first = actor_start(deaf);
        stage_await(1);
        pthread_t second = actor_start(other);
        uint64_t called_off = os_counter_read(OS_COUNT_rounds_called_off);
        cycle_begin();
        uint64_t end = os_now() + 200000000;
        while (os_now() < end)
            os_yield();
        /* The cycle waits; in the first 10 ms of a hold the other one did too, and no longer. */
        assert_int_equal(cycles_over(), 0);
        uint64_t steps = atomic_load(&steps_of_other);
        end = os_now() + 5000000000;
        while (atomic_load(&steps_of_other) < steps + 10 && os_now() < end)
            os_yield();
        assert_true(atomic_load(&steps_of_other) >= steps + 10);
        if (os_debug.holdround == 0 && mutator_membarrier()) { /* else it waits at its first FENCE */
            end = os_now() + PATIENCE_MS * UINT64_C(1000000);
            while (os_counter_read(OS_COUNT_rounds_called_off) <= called_off && os_now() < end)
                os_yield();
            assert_true(os_counter_read(OS_COUNT_rounds_called_off) > called_off);
        }
        stage_set(2);
        cycle_await(1);
        stage_set(3);
        actor_join(first);
        actor_join(second);
        hooks_down();
    }
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stack_to_black),        cmocka_unit_test(test_heap_to_stack),
        cmocka_unit_test(test_heap_to_heap),          cmocka_unit_test(test_exchange),
        cmocka_unit_test(test_compare_exchange),      cmocka_unit_test(test_initialising_stores),
        cmocka_unit_test(test_every_round_unclean),   cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_thread_without_signal),
    };
    return hooks_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
