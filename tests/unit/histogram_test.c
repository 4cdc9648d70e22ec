/* tests/unit/histogram_test.c -- the log-linear histogram by itself (TR-7, TR-8).
 *
 * Buckets are checked at every edge, the error bound over random values of every magnitude, quantiles
 * against a sorted array of the same values, and threads that record at once against a plain sum.
 * Seed: GREY_TEST_SEED or the clock; printed.
 */
#include "inspect/histogram.h"

#include <pthread.h>
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t state;

static uint64_t next_random(uint64_t *s) /* splitmix64 */
{
    uint64_t z = (*s += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* All magnitudes alike. */
static uint64_t random_value(uint64_t *s) { return next_random(s) >> (next_random(s) & 63); }

static void buckets_follow_each_other(void **unused)
{
    (void)unused;
    assert_int_equal(histogram_low(0), 0);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        assert_int_equal(histogram_index(histogram_low(i)), i);
        assert_int_equal(histogram_index(histogram_high(i)), i);
        if (i > 0)
            assert_true(histogram_low(i) == histogram_high(i - 1) + 1);
    }
    assert_true(histogram_high(HISTOGRAM_BUCKETS - 1) == UINT64_MAX);
}

/* TR-8: what is reported for a value is at most 1/64 above it, and not below. */
static void error_is_bounded(void **unused)
{
    (void)unused;
    for (int i = 0; i < 1000000; i++) {
        uint64_t value = random_value(&state);
        uint64_t reported = histogram_high(histogram_index(value));
        assert_true(reported >= value);
        assert_true(reported - value <= value / 64);
    }
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void quantiles_match_a_sorted_array(void **unused)
{
    (void)unused;
    static struct histogram histogram;
    static uint64_t values[30011];
    for (unsigned round = 0; round < 20; round++) {
        size_t n = round < 3 ? round + 1 : 1 + next_random(&state) % 30011;
        uint64_t sum = 0;
        histogram_reset(&histogram);
        for (size_t i = 0; i < n; i++) {
            values[i] = random_value(&state) >> 16; /* the sum stays in 64 bits */
            sum += values[i];
            histogram_record(&histogram, values[i]);
        }
        qsort(values, n, sizeof(values[0]), by_value);
        assert_true(histogram_count(&histogram) == n);
        assert_true(histogram_sum(&histogram) == sum);
        assert_true(histogram_max(&histogram) == values[n - 1]);
        assert_true(histogram_quantile(&histogram, 10000) == values[n - 1]);
        static const unsigned shares[] = {0, 1, 100, 2500, 5000, 9000, 9900, 9990, 9999};
        uint64_t before = 0;
        for (size_t s = 0; s < sizeof(shares) / sizeof(shares[0]); s++) {
            size_t rank = (n * shares[s] + 9999) / 10000;
            uint64_t exact = values[rank == 0 ? 0 : rank - 1];
            uint64_t reported = histogram_quantile(&histogram, shares[s]);
            assert_true(reported >= exact);
            assert_true(reported - exact <= exact / 64);
            assert_true(reported >= before);
            before = reported;
        }
    }
}

static void empty_and_reset(void **unused)
{
    (void)unused;
    static struct histogram histogram;
    const struct histogram *set[] = {&histogram};
    struct histogram_summary summary;
    memset(&summary, 0xff, sizeof(summary));
    histogram_summarize(set, 1, &summary);
    assert_true(summary.count == 0 && summary.sum == 0 && summary.max == 0);
    assert_true(summary.p50 == 0 && summary.p99 == 0 && summary.p9999 == 0);
    assert_true(histogram_quantile(&histogram, 5000) == 0);
    histogram_record(&histogram, 0);
    histogram_record(&histogram, UINT64_MAX);
    assert_true(histogram_count(&histogram) == 2);
    assert_true(histogram_quantile(&histogram, 5000) == 0);
    assert_true(histogram_quantile(&histogram, 9999) == UINT64_MAX);
    histogram_reset(&histogram);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        assert_true(histogram_at(&histogram, i) == 0);
    assert_true(histogram_sum(&histogram) == 0 && histogram_max(&histogram) == 0);
}

static void several_are_summarized_as_one(void **unused)
{
    (void)unused;
    static struct histogram parts[3], whole;
    for (int i = 0; i < 9000; i++) {
        uint64_t value = random_value(&state) >> 16;
        histogram_record(&parts[next_random(&state) % 3], value);
        histogram_record(&whole, value);
    }
    const struct histogram *set[] = {&parts[0], &parts[1], &parts[2]}, *one[] = {&whole};
    struct histogram_summary a, b;
    histogram_summarize(set, 3, &a);
    histogram_summarize(one, 1, &b);
    assert_memory_equal(&a, &b, sizeof(a));
    assert_true(a.count == 9000);
}

enum { WRITERS = 4, EACH = 200000 };
static struct histogram shared;
static atomic_int running;

static void *write_many(void *seed)
{
    uint64_t own = (uint64_t)(uintptr_t)seed, sum = 0;
    for (int i = 0; i < EACH; i++) {
        uint64_t value = random_value(&own) >> 24;
        sum += value;
        histogram_record(&shared, value);
    }
    atomic_fetch_sub(&running, 1);
    return (void *)(uintptr_t)sum;
}

/* TR-5, TR-7: beside writers nothing decreases and quantiles are in order; at the end nothing is lost. */
static void concurrent_records_are_not_lost(void **unused)
{
    (void)unused;
    pthread_t threads[WRITERS];
    atomic_store(&running, WRITERS);
    for (int i = 0; i < WRITERS; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, write_many, (void *)(uintptr_t)(next_random(&state) | 1)), 0);
    const struct histogram *set[] = {&shared};
    struct histogram_summary now, before = {0};
    do {
        histogram_summarize(set, 1, &now);
        assert_true(now.p50 <= now.p99 && now.p99 <= now.p9999 && now.p9999 <= now.max);
        assert_true(now.count >= before.count && now.sum >= before.sum && now.max >= before.max);
        before = now;
    } while (atomic_load(&running) > 0);
    uint64_t sum = 0;
    for (int i = 0; i < WRITERS; i++) {
        void *part;
        assert_int_equal(pthread_join(threads[i], &part), 0);
        sum += (uint64_t)(uintptr_t)part;
    }
    histogram_summarize(set, 1, &now);
    assert_true(now.count == (uint64_t)WRITERS * EACH);
    assert_true(now.sum == sum);
}

int main(void)
{
    const char *seed = getenv("GREY_TEST_SEED");
    state = seed != NULL ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
    printf("GREY_TEST_SEED=%llu\n", (unsigned long long)state);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_follow_each_other),      cmocka_unit_test(error_is_bounded),
        cmocka_unit_test(quantiles_match_a_sorted_array), cmocka_unit_test(empty_and_reset),
        cmocka_unit_test(several_are_summarized_as_one),  cmocka_unit_test(concurrent_records_are_not_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
