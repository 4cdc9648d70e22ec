/* tests/api/foreign_add_test.c -- registration of foreign memory: what is refused, what is found, release.
 *
 * Requirements: FR-1 .. FR-7, FR-11, FR-17 (the tables of "Cases to cover"), FR-35, FR-37, FR-38,
 * FR-42, FR-44, ER-2, AL-16, and the row of 0.3.  Nothing here waits for a region to die: see
 * foreign_death_test.c.  Each phase of a cycle needs hooks: tests/hooks/foreign_phase_test.c.
 */
#include "support_child.h"
#include "support_foreign.h"
#include "support_heap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
enum { SIZE = 4096 };
static const grey_foreign UNTOUCHED = 0x5555;

GREY_ROOT(char *, memory); /* SIZE bytes with SIZE bytes of the same mapping on either side */
/* Nothing may die here: the last regions that were added, all that a test has at a time. */
enum { HELD = 8192 };
GREY_ROOT(void *[HELD], held);

static void never(uintptr_t start, size_t size, void *arg)
{
    (void)arg;
    fprintf(stderr, "cleanup of %#lx, %zu, which was released\n", (unsigned long)start, size);
    abort();
}

static int get_memory(void **unused)
{
    (void)unused;
    grey_set_percent(-1);
    char *middle = region_map(3 * SIZE, PROT_READ | PROT_WRITE) + SIZE;
    grey_store(&memory, middle);
    return grey_thread_attach();
}

static grey_foreign add(void *start, size_t size)
{
    static unsigned n;
    grey_foreign handle = 0;
    grey_store(&held[n++ % HELD], start);
    assert_int_equal(grey_foreign_add(start, size, 0, never, NULL, &handle), 0);
    assert_true(handle != 0);
    return handle;
}

/* ER-2: refused, and nothing changed. */
static void refused(void *start, size_t size, unsigned flags, grey_foreign_fn *fn, void *arg, int error)
{
    grey_foreign handle = UNTOUCHED;
    struct grey_stats before = heap_figures();
    int result = grey_foreign_add(start, size, flags, fn, arg, &handle);
    struct grey_stats after = heap_figures();
    if (result != error)
        fail_msg("grey_foreign_add(%p, %#zx, %u) is %d, not %d", start, size, flags, result, error);
    assert_true(handle == UNTOUCHED);
    assert_true(before.foreign_regions == after.foreign_regions);
    assert_true(before.foreign_bytes == after.foreign_bytes);
    assert_int_equal(grey_foreign_add(start, size, flags, fn, arg, NULL), error);
}

static void assert_found(const void *p, const void *start, size_t size)
{
    uintptr_t found = 0;
    size_t found_size = 0;
    if (!grey_foreign_find(p, &found, &found_size) || found != (uintptr_t)start || found_size != size)
        fail_msg("%p finds [%#lx, %zu), not [%p, %zu)", p, (unsigned long)found, found_size, start, size);
    assert_true(grey_foreign_find(p, NULL, NULL));
}

/* ---- what is refused ------------------------------------------------------------------------------- */

/* FR-3, FR-4 */
static void bad_arguments(void **unused)
{
    (void)unused;
    refused(NULL, SIZE, 0, never, NULL, EINVAL);
    refused(NULL, 0, 0, never, NULL, EINVAL);
    refused(memory, 0, 0, never, NULL, EINVAL);
    refused(memory, SIZE, 0, NULL, NULL, EINVAL);
    refused(memory, SIZE, 2, never, NULL, EINVAL);
    refused(memory, SIZE, GREY_FOREIGN_SCAN | 4, never, NULL, EINVAL);
    refused(memory, SIZE, ~0u, never, NULL, EINVAL);
    refused(memory, SIZE, 1u << 31, never, NULL, EINVAL);
    refused(memory, SIZE_MAX, 0, never, NULL, EINVAL);
    refused(memory, SIZE_MAX - (uintptr_t)memory + 2, 0, never, NULL, EINVAL);
    refused((void *)UINTPTR_MAX, 2, 0, never, NULL, EINVAL);
    refused((void *)(UINTPTR_MAX - 15), 17, GREY_FOREIGN_SCAN, never, NULL, EINVAL);
    assert_false(grey_foreign_find(memory, NULL, NULL));
}

/* FR-11: the cleanup would never run. */
static void argument_inside(void **unused)
{
    (void)unused;
    const unsigned flags[] = {0, GREY_FOREIGN_SCAN};
    for (size_t i = 0; i < LENGTH(flags); i++) {
        refused(memory, SIZE, flags[i], never, memory, EINVAL);
        refused(memory, SIZE, flags[i], never, memory + SIZE / 2 + 1, EINVAL);
        refused(memory, SIZE, flags[i], never, memory + SIZE - 1, EINVAL);
        refused(memory, 1, flags[i], never, memory, EINVAL);
        char *const outside[] = {memory - 1, memory + SIZE, NULL};
        for (size_t k = 0; k < LENGTH(outside); k++) {
            grey_foreign handle = 0;
            assert_int_equal(grey_foreign_add(memory, SIZE, flags[i], never, outside[k], &handle), 0);
            assert_true(grey_foreign_release(handle));
        }
    }
}

/* FR-5, FR-7: by one byte or by all; the entry that is there stays as it is. */
static void overlaps(void **unused)
{
    (void)unused;
    static const struct {
        int start, size;
    } overlapping[] = {
        {0, SIZE},     {0, 1},           {SIZE - 1, 1},     {SIZE / 2, 1}, {-1, 2},       {-SIZE, SIZE + 1},
        {SIZE - 1, 2}, {SIZE - 1, SIZE}, {1, SIZE - 1},     {0, SIZE - 1}, {1, SIZE - 2}, {-1, SIZE + 1},
        {0, SIZE + 1}, {-1, SIZE + 2},   {-SIZE, 3 * SIZE}, {7, 13},
    };
    grey_foreign handle = add(memory, SIZE);
    for (size_t i = 0; i < LENGTH(overlapping); i++) {
        refused(memory + overlapping[i].start, (size_t)overlapping[i].size, 0, never, NULL, EEXIST);
        refused(memory + overlapping[i].start, (size_t)overlapping[i].size, GREY_FOREIGN_SCAN, never, NULL,
                EEXIST);
        assert_found(memory + SIZE / 2, memory, SIZE);
    }
    assert_true(grey_foreign_release(handle));
    assert_false(grey_foreign_release(handle));
    for (size_t i = 0; i < LENGTH(overlapping); i++) /* nothing of them was left */
        assert_true(grey_foreign_release(add(memory + overlapping[i].start, (size_t)overlapping[i].size)));
}

/* FR-6 */
static void heap_overlaps(void **unused)
{
    (void)unused;
    char *small = grey_alloc(48), *large = grey_alloc_leaf(1 << 20);
    assert_true(small != NULL && large != NULL);
    refused(small, 48, 0, never, NULL, EEXIST);
    refused(small, 1, 0, never, NULL, EEXIST);
    refused(small + 47, 1, GREY_FOREIGN_SCAN, never, NULL, EEXIST);
    refused(large, 1 << 20, 0, never, NULL, EEXIST);
    refused(large + 12345, 1, 0, never, NULL, EEXIST);
    refused((void *)0x10000, 0x7fffffff0000 - 0x10000, 0, never, NULL, EEXIST); /* all there is */
    grey_keep_alive(small);
    grey_keep_alive(large);
    assert_true(grey_foreign_release(add(memory, 1))); /* and the index is still in order */
}

static _Atomic int step;
static char *_Atomic other_stack;
static void await(int n)
{
    while (atomic_load(&step) < n)
        usleep(100);
}
static int await_blocked(void *n)
{
    await(*(int *)n);
    return 0;
}

static void *have_a_stack(void *detach)
{
    volatile char on_the_stack = 1;
    atomic_store(&other_stack, (char *)&on_the_stack);
    if (detach != NULL)
        grey_thread_detach();
    atomic_store(&step, 1);
    int two = 2;
    if (detach != NULL)
        await(2);
    else
        grey_blocking_call(await_blocked, &two);
    return NULL;
}

/* FR-6: all of the stack of each attached thread, and of none that isn't. */
static void stack_overlaps(void **unused)
{
    (void)unused;
    volatile char here = 1;
    refused((void *)(uintptr_t)&here, 1, 0, never, NULL, EEXIST);
    pthread_attr_t attributes;
    void *low;
    size_t size;
    assert_int_equal(pthread_getattr_np(pthread_self(), &attributes), 0);
    assert_int_equal(pthread_attr_getstack(&attributes, &low, &size), 0);
    pthread_attr_destroy(&attributes);
    refused((char *)low + size - 8, 1, 0, never, NULL, EEXIST);
    refused((char *)low + size - 8, 100, GREY_FOREIGN_SCAN, never, NULL, EEXIST);

    for (int detach = 0; detach < 2; detach++) {
        pthread_t thread;
        atomic_store(&step, 0);
        assert_int_equal(grey_thread_create(&thread, NULL, have_a_stack, detach ? &step : NULL), 0);
        await(1);
        char *stack = atomic_load(&other_stack);
        if (detach != 0) {
            assert_true(grey_foreign_release(add(stack - 64, 65)));
        } else {
            refused(stack, 1, 0, never, NULL, EEXIST);
            refused(stack - 1000, 2000, GREY_FOREIGN_SCAN, never, NULL, EEXIST);
            refused(stack - 16384, 1, 0, never, NULL, EEXIST); /* its free part */
        }
        atomic_store(&step, 2);
        assert_int_equal(grey_thread_join(thread, NULL), 0);
    }
}

/* FR-6, and the other way round: 0.3, grey_stack_add. */
static void registered_stacks(void **unused)
{
    (void)unused;
    assert_int_equal(grey_stack_add(memory, memory + SIZE), 0);
    refused(memory, SIZE, 0, never, NULL, EEXIST);
    refused(memory + SIZE - 1, 1, 0, never, NULL, EEXIST);
    refused(memory - 1, 2, 0, never, NULL, EEXIST);
    refused(memory + SIZE - 1, 2, GREY_FOREIGN_SCAN, never, NULL, EEXIST);
    refused(memory - SIZE, 3 * SIZE, 0, never, NULL, EEXIST);
    grey_foreign below = add(memory - SIZE, SIZE), above = add(memory + SIZE, SIZE);
    assert_int_equal(grey_stack_remove(memory), 0);
    grey_foreign handle = add(memory, SIZE);
    assert_int_equal(grey_stack_add(memory, memory + SIZE), EEXIST);
    assert_int_equal(grey_stack_add(memory + SIZE - 16, memory + 2 * SIZE), EEXIST);
    assert_int_equal(grey_stack_add(memory - SIZE, memory + 2 * SIZE), EEXIST);
    assert_true(grey_foreign_release(handle));
    assert_int_equal(grey_stack_add(memory, memory + SIZE), 0);
    assert_int_equal(grey_stack_remove(memory), 0);
    assert_true(grey_foreign_release(below) && grey_foreign_release(above));
}

/* ---- what is found --------------------------------------------------------------------------------- */

static void edges(void **unused)
{
    (void)unused;
    static const int sizes[] = {1, 2, 7, 8, 63, SIZE - 1, SIZE};
    static const int starts[] = {0, 1, 7, -1, SIZE / 2 + 3}; /* FR-2: no alignment */
    for (size_t i = 0; i < LENGTH(sizes); i++)
        for (size_t k = 0; k < LENGTH(starts); k++) {
            char *start = memory + starts[k];
            size_t size = (size_t)sizes[i];
            grey_foreign handle = add(start, size);
            assert_found(start, start, size);
            assert_found(start + size / 2, start, size);
            assert_found(start + size - 1, start, size);
            assert_false(grey_foreign_find(start - 1, NULL, NULL));
            assert_false(grey_foreign_find(start + size, NULL, NULL)); /* one past the end is outside */
            assert_true(grey_foreign_release(handle));
            assert_false(grey_foreign_find(start, NULL, NULL));
        }
}

static void found_nowhere(void **unused)
{
    (void)unused;
    grey_foreign handle = add(memory, SIZE);
    uintptr_t start;
    size_t size;
    volatile char here = 1;
    char *object = grey_alloc(64), *block = malloc(64);
    assert_false(grey_foreign_find(NULL, &start, &size));
    assert_false(grey_foreign_find(object, &start, &size));
    assert_false(grey_foreign_find(block, &start, &size));
    assert_false(grey_foreign_find((void *)(uintptr_t)&here, &start, &size));
    assert_false(grey_foreign_find(&step, &start, &size));
    assert_false(grey_foreign_find((void *)UINTPTR_MAX, &start, &size));
    assert_false(grey_foreign_find((void *)1, &start, &size));
    free(block);
    /* Nor is foreign memory heap (AL-12); no cleanup, finalizer or weak reference for it (D-16). */
    assert_null(grey_base(memory));
    assert_int_equal(grey_size(memory), 0);
    assert_true(grey_foreign_release(handle));
}

/* FR-7: neighbours touch and stay two, in whatever order they come and go. */
static void neighbours(void **unused)
{
    (void)unused;
    static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (int in = 0; in < 6; in++)
        for (int out = 0; out < 6; out++) {
            grey_foreign handles[3];
            bool there[3] = {false};
            for (int i = 0; i < 3; i++) {
                int n = orders[in][i];
                handles[n] = add(memory + n * 100 - 50, 100);
            }
            memset(there, true, sizeof(there));
            for (int i = 0; i <= 3; i++) {
                for (int n = 0; n < 3; n++) {
                    char *start = memory + n * 100 - 50;
                    if (there[n]) {
                        assert_found(start, start, 100);
                        assert_found(start + 99, start, 100);
                    } else {
                        assert_false(grey_foreign_find(start, NULL, NULL));
                        assert_false(grey_foreign_find(start + 99, NULL, NULL));
                    }
                }
                if (i < 3) {
                    assert_true(grey_foreign_release(handles[orders[out][i]]));
                    there[orders[out][i]] = false;
                }
            }
        }
}

/* TestAddrRangesAdd and TestAddrRangesFindSucc, without merging: grown at the end, at the front, in the
 * gaps; the whole state after each step. */
enum { RANGES = 127, STRIDE = 10, WIDTH = 6 };
static void check_ranges(char *base, const bool *there)
{
    for (int i = 0; i < RANGES; i++)
        for (int at = -1; at <= WIDTH; at++) {
            char *start = base + i * STRIDE;
            if (there[i] && at >= 0 && at < WIDTH)
                assert_found(start + at, start, WIDTH);
            else
                assert_false(grey_foreign_find(start + at, NULL, NULL));
        }
}

static void many_ranges(void **unused)
{
    (void)unused;
    bool there[RANGES] = {false};
    grey_foreign handles[RANGES];
    int order[RANGES], n = 0;
    for (int i = 63; i < RANGES; i++)
        order[n++] = i; /* 64 appended */
    for (int i = 62; i >= 0; i--)
        order[n++] = i; /* 63 prepended */
    for (int i = 0; i < RANGES; i++) {
        handles[order[i]] = add(memory + order[i] * STRIDE, WIDTH);
        there[order[i]] = true;
        check_ranges(memory, there);
    }
    for (int i = 0; i < RANGES; i++) { /* every third, and so on until none is left */
        int gone = i * 3 % RANGES;
        assert_true(grey_foreign_release(handles[gone]));
        there[gone] = false;
        check_ranges(memory, there);
    }
}

/* FR-2: one byte each, side by side; and more address space than there is memory, which nobody reads. */
static void tiny_and_huge(void **unused)
{
    (void)unused;
    static grey_foreign handles[SIZE];
    for (int i = 0; i < SIZE; i++)
        handles[i] = add(memory + i, 1);
    for (int i = 0; i < SIZE; i++)
        assert_found(memory + i, memory + i, 1);
    for (int i = 0; i < SIZE; i += 2)
        assert_true(grey_foreign_release(handles[i]));
    for (int i = 0; i < SIZE; i++)
        assert_int_equal(grey_foreign_find(memory + i, NULL, NULL), i % 2);
    for (int i = 1; i < SIZE; i += 2)
        assert_true(grey_foreign_release(handles[i]));

    size_t huge = (size_t)1 << 40;
    struct grey_stats before = heap_figures();
    char *reserved = region_map(huge, PROT_NONE);
    grey_foreign handle = add(reserved, huge);
    assert_found(reserved + huge - 1, reserved, huge);
    struct grey_stats after = heap_figures();
    assert_true(after.foreign_bytes == before.foreign_bytes + huge);
    heap_collect_twice();
    assert_found(reserved + huge / 2, reserved, huge);
    assert_true(grey_foreign_release(handle));
    region_unmap(reserved, huge);
}

/* ---- release and handles --------------------------------------------------------------------------- */

/* FR-35, FR-37: the caller unmaps at once; cycles go on over what is left. */
static void release_is_final(void **unused)
{
    (void)unused;
    for (int scan = 0; scan < 2; scan++) {
        char *start = region_map(1 << 20, PROT_READ | PROT_WRITE);
        grey_foreign handle = 0;
        assert_int_equal(grey_foreign_add(start, 1 << 20, scan ? GREY_FOREIGN_SCAN : 0, never, NULL, &handle),
                         0);
        grey_collect_start();
        assert_true(grey_foreign_release(handle));
        region_unmap(start, 1 << 20);
        assert_false(grey_foreign_release(handle));
        assert_false(grey_foreign_find(start, NULL, NULL));
        heap_collect_twice();
        assert_false(grey_foreign_release(handle));
    }
    assert_true(grey_cleanup_wait(-1));
}

/* FR-38 */
static void handles(void **unused)
{
    (void)unused;
    assert_false(grey_foreign_release(0));
    grey_foreign handle = add(memory, SIZE);
    const grey_foreign made_up[] = {UINT64_MAX,
                                    handle ^ (grey_foreign)1 << 31,
                                    handle ^ (grey_foreign)1 << 32,
                                    handle + ((grey_foreign)1 << 32),
                                    handle ^ (grey_foreign)1 << 63,
                                    handle << 32,
                                    (grey_foreign)1 << 31,
                                    UINT32_MAX,
                                    (grey_foreign)(uintptr_t)memory};
    for (size_t i = 0; i < LENGTH(made_up); i++)
        if (made_up[i] != handle)
            assert_false(grey_foreign_release(made_up[i]));
    assert_found(memory, memory, SIZE);
    assert_true(grey_foreign_release(handle));

    enum { MANY = 5000 };
    static grey_foreign given[MANY];
    for (int i = 0; i < MANY; i++) { /* a new one each time, and all the old ones stay stale */
        given[i] = add(memory, SIZE);
        assert_false(i > 0 && grey_foreign_release(given[i / 2]));
        assert_true(grey_foreign_release(given[i]));
    }
    for (int i = 0; i < MANY; i++)
        for (int k = i + 1; k < MANY && k < i + 300; k++)
            assert_true(given[i] != given[k]);
}

static void *release_it(void *handle)
{
    return grey_foreign_release(*(grey_foreign *)handle) ? handle : NULL;
}

/* AL-16: from a thread that Grey does not know; and not from the one that added. */
static void *add_unattached(void *handle)
{
    uint64_t threads = heap_figures().threads;
    int error = grey_foreign_add(memory, SIZE, 0, never, NULL, handle);
    return error == 0 && heap_figures().threads == threads + 1 ? handle : NULL;
}
static void other_threads(void **unused)
{
    (void)unused;
    grey_foreign handle = 0;
    void *result = NULL;
    void *(*const calls[])(void *) = {add_unattached, release_it};
    for (size_t i = 0; i < LENGTH(calls); i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, calls[i], &handle), 0);
        assert_int_equal(pthread_join(thread, &result), 0);
        assert_ptr_equal(result, &handle);
    }
    assert_false(grey_foreign_release(handle));
}

/* ---- figures --------------------------------------------------------------------------------------- */

/* FR-42, FR-44: no heap, no goal, no limit. */
static void figures(void **unused)
{
    (void)unused;
    size_t limit = grey_set_memory_limit((size_t)1 << 30), huge = (size_t)1 << 36;
    heap_collect_twice();
    struct grey_stats before = heap_figures();
    char *reserved = region_map(huge, PROT_NONE);
    grey_foreign first = add(reserved, huge), second = add(memory, 123);
    struct grey_stats added = heap_figures();
    assert_true(added.foreign_regions == before.foreign_regions + 2);
    assert_true(added.foreign_bytes == before.foreign_bytes + huge + 123);
    assert_true(added.heap_live < before.heap_live + (64 << 20));
    heap_collect_twice();
    struct grey_stats after = heap_figures();
    assert_true(after.heap_live < before.heap_live + (64 << 20));
    assert_true(after.heap_goal - before.heap_goal + (64 << 20) < 128 << 20);
    assert_true(after.mapped < before.mapped + (64 << 20));
    grey_set_memory_limit(limit);
    assert_true(grey_foreign_release(first) && grey_foreign_release(second));
    after = heap_figures();
    assert_true(after.foreign_regions == before.foreign_regions);
    assert_true(after.foreign_bytes == before.foreign_bytes);
    assert_true(after.foreign_died == before.foreign_died); /* released is not died */
    region_unmap(reserved, huge);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_arguments),  cmocka_unit_test(argument_inside),
        cmocka_unit_test(overlaps),       cmocka_unit_test(heap_overlaps),
        cmocka_unit_test(stack_overlaps), cmocka_unit_test(registered_stacks),
        cmocka_unit_test(edges),          cmocka_unit_test(found_nowhere),
        cmocka_unit_test(neighbours),     cmocka_unit_test(many_ranges),
        cmocka_unit_test(tiny_and_huge),  cmocka_unit_test(release_is_final),
        cmocka_unit_test(handles),        cmocka_unit_test(other_threads),
        cmocka_unit_test(figures),
    };
    return cmocka_run_group_tests_name("foreign memory: registration", tests, get_memory, NULL);
}
