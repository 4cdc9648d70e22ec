/* cycle/scavenger.c -- goals, pace and the trace line of the scavenger.  See scavenger.h.
 *
 * The controller works on the ratio of work to sleep.  For small shares that is the share itself, so the loop
 * has a gain of about one: a proportional part of a third and an integral that takes a third of the error in
 * each period, or less if the period is short, settle within a few periods without swinging.  The integral
 * stays within the ratio's bounds, so that hours without a processor are forgotten at once.
 */
#include "cycle/scavenger.h"

#include "os/os.h"

static const double start_ratio = 0.001, least_ratio = 0.001, most_ratio = 1;
static const double gain = 1.0 / 3, integral_ns = 200e6; /* a period as long as this counts in full */
static const uint64_t least_due = 64 << 10, most_ahead = 32 << 20;

/* ---- goals --------------------------------------------------------------------------------------------- */

static uint64_t bytes(double value) { return value < 18446744073709549568.0 ? (uint64_t)value : UINT64_MAX; }

uint64_t scavenger_retained_goal(uint64_t in_use, uint64_t goal, uint64_t last_goal)
{
    double moved = 1; /* where one of them is none there is nothing to compare */
    if (goal != UINT64_MAX && last_goal != UINT64_MAX && last_goal != 0)
        moved = (double)goal / (double)last_goal;
    return bytes(1.10 * moved * (double)in_use);
}

uint64_t scavenger_ready_goal(size_t limit) { return limit == SIZE_MAX ? UINT64_MAX : limit / 20 * 19; }

/* A thirty-second of the heap is a third of what may be retained beyond it.  32 MiB last for 30 ms where a GB is
 * allocated in each second, in which a huge page of 5 ms (pages.c) comes six times. */
uint64_t scavenger_ahead(uint64_t in_use)
{
    uint64_t ahead = in_use / 32;
    return ahead < SCAVENGER_AHEAD_STEP ? 0 : ahead < most_ahead ? ahead : most_ahead;
}

uint64_t scavenger_due(const struct scavenger_goals *goals, uint64_t retained, uint64_t ready)
{
    uint64_t by_retained = retained > goals->retained ? retained - goals->retained : 0;
    uint64_t by_ready = ready > goals->ready ? ready - goals->ready : 0;
    uint64_t due = by_retained > by_ready ? by_retained : by_ready;
    return due >= least_due ? due : 0;
}

/* ---- pace ---------------------------------------------------------------------------------------------- */

static double within(double value, double least, double most)
{
    return value < least ? least : value > most ? most : value;
}

void scavenger_pace_init(struct scavenger_pace *pace) { pace->ratio = pace->integral = start_ratio; }

uint64_t scavenger_sleep_after(const struct scavenger_pace *pace, uint64_t worked)
{
    return bytes((double)worked / pace->ratio);
}

void scavenger_pace_update(struct scavenger_pace *pace, uint64_t worked, uint64_t slept)
{
    double period = (double)worked + (double)slept;
    if (period <= 0)
        return;
    double error = SCAVENGER_SHARE - (double)worked / period;
    double part = period < integral_ns ? period / integral_ns : 1;
    pace->integral = within(pace->integral + gain * part * error, least_ratio, most_ratio);
    pace->ratio = within(pace->integral + gain * error, least_ratio, most_ratio);
}

struct scavenger_work scavenger_work(const struct scavenger_calls *calls)
{
    struct scavenger_work work = {0};
    uint64_t began = calls->cpu();
    while (work.worked < SCAVENGER_LEAST_NS && !calls->stop()) {
        uint64_t due = calls->due();
        bool more = false;
        work.met = due == 0;
        if (work.met)
            break;
        work.bytes += calls->release(due, &more);
        work.worked = calls->cpu() - began;
        work.exhausted = !more;
        if (work.exhausted)
            break;
    }
    return work;
}

/* ---- scavtrace=1 --------------------------------------------------------------------------------------- */

size_t scavenger_trace(char *line, size_t size, const struct scavenger_figures *f)
{
    uint64_t percent = f->retained != 0 ? f->in_use * 100 / f->retained : 100; /* below 2^57 */
    return os_format(line, size,
                     "scav %llu KiB work (bg), %llu KiB work (eager), %llu KiB total, %llu%% util%s\n",
                     (unsigned long long)(f->background >> 10), (unsigned long long)(f->eager >> 10),
                     (unsigned long long)(f->released >> 10),
                     (unsigned long long)(percent < 100 ? percent : 100), f->forced ? " (forced)" : "");
}
