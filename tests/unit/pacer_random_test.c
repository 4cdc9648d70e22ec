/* tests/unit/pacer_random_test.c -- properties of the pacer under random workloads and senseless figures.
 *
 * Random programs run for 80 cycles each (pacer_model.h); what must hold whatever they do is checked in every
 * cycle, and what must hold once they do the same in each cycle is checked after 40.  Then figures that no
 * program would have, extremes above all, in any order of calls.  Seed: GREY_TEST_SEED or the clock; printed.
 * Requirements: PC-1 .. PC-7, PC-11, PC-15.
 */
#include "pacer_model.h"

enum { PROGRAMS = 400, CYCLES = 80, SETTLED = 40 };

/* All magnitudes alike. */
static double any_scale(double low, double high)
{
    double value = low;
    for (double factor = high / low; factor > 1; factor /= 2)
        if (next_random() % 2)
            value *= factor < 2 ? factor : 2;
    return value * random_between(1, 2) > high ? high : value * random_between(1, 2);
}

/* ---- programs that stay the same ------------------------------------------------------------------------ */

struct program {
    struct load load;
    int percent;
    uint64_t limit, non_heap;
    bool balance;
    double noise; /* rates waver by so much */
};

static struct program any_program(void)
{
    static const int percents[] = {10, 25, 50, 100, 100, 100, 200, 400, 1500};
    struct program program = {.load = {.allocates = any_scale(0.1, 400),
                                       .marks = any_scale(200, 4000),
                                       .growth = 1,
                                       .scannable = random_between(0.01, 1),
                                       .stacks = (uint64_t)any_scale(4096, 16 * (double)MIB),
                                       .roots = (uint64_t)any_scale(4096, 16 * (double)MIB)},
                              .percent = percents[next_random() % 9],
                              .limit = SIZE_MAX,
                              .balance = next_random() % 4 == 0,
                              .noise = next_random() % 2 ? 0 : random_between(0, 0.2)};
    return program;
}

/* What a program allocates in one step of the model; the ratio is taken anew after it. */
static double a_step(const struct load *load) { return load->allocates * 1024 * PROCESSORS * 0.75 * 0.5; }

static struct load with_noise(const struct program *program)
{
    struct load load = program->load;
    load.allocates *= random_between(1 - program->noise, 1 + program->noise);
    load.marks *= random_between(1 - program->noise, 1 + program->noise);
    load.scannable *= random_between(1 - program->noise, 1);
    return load;
}

static double most_in_a_step(const struct program *program)
{
    return a_step(&program->load) * (1 + program->noise);
}

static double difference(double a, double b) { return a > b ? a - b : b - a; }

/* The largest change of trigger and of utilization from one cycle to the next in [from, to). */
struct waver {
    double trigger, utilization;
};

static struct waver wavers(const struct outcome *c, int from, int to)
{
    struct waver most = {0, 0};
    for (int i = from; i < to; i++) {
        double trigger = difference((double)c[i].trigger, (double)c[i - 1].trigger) / (double)c[i].goal;
        double utilization = difference(c[i].utilization, c[i - 1].utilization);
        most.trigger = trigger > most.trigger ? trigger : most.trigger;
        most.utilization = utilization > most.utilization ? utilization : most.utilization;
    }
    return most;
}

static void describe(const struct program *p, const struct outcome *c, int last)
{
    for (int i = last > 4 ? last - 4 : 0; i <= last; i++)
        printf("%d: %.2f%% %.3f->%.3f->%.3f MiB, goal %.3f\n", i, c[i].utilization * 100,
               (double)c[i].live / (double)MIB, (double)c[i].trigger / (double)MIB,
               (double)c[i].peak / (double)MIB, (double)c[i].goal / (double)MIB);
    fail_msg("as above; allocates %f, marks %f, scannable %f, stacks %f MiB, roots %f MiB, percent %d, limit "
             "%f MiB, "
             "balance %d, noise %f",
             p->load.allocates, p->load.marks, p->load.scannable, (double)p->load.stacks / (double)MIB,
             (double)p->load.roots / (double)MIB, p->percent, (double)p->limit / (double)MIB, p->balance,
             p->noise);
}

static void run(const struct program *program, uint64_t lives, struct outcome *outcomes)
{
    struct model model;
    model_init(&model, program->percent, program->limit);
    model.lives = lives;
    model.non_heap = program->non_heap;
    model.pacer.balance = program->balance;
    struct pacer_memory memory = model_memory(&model, 0, false);
    pacer_commit(&model.pacer, &memory);
    for (int i = 0; i < CYCLES; i++) {
        struct load load = with_noise(program);
        outcomes[i] = model_cycle(&model, &load);
    }
}

/* The goal is met, by workers alone where PC-3 lets the cycle begin early enough, and nothing swings up. */
static void the_same_again(void **unused)
{
    (void)unused;
    static struct outcome c[CYCLES];
    for (int k = 0; k < PROGRAMS; k++) {
        struct program program = any_program();
        run(&program, (uint64_t)any_scale(64 * (double)KIB, 512 * (double)MIB), c);
        for (int i = SETTLED; i < CYCLES; i++) {
            double past = (double)c[i].peak - 1.1 * (double)c[i].goal;
            if (past > most_in_a_step(&program) || c[i].utilization < 0.2499)
                describe(&program, c, i);
            double room = (double)(c[i].goal - c[i].live), way = (double)(c[i].trigger - c[i].live);
            if (program.noise == 0 && way > room * 0.71 && c[i].utilization > 0.26)
                describe(&program, c, i);
        }
        struct waver early = wavers(c, SETTLED - 20, SETTLED), late = wavers(c, SETTLED + 20, CYCLES);
        if (program.noise == 0 &&
            (late.trigger > early.trigger + 0.001 || late.utilization > early.utilization + 0.001))
            describe(&program, c, CYCLES - 1);
    }
}

/* PC-11: where what lives and what is not heap leave an eighth of the limit, the limit is kept: it is passed by
 * one step, and then a byte costs a thousand of scan work at least (PC-7). */
static void limits_are_kept(void **unused)
{
    (void)unused;
    static struct outcome c[CYCLES];
    for (int k = 0; k < PROGRAMS; k++) {
        struct program program = any_program();
        uint64_t lives = (uint64_t)any_scale(64 * (double)KIB, 256 * (double)MIB);
        program.limit = 16 * MIB + (uint64_t)((double)lives * random_between(1.5, 6));
        program.non_heap = (uint64_t)((double)(program.limit - lives) * random_between(0, 0.4));
        program.percent = next_random() % 2 ? -1 : program.percent;
        run(&program, lives, c);
        for (int i = 0; i < CYCLES; i++) {
            /* what was born in one cycle is there in the next */
            bool possible = (double)c[i].live + (double)program.non_heap < (double)program.limit * 0.875;
            double room = (double)(program.limit - program.non_heap) - (double)c[i].peak;
            if (possible && room < -most_in_a_step(&program) - (double)c[i].work / 1000)
                describe(&program, c, i);
        }
    }
}

/* ---- programs that change -------------------------------------------------------------------------------- */

/* Whatever happens, a cycle does not end past what the next one's goal could have been (PC-7), and a tenth:
 * beyond that a byte costs a thousand of scan work at least. */
static void anything_next(void **unused)
{
    (void)unused;
    for (int k = 0; k < PROGRAMS; k++) {
        struct program program = any_program();
        struct model model;
        model_init(&model, program.percent, SIZE_MAX);
        model.lives = (uint64_t)any_scale(64 * (double)KIB, 64 * (double)MIB);
        for (int i = 0; i < CYCLES; i++) {
            struct load load = any_program().load;
            /* not more than there is when the cycle begins */
            double most_growth = (double)model.pacer.trigger / (double)(model.lives + 1);
            load.growth = model.lives > 256 * MIB ? 0.1 : any_scale(0.25, 4);
            load.growth = load.growth < most_growth ? load.growth : most_growth;
            struct outcome outcome = model_cycle(&model, &load);
            double most = 1.1 * (double)outcome.goal * (1 + program.percent / 100.0);
            most += a_step(&load) + (double)outcome.work / 1000;
            if ((double)outcome.peak > most)
                fail_msg("%f -> %f -> %f MiB, goal %f, percent %d, %f MiB in a step, %f at most",
                         (double)outcome.live / (double)MIB, (double)outcome.trigger / (double)MIB,
                         (double)outcome.peak / (double)MIB, (double)outcome.goal / (double)MIB,
                         program.percent, a_step(&load) / (double)MIB, most / (double)MIB);
        }
    }
}

/* ---- senseless figures ------------------------------------------------------------------------------------ */

static uint64_t any(void)
{
    static const uint64_t extremes[] = {0,
                                        1,
                                        2,
                                        63,
                                        64,
                                        65,
                                        100,
                                        1 << 20,
                                        (1 << 20) + 1,
                                        (uint64_t)1 << 33,
                                        UINT64_MAX / 2,
                                        UINT64_MAX - 1,
                                        UINT64_MAX};
    if (next_random() % 2)
        return extremes[next_random() % (sizeof(extremes) / sizeof(extremes[0]))];
    return next_random() >> next_random() % 64;
}

static int any_percent(void)
{
    static const int extremes[] = {0, -1, 1, 100, 2147483647, 2147483646, 100000};
    return next_random() % 2 ? extremes[next_random() % 7]
                             : (int)(next_random() >> (33 + next_random() % 31));
}

static struct pacer_memory any_memory(void)
{
    return (struct pacer_memory){any(), any(), any(), next_random() % 2};
}

static struct pacer_cycle any_cycle(void)
{
    return (struct pacer_cycle){.marked = any(),
                                .stacks = any(),
                                .roots = any(),
                                .scanned = any(),
                                .allocated = any(),
                                .mark_wall_ns = any(),
                                .mark_cpu_ns = any(),
                                .idle_cpu_ns = any(),
                                .assist_cpu_ns = any(),
                                .since_ns = any(),
                                .allocated_since = any(),
                                .processors = (unsigned)any()};
}

static void check_goal(const struct pacer *pacer)
{
    if (pacer->percent < 0 && pacer->memory_limit == SIZE_MAX) {
        assert_true(pacer->goal == UINT64_MAX && pacer->trigger == UINT64_MAX); /* PC-2 */
        return;
    }
    if (pacer->limited)
        assert_true(pacer->goal <= pacer->memory_limit || pacer->goal == pacer->marked);
    if (pacer->limited || pacer->percent < 0)
        return;
    assert_true(pacer->goal >= 4 * MIB * (uint64_t)pacer->percent / 100);
    if (pacer->running)
        assert_true(pacer->goal == UINT64_MAX || pacer->goal - pacer->began >= 64 * KIB ||
                    pacer->goal < pacer->began);
    double scannable = (double)pacer->marked + (double)pacer->stacks + (double)pacer->roots;
    scannable = scannable < 0x1p64 ? scannable : 0x1p64; /* saturated, as in the pacer */
    double growth = scannable * pacer->percent / 100;
    growth = (growth < 0x1p64 ? growth : 0x1p64) / (pacer->balance ? 8 : 1);
    if (pacer->goal != UINT64_MAX)
        assert_true((double)pacer->goal >= ((double)pacer->marked + growth) * 0.999 - 64);
}

static void check_trigger(const struct pacer *pacer)
{
    if (pacer->goal == UINT64_MAX)
        return;
    uint64_t room = pacer->goal - pacer->marked;
    assert_true(pacer->trigger - pacer->marked >= room / 64 * 45);
    if (room >= 64 && pacer->marked < pacer->goal && pacer->runway > room)
        assert_true(pacer->trigger < pacer->goal || !pacer->limited);
}

static void senseless_figures(void **unused)
{
    (void)unused;
    for (int i = 0; i < 100000; i++) {
        struct pacer pacer;
        pacer_init(&pacer, any_percent(), next_random() % 2 ? SIZE_MAX : any());
        pacer.balance = next_random() % 2;
        for (int k = 0; k < 8; k++) {
            struct pacer_memory memory = any_memory();
            struct pacer_cycle cycle = any_cycle();
            switch (next_random() % 4) {
            case 0:
                pacer_begin_cycle(&pacer, &memory);
                break;
            case 1:
                pacer.percent = any_percent();
                pacer_commit(&pacer, &memory);
                break;
            case 2:
                pacer.memory_limit = any();
                pacer_commit(&pacer, &memory);
                break;
            default:
                pacer_end_cycle(&pacer, &cycle, &memory);
            }
            model_check(&pacer);
            check_goal(&pacer);
            check_trigger(&pacer);
            double ratio = pacer_assist_ratio(&pacer, any(), any());
            assert_true(isfinite(ratio) && ratio > 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_again),
        cmocka_unit_test(limits_are_kept),
        cmocka_unit_test(anything_next),
        cmocka_unit_test(senseless_figures),
    };
    random_begin();
    return cmocka_run_group_tests_name("pacer, random", tests, NULL, NULL);
}
