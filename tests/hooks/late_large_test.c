/* tests/hooks/late_large_test.c -- a large object that is published late: its cycle is over, and swept.
 *
 * Requirements: AL-9, SW-2.  Who allocates a large object reads the numbers of the cycle and publishes the
 * object under the span's flag, but nobody else asks for the flag of a span that is still in the making: a
 * sweep passes it by.  So a thread that is stopped between the two brings a number of the cycle before into
 * the next one, and a mark that should be clear.  Then a store of the object is no news to the barrier, and
 * somebody who stopped in the middle of a batch of the old sweep sweeps it after that: the mark is gone, and
 * with it the object that a root leads to.
 */
#include "heap/heap.h"
#include "support_hooks.h"
#include "sweep/sweep.h"

#include <string.h>
#include <unistd.h>

enum { LARGE = 100 * 1000 };

GREY_ROOT(unsigned char *, root);

static __attribute__((noinline)) void make_and_store(void)
{
    unsigned char *object = grey_alloc(LARGE);
    HOOKS_CHECK(object != NULL);
    memset(object, 0x5a, LARGE);
    stage_set(2);
    stage_await(3);
    grey_store(&root, object);
}

/* As a sweeper does that claimed the batch long ago. */
static __attribute__((noinline)) void sweep_late(void)
{
    struct span *span = heap_span_of((uintptr_t)root);
    thread_enter(thread_self());
    span_lock(span);
    sweep_if_due(span);
    span_unlock(span);
    thread_leave(thread_self());
}

static void make(void)
{
    stage_await(1);
    make_and_store();
    sweep_late();
    wipe_stack();
    stage_set(4);
    stage_await(5);
}

static void wait_until_armed(void)
{
    for (int i = 0; __atomic_load_n(&grey_phase_, __ATOMIC_ACQUIRE) == 0; i++) {
        HOOKS_CHECK(i < 20000);
        usleep(1000);
    }
}

static void published_late(void **unused)
{
    (void)unused;
    hooks_up("clobberfree=1");
    pthread_t actor = actor_start(make);
    int sweep = stop_at(OS_HOOK_AFTER_FINISH, NULL), numbered = stop_at(OS_HOOK_LARGE_NUMBERED, NULL);
    cycle_begin();
    HOOKS_CHECK(stop_reached(sweep, PATIENCE_MS));
    stage_set(1); /* the actor reads the numbers of a cycle that still marks */
    HOOKS_CHECK(stop_reached(numbered, PATIENCE_MS));
    stop_release(sweep);
    cycle_await(1);
    int round = stop_at(OS_HOOK_ROUND_START, NULL);
    cycle_begin();
    wait_until_armed(); /* its FENCE waits for the actor: what is swept by now is swept */
    usleep(20000);
    stop_release(numbered);
    HOOKS_CHECK(stop_reached(round, PATIENCE_MS)); /* the roots are scanned */
    HOOKS_CHECK(stage_within(2, PATIENCE_MS));
    stage_set(3);
    HOOKS_CHECK(stage_within(4, PATIENCE_MS));
    stop_release(round);
    cycle_await(2);
    cycles_run(1);
    assert_true(grey_size(root) >= LARGE);
    for (size_t i = 0; i < LARGE; i++)
        assert_int_equal(root[i], 0x5a);
    stage_set(5);
    actor_join(actor);
    root = NULL;
    hooks_down();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(published_late)};
    return hooks_main(argc, argv, tests, 1);
}
