/* tests/hooks/answer_race_test.c -- a thread answers by itself and enters a region while the collector is about
 * to answer for it (docs/protocol.md 2.6, models/handshake.pml M_NOLOOKAGAIN).
 *
 * The collector has seen a thread's request and stands before its CAS(BLOCKED -> HELD).  The thread polls, so the
 * answer is given, and goes into a blocking region: the CAS succeeds.  Counted a second time, the answer would
 * stand for that of another thread, here one that blocks the signal and alone has an object on its stack.
 */
#include "support_hooks.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

enum { LENGTH = 50 };
static _Atomic uintptr_t racer; /* the thread block */
static _Atomic bool holding;    /* the second thread has its list, and no signal reaches it */

static int stay(void *unused)
{
    (void)unused;
    stage_set(3);
    stage_await(4);
    return 0;
}

static void race(void)
{
    atomic_store(&racer, (uintptr_t)thread_self());
    sigset_t set;
    sigfillset(&set); /* else it answers by signal before the stop is reached */
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    stage_set(1);
    stage_await(2);
    grey_safepoint();
    HOOKS_CHECK(atomic_load(&((struct thread *)atomic_load(&racer))->request) == 0);
    grey_blocking_call(stay, NULL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void hold_silently(void)
{
    struct cell *list = cells_new(LENGTH);
    sigset_t set;
    sigfillset(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    atomic_store(&holding, true);
    stage_await(5); /* no poll: the cycle waits for this one */
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    cells_check(list, LENGTH);
    stage_await(6);
    cells_check(list, LENGTH);
}

static void counted_once(void **unused)
{
    (void)unused;
    hooks_up("clobberfree=1");
    pthread_t first = actor_start(race), second = actor_start(hold_silently);
    while (atomic_load(&racer) == 0 || !atomic_load(&holding))
        usleep(1000);
    HOOKS_CHECK(stage_within(1, PATIENCE_MS));
    int stop = stop_at(OS_HOOK_ANSWER_FOR, (void *)atomic_load(&racer));
    cycle_begin();
    HOOKS_CHECK(stop_reached(stop, PATIENCE_MS));
    stage_set(2);
    HOOKS_CHECK(stage_within(3, PATIENCE_MS));
    stop_release(stop);
    usleep(100000);
    assert_int_equal(cycles_over(), 0); /* the second thread has not answered */
    stage_set(4);
    usleep(50000);
    assert_int_equal(cycles_over(), 0);
    stage_set(5);
    cycle_await(1);
    actor_join(first);
    cycles_run(2);
    stage_set(6);
    actor_join(second);
    hooks_down();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(counted_once)};
    return hooks_main(argc, argv, tests, 1);
}
