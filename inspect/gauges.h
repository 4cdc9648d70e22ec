/* inspect/gauges.h -- figures that are states, not counts: what the other rooms answer when inspect/ asks.
 *
 * Counts live in the thread blocks (os/thread.h) and are read from there.  A gauge has an owner, and the
 * owner defines the function.  Each may be called by any thread, attached or not, at any time, also
 * before the library is up and after it was shut down (then 0, or the value that was set); it takes no
 * lock, stops nobody and allocates nothing (TR-6).  Two gauges read one after the other need not fit
 * together while threads run; figures.c makes them fit.
 */
#ifndef GREY_INSPECT_GAUGES_H
#define GREY_INSPECT_GAUGES_H

#include <stddef.h>
#include <stdint.h>

/* heap/: bytes that the last cycle marked and that were taken since, as the pacer counts. */
uint64_t heap_live_bytes(void);
/* heap/: pages of spans; free pages that still have memory; free pages given back.  The three add up to
 * os_mapped(OS_HEAP). */
uint64_t heap_in_use_bytes(void);
uint64_t heap_free_bytes(void);
uint64_t heap_released_bytes(void);
/* heap/: everything ever allocated, the unused rests of threads' runs subtracted.  Never decreases. */
void heap_allocated(uint64_t *bytes, uint64_t *objects);

uint64_t cycle_goal(void);         /* bytes */
int cycle_percent(void);           /* -1: off */
size_t cycle_memory_limit(void);   /* SIZE_MAX: none */
uint64_t cycle_limiter_last(void); /* number of the last cycle that turned the limiter on; 0: none has */
uint64_t mutator_threads(void);    /* attached now */

uint64_t foreign_regions(void), foreign_bytes(void); /* registered */
uint64_t specials_weak(void);                        /* weak references whose target lives */
uint64_t cleanups_queued(void), cleanups_run(void);  /* since start; finalizers too */
uint64_t pin_count(void), pin_handles(void);         /* set, held */
/* Arenas that are not freed, and the chunks of each state: arena_figures, arena/arena.h. */

#endif
