/* tests/api/finalizer_test.c -- grey_set_finalizer.
 *
 * Requirements: CF-8, CF-10, CF-14 .. CF-19, CF-21, OR-4, OR-5, ER-2, TP-9.  Objects are made by threads that
 * exist only for that and finalizers run when the test says so (support_death.h), so what dies in which cycle
 * is exact.
 */
#include "support_child.h"
#include "support_death.h"
#include "support_heap.h"

#include <stdlib.h>
#include <string.h>

enum { N = 250 };

struct node {
    struct node *next, *other;
    void *leaf;
    size_t number;
};
GREY_TYPE(node_type, struct node, next, other, leaf);

GREY_ROOT(struct node *[N], kept);
static uintptr_t hidden[N];
static struct grey_stats before;

static struct node *node_new(size_t number)
{
    struct node *node = grey_new(&node_type);
    CHILD_CHECK(node != NULL);
    node->number = number;
    grey_store(&node->leaf, heap_marked_leaf(48, number));
    return node;
}

/* The object and what it points to are whole; it has no finalizer any more. */
static void finalize(void *object)
{
    struct node *node = object;
    CHILD_CHECK(grey_base(node) == node && node->number < DEATHS);
    CHILD_CHECK(heap_leaf_is_intact(node->leaf, node->number));
    if (node->next != NULL)
        CHILD_CHECK(grey_base(node->next) == node->next && node->next->number == node->number + 1);
    count_death((void *)node->number);
}
static void never(void *object)
{
    (void)object;
    CHILD_CHECK(!"a finalizer that was refused or cleared has run");
}
static void forget(void)
{
    for (int i = 0; i < N; i++)
        grey_store(&kept[i], NULL);
    death_settle();
    deaths_reset();
}
static void assert_each(size_t n, unsigned times)
{
    for (size_t i = 0; i < n; i++)
        if (atomic_load(&deaths[i]) != times)
            fail_msg("finalizer %zu ran %u times, not %u", i, atomic_load(&deaths[i]), times);
}

/* ---- death ------------------------------------------------------------------------------------------- */

static void make_kept(void *unused)
{
    (void)unused;
    for (size_t i = 0; i < N; i++) {
        grey_store(&kept[i], node_new(i));
        hidden[i] = HIDE(kept[i]);
        CHILD_CHECK(grey_set_finalizer(kept[i], finalize) == 0);
    }
}

static void check_hidden(void *unused)
{
    (void)unused;
    for (int i = 0; i < N; i++)
        CHILD_CHECK(grey_base(SHOW(hidden[i])) == SHOW(hidden[i]));
}

/* CF-15: once, not while it is reachable; the object is kept for it, with all that it points to, and freed
 * when it is next found unreachable. */
static void once_then_freed(void **unused)
{
    (void)unused;
    apart(make_kept, NULL);
    heap_reuse_free_memory();
    assert_int_equal(death_settle(), 0);
    before = heap_figures();
    for (int i = 0; i < N; i++)
        grey_store(&kept[i], NULL);
    grey_collect();
    grey_collect(); /* queued now, not run: kept */
    heap_reuse_free_memory();
    assert_int_equal(deaths_of(0, N), 0);
    apart(check_hidden, NULL);
    assert_int_equal(death_settle(), N);
    assert_each(N, 1);
    assert_true(heap_figures().freed_objects - before.freed_objects >= 2 * N);
    forget();
}

static void store_again(void *object)
{
    struct node *node = object;
    finalize(node);
    grey_store(&kept[node->number], node);
}

static void set_store_again(void *unused)
{
    (void)unused;
    for (int i = 0; i < N; i++) {
        CHILD_CHECK(grey_set_finalizer(kept[i], NULL) == 0); /* the first time there is one */
        CHILD_CHECK(grey_set_finalizer(kept[i], store_again) == 0);
    }
}
static void check_kept(void *unused)
{
    (void)unused;
    for (size_t i = 0; i < N; i++)
        CHILD_CHECK(kept[i] == SHOW(hidden[i]) && kept[i]->number == i &&
                    heap_leaf_is_intact(kept[i]->leaf, i));
}

/* CF-18: brought back it has no finalizer; it can have one again, and that runs too. */
static void resurrection(void **unused)
{
    (void)unused;
    apart(make_kept, NULL);
    apart(set_store_again, NULL);
    for (unsigned round = 1; round <= 3; round++) {
        for (int i = 0; i < N; i++)
            grey_store(&kept[i], NULL);
        assert_int_equal(death_settle(), N);
        assert_each(N, round);
        heap_reuse_free_memory();
        apart(check_kept, NULL);
        if (round < 3)
            apart(set_store_again, NULL);
    }
    before = heap_figures();
    for (int i = 0; i < N; i++)
        grey_store(&kept[i], NULL);
    assert_int_equal(death_settle(), 0);
    assert_true(heap_figures().freed_objects - before.freed_objects >= 2 * N);
    forget();
}

static void set_again(void *object)
{
    struct node *node = object;
    finalize(node);
    if (atomic_load(&deaths[node->number]) < 3)
        CHILD_CHECK(grey_set_finalizer(node, set_again) == 0);
}

static void make_that_set_again(void *unused)
{
    (void)unused;
    for (size_t i = 0; i < N; i++)
        CHILD_CHECK(grey_set_finalizer(node_new(i), set_again) == 0);
}

/* D-15: once per setting. */
static void setting_in_the_finalizer(void **unused)
{
    (void)unused;
    apart(make_that_set_again, NULL);
    assert_int_equal(death_settle(), 3 * N);
    assert_each(N, 3);
    forget();
}

/* ---- order ------------------------------------------------------------------------------------------- */

enum { CHAINS = 250, LENGTH = 4 };
static _Atomic unsigned in_order[CHAINS];

static void finalize_link(void *object)
{
    struct node *node = object;
    finalize(node);
    CHILD_CHECK(atomic_fetch_add(&in_order[node->number / LENGTH], 1) == node->number % LENGTH);
}

static void make_chains(void *unused)
{
    (void)unused;
    for (size_t i = 0; i < CHAINS; i++) {
        struct node *next = NULL;
        for (size_t k = LENGTH; k-- > 0;) {
            struct node *node = node_new(i * LENGTH + k);
            grey_store(&node->next, next);
            CHILD_CHECK(grey_set_finalizer(node, finalize_link) == 0);
            next = node;
        }
    }
}

/* CF-16: A points to B: A's first, B's when A was freed, so a cycle for each. */
static void in_the_order_of_pointers(void **unused)
{
    (void)unused;
    apart(make_chains, NULL);
    grey_collect();
    for (unsigned k = 1; k <= LENGTH; k++) {
        grey_collect(); /* nothing more is queued before those that are have run */
        assert_int_equal(death_cycle(), CHAINS);
        for (size_t i = 0; i < CHAINS; i++)
            assert_int_equal(atomic_load(&in_order[i]), k);
        grey_collect();
    }
    assert_int_equal(death_settle(), 0);
    assert_each(CHAINS * LENGTH, 1);
    forget();
}

static void make_ring(void *unused)
{
    (void)unused;
    struct node *first = node_new(0), *last = first;
    for (size_t i = 1; i < N; i++) {
        struct node *node = node_new(i);
        grey_store(&last->other, node);
        last = node;
    }
    grey_store(&last->other, first);
    hidden[0] = HIDE(first);
    CHILD_CHECK(grey_set_finalizer(first, finalize) == 0);
    CHILD_CHECK(grey_cleanup_add(last, count_death, (void *)N, NULL) == 0);
}

static void walk_ring_and_clear(void *unused)
{
    (void)unused;
    struct node *node = SHOW(hidden[0]);
    for (size_t i = 0; i < N; i++, node = node->other)
        CHILD_CHECK(grey_base(node) == node && node->number == i);
    CHILD_CHECK(node == SHOW(hidden[0]));
    CHILD_CHECK(grey_set_finalizer(node, NULL) == 0);
}

/* CF-16, TP-9: a ring with a finalizer is never freed and nothing of it runs; without, it goes. */
static void rings_live(void **unused)
{
    (void)unused;
    apart(make_ring, NULL);
    assert_int_equal(death_settle(), 0);
    heap_reuse_free_memory();
    apart(walk_ring_and_clear, NULL);
    assert_int_equal(death_settle(), 1);
    assert_int_equal(atomic_load(&deaths[N]), 1);
    forget();
}

static void make_self(void *unused)
{
    (void)unused;
    for (size_t i = 0; i < N; i++) {
        struct node *node = node_new(i);
        grey_store(&node->other, node);
        CHILD_CHECK(grey_set_finalizer(node, never) == 0);
        hidden[i] = HIDE(node);
    }
}
static void clear_all(void *unused)
{
    (void)unused;
    for (int i = 0; i < N; i++)
        CHILD_CHECK(grey_set_finalizer(SHOW(hidden[i]), NULL) == 0);
}

static void pointers_to_itself(void **unused)
{
    (void)unused;
    apart(make_self, NULL);
    assert_int_equal(death_settle(), 0);
    apart(check_hidden, NULL);
    before = heap_figures();
    apart(clear_all, NULL);
    assert_int_equal(death_settle(), 0);
    assert_true(heap_figures().freed_objects - before.freed_objects >= 2 * N);
}

/* ---- what it keeps ----------------------------------------------------------------------------------- */

static _Atomic unsigned large_done;
static void finalize_large(void *object)
{
    void **words = object;
    size_t n = grey_size(object) / sizeof(*words);
    for (size_t i = 0; i < n; i += 100)
        CHILD_CHECK(heap_leaf_is_intact(words[i], i));
    atomic_fetch_add(&large_done, 1);
}
static void finalize_wide(void *object)
{
    CHILD_CHECK(heap_leaf_is_intact(*(void **)object, 6));
    atomic_fetch_add(&large_done, 1);
}
static void finalize_leaf(void *object)
{
    CHILD_CHECK(heap_leaf_is_intact(object, 5));
    atomic_fetch_add(&large_done, 1);
}
static void fill(void **words)
{
    for (size_t i = 0; i < grey_size(words) / sizeof(*words); i += 100)
        grey_store(&words[i], heap_marked_leaf(32, i));
}
static void make_large(void *unused)
{
    (void)unused;
    struct pointer {
        void *to;
    };
    GREY_TYPE(pointer_type, struct pointer, to);
    struct wide {
        void *to[100];
        long n;
    };
    GREY_TYPE(wide_type, struct wide, GREY_ARRAY(to, 1));
    void *large[] = {grey_alloc(1 << 20), grey_new_array(&pointer_type, 100000), grey_alloc(5000),
                     grey_new_array(&pointer_type, 1000)};
    for (size_t i = 0; i < sizeof(large) / sizeof(large[0]); i++) {
        CHILD_CHECK(large[i] != NULL);
        fill(large[i]);
        CHILD_CHECK(grey_set_finalizer(large[i], finalize_large) == 0);
    }
    CHILD_CHECK(grey_set_finalizer(heap_marked_leaf(1 << 20, 5), finalize_leaf) == 0);
    CHILD_CHECK(grey_set_finalizer(heap_marked_leaf(64, 5), finalize_leaf) == 0);
    struct wide *wide = grey_new(&wide_type);
    grey_store(&wide->to[0], heap_marked_leaf(48, 6));
    CHILD_CHECK(grey_set_finalizer(wide, finalize_wide) == 0);
}

/* CF-17: large objects, arrays, leaves. */
static void all_kinds_of_objects(void **unused)
{
    (void)unused;
    atomic_store(&large_done, 0);
    apart(make_large, NULL);
    grey_collect();
    grey_collect();
    heap_reuse_free_memory();
    assert_int_equal(death_settle(), 7);
    assert_int_equal(atomic_load(&large_done), 7);
    forget();
}

/* ---- setting and clearing ---------------------------------------------------------------------------- */

static void make_cleared(void *unused)
{
    (void)unused;
    for (size_t i = 0; i < N; i++) {
        struct node *node = node_new(i);
        CHILD_CHECK(grey_set_finalizer(node, NULL) == 0); /* none to clear */
        CHILD_CHECK(grey_set_finalizer(node, never) == 0);
        CHILD_CHECK(grey_set_finalizer(node, never) == EEXIST);
        CHILD_CHECK(grey_set_finalizer(node, finalize) == EEXIST);
        CHILD_CHECK(grey_set_finalizer(node, NULL) == 0);
        CHILD_CHECK(grey_set_finalizer(node, NULL) == 0);
        if (i % 2 == 0)
            CHILD_CHECK(grey_set_finalizer(node, finalize) == 0);
    }
}

/* CF-14 */
static void clearing(void **unused)
{
    (void)unused;
    apart(make_cleared, NULL);
    assert_int_equal(death_settle(), N / 2);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(atomic_load(&deaths[i]), i % 2 == 0);
    forget();
}

static void make_while_kept(void *unused)
{
    (void)unused;
    struct node *node = node_new(0);
    CHILD_CHECK(grey_set_finalizer(node, finalize) == 0);
    for (int i = 0; i < 5; i++) {
        grey_collect();
        CHILD_CHECK(grey_cleanup_run(SIZE_MAX) == 0);
    }
    grey_keep_alive(node);
}

/* MK-22, DeferKeepAlive. */
static void not_while_kept(void **unused)
{
    (void)unused;
    apart(make_while_kept, NULL);
    assert_int_equal(death_settle(), 1);
    forget();
}

/* ---- misuse ------------------------------------------------------------------------------------------ */

static int static_data = 1;
static const int static_constant = 2;
static void free_region(uintptr_t start, size_t size, void *arg) { (void)start, (void)size, (void)arg; }

/* CF-14, ER-2 */
static void refusals(void **unused)
{
    (void)unused;
    int local = 0;
    char *of_libc = malloc(4096), *node = (char *)node_new(1), *large = grey_alloc(100000);
    assert_int_equal(grey_set_finalizer(NULL, never), EINVAL);
    assert_int_equal(grey_set_finalizer(NULL, NULL), EINVAL);
    assert_int_equal(grey_set_finalizer(&local, never), EINVAL);
    assert_int_equal(grey_set_finalizer(of_libc, never), EINVAL);
    assert_int_equal(grey_set_finalizer(of_libc, NULL), EINVAL);
    assert_int_equal(grey_set_finalizer(node + 8, never), EINVAL);
    assert_int_equal(grey_set_finalizer(node + 8, NULL), EINVAL);
    assert_int_equal(grey_set_finalizer(large + 8192, never), EINVAL);
    assert_int_equal(grey_set_finalizer(large + 99999, never), EINVAL);
    grey_foreign foreign;
    assert_int_equal(grey_foreign_add(of_libc, 4096, 0, free_region, NULL, &foreign), 0);
    assert_int_equal(grey_set_finalizer(of_libc, never), ENOTSUP);
    assert_true(grey_foreign_release(foreign));
    free(of_libc);
    grey_keep_alive(node);
    grey_keep_alive(large);
}

/* CF-10, CF-14 */
static void what_never_dies(void **unused)
{
    (void)unused;
    void *const never_die[] = {&static_data, (void *)&static_constant, (void *)"text", grey_alloc(0)};
    for (size_t i = 0; i < sizeof(never_die) / sizeof(never_die[0]); i++) {
        assert_int_equal(grey_set_finalizer(never_die[i], never), 0);
        assert_int_equal(grey_set_finalizer(never_die[i], never), 0); /* nothing was recorded */
        assert_int_equal(grey_set_finalizer(never_die[i], NULL), 0);
    }
    assert_int_equal(death_settle(), 0);
}

static void *unattached(void *unused)
{
    (void)unused;
    char *p = malloc(32);
    CHILD_CHECK(grey_set_finalizer(p, never) == EINVAL);
    free(p);
    CHILD_CHECK(grey_set_finalizer(node_new(3), finalize) == 0);
    return NULL;
}

static void from_an_unattached_thread(void **unused)
{
    (void)unused;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, unattached, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(death_settle(), 1);
    assert_int_equal(atomic_load(&deaths[3]), 1);
    forget();
}

/* ---- many -------------------------------------------------------------------------------------------- */

enum { MANY = 10000 };
static void make_many(void *unused)
{
    (void)unused;
    for (size_t i = 0; i < MANY; i++)
        CHILD_CHECK(grey_set_finalizer(node_new(i), finalize) == 0);
}

/* gc2, and the figures. */
static void many(void **unused)
{
    (void)unused;
    before = heap_figures();
    apart(make_many, NULL);
    assert_int_equal(death_settle(), MANY);
    assert_each(MANY, 1);
    struct grey_stats after = heap_figures();
    assert_int_equal(after.cleanups_queued - before.cleanups_queued, MANY);
    assert_int_equal(after.cleanups_run - before.cleanups_run, MANY);
    assert_true(after.freed_objects - before.freed_objects >= 2 * MANY);
    forget();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(once_then_freed),
        cmocka_unit_test(resurrection),
        cmocka_unit_test(setting_in_the_finalizer),
        cmocka_unit_test(in_the_order_of_pointers),
        cmocka_unit_test(rings_live),
        cmocka_unit_test(pointers_to_itself),
        cmocka_unit_test(all_kinds_of_objects),
        cmocka_unit_test(clearing),
        cmocka_unit_test(not_while_kept),
        cmocka_unit_test(refusals),
        cmocka_unit_test(what_never_dies),
        cmocka_unit_test(from_an_unattached_thread),
        cmocka_unit_test(many),
    };
    return cmocka_run_group_tests(tests, death_init, NULL);
}
