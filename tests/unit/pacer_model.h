/* tests/unit/pacer_model.h -- a program with a collector, simulated on a fake clock, for the tests of the
 * pacer.
 *
 * The model is ideal where a real program is noisy, and right about what the pacer decides.  A cycle begins
 * at the trigger.  In steps of half a millisecond the processors are divided between marking and the
 * program: marking has its quarter, or as much more as the assist ratio forces (an allocation that owes r
 * bytes of scan work keeps r = scanned / allocated), and the ratio is taken anew for each step.  What is
 * allocated meanwhile lives to the end of the next cycle.  Then the pacer is told what was measured, as
 * cycle/ tells it: with the sweep still to be done, so that PC-5 holds.  Between cycles the program has all
 * processors.
 */
#ifndef GREY_TESTS_PACER_MODEL_H
#define GREY_TESTS_PACER_MODEL_H

#include "cycle/pacer.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
enum { PROCESSORS = 8 };

/* ---- random numbers ------------------------------------------------------------------------------------ */

static uint64_t random_state;

static inline uint64_t next_random(void) /* splitmix64 */
{
    uint64_t z = (random_state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline double random_between(double low, double high)
{
    return low + (high - low) * (double)(next_random() >> 11) / (double)((uint64_t)1 << 53);
}

/* From GREY_TEST_SEED or the clock; printed. */
static inline void random_begin(void)
{
    const char *seed = getenv("GREY_TEST_SEED");
    random_state = seed != NULL ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
    printf("GREY_TEST_SEED=%llu\n", (unsigned long long)random_state);
}

/* ---- the program --------------------------------------------------------------------------------------- */

/* What a program does in one cycle. */
struct load {
    double allocates, marks; /* KiB in a processor's millisecond */
    double growth;           /* of what lives, over the last cycle */
    double scannable;        /* share of what lives */
    uint64_t stacks, roots;  /* bytes to scan */
};

struct model {
    struct pacer pacer;
    uint64_t non_heap;
    uint64_t lives; /* to be marked, without what is born meanwhile */
};

/* One cycle as it went. */
struct outcome {
    uint64_t live, trigger, goal, peak; /* marked before it; the plan; where it ended */
    uint64_t allocated, work;
    double quiet_ms, wall_ms, utilization; /* before the cycle; in it */
};

static inline struct pacer_memory model_memory(const struct model *model, uint64_t live, bool sweeping)
{
    return (struct pacer_memory){.live = live, .non_heap = model->non_heap, .sweeping = sweeping};
}

static inline void model_init(struct model *model, int percent, uint64_t limit)
{
    memset(model, 0, sizeof(*model));
    pacer_init(&model->pacer, percent, limit);
    model->lives = 256 * KIB;
}

static inline void model_check(const struct pacer *pacer)
{
    assert_true(pacer->trigger <= pacer->goal); /* PC-3 */
    assert_true(pacer->trigger >= pacer->marked);
    assert_true(pacer->goal >= pacer->marked);
    assert_true(pacer->goal == UINT64_MAX || pacer->runway <= pacer->goal);
    assert_true(isfinite(pacer->cons_mark_now) && pacer->cons_mark_now >= 0);
}

/* Half a millisecond, or less if marking ends in it; returns the milliseconds. */
static inline double model_step(const struct model *model, const struct load *load, struct outcome *outcome,
                                uint64_t left, uint64_t *done)
{
    const double period = 0.5, rate = 1024.0 * PROCESSORS;
    double ratio = pacer_assist_ratio(&model->pacer, outcome->peak, outcome->work);
    assert_true(isfinite(ratio) && ratio > 0);
    double share = ratio * load->allocates / (ratio * load->allocates + load->marks);
    share = share < PACER_BACKGROUND ? PACER_BACKGROUND : share;
    double speed = load->marks * rate * share, time = (double)left / speed;
    *done = left;
    if (time > period) {
        time = period;
        *done = (uint64_t)(speed * period);
    }
    uint64_t allocated = (uint64_t)(load->allocates * rate * (1 - share) * time);
    outcome->peak += allocated;
    outcome->allocated += allocated;
    outcome->utilization += share * time; /* divided at the end */
    return time;
}

static inline struct outcome model_cycle(struct model *model, const struct load *load)
{
    struct pacer *pacer = &model->pacer;
    struct outcome outcome = {.live = pacer->marked, .trigger = pacer->trigger, .peak = pacer->trigger};
    outcome.quiet_ms = (double)(pacer->trigger - pacer->marked) / (load->allocates * 1024.0 * PROCESSORS);
    struct pacer_memory memory = model_memory(model, pacer->trigger, false);
    pacer_begin_cycle(pacer, &memory);
    if (pacer->ages > 0) /* not in the first cycle */
        model->lives = (uint64_t)((double)model->lives * load->growth);
    uint64_t heap_work = (uint64_t)((double)model->lives * load->scannable);
    uint64_t left = heap_work + load->stacks + load->roots;
    while (left > 0) {
        uint64_t done;
        outcome.wall_ms += model_step(model, load, &outcome, left, &done);
        outcome.work += done;
        left -= done;
    }
    outcome.utilization = outcome.wall_ms > 0 ? outcome.utilization / outcome.wall_ms : PACER_BACKGROUND;
    outcome.goal = pacer->goal;
    double time_ns = outcome.wall_ms * 1e6 * PROCESSORS;
    struct pacer_cycle cycle = {.marked = model->lives + outcome.allocated,
                                .stacks = load->stacks,
                                .roots = load->roots,
                                .scanned = heap_work,
                                .allocated = outcome.allocated,
                                .mark_wall_ns = (uint64_t)(outcome.wall_ms * 1e6),
                                .mark_cpu_ns = (uint64_t)(time_ns * PACER_BACKGROUND),
                                .assist_cpu_ns =
                                    (uint64_t)(time_ns * (outcome.utilization - PACER_BACKGROUND)),
                                .since_ns = (uint64_t)((outcome.wall_ms + outcome.quiet_ms) * 1e6),
                                .allocated_since = outcome.peak - outcome.live,
                                .processors = PROCESSORS};
    memory = model_memory(model, cycle.marked, true);
    pacer_end_cycle(pacer, &cycle, &memory);
    model_check(pacer);
    return outcome;
}

#endif
