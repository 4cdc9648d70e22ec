/* tests/unit/pacer_test.c -- the pacer's rules one by one, at points where the result can be worked out.
 *
 * Workloads over many cycles are in pacer_table_test.c and pacer_random_test.c, the square-root rule in
 * pacer_balance_test.c.  Requirements: PC-1 .. PC-7, PC-11, PC-13.
 */
#include "pacer_model.h"

static struct pacer marked(int percent, uint64_t limit, uint64_t bytes)
{
    struct pacer pacer;
    struct pacer_memory memory = {.live = bytes};
    pacer_init(&pacer, percent, limit);
    pacer.marked = pacer.scanned = bytes;
    pacer_commit(&pacer, &memory);
    model_check(&pacer);
    return pacer;
}

static void commit(struct pacer *pacer)
{
    struct pacer_memory memory = {.live = pacer->marked};
    pacer_commit(pacer, &memory);
    model_check(pacer);
}

/* PC-1, PC-2; a change holds at once. */
static void percent(void **unused)
{
    (void)unused;
    struct pacer pacer = marked(100, SIZE_MAX, 100 * MIB);
    assert_int_equal(pacer.goal, 200 * MIB);
    pacer.percent = 50;
    commit(&pacer);
    assert_int_equal(pacer.goal, 150 * MIB);
    pacer.stacks = 20 * MIB; /* stacks and roots count like the heap */
    pacer.roots = 10 * MIB;
    commit(&pacer);
    assert_int_equal(pacer.goal, 165 * MIB);
    pacer.percent = 0;
    commit(&pacer);
    assert_int_equal(pacer.goal, 100 * MIB);
    assert_int_equal(pacer.trigger, 100 * MIB); /* continuously */
    pacer.percent = -1;
    commit(&pacer);
    assert_true(pacer.goal == UINT64_MAX && pacer.trigger == UINT64_MAX);
    pacer.percent = 100;
    commit(&pacer);
    assert_int_equal(pacer.goal, 230 * MIB);
    for (int least = 1; least <= 1000; least *= 10) { /* at least 4 MiB at 100 */
        pacer = marked(least, SIZE_MAX, 1000);
        assert_int_equal(pacer.goal, 4 * MIB * (uint64_t)least / 100);
    }
    pacer = marked(2147483647, SIZE_MAX, UINT64_MAX / 2);
    assert_true(pacer.goal == UINT64_MAX);
}

/* PC-11 */
static void limit(void **unused)
{
    (void)unused;
    struct pacer pacer = marked(-1, 1024 * MIB, 100 * MIB); /* PC-12: it holds with percent off */
    assert_int_equal(pacer.goal, 1024 * MIB - 1024 * MIB * 3 / 100);
    assert_true(pacer.limited);
    struct pacer_memory memory = {.live = 100 * MIB, .non_heap = 24 * MIB};
    pacer_commit(&pacer, &memory);
    assert_int_equal(pacer.goal, 1000 * MIB - 1000 * MIB * 3 / 100);
    memory.ready = 1024 * MIB; /* exactly what is allowed */
    pacer_commit(&pacer, &memory);
    assert_int_equal(pacer.goal, 1000 * MIB - 1000 * MIB * 3 / 100);
    memory.ready += 100 * MIB; /* overage comes off */
    pacer_commit(&pacer, &memory);
    assert_int_equal(pacer.goal, 900 * MIB - 900 * MIB * 3 / 100);
    memory.ready = UINT64_MAX; /* more than there is to take off */
    pacer_commit(&pacer, &memory);
    assert_int_equal(pacer.goal, 100 * MIB);
    assert_int_equal(pacer.trigger, 100 * MIB);
    memory = (struct pacer_memory){.non_heap = 1024 * MIB};
    pacer_commit(&pacer, &memory);
    assert_int_equal(pacer.goal, 100 * MIB);

    pacer = marked(100, 1024 * MIB, 100 * MIB); /* the smaller goal wins */
    assert_int_equal(pacer.goal, 200 * MIB);
    assert_false(pacer.limited);
    pacer = marked(100, 1024 * MIB, 900 * MIB);
    assert_int_equal(pacer.goal, 1024 * MIB - 1024 * MIB * 3 / 100);
    pacer = marked(100, 20 * MIB, 10 * MIB); /* headroom is 1 MiB at least */
    assert_int_equal(pacer.goal, 19 * MIB);
    pacer = marked(100, 64 * MIB, 100 * MIB); /* never below what is live */
    assert_int_equal(pacer.goal, 100 * MIB);
    pacer = marked(100, 1, 0); /* TU-2: as little as can be */
    assert_int_equal(pacer.goal, 0);
}

/* PC-3: between 45/64 and 61/64 of the way, or 4 MiB before the goal; PC-4 says where between. */
static void trigger(void **unused)
{
    (void)unused;
    struct pacer pacer = marked(100, SIZE_MAX, 128 * MIB);
    assert_int_equal(pacer.trigger, 252 * MIB); /* no runway measured; 61/64 would be 250 */
    pacer = marked(100, SIZE_MAX, 16 * MIB);
    assert_int_equal(pacer.trigger, 16 * MIB + 16 * MIB / 64 * 61);
    pacer.cons_mark_now = 1; /* 3 bytes for each of the 16 MiB to scan: more than there is */
    commit(&pacer);
    assert_int_equal(pacer.runway, 32 * MIB);
    assert_int_equal(pacer.trigger, 16 * MIB + 16 * MIB / 64 * 45);
    pacer.cons_mark_now = 0;
    pacer.cons_mark[PACER_HISTORY - 1] = 0.0625; /* the largest of the last ones counts */
    commit(&pacer);
    assert_int_equal(pacer.runway, 3 * MIB);
    assert_int_equal(pacer.trigger, 29 * MIB);
    pacer.stacks = 8 * MIB; /* stacks are work too, and let the heap grow */
    commit(&pacer);
    assert_int_equal(pacer.runway, 4 * MIB + MIB / 2);
    assert_int_equal(pacer.trigger, 40 * MIB - 4 * MIB - MIB / 2);
}

/* PC-4: the ratio is remembered for as many cycles as the history has, and what can't tell is no cycle. */
static void history(void **unused)
{
    (void)unused;
    struct pacer pacer = marked(100, SIZE_MAX, 64 * MIB);
    struct pacer_memory memory = {.live = 64 * MIB};
    struct pacer_cycle cycle = {.marked = 64 * MIB,
                                .scanned = 64 * MIB,
                                .allocated = 4 * MIB,
                                .mark_wall_ns = 1000000,
                                .mark_cpu_ns = 2000000,
                                .processors = 8};
    pacer_end_cycle(&pacer, &cycle, &memory);
    assert_int_equal(pacer.runway, 4 * MIB); /* as much as was allocated */
    cycle.allocated = 8 * MIB;
    pacer_end_cycle(&pacer, &cycle, &memory);
    for (int i = 0; i <= PACER_HISTORY; i++) {
        assert_int_equal(pacer.runway, 8 * MIB);
        cycle.allocated = 0; /* a forced cycle, nobody allocated */
        pacer_end_cycle(&pacer, &cycle, &memory);
        assert_int_equal(pacer.runway, 8 * MIB);
        cycle.allocated = 4 * MIB;
        pacer_end_cycle(&pacer, &cycle, &memory);
    }
    assert_int_equal(pacer.runway, 4 * MIB);
    /* Assists: half of the processors, so a quarter alone would have taken twice as long and the program
     * would have had three quarters instead of two: 4 x 2 x 3 / 2. */
    cycle.assist_cpu_ns = 2000000;
    pacer_end_cycle(&pacer, &cycle, &memory);
    assert_int_equal(pacer.runway, 12 * MIB);
    /* Workers that took idle time: without them it takes twice as long, and the program had no more. */
    pacer = marked(100, SIZE_MAX, 64 * MIB);
    cycle.assist_cpu_ns = 0;
    cycle.idle_cpu_ns = 2000000;
    pacer_end_cycle(&pacer, &cycle, &memory);
    assert_int_equal(pacer.runway, 8 * MIB);
}

/* PC-5: while there is something to sweep, a mebibyte at least; but not past a limit. */
static void sweeping(void **unused)
{
    (void)unused;
    struct pacer pacer = marked(1, SIZE_MAX, 10 * MIB);
    struct pacer_memory memory = {.live = 11 * MIB, .sweeping = true};
    assert_true(pacer.trigger < 11 * MIB);
    pacer_commit(&pacer, &memory);
    model_check(&pacer);
    assert_int_equal(pacer.trigger, 12 * MIB);
    assert_int_equal(pacer.goal, 12 * MIB);
    pacer.percent = 100;
    pacer_commit(&pacer, &memory);
    assert_true(pacer.goal == 20 * MIB && pacer.trigger > 12 * MIB && pacer.trigger < 20 * MIB);
    pacer.percent = -1;
    pacer_commit(&pacer, &memory);
    assert_true(pacer.trigger == UINT64_MAX);
    pacer.memory_limit = 11 * MIB;
    pacer_commit(&pacer, &memory);
    assert_int_equal(pacer.trigger, 10 * MIB);
    assert_int_equal(pacer.goal, 10 * MIB);
    pacer = marked(1, SIZE_MAX, 10 * MIB);
    memory.live = UINT64_MAX;
    pacer_commit(&pacer, &memory);
    model_check(&pacer);
}

/* PC-6: begun late; and PC-13: a setter in a running cycle. */
static void begun_late(void **unused)
{
    (void)unused;
    struct pacer pacer = marked(100, SIZE_MAX, 100 * MIB);
    struct pacer_memory memory = {.live = 150 * MIB};
    pacer_begin_cycle(&pacer, &memory);
    assert_int_equal(pacer.goal, 200 * MIB);
    memory.live = 300 * MIB;
    pacer_begin_cycle(&pacer, &memory);
    assert_int_equal(pacer.goal, 300 * MIB + 64 * KIB);
    pacer.percent = 10;
    pacer_commit(&pacer, &memory);
    assert_int_equal(pacer.goal, 300 * MIB + 64 * KIB);
    pacer.percent = 1000;
    pacer_commit(&pacer, &memory);
    assert_int_equal(pacer.goal, 1100 * MIB);
    pacer.memory_limit = 200 * MIB; /* not under the limit */
    pacer_commit(&pacer, &memory);
    assert_int_equal(pacer.goal, 194 * MIB);
    pacer.percent = 100; /* 300 MiB and 64 KiB, but for the limit, whose goal is just above 300 */
    pacer.memory_limit = 300 * MIB / 97 * 100 + 16 * KIB;
    pacer_commit(&pacer, &memory);
    assert_true(pacer.limited && pacer.goal > 300 * MIB && pacer.goal < 300 * MIB + 32 * KIB);
    struct pacer_cycle cycle = {.marked = 100 * MIB, .scanned = 100 * MIB, .processors = 1};
    pacer.memory_limit = SIZE_MAX;
    pacer.percent = 10;
    memory.live = 100 * MIB;
    pacer_end_cycle(&pacer, &cycle, &memory);
    assert_int_equal(pacer.goal, 110 * MIB); /* that it was late is over */
}

static struct pacer running(int percent, uint64_t bytes, uint64_t began)
{
    struct pacer pacer = marked(percent, SIZE_MAX, bytes);
    struct pacer_memory memory = {.live = began};
    pacer_begin_cycle(&pacer, &memory);
    return pacer;
}

static void assert_near(double value, double expected)
{
    if (!(fabs(value - expected) <= 1e-6 * expected))
        fail_msg("%g instead of %g", value, expected);
}

/* PC-7 */
static void assists(void **unused)
{
    (void)unused;
    struct pacer pacer = running(100, 100 * MIB, 150 * MIB);
    assert_near(pacer_assist_ratio(&pacer, 150 * MIB, 0), 2);
    assert_near(pacer_assist_ratio(&pacer, 175 * MIB, 50 * MIB), 2); /* as planned: it stays */
    assert_near(pacer_assist_ratio(&pacer, 190 * MIB, 0), 10);
    assert_near(pacer_assist_ratio(&pacer, 150 * MIB, 100 * MIB), 1000.0 / (50.0 * (double)MIB));
    assert_near(pacer_assist_ratio(&pacer, 200 * MIB, 0), 100.0 * (double)MIB); /* a byte of room */
    /* Past the goal: 220 is the last word, and all that was there may be alive. */
    assert_near(pacer_assist_ratio(&pacer, 210 * MIB, 0), 15);
    assert_near(pacer_assist_ratio(&pacer, 300 * MIB, 50 * MIB), 100.0 * (double)MIB);
    assert_near(pacer_assist_ratio(&pacer, 500 * MIB, UINT64_MAX), 1000);
}

/* PC-7: more work than expected. */
static void goal_moves(void **unused)
{
    (void)unused;
    /* 160 at the start and all of it alive: 60 percent more work, so 60 percent more room than 40. */
    struct pacer pacer = running(100, 100 * MIB, 160 * MIB);
    assert_near(pacer_assist_ratio(&pacer, 200 * MIB, 100 * MIB + 1), 60.0 / 24);
    /* A twentieth was scanned last time: so it is now, until more than that turns up. */
    pacer.scanned = 5 * MIB;
    assert_near(pacer_assist_ratio(&pacer, 200 * MIB, 5 * MIB + 1), 3.0 / 24);
    /* All 160 then: room for 32 times the work would be 1440, but the next goal would be 400. */
    assert_near(pacer_assist_ratio(&pacer, 200 * MIB, 8 * MIB), 152.0 / 200);
    pacer.percent = 50;
    assert_near(pacer_assist_ratio(&pacer, 200 * MIB, 8 * MIB), 152.0 / 100);
    assert_near(pacer_assist_ratio(&pacer, 310 * MIB, 8 * MIB), 152.0 / 20); /* past that too: 330 */
    /* A limit stands where it is: the goal at 194 MiB, and past that the limit, which is less than a tenth. */
    pacer.percent = 100;
    pacer.memory_limit = 200 * MIB;
    commit(&pacer);
    assert_near(pacer_assist_ratio(&pacer, 174 * MIB, 8 * MIB), 152.0 / 20);
    assert_near(pacer_assist_ratio(&pacer, 196 * MIB, 8 * MIB), 152.0 / 4);
    assert_near(pacer_assist_ratio(&pacer, 204 * MIB, 8 * MIB), 152.0 * (double)MIB);
    assert_near(pacer_assist_ratio(&pacer, 300 * MIB, 8 * MIB), 152.0 * (double)MIB);
    /* A goal by the percentage below the limit's moves up to that, and no further. */
    pacer.memory_limit = 210 * MIB;
    commit(&pacer);
    assert_false(pacer.limited);
    assert_int_equal(pacer.goal, 200 * MIB);
    uint64_t room = pacer.limit_goal - 174 * MIB;
    assert_int_equal(pacer.limit_goal, 210 * MIB - 210 * MIB * 3 / 100);
    assert_near(pacer_assist_ratio(&pacer, 174 * MIB, 8 * MIB), 152.0 * (double)MIB / (double)room);
    assert_near(pacer_assist_ratio(&pacer, 206 * MIB, 8 * MIB), 152.0 / 4); /* 220 is past the limit */
    /* What lives has passed the limit: it can't be kept, and a tenth is as good as any. */
    pacer.memory_limit = 90 * MIB;
    commit(&pacer);
    assert_int_equal(pacer.goal, 100 * MIB);
    assert_near(pacer_assist_ratio(&pacer, 105 * MIB, 8 * MIB), 152.0 / 5);
    pacer = running(-1, 100 * MIB, 160 * MIB);
    assert_true(pacer.goal == UINT64_MAX);
    /* PC-2: a forced cycle with the percentage off counts as 100,000 percent of what it began with */
    assert_near(pacer_assist_ratio(&pacer, 160 * MIB, 0), 100.0 / (160.0 * 1000 + 4));
    struct pacer first; /* nothing is known in the first cycle: the goal moves as far as it may */
    struct pacer_memory memory = {.live = 4 * MIB};
    pacer_init(&first, 100, SIZE_MAX);
    pacer_begin_cycle(&first, &memory);
    assert_near(pacer_assist_ratio(&first, 4 * MIB, MIB), 3.0 / 4.125);
}

/* A cycle that scanned next to nothing, then a large heap: the runway is longer than the goal, not none. */
static void huge_runway(void **unused)
{
    (void)unused;
    struct pacer pacer;
    struct pacer_memory memory = {.live = MIB};
    pacer_init(&pacer, 100, SIZE_MAX);
    struct pacer_cycle cycle = {.marked = MIB,
                                .scanned = 1,
                                .allocated = 4096 * MIB,
                                .mark_wall_ns = 1000,
                                .mark_cpu_ns = 4000,
                                .processors = 4};
    pacer_end_cycle(&pacer, &cycle, &memory);
    cycle.marked = cycle.scanned = memory.live = 8192 * MIB;
    pacer_end_cycle(&pacer, &cycle, &memory);
    uint64_t room = pacer.goal - pacer.marked;
    assert_int_equal(pacer.trigger, pacer.marked + room / 64 * 45);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percent), cmocka_unit_test(limit),      cmocka_unit_test(trigger),
        cmocka_unit_test(history), cmocka_unit_test(sweeping),   cmocka_unit_test(begun_late),
        cmocka_unit_test(assists), cmocka_unit_test(goal_moves), cmocka_unit_test(huge_runway),
    };
    return cmocka_run_group_tests_name("pacer", tests, NULL, NULL);
}
