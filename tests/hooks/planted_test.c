/* tests/hooks/planted_test.c -- what each rule of the protocol is there for, by force.
 *
 * Each scenario holds open the one interleaving in which a rule matters, so that a library without the rule
 * fails here at once: tests/programs/faults.sh plants the mistakes of OS_FAULTS one by one and sees to it.
 * With the rules in place the same scenarios must pass, in every mode.
 *
 * A scenario is exact only if no stale word keeps an object alive.  Frames are wiped, and cells of interest
 * have a black neighbour below them, since a cell's address is also one past the end of that one (D-4).
 */
#include "support_hooks.h"

#include "os/options.h"

#include <stdio.h>

enum { LENGTH = 40, LONG = 200000 };

GREY_ROOT(struct cell *, black);
GREY_ROOT(struct cell *, neighbours);

static void up(const char *debug)
{
    black = neighbours = NULL; /* they led into the heap that is gone */
    hooks_up(debug);
}

static void add_neighbour(void)
{
    struct cell *neighbour = cells_new(1);
    grey_store(&neighbour->next, neighbours);
    grey_store(&neighbours, neighbour);
}

static struct cell *cell_apart(void)
{
    add_neighbour();
    return cells_new(1);
}

/* A cell that alone leads to a list. */
__attribute__((noinline)) static struct cell *cell_with_list(void)
{
    add_neighbour(); /* in the heap's first cell, whose address the library's own frames are full of */
    struct cell *list = cells_new(LENGTH), *cell = cell_apart();
    grey_store(&cell->other, list);
    return cell;
}

__attribute__((noinline)) static void store_into_black(struct cell *cell) { grey_store(&black->other, cell); }

/* ---- the round word (0.1, 2.3): NO_DIRTY --------------------------------------------------------------- */

/* The giver has published a white cell and not answered; the taker has answered, and shades it. */
static struct cell *_Atomic mailbox;
static struct thread *_Atomic giver_block, *_Atomic taker_block;

static void giver(void)
{
    struct cell *cell = cell_with_list();
    wipe_stack();
    atomic_store(&giver_block, thread_self());
    atomic_store(&mailbox, cell);
    stage_set(1);
    stage_await(3);
    grey_pass(cell);
    grey_keep_alive(cell);
}

__attribute__((noinline)) static void take(void)
{
    store_into_black(atomic_load(&mailbox));
    atomic_store(&mailbox, NULL);
}

static void taker(void)
{
    grey_store(&black, cells_new(1));
    wipe_stack();
    atomic_store(&taker_block, thread_self());
    stage_set(2);
    stage_await(3);
    take();
    wipe_stack();
    stage_set(4);
    stage_await(5);
    cells_check(black->other, 1);
    cells_check(black->other->other, LENGTH);
}

static void test_stolen_mark(void **state)
{
    (void)state;
    up("clobberfree=1");
    pthread_t first = actor_start(giver);
    stage_await(1);
    pthread_t second = actor_start(taker);
    stage_await(2);
    int stop = stop_at(OS_HOOK_ANSWER, atomic_load(&giver_block));
    cycle_begin();
    assert_true(stop_reached(stop, PATIENCE_MS));
    while (atomic_load(&atomic_load(&taker_block)->request) != 0)
        os_yield();
    stage_set(3);
    stage_within(4, 2000); /* a held taker comes to it when the hold is called off */
    stop_release(stop);
    stage_await(4);
    cycle_await(1);
    cycles_run(1);
    stage_set(5);
    actor_join(first);
    actor_join(second);
    hooks_down();
}

/* ---- grey buffers and copies make a round not clean (1.4): NO_BUFFER_COUNT, NO_COPY_COUNT -------------- */

/* Not scanned: between its two uses no stack is. */
static struct cell *chain;

__attribute__((noinline)) static void make_chain(void) { chain = cells_new(LONG); }
__attribute__((noinline)) static void store_chain(void) { store_into_black(chain); }

static void grey_in_a_buffer(void)
{
    /* Many, so that the heap's first cell is a marked one: its address is the heap's, and stands on stacks. */
    grey_store(&black, cells_new(LONG));
    make_chain();
    wipe_stack();
    stage_set(1);
    stage_await(2);
    store_chain();
    wipe_stack();
    stage_set(3);
    stage_await(4);
    cells_check(black->other, LONG);
}

static void test_buffer_counts(void **state)
{
    (void)state;
    up("clobberfree=1");
    pthread_t actor = actor_start(grey_in_a_buffer);
    stage_await(1);
    int stop = stop_at(OS_HOOK_ROUND_START, NULL);
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

static void white_on_a_stack(void)
{
    struct cell *own = cells_new(LONG);
    stage_set(1);
    stage_await(2);
    cells_check(own, LONG);
}

static void test_copies_count(void **state)
{
    (void)state;
    up("clobberfree=1");
    pthread_t actor = actor_start(white_on_a_stack);
    stage_await(1);
    cycles_run(2);
    stage_set(2);
    actor_join(actor);
    hooks_down();
}

/* ---- the rests of runs are blackened (1.2): NO_REST ---------------------------------------------------- */

static void born_late(void)
{
    grey_store(&black, cells_new(1)); /* the first cell of a run; the rest of it is this thread's */
    wipe_stack();
    stage_set(1);
    stage_await(2);
    struct cell *fresh = cells_new(1);
    stage_set(3);
    stage_await(4);
    cells_check(fresh, 1);
}

static void test_rest_of_a_run(void **state)
{
    (void)state;
    up("clobberfree=1");
    pthread_t actor = actor_start(born_late);
    stage_await(1);
    int stop = stop_at(OS_HOOK_CLOSED, NULL); /* nobody looks at stacks any more */
    cycle_begin();
    assert_true(stop_reached(stop, PATIENCE_MS));
    stage_set(2);
    stage_within(3, os_debug.holdround == 32 ? 5000 : 30);
    stop_release(stop);
    stage_await(3);
    cycle_await(1);
    cycles_run(1);
    stage_set(4);
    actor_join(actor);
    hooks_down();
}

/* ---- nobody attaches while threads are held (1.4, 2.5): ATTACH_IN_HOLD --------------------------------- */

static struct cell *_Atomic grey_cell;

static void held_thread(void)
{
    grey_store(&black, cells_new(1));
    struct cell *cell = cell_with_list();
    wipe_stack();
    atomic_store(&grey_cell, cell);
    stage_set(1);
    stage_await(2);
    store_into_black(cell); /* grey from here on; scanned when everybody is held */
    stage_set(3);
    stage_await(5);
}

static void newcomer(void)
{
    struct cell *cell = black->other, *list = cell->other;
    grey_store(&cell->other, NULL);
    stage_set(4);
    stage_await(5);
    cells_check(list, LENGTH);
}

static void test_attach_in_hold(void **state)
{
    (void)state;
    up("clobberfree=1,holdround=0");
    pthread_t first = actor_start(held_thread);
    stage_await(1);
    int before = stop_at(OS_HOOK_ROUND_START, NULL);
    cycle_begin();
    assert_true(stop_reached(before, PATIENCE_MS));
    int scan = stop_at(OS_HOOK_MARK_SCAN, atomic_load(&grey_cell));
    stage_set(2);
    stage_await(3);
    stop_release(before);
    assert_true(stop_reached(scan, PATIENCE_MS));
    pthread_t second = actor_start(newcomer);
    stage_within(4, 50); /* it must wait */
    stop_release(scan);
    stage_await(4);
    cycle_await(1);
    cycles_run(1);
    stage_set(5);
    actor_join(first);
    actor_join(second);
    hooks_down();
}

/* ---- nothing is swept before finish's FENCE (1.6, OR-3): EARLY_SWEEP, NO_FENCE ------------------------ */

static _Atomic uintptr_t stale; /* complement of a dead object's address */

__attribute__((noinline)) static void make_dead_object(void)
{
    atomic_store(&stale, ~(uintptr_t)cell_apart());
}

static void in_a_section(void)
{
    void **slot = grey_alloc(16);
    make_dead_object();
    wipe_stack();
    stage_set(1);
    stage_await(2);
    /* A word that is no pointer any more, given to the barrier: its section begins in the cycle. */
    grey_store(slot, (void *)~atomic_load(&stale));
    stage_set(3);
    stage_await(4);
}

/* Stops the collector at the end of the round that it will close. */
static int stop_at_last_round(void)
{
    int stop = stop_at(OS_HOOK_ROUND_END, NULL);
    cycle_begin();
    for (;;) {
        HOOKS_CHECK(stop_reached(stop, PATIENCE_MS));
        if (atomic_load(&work_clean) && atomic_load(&work_round) == ROUND_OPEN)
            return stop;
        int next = stop_at(OS_HOOK_ROUND_END, NULL);
        stop_release(stop);
        stop = next;
    }
}

static void test_nothing_swept_before_fence(void **state)
{
    (void)state;
    up("clobberfree=1,holdround=32,checkmark=0,stoptheworld=0");
    pthread_t actor = actor_start(in_a_section);
    stage_await(1);
    int end = stop_at_last_round();
    int section = stop_at(OS_HOOK_SHADE, NULL);
    stage_set(2);
    assert_true(stop_reached(section, PATIENCE_MS));
    uint64_t swept = atomic_load(&heap.sweep_cycle);
    unsigned finishes = hooks_passed(OS_HOOK_FINISH), fences = hooks_passed(OS_HOOK_AFTER_FINISH);
    stop_release(end);
    for (uint64_t limit = os_now() + 5000000000; hooks_passed(OS_HOOK_FINISH) == finishes;)
        assert_true(os_now() < limit);
    for (uint64_t limit = os_now() + 100000000; os_now() < limit;)
        os_yield();
    assert_int_equal(hooks_passed(OS_HOOK_AFTER_FINISH), fences);
    assert_int_equal(atomic_load(&heap.sweep_cycle), swept);
    stop_release(section);
    stage_await(3);
    cycle_await(1);
    assert_true(atomic_load(&heap.sweep_cycle) > swept);
    stage_set(4);
    actor_join(actor);
    hooks_down();
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stolen_mark),    cmocka_unit_test(test_buffer_counts),
        cmocka_unit_test(test_copies_count),   cmocka_unit_test(test_rest_of_a_run),
        cmocka_unit_test(test_attach_in_hold), cmocka_unit_test(test_nothing_swept_before_fence),
    };
    return hooks_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
