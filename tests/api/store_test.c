/* tests/api/store_test.c -- the calls that store pointers, from C: what they do to memory.
 *
 * Requirements: BA-4, BA-8, BA-11, BA-12, BA-17, UM-13.  Everything is done twice: off a cycle, and while
 * another thread keeps cycles running, so that the barrier's slow path runs too.  That nothing is lost in
 * the interleavings that matter is tested by the hooks and by stress; here, that each call does what it says.
 */
#include "support_child.h"
#include "support_heap.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
enum { PIECE = 128 << 10 };

struct node {
    struct node *left, *right;
    const struct node *constant;
    void *any;
};
GREY_TYPE(node_type, struct node, left, right, constant, any);
GREY_ROOT(struct node *, tree);

/* ---- cycles in the background -------------------------------------------------------------------------- */

static atomic_bool stop;
static pthread_t collecting;

static void *collect_all_the_time(void *unused)
{
    (void)unused;
    while (!atomic_load(&stop))
        grey_collect();
    return NULL;
}

static int start_cycles(void **unused)
{
    (void)unused;
    atomic_store(&stop, false);
    return grey_thread_create(&collecting, NULL, collect_all_the_time, NULL);
}
static int stop_cycles(void **unused)
{
    (void)unused;
    atomic_store(&stop, true);
    return grey_thread_join(collecting, NULL);
}

/* ---- single words -------------------------------------------------------------------------------------- */

static void single_words(void **unused)
{
    (void)unused;
    for (int i = 0; i < 2000; i++) {
        struct node *n = grey_new(&node_type), *a = grey_new(&node_type), *b = grey_new(&node_type);
        const struct node *constant = a;
        grey_store(&n->left, a);
        assert_ptr_equal(n->left, a);
        grey_store(&n->right, NULL);
        assert_null(n->right);
        grey_store(&n->right, 0);
        assert_null(n->right);
        grey_store(&n->any, a); /* T * to void * and back need no cast in C */
        grey_store(&n->left, n->any);
        grey_store(&n->constant, a); /* may gain const */
        grey_store(&n->constant, constant);
        assert_ptr_equal(n->constant, a);
        assert_ptr_equal(grey_exchange(&n->left, b), a);
        assert_ptr_equal(n->left, b);
        assert_ptr_equal(grey_exchange(&n->left, NULL), b);
        assert_null(n->left);

        struct node *expected = a;
        assert_false(grey_compare_exchange(&n->left, &expected, b)); /* BA-12: only *expected changed */
        assert_null(expected);
        assert_null(n->left);
        assert_true(grey_compare_exchange(&n->left, &expected, b));
        assert_null(expected);
        assert_ptr_equal(n->left, b);
        grey_store(&tree, n);
    }
}

static int evaluations;
static struct node **slot_once(struct node *n)
{
    evaluations++;
    return &n->left;
}
static struct node *value_once(struct node *n)
{
    evaluations += 100;
    return n;
}

/* Arguments are evaluated once each; a macro may stand in another's argument, and where a statement may. */
static void macros_as_expressions(void **unused)
{
    (void)unused;
    struct node *n = grey_new(&node_type), *a = grey_new(&node_type), *expected = a;
    evaluations = 0;
    grey_store(slot_once(n), value_once(a));
    assert_int_equal(evaluations, 101);
    assert_ptr_equal(grey_exchange(slot_once(n), value_once(a)), a);
    assert_int_equal(evaluations, 202);
    assert_true(grey_compare_exchange(slot_once(n), &expected, value_once(NULL)));
    assert_int_equal(evaluations, 303);
    if (n->left == NULL)
        grey_store(&n->left, a);
    else
        grey_store(&n->left, NULL);
    assert_ptr_equal(n->left, a);
    /* an element, a cast, a conditional */
    struct node *slots[2] = {NULL, NULL};
    grey_store(slots + 1, (struct node *)(void *)a);
    grey_store(&slots[0], evaluations ? a : NULL);
    assert_ptr_equal(slots[0], slots[1]);
}

/* Into memory that grey does not own: takes effect and does no harm. */
static void outside_the_heap(void **unused)
{
    (void)unused;
    static struct node statics;
    struct node **libc = malloc(sizeof(*libc)), *on_stack = NULL, *a = grey_new(&node_type);
    grey_store(libc, a);
    grey_store(&on_stack, a);
    assert_ptr_equal(*libc, on_stack);
    grey_store(&on_stack, &statics); /* not a heap pointer */
    assert_ptr_equal(on_stack, &statics);
    grey_store(&on_stack, (struct node *)(uintptr_t)16);
    grey_store(&on_stack, (struct node *)UINTPTR_MAX);
    grey_pass(a);
    grey_pass(NULL);
    grey_pass(&statics);
    grey_pass((void *)UINTPTR_MAX);
    grey_touch(NULL);
    grey_touch(&statics);
    grey_touch((void *)UINTPTR_MAX);
    grey_touch(&a->right); /* any address inside */
    grey_touch(grey_alloc_leaf(64));
    grey_keep_alive(NULL);
    grey_keep_alive(a);
    free(libc);
}

/* BA-17: raw stores made good. */
static void touched_after_raw_stores(void **unused)
{
    (void)unused;
    enum { N = 2000 };
    struct node **raw = grey_alloc(N * sizeof(*raw));
    for (int i = 0; i < N; i++) {
        void *leaf = heap_marked_leaf(64, (uint64_t)i);
        *(void *volatile *)&raw[i] = leaf;
        grey_touch(&raw[i]);
        grey_keep_alive(leaf);
    }
    heap_collect_twice();
    heap_reuse_free_memory();
    for (int i = 0; i < N; i++)
        assert_true(heap_leaf_is_intact(raw[i], (uint64_t)i));
    grey_keep_alive(raw);
}

/* ---- moves --------------------------------------------------------------------------------------------- */

static void fill_words(unsigned char *p, size_t size)
{
    for (size_t i = 0; i < size; i++)
        p[i] = (unsigned char)(i * 7 + i / 251);
}

/* Against memmove, in a copy: any offsets, any size, both directions, over pieces. */
static void moves_like_memmove(void **unused)
{
    (void)unused;
    enum { ROOM = 3 * PIECE };
    static const size_t sizes[] = {0,  1,   7,    8,         9,     15,        16,         24,
                                   63, 100, 4096, PIECE - 8, PIECE, PIECE + 8, PIECE + 13, 2 * PIECE + 24};
    static const size_t starts[] = {0, 1, 3, 8, 16, 1000, 1003};
    static const ptrdiff_t shifts[] = {0, 1, 8, -8, 16, -16, 5, -5, 4096, -4096, 64, PIECE, -PIECE};
    unsigned char *words = grey_alloc_leaf(ROOM), *copy = malloc(ROOM);
    assert_non_null(words);
    for (size_t s = 0; s < LENGTH(sizes); s++)
        for (size_t a = 0; a < LENGTH(starts); a++)
            for (size_t d = 0; d < LENGTH(shifts); d++) {
                ptrdiff_t from = (ptrdiff_t)starts[a] + (shifts[d] < 0 ? -shifts[d] : 0),
                          to = from + shifts[d];
                if (from + (ptrdiff_t)sizes[s] > ROOM || to + (ptrdiff_t)sizes[s] > ROOM)
                    continue;
                size_t used = (size_t)(from > to ? from : to) + sizes[s] + 16;
                used = used > ROOM ? ROOM : used;
                fill_words(words, used);
                memcpy(copy, words, used);
                grey_move(words + to, words + from, sizes[s]);
                memmove(copy + to, copy + from, sizes[s]);
                if (memcmp(words, copy, used) != 0)
                    fail_msg("%zu bytes from %td to %td", sizes[s], from, to);
            }
    free(copy);
}

/* Pointers move with their objects kept, forwards and backwards over themselves. */
static void moves_of_pointers(void **unused)
{
    (void)unused;
    enum { N = 40000, BY = 3 };
    void **words = grey_alloc((N + BY) * sizeof(void *));
    for (int i = 0; i < N; i++)
        grey_store(&words[i], heap_marked_leaf(16, (uint64_t)i));
    for (int round = 0; round < 20; round++) {
        grey_move(words + BY, words, N * sizeof(void *));
        grey_move(words, words + BY, N * sizeof(void *));
    }
    void **other = grey_alloc((N + BY) * sizeof(void *));
    grey_move(other, words, N * sizeof(void *));
    grey_clear(words, (N + BY) * sizeof(void *));
    for (int i = 0; i < N + BY; i++)
        assert_null(words[i]);
    heap_collect_twice();
    heap_reuse_free_memory();
    for (int i = 0; i < N; i++)
        assert_true(heap_leaf_is_intact(other[i], (uint64_t)i));
    grey_keep_alive(other);
}

static void clears_what_it_should(void **unused)
{
    (void)unused;
    static const size_t sizes[] = {0, 1, 7, 8, 9, 100, PIECE, PIECE + 9};
    for (size_t s = 0; s < LENGTH(sizes); s++)
        for (size_t at = 0; at < 17; at++) {
            unsigned char *p = grey_alloc_leaf(sizes[s] + 64);
            memset(p, 0xff, sizes[s] + 64);
            grey_clear(p + at, sizes[s]);
            for (size_t i = 0; i < sizes[s] + 64; i++)
                if ((p[i] == 0) != (i >= at && i < at + sizes[s]))
                    fail_msg("clear of %zu at %zu: byte %zu", sizes[s], at, i);
        }
    grey_clear(NULL, 0);
    grey_move(NULL, NULL, 0);
}

static atomic_bool tearing;
static void *look_for_torn_words(void *arg)
{
    uint64_t *word = arg;
    uintptr_t torn = 0;
    while (atomic_load(&tearing)) {
        uint64_t value = __atomic_load_n(word, __ATOMIC_RELAXED);
        torn += value != 0 && value != UINT64_C(0x1111111111111111) && value != UINT64_C(0x2222222222222222);
    }
    return (void *)torn;
}

/* BA-8: another thread never sees half a word. */
static void words_are_not_torn(void **unused)
{
    (void)unused;
    uint64_t *words = grey_alloc_leaf(16), *one = grey_alloc_leaf(16), *two = grey_alloc_leaf(16);
    words[0] = 0;
    one[0] = UINT64_C(0x1111111111111111);
    two[0] = UINT64_C(0x2222222222222222);
    pthread_t thread;
    void *torn;
    atomic_store(&tearing, true);
    assert_int_equal(pthread_create(&thread, NULL, look_for_torn_words, words), 0);
    for (int i = 0; i < 300000; i++) {
        grey_move(words, one, 8);
        grey_move(words, two, 8);
        grey_clear(words, 8);
    }
    atomic_store(&tearing, false);
    assert_int_equal(pthread_join(thread, &torn), 0);
    grey_keep_alive(words); /* the other thread is not attached */
    assert_null(torn);
}

#define BOTH(test)                                                                                           \
    cmocka_unit_test(test), { #test " in cycles", test, start_cycles, stop_cycles, NULL }

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(single_words),          BOTH(macros_as_expressions),
        BOTH(outside_the_heap),      BOTH(touched_after_raw_stores),
        BOTH(moves_like_memmove),    BOTH(moves_of_pointers),
        BOTH(clears_what_it_should), BOTH(words_are_not_torn),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
