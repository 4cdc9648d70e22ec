/* cycle/pacer.c -- goal, trigger, runway, assist ratio.  See pacer.h.
 *
 * Bytes are added and multiplied with saturation, since a figure may be anything up to UINT64_MAX: limits
 * and percentages come from users, and sums of relaxed counters can be off.  Ratios are doubles, and each is
 * bounded before it becomes an integer again.
 */
#include "cycle/pacer.h"

#include <string.h>

static const uint64_t MIB = 1 << 20;
static const uint64_t sweep_room = 1 << 20;        /* PC-5 */
static const uint64_t late_room = 64 << 10;        /* PC-6 */
static const double utilization_most = 0.95;       /* beyond it the ratio is noise: 1 / (1 - u) */
static const uint64_t off_as_percent = 100 * 1000; /* PC-2 */

/* What a byte is worth, in processors (c of the square-root rule): 10 MB stand against one percent of one
 * processor.  So a heap of 100 MB whose program allocates a tenth of what one processor can mark in the same
 * time gets another 100 MB, as with 100 percent; and percent scales E, which is c / (percent / 100)^2. */
static const double byte_worth = 1e-9;
/* The square-root rule stays within 1/8 and 8 times the growth that the percentage allows: measured rates say
 * nothing of a burst after quiet, which without some room would be met by assists alone. */
static const uint64_t balance_bound = 8;

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }
static uint64_t most(uint64_t a, uint64_t b) { return a > b ? a : b; }
static uint64_t minus(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }
static uint64_t plus(uint64_t a, uint64_t b) { return a + b >= a ? a + b : UINT64_MAX; }

static uint64_t times(uint64_t a, uint64_t b)
{
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

/* a * part / whole, exactly or saturated; part and whole below 2^32. */
static uint64_t share(uint64_t a, uint64_t part, uint64_t whole)
{
    return plus(times(a / whole, part), a % whole * part / whole);
}

/* Bytes from a double that is not negative. */
static uint64_t bytes(double value) { return value < 18446744073709549568.0 ? (uint64_t)value : UINT64_MAX; }

/* Newton's method, from half the exponent; here so that programs need no libm for one root. */
static double square_root(double value)
{
    uint64_t bits;
    if (value <= 0)
        return 0;
    memcpy(&bits, &value, sizeof(bits));
    bits = (bits >> 1) + ((uint64_t)1023 << 51);
    double root;
    memcpy(&root, &bits, sizeof(root));
    for (int i = 0; i < 5; i++)
        root = (root + value / root) / 2;
    return root;
}

/* All scan work that the last cycle would lead one to expect. */
static uint64_t expected_work(const struct pacer *pacer)
{
    return plus(pacer->scanned, plus(pacer->stacks, pacer->roots));
}

/* ---- the goal ------------------------------------------------------------------------------------------ */

/* PC-1, PC-2: what the heap may grow by. */
static uint64_t growth_by_percent(const struct pacer *pacer)
{
    uint64_t scannable = plus(pacer->marked, plus(pacer->stacks, pacer->roots));
    return share(scannable, (uint64_t)pacer->percent, 100);
}

static uint64_t growth_by_balance(const struct pacer *pacer)
{
    uint64_t by_percent = growth_by_percent(pacer);
    if (!(pacer->elapsed > 0 && pacer->ages > 0)) /* nothing measured yet */
        return by_percent;
    double rate = pacer->allocated / pacer->elapsed, cycle_cpu = pacer->cycle_cpu / pacer->ages;
    uint64_t extra = bytes(square_root(rate * cycle_cpu / byte_worth) * pacer->percent / 100);
    return least(most(extra, by_percent / balance_bound), times(by_percent, balance_bound));
}

static uint64_t goal_by_growth(const struct pacer *pacer)
{
    if (pacer->percent < 0)
        return UINT64_MAX;
    uint64_t growth = pacer->balance ? growth_by_balance(pacer) : growth_by_percent(pacer);
    return most(plus(pacer->marked, growth), share(4 * MIB, (uint64_t)pacer->percent, 100));
}

/* PC-11: the heap's part of the limit.  Free pages are not counted against the heap: it takes them before it
 * asks for more. */
static uint64_t heap_by_limit(const struct pacer *pacer, const struct pacer_memory *memory)
{
    uint64_t limit = pacer->memory_limit;
    if (limit == SIZE_MAX)
        return UINT64_MAX;
    return minus(limit, plus(memory->non_heap, minus(memory->ready, limit)));
}

static uint64_t goal_by_limit(const struct pacer *pacer)
{
    uint64_t all = pacer->limit_heap;
    if (all == UINT64_MAX)
        return all;
    return most(minus(all, most(share(all, 3, 100), MIB)), pacer->marked);
}

/* PC-4: what the program allocates while a quarter of the processors do the expected work. */
static uint64_t runway(const struct pacer *pacer)
{
    double cons_mark = pacer->cons_mark_now;
    for (int i = 0; i < PACER_HISTORY; i++)
        if (pacer->cons_mark[i] > cons_mark)
            cons_mark = pacer->cons_mark[i];
    double shares = (1 - PACER_BACKGROUND) / PACER_BACKGROUND;
    return bytes(cons_mark * shares * (double)expected_work(pacer));
}

/* PC-5 may put the trigger of a small heap where its goal was, or past it.  Then the goal moves on by the
 * runway, at most to where that trigger is 45/64 of the way: with PC-6's 64 KiB alone each cycle was one long
 * assist. */
static uint64_t goal_by_sweep(const struct pacer *pacer)
{
    return plus(pacer->sweep_floor,
                least(pacer->runway, share(minus(pacer->sweep_floor, pacer->marked), 19, 45)));
}

static void plan_goal(struct pacer *pacer, const struct pacer_memory *memory)
{
    uint64_t by_growth = goal_by_growth(pacer);
    if (pacer->sweep_floor != 0)
        by_growth = most(by_growth, goal_by_sweep(pacer));
    if (pacer->running)
        by_growth = most(by_growth, plus(pacer->began, late_room));
    /* last, so that none of these pushes it past the limit */
    pacer->limit_heap = heap_by_limit(pacer, memory);
    pacer->limit_goal = goal_by_limit(pacer);
    pacer->limited = pacer->limit_goal < by_growth;
    pacer->goal = least(by_growth, pacer->limit_goal);
}

/* ---- the trigger --------------------------------------------------------------------------------------- */

/* PC-3 */
static uint64_t plan_trigger(const struct pacer *pacer)
{
    if (pacer->goal == UINT64_MAX || pacer->marked >= pacer->goal)
        return pacer->goal;
    uint64_t room = pacer->goal - pacer->marked;
    uint64_t lowest = pacer->marked + share(room, 45, 64), highest = pacer->marked + share(room, 61, 64);
    if (!pacer->limited)
        lowest = most(lowest, pacer->sweep_floor); /* at most the goal: plan_goal */
    highest = most(most(highest, minus(pacer->goal, 4 * MIB)), lowest);
    return least(most(pacer->goal - pacer->runway, lowest), highest);
}

/* ---- a pacer's life ------------------------------------------------------------------------------------ */

void pacer_init(struct pacer *pacer, int percent, size_t memory_limit)
{
    memset(pacer, 0, sizeof(*pacer));
    pacer->percent = percent;
    pacer->memory_limit = memory_limit;
    pacer_commit(pacer, &(struct pacer_memory){0});
}

void pacer_commit(struct pacer *pacer, const struct pacer_memory *memory)
{
    if (!pacer->running) /* in a cycle, as it was when that was planned */
        pacer->sweep_floor = memory->sweeping ? plus(memory->live, sweep_room) : 0;
    pacer->runway = runway(pacer);
    plan_goal(pacer, memory);
    pacer->runway = least(pacer->runway, pacer->goal);
    pacer->trigger = plan_trigger(pacer);
}

void pacer_begin_cycle(struct pacer *pacer, const struct pacer_memory *memory)
{
    pacer->running = true;
    pacer->began = memory->live;
    pacer_commit(pacer, memory);
}

/* The ratio of two rates, each in bytes for a processor's time: of allocation by the program, which had what
 * background workers and assists left, and of marking by all who marked.  Idle workers are in the second
 * only: the program could have had their time.  The background is taken to have had its quarter: on a machine
 * where it gets more or less, the runway comes out as what the program allocated meanwhile, which is what is
 * needed.  False: nothing was allocated or nothing was scanned, so there is no ratio. */
static bool measure(const struct pacer_cycle *cycle, double *cons_mark)
{
    double work = (double)cycle->scanned + (double)cycle->stacks + (double)cycle->roots;
    double time = (double)cycle->mark_wall_ns * cycle->processors;
    if (cycle->allocated == 0 || work <= 0)
        return false;
    double assists = time > 0 ? (double)cycle->assist_cpu_ns / time : 0;
    double idle = time > 0 ? (double)cycle->idle_cpu_ns / time : 0;
    double utilization = PACER_BACKGROUND + assists;
    if (utilization > utilization_most)
        utilization = utilization_most;
    if (idle > 1)
        idle = 1;
    *cons_mark = (double)cycle->allocated * (utilization + idle) / (work * (1 - utilization));
    return true;
}

static void remember(struct pacer *pacer, const struct pacer_cycle *cycle)
{
    double cons_mark;
    if (measure(cycle, &cons_mark)) {
        memmove(&pacer->cons_mark[1], &pacer->cons_mark[0], (PACER_HISTORY - 1) * sizeof(double));
        pacer->cons_mark[0] = pacer->cons_mark_now;
        pacer->cons_mark_now = cons_mark;
    }
    double cpu = (double)cycle->mark_cpu_ns + (double)cycle->idle_cpu_ns + (double)cycle->assist_cpu_ns;
    pacer->allocated = pacer->allocated / 2 + (double)cycle->allocated_since;
    pacer->elapsed = pacer->elapsed / 2 + (double)cycle->since_ns;
    pacer->cycle_cpu = pacer->cycle_cpu / 2 + cpu;
    pacer->ages = pacer->ages / 2 + 1;
}

void pacer_end_cycle(struct pacer *pacer, const struct pacer_cycle *cycle, const struct pacer_memory *memory)
{
    pacer->running = false;
    pacer->marked = cycle->marked;
    pacer->stacks = cycle->stacks;
    pacer->roots = cycle->roots;
    pacer->scanned = cycle->scanned;
    remember(pacer, cycle);
    pacer_commit(pacer, memory);
}

/* ---- assists ------------------------------------------------------------------------------------------- */

/* More was scanned than expected: what there may be at most.  First as if the same part of the heap were
 * scanned as last time, all that was there when the cycle began being alive; if that was not enough either,
 * all of it. */
static uint64_t work_at_most(const struct pacer *pacer, uint64_t scanned)
{
    double part = pacer->marked > 0 ? (double)pacer->scanned / (double)pacer->marked : 1;
    uint64_t others = plus(pacer->stacks, pacer->roots);
    uint64_t likely = part < 1 ? plus(bytes(part * (double)pacer->began), others) : 0;
    return likely > scanned ? likely : most(plus(pacer->began, others), scanned);
}

/* PC-7: the heap is growing.  The goal moves away with the work, so that the ratio stays as it was; at most
 * to where the next cycle's goal will be anyway, and not past a limit's goal. */
static uint64_t goal_moved(const struct pacer *pacer, uint64_t goal, uint64_t expected, uint64_t work)
{
    uint64_t percent = pacer->percent < 0 ? off_as_percent : (uint64_t)pacer->percent;
    double room = (double)minus(goal, pacer->began) * ((double)work / (double)most(expected, 1));
    uint64_t farthest = least(plus(goal, share(goal, percent, 100)), pacer->limit_goal);
    return most(goal, least(plus(pacer->began, bytes(room)), farthest));
}

/* PC-7: the heap has passed its goal.  A tenth beyond it is the last word, but a memory limit's goal is only 3
 * percent below the limit: there the limit is.  With the tenth alone, a program whose cycles find up to a fifth
 * more or less to scan passed the limit now and then.  A limit that what lives has passed can't be kept. */
static uint64_t goal_passed(const struct pacer *pacer, uint64_t goal)
{
    uint64_t farthest = plus(goal, goal / 10);
    return pacer->limit_heap > goal ? least(farthest, pacer->limit_heap) : farthest;
}

double pacer_assist_ratio(const struct pacer *pacer, uint64_t live, uint64_t scanned)
{
    uint64_t goal = pacer->goal, expected = expected_work(pacer), work = expected;
    if (goal == UINT64_MAX) /* a forced cycle, with the percentage off (PC-2) */
        goal = plus(plus(pacer->began, share(pacer->began, off_as_percent, 100)), 4 * MIB);
    if (scanned > expected) {
        work = work_at_most(pacer, scanned);
        goal = goal_moved(pacer, goal, expected, work);
    }
    if (live > goal) {
        work = most(work, work_at_most(pacer, scanned));
        goal = goal_passed(pacer, goal);
    }
    return (double)most(minus(work, scanned), 1000) / (double)most(minus(goal, live), 1);
}
