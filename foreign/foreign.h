/* foreign/ -- memory that Grey did not allocate: the range index and foreign regions.
 *
 *     epoch.c      when memory that readers may still look at can be used again
 *     index.c      the range index
 *     nodes.c      memory for its nodes
 *     regions.c    registration, release, the marks of regions, their death
 *
 * A word that lies outside the heap is looked up here only if it lies within the bounds of all regions
 * (barrier/barrier.h, outside_bounds), so a program without regions pays one compare a word (FR-14, FR-15).
 *
 * May call: mark/'s header, barrier/, mutator/, heap/, os/.
 */
#ifndef GREY_FOREIGN_FOREIGN_H
#define GREY_FOREIGN_FOREIGN_H

#include "foreign/epoch.h"
#include "heap/heap.h"
#include "mark/mark.h"

int foreign_init(void);
void foreign_shutdown(void);
void foreign_fork_child(void);

/* heap_calls: a program thread in a busy section, phase ON: marks the region that the word points into, as
 * shade() marks an object (2.3).  True if this call marked one. */
bool foreign_shade(struct thread *self, uintptr_t word);
void foreign_touch(struct thread *self, uintptr_t word);
bool foreign_overlaps(uintptr_t start, uintptr_t end); /* list lock held: it stays so until that is let go */
/* The marker: the same for a word it found; stack: one past the end counts (FR-23).  True if white. */
bool foreign_mark(struct tracer *tracer, uintptr_t word, bool stack);
/* Roots (1.3): the arguments of regions [first, end). */
void foreign_mark_args(struct tracer *tracer, uint32_t first, uint32_t end);
uint32_t foreign_end(void); /* indexes below it may be in use */
/* For pins and handles, which keep a region by its handle: so release makes them empty, and another region at
 * the same address isn't kept (PN-6).  self: a program thread in a busy section; NULL: the collector. */
uint64_t foreign_handle_at(struct thread *self, uintptr_t p); /* of the region that p points into; 0: none */
void foreign_mark_handle(struct tracer *tracer, uint64_t handle); /* if it is registered */
bool foreign_registered(uint64_t handle);                         /* the verifier, all threads held */
/* Counts its pins, if it is registered. */
void foreign_pin(struct thread *self, uint64_t handle, int by);
/* False: p points into no region. */
bool foreign_pins_at(struct thread *self, uintptr_t p, size_t *pins);
/* A piece of a scanned region that is marked and not yet scanned whole; false: none waits.  One count of
 * work_pending is the caller's then.  Until foreign_leave_piece the region's release waits. */
struct foreign_piece {
    const void *start; /* aligned */
    size_t size;       /* 0: the region was released */
    uint32_t index;
};
bool foreign_take_piece(struct foreign_piece *piece);
void foreign_leave_piece(const struct foreign_piece *piece);
bool foreign_pieces_wait(void);
/* 1.7: after finish's FENCE, before the next arm: takes what died out of the index and queues its
 * cleanups, a batch a call; other threads go on (FR-27, FR-28).  False: there was nothing left. */
void foreign_sweep_begin(uint64_t cycle);
bool foreign_sweep_some(void);
/* The verifier, all threads held.  foreign_verify_word: the region that the word points into, if no call with
 * this number has been there; its index, or 0. */
uint32_t foreign_verify_word(uintptr_t word, bool stack, uint64_t number);
bool foreign_verify_marked(uint32_t index);
/* The words of a scanned region; size 0 for others. */
void foreign_verify_contents(uint32_t index, const void **start, size_t *size);
void foreign_each_arg(void (*fn)(uintptr_t word, void *arg), void *arg);
uint64_t foreign_regions(void), foreign_bytes(void); /* registered */

#endif
