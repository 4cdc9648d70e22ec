/* tests/hooks/foreign_memory_test.c -- registration and release when no memory is to be had.
 *
 * Requirements: FR-12, FR-35, ER-2, and ENOMEM in the row of 0.3.  Mappings are refused (os_fail_mapping) to
 * each of very many registrations: one that fails has changed nothing and succeeds when it is tried again,
 * what was there is found all the while, and release never needs memory that could be refused.
 */
#include "support_foreign.h"
#include "support_hooks.h"

#include <sys/mman.h>

enum { MANY = 60000, STRIDE = 32, WIDTH = 31 };
static grey_foreign handles[MANY];
GREY_ROOT(char *, memory); /* the first region's; there are no cycles meanwhile */

static void never(uintptr_t start, size_t size, void *arg)
{
    (void)start, (void)size, (void)arg;
    hooks_fail("a cleanup ran");
}

static struct grey_stats figures(void)
{
    struct grey_stats stats = GREY_STATS_INIT;
    HOOKS_CHECK(grey_stats_read(&stats) == 0);
    return stats;
}

static int add_refused(int i)
{
    os_fail_mapping(1, ENOMEM);
    int error = grey_foreign_add(memory + (size_t)i * STRIDE, WIDTH, 0, never, NULL, &handles[i]);
    os_fail_mapping(1, 0);
    return error;
}

static void check_found(int i)
{
    uintptr_t start = 0;
    size_t size = 0;
    HOOKS_CHECK(grey_foreign_find(memory + (size_t)i * STRIDE + WIDTH - 1, &start, &size));
    HOOKS_CHECK(start == (uintptr_t)memory + (size_t)i * STRIDE && size == WIDTH);
}

static void test_no_memory(void **unused)
{
    (void)unused;
    hooks_up("");
    memory = region_map((size_t)MANY * STRIDE, PROT_READ | PROT_WRITE);
    int refusals = 0;
    for (int i = 0; i < MANY; i++) {
        struct grey_stats before = figures();
        int error = add_refused(i);
        if (error == 0)
            continue;
        refusals++;
        struct grey_stats after = figures();
        HOOKS_CHECK(error == ENOMEM && handles[i] == 0);
        HOOKS_CHECK(before.foreign_regions == after.foreign_regions);
        HOOKS_CHECK(before.foreign_bytes == after.foreign_bytes);
        HOOKS_CHECK(!grey_foreign_find(memory + (size_t)i * STRIDE, NULL, NULL));
        for (int k = 0; k < i; k += 1 + i / 100)
            check_found(k);
        HOOKS_CHECK(grey_foreign_add(memory + (size_t)i * STRIDE, WIDTH, 0, never, NULL, &handles[i]) == 0);
    }
    assert_true(refusals > 0);
    for (int i = 0; i < MANY; i++)
        check_found(i);
    for (int i = 0; i < MANY; i++) { /* in an order that empties nodes here and there */
        int gone = (int)((uint64_t)i * 7919 % MANY);
        os_fail_mapping(1, ENOMEM);
        HOOKS_CHECK(grey_foreign_release(handles[gone]));
        os_fail_mapping(1, 0);
        HOOKS_CHECK(!grey_foreign_find(memory + (size_t)gone * STRIDE, NULL, NULL));
    }
    HOOKS_CHECK(figures().foreign_regions == 0 && figures().foreign_bytes == 0);
    memory = NULL;
    hooks_down();
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_memory)};
    return hooks_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
