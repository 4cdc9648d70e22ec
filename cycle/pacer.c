/* cycle/pacer.c -- goal, trigger, runway, assist ratio.  See pacer.h. */
#include "cycle/pacer.h"

#include <string.h>

static const uint64_t MIB = 1 << 20;
static const double background = 0.25; /* share of the processors (MK-18) */

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }
static uint64_t most(uint64_t a, uint64_t b) { return a > b ? a : b; }

void pacer_init(struct pacer *pacer, int percent, size_t memory_limit)
{
    memset(pacer, 0, sizeof(*pacer));
    pacer->percent = percent;
    pacer->memory_limit = memory_limit;
    pacer_commit(pacer, 0);
}

/* PC-1, PC-2 */
static uint64_t goal_by_percent(const struct pacer *pacer)
{
    if (pacer->percent < 0)
        return UINT64_MAX;
    uint64_t percent = (uint64_t)pacer->percent;
    uint64_t scannable = pacer->marked + pacer->stacks + pacer->roots;
    /* Without overflow: percent has 31 bits, so up to 2^33 bytes are exact and more lose the fraction. */
    uint64_t growth = scannable < (uint64_t)1 << 33 ? scannable * percent / 100 : scannable / 100 * percent;
    return most(pacer->marked + growth, 4 * MIB * percent / 100);
}

/* PC-11 */
static uint64_t goal_by_limit(const struct pacer *pacer, uint64_t non_heap)
{
    if (pacer->memory_limit == SIZE_MAX)
        return UINT64_MAX;
    uint64_t limit = pacer->memory_limit;
    if (non_heap >= limit)
        return pacer->marked;
    uint64_t goal = limit - non_heap, headroom = most(goal / 100 * 3, MIB);
    goal = goal > headroom ? goal - headroom : 0;
    return most(goal, pacer->marked);
}

/* PC-3, PC-4 */
void pacer_commit(struct pacer *pacer, uint64_t non_heap)
{
    pacer->goal = least(goal_by_percent(pacer), goal_by_limit(pacer, non_heap));
    if (pacer->goal == UINT64_MAX) {
        pacer->trigger = UINT64_MAX;
        return;
    }
    double cons_mark = pacer->cons_mark_now;
    for (int i = 0; i < PACER_HISTORY; i++)
        if (pacer->cons_mark[i] > cons_mark)
            cons_mark = pacer->cons_mark[i];
    uint64_t work = pacer->scanned + pacer->stacks + pacer->roots;
    /* Not more than the goal: beyond 2^64 the conversion is undefined, and came out as no runway at all. */
    double runway = cons_mark * (1 - background) / background * (double)work;
    pacer->runway = runway < (double)pacer->goal ? (uint64_t)runway : pacer->goal;
    uint64_t room = pacer->goal - least(pacer->goal, pacer->marked);
    uint64_t lowest = pacer->marked + room / 64 * 45, highest = pacer->marked + room / 64 * 61;
    if (pacer->goal > 4 * MIB)
        highest = most(highest, pacer->goal - 4 * MIB);
    uint64_t trigger = pacer->goal > pacer->runway ? pacer->goal - pacer->runway : 0;
    trigger = most(trigger, lowest);
    trigger = least(trigger, highest);
    pacer->trigger = least(trigger, pacer->goal);
}

void pacer_end_of_cycle(struct pacer *pacer, const struct pacer_cycle *cycle, uint64_t non_heap)
{
    pacer->marked = cycle->marked;
    pacer->stacks = cycle->stacks;
    pacer->roots = cycle->roots;
    pacer->scanned = cycle->scanned;
    double wall = (double)cycle->mark_wall_ns * cycle->processors;
    double used = (double)(cycle->mark_cpu_ns + cycle->assist_cpu_ns);
    double utilization = wall > 0 ? used / wall : background;
    if (utilization > 0.95)
        utilization = 0.95;
    for (int i = PACER_HISTORY - 1; i > 0; i--)
        pacer->cons_mark[i] = pacer->cons_mark[i - 1];
    pacer->cons_mark[0] = pacer->cons_mark_now;
    /* Of all scan work, as the runway is for all of it (PC-4). */
    double work = (double)(cycle->scanned + cycle->stacks + cycle->roots);
    pacer->cons_mark_now = work > 0 ? (double)cycle->allocated * utilization / (work * (1 - utilization)) : 0;
    pacer_commit(pacer, non_heap);
}

uint64_t pacer_goal_from(const struct pacer *pacer, uint64_t live)
{
    return most(pacer->goal, live + 64 * 1024);
}

double pacer_assist_ratio(const struct pacer *pacer, uint64_t live, uint64_t scanned)
{
    uint64_t goal = pacer->goal;
    if (pacer->percent < 0) /* a forced cycle: as 100,000 percent (PC-2) */
        goal = most(goal == UINT64_MAX ? 0 : goal, pacer->marked + pacer->marked * 1000 + 4 * MIB);
    if (live > goal) /* PC-7 */
        goal = live + live / 10;
    uint64_t work = pacer->scanned + pacer->stacks + pacer->roots;
    double remaining = work > scanned ? (double)(work - scanned) : 0;
    double room = goal > live ? (double)(goal - live) : 0;
    return (remaining > 1000 ? remaining : 1000) / (room > 1 ? room : 1);
}
