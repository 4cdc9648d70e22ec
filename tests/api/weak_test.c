/* tests/api/weak_test.c -- grey_weak_new and grey_weak_get.
 *
 * Requirements: CF-18, CF-20 .. CF-26, OR-4, ER-2.  Objects are made by threads that exist only for that
 * (support_death.h), so what is dead is certain.  Interleavings with the end of marking are forced in
 * tests/hooks/weak_test.c.
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
GREY_ROOT(struct grey_weak *[N], weak);
GREY_ROOT(struct grey_weak *[N], second);
static uintptr_t hidden[N], hidden_weak[N];

static struct pair *pair_new(long number)
{
    struct pair *pair = grey_new(&pair_type);
    CHILD_CHECK(pair != NULL);
    pair->number = number;
    return pair;
}
static void drop(size_t from, size_t step)
{
    for (size_t i = from; i < N; i += step)
        grey_store(&kept[i], NULL);
}
static void forget(void)
{
    drop(0, 1);
    for (int i = 0; i < N; i++) {
        grey_store(&weak[i], NULL);
        grey_store(&second[i], NULL);
    }
    death_settle();
    deaths_reset();
}

static void make_kept(void *unused)
{
    (void)unused;
    for (int i = 0; i < N; i++) {
        grey_store(&kept[i], pair_new(i));
        grey_store(&weak[i], grey_weak_new(kept[i]));
        CHILD_CHECK(weak[i] != NULL);
        hidden[i] = HIDE(kept[i]);
        hidden_weak[i] = HIDE(weak[i]);
    }
}

/* Each weak reference gives its object (1), nothing (0), or that for the odd ones only (2). */
static void check_weak(void *how)
{
    for (int i = 0; i < N; i++) {
        struct pair *pair = grey_weak_get(weak[i]);
        bool alive = (uintptr_t)how == 1 || ((uintptr_t)how == 2 && i % 2 != 0);
        CHILD_CHECK((pair != NULL) == alive);
        CHILD_CHECK(pair == NULL ||
                    (pair == SHOW(hidden[i]) && pair->number == i && grey_base(pair) == pair));
    }
}
static void assert_weak(int how) { apart(check_weak, (void *)(uintptr_t)how); }

/* CF-20, CF-21: the pointer while it lives, NULL afterwards, for ever. */
static void pointer_while_it_lives(void **unused)
{
    (void)unused;
    struct grey_stats before = heap_figures();
    apart(make_kept, NULL);
    for (int i = 0; i < 3; i++) {
        assert_weak(1);
        grey_collect();
    }
    assert_int_equal(heap_figures().weak - before.weak, N);
    drop(0, 2);
    grey_collect();
    grey_collect();
    for (int i = 0; i < 3; i++) {
        assert_weak(2);
        heap_reuse_free_memory();
    }
    assert_int_equal(heap_figures().weak - before.weak, N / 2);
    drop(1, 2);
    grey_collect();
    grey_collect();
    assert_weak(0);
    heap_reuse_free_memory();
    assert_weak(0);
    assert_int_equal(heap_figures().weak, before.weak);
    forget();
}

/* A weak reference keeps nothing alive: the objects are freed. */
static void keeps_nothing(void **unused)
{
    (void)unused;
    apart(make_kept, NULL);
    grey_collect();
    grey_collect();
    struct grey_stats before = heap_figures();
    drop(0, 1);
    grey_collect();
    grey_collect();
    assert_true(heap_figures().freed_objects - before.freed_objects >= N);
    /* The cells go when nobody holds them. */
    before = heap_figures();
    forget();
    assert_true(heap_figures().freed_objects - before.freed_objects >= N);
}

static void check_same(void *unused)
{
    (void)unused;
    for (int i = 0; i < N; i++) {
        CHILD_CHECK(grey_weak_new(kept[i]) == SHOW(hidden_weak[i]));
        for (int offset = 1; offset < 24; offset++) {
            struct grey_weak *other = grey_weak_new((char *)kept[i] + offset);
            CHILD_CHECK(other != NULL && other != SHOW(hidden_weak[i]));
            CHILD_CHECK(other == grey_weak_new((char *)kept[i] + offset));
            CHILD_CHECK(grey_weak_get(other) == (char *)kept[i] + offset);
        }
    }
}
static void let_go_of_cells(void *unused)
{
    (void)unused;
    for (int i = 0; i < N; i++)
        grey_store(&weak[i], NULL);
}

/* CF-20: one for an address while the object lives, whether somebody holds it or not; another for another
 * address. */
static void canonical(void **unused)
{
    (void)unused;
    apart(make_kept, NULL);
    apart(check_same, NULL);
    apart(let_go_of_cells, NULL);
    heap_reuse_free_memory();
    apart(check_same, NULL);
    forget();
}

static void make_large(void *unused)
{
    (void)unused;
    char *large = grey_alloc(2 << 20);
    CHILD_CHECK(large != NULL);
    hidden[0] = HIDE(large);
    grey_store(&kept[0], (struct pair *)(large + 12345));
    for (size_t i = 0; i < N; i++) {
        grey_store(&weak[i], grey_weak_new(large + i * 6000));
        CHILD_CHECK(grey_weak_get(weak[i]) == large + i * 6000);
    }
}
static void check_large(void *alive)
{
    for (size_t i = 0; i < N; i++) {
        char *p = (char *)SHOW(hidden[0]) + i * 6000;
        CHILD_CHECK(grey_weak_get(weak[i]) == (alive != NULL ? p : NULL));
        CHILD_CHECK(alive == NULL || grey_weak_new(p) == weak[i]);
    }
}

/* Issue70739: far into an object of 2 MiB; all of them together become NULL. */
static void large_objects(void **unused)
{
    (void)unused;
    apart(make_large, NULL);
    heap_reuse_free_memory();
    apart(check_large, &weak);
    drop(0, 1);
    grey_collect();
    grey_collect();
    apart(check_large, NULL);
    forget();
}

/* ---- before callbacks (CF-21, OR-4) ------------------------------------------------------------------ */

static _Atomic unsigned ran;
static void check_cleared(void *index)
{
    CHILD_CHECK(grey_weak_get(weak[(uintptr_t)index]) == NULL);
    atomic_fetch_add(&ran, 1);
}
static void check_cleared_and_keep(void *object)
{
    struct pair *pair = object;
    struct grey_weak *old = weak[pair->number];
    CHILD_CHECK(grey_weak_get(old) == NULL);
    struct grey_weak *fresh = grey_weak_new(pair);
    CHILD_CHECK(fresh != NULL && fresh != old && grey_weak_get(fresh) == pair);
    grey_store(&kept[pair->number], pair);
    grey_store(&second[pair->number], fresh);
    atomic_fetch_add(&ran, 1);
}
static void add_cleanups(void *unused)
{
    (void)unused;
    for (uintptr_t i = 0; i < N; i++)
        CHILD_CHECK(grey_cleanup_add(kept[i], check_cleared, (void *)i, NULL) == 0);
}
static void set_finalizers(void *unused)
{
    (void)unused;
    for (int i = 0; i < N; i++)
        CHILD_CHECK(grey_set_finalizer(kept[i], check_cleared_and_keep) == 0);
}

static void cleared_before_cleanups(void **unused)
{
    (void)unused;
    atomic_store(&ran, 0);
    apart(make_kept, NULL);
    apart(add_cleanups, NULL);
    drop(0, 1);
    assert_int_equal(death_settle(), N);
    assert_int_equal(atomic_load(&ran), N);
    forget();
}

static void check_resurrected(void *unused)
{
    (void)unused;
    for (int i = 0; i < N; i++) {
        CHILD_CHECK(kept[i] == SHOW(hidden[i]) && kept[i]->number == i);
        CHILD_CHECK(grey_weak_get(weak[i]) == NULL);
        CHILD_CHECK(grey_weak_get(second[i]) == kept[i]);
        CHILD_CHECK(grey_weak_new(kept[i]) == second[i]);
    }
}
static void check_both_cleared(void *unused)
{
    (void)unused;
    for (int i = 0; i < N; i++)
        CHILD_CHECK(grey_weak_get(weak[i]) == NULL && grey_weak_get(second[i]) == NULL);
}

/* CF-18, CF-21: before the finalizer, and for ever, even if the object comes back; a new one is another. */
static void cleared_before_finalizers(void **unused)
{
    (void)unused;
    atomic_store(&ran, 0);
    apart(make_kept, NULL);
    apart(set_finalizers, NULL);
    drop(0, 1);
    assert_int_equal(death_settle(), N);
    assert_int_equal(atomic_load(&ran), N);
    for (int i = 0; i < 3; i++) {
        apart(check_resurrected, NULL);
        heap_reuse_free_memory();
    }
    drop(0, 1);
    assert_int_equal(death_settle(), 0);
    apart(check_both_cleared, NULL);
    forget();
}

static void nothing(void *object) { (void)object; }
static void make_behind_finalizers(void *unused)
{
    (void)unused;
    for (int i = 0; i < N; i++) {
        struct pair *outer = pair_new(i), *inner = pair_new(i);
        grey_store(&outer->one, inner);
        grey_store(&weak[i], grey_weak_new(inner));
        hidden[i] = HIDE(inner);
        CHILD_CHECK(grey_set_finalizer(outer, nothing) == 0);
    }
}

/* What a finalizer keeps for itself is not dead yet. */
static void reachable_from_a_finalizer(void **unused)
{
    (void)unused;
    apart(make_behind_finalizers, NULL);
    grey_collect();
    grey_collect();
    assert_weak(1); /* queued, not run */
    assert_int_equal(death_settle(), N);
    assert_weak(0);
    forget();
}

/* ---- cells ------------------------------------------------------------------------------------------- */

/* CF-25: leaf objects beside them live and die by themselves. */
static void make_beside(void *unused)
{
    (void)unused;
    for (int i = 0; i < N; i++) {
        grey_store(&kept[i], pair_new(i));
        grey_store(&kept[i]->one, heap_marked_leaf(16, (uint64_t)i));
        grey_store(&weak[i], grey_weak_new(kept[i]));
        heap_marked_leaf(16, (uint64_t)i);
        hidden[i] = HIDE(kept[i]);
    }
}
static void cells_are_objects_of_their_own(void **unused)
{
    (void)unused;
    apart(make_beside, NULL);
    for (int i = 0; i < N; i++) {
        assert_ptr_equal(grey_base(weak[i]), weak[i]);
        assert_int_equal(grey_size(weak[i]), 16);
        for (int k = 0; k < i; k++)
            assert_ptr_not_equal(weak[i], weak[k]);
    }
    heap_reuse_free_memory();
    assert_weak(1);
    for (int i = 0; i < N; i++)
        assert_true(heap_leaf_is_intact(kept[i]->one, (uint64_t)i));
    forget();
}

static void make_weak_to_weak(void *unused)
{
    (void)unused;
    grey_store(&kept[0], pair_new(0));
    struct grey_weak *inner = grey_weak_new(kept[0]);
    grey_store(&weak[0], grey_weak_new(inner));
    CHILD_CHECK(grey_weak_get(weak[0]) == inner);
}
static void check_weak_to_weak(void *alive)
{
    struct grey_weak *inner = grey_weak_get(weak[0]);
    CHILD_CHECK((inner != NULL) == (alive != NULL));
    CHILD_CHECK(grey_weak_get(inner) == (inner != NULL ? kept[0] : NULL));
}

/* A cell is a heap object: it lives as long as its target, and dies. */
static void weak_to_weak(void **unused)
{
    (void)unused;
    apart(make_weak_to_weak, NULL);
    grey_collect();
    grey_collect();
    apart(check_weak_to_weak, &weak);
    drop(0, 1);
    for (int i = 0; i < 3; i++)
        grey_collect();
    apart(check_weak_to_weak, NULL);
    forget();
}

/* ---- static memory and misuse ------------------------------------------------------------------------ */

static int static_data[1000];
static const int static_constant = 2;

/* CF-24 */
static void static_memory(void **unused)
{
    (void)unused;
    void *const never_die[] = {&static_data[3], (void *)&static_constant, (void *)"text", grey_alloc(0)};
    enum { KINDS = sizeof(never_die) / sizeof(never_die[0]) };
    uintptr_t references[KINDS], many[1000];
    struct grey_stats before = heap_figures();
    for (size_t i = 0; i < KINDS; i++) {
        references[i] = HIDE(grey_weak_new(never_die[i])); /* held by nobody */
        assert_ptr_not_equal(SHOW(references[i]), NULL);
    }
    for (size_t i = 0; i < 1000; i++)
        many[i] = HIDE(grey_weak_new(&static_data[i]));
    assert_int_equal(heap_figures().weak - before.weak, 999 + KINDS);
    for (int round = 0; round < 3; round++) {
        heap_reuse_free_memory();
        for (size_t i = 0; i < KINDS; i++) {
            assert_ptr_equal(grey_weak_get(SHOW(references[i])), never_die[i]);
            assert_ptr_equal(grey_weak_new(never_die[i]), SHOW(references[i]));
        }
        for (size_t i = 0; i < 1000; i++) {
            assert_ptr_equal(grey_weak_get(SHOW(many[i])), &static_data[i]);
            assert_ptr_equal(grey_weak_new(&static_data[i]), SHOW(many[i]));
        }
    }
    assert_int_equal(heap_figures().weak - before.weak, 999 + KINDS);
}

static void assert_refused(void *p, int error)
{
    errno = 0;
    assert_null(grey_weak_new(p));
    assert_int_equal(errno, error);
}
static void free_region(uintptr_t start, size_t size, void *arg) { (void)start, (void)size, (void)arg; }

/* CF-20, CF-26, ER-2 */
static void refusals(void **unused)
{
    (void)unused;
    int local = 0;
    char *of_libc = malloc(4096);
    assert_refused(NULL, EINVAL);
    assert_refused(&local, EINVAL);
    assert_refused(of_libc, EINVAL);
    assert_refused((void *)8, EINVAL);
    grey_foreign foreign;
    assert_int_equal(grey_foreign_add(of_libc, 4096, 0, free_region, NULL, &foreign), 0);
    assert_refused(of_libc, ENOTSUP);
    assert_refused(of_libc + 4095, ENOTSUP);
    assert_true(grey_foreign_release(foreign));
    free(of_libc);
    errno = 0;
    assert_null(grey_weak_get(NULL));
    assert_int_equal(errno, 0);
}

static void *unattached(void *cell)
{
    void *p = grey_weak_get(cell);
    CHILD_CHECK(p == &static_data[0]);
    CHILD_CHECK(grey_weak_new(grey_alloc(32)) != NULL);
    return NULL;
}
static void from_an_unattached_thread(void **unused)
{
    (void)unused;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, unattached, grey_weak_new(&static_data[0])), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    forget();
}

/* ---- many threads ask for one address ---------------------------------------------------------------- */

enum { ASKERS = 4, ROUNDS = 2000 };
static _Atomic(struct grey_weak *) answers[ASKERS][ROUNDS];
GREY_ROOT(struct pair *[ROUNDS], asked);
static _Atomic unsigned ready;

static void *ask(void *number)
{
    CHILD_CHECK(grey_thread_attach() == 0);
    atomic_fetch_add(&ready, 1);
    while (atomic_load(&ready) < ASKERS)
        ;
    for (size_t i = 0; i < ROUNDS; i++)
        atomic_store(&answers[(uintptr_t)number][i], grey_weak_new(asked[i]));
    return NULL;
}

/* CF-20: all get the same, since the objects live; also what is in an int does not keep it. */
static void asked_for_at_once(void **unused)
{
    (void)unused;
    pthread_t threads[ASKERS];
    for (long i = 0; i < ROUNDS; i++)
        grey_store(&asked[i], pair_new(i));
    atomic_store(&ready, 0);
    for (uintptr_t i = 0; i < ASKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask, (void *)i), 0);
    for (int i = 0; i < 10; i++)
        grey_collect();
    for (int i = 0; i < ASKERS; i++)
        assert_int_equal(grey_thread_join(threads[i], NULL), 0);
    grey_collect();
    for (size_t i = 0; i < ROUNDS; i++) {
        struct grey_weak *answer = atomic_load(&answers[0][i]);
        for (int k = 1; k < ASKERS; k++)
            assert_ptr_equal(atomic_load(&answers[k][i]), answer);
        assert_ptr_equal(grey_base(answer), answer);
        assert_ptr_equal(grey_weak_get(answer), asked[i]);
        grey_store(&asked[i], NULL);
    }
    forget();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pointer_while_it_lives),
        cmocka_unit_test(keeps_nothing),
        cmocka_unit_test(canonical),
        cmocka_unit_test(large_objects),
        cmocka_unit_test(cleared_before_cleanups),
        cmocka_unit_test(cleared_before_finalizers),
        cmocka_unit_test(reachable_from_a_finalizer),
        cmocka_unit_test(cells_are_objects_of_their_own),
        cmocka_unit_test(weak_to_weak),
        cmocka_unit_test(static_memory),
        cmocka_unit_test(refusals),
        cmocka_unit_test(from_an_unattached_thread),
        cmocka_unit_test(asked_for_at_once),
    };
    return cmocka_run_group_tests(tests, death_init, NULL);
}
