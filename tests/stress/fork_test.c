/* tests/stress/fork_test.c -- fork at any moment, from any thread (ER-7, docs/protocol.md 9).
 *
 * Attached threads and threads that never attached fork while others allocate, store and are asked for
 * their stacks by cycles back to back.  The child has one thread and the whole heap as it was: it verifies
 * what it holds, goes on allocating, collects, verifies the heap, may fork again or run another program, and
 * exits with a status that says all was well.  The parent must not notice.
 */
#include "support_stress.h"
#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MUTATORS = 2, FORKERS = 2, STRANGERS = 1, SLOTS = 16, LENGTH = 40, WELL = 42 };

GREY_ROOT(struct node *[SLOTS], slots);
static uint64_t deadline;
static _Atomic uint64_t forks;

#if STRESS_TSAN
/* It would refuse threads in a child that has been made of many. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) { return "die_after_fork=0"; }
#endif

static uint64_t own_random(void)
{
    static _Atomic uint64_t number;
    return stress_seed() + atomic_fetch_add(&number, 1) * 104729;
}

static int wait_for(void *arg)
{
    int status = 0;
    STRESS_CHECK(waitpid(*(const pid_t *)arg, &status, 0) == *(const pid_t *)arg, "no such child");
    return status;
}

/* held: what the forking thread holds on its stack, or NULL.  The exit status. */
static int live_as_child(uint64_t random, const struct node *held, int depth)
{
    alarm(60); /* a child that hangs must not outlive the test */
    STRESS_CHECK(held == NULL || list_check(held) == LENGTH, "a list became shorter");
    for (int i = 0; i < SLOTS; i++) {
        list_check(slots[i]);
        grey_store(&slots[i], list_new(&random, LENGTH, 1));
    }
    if (stress_below(&random, 2) == 0)
        grey_collect();
    struct node *own = list_new(&random, 1000, 1);
    grey_collect();
    STRESS_CHECK(list_check(own) == 1000, "a list became shorter");
    STRESS_CHECK(held == NULL || list_check(held) == LENGTH, "a list became shorter");
    for (int i = 0; i < SLOTS; i++)
        STRESS_CHECK(list_check(slots[i]) == LENGTH, "a list became shorter");
    STRESS_CHECK(grey_verify(2) == 0, "the child's heap does not verify");
    if (depth < 2) {
        pid_t child = fork();
        STRESS_CHECK(child >= 0, "no fork");
        if (child == 0)
            _exit(live_as_child(random, held, depth + 1));
        int status = wait_for(&child);
        STRESS_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == WELL, "a grandchild ended with %#x",
                     (unsigned)status);
    }
    if (stress_below(&random, 4) == 0) {
        execl("/bin/sh", "sh", "-c", "exit 42", (char *)NULL);
        STRESS_CHECK(false, "no exec");
    }
    return WELL;
}

static void fork_once(uint64_t *random, const struct node *held)
{
    for (uint64_t until = stress_now() + stress_below(random, 2000000); stress_now() < until;)
        ;
    pid_t child = fork();
    STRESS_CHECK(child >= 0, "no fork");
    if (child == 0)
        _exit(live_as_child(stress_random(random), held, (int)stress_below(random, 2) + 1));
    int status = held != NULL ? grey_blocking_call(wait_for, &child) : wait_for(&child);
    STRESS_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == WELL, "a child ended with %#x",
                 (unsigned)status);
    atomic_fetch_add(&forks, 1);
}

static void *mutate(void *unused)
{
    (void)unused;
    uint64_t random = own_random();
    while (stress_now() < deadline) {
        struct node *list = list_new(&random, LENGTH, 1);
        list_check(grey_exchange(&slots[stress_below(&random, SLOTS)], list));
        tree_check(tree_new(&random, 6, 1));
    }
    return NULL;
}

static void *fork_attached(void *unused)
{
    (void)unused;
    uint64_t random = own_random();
    while (stress_now() < deadline) {
        struct node *list = list_new(&random, LENGTH, 1);
        fork_once(&random, list);
        STRESS_CHECK(list_check(list) == LENGTH, "a list became shorter");
    }
    return NULL;
}

static void *fork_unattached(void *unused)
{
    (void)unused;
    uint64_t random = own_random();
    while (stress_now() < deadline)
        fork_once(&random, NULL);
    return NULL;
}

static void test_fork(void **state)
{
    (void)state;
#if OS_ASAN
    /* gcc 12's runtime doesn't take its allocator's lock over a fork: a child that was made while another
     * thread held it waits for ever in the runtime's calloc (seen, with both threads' stacks). */
    skip();
#endif
    pthread_t threads[MUTATORS + FORKERS + STRANGERS];
    deadline = stress_deadline(1);
    stress_cycles_start();
    for (int i = 0; i < MUTATORS + FORKERS; i++)
        assert_int_equal(grey_thread_create(&threads[i], NULL, i < MUTATORS ? mutate : fork_attached, NULL),
                         0);
    for (int i = MUTATORS + FORKERS; i < MUTATORS + FORKERS + STRANGERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, fork_unattached, NULL), 0);
    for (int i = 0; i < MUTATORS + FORKERS + STRANGERS; i++)
        assert_int_equal(grey_thread_join(threads[i], NULL), 0);
    uint64_t cycles = stress_cycles_stop();
    for (int i = 0; i < SLOTS; i++)
        list_check(slots[i]);
    assert_int_equal(grey_verify(2), 0);
    fprintf(stderr, "%llu forks, %llu cycles\n", (unsigned long long)forks, (unsigned long long)cycles);
    assert_true(forks > 0 && cycles > 0);
}

int main(void)
{
    stress_seed();
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fork)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
