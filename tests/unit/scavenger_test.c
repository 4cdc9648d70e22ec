/* tests/unit/scavenger_test.c -- goals, pace and pieces of work of the scavenger, on a clock of its own.
 *
 * The simulation has a processor clock that only releases move, and sleeps that are longer than asked for, as
 * real ones are.
 *
 * Requirements: SC-1, SC-2, SC-3, SC-9, SC-11, TestScavenger.
 */
#include "cycle/scavenger.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

static const uint64_t MIB = 1 << 20, MS = 1000 * 1000;

/* ---- a world ------------------------------------------------------------------------------------------- */

static struct {
    uint64_t cpu, wall;     /* ns */
    uint64_t left, given;   /* bytes to give back, and given */
    uint64_t step, step_ns; /* what a release gives, and takes */
    uint64_t stop_after;    /* bytes */
} world;

static uint64_t world_cpu(void) { return world.cpu; }
static uint64_t world_due(void) { return world.left; }
static bool world_stops(void) { return world.given >= world.stop_after; }

static size_t world_release(uint64_t most, bool *more)
{
    uint64_t n = world.step < world.left ? world.step : world.left;
    if (n > most)
        n = most;
    world.cpu += world.step_ns;
    world.left -= n;
    world.given += n;
    *more = world.left != 0;
    return n;
}

static const struct scavenger_calls calls = {world_cpu, world_due, world_release, world_stops};

static void make_world(uint64_t step, uint64_t step_ns)
{
    memset(&world, 0, sizeof(world));
    world.step = step;
    world.step_ns = step_ns;
    world.stop_after = UINT64_MAX;
}

/* Works and sleeps until there is nothing to do or so many ns have passed; sleeps last longer by so much of
 * what was asked for, and at least by that many ns.  The share of the processor that it took. */
static double run(struct scavenger_pace *pace, uint64_t ns, double longer, uint64_t late)
{
    uint64_t cpu = world.cpu, wall = world.wall;
    while (world.wall - wall < ns) {
        struct scavenger_work work = scavenger_work(&calls);
        if (work.worked == 0)
            break;
        uint64_t slept = scavenger_sleep_after(pace, work.worked);
        slept += (uint64_t)((double)slept * longer) + late;
        scavenger_pace_update(pace, work.worked, slept);
        world.wall += work.worked + slept;
    }
    return (double)(world.cpu - cpu) / (double)(world.wall - wall);
}

/* ---- pace ---------------------------------------------------------------------------------------------- */

static void assert_about_one_percent(double share)
{
    if (share < 0.005 || share > 0.015)
        fail_msg("%.2f percent of a processor", share * 100);
}

/* SC-1, from the first second on and for long; whatever a step costs and however late sleeps end. */
static void takes_one_percent(void **unused)
{
    static const struct {
        uint64_t step_ns, late;
        double longer;
    } table[] = {{10000, 0, 0},       {100000, 60000, 0},     {1000, 1 * 1000000, 0},
                 {3 * 1000000, 0, 0}, {20000, 60000, 1},      {700000, 0, 0.25},
                 {50000, 60000, 3},   {30 * 1000000, 0, 0.5}, {100000, 50000, .1}};
    (void)unused;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct scavenger_pace pace;
        scavenger_pace_init(&pace);
        make_world(64 << 10, table[i].step_ns);
        world.left = UINT64_MAX;
        /* a tenth at first: a millisecond of work, a second of sleep */
        assert_true(scavenger_sleep_after(&pace, MS) >= 999 * MS);
        run(&pace, 5000 * MS, table[i].longer, table[i].late);
        assert_about_one_percent(run(&pace, 60000 * MS, table[i].longer, table[i].late));
        assert_about_one_percent(run(&pace, 3600 * 1000 * MS, table[i].longer, table[i].late));
    }
}

/* Hours in which nothing got a processor are forgotten within seconds, and the other way round. */
static void recovers(void **unused)
{
    struct scavenger_pace pace;
    (void)unused;
    scavenger_pace_init(&pace);
    make_world(64 << 10, 100000);
    world.left = UINT64_MAX;
    for (int i = 0; i < 1000; i++)
        scavenger_pace_update(&pace, MS, 10000 * MS);
    assert_true(pace.ratio <= 1);
    run(&pace, 10000 * MS, 0, 60000);
    assert_about_one_percent(run(&pace, 20000 * MS, 0, 60000));
    for (int i = 0; i < 1000; i++)
        scavenger_pace_update(&pace, 1000 * MS, 0);
    assert_true(pace.ratio >= 0.001);
    run(&pace, 20000 * MS, 0, 60000);
    assert_about_one_percent(run(&pace, 20000 * MS, 0, 60000));
    struct scavenger_pace before = pace;
    scavenger_pace_update(&pace, 0, 0);
    assert_true(pace.ratio == before.ratio);
}

/* TestScavenger: 64 MiB of work, none, the same again, and a stop on the way: to the byte. */
static void gives_back_what_is_due(void **unused)
{
    struct scavenger_pace pace;
    (void)unused;
    scavenger_pace_init(&pace);
    make_world(64 << 10, 200000);
    for (int round = 0; round < 2; round++) {
        world.given = 0;
        world.left = 64 * MIB;
        assert_about_one_percent(run(&pace, UINT64_MAX, 0, 50000));
        assert_true(world.given == 64 * MIB && world.left == 0);
        struct scavenger_work none = scavenger_work(&calls);
        assert_true(none.met && none.bytes == 0 && none.worked == 0 && !none.exhausted);
    }
    world.given = 0;
    world.left = 64 * MIB;
    world.stop_after = 10 * MIB;
    run(&pace, UINT64_MAX, 0, 50000);
    assert_true(world.given == 10 * MIB && world.left == 54 * MIB);
}

/* A piece lasts a millisecond, and ends sooner only if there is no more to do. */
static void piece_of_work(void **unused)
{
    (void)unused;
    make_world(64 << 10, 300000);
    world.left = 64 * MIB;
    struct scavenger_work work = scavenger_work(&calls);
    assert_int_equal(work.worked, 1200000);
    assert_int_equal(work.bytes, 4 * 64 << 10);
    assert_true(!work.met && !work.exhausted);
    world.left = 100 << 10;
    work = scavenger_work(&calls);
    assert_int_equal(work.worked, 600000);
    assert_int_equal(work.bytes, 100 << 10);
    assert_true(work.exhausted);
}

/* ---- goals --------------------------------------------------------------------------------------------- */

static void retained_goal(void **unused)
{
    (void)unused;
    assert_int_equal(scavenger_retained_goal(100 * MIB, 200 * MIB, 200 * MIB), 110 * MIB);
    assert_int_equal(scavenger_retained_goal(100 * MIB, 50 * MIB, 200 * MIB), 275 * MIB / 10);
    assert_int_equal(scavenger_retained_goal(100 * MIB, 400 * MIB, 200 * MIB), 220 * MIB);
    /* nothing to compare with */
    assert_int_equal(scavenger_retained_goal(100 * MIB, UINT64_MAX, 200 * MIB), 110 * MIB);
    assert_int_equal(scavenger_retained_goal(100 * MIB, 200 * MIB, UINT64_MAX), 110 * MIB);
    assert_int_equal(scavenger_retained_goal(100 * MIB, 200 * MIB, 0), 110 * MIB);
    assert_int_equal(scavenger_retained_goal(0, 200 * MIB, 200 * MIB), 0);
    assert_true(scavenger_retained_goal(UINT64_MAX, UINT64_MAX - 1, 1) == UINT64_MAX);
}

static void due(void **unused)
{
    (void)unused;
    assert_true(scavenger_ready_goal(SIZE_MAX) == UINT64_MAX);
    assert_int_equal(scavenger_ready_goal(200 * MIB), 190 * MIB);
    assert_int_equal(scavenger_ready_goal(1), 0);
    struct scavenger_goals none = {UINT64_MAX, UINT64_MAX}, both = {100 * MIB, 190 * MIB};
    assert_int_equal(scavenger_due(&none, UINT64_MAX - 1, UINT64_MAX - 1), 0);
    assert_int_equal(scavenger_due(&both, 100 * MIB, 190 * MIB), 0);
    assert_int_equal(scavenger_due(&both, 130 * MIB, 150 * MIB), 30 * MIB);
    assert_int_equal(scavenger_due(&both, 90 * MIB, 200 * MIB), 10 * MIB);
    assert_int_equal(scavenger_due(&both, 105 * MIB, 200 * MIB), 10 * MIB); /* while either is unmet */
    assert_int_equal(scavenger_due(&both, 100 * MIB + 4096, 190 * MIB), 0); /* not worth it */
}

/* SC-11 */
static void ahead(void **unused)
{
    (void)unused;
    assert_int_equal(scavenger_ahead(0), 0);
    assert_int_equal(scavenger_ahead(64 * MIB - 1), 0);
    assert_int_equal(scavenger_ahead(64 * MIB), SCAVENGER_AHEAD_STEP);
    assert_int_equal(scavenger_ahead(512 * MIB), 16 * MIB);
    assert_int_equal(scavenger_ahead(1024 * MIB), 32 * MIB);
    assert_int_equal(scavenger_ahead(UINT64_MAX), 32 * MIB);
}

/* ---- scavtrace=1 --------------------------------------------------------------------------------------- */

static void trace_line(void **unused)
{
    char line[160];
    (void)unused;
    struct scavenger_figures figures = {.background = 3 * MIB,
                                        .eager = 1 << 10,
                                        .released = 10 * MIB,
                                        .in_use = 60 * MIB,
                                        .retained = 80 * MIB};
    size_t length = scavenger_trace(line, sizeof(line), &figures);
    assert_string_equal(line, "scav 3072 KiB work (bg), 1 KiB work (eager), 10240 KiB total, 75% util\n");
    assert_int_equal(length, strlen(line));
    figures = (struct scavenger_figures){.eager = 1 << 20, .forced = true};
    scavenger_trace(line, sizeof(line), &figures);
    assert_string_equal(line,
                        "scav 0 KiB work (bg), 1024 KiB work (eager), 0 KiB total, 100% util (forced)\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_one_percent),
        cmocka_unit_test(recovers),
        cmocka_unit_test(gives_back_what_is_due),
        cmocka_unit_test(piece_of_work),
        cmocka_unit_test(retained_goal),
        cmocka_unit_test(due),
        cmocka_unit_test(ahead),
        cmocka_unit_test(trace_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
