/* tests/stress/foreign_fork_test.c -- forks while foreign regions come and go (ER-7).
 *
 * The child finds what the forking thread holds and what the threads shared, in whatever phase of a cycle,
 * which is abandoned; adds regions of its own, of which one dies and one is kept; releases one of the
 * parent's.  The parent must not notice.
 */
#include "support_regions.h"
#include "support_foreign.h"
#include "support_stress.h"

#include "os/os.h" /* OS_ASAN */

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WELL = 42 };
static struct region of_the_child, held_by_the_child;
static uint64_t forks;
GREY_ROOT(void *, root);

static void make_of_the_child(void)
{
    region_new(&of_the_child, 5000, GREY_FOREIGN_SCAN);
    region_new(&held_by_the_child, 5000, 0);
    grey_store(&root, region_start(&held_by_the_child));
}

static int live_as_child(void *held, grey_foreign handle)
{
    alarm(60); /* a child that hangs must not outlive the test */
    regions_check(held);
    regions_check_shared();
    region_thread(make_of_the_child);
    region_settle();
    uint64_t random = forks;
    for (int i = 0; i < 500; i++) /* what was freed too early is used again */
        STRESS_CHECK(list_check(list_new(&random, 50, 1)) == 50, "a list became shorter");
    regions_check(held);
    STRESS_CHECK(atomic_load(&of_the_child.died) == 1, "a region of the child's does not die");
    STRESS_CHECK(atomic_load(&held_by_the_child.died) == 0, "a region of the child's dies");
    STRESS_CHECK(grey_foreign_release(held_by_the_child.handle), "no release in the child");
    STRESS_CHECK(grey_foreign_release(handle) && !grey_foreign_release(handle), "no release in the child");
    STRESS_CHECK(!grey_foreign_find(held, NULL, NULL), "a released region is found");
    STRESS_CHECK(grey_verify(2) == 0, "the child's heap does not verify");
    return WELL;
}

static int wait_for(void *arg)
{
    int status = 0;
    STRESS_CHECK(waitpid(*(const pid_t *)arg, &status, 0) == *(const pid_t *)arg, "no such child");
    return status;
}

static void *fork_often(void *arg)
{
    uint64_t random = stress_seed() * 3, deadline = *(uint64_t *)arg;
    while (stress_now() < deadline) {
        grey_foreign handle = 0;
        void *held = regions_new(&random, &handle);
        if (held == NULL)
            continue;
        for (uint64_t until = stress_now() + stress_below(&random, 2000000); stress_now() < until;)
            ;
        pid_t child = fork();
        STRESS_CHECK(child >= 0, "no fork");
        if (child == 0) {
            regions_in_child();
            _exit(live_as_child(held, handle));
        }
        int status = grey_blocking_call(wait_for, &child);
        STRESS_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == WELL, "a child ended with %#x",
                     (unsigned)status);
        regions_check(held);
        forks++;
    }
    return NULL;
}

static void test_forks(void **unused)
{
    (void)unused;
#if OS_ASAN || STRESS_TSAN
    /* ASan: fork_test.c says why.  TSan: the child makes many threads, some with the ids of threads that the
     * runtime thinks are there still ("dup thread with used id"). */
    skip();
#endif
    pthread_t forker;
    uint64_t deadline = regions_start();
    assert_int_equal(grey_thread_create(&forker, NULL, fork_often, &deadline), 0);
    assert_int_equal(grey_thread_join(forker, NULL), 0);
    regions_end();
    fprintf(stderr, "%llu forks\n", (unsigned long long)forks);
    assert_true(forks > 0);
}

int main(void)
{
    stress_seed();
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_forks)};
    return cmocka_run_group_tests_name("foreign regions and forks", tests, NULL, NULL);
}
