/* tests/hooks/pin_phase_test.c -- pins and handles at each step of a cycle.
 *
 * What is pinned or held in mid-cycle keeps its object though no stack has it any more (PN-18, PN-20), what
 * is unpinned or dropped lives on the stack of who did it, and a pinner is lost when nobody holds it and not
 * before (PN-12).  The same with foreign regions (PN-6).  And what can only be seen from inside: what a span
 * has (PN-8, PN-17), the wait for its sweep (PN-15), the store that a thread keeps (PN-11), broken records
 * (PN-16).
 */
#include "support_child.h"
#include "support_foreign.h"
#include "support_hooks.h"

#include "heap/heap.h"
#include "os/thread.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { LENGTH = 40 };

static const char *const held_after[] = {"clobberfree=1,holdround=0", "clobberfree=1,holdround=1",
                                         "clobberfree=1", "clobberfree=1,checkmark=1"};
enum { CONFIGURATIONS = 4 };
static const enum os_hook steps[] = {OS_HOOK_AFTER_ARM,   OS_HOOK_AFTER_BLACKEN, OS_HOOK_ROOTS,
                                     OS_HOOK_ROUND_START, OS_HOOK_ROUND_END,     OS_HOOK_CLOSED,
                                     OS_HOOK_FINISH,      OS_HOOK_AFTER_FINISH};
enum { STEPS = sizeof(steps) / sizeof(steps[0]) };

GREY_ROOT(struct grey_pinner *, pinner);
static grey_handle handle;
static struct region region;
static uintptr_t hidden; /* as bits turned round: kept by nobody */
static _Atomic unsigned ran;

/* What the scenario is about: by a handle or by a pinner, a region or a list. */
static struct {
    bool handle, region;
} by;
static void each_way(void (*scenario)(void))
{
    for (int i = 0; i < 4; i++) {
        by.handle = i & 1;
        by.region = i & 2;
        scenario();
    }
}

static void act_alone(void (*fn)(void)) { actor_join(actor_start(fn)); }
static void run_queued(void) { grey_cleanup_run(SIZE_MAX); }
static void take_charge(void) { HOOKS_CHECK(grey_cleanup_fd() >= 0); } /* would attach the director */
static void died(void *unused)
{
    (void)unused;
    atomic_fetch_add(&ran, 1);
}
static void up(const char *debug)
{
    pinner = NULL;
    memset(&region, 0, sizeof(region));
    atomic_store(&ran, 0);
    hooks_up(debug);
    act_alone(take_charge);
}
static uint64_t pins(void)
{
    struct grey_stats stats = GREY_STATS_INIT;
    grey_stats_read(&stats);
    return stats.pins;
}

static struct cell *list_new(void)
{
    struct cell *list = cells_new(LENGTH);
    HOOKS_CHECK(grey_cleanup_add(list, died, NULL, NULL) == 0);
    return list;
}
__attribute__((noinline)) static void *make(void)
{
    void *target;
    if (by.region) {
        region_new(&region, 5000, 0);
        target = region_start(&region);
    } else {
        target = list_new();
    }
    hidden = ~(uintptr_t)target;
    return target;
}
static unsigned deaths(void) { return by.region ? atomic_load(&region.died) : atomic_load(&ran); }
/* By an interior pointer. */
__attribute__((noinline)) static void keep(char *target)
{
    if (by.handle) {
        handle = grey_hold(target + 24);
        HOOKS_CHECK(handle != 0);
    } else {
        HOOKS_CHECK(grey_pin(pinner, target + 24) == 0);
        HOOKS_CHECK(grey_is_pinned(target) && grey_pin_count(target) == 1);
    }
}
static void let_go(void)
{
    if (by.handle)
        HOOKS_CHECK(grey_drop(handle));
    else
        grey_unpin(pinner);
}
static void check(const void *target)
{
    if (by.region)
        HOOKS_CHECK(grey_foreign_find(target, NULL, NULL));
    else
        cells_check(target, LENGTH);
}
static void check_kept(void)
{
    check((void *)~hidden);
    HOOKS_CHECK(!by.handle || grey_held(handle) == (char *)~hidden + 24);
}

/* ---- at each step ------------------------------------------------------------------------------------ */

static void make_then_keep(void)
{
    grey_store(&pinner, grey_pinner_new());
    void *volatile target = make(); /* on the stack, and nowhere else, until it is let go */
    wipe_stack();
    stage_set(1);
    stage_await(2);
    keep(target);
    target = NULL;
    wipe_stack();
    stage_set(3);
    stage_await(4);
}

static void keep_then_use(void)
{
    grey_store(&pinner, grey_pinner_new());
    keep(make());
    wipe_stack();
    stage_set(1);
    stage_await(2);
    char *volatile target = by.handle ? (char *)grey_held(handle) - 24 : (char *)~hidden;
    let_go();
    HOOKS_CHECK(by.handle ? grey_held(handle) == NULL : !grey_is_pinned(target));
    wipe_stack();
    stage_set(3);
    stage_await(4);
    check(target);
    target = NULL;
}

/* Runs the actor up to its stage 1, a cycle up to the step, the actor to its stage 3, and the cycle's end. */
static pthread_t run_to_step(void (*actor)(void), enum os_hook step)
{
    pthread_t thread = actor_start(actor);
    stage_await(1);
    int stop = stop_at(step, NULL);
    cycle_begin();
    HOOKS_CHECK(stop_reached(stop, PATIENCE_MS));
    stage_set(2);
    stage_within(3, 20); /* an actor that is held comes to it when the hold is over */
    stop_release(stop);
    HOOKS_CHECK(stage_within(3, PATIENCE_MS));
    cycle_await(1);
    return thread;
}
static void assert_dies(void)
{
    cycles_run(3);
    act_alone(run_queued);
    assert_int_equal(deaths(), 1);
    assert_int_equal(pins(), 0);
    hooks_down();
}

static void kept_from_each_step(void)
{
    for (int i = 0; i < CONFIGURATIONS; i++)
        for (int k = 0; k < STEPS; k++) {
            up(held_after[i]);
            pthread_t actor = run_to_step(make_then_keep, steps[k]);
            cycles_run(2);
            stage_set(4);
            actor_join(actor);
            act_alone(check_kept);
            act_alone(run_queued);
            assert_int_equal(deaths(), 0);
            assert_int_equal(pins(), !by.handle);
            act_alone(let_go);
            assert_dies();
        }
}
static void test_set_at_each_step(void **state)
{
    (void)state;
    each_way(kept_from_each_step);
}

static void used_after_each_step(void)
{
    for (int i = 0; i < CONFIGURATIONS; i++)
        for (int k = 0; k < STEPS; k++) {
            up(held_after[i]);
            pthread_t actor = run_to_step(keep_then_use, steps[k]);
            cycles_run(2);
            act_alone(run_queued);
            assert_int_equal(deaths(), 0);
            stage_set(4);
            actor_join(actor);
            assert_dies();
        }
}
static void test_taken_back_at_each_step(void **state)
{
    (void)state;
    each_way(used_after_each_step);
}

/* Phase OFF, and the root not yet set: no cycle can arm until it is. */
static void armed_after_the_root(void)
{
    for (int i = 0; i < CONFIGURATIONS; i++) {
        up(held_after[i]);
        int stop = stop_at(by.handle ? OS_HOOK_HOLD_HANDLE : OS_HOOK_PIN, NULL);
        pthread_t actor = actor_start(make_then_keep);
        stage_await(1);
        stage_set(2);
        HOOKS_CHECK(stop_reached(stop, PATIENCE_MS));
        unsigned armed = hooks_passed(OS_HOOK_AFTER_ARM);
        cycle_begin();
        for (uint64_t end = os_now() + 30000000; os_now() < end;)
            assert_int_equal(hooks_passed(OS_HOOK_AFTER_ARM), armed);
        stop_release(stop);
        cycle_await(1);
        cycles_run(1);
        stage_set(4);
        actor_join(actor);
        act_alone(check_kept);
        act_alone(let_go);
        assert_dies();
    }
}
static void test_set_before_arm(void **state)
{
    (void)state;
    each_way(armed_after_the_root);
}

/* Phase ON, and the root jobs have passed the record before the root is in it. */
static void jobs_pass_before_the_root(void)
{
    for (int i = 0; i < CONFIGURATIONS; i++) {
        up(held_after[i]);
        pthread_t actor = actor_start(make_then_keep);
        stage_await(1);
        int begun = stop_at(OS_HOOK_AFTER_BLACKEN, NULL);
        cycle_begin();
        HOOKS_CHECK(stop_reached(begun, PATIENCE_MS));
        int stop = stop_at(by.handle ? OS_HOOK_HOLD_HANDLE : OS_HOOK_PIN, NULL);
        stage_set(2);
        HOOKS_CHECK(stop_reached(stop, PATIENCE_MS));
        int round = stop_at(OS_HOOK_ROUND_START, NULL); /* after them */
        stop_release(begun);
        HOOKS_CHECK(stop_reached(round, PATIENCE_MS));
        stop_release(stop);
        HOOKS_CHECK(stage_within(3, PATIENCE_MS)); /* and the stack is wiped before anybody asks for it */
        stop_release(round);
        cycle_await(1);
        cycles_run(1);
        stage_set(4);
        actor_join(actor);
        act_alone(check_kept);
        act_alone(let_go);
        assert_dies();
    }
}
static void test_set_after_the_root_jobs(void **state)
{
    (void)state;
    each_way(jobs_pass_before_the_root);
}

/* ---- lost pinners (PN-12) ---------------------------------------------------------------------------- */

__attribute__((noinline)) static struct grey_pinner *pinner_with_list(void)
{
    struct grey_pinner *mine = grey_pinner_new();
    HOOKS_CHECK(grey_pin(mine, make()) == 0);
    return mine;
}
static void pinner_on_the_stack(void)
{
    stage_set(1);
    stage_await(2);
    struct grey_pinner *volatile mine = pinner_with_list();
    wipe_stack();
    stage_set(3);
    stage_await(4);
    grey_unpin(mine);
}
static void pinner_in_a_root(void) { grey_store(&pinner, pinner_with_list()); }
static void lose_the_pinner(void) /* without ever having it in hand */
{
    stage_set(1);
    stage_await(2);
    grey_store(&pinner, NULL);
    stage_set(3);
    stage_await(4);
}

/* What is made and used at any step is not taken for lost. */
static void test_new_pinners_at_each_step(void **state)
{
    (void)state;
    by.handle = by.region = false;
    for (int i = 0; i < CONFIGURATIONS; i++)
        for (int k = 0; k < STEPS; k++) {
            char debug[100];
            snprintf(debug, sizeof(debug), "%s,pinleak=2", held_after[i]);
            up(debug);
            pthread_t actor = run_to_step(pinner_on_the_stack, steps[k]);
            cycles_run(2);
            assert_int_equal(pins(), 1);
            stage_set(4);
            actor_join(actor);
            assert_dies();
        }
}

static void test_lost_at_each_step(void **state)
{
    (void)state;
    for (int what = 0; what < 2; what++)
        for (int i = 0; i < CONFIGURATIONS; i++)
            for (int k = 0; k < STEPS; k++) {
                by.handle = false;
                by.region = what != 0;
                char debug[100];
                snprintf(debug, sizeof(debug), "%s,pinleak=0", held_after[i]);
                up(debug);
                act_alone(pinner_in_a_root);
                pthread_t actor = run_to_step(lose_the_pinner, steps[k]);
                cycles_run(3); /* the first may find it, and then still keeps what it had pinned */
                stage_set(4);
                actor_join(actor);
                assert_int_equal(pins(), 0);
                assert_dies();
            }
}

/* ---- what a span has --------------------------------------------------------------------------------- */

static void look_at_a_span(void)
{
    struct cell *cell = cells_new(1);
    struct grey_pinner *mine[3];
    for (int i = 0; i < 3; i++)
        mine[i] = grey_pinner_new();
    struct span *span = heap_span_of((uintptr_t)cell);
    HOOKS_CHECK(span->pins == 0 && span->specials == 0); /* PN-17 */
    for (int i = 0; i < 3; i++) {
        HOOKS_CHECK(grey_pin(mine[i], cell) == 0);
        HOOKS_CHECK(span->pins != 0 && (span->specials != 0) == (i > 0)); /* PN-8 */
        uint32_t before = span->pins;
        grey_collect(); /* they survive sweeping */
        grey_collect();
        HOOKS_CHECK(span->pins == before && grey_pin_count(cell) == (size_t)i + 1);
    }
    for (int i = 0; i < 3; i++) {
        HOOKS_CHECK(span->pins != 0 && (span->specials != 0) == (i < 2));
        grey_unpin(mine[i]);
        grey_collect();
    }
    HOOKS_CHECK(span->pins == 0 && span->specials == 0);
    cells_check(cell, 1);
}
static void test_records_of_a_span(void **state)
{
    (void)state;
    up("clobberfree=1");
    act_alone(look_at_a_span);
    hooks_down();
}

GREY_ROOT(struct cell *, one);
GREY_ROOT(struct cell *, other);
static void make_neighbours(void)
{
    grey_store(&pinner, grey_pinner_new());
    grey_store(&one, cells_new(1));
    grey_store(&other, cells_new(1)); /* same class, very likely same span */
    HOOKS_CHECK(heap_span_of((uintptr_t)one) == heap_span_of((uintptr_t)other));
    HOOKS_CHECK(grey_pin(pinner, one) == 0);
}
static void pin_other(void)
{
    HOOKS_CHECK(grey_pin(pinner, other) == 0);
    stage_set(1);
    stage_await(2);
    HOOKS_CHECK(grey_pin_count(one) == 1 && grey_pin_count(other) == 1);
    grey_unpin(pinner);
    HOOKS_CHECK(!grey_is_pinned(one) && !grey_is_pinned(other));
}

/* PN-15: the sweeper stands before the span; who pins waits for the flag, and finds it swept. */
static void test_pin_against_the_sweep(void **state)
{
    (void)state;
    up("clobberfree=1");
    act_alone(make_neighbours);
    struct span *span = heap_span_of((uintptr_t)one);
    int stop = stop_at(OS_HOOK_SWEEP_SPAN, span);
    cycle_begin();
    assert_true(stop_reached(stop, PATIENCE_MS));
    pthread_t actor = actor_start(pin_other);
    assert_false(stage_within(1, 50));
    stop_release(stop);
    assert_true(stage_within(1, PATIENCE_MS));
    cycle_await(1);
    cycles_run(1);
    stage_set(2);
    actor_join(actor);
    hooks_down();
}

/* ---- the store that a thread keeps (PN-11) ----------------------------------------------------------- */

static struct thread *block;
static void keep_stores(void)
{
    block = thread_self();
    struct grey_pinner *first = grey_pinner_new(), *second = grey_pinner_new();
    HOOKS_CHECK(block->pin_store == 0);
    HOOKS_CHECK(grey_pin(first, first) == 0 && grey_pin(second, second) == 0);
    grey_unpin(first);
    uint32_t kept = block->pin_store;
    HOOKS_CHECK(kept != 0);
    grey_unpin(second);
    HOOKS_CHECK(block->pin_store == kept); /* one at most */
    HOOKS_CHECK(grey_pin(second, first) == 0 && block->pin_store == 0);
    grey_unpin(second);
    HOOKS_CHECK(block->pin_store == kept);
    grey_collect();
    grey_unpin(second); /* the first pin call of a later cycle */
    HOOKS_CHECK(block->pin_store == 0);
    HOOKS_CHECK(grey_pin(second, first) == 0);
    grey_unpin(second);
    HOOKS_CHECK(block->pin_store != 0);
    grey_blocking_begin();
    stage_set(1);
    stage_await(2); /* a cycle in one region, and then another: its caches are taken (AL-22) */
    grey_blocking_end();
    HOOKS_CHECK(block->pin_store == 0);
    HOOKS_CHECK(grey_pin(first, second) == 0);
    grey_unpin(first);
    HOOKS_CHECK(block->pin_store != 0);
}
static void test_store_of_a_thread(void **state)
{
    (void)state;
    up("clobberfree=1");
    pthread_t actor = actor_start(keep_stores);
    assert_true(stage_within(1, PATIENCE_MS));
    cycles_run(3);
    stage_set(2);
    actor_join(actor);
    assert_int_equal(block->pin_store, 0);
    hooks_down();
}

/* ---- memory refused ---------------------------------------------------------------------------------- */

static bool refused;
static unsigned which;
static void pin_without_memory(void)
{
    struct cell *cell = cells_new(1);
    struct grey_pinner *mine = grey_pinner_new();
    struct span *span = heap_span_of((uintptr_t)cell);
    refused = false;
    os_fail_mapping(which, ENOMEM);
    for (size_t count = 0; count < 3;) {
        int error = grey_pin(mine, cell);
        HOOKS_CHECK(error == 0 || error == ENOMEM);
        refused |= error != 0;
        count += error == 0;
        HOOKS_CHECK(grey_pin_count(cell) == count && pins() == count);
        HOOKS_CHECK(count != 0 || !grey_is_pinned(cell));
    }
    errno = 0;
    grey_handle held = grey_hold(cell);
    if (held == 0) {
        HOOKS_CHECK(errno == ENOMEM);
        refused = true;
        held = grey_hold(cell);
    }
    HOOKS_CHECK(grey_held(held) == cell && grey_drop(held));
    os_fail_mapping(0, 0);
    grey_unpin(mine);
    HOOKS_CHECK(pins() == 0 && !grey_is_pinned(cell) && span->pins == 0 && span->specials == 0);
}
/* Each table's first record: of stores, of spans, of counters, of handles. */
static void test_memory_refused(void **state)
{
    (void)state;
    for (which = 1; which <= 5; which++) {
        hooks_up("clobberfree=1");
        act_alone(pin_without_memory);
        assert_int_equal(refused, which <= 4);
        hooks_down();
    }
}

/* ---- broken records (PN-16) -------------------------------------------------------------------------- */

static struct span *pinned_span(int times, struct grey_pinner **mine)
{
    *mine = grey_pinner_new();
    struct cell *cell = cells_new(1);
    for (int i = 0; i < times; i++)
        HOOKS_CHECK(grey_pin(*mine, cell) == 0);
    return heap_span_of((uintptr_t)cell);
}
static void lose_the_bits(void)
{
    struct grey_pinner *mine;
    pinned_span(1, &mine)->pins = 0;
    grey_unpin(mine);
}
static void lose_the_counter(void)
{
    struct grey_pinner *mine;
    pinned_span(2, &mine)->specials = 0;
    grey_unpin(mine);
}
static void test_broken_records(void **state)
{
    (void)state;
    child_dies("lose_the_bits", NULL, "unpinning what is not pinned");
    child_dies("lose_the_counter", NULL, "counter is missing");
}

int main(int argc, char **argv)
{
    static const struct child_case cases[] = {
        {"lose_the_bits", lose_the_bits},
        {"lose_the_counter", lose_the_counter},
    };
    CHILD_MAIN(argc, argv, cases);
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_at_each_step),         cmocka_unit_test(test_taken_back_at_each_step),
        cmocka_unit_test(test_set_before_arm),           cmocka_unit_test(test_set_after_the_root_jobs),
        cmocka_unit_test(test_new_pinners_at_each_step), cmocka_unit_test(test_lost_at_each_step),
        cmocka_unit_test(test_records_of_a_span),        cmocka_unit_test(test_pin_against_the_sweep),
        cmocka_unit_test(test_store_of_a_thread),        cmocka_unit_test(test_memory_refused),
        cmocka_unit_test(test_broken_records),
    };
    return hooks_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
