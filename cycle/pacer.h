/* cycle/pacer.h -- when to collect, and how hard: pure functions of what was measured.
 *
 * The goal is the heap size at which a cycle should end; it follows from what the last cycle marked and the
 * percentage, or from the memory limit if that is less.  The trigger is the size at which the cycle begins:
 * so far before the goal, by the runway, that the background workers alone, with a quarter of the processors,
 * are done when the heap reaches it.  The runway comes from the cons/mark ratio: bytes allocated for each
 * byte scanned, for equal shares of processor time, as the last cycles measured it.  While a cycle runs, the
 * assist ratio says how much scan work an allocation owes so that the goal is met even so.  Ideas and
 * constants are Go's (its pacer since 1.18; behaviour PC-1..PC-7, PC-11).
 *
 * balance=1 has another goal in the place of the percentage: MemBalancer's square-root rule (Kirisame,
 * Shenoy, Panchekha: Optimal Heap Limits for Reducing Browser Memory Use, arXiv 2204.10455).  A heap with E
 * bytes beyond what is live is collected g / E times a second, g being the bytes allocated in a second; with
 * t seconds of processor time a cycle, collecting takes g t / E processors.  Another byte of E saves g t /
 * E^2 of them.  If a byte is worth c processors, E is right where that equals c: E = sqrt(g t / c).  With the
 * same c in all heaps of a machine, none could be made smaller without more being lost in another.
 *
 * No state but the struct, no clock, no atomics: tests simulate thousands of cycles in a second.
 */
#ifndef GREY_CYCLE_PACER_H
#define GREY_CYCLE_PACER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PACER_HISTORY = 4 };
#define PACER_BACKGROUND 0.25 /* share of the processors that background workers take (MK-18) */

/* What the process holds at some moment; bytes. */
struct pacer_memory {
    uint64_t live;  /* marked by the last cycle, or taken since */
    uint64_t ready; /* of all mappings, less what was or can be given back: what the limit bounds (PC-11) */
    uint64_t non_heap; /* of those what is in no object and not free for objects */
    bool sweeping;     /* spans are left that the last cycle's sweep did not reach */
};

/* What one cycle measured. */
struct pacer_cycle {
    uint64_t marked, stacks, roots; /* bytes */
    uint64_t scanned;               /* scan work in the heap, bytes */
    uint64_t allocated;             /* bytes, from the trigger to the end of marking */
    uint64_t mark_wall_ns;
    uint64_t mark_cpu_ns;     /* of background workers */
    uint64_t idle_cpu_ns;     /* of workers that take what nobody wants */
    uint64_t assist_cpu_ns;   /* of program threads */
    uint64_t since_ns;        /* wall time from the end of the last cycle to the end of this one */
    uint64_t allocated_since; /* bytes allocated in that time */
    unsigned processors;
};

struct pacer {
    /* what was asked for; pacer_commit after a change */
    int percent;           /* -1 = off */
    uint64_t memory_limit; /* SIZE_MAX = none */
    bool balance;          /* the square-root rule instead of the percentage */

    /* what the last cycles measured */
    uint64_t marked, stacks, roots, scanned;    /* bytes */
    double cons_mark_now;                       /* of the last cycle that could tell */
    double cons_mark[PACER_HISTORY];            /* of those before it */
    double allocated, elapsed, cycle_cpu, ages; /* sums, older cycles halved each time; for balance */

    /* the cycle that runs */
    bool running;
    uint64_t began; /* live bytes when it began */

    uint64_t sweep_floor; /* least trigger while there was something to sweep (PC-5); 0: none */

    /* the plan; bytes, UINT64_MAX = never */
    uint64_t goal, trigger, runway;
    uint64_t limit_goal; /* what the memory limit alone would make it; the goal is at most this */
    uint64_t limit_heap; /* what the memory limit leaves for the heap: that goal and the headroom */
    bool limited;        /* by the memory limit */
};

void pacer_init(struct pacer *pacer, int percent, size_t memory_limit);
/* Makes the plan anew: after a setter, and whenever memory has changed.  May be called at any time; in a
 * running cycle the goal is that cycle's (PC-13). */
void pacer_commit(struct pacer *pacer, const struct pacer_memory *memory);
/* A cycle begins, with memory as it is now (PC-6). */
void pacer_begin_cycle(struct pacer *pacer, const struct pacer_memory *memory);
void pacer_end_cycle(struct pacer *pacer, const struct pacer_cycle *cycle, const struct pacer_memory *memory);
/* Scan work owed for each byte allocated (PC-7): always finite and above 0.  scanned: scan work of this cycle
 * so far, stacks and roots included.  Reads percent, marked, stacks, roots, scanned, began, goal,
 * limit_goal, limit_heap. */
double pacer_assist_ratio(const struct pacer *pacer, uint64_t live, uint64_t scanned);

#endif
