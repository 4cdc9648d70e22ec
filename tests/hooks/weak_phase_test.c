/* tests/hooks/weak_phase_test.c -- weak references, cleanups and finalizers at each step of a cycle.
 *
 * grey_weak_get stopped between its readings, and against the end of marking (CF-21, CF-22, OR-2, OR-4): a
 * target that nobody holds is NULL from the moment the round is closed, and before that a get keeps it and
 * what it leads to, also if another thread that has yet to answer holds it (mark stealing; that one fails
 * with GREY_FAULT=NO_DIRTY).  What is registered in mid-cycle keeps what it must (CF-5, CF-17, CF-20),
 * what is stopped does not run (CF-7), and both wait for a sweep of the object's span (OR-12).
 *
 * Objects that nobody holds are made by actors that are gone when the cycle begins.
 */
#include "support_hooks.h"

#include "heap/heap.h"

#include <signal.h>
#include <string.h>

enum { LENGTH = 40 };

static const char *const held_after[] = {"clobberfree=1,holdround=0", "clobberfree=1,holdround=1",
                                         "clobberfree=1"};
enum { CONFIGURATIONS = 3 };
static const enum os_hook steps[] = {OS_HOOK_AFTER_ARM,   OS_HOOK_AFTER_BLACKEN, OS_HOOK_ROOTS,
                                     OS_HOOK_ROUND_START, OS_HOOK_ROUND_END,     OS_HOOK_CLOSED,
                                     OS_HOOK_FINISH,      OS_HOOK_AFTER_FINISH};
enum { STEPS = sizeof(steps) / sizeof(steps[0]) };

GREY_ROOT(struct cell *, held);
GREY_ROOT(struct grey_weak *, weak);
GREY_ROOT(struct grey_weak *, inner); /* to another address of the same object */
GREY_ROOT(struct grey_weak *, of_held);
static uintptr_t hidden_weak; /* as bits turned round: kept by nobody */
static grey_cleanup handle;
static _Atomic unsigned ran;

static void run_queued(void) { grey_cleanup_run(SIZE_MAX); }
static void act_alone(void (*fn)(void)) { actor_join(actor_start(fn)); }
static void take_charge(void) { HOOKS_CHECK(grey_cleanup_fd() >= 0); } /* would attach the director */

static void up(const char *debug)
{
    held = NULL;
    weak = inner = of_held = NULL;
    atomic_store(&ran, 0);
    hooks_up(debug);
    act_alone(take_charge);
}

/* A list that only a weak reference leads to. */
static void make_dead(void)
{
    struct cell *list = cells_new(LENGTH);
    grey_store(&weak, grey_weak_new(list));
    grey_store(&inner, grey_weak_new(&list->check));
    grey_store(&held, cells_new(1));
    grey_store(&of_held, grey_weak_new(held));
}

/* ---- get, stopped in the middle ---------------------------------------------------------------------- */

static void get_and_check_later(void)
{
    stage_await(1);
    struct cell *list = grey_weak_get(weak);
    stage_set(2);
    stage_await(3);
    cells_check(list, LENGTH);
}

/* Phase OFF read, target not: no cycle can arm until the section is over, and then the target is held. */
static void test_get_before_arm(void **state)
{
    (void)state;
    for (int i = 0; i < CONFIGURATIONS; i++) {
        up(held_after[i]);
        act_alone(make_dead);
        int stop = stop_at(OS_HOOK_WEAK_GET, NULL);
        pthread_t actor = actor_start(get_and_check_later);
        stage_set(1);
        assert_true(stop_reached(stop, PATIENCE_MS));
        unsigned armed = hooks_passed(OS_HOOK_AFTER_ARM);
        cycle_begin();
        for (uint64_t end = os_now() + 50000000; os_now() < end;)
            assert_int_equal(hooks_passed(OS_HOOK_AFTER_ARM), armed);
        stop_release(stop);
        cycle_await(1);
        cycles_run(1);
        stage_set(3);
        actor_join(actor);
        hooks_down();
    }
}

/* Phase ON read; stopped before the target, before DIRTY, and between DIRTY and the mark. */
static void test_get_while_marking(void **state)
{
    (void)state;
    static const enum os_hook points[] = {OS_HOOK_WEAK_GET, OS_HOOK_SHADE, OS_HOOK_SHADE_DIRTY};
    for (int i = 0; i < CONFIGURATIONS; i++)
        for (int k = 0; k < 3; k++) {
            up(held_after[i]);
            act_alone(make_dead);
            pthread_t actor = actor_start(get_and_check_later);
            int roots = stop_at(OS_HOOK_ROUND_START, NULL);
            cycle_begin();
            assert_true(stop_reached(roots, PATIENCE_MS));
            int stop = stop_at(points[k], NULL);
            stage_set(1);
            assert_true(stop_reached(stop, PATIENCE_MS));
            unsigned closed = hooks_passed(OS_HOOK_CLOSED);
            stop_release(roots);
            for (uint64_t end = os_now() + 50000000; os_now() < end;) /* it waits for the actor's answer */
                assert_int_equal(hooks_passed(OS_HOOK_CLOSED), closed);
            stop_release(stop);
            cycle_await(1);
            cycles_run(1);
            assert_true(stage_within(2, PATIENCE_MS));
            stage_set(3);
            actor_join(actor);
            hooks_down();
        }
}

/* ---- get at each step -------------------------------------------------------------------------------- */

static void *got, *got_inner, *got_held;
static void get_all(void)
{
    stage_await(1);
    void *list = grey_weak_get(weak);
    got = list;
    got_inner = grey_weak_get(inner);
    got_held = grey_weak_get(of_held);
    HOOKS_CHECK(got_inner == NULL || list != NULL);
    stage_set(2);
    stage_await(3);
    if (list != NULL)
        cells_check(list, LENGTH);
    cells_check(held, 1);
    HOOKS_CHECK(grey_weak_get(of_held) == held && got_held == held);
}

/* Until the round is closed a get keeps the target; from then on it is NULL, and both references agree.
 * What a root holds is never NULL. */
static void test_get_at_each_step(void **state)
{
    (void)state;
    for (int i = 0; i < CONFIGURATIONS; i++)
        for (int k = 0; k < STEPS; k++) {
            up(held_after[i]);
            act_alone(make_dead);
            pthread_t actor = actor_start(get_all);
            int stop = stop_at(steps[k], NULL);
            cycle_begin();
            assert_true(stop_reached(stop, PATIENCE_MS));
            stage_set(1);
            stage_within(2, 50); /* an actor that is held comes to it when the hold is over */
            bool was_in_time = stage_within(2, 0);
            stop_release(stop);
            assert_true(stage_within(2, PATIENCE_MS));
            bool closed =
                steps[k] == OS_HOOK_CLOSED || steps[k] == OS_HOOK_FINISH || steps[k] == OS_HOOK_AFTER_FINISH;
            assert_true((got != NULL) == (got_inner != NULL));
            if (closed)
                assert_null(got);
            else if (was_in_time && steps[k] != OS_HOOK_ROUND_END)
                assert_non_null(got);
            cycle_await(1);
            cycles_run(1);
            stage_set(3);
            actor_join(actor);
            hooks_down();
        }
}

static void check_dead(void)
{
    HOOKS_CHECK(grey_weak_get(weak) == NULL && grey_weak_get(inner) == NULL);
    HOOKS_CHECK(grey_weak_get(of_held) == held);
}

/* The cell is still full when the round is closed, and empty before anybody may sweep. */
static void test_cells_are_cleared_before_the_phase_goes_off(void **state)
{
    (void)state;
    up("clobberfree=1");
    act_alone(make_dead);
    int closed = stop_at(OS_HOOK_CLOSED, NULL), after = stop_at(OS_HOOK_AFTER_FINISH, NULL);
    cycle_begin();
    assert_true(stop_reached(closed, PATIENCE_MS));
    /* The first word of a cell is the target (sweep/weak.c). */
    assert_true(__atomic_load_n((uintptr_t *)(void *)weak, __ATOMIC_RELAXED) != 0);
    assert_true(grey_phase_ != 0);
    stop_release(closed);
    assert_true(stop_reached(after, PATIENCE_MS));
    assert_true(__atomic_load_n((uintptr_t *)(void *)weak, __ATOMIC_RELAXED) == 0);
    assert_true(__atomic_load_n((uintptr_t *)(void *)of_held, __ATOMIC_RELAXED) != 0);
    act_alone(check_dead);
    stop_release(after);
    cycle_await(1);
    cycles_run(1);
    act_alone(check_dead);
    hooks_down();
}

/* ---- mark stealing ----------------------------------------------------------------------------------- */

static _Atomic bool holder_polls, getter_waits;

static void deaf_holder(void)
{
    grey_store(&held, cells_new(1)); /* black, for who takes the next one's address for its end (D-4) */
    struct cell *first = cells_new(1);
    grey_store(&first->other, cells_new(LENGTH));
    grey_store(&weak, grey_weak_new(first));
    wipe_stack();
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    stage_set(1);
    while (atomic_load(&holder_polls)) /* without membarrier, FENCE needs it */
        grey_safepoint();
    stage_set(2);
    stage_await(4);
    grey_safepoint();
    pthread_sigmask(SIG_UNBLOCK, &all, NULL);
    stage_await(5);
    cells_check(first, 1);
    cells_check(first->other, LENGTH);
}

static void getter(void)
{
    atomic_store(&getter_waits, true);
    stage_await(3);
    grey_weak_get(weak);
    wipe_stack();
    stage_set(4);
    stage_await(5);
}

/* The getter has answered, gets, and has the object grey in its buffer; the holder then answers with nothing
 * white on its stack.  The round must not close before the buffer is handed over. */
static void test_get_steals_no_mark(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        up("clobberfree=1");
        atomic_store(&holder_polls, true);
        atomic_store(&getter_waits, false);
        pthread_t holder = actor_start(deaf_holder), other = actor_start(getter);
        stage_await(1);
        while (!atomic_load(&getter_waits))
            os_yield();
        int start = stop_at(OS_HOOK_ROUND_START, NULL);
        cycle_begin();
        assert_true(stop_reached(start, PATIENCE_MS));
        atomic_store(&holder_polls, false);
        stage_await(2);
        unsigned answers = hooks_passed(OS_HOOK_ANSWER);
        stop_release(start);
        for (uint64_t end = os_now() + 5000000000; hooks_passed(OS_HOOK_ANSWER) == answers && os_now() < end;)
            os_yield();
        assert_true(hooks_passed(OS_HOOK_ANSWER) > answers);
        stage_set(3);
        cycle_await(1);
        cycles_run(1);
        stage_set(5);
        actor_join(holder);
        actor_join(other);
        hooks_down();
    }
}

/* ---- registering at each step ------------------------------------------------------------------------ */

static void check_list(void *list)
{
    cells_check(list, LENGTH);
    atomic_fetch_add(&ran, 1);
}
static void check_object(void *object) { check_list(((struct cell *)object)->other); }
static void never(void *unused)
{
    (void)unused;
    hooks_fail("a stopped cleanup or a cleared finalizer has run");
}

/* The list is the argument, and nothing else leads to it. */
__attribute__((noinline)) static void register_cleanup(struct cell *list)
{
    HOOKS_CHECK(grey_cleanup_add(held, check_list, list, NULL) == 0);
}
__attribute__((noinline)) static void register_finalizer(struct cell *list)
{
    grey_store(&held->other, list);
    HOOKS_CHECK(grey_set_finalizer(held, check_object) == 0);
}
/* The cell is held by its special only. */
__attribute__((noinline)) static void register_weak(struct cell *list)
{
    (void)list;
    struct grey_weak *fresh = grey_weak_new(held);
    HOOKS_CHECK(fresh != NULL);
    hidden_weak = ~(uintptr_t)fresh;
}

/* What each scenario begins with and does at its step. */
static void (*act_before)(struct cell *list), (*act_on)(struct cell *list);
static void at_the_step(void)
{
    grey_store(&held, cells_new(1));
    struct cell *volatile list = cells_new(LENGTH); /* on the stack, and nowhere else, until it is let go */
    if (act_before != NULL)
        act_before(list);
    wipe_stack();
    stage_set(1);
    stage_await(2);
    act_on(list);
    list = NULL;
    wipe_stack();
    stage_set(3);
    stage_await(4);
}
static void check_weak_again(void)
{
    HOOKS_CHECK(grey_weak_new(held) == (struct grey_weak *)~hidden_weak);
    HOOKS_CHECK(grey_weak_get((struct grey_weak *)~hidden_weak) == held);
}
static void drop_held(void) { grey_store(&held, NULL); }

/* Something is registered, stopped or cleared at each step; then the object is let go.  Times: how often what
 * was registered must run. */
static void at_each_step(void (*before)(struct cell *), void (*what)(struct cell *), void (*check)(void),
                         unsigned times)
{
    act_before = before;
    act_on = what;
    for (int i = 0; i < CONFIGURATIONS; i++)
        for (int k = 0; k < STEPS; k++) {
            up(held_after[i]);
            pthread_t actor = actor_start(at_the_step);
            stage_await(1);
            int stop = stop_at(steps[k], NULL);
            cycle_begin();
            assert_true(stop_reached(stop, PATIENCE_MS));
            stage_set(2);
            stage_within(3, 30);
            stop_release(stop);
            assert_true(stage_within(3, PATIENCE_MS));
            cycle_await(1);
            cycles_run(1);
            stage_set(4);
            actor_join(actor);
            if (check != NULL)
                act_alone(check);
            act_alone(run_queued);
            assert_int_equal(atomic_load(&ran), 0);
            act_alone(drop_held);
            cycles_run(3);
            act_alone(run_queued);
            assert_int_equal(atomic_load(&ran), times);
            cycles_run(2);
            act_alone(run_queued);
            assert_int_equal(atomic_load(&ran), times);
            hooks_down();
        }
}

static void test_cleanup_at_each_step(void **state)
{
    (void)state;
    at_each_step(NULL, register_cleanup, NULL, 1);
}
static void test_finalizer_at_each_step(void **state)
{
    (void)state;
    at_each_step(NULL, register_finalizer, NULL, 1);
}
static void test_weak_at_each_step(void **state)
{
    (void)state;
    at_each_step(NULL, register_weak, check_weak_again, 0);
}

__attribute__((noinline)) static void register_to_stop(struct cell *list)
{
    HOOKS_CHECK(grey_cleanup_add(held, never, list, &handle) == 0);
    HOOKS_CHECK(grey_set_finalizer(held, never) == 0);
}
__attribute__((noinline)) static void stop_and_clear(struct cell *list)
{
    (void)list;
    HOOKS_CHECK(grey_cleanup_stop(handle));
    HOOKS_CHECK(!grey_cleanup_stop(handle));
    HOOKS_CHECK(grey_set_finalizer(held, NULL) == 0);
}
static void test_stop_and_clear_at_each_step(void **state)
{
    (void)state;
    at_each_step(register_to_stop, stop_and_clear, NULL, 0);
}

/* ---- the object dies in the cycle in which it was given ---------------------------------------------- */

/* One object was born in the cycle, the other is white if it can be. */
__attribute__((noinline)) static void register_and_drop(struct cell *list)
{
    struct cell *object = cells_new(1), *old = held;
    HOOKS_CHECK(grey_cleanup_add(object, check_list, cells_new(LENGTH), NULL) == 0);
    HOOKS_CHECK(grey_set_finalizer(list, check_list) == 0); /* white, with all that it leads to (CF-17) */
    HOOKS_CHECK(grey_weak_new(old) != NULL);
    HOOKS_CHECK(grey_cleanup_add(old, check_list, cells_new(LENGTH), NULL) == 0);
    grey_store(&held, NULL);
}

static void test_dead_at_once(void **state)
{
    (void)state;
    act_before = NULL;
    act_on = register_and_drop;
    for (int i = 0; i < CONFIGURATIONS; i++)
        for (int k = 0; k < STEPS; k++) {
            up(held_after[i]);
            pthread_t actor = actor_start(at_the_step);
            stage_await(1);
            int stop = stop_at(steps[k], NULL);
            cycle_begin();
            assert_true(stop_reached(stop, PATIENCE_MS));
            stage_set(2);
            stage_within(3, 30);
            stop_release(stop);
            assert_true(stage_within(3, PATIENCE_MS));
            cycle_await(1);
            cycles_run(1);
            stage_set(4);
            actor_join(actor);
            cycles_run(2);
            act_alone(run_queued);
            assert_int_equal(atomic_load(&ran), 3);
            hooks_down();
        }
}

/* ---- against the sweep (OR-12, CF-7) ----------------------------------------------------------------- */

static struct span *span;
static _Atomic bool stopped;
static grey_cleanup handle_of_neighbour;

static void make_to_die(void)
{
    grey_store(&held, cells_new(1));
    HOOKS_CHECK(grey_cleanup_add(held, check_list, cells_new(LENGTH), &handle) == 0);
    span = heap_span_of((uintptr_t)held);
    grey_store(&held->other, cells_new(1)); /* same class, very likely same span */
}
static void let_die(void)
{
    struct cell *neighbour = held->other;
    grey_store(&held, neighbour);
}
static void stop_dead(void)
{
    bool was_stopped = grey_cleanup_stop(handle);
    atomic_store(&stopped, was_stopped);
    stage_set(1);
}
static void add_to_neighbour(void)
{
    HOOKS_CHECK(grey_cleanup_add(held, never, NULL, &handle_of_neighbour) == 0);
    stage_set(2);
}
static void stop_neighbours(void) { HOOKS_CHECK(grey_cleanup_stop(handle_of_neighbour)); }

/* The sweeper stands before the span: whoever wants to change its list waits, and finds it swept. */
static void test_stop_against_the_sweep(void **state)
{
    (void)state;
    up("clobberfree=1");
    act_alone(make_to_die);
    act_alone(let_die);
    HOOKS_CHECK(heap_span_of((uintptr_t)held) == span);
    int stop = stop_at(OS_HOOK_SWEEP_SPAN, span);
    cycle_begin();
    assert_true(stop_reached(stop, PATIENCE_MS));
    pthread_t stopper = actor_start(stop_dead);
    assert_false(stage_within(1, 50)); /* it waits for the flag */
    stop_release(stop);
    assert_true(stage_within(1, PATIENCE_MS));
    actor_join(stopper);
    assert_false(atomic_load(&stopped));
    cycle_await(1);
    cycles_run(1);
    act_alone(run_queued);
    assert_int_equal(atomic_load(&ran), 1);
    hooks_down();
}

static void test_add_against_the_sweep(void **state)
{
    (void)state;
    up("clobberfree=1");
    act_alone(make_to_die);
    act_alone(let_die);
    int stop = stop_at(OS_HOOK_SWEEP_SPAN, span);
    cycle_begin();
    assert_true(stop_reached(stop, PATIENCE_MS));
    pthread_t adder = actor_start(add_to_neighbour);
    assert_false(stage_within(2, 50));
    stop_release(stop);
    assert_true(stage_within(2, PATIENCE_MS));
    actor_join(adder);
    cycle_await(1);
    cycles_run(1);
    act_alone(run_queued);
    assert_int_equal(atomic_load(&ran), 1);
    act_alone(stop_neighbours);
    hooks_down();
}

/* Dead, but not swept yet: before queueing, so it is stopped for good. */
static void test_stop_after_finish(void **state)
{
    (void)state;
    up("clobberfree=1");
    act_alone(make_to_die);
    act_alone(let_die);
    int stop = stop_at(OS_HOOK_AFTER_FINISH, NULL);
    cycle_begin();
    assert_true(stop_reached(stop, PATIENCE_MS));
    act_alone(stop_dead);
    assert_true(atomic_load(&stopped));
    stop_release(stop);
    cycle_await(1);
    cycles_run(2);
    act_alone(run_queued);
    assert_int_equal(atomic_load(&ran), 0);
    hooks_down();
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get_before_arm),
        cmocka_unit_test(test_get_while_marking),
        cmocka_unit_test(test_get_at_each_step),
        cmocka_unit_test(test_cells_are_cleared_before_the_phase_goes_off),
        cmocka_unit_test(test_get_steals_no_mark),
        cmocka_unit_test(test_cleanup_at_each_step),
        cmocka_unit_test(test_finalizer_at_each_step),
        cmocka_unit_test(test_weak_at_each_step),
        cmocka_unit_test(test_stop_and_clear_at_each_step),
        cmocka_unit_test(test_dead_at_once),
        cmocka_unit_test(test_stop_against_the_sweep),
        cmocka_unit_test(test_add_against_the_sweep),
        cmocka_unit_test(test_stop_after_finish),
    };
    return hooks_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
