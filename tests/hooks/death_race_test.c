/* tests/hooks/death_race_test.c -- races and refusals in which cleanups, finalizers and foreign regions were
 * once lost, each made to happen.
 *
 *   - memory is refused while the library starts, at each mapping in turn: an error, no crash (ER-2, FR-12);
 *   - memory is refused in the middle of a large object with a finalizer, so that the rest of it is dropped:
 *     the rescan finds what only that object leads to, though it isn't marked itself (CF-15, CF-17);
 *   - program threads have swept everything before the sweeper looks: what they queued runs (CF-9, SW-7);
 *   - a fork in a cleanup while another thread is in grey_shutdown: the child's cleanups run (ER-7, CF-9);
 *   - a finalizer that runs during grey_shutdown registers the first cleanup (FR-34, CF-11);
 *   - an object that is born black gets a pointer to a region before the index has that (FR-9, FR-19);
 *   - the verifier sees a region that only a heap object leads to (FR-20, TR-11).
 */
#include "support_foreign.h"
#include "support_hooks.h"

#include "heap/heap.h"
#include "os/thread.h"
#include "sweep/sweep.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#if OS_TSAN
/* It would refuse threads in a child that has been made of many. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) { return "die_after_fork=0"; }
#endif

static _Atomic unsigned ran;
static void count_run(void *unused)
{
    (void)unused;
    atomic_fetch_add(&ran, 1);
}
static bool ran_within(unsigned n, unsigned ms)
{
    for (uint64_t end = os_now() + ms * 1000000ull; atomic_load(&ran) < n; os_yield())
        if (os_now() > end)
            return false;
    return true;
}
static void act_alone(void (*fn)(void)) { actor_join(actor_start(fn)); }

/* ---- a start without memory ---------------------------------------------------------------------------- */

/* Each in a process of its own: what an earlier life of the library left behind would hide what a failed
 * start forgot.  This comes first, while the library is down. */
static int start_in_child(unsigned nth)
{
    pid_t pid = fork();
    if (pid == 0) {
        os_fail_mapping(nth, ENOMEM);
        int error = grey_init(NULL);
        os_fail_mapping(1, 0);
        if (error != 0 && (error != ENOMEM || grey_init(NULL) != 0)) /* the second time there is memory */
            _exit(2);
        grey_shutdown();
        _exit(error != 0);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_start_without_memory(void **state)
{
    (void)state;
    enum { LEAST = 20, MOST = 200 };
    int refused = 0;
    for (unsigned nth = 1, up = 0; up < 5; nth++) { /* one or another mapping can be done without */
        int status = start_in_child(nth);
        assert_in_range(status, 0, 1);
        refused += status;
        up = status == 0 ? up + 1 : 0;
        assert_true(nth < MOST);
    }
    assert_true(refused >= LEAST);
}

/* ---- a finalizer's object, dropped half-way ------------------------------------------------------------ */

enum { WIDTH = 4096, BLOCKS = 1 << 16 };
static struct mark_block *taken[BLOCKS];
static uintptr_t hidden;

static void check_all(void *object)
{
    struct cell **table = object;
    for (int i = 0; i < WIDTH; i++)
        cells_check(table[i], 2);
    atomic_fetch_add(&ran, 1);
}

/* Larger than a piece; nothing but its finalizer leads to it. */
static void make_wide(void)
{
    HOOKS_CHECK(grey_cleanup_fd() >= 0);
    struct cell **table = grey_alloc(WIDTH * sizeof(struct cell *));
    HOOKS_CHECK(table != NULL);
    for (int i = 0; i < WIDTH; i++)
        grey_store(&table[i], cells_new(2));
    HOOKS_CHECK(grey_set_finalizer(table, check_all) == 0);
    hidden = ~(uintptr_t)table;
}

/* Stopped at the object's first piece for longer than a slice: then whoever scans it publishes what he holds,
 * the rest of the object with it, and there is no block for it. */
static bool overflows_in_object(void)
{
    int stop = stop_at(OS_HOOK_MARK_SCAN, (const void *)~hidden);
    uint64_t over = cycles_over();
    cycle_begin();
    assert_true(stop_reached(stop, PATIENCE_MS));
    bool overflowed = false;
    size_t n = 0;
    uint64_t released = 0;
    do {
        os_fail_mapping(1, ENOMEM);
        while (n < BLOCKS && (taken[n] = work_block_get_ready()) != NULL)
            n++;
        if (released == 0) {
            stop_release(stop);
            released = os_now();
        }
        overflowed |= atomic_load(&work_overflowed) != 0;
    } while (!overflowed && os_now() < released + 50000000);
    os_fail_mapping(1, 0);
    while (n > 0)
        work_block_put(taken[--n]);
    cycle_await(over + 1);
    return overflowed;
}

static void run_queued(void) { grey_cleanup_run(SIZE_MAX); }

static void test_finalizer_survives_overflow(void **state)
{
    (void)state;
    bool overflowed = false;
    for (int i = 0; i < 50 && !overflowed; i++) {
        atomic_store(&ran, 0);
        hooks_up("clobberfree=1");
        act_alone(make_wide);
        overflowed = overflows_in_object();
        cycles_run(1); /* what was lost is swept and overwritten */
        act_alone(run_queued);
        assert_int_equal(atomic_load(&ran), 1);
        hooks_down();
    }
    assert_true(overflowed);
}

/* ---- the sweep is over before the sweeper comes -------------------------------------------------------- */

static void make_garbage(void)
{
    void *object = grey_alloc_leaf(16);
    HOOKS_CHECK(object != NULL && grey_cleanup_add(object, count_run, NULL, NULL) == 0);
    HOOKS_CHECK(span_number(heap_span_of((uintptr_t)object)) <= 10);
    for (int i = 0; i < 100; i++) /* a span each: many batches after the first */
        HOOKS_CHECK(grey_alloc_leaf(100 << 10) != NULL);
}
static void sweep_all(void)
{
    HOOKS_CHECK(!sweep_done());
    sweep_some(1 << 30);
    HOOKS_CHECK(sweep_done());
}

static void test_program_sweeps_everything(void **state)
{
    (void)state;
    atomic_store(&ran, 0);
    hooks_up("");
    act_alone(make_garbage);
    sweep_park();
    cycle_begin();
    cycle_await(1);
    usleep(50000); /* the collector is at rest: it wakes nobody for what is queued now */
    act_alone(sweep_all);
    sweep_unpark();
    assert_true(ran_within(1, 10000));
    hooks_down();
}

/* ---- fork during shutdown ------------------------------------------------------------------------------ */

static _Atomic pid_t child;
static _Atomic bool began, going_down;

static void make_one(void *fn)
{
    void *object = grey_alloc_leaf(16);
    HOOKS_CHECK(object != NULL && grey_cleanup_add(object, (void (*)(void *))fn, NULL, NULL) == 0);
}
static void make_counted(void) { make_one((void *)count_run); }

/* The child's work: a cleanup of its own. */
static void *in_child(void *unused)
{
    atomic_store(&ran, 0);
    act_alone(make_counted);
    grey_collect();
    bool well = grey_cleanup_wait(20000000000) && atomic_load(&ran) == 1;
    _exit(well ? 0 : 1);
    return unused;
}

static void wait_for_shutdown(void)
{
    atomic_store(&began, true);
    while (!atomic_load(&going_down))
        os_yield();
    usleep(50000); /* now it waits for this function */
}

/* The object that was made is dead: grey_shutdown while its function runs. */
static void shut_down_meanwhile(void)
{
    atomic_store(&began, false);
    atomic_store(&going_down, false);
    grey_collect();
    while (!atomic_load(&began))
        os_yield();
    atomic_store(&going_down, true);
    grey_shutdown();
}

static void fork_in_cleanup(void *unused)
{
    (void)unused;
    wait_for_shutdown();
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        pthread_t thread;
        if (pthread_create(&thread, NULL, in_child, NULL) != 0)
            _exit(2);
        return; /* and go on as a thread for cleanups */
    }
    atomic_store(&child, pid);
}
static void make_forking(void) { make_one((void *)fork_in_cleanup); }

static void test_fork_during_shutdown(void **state)
{
    (void)state;
    if (OS_TSAN) /* which still counts the parent's threads in the child and dies of one with the same id */
        skip();
    struct grey_options options = GREY_OPTIONS_INIT;
    options.percent = -1;
    assert_int_equal(grey_init(&options), 0);
    act_alone(make_forking);
    shut_down_meanwhile();
    int status = -1;
    assert_true(atomic_load(&child) > 0);
    assert_int_equal(waitpid(atomic_load(&child), &status, 0), atomic_load(&child));
    assert_int_equal(status, 0);
}

/* ---- a finalizer registers while the library goes down ------------------------------------------------- */

static void register_first(void *object)
{
    wait_for_shutdown();
    HOOKS_CHECK(grey_cleanup_add(object, count_run, NULL, NULL) == 0);
}
static void make_registering(void)
{
    void *object = grey_alloc_leaf(16);
    HOOKS_CHECK(object != NULL && grey_set_finalizer(object, register_first) == 0);
}

/* The threads for cleanups start when those that are to end have been looked for.  The new one may be gone
 * before the check that nobody is attached, so this is done often. */
static void test_register_during_shutdown(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        struct grey_options options = GREY_OPTIONS_INIT;
        options.percent = -1;
        atomic_store(&ran, 0);
        assert_int_equal(grey_init(&options), 0);
        act_alone(make_registering);
        shut_down_meanwhile();
        assert_int_equal(atomic_load(&ran), 0); /* FR-34 */
    }
}

/* ---- the verifier and regions that heap objects hold --------------------------------------------------- */

GREY_ROOT(void *, root);
static struct region region;

static void make_region(void)
{
    void *object = grey_alloc(64);
    HOOKS_CHECK(object != NULL);
    grey_store(&root, object);
    region_new(&region, 4096, 0);
}

/* A store without barrier, into what is black. */
static void store_raw(enum os_hook point, const void *what)
{
    (void)what;
    if (point == OS_HOOK_ROUND_START)
        __atomic_store_n((uintptr_t *)root, ~region.hidden, __ATOMIC_RELAXED);
}

static size_t found;
static void verify(void)
{
    FILE *file = tmpfile();
    HOOKS_CHECK(file != NULL);
    found = grey_verify(fileno(file));
    fclose(file);
}
static void drop_region(void) { grey_clear(root, 64); }

static void test_verifier_sees_regions(void **state)
{
    (void)state;
    memset(&region, 0, sizeof(region));
    hooks_up("");
    act_alone(make_region);
    atomic_store(&hooks_also, store_raw);
    act_alone(verify);
    atomic_store(&hooks_also, NULL);
    assert_int_equal(found, 1);
    act_alone(drop_region);
    hooks_down();
}

/* ---- born between arm and blacken ---------------------------------------------------------------------- */

static void add_region(void) { region_add(&region, region_start(&region), 4096, 0); }

/* Born black, while the other thread is about to insert; the barrier finds no region yet. */
static void hold_it_early(void)
{
    stage_await(1);
    void **object = grey_alloc(200 << 10);
    HOOKS_CHECK(object != NULL && heap_marked((uintptr_t)object));
    grey_store(&object[0], (void *)region_start(&region));
    grey_store(&root, (void *)object);
    stage_set(2);
}

/* One thread reads the colour, blacken begins, another stores a pointer to the range into an object that is
 * born black, the first inserts.  Both forget the pointer, so only the object has it. */
static void test_held_before_it_is_inserted(void **state)
{
    (void)state;
    memset(&region, 0, sizeof(region));
    region.hidden = ~(uintptr_t)region_map(4096, 3); /* readable, writable */
    region.size = 4096;
    hooks_up("");
    pthread_t holder = actor_start(hold_it_early);
    int armed = stop_at(OS_HOOK_AFTER_ARM, NULL), blackened = stop_at(OS_HOOK_AFTER_BLACKEN, NULL);
    cycle_begin();
    assert_true(stop_reached(armed, PATIENCE_MS));
    int adding = stop_at(OS_HOOK_FOREIGN_ADD, NULL);
    pthread_t adder = actor_start(add_region);
    assert_true(stop_reached(adding, PATIENCE_MS));
    stop_release(armed);
    for (uint64_t end = os_now() + 5000000000; atomic_load(&heap.black_cycle) != 1; os_yield())
        assert_true(os_now() < end);
    stage_set(1);
    assert_true(stage_within(2, PATIENCE_MS));
    stop_release(adding);
    assert_true(stop_reached(blackened, PATIENCE_MS));
    actor_join(adder);
    actor_join(holder);
    stop_release(blackened);
    cycle_await(1);
    cycles_run(1);
    usleep(50000); /* a cleanup runs some time after it was queued */
    assert_int_equal(atomic_load(&region.died), 0);
    hooks_down();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_start_without_memory),       cmocka_unit_test(test_finalizer_survives_overflow),
        cmocka_unit_test(test_program_sweeps_everything),  cmocka_unit_test(test_fork_during_shutdown),
        cmocka_unit_test(test_register_during_shutdown),   cmocka_unit_test(test_verifier_sees_regions),
        cmocka_unit_test(test_held_before_it_is_inserted),
    };
    return hooks_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
