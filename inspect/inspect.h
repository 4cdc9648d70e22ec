/* inspect/ -- what the collector can be seen doing: statistics, metrics, the pause ledger, gctrace, the
 * verifier.
 *
 * This room reads all others and is called by none: they report through the table of os/events.h, count
 * in their thread blocks (os/thread.h) and answer gauges.h.  Reading stops no thread, takes no lock and
 * allocates nothing after the first read (TR-6), so a monitoring thread costs the program nothing but its
 * own time; it isn't attached by it either.
 *
 *     ledger.c     every pause, by kind: wall and processor time
 *     figures.c    all figures at one moment, made to fit together
 *     stats.c      struct grey_stats
 *     metrics.c    the table of metrics; read by name, written as OpenMetrics text
 *     gctrace.c    a line for each cycle
 *     pacertrace.c two more, about the pacer
 *
 * Reading does not start the library: before grey_init the figures are those of a heap that is not there.
 */
#ifndef GREY_INSPECT_INSPECT_H
#define GREY_INSPECT_INSPECT_H

#include "arena/arena.h"
#include "grey.h"
#include "inspect/histogram.h"
#include "os/events.h"
#include "os/os.h"
#include "os/thread.h"

/* Empties the ledger and fills os_events in.  At start, before any thread can pause. */
void inspect_init(void);
/* Takes the functions out of os_events and gives back what readers held.  No thread may be reading. */
void inspect_shutdown(void);

/* ---- the ledger ------------------------------------------------------------------------------------ */

/* Signal-safe; goes into os_events.pause.  cpu_ns 0: not measured, so not in the second histogram. */
void ledger_record(enum os_pause_kind kind, uint64_t wall_ns, uint64_t cpu_ns);
void ledger_reset(void);

/* For good: callers read them at any time. */
const struct histogram *inspect_pauses(enum os_pause_kind kind);     /* wall, ns */
const struct histogram *inspect_pauses_cpu(enum os_pause_kind kind); /* processor time, ns */
/* All kinds together. */
void inspect_pauses_summarize(struct histogram_summary *out); /* wall */

/* The longest pause of any thread since the last call with reset, ns; gctrace resets both at the end of
 * each cycle.  handshakes_only: of kind handshake. */
uint64_t inspect_longest_pause(bool handshakes_only, bool reset);

/* Pauses of one thread since its attach. */
struct inspect_thread_pauses {
    uint64_t count, total_ns, max_ns;
};
struct inspect_thread_pauses inspect_thread_pauses(const struct thread *thread);

/* ---- figures ----------------------------------------------------------------------------------------- */

/* Everything at one moment.  Whatever other threads do meanwhile: cumulative figures never decrease from
 * one reading to the next (TR-5), parts add up to their totals, nothing underflows (TR-7). */
struct inspect_figures {
    uint64_t counter[OS_COUNTERS_END];
    uint64_t allocated_bytes, allocated_objects, freed_bytes, freed_objects;
    uint64_t forced_cycles, periodic_cycles; /* of counter[OS_COUNT_cycles], disjoint */
    uint64_t live_bytes, objects, goal, threads;
    uint64_t foreign_regions, foreign_bytes, weak, cleanups_queued, cleanups_run; /* run <= queued */
    uint64_t pins, handles;
    struct arena_figures arenas;
    uint64_t percent; /* UINT64_MAX: off */
    uint64_t memory_limit, limiter_last;
    uint64_t class[OS_CLASSES]; /* mapped */
    uint64_t mapped, metadata;  /* metadata: all but objects' and arenas' */
    /* class[OS_HEAP] = object + unused + free + released bytes */
    uint64_t object_bytes, unused_bytes, free_bytes, released_bytes;
};
void figures_read(struct inspect_figures *figures);

/* Processor time, ns, since start: what the program used, and what of the planned processors nobody in
 * this process used.  Two system calls. */
struct inspect_processor_time {
    uint64_t collector, scavenger, program, idle;
};
void figures_processor_time(const struct inspect_figures *figures, struct inspect_processor_time *out);
void figures_reset(void);

/* ---- the rest ---------------------------------------------------------------------------------------- */

/* Goes into os_events.cycle: prints the line if gctrace=1. */
void gctrace_cycle(const struct os_cycle_event *event);
/* The line without a cycle's end around it, for tests; returns its length, newline included. */
size_t gctrace_format(char *buffer, size_t size, const struct os_cycle_event *event);

/* What gcpacertrace=1 prints for a cycle; returns its length. */
size_t pacertrace_format(char *buffer, size_t size, const struct os_cycle_event *event);

/* Gives back the copies of histograms that readers hold (metrics.c). */
void metrics_shutdown(void);

#endif
