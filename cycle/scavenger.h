/* cycle/scavenger.h -- how much memory to give back, and how fast: pure functions.
 *
 * Two goals (SC-2, SC-3).  What the heap retains, its free pages that still have memory included, is to be
 * within a tenth of what it had in use when the last cycle ended, scaled by how the pacer's goal has moved:
 * enough for the heap to reach that goal without asking the system again.  And with a memory limit all
 * mappings together are to be within 95 percent of it, so that there is room for an allocation to find.
 *
 * Pace: a piece of work of at least a millisecond of processor time, then sleep so long that work is one
 * percent of both (SC-1).  The ratio is found by a PI controller, because a sleep is longer than it was
 * asked to be, and a madvise can outlast the piece it should fit into.  It starts at a tenth of the goal, so
 * that a burst of work is not what one notices first.
 *
 * No clock, no atomics, no other room: tests pass a clock of their own in.  scavenging.c is the rest.
 */
#ifndef GREY_CYCLE_SCAVENGER_H
#define GREY_CYCLE_SCAVENGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCAVENGER_SHARE 0.01                     /* of one processor */
#define SCAVENGER_AHEAD_STEP ((uint64_t)2 << 20) /* a huge page */
#define SCAVENGER_LEAST_NS ((uint64_t)1000 * 1000)

/* ---- goals --------------------------------------------------------------------------------------------- */

/* SC-2.  in_use: bytes of spans when the last cycle ended; goal, last_goal: the pacer's now, and in that
 * cycle; UINT64_MAX: none.  Saturated. */
uint64_t scavenger_retained_goal(uint64_t in_use, uint64_t goal, uint64_t last_goal);
/* SC-3; UINT64_MAX for a limit of SIZE_MAX. */
uint64_t scavenger_ready_goal(size_t limit);

/* SC-11: free bytes that are to have memory, for a heap with so many in use; 0, or at least SCAVENGER_AHEAD_STEP. */
uint64_t scavenger_ahead(uint64_t in_use);

struct scavenger_goals {
    uint64_t retained, ready; /* UINT64_MAX: none */
};
/* Bytes to give back until both are met; 0 also if what is left is not worth the trouble. */
uint64_t scavenger_due(const struct scavenger_goals *goals, uint64_t retained, uint64_t ready);

/* ---- pace ---------------------------------------------------------------------------------------------- */

struct scavenger_pace {
    double ratio;    /* of work to sleep */
    double integral; /* the controller's */
};
void scavenger_pace_init(struct scavenger_pace *pace);
/* How long to sleep after so much work, ns. */
uint64_t scavenger_sleep_after(const struct scavenger_pace *pace, uint64_t worked);
/* What came of it: work and sleep as they were measured. */
void scavenger_pace_update(struct scavenger_pace *pace, uint64_t worked, uint64_t slept);

/* What a piece of work needs of the world. */
struct scavenger_calls {
    uint64_t (*cpu)(void); /* this thread's processor time, ns */
    uint64_t (*due)(void);
    /* Gives back about so much, in one small step; *more: whether there is anything else to give. */
    size_t (*release)(uint64_t most, bool *more);
    bool (*stop)(void);
};
struct scavenger_work {
    uint64_t bytes, worked; /* worked: ns */
    bool met;               /* the goals are */
    bool exhausted;         /* nothing is left to give back */
};
/* One piece: until the time is over, the goals are met, there is nothing left or it is told to stop. */
struct scavenger_work scavenger_work(const struct scavenger_calls *calls);

/* ---- scavtrace=1 --------------------------------------------------------------------------------------- */

struct scavenger_figures {
    uint64_t background, eager; /* bytes given back since the line before */
    uint64_t released;          /* in all now */
    uint64_t in_use, retained;
    bool forced;
};
/* One line, newline included; its length:
 *     scav 3072 KiB work (bg), 1 KiB work (eager), 10240 KiB total, 75% util (forced)
 * Given back since the line before, by the thread and by others; released now, pages never used included;
 * share of what the heap retains that is in use; "(forced)": by grey_trim, or for want of memory. */
size_t scavenger_trace(char *line, size_t size, const struct scavenger_figures *figures);

#endif
