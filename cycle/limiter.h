/* cycle/limiter.h -- an end to death spirals: when the collector has taken too much, assists stop.
 *
 * At a memory limit that what lives does not fit into, and at a percentage that is too small, cycles follow
 * one another and the program marks instead of running.  The limiter is a leaky bucket of processor time
 * (PC-14): the collector's time fills it, the program's drains it, so that it fills while the collector takes
 * more than half of what is used; time that nobody uses moves nothing.  It holds a second for each processor
 * and is never below empty: a day of quiet buys no spiral.  While it is full the program does not assist, and
 * the heap grows past its goal instead (PC-15).
 *
 * What was taken from the program without being used by the collector, a thread that was held or waited for
 * it, counts as the collector's, as far as processors stood idle meanwhile, and at most as much as the
 * collector and its idle workers did use: who is held while those mark is held by them.  Idle is all that this
 * process did not get: on a busy machine, and where a cgroup's quota is used up, threads wait because the collector
 * does, and an idle processor is one that somebody else had.
 * Without that bound the limiter went on there while collecting took a tenth, and a limit of 256 MiB was
 * passed by 40.
 *
 * Pure functions of the struct and what is passed in: who updates it, under which lock, is control.c's.
 */
#ifndef GREY_CYCLE_LIMITER_H
#define GREY_CYCLE_LIMITER_H

#include <stdbool.h>
#include <stdint.h>

#define LIMITER_PERIOD_NS ((uint64_t)10 * 1000 * 1000)
#define LIMITER_CAPACITY_NS ((uint64_t)1000 * 1000 * 1000) /* for each processor */

/* Clock and counters, cumulative, ns. */
struct limiter_reading {
    uint64_t now;
    uint64_t collector; /* processor time: workers, assists, handshakes, sweep; not what nobody else wanted */
    uint64_t program;   /* processor time */
    uint64_t held;      /* of program threads, each for itself, wall time */
    uint64_t idle_workers; /* processor time; bounds what held counts for, and counts for nothing itself */
};

struct limiter {
    unsigned processors;
    uint64_t fill, capacity;     /* ns of processor time */
    uint64_t overflow;           /* what came when it was full */
    struct limiter_reading last; /* of the last update */
    uint64_t last_cycle;         /* number of the last cycle that turned it on; 0: none has */
    bool limiting;
};

void limiter_init(struct limiter *limiter, const struct limiter_reading *reading, unsigned processors);
bool limiter_is_due(const struct limiter *limiter, uint64_t now);
/* cycle: number of the one that runs, or ran last.  A counter that is behind what it
 * was counts as 0 until it has caught up. */
void limiter_update(struct limiter *limiter, const struct limiter_reading *reading, uint64_t cycle);
/* The fill stays, cut to what there is room for. */
void limiter_resize(struct limiter *limiter, unsigned processors, uint64_t cycle);

#endif
