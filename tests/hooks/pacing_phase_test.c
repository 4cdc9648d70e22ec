/* tests/hooks/pacing_phase_test.c -- pacing where a program alone can't look: a setter in the middle of a
 * cycle, periodic cycles, the limiter in a spiral, the collector's own share of the marking.
 *
 * Requirements: PC-6, PC-10, PC-13, PC-14, PC-15, MK-18, TR-4.
 */
#include "cycle/cycle.h"
#include "cycle/limiter.h"
#include "inspect/gauges.h"
#include "mark/mark.h"
#include "support_hooks.h"

#include <unistd.h>

static const uint64_t MIB = 1 << 20;

static uint64_t metric(const char *name)
{
    struct grey_metric value;
    HOOKS_CHECK(grey_metric_read(name, &value) == 0);
    return value.u64;
}

GREY_ROOT(struct cell *, kept);

__attribute__((noinline)) static void keep_cells(size_t n)
{
    struct cell *cells = cells_new(n);
    grey_store(&kept, cells);
}

/* ---- a setter in the middle of a cycle -------------------------------------------------------------------- */

static _Atomic int setting; /* 1: called, 2: returned */

static void *set_off(void *unused)
{
    atomic_store(&setting, 1);
    grey_set_percent(-1);
    atomic_store(&setting, 2);
    return unused;
}

static void hold_much(void)
{
    keep_cells(100000);
    stage_set(1);
    stage_await(2);
    cells_check(kept, 100000);
    grey_store(&kept, NULL);
}

/* PC-13: the running cycle is paced anew, and off waits for the end of marking; PC-6: late. */
static void paced_anew(void **unused)
{
    (void)unused;
    hooks_up("");
    pthread_t actor = actor_start(hold_much), setter;
    HOOKS_CHECK(stage_within(1, PATIENCE_MS));
    cycles_run(2);
    int stop = stop_at(OS_HOOK_ROOTS, NULL);
    cycle_begin();
    HOOKS_CHECK(stop_reached(stop, PATIENCE_MS));
    struct pacer plan = control_pacer();
    HOOKS_CHECK(plan.running && plan.goal == UINT64_MAX && plan.marked > 3 * MIB);
    HOOKS_CHECK(plan.began >= plan.marked && plan.began < plan.marked + MIB);
    HOOKS_CHECK(grey_set_percent(100) == -1);
    HOOKS_CHECK(cycle_goal() >= 2 * plan.marked && cycle_goal() < 2 * plan.marked + MIB);
    HOOKS_CHECK(grey_set_percent(1000) == 100);
    HOOKS_CHECK(cycle_goal() >= 11 * plan.marked);
    HOOKS_CHECK(grey_set_percent(0) == 1000);
    /* PC-5's floor, as planned before the cycle, a mebibyte and its runway; PC-6 asks for less */
    HOOKS_CHECK(cycle_goal() >= plan.began + (64 << 10) && cycle_goal() < plan.began + 2 * MIB);
    HOOKS_CHECK(grey_set_percent(100) == 0);
    HOOKS_CHECK(pthread_create(&setter, NULL, set_off, NULL) == 0);
    while (atomic_load(&setting) == 0)
        usleep(1000);
    usleep(100000);
    HOOKS_CHECK(atomic_load(&setting) == 1 && cycle_percent() == -1);
    stop_release(stop);
    HOOKS_CHECK(pthread_join(setter, NULL) == 0);
    HOOKS_CHECK(atomic_load(&setting) == 2 && grey_phase_ == 0);
    HOOKS_CHECK(!control_pacer().running);
    stage_set(2);
    actor_join(actor);
    hooks_down();
}

/* ---- periodic cycles ---------------------------------------------------------------------------------------- */

static bool periodic_comes(uint64_t before, unsigned ms)
{
    for (unsigned i = 0; i < ms; i++) {
        if (metric("/gc/cycles/periodic:gc-cycles") > before)
            return true;
        usleep(1000);
    }
    return false;
}

/* PC-10: with automatic cycles on, and only then; counted apart from forced ones. */
static void periodic(void **unused)
{
    (void)unused;
    hooks_up("");
    uint64_t period = atomic_load(&control_period_ns);
    HOOKS_CHECK(period == 120ull * 1000 * 1000 * 1000);
    cycles_run(1);
    atomic_store(&control_period_ns, 10 * 1000 * 1000);
    uint64_t before = metric("/gc/cycles/periodic:gc-cycles"), forced = metric("/gc/cycles/forced:gc-cycles");
    HOOKS_CHECK(!periodic_comes(before, 1500));
    grey_set_percent(100);
    HOOKS_CHECK(periodic_comes(before, 20000));
    HOOKS_CHECK(metric("/gc/cycles/automatic:gc-cycles") > 0);
    HOOKS_CHECK(metric("/gc/cycles/forced:gc-cycles") == forced);
    grey_set_percent(-1);
    atomic_store(&control_period_ns, period);
    hooks_down();
}

/* ---- the limiter ------------------------------------------------------------------------------------------------ */

static _Atomic uint64_t allocated;
static _Atomic bool enough;

static void allocate(void)
{
    keep_cells(1000000); /* 32 MB to be marked again and again */
    grey_set_memory_limit(MIB);
    while (!atomic_load(&enough)) {
        HOOKS_CHECK(grey_alloc(1000) != NULL);
        atomic_fetch_add(&allocated, 1000);
    }
    cells_check(kept, 1000000);
    grey_store(&kept, NULL);
}

/* PC-14: what lives does not fit under the limit by far.  Sooner or later the limiter goes on, says in which
 * cycle, and as long as it is on nobody assists; all the while the program gets on (PC-15). */
static void ends_a_spiral(void **unused)
{
    (void)unused;
    hooks_up("");
    HOOKS_CHECK(metric("/gc/limiter/last-on:gc-cycle") == 0 && !limiting());
    pthread_t actor = actor_start(allocate);
    uint64_t seen = 0, quiet = 0;
    for (int ms = 0; ms < 60000 && (seen == 0 || quiet == 0); ms++) {
        usleep(1000);
        seen = metric("/gc/limiter/last-on:gc-cycle");
        uint64_t assists = metric("/gc/assists:assists"), before = atomic_load(&allocated);
        bool on = limiting();
        usleep(2000);
        /* one may have been under way, and the limiter may go off and on in between */
        quiet += on && limiting() && metric("/gc/assists:assists") <= assists + 1 &&
                 atomic_load(&allocated) > before;
    }
    HOOKS_CHECK(seen > 0 && seen <= cycles_over() + 1);
    HOOKS_CHECK(quiet > 0);
    atomic_store(&enough, true);
    actor_join(actor);
    HOOKS_CHECK(grey_set_memory_limit(SIZE_MAX) == MIB);
    hooks_down();
}

/* ---- who marks ---------------------------------------------------------------------------------------------------- */

enum { CHAIN = 400000 };

/* The first round's stack leads to the whole heap. */
static __attribute__((noinline)) void hold_on_stack(void)
{
    struct cell *volatile cells = cells_new(CHAIN);
    stage_set(1);
    stage_await(2);
    cells_check(cells, CHAIN);
}

static void hurry_at_the_end_of_rounds(enum os_hook point, const void *what)
{
    (void)what;
    if (point == OS_HOOK_ROUND_END)
        mark_hurry(MARK_ASSISTED);
}

static unsigned helps_in_a_cycle(unsigned *waits)
{
    unsigned helps = hooks_passed(OS_HOOK_MARK_HELP), rounds = hooks_passed(OS_HOOK_ROUND_START);
    uint64_t over = cycles_over();
    cycle_begin();
    cycle_await(over + 1);
    *waits = hooks_passed(OS_HOOK_ROUND_START) - rounds;
    return hooks_passed(OS_HOOK_MARK_HELP) - helps;
}

/* MK-18: the collector takes part in a few slices of each wait, and the rest is for the workers, which keep to a
 * quarter of the processors; unless somebody has to wait for the end. */
static void collector_helps_little(void **unused)
{
    (void)unused;
    hooks_up("workers=1");
    pthread_t actor = actor_start(hold_on_stack);
    HOOKS_CHECK(stage_within(1, PATIENCE_MS));
    unsigned waits, helps = helps_in_a_cycle(&waits);
    HOOKS_CHECK(waits >= 2 && helps <= 5 * waits);
    atomic_store(&hooks_also, hurry_at_the_end_of_rounds);
    bool more = false;
    for (int i = 0; i < 20 && !more; i++) /* with luck the worker has marked all before the collector looks */
        more = helps_in_a_cycle(&waits) > 5 * waits;
    atomic_store(&hooks_also, NULL);
    HOOKS_CHECK(more);
    stage_set(2);
    actor_join(actor);
    hooks_down();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paced_anew),
        cmocka_unit_test(periodic),
        cmocka_unit_test(ends_a_spiral),
        cmocka_unit_test(collector_helps_little),
    };
    return hooks_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
