/* tests/api/lookup_test.c -- from any address to its object: every byte of every size class.
 *
 * Look-up multiplies with a reciprocal, so it is checked for each offset that a span of the class has, by
 * arithmetic and on real objects: interior addresses, the tail that belongs to no cell, large objects of
 * sizes that are no multiple of a page, addresses around the heap.  Uses the heap's private header to see
 * spans; through the public calls too.
 *
 * Requirements: AL-2, AL-3, AL-10 to AL-12, MK-11.  Seed: GREY_TEST_SEED or the clock; printed.
 */
#include "heap/heap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const uint32_t class_bytes[] = {
#define X(bytes, pages) bytes,
    HEAP_CLASSES(X)
#undef X
};
enum { CELLS_MOST = 512 };

static uint64_t state;

static uint64_t next_random(void) /* splitmix64 */
{
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* AL-2 and classes.h: growing, multiples of 16; lost at most an eighth of a slot and of a span. */
static void classes(void **unused)
{
    (void)unused;
    grey_alloc_leaf(1); /* the tables exist from the first use on */
    for (unsigned c = 0; c < HEAP_N_CLASSES; c++) {
        const struct layout *layout = &heap_layouts[2 * c];
        uint32_t below = c != 0 ? class_bytes[c - 1] : 0;
        assert_int_equal(layout->cell, class_bytes[c]);
        assert_int_equal(layout->cell % HEAP_GRANULE, 0);
        assert_true(layout->cell > below);
        if (c >= 8)
            assert_true((layout->cell - below - 1) * 8 <= layout->cell);
        size_t span = layout->pages * GREY_PAGE;
        assert_int_equal(layout->cells, span / layout->cell);
        assert_true((span - (size_t)layout->cells * layout->cell) * 8 <= span);
    }
    assert_int_equal(class_bytes[HEAP_N_CLASSES - 1], HEAP_SMALL_MAX);
}

static void reciprocals_are_exact(void **unused)
{
    (void)unused;
    for (uint32_t i = 0; i < LAYOUT_OF_LARGE_CONSERVATIVE; i++) {
        const struct layout *layout = &heap_layouts[i];
        for (uint64_t offset = 0; offset < layout->pages * GREY_PAGE; offset++)
            if (offset * layout->inverse >> 32 != offset / layout->cell)
                fail_msg("layout %u, cells of %u: offset %lu", i, layout->cell, (unsigned long)offset);
    }
}

static void check_byte(uintptr_t p, uintptr_t base, size_t size)
{
    struct heap_object object;
    if (!heap_find(p, &object) || object.base != base || object.size != size)
        fail_msg("byte %lu of an object of %lu bytes", (unsigned long)(p - base), (unsigned long)size);
}

/* All bytes of the span that p lies in: a cell is found whole or not at all, the tail never. */
static void check_span(uintptr_t p, uint32_t cell)
{
    const struct span *span = heap_span_of(p);
    const struct layout *layout = &heap_layouts[span->layout];
    uintptr_t start = (uintptr_t)span_start(span), end = start + span->pages * GREY_PAGE;
    assert_int_equal(layout->cell, cell);
    assert_int_equal((p - start) % cell, 0);
    for (uintptr_t at = start; at < end; at++) {
        struct heap_object object;
        size_t index = (at - start) / cell;
        if (!heap_find(at, &object)) /* maybe free, if it is no cell of ours */
            continue;
        assert_true(index < layout->cells);
        assert_int_equal(object.base, start + index * cell);
        assert_int_equal(object.size, cell);
    }
    for (uintptr_t at = start + (size_t)layout->cells * cell; at < end; at++) {
        assert_null(grey_base((void *)at)); /* AL-12 */
        assert_int_equal(grey_size((void *)at), 0);
    }
}

static void check_class(unsigned c, void *(*alloc)(size_t size))
{
    char *cells[CELLS_MOST + 1] = {NULL};                              /* on the stack: this keeps them */
    uint32_t cell = class_bytes[c], n = heap_layouts[2 * c].cells + 1; /* more than one span */
    for (uint32_t i = 0; i < n; i++) {
        /* The class's least, greatest and any size. */
        size_t least = c != 0 ? class_bytes[c - 1] + 1 : 1;
        size_t size = i == 0 ? least : i == 1 ? cell : least + next_random() % (cell - least + 1);
        cells[i] = alloc(size);
        assert_non_null(cells[i]);
        assert_int_equal(grey_size(cells[i]), cell);
    }
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < cell; k++)
            check_byte((uintptr_t)cells[i] + k, (uintptr_t)cells[i], cell);
        size_t inside = next_random() % cell;
        assert_ptr_equal(grey_base(cells[i] + inside), cells[i]); /* AL-11 */
        assert_int_equal(grey_size(cells[i] + inside), cell);
    }
    check_span((uintptr_t)cells[0], cell);
    check_span((uintptr_t)cells[n - 1], cell);
    for (uint32_t i = 0; i < n; i++)
        grey_keep_alive(cells[i]);
}

static void each_byte_of_each_class(void **unused)
{
    (void)unused;
    for (unsigned c = 0; c < HEAP_N_CLASSES; c++) {
        check_class(c, grey_alloc);
        check_class(c, grey_alloc_leaf);
    }
}

/* The header is no part of what the program may use, and all of the cell leads to it. */
static void cells_with_headers(void **unused)
{
    (void)unused;
    struct pair {
        void *pointer;
        uint64_t number;
    };
    static const uint8_t bits[] = {1};
    static struct grey_type type;
    assert_int_equal(grey_type_init(&type, "lookup_pair", sizeof(struct pair), bits, 1), 0);
    for (size_t count = 2; count <= 2047; count = count * 3 / 2 + 1) {
        struct pair *p = grey_new_array(&type, count);
        assert_non_null(p);
        struct heap_object object;
        assert_true(heap_find((uintptr_t)p, &object));
        assert_int_equal(heap_layouts[object.layout].kind, LAYOUT_HEADER);
        assert_int_equal(grey_size(p), object.size - sizeof(uint64_t));
        assert_true(grey_size(p) >= count * sizeof(struct pair));
        for (size_t k = 0; k < object.size; k++)
            check_byte((uintptr_t)p + k, (uintptr_t)p, object.size);
        grey_keep_alive(p);
    }
}

static void large_objects(void **unused)
{
    (void)unused;
    static const size_t sizes[] = {32769,         40000,         40960,         65537,
                                   (1 << 20) - 1, (1 << 20) + 1, (8 << 20) + 5, 20 << 20};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        char *p = i % 2 ? grey_alloc_leaf(sizes[i]) : grey_alloc(sizes[i]);
        assert_non_null(p);
        size_t whole = (sizes[i] + GREY_PAGE - 1) / GREY_PAGE * GREY_PAGE;
        assert_int_equal((uintptr_t)p % GREY_PAGE, 0);
        assert_int_equal(grey_size(p), whole); /* AL-3 */
        for (size_t at = 0; at < whole; at += GREY_PAGE) {
            check_byte((uintptr_t)p + at, (uintptr_t)p, whole);
            check_byte((uintptr_t)p + at + GREY_PAGE - 1, (uintptr_t)p, whole);
        }
        for (int k = 0; k < 1000; k++)
            check_byte((uintptr_t)p + next_random() % whole, (uintptr_t)p, whole);
        assert_ptr_not_equal(grey_base(p - 1), p);
        assert_ptr_not_equal(grey_base(p + whole), p);
        grey_keep_alive(p);
    }
}

static void outside(void **unused)
{
    (void)unused;
    struct heap_object object;
    uintptr_t base = (uintptr_t)heap.base, extent = atomic_load(&heap.extent);
    static int in_data;
    const uintptr_t addresses[] = {0,
                                   1,
                                   base - 1,
                                   base + extent,
                                   base + extent + GREY_PAGE,
                                   base + heap.reserved,
                                   base + heap.reserved - 1,
                                   UINTPTR_MAX,
                                   (uintptr_t)&in_data,
                                   (uintptr_t)&object};
    for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
        assert_false(heap_find(addresses[i], &object));
        assert_null(grey_base((void *)addresses[i]));
        assert_int_equal(grey_size((void *)addresses[i]), 0);
    }
}

/* Any address of the heap leads to an object that contains it, or to none. */
static void random_addresses(void **unused)
{
    (void)unused;
    uintptr_t extent = atomic_load(&heap.extent);
    for (int i = 0; i < 200000; i++) {
        struct heap_object object;
        uintptr_t p = (uintptr_t)heap.base + next_random() % extent;
        if (heap_find(p, &object))
            assert_true(p - object.base < object.size && object.base % HEAP_GRANULE == 0);
    }
}

int main(void)
{
    const char *seed = getenv("GREY_TEST_SEED");
    state = seed != NULL ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
    printf("GREY_TEST_SEED=%llu\n", (unsigned long long)state);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes),          cmocka_unit_test(reciprocals_are_exact),
        cmocka_unit_test(outside),          cmocka_unit_test(each_byte_of_each_class),
        cmocka_unit_test(large_objects),    cmocka_unit_test(cells_with_headers),
        cmocka_unit_test(random_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
