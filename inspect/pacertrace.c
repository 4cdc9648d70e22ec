/* inspect/pacertrace.c -- GREY_DEBUG=gcpacertrace=1: what the pacer planned for a cycle, and how it came out
 * (TR-2).
 *
 *     pacer: assist ratio=0.312500 (scan 19 MB in 38->39 MB)
 *     pacer: 25% CPU (25 exp.) for 20894720+8192+32768 B work (20935680 B exp.) in 39976960 B -> 41811968 B
 *     (goal -1024, cons/mark 0.031250), next 39976960 B -> 41812992 B
 *
 * the second in one line.  First the scan work that each byte allocated owed when the cycle began, for the
 * work that was expected and the way from live to goal.  Then: share of the planned processors that workers
 * and assists had; work in the heap, in stacks, in roots, and what was expected of all three; live bytes at
 * start and end, and how far the end was from the goal; the cons/mark ratio that the cycle measured; and the
 * next trigger and goal.  "limited": the goal was the memory limit's; "limiter on": threads did not assist.
 */
#include "inspect/inspect.h"
#include "inspect/text.h"

static void put_bytes(struct text *t, uint64_t bytes)
{
    if (bytes == UINT64_MAX) {
        text_string(t, "never");
        return;
    }
    text_number(t, bytes);
    text_string(t, " B");
}

static void put_megabytes(struct text *t, uint64_t bytes)
{
    if (bytes == UINT64_MAX)
        text_string(t, "any");
    else
        text_number(t, bytes >> 20);
}

static void put_ratio(struct text *t, double ratio)
{
    text_decimal(t, ratio < 1e12 ? (uint64_t)(ratio * 1e6) : (uint64_t)1e18, 6, 6);
}

static uint64_t percent_used(const struct os_cycle_event *e)
{
    uint64_t wall = (e->arm_ns + e->mark_ns + e->rescan_ns) * (e->processors > 0 ? e->processors : 1);
    return wall >= 100 ? (e->worker_cpu_ns + e->assist_cpu_ns) / (wall / 100) : 0;
}

static void put_plan(struct text *t, const struct os_cycle_event *e)
{
    text_string(t, "pacer: assist ratio=");
    put_ratio(t, e->planned_ratio);
    text_string(t, " (scan ");
    put_megabytes(t, e->planned_work);
    text_string(t, " MB in ");
    put_megabytes(t, e->live_start);
    text_string(t, "->");
    put_megabytes(t, e->planned_goal);
    text_string(t, e->limited ? " MB, limited)\n" : " MB)\n");
}

static void put_goal_missed(struct text *t, const struct os_cycle_event *e)
{
    if (e->planned_goal == UINT64_MAX)
        return;
    bool past = e->live_end > e->planned_goal;
    text_string(t, past ? "goal +" : "goal -");
    text_number(t, past ? e->live_end - e->planned_goal : e->planned_goal - e->live_end);
    text_string(t, ", ");
}

static void put_outcome(struct text *t, const struct os_cycle_event *e)
{
    text_string(t, "pacer: ");
    text_number(t, percent_used(e));
    text_string(t, "% CPU (25 exp.) for ");
    text_number(t, e->scanned);
    text_char(t, '+');
    text_number(t, e->stack_bytes);
    text_char(t, '+');
    text_number(t, e->root_bytes);
    text_string(t, " B work (");
    put_bytes(t, e->planned_work);
    text_string(t, " exp.) in ");
    put_bytes(t, e->live_start);
    text_string(t, " -> ");
    put_bytes(t, e->live_end);
    text_string(t, " (");
    put_goal_missed(t, e);
    text_string(t, "cons/mark ");
    put_ratio(t, e->cons_mark);
    text_string(t, "), next ");
    put_bytes(t, e->trigger);
    text_string(t, " -> ");
    put_bytes(t, e->goal);
    if (e->limiting)
        text_string(t, ", limiter on");
}

size_t pacertrace_format(char *buffer, size_t size, const struct os_cycle_event *e)
{
    struct text t = {.buffer = buffer, .size = size - 1, .fd = -1};
    put_plan(&t, e);
    put_outcome(&t, e);
    buffer[t.length++] = '\n'; /* its byte was kept back: also a line that was cut is a line */
    return t.length;
}
