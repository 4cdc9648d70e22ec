/* sweep/ -- sweeping spans, and everything that runs because something died.
 *
 *     sweep.c      spans: concurrent and on demand
 *     words.c      the kernel: mark words become allocation words
 *     specials.c   cleanups, finalizers and weak references hang on spans
 *     weak.c       weak references
 *     cleanups.c   the queues of what is to run, and the threads that run it
 *
 * Lazy and concurrent, in phase off (SW-1): by a background thread, by refills, by large allocations, and
 * what is left by the collector before the next cycle arms.  A span is swept once a cycle by whoever takes
 * its flag.  May call: heap/, mutator/, os/.
 */
#ifndef GREY_SWEEP_SWEEP_H
#define GREY_SWEEP_SWEEP_H

#include "heap/heap.h"

/* Flag held: moves the mark words into the allocation words, clears them, frees the span if it is empty
 * and nobody's. */
void sweep_span(struct span *span);
/* Flag held: the same if it was not swept since the last cycle (OR-12). */
void sweep_if_due(struct span *span);
/* 1.7: from here on anyone may sweep.  At once with the cycle's number and not later: a collector that waits
 * for a processor in between would leave the program to take new memory with all the garbage still there (under
 * a limit it passed that by 18 MiB). */
void sweep_open(void);
/* The background thread begins, allocations pay.  distance: bytes until the next cycle. */
void sweep_begin(uint64_t distance);
/* Sweeps what is left; the collector. */
void sweep_finish(void);
bool sweep_done(void);
/* SW-9: sweeps until as many pages were freed or nothing is left; in sections of the caller. */
void sweep_some(size_t pages);
/* SW-8: what an allocation of so many bytes owes. */
void sweep_pay(struct thread *self, size_t bytes);

int sweep_thread_start(void);
void sweep_thread_stop(void);
void sweep_park(void); /* fork */
void sweep_unpark(void);
void sweep_fork_child(void);

#endif
