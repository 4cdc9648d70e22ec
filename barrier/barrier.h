/* barrier/ -- the store barrier: shading, grey buffers, bulk moves, and the queues they feed.
 *
 * Work is references to marked, unscanned objects, in blocks.  One number, work_pending, counts all that
 * is not finished: published blocks, unclaimed root jobs, and what each tracer claimed and has not
 * drained.  Whoever creates work adds to it before the work can be seen; whoever claims some gives its
 * count back only when all that came of it is scanned or published.  So "pending == 0" is the whole test
 * for "queues empty and no tracer holds an object" (docs/protocol.md 1.4), in one load.
 *
 * Copied stack words are counted apart, in work_copies.
 *
 * May call: heap/, os/, mutator/'s header.
 */
#ifndef GREY_BARRIER_BARRIER_H
#define GREY_BARRIER_BARRIER_H

#include "heap/heap.h"

/* ---- outside the heap ------------------------------------------------------------------------------------- */

/* Bounds of what matters outside the heap, foreign regions and arena chunks, the address behind the last
 * one included (FR-15, FR-23): most words outside the heap end here.  Of each kind, and of all together.
 * low only falls and high only rises while there is something, but for shrinking after a removal; each is
 * written alone, and any pair that is read covers everything that was there before and still is.  Nothing:
 * both 1, and no word passes. */
struct outside_bounds {
    _Atomic uintptr_t low, high;
};
enum outside_kind { OUTSIDE_REGIONS, OUTSIDE_CHUNKS, OUTSIDE_KINDS };
extern struct outside_bounds outside_bounds, outside_of[OUTSIDE_KINDS];
/* Changes one kind's part; callers of one kind exclude each other. */
void outside_set(enum outside_kind kind, uintptr_t low, uintptr_t high);
void outside_fork_child(void);
static inline bool outside_is_of(enum outside_kind kind, uintptr_t word)
{
    uintptr_t low = atomic_load_explicit(&outside_of[kind].low, memory_order_relaxed);
    return word - low < atomic_load_explicit(&outside_of[kind].high, memory_order_relaxed) - low;
}
/* For loops: read once.  What is registered later in the cycle is born black. */
struct outside {
    uintptr_t low, length;
};
static inline struct outside outside_read(void)
{
    uintptr_t low = atomic_load_explicit(&outside_bounds.low, memory_order_relaxed);
    return (struct outside){low, atomic_load_explicit(&outside_bounds.high, memory_order_relaxed) - low};
}
static inline bool outside_may_matter(uintptr_t word)
{
    struct outside bounds = outside_read();
    return word - bounds.low < bounds.length;
}

/* ---- blocks and queues (barrier/work.c) --------------------------------------------------------------- */

enum { MARK_BLOCK_BYTES = 4096, MARK_BLOCK_ENTRIES = MARK_BLOCK_BYTES / 8 - 2 };
enum {
    GREY_BUFFER = 510,
    GREY_BUFFER_SMALL = 9,
    WORK_SHARE = 255
}; /* BA-7 (a block less its header), MK-5 */
struct mark_block {
    uint32_t count;
    _Atomic uint32_t next; /* number of the next block in a stack, 0 = none */
    uint64_t limit;        /* copy buffers: words that may still be written, for tests of full buffers */
    uint64_t entry[MARK_BLOCK_ENTRIES];
};

int work_init(void);
void work_shutdown(void);
void work_fork_child(void); /* all queues are dropped */
/* An empty block; NULL when memory is refused.  May map memory and take a lock: not in handlers. */
struct mark_block *work_block_get(void);
/* The same without mapping; signal-safe, lock-free. */
struct mark_block *work_block_get_ready(void);
void work_block_put(struct mark_block *block); /* lock-free */
/* Sees to it that n blocks are ready for handlers; false: memory refused. */
bool work_blocks_prepare(uint32_t n);

extern _Atomic uint64_t work_pending;
extern _Atomic uint64_t work_copies;     /* blocks of copied words not yet tested */
extern _Atomic uint32_t work_clean;      /* this round's: 1 = nothing grey was handed over or found */
extern _Atomic uint32_t work_overflowed; /* a marked object was dropped for lack of memory: rescan */
extern _Atomic uint32_t work_round;      /* the round word (2.3) */
extern _Atomic uint64_t work_cycle;      /* number of the cycle that is on; set before the phase (1.1) */
extern _Atomic uint32_t work_at_once;    /* from the fourth round on greys are published one by one */
extern _Atomic uint32_t work_signal;     /* moves when there is work; tracers sleep on it */
extern _Atomic uint32_t work_idle;       /* tracers asleep */
enum { ROUND_OPEN, ROUND_DIRTY, ROUND_CLOSED };

/* Publishes a block of references: the tracers own it afterwards.  Lock-free; signal-safe unless wake. */
void work_push(struct mark_block *block, bool wake);
struct mark_block *work_pop(void);
bool work_available(void);
/* Copied words, to be tested. */
void work_push_copy(struct mark_block *block);
struct mark_block *work_pop_copy(void);
void work_wake(void);
void work_done(void); /* nothing is pending, or no copy untested: the collector may be waiting for it */

/* ---- shading (barrier/shade.c) ---------------------------------------------------------------------------- */

/* 2.3: self in a busy section, phase ON.  p is any word.  True if this call marked an object or region. */
bool shade(struct thread *self, uintptr_t p);
/* The same for the target of a weak reference: false if it is white and the round is closed, so dead
 * (protocol.md 3). */
bool shade_unless_dead(struct thread *self, uintptr_t p);
/* Before anything is marked outside the mark loop: OPEN -> DIRTY; false if the round is closed. */
bool shade_make_dirty(void);
/* The same for every aligned word of a range, in sections of 128 KiB each.  Outside sections; off a cycle
 * nothing. */
void shade_range(struct thread *self, const void *start, size_t size);
/* Hands over a thread's grey buffer and makes the round not clean, if it holds anything.  Its own
 * section, its answer, or whoever answers for it.  Signal-safe unless wake. */
bool shade_hand_over(struct thread *thread, bool wake);

static inline bool barrier_on(void)
{
    /* acquire: pairs with the collector's store in 1.1 */
    return __atomic_load_n(&grey_phase_, __ATOMIC_ACQUIRE) != 0;
}

#endif
