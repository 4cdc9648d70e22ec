/* tests/stress/thread_churn_test.c -- threads come and go in mid-cycle (2.5, 2.6; ER-1, ER-5, BA-7).
 *
 * A new thread must find its argument alive though nobody but its record holds it; its result must live
 * until it is joined; what a thread shaded must not be forgotten when it ends with a grey buffer that is not
 * empty; a thread in a blocking region is answered for; a thread that attaches for a moment leaves nothing
 * behind but what it stored.  All of it runs a second time with grey buffers of 9 entries.
 */
#include "support_stress.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { WORKERS = 4, SLOTS = 16, PARTS = 10 };

GREY_ROOT(struct node *[SLOTS], slots);
static uint64_t deadline;

static uint64_t own_random(void)
{
    static _Atomic uint64_t number;
    return stress_seed() + atomic_fetch_add(&number, 1) * 104729;
}

static void start_workers(void *(*work)(void *))
{
    pthread_t threads[WORKERS];
    deadline = stress_deadline(PARTS);
    stress_cycles_start();
    for (int i = 0; i < WORKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, NULL), 0);
    for (int i = 0; i < WORKERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_true(stress_cycles_stop() > 0);
    for (int i = 0; i < SLOTS; i++)
        list_check(slots[i]);
    assert_int_equal(grey_verify(2), 0);
}

/* ---- arguments and results ----------------------------------------------------------------------------- */

/* One node longer each generation; 0 is joined by its creator, and so on. */
static void *descend(void *arg)
{
    uint64_t random = own_random();
    struct node *list = arg;
    size_t length = list_check(list);
    struct node *node = node_new(&random, 1);
    node_link(node, 0, list);
    if (length > 3)
        return node;
    pthread_t child;
    void *result = NULL;
    STRESS_CHECK(grey_thread_create(&child, NULL, descend, node) == 0, "no thread");
    node = NULL;
    list = NULL;
    STRESS_CHECK(grey_thread_join(child, &result) == 0, "no join");
    STRESS_CHECK(list_check(result) > length + 1, "a result of %zu nodes", list_check(result));
    return result;
}

static void *create_and_join(void *unused)
{
    (void)unused;
    uint64_t random = own_random();
    while (stress_now() < deadline) {
        pthread_t thread;
        void *result = NULL;
        STRESS_CHECK(grey_thread_create(&thread, NULL, descend, list_new(&random, 1, 1)) == 0, "no thread");
        STRESS_CHECK(grey_thread_join(thread, &result) == 0, "no join");
        STRESS_CHECK(list_check(result) == 5, "a result of %zu nodes", list_check(result));
    }
    return NULL;
}

static void test_arguments_and_results(void **state)
{
    (void)state;
    start_workers(create_and_join);
}

/* ---- detached threads ---------------------------------------------------------------------------------- */

static _Atomic int detached_now;

static void *leave_something(void *arg)
{
    uint64_t random = own_random();
    list_check(arg);
    list_check(grey_exchange(&slots[stress_below(&random, SLOTS)], (struct node *)arg));
    atomic_fetch_sub(&detached_now, 1);
    return arg;
}

static void *create_detached(void *unused)
{
    (void)unused;
    uint64_t random = own_random();
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    while (stress_now() < deadline) {
        pthread_t thread;
        if (atomic_fetch_add(&detached_now, 1) > 20) {
            atomic_fetch_sub(&detached_now, 1);
            grey_safepoint();
            continue;
        }
        STRESS_CHECK(grey_thread_create(&thread, &detached, leave_something, list_new(&random, 30, 1)) == 0,
                     "no thread");
    }
    pthread_attr_destroy(&detached);
    return NULL;
}

static void test_detached(void **state)
{
    (void)state;
    start_workers(create_detached);
    while (atomic_load(&detached_now) != 0)
        grey_safepoint();
}

/* ---- attach and detach --------------------------------------------------------------------------------- */

static void *attach_and_detach(void *unused)
{
    (void)unused;
    uint64_t random = own_random();
    while (stress_now() < deadline) {
        STRESS_CHECK(grey_thread_attach() == 0, "cannot attach");
        struct node *list = list_new(&random, 20, 1);
        struct node *old = grey_exchange(&slots[stress_below(&random, SLOTS)], list);
        list_check(old);
        list_check(list);
        STRESS_CHECK(grey_thread_detach() == 0, "cannot detach");
    }
    return NULL;
}

static void test_attach_and_detach(void **state)
{
    (void)state;
    start_workers(attach_and_detach);
}

/* ---- ends with a full grey buffer ---------------------------------------------------------------------- */

/* Many white objects are shaded, and the thread is gone before any round asked it. */
static void *shade_and_leave(void *arg)
{
    uint64_t random = own_random();
    struct node *top = arg; /* a list, which becomes the lists below one node each */
    struct node *kept[NODE_EDGES * 2] = {NULL};
    for (int i = 0; i < NODE_EDGES * 2; i++)
        kept[i] = list_new(&random, 30, 1);
    for (int i = 0; i < NODE_EDGES * 2; i++) {
        struct node *holder = node_new(&random, 2);
        node_link(holder, 1, kept[i]);
        node_link(holder, 0, top);
        top = holder;
    }
    list_check(grey_exchange(&slots[stress_below(&random, SLOTS)], top));
    return NULL;
}

static void *create_shaders(void *unused)
{
    (void)unused;
    uint64_t random = own_random();
    while (stress_now() < deadline) {
        pthread_t thread;
        STRESS_CHECK(grey_thread_create(&thread, NULL, shade_and_leave, list_new(&random, 10, 1)) == 0,
                     "no thread");
        STRESS_CHECK(grey_thread_join(thread, NULL) == 0, "no join");
        struct node *at = __atomic_load_n(&slots[stress_below(&random, SLOTS)], __ATOMIC_ACQUIRE);
        for (; at != NULL; at = node_follow(at, 0))
            if (at->tag == 2)
                STRESS_CHECK(list_check(node_follow(at, 1)) == 30, "a list became shorter");
    }
    return NULL;
}

static void test_grey_buffers_at_exit(void **state)
{
    (void)state;
    start_workers(create_shaders);
}

/* ---- blocking regions ---------------------------------------------------------------------------------- */

static int sleep_a_little(void *arg)
{
    struct timespec time = {0, *(const long *)arg};
    nanosleep(&time, NULL);
    return 7;
}

static int nested(void *arg) { return grey_blocking_call(sleep_a_little, arg); }

static void *block_and_look(void *unused)
{
    (void)unused;
    uint64_t random = own_random();
    while (stress_now() < deadline) {
        struct node *list = list_new(&random, 30, 1);
        long ns = (long)stress_below(&random, 300000);
        int (*const calls[])(void *) = {sleep_a_little, nested};
        STRESS_CHECK(grey_blocking_call(calls[stress_below(&random, 2)], &ns) == 7, "another result");
        STRESS_CHECK(list_check(list) == 30, "a list became shorter");
        /* Stored while others may be answering for a blocked thread. */
        list_check(grey_exchange(&slots[stress_below(&random, SLOTS)], list));
    }
    return NULL;
}

static void test_blocking_regions(void **state)
{
    (void)state;
    start_workers(block_and_look);
}

/* ---- again with small buffers -------------------------------------------------------------------------- */

static void restart_with_small_buffers(void **state)
{
    (void)state;
    static char debug[512];
    const char *environment = getenv("GREY_DEBUG");
    snprintf(debug, sizeof(debug), "%s%ssmallwbbuf=1", environment != NULL ? environment : "",
             environment != NULL ? "," : "");
    for (int i = 0; i < SLOTS; i++)
        slots[i] = NULL;
    grey_shutdown();
    struct grey_options options = GREY_OPTIONS_INIT;
    options.debug = debug;
    assert_int_equal(grey_init(&options), 0);
}

int main(void)
{
    stress_seed();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arguments_and_results), cmocka_unit_test(test_detached),
        cmocka_unit_test(test_attach_and_detach),     cmocka_unit_test(test_grey_buffers_at_exit),
        cmocka_unit_test(test_blocking_regions),      cmocka_unit_test(restart_with_small_buffers),
        cmocka_unit_test(test_arguments_and_results), cmocka_unit_test(test_detached),
        cmocka_unit_test(test_attach_and_detach),     cmocka_unit_test(test_grey_buffers_at_exit),
        cmocka_unit_test(test_blocking_regions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
