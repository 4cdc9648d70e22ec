/* tests/unit/limiter_test.c -- the limiter on a fake clock (PC-14; "TestGCCPULimiter" of the table in
 * docs/requirements.md, section 10), and a random test of its invariants.
 */
#include "cycle/limiter.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MS ((uint64_t)1000 * 1000)
#define SECOND (1000 * MS)
enum { PROCESSORS = 14 };

static struct limiter limiter;
static struct limiter_reading reading;

/* ms of wall time; of each of so many thousandths of the processors. */
static void passes(uint64_t ms, unsigned collector, unsigned program)
{
    reading.now += ms * MS;
    reading.collector += ms * MS * PROCESSORS * collector / 1000;
    reading.program += ms * MS * PROCESSORS * program / 1000;
    limiter_update(&limiter, &reading, 7);
}

static int set_up(void **unused)
{
    (void)unused;
    reading = (struct limiter_reading){.now = 12345, .collector = 678, .program = 90, .held = 11};
    limiter_init(&limiter, &reading, PROCESSORS);
    assert_int_equal(limiter.capacity, PROCESSORS * SECOND);
    assert_int_equal(limiter.fill, 0);
    assert_false(limiter.limiting);
    return 0;
}

static void check(uint64_t fill, bool limiting, uint64_t overflow)
{
    assert_int_equal(limiter.fill, fill);
    assert_int_equal(limiter.limiting, limiting);
    assert_int_equal(limiter.overflow, overflow);
}

static void idle_and_program(void **unused)
{
    (void)unused;
    passes(10, 0, 1000);
    passes(1000, 0, 1000);
    passes(3600 * 1000, 0, 0);
    check(0, false, 0);
    passes(1, 1000, 0);
    passes(3600 * 1000, 0, 0); /* nobody used it: nobody's */
    check(PROCESSORS * MS, false, 0);
    passes(3600 * 1000, 0, 1000); /* more than there is: never negative */
    check(0, false, 0);
    passes(1, 1000, 0);
    check(PROCESSORS * MS, false, 0);
}

static void due(void **unused)
{
    (void)unused;
    uint64_t now = reading.now;
    assert_false(limiter_is_due(&limiter, now));
    assert_false(limiter_is_due(&limiter, now + LIMITER_PERIOD_NS / 2));
    assert_true(limiter_is_due(&limiter, now + LIMITER_PERIOD_NS * 3 / 2));
    assert_false(limiter_is_due(&limiter, 0)); /* another processor's clock */
    reading.now += LIMITER_PERIOD_NS * 3 / 2;
    limiter_update(&limiter, &reading, 1);
    assert_false(limiter_is_due(&limiter, reading.now));
}

static void half_changes_nothing(void **unused)
{
    (void)unused;
    passes(10, 500, 500);
    check(0, false, 0);
    passes(100, 1000, 0);
    passes(1000, 500, 500);
    passes(1000, 100, 100);
    check(PROCESSORS * 100 * MS, false, 0);
    passes(100, 250, 750);
    check(PROCESSORS * 50 * MS, false, 0);
}

static void fills_and_drains(void **unused)
{
    (void)unused;
    passes(1, 1000, 0);
    check(PROCESSORS * MS, false, 0);
    passes(999, 1000, 0); /* exactly full */
    check(PROCESSORS * SECOND, true, 0);
    assert_int_equal(limiter.last_cycle, 7);
    passes(1000, 500, 500);
    check(PROCESSORS * SECOND, true, 0);
    passes(500, 0, 1000); /* half of it */
    check(PROCESSORS * SECOND / 2, false, 0);
    passes(1000, 1000, 0);
    check(PROCESSORS * SECOND, true, PROCESSORS * SECOND / 2);
    passes(1, 1000, 0);
    check(PROCESSORS * SECOND, true, PROCESSORS * (SECOND / 2 + MS));
    passes(1, 0, 1);
    assert_false(limiter.limiting); /* the least bit */
    assert_int_equal(limiter.last_cycle, 7);
}

/* Which cycle is remembered: the one that turned it on, not those that find it on. */
static void last_cycle(void **unused)
{
    (void)unused;
    assert_int_equal(limiter.last_cycle, 0);
    reading.collector += limiter.capacity;
    limiter_update(&limiter, &reading, 20);
    limiter_update(&limiter, &reading, 21);
    assert_int_equal(limiter.last_cycle, 20);
    reading.program += 1;
    limiter_update(&limiter, &reading, 22);
    assert_int_equal(limiter.last_cycle, 20);
    reading.collector += 1;
    limiter_update(&limiter, &reading, 23);
    assert_int_equal(limiter.last_cycle, 23);
}

/* Threads that are held: as many processors as stood idle meanwhile, however many threads, and at most as much
 * as the collector used: what nobody in the process used, others had. */
static void held(void **unused)
{
    (void)unused;
    reading.now += 2 * MS;
    reading.held += 2 * MS;
    limiter_update(&limiter, &reading, 1);
    check(0, false, 0);
    reading.now += 2 * MS;
    reading.held += 2 * MS;
    reading.collector += 8 * MS;
    limiter_update(&limiter, &reading, 1);
    check(10 * MS, false, 0);
    reading.now += 2 * MS;
    reading.held += 200 * 2 * MS;
    reading.collector += 3 * 2 * MS;
    limiter_update(&limiter, &reading, 1);
    check((10 + 6 + 6) * MS, false, 0);
    passes(SECOND / MS, 0, 1000);
    check(0, false, 0);
    reading.now += 2 * MS;
    reading.held += 200 * 2 * MS;
    reading.collector += 6 * 2 * MS;
    reading.program += 3 * 2 * MS;
    limiter_update(&limiter, &reading, 1); /* 14 processors: 5 of them idle */
    check((6 + 5 - 3) * 2 * MS, false, 0);
}

/* Idle workers fill nothing, but who is held while they mark is held by them. */
static void held_by_idle_workers(void **unused)
{
    (void)unused;
    reading.now += 2 * MS;
    reading.idle_workers += 3 * MS;
    limiter_update(&limiter, &reading, 1);
    check(0, false, 0);
    reading.now += 2 * MS;
    reading.idle_workers += 3 * MS;
    reading.collector += 1 * MS;
    reading.held += 20 * MS;
    limiter_update(&limiter, &reading, 1);
    check((1 + 1 + 3) * MS, false, 0);
}

static void resized(void **unused)
{
    (void)unused;
    passes(1500, 1000, 0);
    check(PROCESSORS * SECOND, true, PROCESSORS * SECOND / 2);
    limiter_resize(&limiter, PROCESSORS + 10, 8);
    check(PROCESSORS * SECOND, false, PROCESSORS * SECOND / 2);
    assert_int_equal(limiter.last_cycle, 7);
    limiter_resize(&limiter, PROCESSORS - 10, 9);
    check((PROCESSORS - 10) * SECOND, true, PROCESSORS * SECOND / 2);
    assert_int_equal(limiter.last_cycle, 9);
    limiter_resize(&limiter, 0, 9); /* one at least */
    assert_int_equal(limiter.capacity, SECOND);
}

/* Readings that go back, or by more than there is; fill and overflow beside a model in signed numbers. */
static void anything(void **unused)
{
    (void)unused;
    const char *text = getenv("GREY_TEST_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
    printf("GREY_TEST_SEED=%llu\n", (unsigned long long)seed);
    srand48((long)seed);
    int64_t fill = 0, capacity = (int64_t)limiter.capacity;
    for (int i = 0; i < 200000; i++) {
        int64_t collector = lrand48() % 3 ? lrand48() : 0, program = lrand48() % 3 ? lrand48() : 0;
        reading.now += (uint64_t)lrand48();
        reading.collector += (uint64_t)collector;
        reading.program += (uint64_t)program;
        limiter_update(&limiter, &reading, 1);
        fill += collector - program;
        fill = fill < 0 ? 0 : fill > capacity ? capacity : fill;
        assert_int_equal(limiter.fill, fill);
        assert_int_equal(limiter.limiting, fill == capacity);
    }
    /* One that is behind is waited for. */
    reading.program -= 100;
    limiter_update(&limiter, &reading, 1);
    assert_int_equal(limiter.fill, fill);
    reading.program += 100;
    limiter_update(&limiter, &reading, 1);
    assert_int_equal(limiter.fill, fill);
    for (int i = 0; i < 200000; i++) {
        if (i % 10 == 0)
            limiter_init(&limiter, &(struct limiter_reading){0}, 1 + (unsigned)lrand48() % 100);
        reading.now = (uint64_t)lrand48() << lrand48() % 34;
        reading.collector = (uint64_t)lrand48() << lrand48() % 34;
        reading.program = (uint64_t)lrand48() << lrand48() % 34;
        reading.held = (uint64_t)lrand48() << lrand48() % 34;
        reading.idle_workers = (uint64_t)lrand48() << lrand48() % 34;
        uint64_t overflow = limiter.overflow;
        limiter_update(&limiter, &reading, 1);
        assert_true(limiter.fill <= limiter.capacity);
        assert_true(limiter.overflow >= overflow);
        assert_int_equal(limiter.limiting, limiter.fill == limiter.capacity);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(idle_and_program, set_up),
        cmocka_unit_test_setup(due, set_up),
        cmocka_unit_test_setup(half_changes_nothing, set_up),
        cmocka_unit_test_setup(fills_and_drains, set_up),
        cmocka_unit_test_setup(last_cycle, set_up),
        cmocka_unit_test_setup(held, set_up),
        cmocka_unit_test_setup(held_by_idle_workers, set_up),
        cmocka_unit_test_setup(resized, set_up),
        cmocka_unit_test_setup(anything, set_up),
    };
    return cmocka_run_group_tests_name("limiter", tests, NULL, NULL);
}
