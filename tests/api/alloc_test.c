/* tests/api/alloc_test.c -- allocation of untyped memory: sizes, alignment, zeroes, refusals.
 *
 * Requirements: AL-1 to AL-3, AL-6, AL-11 to AL-14, AL-25, 0.3 and ER-2.  The size classes are not read from
 * the library's table but found by asking: grey_size of an object is its class.
 */
#include "support_child.h"
#include "support_heap.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
enum { SMALL_MAX = 32768 };

static const struct kind {
    const char *name;
    void *(*alloc)(size_t size);
    bool zeroed;
} kinds[] = {
    {"grey_alloc", grey_alloc, true},
    {"grey_alloc_leaf", grey_alloc_leaf, false},
    {"grey_zalloc_leaf", grey_zalloc_leaf, true},
};

static bool all_bytes_are(const unsigned char *p, size_t size, unsigned char value)
{
    return size == 0 || (p[0] == value && memcmp(p, p + 1, size - 1) == 0);
}

/* One object of the size: where it may lie, what it holds, and that every address inside leads to it. */
static unsigned char *check_one(const struct kind *kind, size_t size)
{
    unsigned char *p = kind->alloc(size);
    if (p == NULL)
        fail_msg("%s(%zu) gave NULL", kind->name, size);
    if (size >= 16)
        assert_int_equal((uintptr_t)p % 16, 0);
    assert_in_range(grey_size(p), size, size < 16 ? 16 : size + size / 8 + 8192);
    assert_ptr_equal(grey_base(p), p);
    size_t usable = grey_size(p);
    const size_t offsets[] = {1, 7, 8, size / 2, size - 1, usable - 1};
    for (size_t i = 0; i < LENGTH(offsets); i++)
        if (offsets[i] < usable) {
            assert_ptr_equal(grey_base(p + offsets[i]), p);
            assert_int_equal(grey_size(p + offsets[i]), usable);
        }
    if (kind->zeroed && !all_bytes_are(p, size, 0))
        fail_msg("%s(%zu) is not zero", kind->name, size);
    return p;
}

/* The sizes of the requirement; each kind twice at once, so that two that overlap show. */
static void sizes(void **unused)
{
    (void)unused;
    static const size_t list[] = {1,
                                  8,
                                  15,
                                  16,
                                  17,
                                  1023,
                                  1024,
                                  1025,
                                  SMALL_MAX - 8,
                                  SMALL_MAX,
                                  SMALL_MAX + 8,
                                  2 << 20,
                                  (2 << 20) + 1,
                                  64 << 20};
    for (size_t k = 0; k < LENGTH(kinds); k++)
        for (size_t i = 0; i < LENGTH(list); i++) {
            unsigned char *first = check_one(&kinds[k], list[i]);
            memset(first, 0x5a, list[i]);
            unsigned char *second = check_one(&kinds[k], list[i]);
            memset(second, 0xa5, list[i]);
            assert_true(all_bytes_are(first, list[i], 0x5a));
        }
}

/* AL-2: each class, one less and one more; above the small end at most 16 % of a slot is wasted
 * (12.5 % but where the step is 128 of 896 or 640 of 4096). */
static void every_class(void **unused)
{
    (void)unused;
    size_t last = 0, count = 0;
    for (size_t size = 1; size <= SMALL_MAX; count++) {
        size_t class = grey_size(grey_alloc_leaf(size));
        assert_int_equal(class % 16, 0);
        if (size > 128 && (class - size) * 100 > class * 16)
            fail_msg("%zu bytes take %zu", size, class);
        for (size_t k = 0; k < LENGTH(kinds); k++) {
            check_one(&kinds[k], class - 1);
            assert_int_equal(grey_size(check_one(&kinds[k], class)), class);
            if (class < SMALL_MAX)
                assert_true(grey_size(check_one(&kinds[k], class + 1)) > class);
        }
        assert_true(class > last);
        last = class;
        size = class + 1;
    }
    assert_int_equal(last, SMALL_MAX);
    assert_in_range(count, 40, 80);
}

/* AL-6: memory that was used before comes back zeroed, except from grey_alloc_leaf. */
static void zeroed_when_used_again(void **unused)
{
    (void)unused;
    static const size_t list[] = {16, 40, 512, 4096, SMALL_MAX, 300000};
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < LENGTH(list); i++)
            for (size_t n = 0; n < (2 << 20) / list[i] && n < 2000; n++)
                for (size_t k = 0; k < LENGTH(kinds); k++) {
                    unsigned char *p = kinds[k].alloc(list[i]);
                    assert_non_null(p);
                    if (kinds[k].zeroed && !all_bytes_are(p, list[i], 0))
                        fail_msg("round %d: %s(%zu) is not zero", round, kinds[k].name, list[i]);
                    memset(p, 0xcd, list[i]);
                }
        grey_collect();
    }
}

/* AL-1, AL-12: one address for all that is empty; it is nobody's object. */
static void size_zero(void **unused)
{
    (void)unused;
    GREY_TYPE_LEAF(leaf_type, long);
    void *zero = grey_alloc(0);
    assert_non_null(zero);
    assert_ptr_equal(grey_alloc_leaf(0), zero);
    assert_ptr_equal(grey_zalloc_leaf(0), zero);
    assert_ptr_equal(grey_alloc_leaf_aligned(4096, 0), zero);
    assert_ptr_equal(grey_new_array(&leaf_type, 0), zero);
    assert_ptr_equal(grey_realloc(NULL, 0), zero);
    assert_ptr_equal(grey_realloc(grey_alloc(100), 0), zero);
    assert_ptr_equal(grey_realloc(zero, 0), zero);
    assert_int_equal(grey_size(zero), 0);
    assert_null(grey_base(zero));
    heap_collect_twice();
    assert_ptr_equal(grey_alloc(0), zero);
    struct grey_stats before = heap_figures_at_rest();
    for (int i = 0; i < 1000; i++)
        assert_ptr_equal(grey_alloc(0), zero);
    struct grey_stats after = heap_figures_at_rest();
    heap_assert_unchanged(&before, &after);
}

/* AL-12, 0.3: not in the heap; errno is left alone by calls that do not fail through it. */
static void addresses_outside(void **unused)
{
    (void)unused;
    static int data;
    int local = 0;
    errno = 12345;
    const void *const outside[] = {
        NULL, &data, &local, (void *)1, (void *)UINTPTR_MAX, (void *)((uintptr_t)1 << 63)};
    for (size_t i = 0; i < LENGTH(outside); i++) {
        assert_int_equal(grey_size(outside[i]), 0);
        assert_null(grey_base(outside[i]));
    }
    assert_int_equal(errno, 12345);
}

/* AL-13: no cycle is run for what cannot be.  ER-2: nothing has changed. */
static void too_large(void **unused)
{
    (void)unused;
    static const size_t list[] = {((size_t)1 << 48) + 1, PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1, SIZE_MAX - 15,
                                  SIZE_MAX};
    void *object = grey_alloc(64);
    struct grey_stats before = heap_figures_at_rest();
    for (size_t i = 0; i < LENGTH(list); i++) {
        for (size_t k = 0; k < LENGTH(kinds); k++) {
            errno = 0;
            assert_null(kinds[k].alloc(list[i]));
            assert_int_equal(errno, ENOMEM);
        }
        errno = 0;
        assert_null(grey_alloc_leaf_aligned(64, list[i]));
        assert_int_equal(errno, ENOMEM);
        errno = 0;
        assert_null(grey_realloc(object, list[i]));
        assert_int_equal(errno, ENOMEM);
        errno = 0;
        assert_null(grey_realloc(NULL, list[i]));
        assert_int_equal(errno, ENOMEM);
    }
    struct grey_stats after = heap_figures_at_rest();
    heap_assert_unchanged(&before, &after);
    assert_int_equal(before.forced_cycles, after.forced_cycles);
    grey_keep_alive(object);
}

static void aligned_leafs(void **unused)
{
    (void)unused;
    for (size_t align = 1; align <= 2 << 20; align *= 2) {
        const size_t list[] = {1, align - 1, align, align + 1, 3 * align, 40000};
        for (size_t i = 0; i < LENGTH(list); i++) {
            if (list[i] == 0)
                continue;
            unsigned char *first = grey_alloc_leaf_aligned(align, list[i]);
            unsigned char *second = grey_alloc_leaf_aligned(align, list[i]);
            assert_non_null(first);
            assert_non_null(second);
            assert_int_equal((uintptr_t)first % align, 0);
            assert_int_equal((uintptr_t)second % align, 0);
            assert_true(grey_size(first) >= list[i]);
            assert_ptr_equal(grey_base(first + list[i] - 1), first);
            memset(first, 1, list[i]);
            memset(second, 2, list[i]);
            assert_true(all_bytes_are(first, list[i], 1));
        }
    }
}

static void aligned_refusals(void **unused)
{
    (void)unused;
    static const size_t wrong[] = {0, 3, 24, 4095, (2 << 20) + 1, 4 << 20, PTRDIFF_MAX, SIZE_MAX};
    grey_thread_attach();
    struct grey_stats before = heap_figures_at_rest();
    for (size_t i = 0; i < LENGTH(wrong); i++)
        for (size_t size = 0; size <= 64; size += 64) {
            errno = 0;
            assert_null(grey_alloc_leaf_aligned(wrong[i], size));
            assert_int_equal(errno, EINVAL);
        }
    struct grey_stats after = heap_figures_at_rest();
    heap_assert_unchanged(&before, &after);
}

/* AL-25 */
static void strings(void **unused)
{
    (void)unused;
    errno = 0;
    assert_null(grey_strdup(NULL));
    assert_int_equal(errno, EINVAL);
    char *empty = grey_strdup("");
    assert_string_equal(empty, "");
    assert_int_equal(grey_size(empty), 16);
    static char text[100001];
    memset(text, 'x', sizeof(text) - 1);
    char *copy = grey_strdup(text);
    assert_string_equal(copy, text);
    memset(text, 'y', 10);
    assert_int_equal(copy[0], 'x');
    assert_ptr_equal(grey_base(copy + 100000), copy);
    assert_true(grey_size(copy) >= sizeof(text));
}

static void *alloc_and_die(void *unused)
{
    (void)unused;
    return grey_alloc(32);
}

/* AL-16: the first call attaches; the thread's end detaches. */
static void attaches_the_caller(void **unused)
{
    (void)unused;
    grey_thread_attach();
    struct grey_stats before = heap_figures_at_rest();
    pthread_t thread;
    void *object;
    assert_int_equal(pthread_create(&thread, NULL, alloc_and_die, NULL), 0);
    assert_int_equal(pthread_join(thread, &object), 0);
    struct grey_stats after = heap_figures_at_rest();
    assert_int_equal(after.threads, before.threads);
    assert_int_equal(after.allocated_objects - before.allocated_objects, 1);
}

/* ---- out of memory, in a child under a limit ----------------------------------------------------------- */

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they need terabytes of addresses */
enum { BLOCK = 4 << 20, BLOCKS_MOST = 4096 };

/* AL-14: ENOMEM, not death; a cycle was run before; and once memory is dropped there is some again. */
static void runs_out(void)
{
    const struct rlimit limit = {1 << 30, 1 << 30};
    CHILD_CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    CHILD_CHECK(grey_init(NULL) == 0);
    void **blocks = grey_alloc(BLOCKS_MOST * sizeof(void *));
    CHILD_CHECK(blocks != NULL);
    size_t n = 0;
    struct grey_stats before = GREY_STATS_INIT, after = GREY_STATS_INIT;
    CHILD_CHECK(grey_stats_read(&before) == 0);
    for (; n < BLOCKS_MOST; n++) {
        errno = 0;
        char *p = grey_alloc_leaf(BLOCK);
        if (p == NULL)
            break;
        p[0] = 1;
        grey_store(&blocks[n], p);
    }
    CHILD_CHECK(n > 8 && n < BLOCKS_MOST);
    CHILD_CHECK(errno == ENOMEM);
    CHILD_CHECK(grey_stats_read(&after) == 0);
    CHILD_CHECK(after.cycles > before.cycles);
    CHILD_CHECK(grey_new_array(NULL, 1) == NULL && errno == EINVAL);
    for (size_t i = 0; i < n; i++)
        CHILD_CHECK(*(char *)blocks[i] == 1);
    grey_clear(blocks, BLOCKS_MOST * sizeof(void *));
    heap_wipe_stack();
    for (size_t i = 0; i < n / 2; i++)
        CHILD_CHECK(grey_alloc_leaf(BLOCK) != NULL);
}

static void out_of_memory(void **unused)
{
    (void)unused;
    child_passes("runs_out", NULL);
}
#endif

int main(int argc, char **argv)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    static const struct child_case cases[] = {{"runs_out", runs_out}};
    CHILD_MAIN(argc, argv, cases);
#else
    (void)argc, (void)argv;
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(every_class),
        cmocka_unit_test(zeroed_when_used_again),
        cmocka_unit_test(size_zero),
        cmocka_unit_test(addresses_outside),
        cmocka_unit_test(too_large),
        cmocka_unit_test(aligned_leafs),
        cmocka_unit_test(aligned_refusals),
        cmocka_unit_test(strings),
        cmocka_unit_test(attaches_the_caller),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        cmocka_unit_test(out_of_memory),
#endif
    };
    return cmocka_run_group_tests_name("alloc", tests, NULL, NULL);
}
