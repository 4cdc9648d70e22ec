/* tests/unit/pacer_table_test.c -- the pacer under every workload of the table in docs/requirements.md,
 * section 10 ("TestGcPacer"), with the bounds given there.
 *
 * 50 to 100 cycles on 8 processors, all of them simulated (pacer_model.h).  A load is what the program does
 * in cycle i; a check looks at all cycles up to n.  Where rates are random each workload runs with many
 * seeds, the same every time (GREY_TEST_SEED for others). Requirements: PC-1 .. PC-5, PC-7, PC-11.
 */
#include "pacer_model.h"

enum { LENGTH_MOST = 100 };

struct workload {
    const char *name;
    int percent;
    uint64_t limit;
    int length, runs; /* cycles; seeds */
    void (*load)(int i, struct load *load);
    void (*check)(const struct outcome *c, int n); /* c[n - 1] is the last */
};

#define LIMIT (512 * MIB)
#define LIMIT_GOAL (LIMIT - LIMIT * 3 / 100)

/* ---- loads --------------------------------------------------------------------------------------------- */

static double ramp(double height, int length, int i) { return i < length ? height * i / length : height; }

/* The heap grows for twelve cycles to some tens of megabytes and stays. */
static void steady(int i, struct load *load)
{
    *load = (struct load){.allocates = 33,
                          .marks = 1024,
                          .growth = 2 - ramp(1, 12, i),
                          .scannable = 1,
                          .stacks = 8 * KIB,
                          .roots = 32 * KIB};
}

static void big_stacks(int i, struct load *load)
{
    steady(i, load);
    load->allocates = 132;
    load->stacks = 2 * KIB + (uint64_t)ramp(128 * (double)MIB, 8, i);
}

static void big_roots(int i, struct load *load)
{
    steady(i, load);
    load->allocates = 132;
    load->roots = 128 * MIB;
}

static void step(int i, struct load *load)
{
    steady(i, load);
    load->allocates += i > 50 ? 66 : 0;
}

static void heavy_step(int i, struct load *load)
{
    steady(i, load);
    load->allocates += i > 50 ? 330 : 0;
}

static void scannable_step(int i, struct load *load)
{
    steady(i, load);
    load->allocates = 128;
    load->scannable = i == 50 ? 0.7 : 0.2;
}

static void spike(int i, struct load *load)
{
    steady(i, load);
    load->allocates *= i == 50 ? 10 : 1;
}

static void growth_at_once(int i, struct load *load)
{
    steady(i, load);
    load->allocates = random_between(158, 172);
    load->growth += random_between(-0.01, 0.01) + (i == 25 ? 14 : 0);
}

static void oscillating(int i, struct load *load)
{
    static const double sine[] = {0, 0.70711, 1, 0.70711, 0, -0.70711, -1, -0.70711};
    steady(i, load);
    load->allocates = 67 + 13 * sine[i % 8];
}

static void jitter(int i, struct load *load)
{
    steady(i, load);
    load->allocates = random_between(119, 145);
    load->growth += random_between(-0.01, 0.01);
}

static void heavy_jitter(int i, struct load *load)
{
    steady(i, load);
    load->allocates = random_between(297, 363);
    load->growth += random_between(-0.01, 0.01);
}

static void slow(int i, struct load *load)
{
    steady(i, load);
    load->allocates = 1;
    load->marks = 2048;
    load->scannable = 0.01;
}

static void slow_small(int i, struct load *load)
{
    slow(i, load);
    load->growth = 2 - ramp(1, 3, i);
}

static void slow_medium(int i, struct load *load)
{
    slow(i, load);
    load->growth = 2 - ramp(1, 8, i);
}

static void slow_large(int i, struct load *load)
{
    slow(i, load);
    load->growth = 4 - ramp(3, 12, i);
}

static void past_limit(int i, struct load *load)
{
    steady(i, load);
    load->growth = 3.5 - ramp(2.5, 12, i);
}

static void to_limit(int i, struct load *load)
{
    steady(i, load);
    load->growth = 3 - ramp(2, 12, i);
}

/* ---- checks -------------------------------------------------------------------------------------------- */

static void in_range(const char *what, double value, double low, double high, int n)
{
    if (!(value >= low && value <= high))
        fail_msg("cycle %d: %s is %f, not in [%f, %f]", n, what, value, low, high);
}

static double goal_ratio(const struct outcome *c) { return (double)c->peak / (double)c->goal; }

static void quarter(const struct outcome *c, int n)
{
    in_range("utilization", c[n - 1].utilization, 0.245, 0.255, n);
}

static void reaches_goal(const struct outcome *c, int n)
{
    in_range("peak / goal", goal_ratio(&c[n - 1]), 0.95, 1.05, n);
}

static void alike(const struct outcome *c, int n, int other, double by)
{
    double u = c[n - 1].utilization;
    in_range("utilization, compared", u, c[other - 1].utilization - by, c[other - 1].utilization + by, n);
}

static void settles(const struct outcome *c, int n)
{
    if (n < 25)
        return;
    quarter(c, n);
    reaches_goal(c, n);
}

/* A step at cycle 51: settled before it, and again soon after; here as soon as the history has seen it. */
static void settles_again(const struct outcome *c, int n)
{
    if ((n >= 25 && n < 51) || n > 51 + PACER_HISTORY + 1) {
        quarter(c, n);
        alike(c, n, n - 1, 0.005);
        reaches_goal(c, n);
    }
    /* Assists see to it in the step too, unless it is the work that has grown: then the goal moves (PC-7). */
    in_range("peak / goal", goal_ratio(&c[n - 1]), 0, n == 51 ? 2 : 1.05, n);
}

/* Eleven times the rate: what is allocated while a quarter of the processors mark would need a trigger before
 * 45/64 of the way (PC-3), so assists make up for it in each cycle, and the share settles there. */
static void settles_higher(const struct outcome *c, int n)
{
    if (n > 51 + PACER_HISTORY + 1) {
        in_range("utilization", c[n - 1].utilization, 0.44, 0.47, n);
        alike(c, n, n - 1, 0.005);
        reaches_goal(c, n);
        return;
    }
    settles_again(c, n < 51 ? n : 50);
    in_range("peak / goal", goal_ratio(&c[n - 1]), 0, 1.05, n);
}

/* One cycle of ten times the allocation: the goal is kept by assists, then all is as before once the history
 * has forgotten it; until then cycles begin early and end below the goal. */
static void forgets(const struct outcome *c, int n)
{
    if (n < 25)
        return;
    in_range("peak / goal", goal_ratio(&c[n - 1]), 0.7, 1.05, n);
    if (n != 51)
        quarter(c, n);
    if (n < 51 || n > 52 + PACER_HISTORY)
        reaches_goal(c, n);
}

static void overshoots_once(const struct outcome *c, int n)
{
    if (n <= 12)
        return;
    in_range("peak / goal", goal_ratio(&c[n - 1]), 0.90, n == 26 ? 15 : 1.05, n);
    in_range("utilization", c[n - 1].utilization, 0.245, 0.28, n);
    alike(c, n, n - 1, 0.03);
}

static void wavers(const struct outcome *c, int n)
{
    if (n <= 12)
        return;
    reaches_goal(c, n);
    in_range("utilization", c[n - 1].utilization, 0.245, 0.30, n);
}

static void wavers_high(const struct outcome *c, int n)
{
    if (n <= 13)
        return;
    reaches_goal(c, n);
    alike(c, n, n - 1, 0.05);
    alike(c, n, 12, 0.05);
}

static void late_by_ratio(const struct outcome *c, int n)
{
    if (n <= 9)
        return;
    const struct outcome *last = &c[n - 1];
    double way = (double)(last->trigger - last->live) / (double)(last->goal - last->live);
    in_range("trigger's way", way, 0.925, 0.975, n);
    in_range("peak / goal", goal_ratio(last), 0.925, 1.025, n);
    quarter(c, n);
}

static void late_by_bytes(const struct outcome *c, int n)
{
    if (n <= 13)
        return;
    in_range("runway", (double)(c[n - 1].goal - c[n - 1].trigger), 4.0 * MIB - 64.0 * KIB,
             4.0 * MIB + 64.0 * KIB, n);
    reaches_goal(c, n);
    quarter(c, n);
}

static void far_from_limit(const struct outcome *c, int n)
{
    assert_true(c[n - 1].peak < LIMIT_GOAL);
    settles(c, n);
}

static void up_to_limit(const struct outcome *c, int n)
{
    assert_int_equal(c[n - 1].goal, LIMIT_GOAL);
    assert_true(c[n - 1].peak <= LIMIT);
    settles(c, n);
}

static void soon_up_to_limit(const struct outcome *c, int n)
{
    if (n > 12)
        up_to_limit(c, n);
}

/* No goal can be kept: all processors mark.  That the limiter ends this is not the pacer's business. */
static void over_limit(const struct outcome *c, int n)
{
    if (n <= 12)
        return;
    assert_int_equal(c[n - 1].goal, c[n - 1].live);
    if (n >= 25)
        in_range("utilization", c[n - 1].utilization, 0.995, 1, n);
}

/* ---- the table ----------------------------------------------------------------------------------------- */

static const struct workload workloads[] = {
    {"steady", 100, SIZE_MAX, 50, 1, steady, settles},
    {"big stacks", 100, SIZE_MAX, 50, 1, big_stacks, settles},
    {"big roots", 100, SIZE_MAX, 50, 1, big_roots, settles},
    {"step in the rate", 100, SIZE_MAX, 100, 1, step, settles_again},
    {"heavy step in the rate", 100, SIZE_MAX, 100, 1, heavy_step, settles_higher},
    {"step in the scannable share", 100, SIZE_MAX, 100, 1, scannable_step, settles_again},
    {"spike", 100, SIZE_MAX, 100, 1, spike, forgets},
    {"1500 percent, growth at once", 1500, SIZE_MAX, 50, 200, growth_at_once, overshoots_once},
    {"oscillating", 100, SIZE_MAX, 50, 1, oscillating, wavers},
    {"jitter", 100, SIZE_MAX, 50, 200, jitter, wavers},
    {"heavy jitter", 100, SIZE_MAX, 50, 200, heavy_jitter, wavers_high},
    {"slow, small heap", 100, SIZE_MAX, 50, 1, slow_small, late_by_ratio},
    {"slow, medium heap", 100, SIZE_MAX, 50, 1, slow_medium, late_by_ratio},
    {"slow, large heap", 100, SIZE_MAX, 50, 1, slow_large, late_by_bytes},
    {"limit, far away", 100, LIMIT, 50, 1, steady, far_from_limit},
    {"limit, far away, no percent", -1, LIMIT, 50, 1, steady, up_to_limit},
    {"limit, exceeded", 100, LIMIT, 50, 1, past_limit, over_limit},
    {"limit, exceeded, no percent", -1, LIMIT, 50, 1, past_limit, over_limit},
    {"limit, maintained", 100, LIMIT, 50, 1, to_limit, soon_up_to_limit},
    {"limit, maintained, no percent", -1, LIMIT, 50, 1, to_limit, up_to_limit},
};
enum { WORKLOADS = sizeof(workloads) / sizeof(workloads[0]) };

static void run(void **state)
{
    const struct workload *workload = *state;
    for (int seed = 0; seed < workload->runs; seed++) {
        static struct outcome outcomes[LENGTH_MOST];
        struct model model;
        model_init(&model, workload->percent, workload->limit);
        for (int i = 0; i < workload->length; i++) {
            struct load load;
            workload->load(i, &load);
            outcomes[i] = model_cycle(&model, &load);
            if (getenv("GREY_TEST_VERBOSE") != NULL)
                printf("%s %d: %.1f%% %.2f->%.2f->%.2f MiB, goal %.2f\n", workload->name, i + 1,
                       outcomes[i].utilization * 100, (double)outcomes[i].live / (double)MIB,
                       (double)outcomes[i].trigger / (double)MIB, (double)outcomes[i].peak / (double)MIB,
                       (double)outcomes[i].goal / (double)MIB);
            workload->check(outcomes, i + 1);
        }
    }
}

int main(void)
{
    /* The bounds are the reference's, which runs each workload with one seed.  That of heavy jitter compares one random
     * cycle with another, and is missed by up to 0.008 by one series in 15,000; so the seed is given here.
     * Random loads with bounds that hold for all of them: pacer_random_test. */
    setenv("GREY_TEST_SEED", "1", 0);
    struct CMUnitTest tests[WORKLOADS];
    random_begin();
    for (int i = 0; i < WORKLOADS; i++)
        tests[i] = (struct CMUnitTest){workloads[i].name, run, NULL, NULL, (void *)(uintptr_t)&workloads[i]};
    return _cmocka_run_group_tests("pacer, the table", tests, WORKLOADS, NULL, NULL);
}
