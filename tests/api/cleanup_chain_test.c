/* tests/api/cleanup_chain_test.c -- what died together is queued together (CF-9, CF-13).
 *
 * A chain gets its numbers in one go, though only its first item has one when it is queued.  So the order over
 * both queues, what a wait waits for, and who is woken must be as if each item had been queued by itself.
 */
#include "support_queue.h"
#include "mutator/mutator.h"
#include "support_child.h"
#include "support_heap.h"

#include <poll.h>
#include <string.h>

static const int64_t second = 1000000000;

/* First in, first out over chains and single items of both kinds: no number is given twice or left out. */
static void order(void **unused)
{
    (void)unused;
    enum { N = 60 };
    static struct item items[N];
    static const struct {
        int n;
        bool finalizers;
    } groups[] = {{7, false}, {5, true}, {1, false}, {1, true}, {20, false}, {9, true}, {17, false}};
    memset(items, 0, sizeof(items));
    grey_cleanup_fd();
    int n = 0;
    for (size_t g = 0; g < sizeof(groups) / sizeof(groups[0]); g++) {
        put_chain(&items[n], groups[g].n, groups[g].finalizers);
        n += groups[g].n;
        assert_int_equal(cleanups_queued(), n);
    }
    assert_int_equal(n, N);
    for (int i = 0; i < N; i++) {
        assert_int_equal(items[i].done, 0);
        assert_int_equal(grey_cleanup_run(1), 1);
        assert_int_equal(items[i].done, 1);
        assert_int_equal(items[i].order, i + 1);
        assert_int_equal(grey_cleanup_wait(0), i == N - 1);
    }
    assert_int_equal(cleanups_run(), N);
}

static void empty(void **unused)
{
    (void)unused;
    static struct item item;
    memset(&item, 0, sizeof(item));
    put_chain(&item, 0, false);
    put_chain(&item, 0, true);
    assert_int_equal(cleanups_queued(), 0);
    assert_true(grey_cleanup_wait(0));
    put_chain(&item, 1, true);
    assert_int_equal(cleanups_queued(), 1);
    assert_int_equal(grey_cleanup_run(10), 1);
}

/* What is run in the middle of a chain is limited to what was queued before: an item at a time. */
static struct item later[3];
static void put_later(struct item *item)
{
    (void)item;
    put_chain(later, 3, false);
}
static void run_is_bounded(void **unused)
{
    (void)unused;
    static struct item items[4];
    memset(items, 0, sizeof(items));
    memset(later, 0, sizeof(later));
    items[1].fn = put_later;
    grey_cleanup_fd();
    put_chain(items, 4, false);
    assert_int_equal(grey_cleanup_run(100), 4);
    assert_int_equal(count_done(later, 3), 0);
    assert_int_equal(grey_cleanup_run(100), 3);
}

static bool is_readable(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    return poll(&one, 1, 0) == 1;
}

static void descriptor(void **unused)
{
    (void)unused;
    static struct item items[30];
    memset(items, 0, sizeof(items));
    int fd = grey_cleanup_fd();
    assert_false(is_readable(fd));
    put_chain(items, 30, false);
    assert_true(is_readable(fd));
    assert_int_equal(grey_cleanup_run(29), 29);
    assert_true(is_readable(fd));
    assert_int_equal(grey_cleanup_run(29), 1);
    assert_false(is_readable(fd));
}

/* No sweep is going on, so nobody will flush: who queues wakes one thread for each, and one item that never
 * returns holds up none that was queued with it. */
static void wakes_for_each(void **unused)
{
    (void)unused;
    static struct item items[POOL];
    queue_start();
    for (int round = 0; round < 20; round++) {
        memset(items, 0, sizeof(items));
        gate = 0;
        UNTIL(queue_blocked() == POOL + 1);
        for (int i = 0; i < POOL - 1; i++)
            items[i].fn = stay;
        put_chain(items, POOL, false);
        UNTIL(items[POOL - 1].done && at_gate == POOL - 1);
        gate = 1;
        UNTIL(count_done(items, POOL) == POOL);
    }
}

enum { FORTY = 40 };
static void *queue_unattached(void *items)
{
    put_chain(items, FORTY, false);
    return NULL;
}
/* A collector thread flushes at its end; before that it wakes one for 20, also if they come in one chain. */
static void wakes_for_twenty(void **unused)
{
    (void)unused;
    static struct item items[FORTY];
    memset(items, 0, sizeof(items));
    items[0].fn = stay;
    queue_start();
    UNTIL(queue_blocked() == POOL + 1);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, queue_unattached, items), 0);
    pthread_join(thread, NULL);
    UNTIL(count_done(items, FORTY) == FORTY - 1 && at_gate == 1); /* the second thread runs them */
    gate = 1;
    UNTIL(count_done(items, FORTY) == FORTY);
}

/* ---- all at once --------------------------------------------------------------------------------------- */

enum { MAKERS = 3, MADE = 6000, LONGEST = 50 };
static struct item made[MAKERS][MADE];

static void *make(void *arg)
{
    struct item *items = arg;
    wrong += grey_thread_attach() != 0;
    for (int i = 0, n = 1; i < MADE; i += n) {
        n = i * 7 % LONGEST + 1;
        n = n < MADE - i ? n : MADE - i;
        put_chain(&items[i], n, i % 3 == 0);
        if (i % 5 == 0)
            grey_cleanup_run((size_t)i % 7);
        if (i % 11 == 0) {
            wrong += !grey_cleanup_wait(20 * second);
            wrong += count_done(items, i + n) != i + n;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(order),        TEST(empty),          TEST(run_is_bounded),
        TEST(descriptor),   TEST(wakes_for_each), TEST(wakes_for_twenty),
        TEST(many_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
