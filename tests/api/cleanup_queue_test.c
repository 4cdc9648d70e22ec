/* tests/api/cleanup_queue_test.c -- who runs what was queued, when, in which order (CF-9..CF-13, CF-15).
 *
 * The items are this test's own, not those of dying objects, so that it knows when each was queued.  Each
 * test has the library anew, for 16 processors: a pool of 4.  Programs
 * that run everything themselves: cleanup_descriptor_test.c; forks: cleanup_fork_test.c.
 *
 * Requirements: CF-9 (threads, grey_cleanup_run), CF-11, CF-13, CF-15, FR-29, FR-31, FR-34, ER-6.
 */
#include "support_queue.h"
#include "support_child.h"
#include "support_heap.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const int64_t second = 1000000000;

/* ---- Grey's own threads ------------------------------------------------------------------------------- */

static _Atomic int own_cleanups, own_finalizers;

static void look_at_thread(struct item *item)
{
    char name[16] = "";
    sigset_t blocked;
    (void)item;
    pthread_getname_np(pthread_self(), name, sizeof(name));
    own_cleanups += strcmp(name, "grey-cleanup") == 0;
    own_finalizers += strcmp(name, "grey-final") == 0;
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    wrong += !sigismember(&blocked, SIGINT) || !sigismember(&blocked, SIGALRM) ||
             sigismember(&blocked, SIGRTMIN + 2) || sigismember(&blocked, SIGSEGV);
}

static void own_threads(void **unused)
{
    (void)unused;
    enum { N = 500 };
    static struct item cleanups[N], finalizers[N];
    memset(cleanups, 0, sizeof(cleanups));
    memset(finalizers, 0, sizeof(finalizers));
    own_cleanups = own_finalizers = 0;
    for (int i = 0; i < N; i++)
        cleanups[i].fn = finalizers[i].fn = look_at_thread;
    queue_start();
    put_all(cleanups, N, false);
    put_all(finalizers, N, true);
    assert_true(grey_cleanup_wait(-1));
    assert_int_equal(count_done(cleanups, N), N);
    assert_int_equal(count_done(finalizers, N), N);
    assert_int_equal(own_cleanups, N);
    assert_int_equal(own_finalizers, N);
    assert_int_equal(cleanups_queued(), 2 * N);
    assert_int_equal(cleanups_run(), 2 * N);
    for (int i = 1; i < N; i++) { /* CF-15: one after the other, in sequence */
        assert_true(finalizers[i].order > finalizers[i - 1].order);
        assert_true(pthread_equal(finalizers[i].thread, finalizers[0].thread));
    }
}

/* CF-9: on first use, a quarter of the processors and one; idle ones are in regions, so that cycles don't
 * wait for them. */
static void start_on_first_use(void **unused)
{
    (void)unused;
    assert_int_equal(heap_figures().threads, 1);
    assert_int_equal(cleanups_start(false), 0);
    UNTIL(heap_figures().threads == 1 + POOL);
    assert_int_equal(cleanups_start(true), 0);
    UNTIL(heap_figures().threads == 1 + POOL + 1);
    for (int i = 0; i < 10; i++)
        queue_start();
    UNTIL(queue_blocked() == POOL + 1);
    for (int i = 0; i < 10; i++)
        grey_collect();
    UNTIL(queue_blocked() == POOL + 1);
    assert_int_equal(heap_figures().threads, 1 + POOL + 1);
    grey_shutdown();
    struct grey_options options = GREY_OPTIONS_INIT;
    options.processors = 2;
    assert_int_equal(grey_init(&options), 0);
    queue_start();
    UNTIL(heap_figures().threads == 1 + 2);
}

/* Everything that waits is run without grey_cleanup_wait: 20 by themselves, fewer after a flush; and what a
 * thread outside a cycle queues, at once. */
static void somebody_wakes(void **unused)
{
    (void)unused;
    static struct item items[60];
    memset(items, 0, sizeof(items));
    queue_start();
    put_all(items, 20, false);
    UNTIL(count_done(items, 20) == 20);
    put_all(items + 20, 20, true);
    UNTIL(count_done(items, 40) == 40);
    put_all(items + 40, 10, false);
    put_all(items + 50, 10, true);
    cleanups_flush();
    UNTIL(count_done(items, 60) == 60);
}

static void *put_unattached(void *items)
{
    put_all(items, 3, false);
    return NULL;
}

/* Few items of a collector thread that has not flushed yet: who waits wakes somebody. */
static void waiting_wakes(void **unused)
{
    (void)unused;
    static struct item items[3];
    memset(items, 0, sizeof(items));
    queue_start();
    UNTIL(queue_blocked() == POOL + 1);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, put_unattached, items), 0);
    pthread_join(thread, NULL);
    assert_true(grey_cleanup_wait(20 * second));
    assert_int_equal(count_done(items, 3), 3);
}

static void *help_with_one(void *unused)
{
    wrong += grey_cleanup_run(1) != 1;
    return unused;
}

/* While another thread runs a finalizer, Grey's thread finds it can have none; afterwards it is told. */
static void helper_hands_over(void **unused)
{
    (void)unused;
    static struct item items[2];
    memset(items, 0, sizeof(items));
    items[0].fn = stay;
    put(&items[0], true);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, help_with_one, NULL), 0);
    UNTIL(at_gate == 1);
    queue_start();
    put(&items[1], true);
    UNTIL(queue_blocked() == POOL + 1);
    usleep(20000); /* the bell is heard */
    assert_int_equal(items[1].ran, 0);
    gate = 1;
    UNTIL(items[1].done);
    pthread_join(thread, NULL);
}

static void stuck(void **unused)
{
    (void)unused;
    static struct item stuck_ones[POOL], items[100], finalizer;
    memset(stuck_ones, 0, sizeof(stuck_ones));
    memset(items, 0, sizeof(items));
    memset(&finalizer, 0, sizeof(finalizer));
    queue_start();
    for (int i = 0; i < POOL - 1; i++) {
        stuck_ones[i].fn = stay;
        put(&stuck_ones[i], false);
    }
    cleanups_flush();
    UNTIL(at_gate == POOL - 1);
    put_all(items, 50, false);
    put(&finalizer, true);
    cleanups_flush();
    UNTIL(count_done(items, 50) == 50 && finalizer.done); /* others go on */
    stuck_ones[POOL - 1].fn = stay;
    put(&stuck_ones[POOL - 1], false);
    cleanups_flush();
    UNTIL(at_gate == POOL);
    grey_collect(); /* nor does the collector wait */
    put_all(items + 50, 50, false);
    assert_int_equal(grey_cleanup_run(1000), 50); /* and the program may help */
    assert_false(grey_cleanup_wait(0));
    gate = 1;
    assert_true(grey_cleanup_wait(-1));
    assert_int_equal(count_done(stuck_ones, POOL), POOL);
}

/* ---- waiting ------------------------------------------------------------------------------------------- */

/* CF-13: all that was queued before the call counts, whoever runs it and in whatever order. */
static void wait_for_earlier(void **unused)
{
    (void)unused;
    static struct item first, then;
    memset(&first, 0, sizeof(first));
    memset(&then, 0, sizeof(then));
    assert_true(grey_cleanup_wait(0)); /* nothing was queued */
    assert_true(grey_cleanup_wait(-1));
    queue_start();
    first.fn = stay;
    put(&first, true);
    put(&then, false);
    cleanups_flush();
    UNTIL(then.done && at_gate == 1);
    assert_false(grey_cleanup_wait(0));
    uint64_t begin = os_now();
    assert_false(grey_cleanup_wait(30000000));
    assert_true(os_now() - begin >= 30000000);
    gate = 1;
    assert_true(grey_cleanup_wait(20 * second));
    assert_int_equal(first.done, 1);
}

static _Atomic int second_gate;
static void stay_longer(struct item *item)
{
    (void)item;
    while (!second_gate)
        usleep(200);
}

/* CF-13: what was queued after the call doesn't count, even if it never ends. */
static void wait_ignores_later(void **unused)
{
    (void)unused;
    static struct item first, between, later;
    memset(&first, 0, sizeof(first));
    memset(&between, 0, sizeof(between));
    memset(&later, 0, sizeof(later));
    second_gate = queue_waited = 0;
    queue_start();
    first.fn = stay;
    put(&first, false);
    cleanups_flush();
    UNTIL(at_gate == 1);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, queue_wait, NULL), 0);
    UNTIL(queue_blocked() == POOL - 1 + 1 + 1); /* the pool's idle, the finalizers', the waiter */
    put(&between, false);
    cleanups_flush();
    UNTIL(between.done);
    usleep(20000); /* the waiter hears of it, and goes on waiting */
    assert_int_equal(queue_waited, 0);
    later.fn = stay_longer;
    put(&later, false);
    cleanups_flush();
    UNTIL(later.ran);
    assert_int_equal(queue_waited, 0);
    gate = 1;
    UNTIL(queue_waited == 1);
    assert_int_equal(later.done, 0);
    assert_false(grey_cleanup_wait(0));
    second_gate = 1;
    pthread_join(thread, NULL);
    assert_true(grey_cleanup_wait(-1));
}

static void wait_inside(struct item *item)
{
    uint64_t begin = os_now();
    wrong += grey_cleanup_wait(0) || grey_cleanup_wait(-1) || grey_cleanup_wait(5 * second);
    wrong += os_now() - begin >= 4u * (uint64_t)second;
    (void)item;
}
static void no_wait_inside(void **unused)
{
    (void)unused;
    static struct item items[3];
    memset(items, 0, sizeof(items));
    for (int i = 0; i < 3; i++)
        items[i].fn = wait_inside;
    put(&items[0], false);
    put(&items[1], true);
    assert_true(grey_cleanup_wait(-1)); /* nobody had started the threads */
    put(&items[2], true);
    grey_cleanup_run(1);
    assert_true(grey_cleanup_wait(-1));
    assert_int_equal(count_done(items, 3), 3);
}

/* ---- from within --------------------------------------------------------------------------------------- */

static struct item queued_inside[2];
static void run_more(struct item *item) { item->result = grey_cleanup_run(100); }
static void put_more(struct item *item)
{
    (void)item;
    put(&queued_inside[0], false);
    put(&queued_inside[1], true);
}

static void nested(void **unused)
{
    (void)unused;
    static struct item finalizer, others[4];
    memset(&finalizer, 0, sizeof(finalizer));
    memset(others, 0, sizeof(others));
    memset(queued_inside, 0, sizeof(queued_inside));
    grey_cleanup_fd();
    finalizer.fn = run_more;
    put(&finalizer, true);
    put(&others[0], true);
    put(&others[1], false);
    assert_int_equal(grey_cleanup_run(1), 1);
    assert_int_equal(finalizer.result, 1); /* the cleanup; a finalizer is running */
    assert_true(others[1].done && !others[0].done);
    others[2].fn = run_more;
    put(&others[2], false);
    put(&others[3], false);
    assert_int_equal(grey_cleanup_run(1), 1); /* the finalizer that was left */
    assert_int_equal(grey_cleanup_run(1), 1);
    assert_int_equal(others[2].result, 1);
    assert_int_equal(count_done(others, 4), 4);
    /* What is queued meanwhile is not of this call: it ends. */
    static struct item putting;
    memset(&putting, 0, sizeof(putting));
    putting.fn = put_more;
    put(&putting, false);
    assert_int_equal(grey_cleanup_run(100), 1);
    assert_int_equal(grey_cleanup_run(100), 2);
}

static void *short_thread(void *arg) { return grey_alloc((size_t)arg); }
static void busy_life(struct item *item)
{
    (void)item;
    void **kept = grey_alloc(64);
    grey_store(&kept[0], grey_alloc_leaf(1000));
    memset(kept[0], 7, 1000);
    grey_collect();
    pthread_t thread;
    void *result = NULL;
    wrong += grey_thread_create(&thread, NULL, short_thread, (void *)32) != 0;
    wrong += grey_thread_join(thread, &result) != 0 || result == NULL;
    wrong += ((char *)kept[0])[999] != 7;
    wrong += grey_thread_detach() != 0; /* it is attached again before it goes on */
}

/* CF-11. */
static void cleanups_do_things(void **unused)
{
    (void)unused;
    static struct item items[20];
    memset(items, 0, sizeof(items));
    for (int i = 0; i < 20; i++)
        items[i].fn = busy_life;
    queue_start();
    put_all(items, 10, false);
    put_all(items + 10, 10, true);
    assert_true(grey_cleanup_wait(-1));
    assert_int_equal(count_done(items, 20), 20);
    assert_non_null(thread_self());
}

/* ---- the end ------------------------------------------------------------------------------------------- */

static void *open_soon(void *unused)
{
    usleep(50000);
    gate = 1;
    return unused;
}

/* FR-34: what is queued is dropped, what runs is waited for; and the library comes up again. */
static void shutdown_drops(void **unused)
{
    (void)unused;
    static struct item stuck_ones[POOL], dropped[30], after[30];
    memset(stuck_ones, 0, sizeof(stuck_ones));
    memset(dropped, 0, sizeof(dropped));
    memset(after, 0, sizeof(after));
    queue_start();
    for (int i = 0; i < POOL; i++) {
        stuck_ones[i].fn = stay;
        put(&stuck_ones[i], false);
    }
    cleanups_flush();
    UNTIL(at_gate == POOL);
    put_all(dropped, 30, false);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, open_soon, NULL), 0);
    grey_shutdown();
    pthread_join(thread, NULL);
    assert_int_equal(count_done(stuck_ones, POOL), POOL);
    assert_int_equal(count_done(dropped, 30), 0);
    assert_int_equal(queue_up(NULL), 0);
    assert_int_equal(cleanups_queued(), 0);
    assert_int_equal(cleanups_run(), 0);
    assert_true(grey_cleanup_wait(0));
    queue_start();
    put_all(after, 30, false);
    assert_true(grey_cleanup_wait(-1));
    assert_int_equal(count_done(after, 30), 30);
    assert_int_equal(count_done(dropped, 30), 0);
}

static void shut_down(struct item *item)
{
    (void)item;
    grey_shutdown();
}
static void end_thread(struct item *item)
{
    (void)item;
    pthread_exit(NULL);
}
static void stay_in_region(struct item *item)
{
    (void)item;
    grey_blocking_begin();
}
static void run_fatal(void (*fn)(struct item *item))
{
    static struct item item;
    item.fn = fn;
    CHILD_CHECK(grey_thread_attach() == 0);
    put(&item, false);
    grey_cleanup_wait(-1);
}
static void shutdown_inside(void) { run_fatal(shut_down); }
static void thread_ends_inside(void) { run_fatal(end_thread); }
static void region_left_open(void) { run_fatal(stay_in_region); }

static void misuse(void **unused)
{
    (void)unused;
    child_dies("shutdown_inside", NULL, "grey_shutdown in a cleanup or finalizer");
    child_dies("thread_ends_inside", NULL, "a cleanup or finalizer ended its thread");
    child_dies("region_left_open", NULL, "the return of a cleanup or finalizer in a blocking region");
}

/* ---- all at once --------------------------------------------------------------------------------------- */

enum { MAKERS = 3, MADE = 3000 };
static struct item made[MAKERS][MADE];

static void *make(void *arg)
{
    struct item *items = arg;
    wrong += grey_thread_attach() != 0;
    for (int i = 0; i < MADE; i++) {
        put(&items[i], i % 3 == 0);
        if (i % 100 == 0)
            cleanups_flush();
        if (i % 150 == 0)
            grey_cleanup_run((size_t)i % 7);
        if (i % 700 == 0) {
            wrong += !grey_cleanup_wait(20 * second);
            wrong += count_done(items, i + 1) != i + 1;
        }
    }
    return NULL;
}

static void many_at_once(void **unused)
{
    (void)unused;
    memset(made, 0, sizeof(made));
    queue_start();
    pthread_t threads[MAKERS];
    for (int i = 0; i < MAKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, make, made[i]), 0);
    for (int i = 0; i < 5; i++)
        grey_collect();
    for (int i = 0; i < MAKERS; i++)
        grey_thread_join(threads[i], NULL);
    assert_true(grey_cleanup_wait(-1));
    for (int i = 0; i < MAKERS; i++)
        assert_int_equal(count_done(made[i], MADE), MADE);
    assert_int_equal(cleanups_queued(), MAKERS * MADE);
    assert_int_equal(cleanups_run(), MAKERS * MADE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, queue_up, queue_down)

int main(int argc, char **argv)
{
    static const struct child_case cases[] = {{"shutdown_inside", shutdown_inside},
                                              {"thread_ends_inside", thread_ends_inside},
                                              {"region_left_open", region_left_open}};
    CHILD_MAIN(argc, argv, cases);
    const struct CMUnitTest tests[] = {
        TEST(own_threads),        TEST(start_on_first_use),
        TEST(somebody_wakes),     TEST(stuck),
        TEST(waiting_wakes),      TEST(helper_hands_over),
        TEST(wait_for_earlier),   TEST(wait_ignores_later),
        TEST(no_wait_inside),     TEST(nested),
        TEST(cleanups_do_things), TEST(shutdown_drops),
        TEST(many_at_once),       cmocka_unit_test(misuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
