/* tests/api/hold_test.c -- grey_hold, grey_held, grey_drop.
 *
 * Requirements: PN-5, PN-6, PN-20, TU-8.  Objects are made by threads that exist only for that
 * (support_death.h).  Interleavings with the steps of a cycle are forced in tests/hooks/pin_phase_test.c.
 */
#include "os/os.h"
#include "support_child.h"
#include "support_death.h"
#include "support_foreign.h"
#include "support_heap.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { N = 300, MANY = 100000 };

struct cell {
    void *next;
    uintptr_t number;
};
GREY_TYPE(cell_type, struct cell, next);

static grey_handle handle[MANY];
static int static_object = 3;

static struct cell *cell_new(uintptr_t number)
{
    struct cell *cell = grey_new(&cell_type);
    CHILD_CHECK(cell != NULL);
    cell->number = number;
    CHILD_CHECK(grey_cleanup_add(cell, count_death, (void *)number, NULL) == 0);
    return cell;
}
static void settle_and_reset(void)
{
    death_settle();
    deaths_reset();
}

/* ---- life -------------------------------------------------------------------------------------------- */

static void hold_many(void *unused)
{
    (void)unused;
    for (uintptr_t i = 0; i < N; i++) {
        struct cell *cell = cell_new(i);
        grey_store(&cell->next, cell_new(N + i));
        handle[i] = grey_hold((char *)cell + i % 16); /* interior or not */
        CHILD_CHECK(handle[i] != 0);
    }
}
static void check_held(void *unused)
{
    (void)unused;
    for (uintptr_t i = 0; i < N; i++) {
        struct cell *cell = (struct cell *)(void *)((char *)grey_held(handle[i]) - i % 16);
        CHILD_CHECK(cell->number == i && ((struct cell *)cell->next)->number == N + i);
        CHILD_CHECK(!grey_is_pinned(cell) && grey_pin_count(cell) == 0);
    }
}
static void drop_every(void *step)
{
    for (uintptr_t i = 0; i < N; i += (uintptr_t)step)
        if (grey_held(handle[i]) != NULL) {
            CHILD_CHECK(grey_drop(handle[i]));
            CHILD_CHECK(!grey_drop(handle[i]) && grey_held(handle[i]) == NULL); /* twice */
        }
}

/* A strong root until it is dropped. */
static void keeps_alive(void **unused)
{
    (void)unused;
    apart(hold_many, NULL);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(death_cycle(), 0);
        heap_reuse_free_memory();
        apart(check_held, NULL);
    }
    apart(drop_every, (void *)3);
    assert_int_equal(death_settle(), 2 * N / 3);
    apart(drop_every, (void *)1);
    assert_int_equal(death_settle(), 2 * N - 2 * N / 3);
    assert_int_equal(deaths_of(0, 2 * N), 2 * N);
    settle_and_reset();
}

/* Two holds of one object are two handles. */
static void hold_twice(void *unused)
{
    (void)unused;
    struct cell *cell = cell_new(0);
    handle[0] = grey_hold(cell);
    handle[1] = grey_hold(cell);
    CHILD_CHECK(handle[0] != handle[1]);
}
static void drop_one(void *i) { CHILD_CHECK(grey_drop(handle[(uintptr_t)i])); }
static void held_by_two(void **unused)
{
    (void)unused;
    apart(hold_twice, NULL);
    apart(drop_one, NULL);
    assert_int_equal(death_settle(), 0);
    apart(drop_one, (void *)1);
    assert_int_equal(death_settle(), 1);
    settle_and_reset();
}

/* What was held is on the stack of who drops it. */
static void use_after_drop(void *unused)
{
    (void)unused;
    for (uintptr_t i = 0; i < 20; i++) {
        handle[0] = grey_hold(cell_new(i));
        heap_wipe_stack();
        struct cell *cell = grey_held(handle[0]);
        CHILD_CHECK(grey_drop(handle[0]));
        heap_reuse_free_memory();
        CHILD_CHECK(cell->number == i && cell->next == NULL && grey_base(cell) == cell);
        grey_keep_alive(cell);
    }
}
static void used_after_drop(void **unused)
{
    (void)unused;
    apart(use_after_drop, NULL);
    assert_int_equal(death_settle(), 20);
    settle_and_reset();
}

/* ---- numbers ----------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    grey_handle x = *(const grey_handle *)a, y = *(const grey_handle *)b;
    return x < y ? -1 : x > y;
}
static void hold_a_hundred_thousand(void *unused)
{
    (void)unused;
    for (uintptr_t i = 0; i < MANY; i++) {
        uintptr_t *object = grey_alloc_leaf(sizeof(*object));
        *object = i;
        handle[i] = grey_hold(object);
        CHILD_CHECK(handle[i] != 0);
    }
}
static void check_a_hundred_thousand(void *unused)
{
    (void)unused;
    for (uintptr_t i = 0; i < MANY; i++)
        CHILD_CHECK(*(uintptr_t *)grey_held(handle[i]) == i);
}
static void drop_a_hundred_thousand(void *unused)
{
    (void)unused;
    for (size_t i = 0; i < MANY; i++)
        CHILD_CHECK(grey_drop(handle[i]));
    for (size_t i = 0; i < MANY; i++)
        CHILD_CHECK(grey_held(handle[i]) == NULL);
}

/* 100,000 at a time, and no number comes back. */
static void a_hundred_thousand(void **unused)
{
    (void)unused;
    enum { TIMES = 3 };
    static grey_handle all[TIMES * MANY];
    for (int time = 0; time < TIMES; time++) {
        apart(hold_a_hundred_thousand, NULL);
        grey_collect();
        heap_reuse_free_memory();
        apart(check_a_hundred_thousand, NULL);
        apart(drop_a_hundred_thousand, NULL);
        memcpy(&all[time * MANY], handle, sizeof(handle));
    }
    qsort(all, TIMES * MANY, sizeof(all[0]), compare);
    for (size_t i = 1; i < TIMES * MANY; i++)
        assert_true(all[i - 1] < all[i]);
    settle_and_reset();
}

static void ask_for_nonsense(void *unused)
{
    (void)unused;
    grey_handle real = grey_hold(&static_object);
    const grey_handle made_up[] = {0,
                                   1ull << 32,
                                   UINT64_MAX,
                                   UINT32_MAX,
                                   INT64_MAX,
                                   real + 1,
                                   real ^ 1ull << 32,
                                   real | 1ull << 63,
                                   (uintptr_t)&static_object};
    for (size_t i = 0; i < sizeof(made_up) / sizeof(made_up[0]); i++) {
        CHILD_CHECK(grey_held(made_up[i]) == NULL);
        CHILD_CHECK(!grey_drop(made_up[i]));
    }
    CHILD_CHECK(grey_held(real) == &static_object && grey_drop(real));
    errno = 0;
    CHILD_CHECK(grey_hold(NULL) == 0 && errno == EINVAL);
}
static void made_up_numbers(void **unused)
{
    (void)unused;
    apart(ask_for_nonsense, NULL);
}

/* ---- what is no object (PN-5, PN-6) ------------------------------------------------------------------ */

static void hold_what_never_dies(void *unused)
{
    (void)unused;
    int local = 4;
    void *of_libc = malloc(30);
    const void *const all[] = {&static_object, "a constant", &local, of_libc, grey_alloc(0), (void *)1};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        grey_handle held = grey_hold(all[i]);
        CHILD_CHECK(held != 0 && grey_held(held) == all[i]);
        CHILD_CHECK(grey_drop(held) && grey_held(held) == NULL);
    }
    free(of_libc);
}
static void what_never_dies(void **unused)
{
    (void)unused;
    apart(hold_what_never_dies, NULL);
}

static void hold_in_an_arena(void *unused)
{
    (void)unused;
    struct grey_arena *arena = grey_arena_new();
    char *object = grey_arena_alloc_leaf(arena, 100, 0);
    CHILD_CHECK(object != NULL);
    for (int i = 0; i < 2; i++) {
        errno = 0;
        CHILD_CHECK(grey_hold(object + i) == 0 && errno == ENOTSUP);
        if (i == 0)
            grey_arena_free(arena);
    }
}
static void arenas_have_no_handles(void **unused)
{
    (void)unused;
    apart(hold_in_an_arena, NULL);
}

static struct region region[2];
static char *unknown;
static void hold_region(void)
{
    region_new(&region[0], 5000, 0);
    handle[0] = grey_hold(region_start(&region[0]) + 4999);
    CHILD_CHECK(handle[0] != 0);
}
static void check_region(void *unused)
{
    (void)unused;
    CHILD_CHECK(grey_held(handle[0]) == region_start(&region[0]) + 4999);
    CHILD_CHECK(grey_pin_count(region_start(&region[0])) == 0);
}

static void a_region_is_kept(void **unused)
{
    (void)unused;
    region_thread(hold_region);
    death_settle();
    region_assert_lives(&region[0]);
    apart(check_region, NULL);
    apart(drop_one, NULL);
    death_settle();
    assert_int_equal(atomic_load(&region[0].died), 1);
}

static void release_and_add_again(void)
{
    CHILD_CHECK(grey_foreign_release(region[0].handle));
    region_add(&region[1], region_start(&region[0]), 5000, 0);
}
/* A later region at the same address isn't what was held. */
static void release_empties_handles(void **unused)
{
    (void)unused;
    memset(region, 0, sizeof(region));
    region_thread(hold_region);
    region_thread(release_and_add_again);
    death_settle();
    assert_int_equal(atomic_load(&region[0].died), 0);
    assert_int_equal(atomic_load(&region[1].died), 1);
    apart(drop_one, NULL);
}

static void hold_unknown(void)
{
    unknown = region_map(5000, 3);
    handle[0] = grey_hold(unknown);
    CHILD_CHECK(handle[0] != 0 && grey_held(handle[0]) == unknown);
    memset(region, 0, sizeof(region));
    region_add(&region[0], unknown, 5000, 0);
}
/* Nor is one that was registered after the hold. */
static void unknown_memory_stays_unknown(void **unused)
{
    (void)unused;
    region_thread(hold_unknown);
    unknown = NULL;
    death_settle();
    assert_int_equal(atomic_load(&region[0].died), 1);
    apart(drop_one, NULL);
}

/* ---- threads ----------------------------------------------------------------------------------------- */

/* Places in which holders put handles and from which droppers take them; lookers look. */
enum { THREADS = 6, PLACES = 64, TURNS = 20000 };
static _Atomic grey_handle place[PLACES];
static _Atomic unsigned long dropped_by_all, held_by_all, seen;

static void *hold_and_drop(void *arg) /* attached by its first call */
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    for (int i = 0; i < TURNS; i++) {
        uintptr_t *object = grey_alloc_leaf(2 * sizeof(*object));
        object[0] = (uintptr_t)i + 1;
        object[1] = ~object[0];
        grey_handle mine = grey_hold(object);
        CHILD_CHECK(mine != 0 && grey_held(mine) == object);
        atomic_fetch_add(&held_by_all, 1);
        grey_handle old = atomic_exchange(&place[rand_r(&seed) % PLACES], mine);
        if (old != 0 && grey_drop(old)) /* others may be quicker */
            atomic_fetch_add(&dropped_by_all, 1);
        grey_handle others = atomic_load(&place[rand_r(&seed) % PLACES]);
        uintptr_t *p = grey_held(others);
        if (p != NULL) { /* on this stack now, whoever drops it */
            CHILD_CHECK(p[0] == ~p[1] && grey_base(p) == p);
            atomic_fetch_add(&seen, 1);
            grey_keep_alive(p);
        }
        if (others != 0 && rand_r(&seed) % 4 == 0 && grey_drop(others))
            atomic_fetch_add(&dropped_by_all, 1);
    }
    return NULL;
}

static _Atomic bool looking;
static void *look(void *unused) /* not attached: what it gets may die, but the address is right */
{
    (void)unused;
    while (atomic_load(&looking))
        for (int i = 0; i < PLACES; i++) {
            uintptr_t p = (uintptr_t)grey_held(atomic_load(&place[i]));
            CHILD_CHECK(p % 16 == 0);
        }
    return NULL;
}

static void many_threads(void **unused)
{
    (void)unused;
    unsigned seed = (unsigned)time(NULL);
    printf("seed %u\n", seed);
    pthread_t thread[THREADS], looker;
    atomic_store(&looking, true);
    assert_int_equal(pthread_create(&looker, NULL, look, NULL), 0);
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, hold_and_drop, (void *)(seed + i)), 0);
    for (int i = 0; i < 20; i++)
        grey_collect();
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(grey_thread_join(thread[i], NULL), 0);
    atomic_store(&looking, false);
    assert_int_equal(pthread_join(looker, NULL), 0);
    assert_true(atomic_load(&seen) != 0);
    for (int i = 0; i < PLACES; i++)
        if (grey_drop(atomic_load(&place[i])))
            atomic_fetch_add(&dropped_by_all, 1);
    assert_int_equal(atomic_load(&dropped_by_all), atomic_load(&held_by_all)); /* each exactly once */
}

/* Any thread looks up and drops, not only who held it. */
static void *look_up_unattached(void *expected) { return grey_held(handle[0]) == expected ? expected : NULL; }
static void other_threads(void **unused)
{
    (void)unused;
    handle[0] = grey_hold(&static_object);
    pthread_t thread;
    void *result;
    uint64_t threads = heap_figures().threads;
    assert_int_equal(pthread_create(&thread, NULL, look_up_unattached, &static_object), 0);
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_ptr_equal(result, &static_object);
    assert_true(heap_figures().threads == threads); /* grey_held attaches nobody */
    apart(drop_one, NULL);
    assert_null(grey_held(handle[0]));
}

/* ---- processes of their own -------------------------------------------------------------------------- */

/* TU-8: answers without starting the library. */
static void before_start(void)
{
    CHILD_CHECK(grey_held(0) == NULL && grey_held(1) == NULL && grey_held(UINT64_MAX) == NULL);
    CHILD_CHECK(!grey_drop(0) && !grey_drop(1));
    errno = 0;
    CHILD_CHECK(grey_hold(NULL) == 0 && errno == EINVAL);
    CHILD_CHECK(grey_init(NULL) == 0); /* so it was not up */
    grey_handle held = grey_hold(grey_alloc(10));
    CHILD_CHECK(grey_held(held) != NULL);
    grey_shutdown(); /* with something held */
    CHILD_CHECK(grey_held(held) == NULL && !grey_drop(held));
    CHILD_CHECK(grey_hold(NULL) == 0);
    held = grey_hold(&static_object); /* starts it */
    CHILD_CHECK(grey_held(held) == &static_object && grey_drop(held));
    grey_shutdown();
}
static void before_and_after(void **unused)
{
    (void)unused;
    child_passes("before_start", NULL);
}

static void fork_with_handles(void)
{
    death_init(NULL);
    apart(hold_many, NULL);
    pid_t child = fork();
    if (child == 0) {
        apart(check_held, NULL);
        CHILD_CHECK(death_settle() == 0);
        apart(drop_every, (void *)1);
        CHILD_CHECK(death_settle() == 2 * N);
        _exit(0);
    }
    int status;
    CHILD_CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    CHILD_CHECK(death_settle() == 0);
    apart(check_held, NULL);
}
static void handles_in_a_forked_child(void **unused)
{
    (void)unused;
#if OS_ASAN || OS_TSAN
    skip(); /* they do not survive it */
#endif
    child_passes("fork_with_handles", NULL);
}

int main(int argc, char **argv)
{
    static const struct child_case cases[] = {
        {"before_start", before_start},
        {"fork_with_handles", fork_with_handles},
    };
    CHILD_MAIN(argc, argv, cases);
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_alive),
        cmocka_unit_test(held_by_two),
        cmocka_unit_test(used_after_drop),
        cmocka_unit_test(a_hundred_thousand),
        cmocka_unit_test(made_up_numbers),
        cmocka_unit_test(what_never_dies),
        cmocka_unit_test(arenas_have_no_handles),
        cmocka_unit_test(a_region_is_kept),
        cmocka_unit_test(release_empties_handles),
        cmocka_unit_test(unknown_memory_stays_unknown),
        cmocka_unit_test(many_threads),
        cmocka_unit_test(other_threads),
        cmocka_unit_test(before_and_after),
        cmocka_unit_test(handles_in_a_forked_child),
    };
    return cmocka_run_group_tests(tests, death_init, NULL);
}
