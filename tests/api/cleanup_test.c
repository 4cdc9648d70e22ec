/* tests/api/cleanup_test.c -- grey_cleanup_add and grey_cleanup_stop.
 *
 * Requirements: CF-1 .. CF-8, CF-10, CF-11, OR-5, ER-2.  Objects are made by threads that exist only for that
 * (support_death.h), so "runs once" and "freed in the same cycle" are exact counts.  But for the first test
 * the program runs what is queued itself.
 */
#include "support_child.h"
#include "support_death.h"
#include "support_heap.h"

#include <stdlib.h>
#include <string.h>

enum { N = 300 };

struct pair {
    void *one, *two;
    long number;
};
GREY_TYPE(pair_type, struct pair, one, two);

GREY_ROOT(struct pair *[N], kept);
static grey_cleanup handles[N];
static uintptr_t hidden[N];

static struct pair *pair_new(void)
{
    struct pair *pair = grey_new(&pair_type);
    CHILD_CHECK(pair != NULL);
    return pair;
}
static void add(void *object, size_t index, grey_cleanup *handle)
{
    CHILD_CHECK(grey_cleanup_add(object, count_death, (void *)index, handle) == 0);
}
static void forget(void)
{
    for (int i = 0; i < N; i++)
        grey_store(&kept[i], NULL);
    death_settle();
    deaths_reset();
}

/* ---- none is lost ------------------------------------------------------------------------------------ */

enum { THREADS = 4, EACH = 10000, KEPT_MOST = 8 };
static uintptr_t hidden_many[THREADS * EACH];

static void *add_many(void *number)
{
    CHILD_CHECK(grey_thread_attach() == 0);
    for (size_t i = 0; i < EACH; i++) {
        void *object = grey_alloc(16 + i % 200);
        hidden_many[(size_t)number * EACH + i] = HIDE(object);
        add(object, (size_t)number * EACH + i, NULL);
    }
    return NULL;
}

/* The library's threads run them; within 10 s, all whose objects are gone, each once. */
static void none_is_lost(void **unused)
{
    (void)unused;
    pthread_t threads[THREADS];
    struct grey_stats before = heap_figures();
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add_many, (void *)i), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(grey_thread_join(threads[i], NULL), 0);
    grey_collect();
    grey_collect();
    assert_true(grey_cleanup_wait(10000000000));
    /* A thread begins with the registers of who started it: the library's may keep the first objects. */
    size_t still_alive = 0;
    for (size_t i = 0; i < THREADS * EACH; i++) {
        unsigned times = atomic_load(&deaths[i]);
        bool alive = times == 0 && grey_base(SHOW(hidden_many[i])) == SHOW(hidden_many[i]);
        if (times != 1 && !alive)
            fail_msg("cleanup %zu of %d ran %u times", i, THREADS * EACH, times);
        still_alive += alive;
    }
    assert_true(still_alive <= KEPT_MOST);
    struct grey_stats after = heap_figures();
    assert_int_equal(after.cleanups_queued - before.cleanups_queued, THREADS * EACH - still_alive);
    assert_int_equal(after.cleanups_run - before.cleanups_run, THREADS * EACH - still_alive);
    deaths_reset();
}

/* ---- death ------------------------------------------------------------------------------------------- */

static void make_kept(void *unused)
{
    (void)unused;
    for (size_t i = 0; i < N; i++) {
        grey_store(&kept[i], pair_new());
        add(kept[i], i, &handles[i]);
    }
}

/* CF-1: not while it can be reached, once afterwards. */
static void after_death_once(void **unused)
{
    (void)unused;
    apart(make_kept, NULL);
    assert_int_equal(death_settle(), 0);
    for (int i = 0; i < N; i += 2)
        grey_store(&kept[i], NULL);
    assert_int_equal(death_settle(), N / 2);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(atomic_load(&deaths[i]), i % 2 == 0);
    for (int i = 1; i < N; i += 2)
        grey_store(&kept[i], NULL);
    assert_int_equal(death_settle(), N / 2);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(atomic_load(&deaths[i]), 1);
    forget();
}

/* CF-3: the objects are gone in the cycle that queues the cleanups, and before those run. */
static void freed_in_the_same_cycle(void **unused)
{
    (void)unused;
    apart(make_kept, NULL);
    forget();
    apart(make_kept, NULL);
    grey_collect();
    struct grey_stats before = heap_figures();
    for (int i = 0; i < N; i++)
        grey_store(&kept[i], NULL);
    grey_collect();
    struct grey_stats after = heap_figures();
    assert_int_equal(after.cleanups_queued - before.cleanups_queued, N);
    assert_true(after.freed_objects - before.freed_objects >= N);
    assert_int_equal(deaths_of(0, N), 0);
    assert_int_equal(death_settle(), N);
    forget();
}

static void make_several(void *unused)
{
    (void)unused;
    struct pair *one = pair_new();
    char *large = grey_alloc(1 << 20);
    CHILD_CHECK(large != NULL);
    for (size_t i = 0; i < 100; i++) {
        add(one, i, NULL);
        add((char *)one + i % sizeof(*one), 100 + i, NULL);
        add(large + i * 9999, 200 + i, NULL);
    }
}

/* CF-1, CF-2: any number, at the same and other addresses, of a small and of a large object. */
static void several_on_one(void **unused)
{
    (void)unused;
    apart(make_several, NULL);
    assert_int_equal(death_settle(), 300);
    for (size_t i = 0; i < 300; i++)
        assert_int_equal(atomic_load(&deaths[i]), 1);
    forget();
}

/* All size classes, in rising, falling and mixed order of addresses, some kept. */
static void make_sizes(void *unused)
{
    (void)unused;
    static size_t order[3][N];
    static void *objects[N]; /* scanned by nobody: the objects are on the stack below */
    void *held[N];
    for (size_t i = 0; i < N; i++) {
        held[i] = grey_alloc(16 << i % 12);
        CHILD_CHECK(held[i] != NULL);
        objects[i] = held[i];
        order[0][i] = i;
        order[1][i] = N - 1 - i;
        order[2][i] = i * 7 % N;
    }
    for (size_t k = 0; k < 3; k++)
        for (size_t i = 0; i < N; i++)
            add(objects[order[k][i]], 3 * order[k][i] + k, NULL);
    memset(objects, 0, sizeof(objects));
    for (size_t i = 0; i < N; i += 3)
        grey_store(&kept[i], (struct pair *)held[i]);
}

static void all_sizes(void **unused)
{
    (void)unused;
    apart(make_sizes, NULL);
    assert_int_equal(death_settle(), 2 * N);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(deaths_of(3 * i, 3 * i + 3), i % 3 == 0 ? 0 : 3);
    for (int i = 0; i < N; i++)
        grey_store(&kept[i], NULL);
    assert_int_equal(death_settle(), N);
    assert_int_equal(deaths_of(0, 3 * N), 3 * N);
    forget();
}

static void make_ring(void *unused)
{
    (void)unused;
    struct pair *first = pair_new(), *last = first;
    for (size_t i = 0; i < N; i++) {
        struct pair *pair = pair_new();
        grey_store(&last->one, pair);
        grey_store(&pair->two, first);
        add(pair, i, NULL);
        last = pair;
    }
    grey_store(&last->one, first);
}

/* CF-4 */
static void rings(void **unused)
{
    (void)unused;
    apart(make_ring, NULL);
    assert_int_equal(death_settle(), N);
    forget();
}

/* ---- the argument ------------------------------------------------------------------------------------ */

static _Atomic unsigned intact;

static void check_arg(void *arg)
{
    struct pair *pair = arg;
    CHILD_CHECK(grey_base(pair) == pair);
    CHILD_CHECK(heap_leaf_is_intact(pair->one, (uint64_t)pair->number));
    atomic_fetch_add(&intact, 1);
}

static void make_with_args(void *unused)
{
    (void)unused;
    for (int i = 0; i < N; i++) {
        struct pair *arg = pair_new();
        arg->number = i;
        grey_store(&arg->one, heap_marked_leaf(64, (uint64_t)i));
        grey_store(&kept[i], pair_new());
        CHILD_CHECK(grey_cleanup_add(kept[i], check_arg, arg, NULL) == 0);
    }
}

/* CF-5: a root before, while it is queued, and until it has run. */
static void arg_is_a_root(void **unused)
{
    (void)unused;
    atomic_store(&intact, 0);
    apart(make_with_args, NULL);
    heap_reuse_free_memory();
    for (int i = 0; i < N; i++)
        grey_store(&kept[i], NULL);
    heap_collect_twice();
    heap_reuse_free_memory();
    struct grey_stats before = heap_figures();
    assert_int_equal(death_settle(), N);
    assert_int_equal(atomic_load(&intact), N);
    /* And no longer: pairs and leaves. */
    grey_collect();
    grey_collect();
    assert_true(heap_figures().freed_objects - before.freed_objects >= 2 * N);
    forget();
}

static void make_own_args(void *unused)
{
    (void)unused;
    for (size_t i = 0; i < N; i++) {
        struct pair *pair = pair_new(), *arg = pair_new();
        grey_store(&arg->one, pair);
        hidden[i] = HIDE(pair);
        CHILD_CHECK(grey_cleanup_add(pair, count_death, arg, &handles[i]) == 0);
    }
}

static void check_hidden_and_stop(void *unused)
{
    (void)unused;
    for (int i = 0; i < N; i++)
        CHILD_CHECK(grey_base(SHOW(hidden[i])) == SHOW(hidden[i]) && grey_cleanup_stop(handles[i]));
}

/* CF-5: an object that its own argument leads to never dies; stopped, it does. */
static void reachable_from_its_own_arg(void **unused)
{
    (void)unused;
    apart(make_own_args, NULL);
    struct grey_stats before = heap_figures();
    assert_int_equal(death_settle(), 0);
    apart(check_hidden_and_stop, NULL);
    assert_int_equal(death_settle(), 0);
    assert_true(heap_figures().freed_objects - before.freed_objects >= 2 * N);
    forget();
}

static void add_again(void *depth)
{
    grey_cleanup_add(grey_alloc(40), (uintptr_t)depth > 1 ? add_again : count_death,
                     (void *)((uintptr_t)depth - 1), NULL);
    grey_collect();
    heap_reuse_free_memory();
}

/* CF-11 */
static void cleanups_allocate_add_and_collect(void **unused)
{
    (void)unused;
    apart(add_again, (void *)5);
    assert_int_equal(death_settle(), 5);
    assert_int_equal(atomic_load(&deaths[0]), 1);
    forget();
}

/* ---- stop -------------------------------------------------------------------------------------------- */

static void drop_kept(void *unused)
{
    (void)unused;
    for (int i = 0; i < N; i++)
        grey_store(&kept[i], NULL);
}

/* CF-7 */
static void stopping(void **unused)
{
    (void)unused;
    apart(make_kept, NULL);
    for (size_t i = 0; i < N; i += 2) {
        assert_true(grey_cleanup_stop(handles[i]));
        assert_false(grey_cleanup_stop(handles[i])); /* twice */
    }
    assert_int_equal(death_settle(), 0);
    apart(drop_kept, NULL);
    heap_wipe_stack();
    grey_collect();
    for (size_t i = 0; i < N; i++)
        assert_false(grey_cleanup_stop(handles[i])); /* stopped or queued */
    assert_int_equal(death_settle(), N / 2);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(atomic_load(&deaths[i]), i % 2);
        assert_false(grey_cleanup_stop(handles[i])); /* has run */
    }
    /* Their records are used again: the old handles still find nothing. */
    grey_cleanup old[N];
    memcpy(old, handles, sizeof(old));
    apart(make_kept, NULL);
    for (size_t i = 0; i < N; i++)
        assert_false(grey_cleanup_stop(old[i]));
    for (size_t i = 0; i < N; i++) {
        for (size_t k = 0; k < N; k++)
            assert_int_not_equal(old[k], handles[i]);
        assert_true(grey_cleanup_stop(handles[i]));
    }
    forget();
}

static void stop_made_up(void **unused)
{
    (void)unused;
    apart(make_kept, NULL);
    assert_false(grey_cleanup_stop(0));
    assert_false(grey_cleanup_stop(UINT64_MAX));
    assert_false(grey_cleanup_stop(UINT32_MAX));
    for (size_t i = 0; i < N; i++) {
        assert_false(grey_cleanup_stop(handles[i] + ((uint64_t)1 << 32)));
        assert_false(grey_cleanup_stop(handles[i] << 32));
    }
    for (int i = 0; i < N; i++)
        grey_store(&kept[i], NULL);
    assert_int_equal(death_settle(), N); /* none of that has hit one */
    forget();
}

static void nothing(void *unused) { (void)unused; }

static void make_other_kinds(void *unused)
{
    (void)unused;
    void *object = grey_alloc(48);
    grey_cleanup before, after;
    add(object, 0, &before);
    CHILD_CHECK(grey_set_finalizer(object, nothing) == 0);
    CHILD_CHECK(grey_weak_new(object) != NULL);
    add(object, 0, &after);
    /* What lies between are records of the others, if they were new. */
    for (uint64_t handle = before + 1; handle < after && after - before < 10; handle++)
        CHILD_CHECK(!grey_cleanup_stop(handle));
    CHILD_CHECK(grey_set_finalizer(object, nothing) == EEXIST); /* still there */
    CHILD_CHECK(grey_cleanup_stop(before) && grey_cleanup_stop(after));
    CHILD_CHECK(grey_set_finalizer(object, NULL) == 0);
}

static void handles_of_other_kinds(void **unused)
{
    (void)unused;
    for (int i = 0; i < 20; i++)
        apart(make_other_kinds, NULL);
    assert_int_equal(death_settle(), 0);
    forget();
}

/* Go's StopInterleaved: 1, 2, 1, 2, 1; the twos are stopped, three ones run. */
static void make_interleaved(void *seed)
{
    struct pair *pair = pair_new();
    uint64_t random = (uintptr_t)seed;
    grey_cleanup all[N];
    for (size_t i = 0; i < N; i++)
        add((char *)pair + i % 24, i % 2, &all[i]);
    for (size_t n = 0; n < N / 2;) { /* in any order: a ring can break at its ends and in the middle */
        random = random * 6364136223846793005u + 1442695040888963407u;
        n += grey_cleanup_stop(all[(random >> 33) % (N / 2) * 2 + 1]);
    }
}

static void stop_interleaved(void **unused)
{
    (void)unused;
    for (uintptr_t seed = 1; seed <= 10; seed++)
        apart(make_interleaved, (void *)seed);
    assert_int_equal(death_settle(), 10 * N / 2);
    assert_int_equal(atomic_load(&deaths[0]), 10 * N / 2);
    assert_int_equal(atomic_load(&deaths[1]), 0);
    forget();
}

/* ---- with a finalizer -------------------------------------------------------------------------------- */

static _Atomic unsigned finalized;
static void finalizer(void *object)
{
    CHILD_CHECK(grey_base(object) == object);
    CHILD_CHECK(deaths_of(0, N) == 0); /* CF-8 */
    atomic_fetch_add(&finalized, 1);
}

static void make_with_both(void *unused)
{
    (void)unused;
    for (size_t i = 0; i < N; i++) {
        struct pair *pair = pair_new();
        if (i % 2 == 0)
            add(pair, i, NULL);
        CHILD_CHECK(grey_set_finalizer(pair, finalizer) == 0);
        if (i % 2 != 0)
            add(pair, i, NULL);
    }
}

/* CF-8, OR-5: the finalizer in one cycle, the cleanup in a later one. */
static void after_the_finalizer(void **unused)
{
    (void)unused;
    atomic_store(&finalized, 0);
    apart(make_with_both, NULL);
    grey_collect();
    size_t first = death_cycle(); /* the one before queued them, or this */
    assert_int_equal(first, N);
    assert_int_equal(atomic_load(&finalized), N);
    assert_int_equal(deaths_of(0, N), 0);
    assert_int_equal(death_settle(), N);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(atomic_load(&deaths[i]), 1);
    forget();
}

/* ---- misuse ------------------------------------------------------------------------------------------ */

static int static_data = 1;
static int static_bss;
static const int static_constant = 2;
static _Thread_local int thread_local_data;

static void never(void *unused)
{
    (void)unused;
    CHILD_CHECK(!"a cleanup that was refused has run");
}

/* CF-6, ER-2 */
static void refusals(void **unused)
{
    (void)unused;
    int local = 0;
    void *of_libc = malloc(100);
    struct pair *pair = pair_new();
    char *large = grey_alloc(100000);
    grey_cleanup handle = 77;
    assert_int_equal(grey_cleanup_add(NULL, never, NULL, &handle), EINVAL);
    assert_int_equal(grey_cleanup_add(pair, NULL, NULL, &handle), EINVAL);
    assert_int_equal(grey_cleanup_add(&local, never, NULL, &handle), EINVAL);
    assert_int_equal(grey_cleanup_add(of_libc, never, NULL, &handle), EINVAL);
    assert_int_equal(grey_cleanup_add(&thread_local_data, never, NULL, &handle), EINVAL);
    assert_int_equal(grey_cleanup_add((void *)8, never, NULL, &handle), EINVAL);
    assert_int_equal(grey_cleanup_add((void *)UINTPTR_MAX, never, NULL, &handle), EINVAL);
    /* the argument in the object */
    assert_int_equal(grey_cleanup_add(pair, never, pair, &handle), EINVAL);
    assert_int_equal(grey_cleanup_add(pair, never, &pair->two, &handle), EINVAL);
    assert_int_equal(grey_cleanup_add(&pair->two, never, pair, &handle), EINVAL);
    assert_int_equal(grey_cleanup_add(large, never, large + 99999, &handle), EINVAL);
    assert_int_equal(grey_cleanup_add(large + 50000, never, large, &handle), EINVAL);
    assert_int_equal(grey_cleanup_add(&static_data, never, &static_data, &handle), EINVAL);
    assert_int_equal(handle, 77);
    free(of_libc);
    grey_keep_alive(pair);
    grey_keep_alive(large);
}

static void free_region(uintptr_t start, size_t size, void *arg) { (void)start, (void)size, (void)arg; }

static void foreign_objects(void **unused)
{
    (void)unused;
    char *region = malloc(4096);
    grey_foreign foreign;
    grey_cleanup handle = 77;
    assert_int_equal(grey_foreign_add(region, 4096, 0, free_region, NULL, &foreign), 0);
    assert_int_equal(grey_cleanup_add(region, never, NULL, &handle), ENOTSUP);
    assert_int_equal(grey_cleanup_add(region + 4095, never, NULL, &handle), ENOTSUP);
    assert_true(grey_foreign_release(foreign));
    assert_int_equal(grey_cleanup_add(region, never, NULL, &handle), EINVAL);
    assert_int_equal(handle, 77);
    free(region);
}

/* CF-6, CF-10: accepted, and nothing recorded. */
static void what_never_dies(void **unused)
{
    (void)unused;
    void *const never_die[] = {&static_data,   &static_bss,   (void *)&static_constant,
                               (void *)"text", grey_alloc(0), (void *)(uintptr_t)grey_version()};
    for (size_t i = 0; i < sizeof(never_die) / sizeof(never_die[0]); i++) {
        grey_cleanup handle = 77;
        assert_int_equal(grey_cleanup_add(never_die[i], never, NULL, &handle), 0);
        assert_int_equal(handle, 0);
        assert_int_equal(grey_cleanup_add(never_die[i], never, NULL, NULL), 0);
    }
    assert_int_equal(death_settle(), 0);
}

static void *unattached(void *object)
{
    (void)object;
    void *p = malloc(32);
    grey_cleanup handle = 77;
    CHILD_CHECK(!grey_cleanup_stop(12345678));
    CHILD_CHECK(grey_cleanup_add(p, never, NULL, &handle) == EINVAL);
    free(p);
    add(grey_alloc(64), 0, &handle); /* it is attached now */
    CHILD_CHECK(grey_cleanup_stop(handle));
    add(grey_alloc(64), 1, NULL);
    return NULL;
}

static void from_an_unattached_thread(void **unused)
{
    (void)unused;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, unattached, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(death_settle(), 1);
    assert_int_equal(atomic_load(&deaths[1]), 1);
    forget();
}

int main(void)
{
    grey_set_percent(-1);
    const struct CMUnitTest with_threads[] = {cmocka_unit_test(none_is_lost)};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(after_death_once),
        cmocka_unit_test(freed_in_the_same_cycle),
        cmocka_unit_test(several_on_one),
        cmocka_unit_test(all_sizes),
        cmocka_unit_test(rings),
        cmocka_unit_test(arg_is_a_root),
        cmocka_unit_test(reachable_from_its_own_arg),
        cmocka_unit_test(cleanups_allocate_add_and_collect),
        cmocka_unit_test(stopping),
        cmocka_unit_test(stop_made_up),
        cmocka_unit_test(handles_of_other_kinds),
        cmocka_unit_test(stop_interleaved),
        cmocka_unit_test(after_the_finalizer),
        cmocka_unit_test(refusals),
        cmocka_unit_test(foreign_objects),
        cmocka_unit_test(what_never_dies),
        cmocka_unit_test(from_an_unattached_thread),
    };
    return cmocka_run_group_tests(with_threads, NULL, NULL) + cmocka_run_group_tests(tests, death_init, NULL);
}
