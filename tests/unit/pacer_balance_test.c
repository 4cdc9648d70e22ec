/* tests/unit/pacer_balance_test.c -- the square-root rule (GREY_DEBUG=balance=1, TU-5): the figures, its
 * bounds, and what it is for, in simulation (pacer_model.h).
 *
 * What it is for: of all ways to divide the same memory between programs, the rule's takes the least
 * processor time for collecting.  So two programs under the percent rule, with their percentage chosen such
 * that both together have as much memory as under the square-root rule, must take more.
 */
#include "pacer_model.h"

#define SECOND 1e9

static struct pacer balanced(int percent)
{
    struct pacer pacer;
    struct pacer_memory memory = {.live = 0};
    pacer_init(&pacer, percent, SIZE_MAX);
    pacer.balance = true;
    pacer_commit(&pacer, &memory);
    return pacer;
}

/* n cycles of a program that has `live`, allocates so many bytes a second, and is marked in so much time. */
static void cycles(struct pacer *pacer, int n, uint64_t live, double rate, double cpu_seconds)
{
    struct pacer_cycle cycle = {.marked = live,
                                .scanned = live,
                                .allocated_since = (uint64_t)(rate * 2),
                                .since_ns = (uint64_t)(2 * SECOND),
                                .mark_cpu_ns = (uint64_t)(cpu_seconds * SECOND / 2),
                                .idle_cpu_ns = (uint64_t)(cpu_seconds * SECOND / 4),
                                .assist_cpu_ns = (uint64_t)(cpu_seconds * SECOND / 4),
                                .processors = 4};
    struct pacer_memory memory = {.live = live};
    while (n-- > 0)
        pacer_end_cycle(pacer, &cycle, &memory);
    model_check(pacer);
}

static void assert_extra(const struct pacer *pacer, double expected)
{
    double extra = (double)(pacer->goal - pacer->marked);
    if (fabs(extra - expected) > expected * 1e-6)
        fail_msg("%f bytes instead of %f", extra, expected);
}

/* The documented example: 100 MB, of which a tenth of a processor could be marked anew: another 100 MB.  Then
 * the root of what changes. */
static void figures(void **unused)
{
    (void)unused;
    const uint64_t live = 100 * 1000 * 1000;
    struct pacer pacer = balanced(100);
    cycles(&pacer, 1, live, 100e6, 0.1);
    assert_extra(&pacer, 100e6);
    pacer = balanced(100);
    cycles(&pacer, 1, live, 400e6, 0.1);
    assert_extra(&pacer, 200e6);
    pacer = balanced(100);
    cycles(&pacer, 1, live, 100e6, 0.025);
    assert_extra(&pacer, 50e6);
    pacer = balanced(300); /* the percentage is the knob still */
    cycles(&pacer, 1, live, 100e6, 0.1);
    assert_extra(&pacer, 300e6);
    pacer = balanced(100); /* ten times the heap: the rate alone decides */
    cycles(&pacer, 1, 10 * live, 100e6, 1);
    assert_extra(&pacer, 316227766.0);
}

static void bounds(void **unused)
{
    (void)unused;
    struct pacer pacer = balanced(100);
    assert_int_equal(pacer.goal, 4 * MIB); /* nothing measured: as by percent */
    cycles(&pacer, 1, 80 * MIB, 1, 0.000001);
    assert_int_equal(pacer.goal, 90 * MIB); /* an eighth */
    pacer = balanced(100);
    cycles(&pacer, 1, 80 * MIB, 1e12, 1000);
    assert_int_equal(pacer.goal, 720 * MIB); /* eight times */
    pacer = balanced(100);
    cycles(&pacer, 1, MIB, 1, 0.000001);
    assert_int_equal(pacer.goal, 4 * MIB); /* PC-1's minimum */
    pacer = balanced(0);
    cycles(&pacer, 1, 80 * MIB, 100e6, 0.1);
    assert_int_equal(pacer.goal, 80 * MIB); /* PC-2 */
    pacer = balanced(-1);
    cycles(&pacer, 1, 80 * MIB, 100e6, 0.1);
    assert_true(pacer.goal == UINT64_MAX);
    pacer.memory_limit = 100 * MIB; /* the limit wins */
    cycles(&pacer, 1, 80 * MIB, 100e6, 0.1);
    assert_int_equal(pacer.goal, 97 * MIB);
}

/* Each cycle halves what was before it: one odd cycle is forgotten. */
static void smooth(void **unused)
{
    (void)unused;
    struct pacer pacer = balanced(100);
    cycles(&pacer, 40, 100000000, 100e6, 0.1);
    assert_extra(&pacer, 100e6);
    cycles(&pacer, 1, 100000000, 700e6, 0.1); /* half of the weight: rate 400 */
    assert_extra(&pacer, 200e6);
    cycles(&pacer, 1, 100000000, 100e6, 0.1); /* 250 */
    assert_extra(&pacer, 158113883.0);
    cycles(&pacer, 40, 100000000, 100e6, 0.1);
    assert_extra(&pacer, 100e6);
}

/* ---- two programs ---------------------------------------------------------------------------------------- */

struct costs {
    double memory, processors; /* bytes beyond what is live; taken by marking */
};

static struct costs costs_of(const struct load *load, uint64_t lives, bool balance, int percent)
{
    struct model model;
    struct costs sum = {0, 0};
    model_init(&model, percent, SIZE_MAX);
    model.pacer.balance = balance;
    model.lives = lives;
    for (int i = 0; i < 80; i++) {
        struct outcome outcome = model_cycle(&model, load);
        if (i < 40)
            continue;
        double taken = outcome.utilization * PROCESSORS * outcome.wall_ms;
        sum.processors += taken / (outcome.wall_ms + outcome.quiet_ms) / 40;
        sum.memory += (double)(outcome.goal - outcome.live) / 40;
    }
    return sum;
}

static struct costs costs_of_both(const struct load loads[2], const uint64_t lives[2], bool balance,
                                  int percent)
{
    struct costs a = costs_of(&loads[0], lives[0], balance, percent);
    struct costs b = costs_of(&loads[1], lives[1], balance, percent);
    return (struct costs){a.memory + b.memory, a.processors + b.processors};
}

/* One large and quiet, one small and busy. */
static void divides_memory_well(void **unused)
{
    (void)unused;
    static const uint64_t lives[2] = {1024 * MIB, 48 * MIB};
    struct load loads[2] = {{.allocates = 1, .marks = 1024, .growth = 1, .scannable = 1},
                            {.allocates = 60, .marks = 1024, .growth = 1, .scannable = 1}};
    for (int i = 0; i < 20; i++) {
        loads[0].allocates = random_between(0.5, 3);
        loads[1].allocates = random_between(30, 90);
        struct costs balance = costs_of_both(loads, lives, true, 100), percent;
        int low = 1, high = 2000; /* the least percentage that takes as much memory */
        while (low < high) {
            int middle = (low + high) / 2;
            percent = costs_of_both(loads, lives, false, middle);
            if (percent.memory < balance.memory)
                low = middle + 1;
            else
                high = middle;
        }
        percent = costs_of_both(loads, lives, false, low);
        if (!(percent.memory >= balance.memory && balance.processors < 0.9 * percent.processors))
            fail_msg("rates %f and %f: %f MiB and %f processors; with %d percent %f MiB and %f processors",
                     loads[0].allocates, loads[1].allocates, balance.memory / (double)MIB, balance.processors,
                     low, percent.memory / (double)MIB, percent.processors);
        if (i == 0)
            printf("%.0f MiB: %.3f processors by the root, %.3f by percent\n", balance.memory / (double)MIB,
                   balance.processors, percent.processors);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures),
        cmocka_unit_test(bounds),
        cmocka_unit_test(smooth),
        cmocka_unit_test(divides_memory_well),
    };
    random_begin();
    return cmocka_run_group_tests_name("pacer, square-root rule", tests, NULL, NULL);
}
