/* tests/stress/foreign_test.c -- foreign regions in the hands of many threads, under endless cycles.
 *
 * Requirements: FR-7 .. FR-10, FR-16, FR-18 .. FR-26, FR-29, FR-31 .. FR-33, FR-35, FR-37, FR-38, FR-44.  How
 * a region that died too early, or twice, or not at all is noticed: support_regions.c.
 */
#include "support_regions.h"
#include "support_stress.h"

static void test_regions(void **unused)
{
    (void)unused;
    regions_start();
    regions_end();
}

int main(void)
{
    stress_seed();
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_regions)};
    return cmocka_run_group_tests_name("foreign regions", tests, NULL, NULL);
}
