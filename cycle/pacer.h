/* cycle/pacer.h -- when to collect, and how hard: pure functions of what was measured.
 *
 * Goal, trigger and runway are Go's (mgcpacer.go since 1.18; behaviour PC-1..PC-7): the goal follows from
 * the live heap and the percentage; the trigger is set so far before it that background workers alone,
 * with a quarter of the processors, finish marking by then at the measured rates of allocation and
 * marking.  No state but the struct, no clock, no atomics: tests simulate thousands of cycles.
 */
#ifndef GREY_CYCLE_PACER_H
#define GREY_CYCLE_PACER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PACER_HISTORY = 4 };

struct pacer {
    int percent;         /* -1 = off */
    size_t memory_limit; /* SIZE_MAX = none */
    /* of the last cycle */
    uint64_t marked, stacks, roots, scanned;
    double
        cons_mark[PACER_HISTORY]; /* bytes allocated for each byte scanned, at a quarter of the processors */
    double cons_mark_now;
    uint64_t goal, trigger, runway;
};

/* What one cycle measured. */
struct pacer_cycle {
    uint64_t marked, stacks, roots; /* bytes */
    uint64_t scanned;               /* scan work in the heap, bytes */
    uint64_t allocated;             /* bytes, from the trigger to the end of marking */
    uint64_t mark_wall_ns, mark_cpu_ns, assist_cpu_ns;
    unsigned processors;
};

void pacer_init(struct pacer *pacer, int percent, size_t memory_limit);
/* non_heap: bytes of Grey's mappings that are not heap (PC-11). */
void pacer_end_of_cycle(struct pacer *pacer, const struct pacer_cycle *cycle, uint64_t non_heap);
/* After a setter. */
void pacer_commit(struct pacer *pacer, uint64_t non_heap);
/* Scan work owed for each byte allocated (PC-7). */
double pacer_assist_ratio(const struct pacer *pacer, uint64_t live, uint64_t scanned);
/* The goal of a cycle that began at live bytes (PC-6). */
uint64_t pacer_goal_from(const struct pacer *pacer, uint64_t live);

#endif
