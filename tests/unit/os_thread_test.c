/* tests/unit/os_thread_test.c -- lock ranks, sleeping, counters, the fork gate, planted faults.
 *
 * Requirements: TR-7 (figures that never go back), TR-15 (hooks), ER-7 and protocol.md 2.1 (the gate).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support_os.h"

#include "os/events.h"
#include "os/os.h"
#include "os/thread.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MILLISECOND = 1000000 };

/* ---- locks ------------------------------------------------------------------------------------------ */

static struct os_lock low = OS_LOCK_INIT(OS_RANK_THREADS), high = OS_LOCK_INIT(OS_RANK_PAGES);

static void *try_high(void *arg)
{
    *(bool *)arg = os_trylock(&high);
    if (*(bool *)arg)
        os_unlock(&high);
    return NULL;
}

static bool another_gets_high(void)
{
    pthread_t thread;
    bool got;
    assert_int_equal(pthread_create(&thread, NULL, try_high, &got), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    return got;
}

static void locks_exclude(void **state)
{
    (void)state;
    assert_true(another_gets_high());
    os_lock(&low);
    os_lock(&high);
    assert_false(another_gets_high());
    assert_true(os_lock_held(&high));
    os_unlock(&high);
    assert_true(another_gets_high());
    os_unlock(&low);
    assert_false(os_lock_held_any());
}

/* In the child of a fork: a lock that was taken is free again, and no longer held. */
static void init_frees(void **state)
{
    (void)state;
    os_lock(&high);
    os_lock_init(&high, OS_RANK_PAGES);
    assert_false(os_lock_held_any());
    assert_true(another_gets_high());
}

#ifdef GREY_ASSERTS
static struct os_lock high_too = OS_LOCK_INIT(OS_RANK_PAGES);

static void misuse_locks(void *arg)
{
    switch (*(const int *)arg) {
    case 0:
        os_lock(&high), os_lock(&low);
        break;
    case 1:
        os_lock(&high), os_lock(&high_too);
        break;
    case 2:
        os_lock(&high), os_lock(&high);
        break;
    case 3:
        os_unlock(&high);
        break;
    case 4:
        (void)(os_trylock(&high) && (os_lock(&low), true));
        break;
    }
}

static void wrong_order_dies(void **state)
{
    static const char *const messages[] = {"taken while holding", "taken while holding", "taken twice",
                                           "does not hold it", "taken while holding"};
    (void)state;
    for (int i = 0; i < 5; i++)
        assert_dies(misuse_locks, &i, messages[i]);
    os_lock(&high); /* a try cannot deadlock, so it may go down */
    assert_true(os_trylock(&low));
    assert_true(os_lock_held_any());
    os_unlock(&high); /* in any order */
    os_unlock(&low);
    assert_false(os_lock_held_any());
}
#endif

/* ---- time ------------------------------------------------------------------------------------------- */

static void clocks_go_forward(void **state)
{
    (void)state;
    errno = 1234;
    uint64_t wall = os_now(), cpu = os_thread_cpu(), process = os_process_cpu();
    while (os_thread_cpu() - cpu < 5 * MILLISECOND)
        ;
    assert_true(os_now() - wall >= 5 * MILLISECOND);
    assert_true(os_process_cpu() - process >= 4 * MILLISECOND);
    cpu = os_thread_cpu();
    wall = os_now();
    usleep(20000);
    assert_true(os_now() - wall >= 20 * MILLISECOND);
    assert_true(os_thread_cpu() - cpu < 15 * MILLISECOND); /* sleeping costs none */
    assert_int_equal(errno, 1234);
}

static _Atomic uint32_t word;

static void *change_and_wake(void *arg)
{
    (void)arg;
    usleep(20000);
    atomic_store(&word, 8);
    os_wake(&word, INT_MAX);
    return NULL;
}

static void wait_ends(void **state)
{
    pthread_t thread;
    (void)state;
    atomic_store(&word, 7);
    errno = 1234;
    uint64_t start = os_now();
    os_wait(&word, 6, UINT64_MAX); /* it isn't 6: at once */
    os_wait(&word, 7, 10 * MILLISECOND);
    assert_true(os_now() - start < (uint64_t)10000 * MILLISECOND);
    assert_true(os_now() - start >= 9 * MILLISECOND);
    assert_int_equal(errno, 1234);
    assert_int_equal(pthread_create(&thread, NULL, change_and_wake, NULL), 0);
    while (atomic_load(&word) == 7)
        os_wait(&word, 7, UINT64_MAX);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

/* Spins and yields first, then sleeps: a thousand steps take their time but little of the processor's. */
static void pause_ends_up_sleeping(void **state)
{
    unsigned n = 0;
    (void)state;
    errno = 1234;
    for (int i = 0; i < 100; i++)
        os_pause(&n);
    uint64_t start = os_now();
    for (int i = 0; i < 200; i++)
        os_pause(&n);
    assert_true(os_now() - start >= 200 * 50000);
    assert_int_equal(errno, 1234);
}

/* A thread of ours gives way, and stays as nice as it was; where the program chose a policy it keeps that. */
struct way {
    int before, asked, after;                   /* nice */
    int policy, nice, at_batch, at_idle, error; /* what came of it */
};
static void *give_way(void *arg)
{
    struct sched_param none = {0};
    struct way *way = arg;
    setpriority(PRIO_PROCESS, 0, way->before);
    errno = E2BIG;
    os_give_way(way->asked);
    way->error = errno;
    way->policy = sched_getscheduler(0);
    way->nice = getpriority(PRIO_PROCESS, 0);
    os_give_way(19);
    way->at_batch = getpriority(PRIO_PROCESS, 0);
    sched_setscheduler(0, SCHED_IDLE, &none);
    os_give_way(19);
    way->at_idle = sched_getscheduler(0);
    return NULL;
}

static void threads_of_ours_give_way(void **state)
{
    (void)state;
    int now = getpriority(PRIO_PROCESS, 0);
    if (sched_getscheduler(0) != SCHED_OTHER || now > 10)
        skip();
    struct way ways[] = {
        {now, now, now, 0, 0, 0, 0, 0}, {now, 19, 19, 0, 0, 0, 0, 0}, {now + 5, now, now + 5, 0, 0, 0, 0, 0}};
    for (int i = 0; i < 3; i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, give_way, &ways[i]), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(ways[i].error, E2BIG);
        assert_int_equal(ways[i].nice, ways[i].after);
        assert_int_equal(ways[i].at_batch, 19);
        assert_int_equal(ways[i].at_idle, SCHED_IDLE);
        if (syscall(SYS_sched_setattr, 0, NULL, 0) == -1 && errno == EINVAL) /* it is there */
            assert_int_equal(ways[i].policy, SCHED_BATCH);
    }
}

/* ---- counters --------------------------------------------------------------------------------------- */

enum { THREADS = 4, COUNTS = 100000 };

static struct thread blocks[THREADS + 1];
static atomic_bool counting;

static void publish(struct thread *block)
{
    block->next_block = atomic_load(&thread_blocks);
    atomic_store(&thread_blocks, block);
}

static void *count_up(void *arg)
{
    grey_tls_.thread = arg; /* NULL: not attached */
    for (int i = 0; i < COUNTS; i++)
        os_count(OS_COUNT_shades, 3);
    return NULL;
}

static void *watch(void *arg)
{
    uint64_t last = 0;
    while (atomic_load(&counting)) {
        uint64_t now = os_counter_read(OS_COUNT_shades);
        if (now < last)
            *(bool *)arg = true;
        last = now;
    }
    return NULL;
}

static void counters_add_up_and_never_fall(void **state)
{
    pthread_t threads[2 * THREADS], watcher;
    bool fell = false;
    (void)state;
    uint64_t before = os_counter_read(OS_COUNT_shades), other = os_counter_read(OS_COUNT_rounds);
    atomic_store(&counting, true);
    assert_int_equal(pthread_create(&watcher, NULL, watch, &fell), 0);
    for (int i = 0; i < THREADS; i++) {
        publish(&blocks[i]);
        assert_int_equal(pthread_create(&threads[2 * i], NULL, count_up, &blocks[i]), 0);
        assert_int_equal(pthread_create(&threads[2 * i + 1], NULL, count_up, NULL), 0);
    }
    for (int i = 0; i < 2 * THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    atomic_store(&counting, false);
    assert_int_equal(pthread_join(watcher, NULL), 0);
    assert_false(fell);
    assert_int_equal(os_counter_read(OS_COUNT_shades) - before, (uint64_t)3 * 2 * THREADS * COUNTS);
    assert_int_equal(os_counter_read(OS_COUNT_rounds), other);
}

/* ---- the fork gate ---------------------------------------------------------------------------------- */

static atomic_bool entered;

static void *enter_and_leave(void *arg)
{
    struct thread *self = arg;
    grey_tls_.thread = self;
    thread_enter(self);
    atomic_store(&entered, true);
    thread_leave(self);
    return NULL;
}

/* While the gate is closed nobody is inside a section, requests are answered when it opens at the latest,
 * and nobody waits on after that. */
static void gate_keeps_sections_empty(void **state)
{
    struct thread *self = &blocks[THREADS];
    pthread_t thread;
    (void)state;
    for (int with_request = 0; with_request < 2; with_request++) {
        unsigned polls = atomic_load(&support_polls);
        atomic_store(&entered, false);
        atomic_store(&self->request, with_request);
        atomic_store(&thread_fork_gate, 1);
        uint32_t before = atomic_load(&self->busy);
        assert_int_equal(pthread_create(&thread, NULL, enter_and_leave, self), 0);
        /* in and out again, with a request twice: the poll meets the gate too */
        uint32_t steps = with_request ? 4 : 2;
        uint64_t limit = os_now() + (uint64_t)10000 * MILLISECOND;
        while (atomic_load(&self->busy) - before < steps && os_now() < limit)
            os_yield();
        usleep(20000);
        assert_false(atomic_load(&entered));
        assert_int_equal(atomic_load(&self->busy) - before, steps);
        assert_false(thread_busy(self)); /* waits outside */
        atomic_store(&thread_fork_gate, 0);
        os_wake(&thread_fork_gate, INT_MAX);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_true(atomic_load(&entered));
        assert_false(thread_busy(self));
        assert_int_equal(atomic_load(&self->request), 0);
        assert_int_equal(atomic_load(&support_polls) - polls, with_request);
    }
}

/* ---- events and planted faults ------------------------------------------------------------------------ */

static void events_do_nothing_at_first(void **state)
{
    struct os_cycle_event event = {.number = 1};
    (void)state;
    os_events.pause(OS_PAUSE_hold, 1, 1);
    os_events.cycle(&event);
    assert_int_equal(event.number, 1);
}

#ifdef GREY_HOOKS
static _Atomic unsigned hooked;

static void hook(enum os_hook point, const void *what)
{
    if (point == OS_HOOK_ROOTS && what == &hooked)
        hooked++;
}

static void hooks_are_called(void **state)
{
    (void)state;
    HOOK(ROOTS, &hooked);
    assert_int_equal(hooked, 0);
    atomic_store(&os_hook_function, hook);
    HOOK(ROOTS, &hooked);
    HOOK(FINISH, &hooked);
    atomic_store(&os_hook_function, NULL);
    HOOK(ROOTS, &hooked);
    assert_int_equal(hooked, 1);
}

/* What a program started with GREY_FAULT has planted: bit i for fault i. */
static int planted(void)
{
    int bits = 0;
    for (int i = 0; i < OS_FAULT_COUNT; i++)
        bits |= atomic_load(&os_fault_on[i]) << i;
    return bits;
}

static void start_with_faults(void *arg)
{
    char *arguments[] = {(char[]){"os_thread_test"}, (char[]){"planted"}, NULL};
    char *variables[] = {arg, NULL};
    execve("/proc/self/exe", arguments, variables);
    _exit(99);
}

static void faults_from_the_environment(void **state)
{
    (void)state;
    assert_string_equal(os_fault_name[OS_FAULT_EARLY_SWEEP], "EARLY_SWEEP");
    assert_int_equal(run_child(start_with_faults, (char[]){"GREY_FAULT="})->status, 0);
    assert_int_equal(run_child(start_with_faults, (char[]){"GREY_FAULT=NO_DIRTY"})->status,
                     1 << OS_FAULT_NO_DIRTY);
    char list[] = "GREY_FAULT=NO_REST,NO_DIRTY,EARLY_SWEEP,";
    assert_int_equal(run_child(start_with_faults, list)->status,
                     1 << OS_FAULT_NO_DIRTY | 1 << OS_FAULT_EARLY_SWEEP | 1 << OS_FAULT_NO_REST);
    assert_dies(start_with_faults, (char[]){"GREY_FAULT=NO_DIRTYX"}, "unknown fault in \"NO_DIRTYX\"");
}
#endif

int main(int n, char **arguments)
{
#ifdef GREY_HOOKS
    if (n == 2 && strcmp(arguments[1], "planted") == 0)
        return planted();
#else
    (void)n, (void)arguments;
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(locks_exclude),
        cmocka_unit_test(init_frees),
#ifdef GREY_ASSERTS
        cmocka_unit_test(wrong_order_dies),
#endif
        cmocka_unit_test(clocks_go_forward),
        cmocka_unit_test(wait_ends),
        cmocka_unit_test(pause_ends_up_sleeping),
        cmocka_unit_test(threads_of_ours_give_way),
        cmocka_unit_test(counters_add_up_and_never_fall),
        cmocka_unit_test(gate_keeps_sections_empty),
        cmocka_unit_test(events_do_nothing_at_first),
#ifdef GREY_HOOKS
        cmocka_unit_test(hooks_are_called),
        cmocka_unit_test(faults_from_the_environment),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
