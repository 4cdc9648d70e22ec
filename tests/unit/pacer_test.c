/* tests/unit/pacer_test.c -- the pacer by itself: simulated programs, setters, random figures.
 *
 * A simulated program has so many live bytes, allocates at a rate and can be marked at a rate, both in
 * bytes a nanosecond of one processor.  Marking takes a quarter of the processors; if allocation would
 * pass the goal before it is over, assists take as much more as is needed to end at the goal.  This is
 * all the pacer knows of the world, so whether it converges can be seen without a clock (after Go's
 * TestGcPacer).
 *
 * Requirements: PC-1 to PC-4, PC-6, PC-7, PC-11, PC-12.  Seed: GREY_TEST_SEED or the clock; printed.
 */
#include "cycle/pacer.h"

#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MIB ((uint64_t)1 << 20)
enum { PROCESSORS = 8, CYCLES = 60, SETTLED = 25 };

static uint64_t state;

static uint64_t next_random(void) /* splitmix64 */
{
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static double random_between(double low, double high)
{
    return low + (high - low) * (double)(next_random() >> 11) / (double)((uint64_t)1 << 53);
}

/* ---- a simulated program --------------------------------------------------------------------------- */

struct program {
    uint64_t live, stacks, roots;
    double scannable;        /* share of the live bytes */
    double allocates, marks; /* bytes a processor nanosecond */
};

struct outcome {
    uint64_t peak, goal;
    double utilization; /* of the processors, by marking and assists */
};

static void check_order(const struct pacer *pacer)
{
    assert_true(pacer->trigger <= pacer->goal); /* PC-3 */
    assert_true(pacer->trigger >= pacer->marked);
    assert_true(pacer->goal >= pacer->marked);
}

/* From the trigger to the end of marking; the pacer then plans the next. */
static struct outcome one_cycle(struct pacer *pacer, const struct program *program)
{
    uint64_t work = (uint64_t)(program->scannable * (double)program->live) + program->stacks + program->roots;
    double room = (double)(pacer->goal - pacer->trigger), utilization = 0.25;
    double wall = (double)work / (program->marks * utilization * PROCESSORS);
    double allocated = program->allocates * (1 - utilization) * PROCESSORS * wall;
    if (allocated > room) { /* assists: both are over at the goal */
        utilization = 1 / (1 + room * program->marks / (program->allocates * (double)work));
        wall = (double)work / (program->marks * utilization * PROCESSORS);
        allocated = room;
    }
    struct outcome outcome = {pacer->trigger + (uint64_t)allocated, pacer->goal, utilization};
    struct pacer_cycle cycle = {.marked = program->live,
                                .stacks = program->stacks,
                                .roots = program->roots,
                                .scanned = work - program->stacks - program->roots,
                                .allocated = (uint64_t)allocated,
                                .mark_wall_ns = (uint64_t)wall,
                                .mark_cpu_ns = (uint64_t)(wall * PROCESSORS * 0.25),
                                .assist_cpu_ns = (uint64_t)(wall * PROCESSORS * (utilization - 0.25)),
                                .processors = PROCESSORS};
    pacer_end_of_cycle(pacer, &cycle, 0);
    check_order(pacer);
    return outcome;
}

static const struct program ordinary = {.live = 256 * MIB, .scannable = 0.5, .allocates = 0.05, .marks = 0.5};

static void check_settled(struct outcome outcome)
{
    double ratio = (double)outcome.peak / (double)outcome.goal;
    if (ratio < 0.95 || ratio > 1.05 || fabs(outcome.utilization - 0.25) > 0.005)
        fail_msg("peak / goal %f, utilization %f", ratio, outcome.utilization);
}

static void simulate(struct program program, int cycles)
{
    struct pacer pacer;
    pacer_init(&pacer, 100, SIZE_MAX);
    check_order(&pacer);
    for (int i = 0; i < cycles; i++) {
        struct outcome outcome = one_cycle(&pacer, &program);
        if (i >= SETTLED)
            check_settled(outcome);
    }
}

/* ---- simulations ---------------------------------------------------------------------------------------- */

static void steady(void **unused)
{
    (void)unused;
    simulate(ordinary, CYCLES);
    struct program program = ordinary;
    program.stacks = 128 * MIB;
    simulate(program, CYCLES);
    program = ordinary;
    program.roots = 128 * MIB;
    simulate(program, CYCLES);
    program = ordinary;
    program.live = 8 * MIB;
    simulate(program, CYCLES);
}

/* After a step everything is as before within the length of the history. */
static void steps(void **unused)
{
    (void)unused;
    static const double factors[] = {1.2, 1.8, 0.8};
    for (size_t k = 0; k < sizeof(factors) / sizeof(factors[0]); k++) {
        struct pacer pacer;
        pacer_init(&pacer, 100, SIZE_MAX);
        struct program program = ordinary;
        for (int i = 0; i < 2 * CYCLES; i++) {
            if (i == CYCLES)
                program.allocates *= factors[k];
            struct outcome outcome = one_cycle(&pacer, &program);
            if ((i >= SETTLED && i < CYCLES) || i > CYCLES + PACER_HISTORY + 1)
                check_settled(outcome);
            else /* never past the goal: assists see to that */
                assert_true(outcome.peak <= outcome.goal);
        }
    }
}

/* Rates that waver by a tenth: the history's largest keeps assists away. */
static void jitter(void **unused)
{
    (void)unused;
    struct pacer pacer;
    pacer_init(&pacer, 100, SIZE_MAX);
    double total = 0;
    for (int i = 0; i < 4 * CYCLES; i++) {
        struct program program = ordinary;
        program.allocates *= random_between(0.9, 1.1);
        program.scannable *= random_between(0.9, 1.1);
        struct outcome outcome = one_cycle(&pacer, &program);
        if (i < SETTLED)
            continue;
        /* Rate and work may both be a tenth up where the last cycle had them a tenth down, and the history
         * sees only some of it: 0.25 x 1.1 x 1.1 / 0.9. */
        assert_true(outcome.utilization < 0.34);
        total += outcome.utilization;
    }
    assert_true(fabs(total / (4 * CYCLES - SETTLED) - 0.25) < 0.01);
}

/* Who allocates little is collected late: at 61/64 of the way, or 4 MiB before the goal (PC-3). */
static void slow_heaps(void **unused)
{
    (void)unused;
    static const uint64_t sizes[] = {8 * MIB, 64 * MIB, 1024 * MIB};
    for (int k = 0; k < 3; k++) {
        struct pacer pacer;
        pacer_init(&pacer, 100, SIZE_MAX);
        struct program program = ordinary;
        program.live = sizes[k];
        program.scannable = 1;
        program.allocates = 1e-6;
        for (int i = 0; i < CYCLES; i++)
            one_cycle(&pacer, &program);
        double way = (double)(pacer.trigger - pacer.marked) / (double)(pacer.goal - pacer.marked);
        if (k < 2)
            assert_true(way > 0.925 && way < 0.975);
        else
            assert_true(pacer.goal - pacer.trigger >= 4 * MIB - 65536 &&
                        pacer.goal - pacer.trigger <= 4 * MIB + 65536);
    }
}

/* A heap that grows fifteenfold in one cycle with a large percentage: no overshoot past the goal. */
static void growth(void **unused)
{
    (void)unused;
    struct pacer pacer;
    pacer_init(&pacer, 1500, SIZE_MAX);
    struct program program = ordinary;
    program.live = 4 * MIB;
    for (int i = 0; i < CYCLES; i++) {
        if (i == SETTLED)
            program.live *= 15;
        struct outcome outcome = one_cycle(&pacer, &program);
        assert_true(outcome.peak <= outcome.goal);
        assert_true(pacer.goal == pacer.marked + pacer.marked * 15);
    }
}

/* ---- percent and limit ---------------------------------------------------------------------------------- */

static struct pacer marked(int percent, size_t limit, uint64_t bytes)
{
    struct pacer pacer;
    pacer_init(&pacer, percent, limit);
    pacer.marked = pacer.scanned = bytes;
    pacer_commit(&pacer, 0);
    return pacer;
}

static void percent(void **unused)
{
    (void)unused;
    struct pacer pacer = marked(100, SIZE_MAX, 100 * MIB);
    assert_int_equal(pacer.goal, 200 * MIB);
    pacer.percent = 50; /* a change holds at once */
    pacer_commit(&pacer, 0);
    check_order(&pacer);
    assert_int_equal(pacer.goal, 150 * MIB);
    pacer.stacks = 20 * MIB; /* PC-1: stacks and roots count like the heap */
    pacer.roots = 10 * MIB;
    pacer_commit(&pacer, 0);
    assert_int_equal(pacer.goal, 165 * MIB);
    pacer.percent = 0;
    pacer_commit(&pacer, 0);
    check_order(&pacer);
    assert_int_equal(pacer.goal, 100 * MIB);
    assert_int_equal(pacer.trigger, 100 * MIB); /* PC-2: continuously */
    pacer.percent = -1;
    pacer_commit(&pacer, 0);
    assert_true(pacer.goal == UINT64_MAX && pacer.trigger == UINT64_MAX);
    pacer.percent = 100;
    pacer_commit(&pacer, 0);
    assert_int_equal(pacer.goal, 230 * MIB);
    for (int least = 1; least <= 1000; least *= 10) { /* PC-1: at least 4 MiB at 100 */
        pacer = marked(least, SIZE_MAX, 1000);
        assert_int_equal(pacer.goal, 4 * MIB * (uint64_t)least / 100);
    }
}

static void limit(void **unused)
{
    (void)unused;
    struct pacer pacer = marked(-1, 1024 * MIB, 100 * MIB); /* PC-12: it holds with percent off */
    uint64_t headroom = 1024 * MIB / 100 * 3;
    assert_int_equal(pacer.goal, 1024 * MIB - headroom);
    check_order(&pacer);
    pacer_commit(&pacer, 24 * MIB);
    assert_int_equal(pacer.goal, 1000 * MIB - 1000 * MIB / 100 * 3);
    pacer = marked(100, 1024 * MIB, 100 * MIB); /* the smaller goal wins */
    assert_int_equal(pacer.goal, 200 * MIB);
    pacer = marked(100, 1024 * MIB, 900 * MIB);
    assert_int_equal(pacer.goal, 1024 * MIB - headroom);
    pacer = marked(100, 20 * MIB, 10 * MIB); /* headroom is 1 MiB at least */
    assert_int_equal(pacer.goal, 19 * MIB);
    pacer = marked(100, 64 * MIB, 100 * MIB); /* never below what is live */
    assert_int_equal(pacer.goal, 100 * MIB);
    pacer_commit(&pacer, 64 * MIB);
    assert_int_equal(pacer.goal, 100 * MIB);
    check_order(&pacer);
}

/* The limit with and without a percentage, as a program lives with it. */
static void limit_is_kept(void **unused)
{
    (void)unused;
    for (int with = 0; with < 2; with++) {
        struct pacer pacer;
        pacer_init(&pacer, with ? 100 : -1, 512 * MIB);
        struct program program = ordinary;
        program.live = 300 * MIB;
        for (int i = 0; i < CYCLES; i++) {
            struct outcome outcome = one_cycle(&pacer, &program);
            assert_true(outcome.peak <= 512 * MIB);
            assert_int_equal(pacer.goal, 512 * MIB - 512 * MIB / 100 * 3);
        }
    }
}

static void assists(void **unused)
{
    (void)unused;
    struct pacer pacer = marked(100, SIZE_MAX, 100 * MIB);
    /* PC-7: half of the work for half of the room is the whole for the whole. */
    double whole = pacer_assist_ratio(&pacer, 100 * MIB, 0),
           half = pacer_assist_ratio(&pacer, 150 * MIB, 50 * MIB);
    assert_true(fabs(whole - 1) < 1e-9 && fabs(half - 1) < 1e-9);
    assert_true(pacer_assist_ratio(&pacer, 190 * MIB, 0) > 9.9);
    double late = pacer_assist_ratio(&pacer, 250 * MIB, 0); /* goal x 1.1 of what is live */
    assert_true(fabs(late - 4) < 1e-6);
    assert_true(pacer_assist_ratio(&pacer, 150 * MIB, 100 * MIB) == 1000.0 / (50.0 * (double)MIB));
    pacer.percent = -1; /* as 100,000 percent */
    pacer_commit(&pacer, 0);
    assert_true(pacer_assist_ratio(&pacer, 100 * MIB, 0) < 0.0011);
    pacer = marked(100, SIZE_MAX, 100 * MIB);
    assert_int_equal(pacer_goal_from(&pacer, 150 * MIB), 200 * MIB); /* PC-6 */
    assert_int_equal(pacer_goal_from(&pacer, 300 * MIB), 300 * MIB + 65536);
}

/* ---- anything ------------------------------------------------------------------------------------------------ */

/* All magnitudes alike, up to bits. */
static uint64_t any(unsigned bits) { return next_random() >> (64 - bits + next_random() % bits); }

static void check_goal(const struct pacer *pacer)
{
    if (pacer->percent < 0 || pacer->memory_limit != SIZE_MAX)
        return;
    double scannable = (double)(pacer->marked + pacer->stacks + pacer->roots);
    double goal = (double)pacer->marked + scannable * pacer->percent / 100;
    double least = 4.0 * (double)MIB * pacer->percent / 100;
    goal = goal > least ? goal : least;
    assert_true(fabs((double)pacer->goal - goal) <= 2 + goal * 1e-7);
    double room = (double)(pacer->goal - pacer->marked);
    /* 64 for the division, and what a double of this size leaves out */
    assert_true((double)(pacer->trigger - pacer->marked) >= room * 45 / 64 - 64 - room * 1e-12);
}

static void any_figures(void **unused)
{
    (void)unused;
    for (int i = 0; i < 20000; i++) {
        struct pacer pacer;
        int percent = next_random() % 8 == 0 ? -1 : (int)any(31);
        pacer_init(&pacer, percent, next_random() % 2 ? SIZE_MAX : any(44));
        for (int k = 0; k < 8; k++) {
            struct pacer_cycle cycle = {.marked = any(36),
                                        .stacks = any(34),
                                        .roots = any(34),
                                        .scanned = any(40),
                                        .allocated = any(44),
                                        .mark_wall_ns = any(40),
                                        .mark_cpu_ns = any(44),
                                        .assist_cpu_ns = any(40),
                                        .processors = 1 + (unsigned)any(10)};
            pacer_end_of_cycle(&pacer, &cycle, any(40));
            check_order(&pacer);
            check_goal(&pacer);
            assert_true(isfinite(pacer.cons_mark_now) && pacer.cons_mark_now >= 0);
            assert_true(pacer.goal == UINT64_MAX || pacer.runway <= pacer.goal);
            double ratio = pacer_assist_ratio(&pacer, any(40), any(40));
            assert_true(isfinite(ratio) && ratio > 0);
            pacer.percent = (int)any(31);
            pacer_commit(&pacer, any(40));
            check_order(&pacer);
            check_goal(&pacer);
        }
    }
}

/* A cycle that scanned next to nothing, then a large heap: the runway is longer than the goal, not none. */
static void huge_runway(void **unused)
{
    (void)unused;
    struct pacer pacer;
    pacer_init(&pacer, 100, SIZE_MAX);
    struct pacer_cycle cycle = {.marked = MIB,
                                .scanned = 1,
                                .allocated = 4096 * MIB,
                                .mark_wall_ns = 1000,
                                .mark_cpu_ns = 4000,
                                .processors = 4};
    pacer_end_of_cycle(&pacer, &cycle, 0);
    cycle.marked = cycle.scanned = 8192 * MIB;
    pacer_end_of_cycle(&pacer, &cycle, 0);
    uint64_t room = pacer.goal - pacer.marked;
    assert_int_equal(pacer.trigger, pacer.marked + room / 64 * 45);
}

int main(void)
{
    const char *seed = getenv("GREY_TEST_SEED");
    state = seed != NULL ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
    printf("GREY_TEST_SEED=%llu\n", (unsigned long long)state);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steady),      cmocka_unit_test(steps),         cmocka_unit_test(jitter),
        cmocka_unit_test(slow_heaps),  cmocka_unit_test(growth),        cmocka_unit_test(percent),
        cmocka_unit_test(limit),       cmocka_unit_test(limit_is_kept), cmocka_unit_test(assists),
        cmocka_unit_test(any_figures), cmocka_unit_test(huge_runway),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
