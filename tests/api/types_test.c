/* tests/api/types_test.c -- typed objects and arrays, types made at run time, grey_realloc.
 *
 * Requirements: AL-4, AL-13, AL-23, AL-24, MK-20, 0.3 and ER-2.  Where the pointers of a type are shows in
 * what lives: each object is filled, in every pointer word and in every other word, with leafs that know
 * their number; after collections the first ones must be intact and the others must be gone.
 */
#include "support_child.h"
#include "support_heap.h"

#include <string.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

struct mixed { /* 5 words, pointers 1 and 3 */
    uint64_t a;
    void *p;
    uint64_t b;
    void *q;
    uint64_t c;
};
struct odd { /* a tail that is no whole word */
    void *p;
    uint64_t a;
    char tail[3];
} __attribute__((packed, aligned(8)));
struct wide { /* more words than a mask has */
    uint64_t before[70];
    void *p[3];
    uint64_t after[50];
};
struct list {
    void *p[48];
};
GREY_TYPE(mixed_type, struct mixed, p, q);
GREY_TYPE(odd_type, struct odd, p);
GREY_TYPE(wide_type, struct wide, GREY_ARRAY(p, 3));
GREY_TYPE(list_type, struct list, GREY_ARRAY(p, 48));
struct single {
    void *p;
};
GREY_TYPE(pointer_type, struct single, p);
GREY_TYPE_LEAF(leaf_type, struct mixed);

static const struct described {
    const char *name;
    const struct grey_type *type;
    size_t first, count, second; /* pointer words of an element: count from first; second: one more, or 0 */
} types[] = {
    {"mixed", &mixed_type, 1, 1, 3}, {"odd", &odd_type, 0, 1, 0},         {"wide", &wide_type, 70, 3, 0},
    {"list", &list_type, 0, 48, 0},  {"pointer", &pointer_type, 0, 1, 0}, {"leaf", &leaf_type, 0, 0, 0},
};

static bool is_pointer(const struct described *type, size_t word)
{
    return (word >= type->first && word < type->first + type->count) ||
           (type->second != 0 && word == type->second);
}

enum { LEAF = 48 };
static void *hidden_keeper; /* registered by the tests: the object under test */

/* Leafs into all words.  Those of words that are no pointers are meant to be found dead. */
__attribute__((noinline)) static size_t fill(const struct described *type, size_t count)
{
    size_t words = type->type->size / sizeof(void *), others = 0;
    for (size_t e = 0; e < count; e++) {
        void **element = (void **)(void *)((char *)hidden_keeper + e * type->type->size);
        for (size_t w = 0; w < words; w++) {
            void *leaf = heap_marked_leaf(LEAF, e * words + w);
            grey_store(&element[w], leaf);
            others += !is_pointer(type, w);
        }
    }
    return others;
}

__attribute__((noinline)) static void check(const struct described *type, size_t count)
{
    size_t words = type->type->size / sizeof(void *);
    for (size_t e = 0; e < count; e++) {
        void **element = (void **)(void *)((char *)hidden_keeper + e * type->type->size);
        for (size_t w = 0; w < words; w++)
            if (is_pointer(type, w) && !heap_leaf_is_intact(element[w], e * words + w))
                fail_msg("%s: element %zu of %zu, word %zu: the object was not kept", type->name, e, count,
                         w);
    }
}

static bool is_zero(const char *p, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (p[i] != 0)
            return false;
    return true;
}

static void one_array(const struct described *type, size_t count)
{
    size_t size = type->type->size;
    void *object = count == 1 ? grey_new(type->type) : grey_new_array(type->type, count);
    assert_non_null(object);
    assert_true(is_zero(object, size * count));
    assert_true(grey_size(object) >= size * count);
    assert_ptr_equal(grey_base((char *)object + size * count - 1), object);
    assert_int_equal((uintptr_t)object % (size * count < 16 ? 8 : 16), 0);
    grey_store(&hidden_keeper, object);
    object = NULL;
    struct grey_stats before = heap_figures();
    size_t others = size % 8 == 0 || count == 1 ? fill(type, count) : 0;
    heap_collect_twice();
    if (others >= 40)
        heap_assert_freed(&before, others);
    heap_reuse_free_memory();
    if (size % 8 == 0 || count == 1)
        check(type, count);
    grey_store(&hidden_keeper, NULL);
}

static int add_root(void **unused)
{
    (void)unused;
    return grey_root_add(&hidden_keeper, sizeof(hidden_keeper));
}
static int remove_root(void **unused)
{
    (void)unused;
    return grey_root_remove(&hidden_keeper, sizeof(hidden_keeper));
}

static void single_objects(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < LENGTH(types); i++)
        one_array(&types[i], 1);
}

/* Below, at and above 512 bytes; in a class with a header; large; each element's type holds (AL-24). */
static void arrays(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < LENGTH(types); i++) {
        const size_t bytes[] = {504, 512, 520, 4000, 40000};
        for (size_t b = 0; b < LENGTH(bytes); b++) {
            size_t count = bytes[b] / types[i].type->size;
            if (count != 0)
                one_array(&types[i], count);
            one_array(&types[i], count + 1);
        }
    }
}

/* 0.3, AL-13, ER-2 */
static void refusals(void **unused)
{
    (void)unused;
    static const struct grey_type empty;
    void *marker = grey_alloc(16);
    struct grey_stats before = heap_figures_at_rest();
    const struct {
        const struct grey_type *type;
        size_t count;
        int error;
    } table[] = {
        {NULL, 0, EINVAL},
        {NULL, 1, EINVAL},
        {&empty, 1, EINVAL},
        {&mixed_type, SIZE_MAX, EOVERFLOW},
        {&mixed_type, SIZE_MAX / sizeof(struct mixed) + 2, EOVERFLOW}, /* wraps to a small size */
        {&mixed_type, PTRDIFF_MAX / sizeof(struct mixed) + 1, EOVERFLOW},
        {&mixed_type, (((size_t)1 << 48) + 1) / sizeof(struct mixed) + 1, EOVERFLOW},
    };
    for (size_t i = 0; i < LENGTH(table); i++) {
        errno = 0;
        assert_null(grey_new_array(table[i].type, table[i].count));
        assert_int_equal(errno, table[i].error);
    }
    errno = 0;
    assert_null(grey_new(NULL));
    assert_int_equal(errno, EINVAL);
    errno = 0;
    assert_null(grey_new(&empty));
    assert_int_equal(errno, EINVAL);
    struct grey_stats after = heap_figures_at_rest();
    heap_assert_unchanged(&before, &after);
    grey_keep_alive(marker);
}

static void type_init_refusals(void **unused)
{
    (void)unused;
    const uint8_t bits[2] = {0xff, 0xff};
    struct grey_type type, copy;
    memset(&type, 0x5a, sizeof(type));
    copy = type;
    assert_int_equal(grey_type_init(NULL, "t", 64, bits, 8), EINVAL);
    assert_int_equal(grey_type_init(&type, "t", 0, bits, 0), EINVAL);
    assert_int_equal(grey_type_init(&type, "t", 0, bits, 8), EINVAL);
    assert_int_equal(grey_type_init(&type, "t", 64, NULL, 8), EINVAL);
    assert_int_equal(grey_type_init(&type, "t", 64, bits, 9), EINVAL);
    assert_int_equal(grey_type_init(&type, "t", 7, bits, 1), EINVAL);
    assert_int_equal(grey_type_init(&type, "t", 64, bits, SIZE_MAX), EINVAL);
    assert_int_equal(grey_type_init(&type, "t", SIZE_MAX, bits, 8), EINVAL);
    assert_memory_equal(&type, &copy, sizeof(type));
}

/* AL-24: name and bits are copied; what no bit is given for holds no pointers. */
static void types_made_at_run_time(void **unused)
{
    (void)unused;
    uint8_t bits[9];
    char name[] = "made";
    struct grey_type type;
    memset(bits, 0, sizeof(bits));
    bits[0] = 0x06; /* words 1 and 2 */
    assert_int_equal(grey_type_init(&type, name, 80, bits, 4), 0);
    memset(bits, 0xff, sizeof(bits));
    memset(name, 'x', sizeof(name) - 1);
    assert_string_equal(type.name, "made");
    const struct described made = {"made", &type, 1, 2, 0};
    one_array(&made, 1);
    one_array(&made, 30);
    /* more than 64 words: the last one is the pointer */
    memset(bits, 0, sizeof(bits));
    bits[8] = 0x80;
    struct grey_type long_type;
    assert_int_equal(grey_type_init(&long_type, "long", 72 * 8, bits, 72), 0);
    const struct described made_long = {"made long", &long_type, 71, 1, 0};
    one_array(&made_long, 1);
    one_array(&made_long, 10);
    struct grey_type leaf;
    assert_int_equal(grey_type_init(&leaf, "leaf", 24, NULL, 0), 0);
    const struct described made_leaf = {"made leaf", &leaf, 0, 0, 0};
    one_array(&made_leaf, 30);
}

/* ---- grey_realloc -------------------------------------------------------------------------------------- */

static void realloc_refusals(void **unused)
{
    (void)unused;
    static char data[64];
    char local[64], *object = grey_alloc_leaf(64);
    memset(object, 7, 64);
    struct grey_stats before = heap_figures_at_rest();
    void *const wrong[] = {data, local, object + 1, object + 16, (void *)1, (void *)UINTPTR_MAX};
    for (size_t i = 0; i < LENGTH(wrong); i++) {
        errno = 0;
        assert_null(grey_realloc(wrong[i], 100));
        assert_int_equal(errno, EINVAL);
    }
    struct grey_stats after = heap_figures_at_rest();
    heap_assert_unchanged(&before, &after);
    for (int i = 0; i < 64; i++)
        assert_int_equal(object[i], 7);
}

/* AL-23's table for untyped kinds: from each size to each size. */
static void realloc_untyped(void **unused)
{
    (void)unused;
    static const size_t sizes[] = {1, 16, 17, 100, 1024, 5000, 32768, 40000, 1 << 20};
    for (int leaf = 0; leaf < 2; leaf++)
        for (size_t i = 0; i < LENGTH(sizes); i++)
            for (size_t j = 0; j < LENGTH(sizes); j++) {
                size_t from = sizes[i], to = sizes[j], kept = from < to ? from : to;
                unsigned char *p = leaf ? grey_alloc_leaf(from) : grey_alloc(from);
                memset(p, 0x3c, from);
                unsigned char *q = grey_realloc(p, to);
                assert_non_null(q);
                assert_true(grey_size(q) >= to);
                for (size_t b = 0; b < kept; b += b < 64 ? 1 : 61)
                    assert_int_equal(q[b], 0x3c);
                if (!leaf)
                    assert_true(is_zero((char *)q + kept, to - kept));
                if (q != p) /* the old one stays valid */
                    for (size_t b = 0; b < from; b += 61)
                        assert_int_equal(p[b], 0x3c);
            }
}

/* What a shrink in place left must be zero when it grows again. */
static void realloc_back_and_forth(void **unused)
{
    (void)unused;
    unsigned char *p = grey_alloc(1000);
    memset(p, 0xff, grey_size(p));
    p = grey_realloc(p, 700);
    p = grey_realloc(p, 1000);
    assert_true(is_zero((char *)p + 700, 300));
    for (int i = 0; i < 700; i++)
        assert_int_equal(p[i], 0xff);
}

/* The copy is of the same kind: its pointers are still seen, at the same places. */
static void realloc_keeps_the_type(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < LENGTH(types); i++) {
        size_t size = types[i].type->size;
        if (size % 8 != 0)
            continue;
        for (size_t count = 1; count <= 4096; count *= 64) {
            void *object = grey_new_array(types[i].type, count);
            grey_store(&hidden_keeper, object);
            fill(&types[i], count);
            void *grown = grey_realloc(hidden_keeper, 3 * count * size);
            assert_non_null(grown);
            if (types[i].count != 0) /* leafs are not zeroed */
                assert_true(is_zero((char *)grown + count * size, 2 * count * size));
            grey_store(&hidden_keeper, grown);
            object = grown = NULL;
            heap_collect_twice();
            struct grey_stats before = heap_figures();
            size_t others = fill(&types[i], 3 * count);
            heap_collect_twice();
            if (others >= 40)
                heap_assert_freed(&before, others);
            heap_reuse_free_memory();
            check(&types[i], 3 * count);
            grey_store(&hidden_keeper, NULL);
            if (size > 512 && count == 64)
                break; /* enough memory */
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_objects),
        cmocka_unit_test(arrays),
        cmocka_unit_test(refusals),
        cmocka_unit_test(type_init_refusals),
        cmocka_unit_test(types_made_at_run_time),
        cmocka_unit_test(realloc_refusals),
        cmocka_unit_test(realloc_untyped),
        cmocka_unit_test(realloc_back_and_forth),
        cmocka_unit_test(realloc_keeps_the_type),
    };
    return cmocka_run_group_tests_name("types", tests, add_root, remove_root);
}
