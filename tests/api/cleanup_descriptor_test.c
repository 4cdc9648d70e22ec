/* tests/api/cleanup_descriptor_test.c -- programs that run cleanups in an event loop of their own (CF-9).
 *
 * From the first grey_cleanup_fd on Grey's threads run nothing more, and the descriptor is readable exactly
 * while there is something that could be run, whatever the program does to it.
 */
#include "support_queue.h"
#include "support_child.h"
#include "support_heap.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>

static bool is_readable(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    return poll(&one, 1, 0) == 1;
}

static void descriptor(void **unused)
{
    (void)unused;
    static struct item items[8];
    uint64_t value;
    memset(items, 0, sizeof(items));
    queue_start();
    int fd = grey_cleanup_fd();
    assert_true(fd >= 0);
    assert_int_equal(grey_cleanup_fd(), fd);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    assert_false(is_readable(fd));
    assert_int_equal(grey_cleanup_run(10), 0);
    for (int i = 0; i < 8; i++)
        put(&items[i], i % 2);
    assert_true(is_readable(fd));
    assert_false(grey_cleanup_wait(100000000)); /* Grey's threads run nothing more */
    assert_int_equal(count_done(items, 8), 0);
    assert_int_equal(grey_cleanup_run(0), 0);
    assert_int_equal(grey_cleanup_run(3), 3);
    assert_true(is_readable(fd));
    assert_int_equal(read(fd, &value, sizeof(value)), sizeof(value)); /* as event loops do */
    assert_int_equal(grey_cleanup_run(1), 1);
    assert_true(is_readable(fd));
    assert_int_equal(grey_cleanup_run(SIZE_MAX), 4);
    assert_false(is_readable(fd));
    assert_true(grey_cleanup_wait(0));
    for (uint64_t i = 0; i < 8; i++) { /* of both kinds, in the order of queueing, here */
        assert_int_equal(items[i].order, i + 1);
        assert_true(pthread_equal(items[i].thread, pthread_self()));
    }
    grey_shutdown();
    assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void *take_descriptor(void *unused)
{
    (void)unused;
    return (void *)(intptr_t)grey_cleanup_fd();
}
static void descriptor_at_once(void **unused)
{
    (void)unused;
    static struct item before;
    memset(&before, 0, sizeof(before));
    put(&before, false); /* nobody to run it yet */
    pthread_t threads[8];
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_descriptor, NULL), 0);
    intptr_t fd = grey_cleanup_fd();
    for (int i = 0; i < 8; i++) {
        void *other;
        pthread_join(threads[i], &other);
        assert_int_equal((intptr_t)other, fd);
    }
    assert_true(is_readable((int)fd));
    queue_start();
    assert_int_equal(heap_figures().threads, 1); /* the program runs them: no threads */
    assert_int_equal(grey_cleanup_run(1), 1);
}

/* Grey's threads finish what they are in.  While a finalizer runs, others are not to be had (CF-9), so the
 * descriptor does not call for them; somebody who waits does wait for the program. */
static void descriptor_in_the_middle(void **unused)
{
    (void)unused;
    static struct item running, finalizers[2], cleanup;
    memset(&running, 0, sizeof(running));
    memset(finalizers, 0, sizeof(finalizers));
    memset(&cleanup, 0, sizeof(cleanup));
    queue_start();
    running.fn = stay;
    put(&running, true);
    cleanups_flush();
    UNTIL(at_gate == 1);
    int fd = grey_cleanup_fd();
    put_all(finalizers, 2, true);
    assert_false(is_readable(fd));
    assert_int_equal(grey_cleanup_run(10), 0);
    put(&cleanup, false);
    assert_true(is_readable(fd));
    assert_int_equal(grey_cleanup_run(10), 1);
    assert_int_equal(cleanup.done, 1);
    assert_false(is_readable(fd));
    gate = 1;
    UNTIL(running.done);
    UNTIL(is_readable(fd));
    assert_int_equal(count_done(finalizers, 2), 0);
    queue_waited = 0;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, queue_wait, NULL), 0);
    usleep(20000);
    assert_int_equal(queue_waited, 0);
    assert_int_equal(grey_cleanup_run(10), 2);
    pthread_join(thread, NULL);
    assert_int_equal(queue_waited, 1);
    assert_false(is_readable(fd));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, queue_up, queue_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(descriptor),
        TEST(descriptor_at_once),
        TEST(descriptor_in_the_middle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
