/* tests/api/cleanup_fork_test.c -- cleanups in the child of a fork (CF-9, ER-7).
 *
 * The child has none of Grey's threads and has them again when it needs them; what waited waits in it too,
 * and what another thread was running is lost in it.  The parent must not notice.  A child says by its status
 * that all was well, since cmocka is the parent's.
 */
#include "support_queue.h"
#include "support_child.h"
#include "support_heap.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum { WELL = 42 };

#if OS_TSAN
/* It would refuse threads in a child that has been made of many. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) { return "die_after_fork=0"; }
#endif

static pid_t fork_child(void)
{
    pid_t child = fork();
    if (child == 0)
        alarm(60); /* a child that hangs must not outlive the test */
    return child;
}

static void assert_was_well(pid_t child)
{
    int status = 0;
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != WELL)
        fail_msg("the child ended with %#x", (unsigned)status);
}

#define IN_CHILD(x) ((x) && wrong == 0 ? (void)0 : child_fail(__FILE__, __LINE__, #x))

static void waiting_and_running(void **unused)
{
    (void)unused;
    static struct item running[POOL + 1], waiting[10];
    memset(running, 0, sizeof(running));
    memset(waiting, 0, sizeof(waiting));
    queue_start();
    for (int i = 0; i <= POOL; i++) {
        running[i].fn = stay;
        put(&running[i], i == POOL);
    }
    cleanups_flush();
    UNTIL(at_gate == POOL + 1);
    put_all(waiting, 5, false);
    put_all(waiting + 5, 5, true);
    pid_t child = fork_child();
    if (child == 0) {
        gate = 1; /* nobody is at it */
        IN_CHILD(grey_cleanup_wait(-1));
        IN_CHILD(count_done(waiting, 10) == 10);
        IN_CHILD(count_done(running, POOL + 1) == 0);
        IN_CHILD(cleanups_queued() == POOL + 1 + 10 && cleanups_run() == 10);
#if !OS_TSAN /* which still counts the parent's threads and dies of a join of one with the same id */
        grey_shutdown(); /* its threads are stopped, those of the parent are not looked for */
#endif
        IN_CHILD(true);
        _exit(WELL);
    }
    assert_was_well(child);
    assert_int_equal(count_done(waiting, 10), 0);
    gate = 1;
    assert_true(grey_cleanup_wait(-1));
    assert_int_equal(count_done(waiting, 10), 10);
    assert_int_equal(count_done(running, POOL + 1), POOL + 1);
}

/* Nobody waits and nothing is registered: the child's first cycle starts the threads. */
static void cycle_starts_threads(void **unused)
{
    (void)unused;
    static struct item items[2];
    memset(items, 0, sizeof(items));
    queue_start();
    UNTIL(heap_figures().threads == 1 + POOL + 1);
    pid_t child = fork_child();
    if (child == 0) {
        IN_CHILD(heap_figures().threads == 1);
        put(&items[0], false);
        put(&items[1], true);
        grey_collect();
        IN_CHILD(COMES_TRUE(count_done(items, 2) == 2));
        IN_CHILD(COMES_TRUE(heap_figures().threads == 1 + POOL + 1));
        _exit(WELL);
    }
    assert_was_well(child);
}

static bool is_readable(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    return poll(&one, 1, 0) == 1;
}

/* The parent's eventfd is shared memory of the two; the child's is its own. */
static void descriptors(void **unused)
{
    (void)unused;
    static struct item items[3];
    memset(items, 0, sizeof(items));
    int fd = grey_cleanup_fd();
    put_all(items, 3, false);
    pid_t child = fork_child();
    if (child == 0) {
        IN_CHILD(fcntl(fd, F_GETFD) == -1);
        IN_CHILD(!grey_cleanup_wait(100000000)); /* still the program's to run */
        int own = grey_cleanup_fd();
        IN_CHILD(own >= 0 && is_readable(own));
        IN_CHILD(grey_cleanup_run(10) == 3 && !is_readable(own));
        IN_CHILD(grey_cleanup_wait(0));
        _exit(WELL);
    }
    assert_was_well(child);
    assert_true(is_readable(fd));
    assert_int_equal(grey_cleanup_run(10), 3);
    assert_false(is_readable(fd));
}

/* ---- from within --------------------------------------------------------------------------------------- */

static pid_t made_inside;
static _Atomic int forked_in_child, helping;
static void fork_inside(struct item *item)
{
    made_inside = fork_child();
    forked_in_child = made_inside == 0;
    helping = 1;
    if (forked_in_child && item->result) /* a finalizer is running in the child too */
        IN_CHILD(grey_cleanup_run(10) == 0);
    helping = 0;
}
static void last_in_child(struct item *item)
{
    (void)item;
    if (!forked_in_child)
        return;
    IN_CHILD(!helping);
    IN_CHILD(!grey_cleanup_wait(-1)); /* inside */
    grey_collect();
    IN_CHILD(heap_figures().threads >= 1);
    _exit(WELL);
}

/* The thread that forks in a cleanup is Grey's own: in the child it goes on with what waits.  That is what no other
 * thread has taken by then, so the others of the pool are kept at the gate. */
static void inside(bool finalizer)
{
    static struct item items[2], others[POOL - 1];
    memset(items, 0, sizeof(items));
    memset(others, 0, sizeof(others));
    items[0].fn = fork_inside;
    items[0].result = finalizer;
    items[1].fn = last_in_child;
    queue_start();
    for (int i = 0; i < POOL - 1; i++)
        others[i].fn = stay;
    put_all(others, POOL - 1, false);
    cleanups_flush();
    UNTIL(at_gate == POOL - 1);
    put_chain(items, 2, finalizer); /* both before the first can be taken */
    cleanups_flush();
    UNTIL(count_done(items, 2) == 2);
    gate = 1;
    assert_true(grey_cleanup_wait(-1));
    assert_was_well(made_inside);
}
static void inside_cleanup(void **unused)
{
    (void)unused;
    inside(false);
}
static void inside_finalizer(void **unused)
{
    (void)unused;
    inside(true);
}

#if !OS_TSAN /* which can't join: see above */
static void *end_child(void *unused)
{
    IN_CHILD(grey_cleanup_wait(-1)); /* until the thread that forked has finished what it runs */
    IN_CHILD(!forked_in_child);
    grey_shutdown(); /* that thread is Grey's in the child too, and is ended */
    IN_CHILD(grey_init(NULL) == 0);
    _exit(WELL);
    return unused;
}
static void fork_and_return(struct item *item)
{
    (void)item;
    made_inside = fork_child();
    forked_in_child = made_inside == 0;
    if (!forked_in_child)
        return;
    pthread_t thread;
    IN_CHILD(pthread_create(&thread, NULL, end_child, NULL) == 0);
    usleep(50000); /* it has begun to wait */
    forked_in_child = 0;
}

/* In the child the thread that forked is Grey's as it was in the parent: it sleeps when nothing waits, is
 * counted, and another thread's grey_shutdown ends it.  In every round the thread is new: the fork may come
 * before the parent's main thread knows that it has started it. */
static void stays_greys(void **unused)
{
    (void)unused;
    static struct item item;
    for (int round = 0; round < 10; round++) {
        memset(&item, 0, sizeof(item));
        item.fn = fork_and_return;
        put(&item, round % 2 != 0);
        queue_start();
        assert_true(grey_cleanup_wait(-1));
        assert_was_well(made_inside);
        grey_shutdown();
        assert_int_equal(queue_up(NULL), 0);
    }
}
#endif

/* ---- at any moment ------------------------------------------------------------------------------------- */

enum { MAKERS = 2, MADE = 100000, FORKS = 15 };
static struct item made[MAKERS][MADE];
static _Atomic int stop, n_made[MAKERS];

static void *make(void *arg)
{
    int me = (int)(intptr_t)arg;
    wrong += grey_thread_attach() != 0;
    for (int i = 0; i < MADE && !stop; i++) {
        put(&made[me][i], i % 3 == 0);
        n_made[me] = i + 1;
        if (i % 50 == 0)
            grey_cleanup_run(3);
        if (i % 200 == 0)
            cleanups_flush();
        if (i % 10 == 0)
            usleep(100);
    }
    return NULL;
}

/* In the child all has run but for what was in the hands of the parent's threads. */
static void check_child(void)
{
    IN_CHILD(grey_cleanup_wait(-1));
    int lost = 0;
    for (int i = 0; i < MAKERS; i++)
        for (int j = 0; j < n_made[i]; j++)
            lost += made[i][j].done == 0;
    IN_CHILD(lost <= POOL + 1 + MAKERS);
    grey_collect();
    IN_CHILD(true);
}

static void any_moment(void **unused)
{
    (void)unused;
    memset(made, 0, sizeof(made));
    stop = 0;
    for (int i = 0; i < MAKERS; i++)
        n_made[i] = 0;
    queue_start();
    pthread_t threads[MAKERS];
    for (int i = 0; i < MAKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, make, (void *)(intptr_t)i), 0);
    for (int i = 0; i < FORKS; i++) {
        pid_t child = fork_child();
        if (child == 0) {
            check_child();
            _exit(WELL);
        }
        assert_was_well(child);
    }
    stop = 1;
    for (int i = 0; i < MAKERS; i++)
        pthread_join(threads[i], NULL);
    assert_true(grey_cleanup_wait(-1));
    for (int i = 0; i < MAKERS; i++)
        assert_int_equal(count_done(made[i], n_made[i]), n_made[i]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, queue_up, queue_down)

int main(void)
{
#if OS_ASAN
    /* gcc 12's runtime doesn't take its allocator's lock over a fork (tests/stress/fork_test.c). */
    return 0;
#endif
    const struct CMUnitTest tests[] = {
        TEST(waiting_and_running),
        TEST(cycle_starts_threads),
        TEST(descriptors),
        TEST(inside_cleanup),
        TEST(inside_finalizer),
        TEST(any_moment),
#if !OS_TSAN
        TEST(stays_greys),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
