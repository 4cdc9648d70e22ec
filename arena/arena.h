/* arena/ -- arenas: memory that the program frees as a whole, and that faults afterwards (UA-1..UA-37).
 *
 *     chunks.c     chunks: their life, lists, marks, scanning, faulting, quarantine
 *     arenas.c     handles: allocation, free, reset, clone
 *     faults.c     who touched freed memory: the chained SIGSEGV handler
 *
 * A chunk is 8 MiB of a reservation of its own.  Chunks that hold data are roots of every cycle, whether
 * their handle is reachable or not, so marks matter for one state only: quarantine, in which a pointer that
 * is still around keeps the addresses from being used again, and which is never read (docs/protocol.md 5).
 *
 *     new -> active -> full -> (pending) -> quarantine -> ready -> active
 *               ^---- reusable ----^
 *
 * May call: mark/'s header, barrier/, mutator/, heap/, os/.
 */
#ifndef GREY_ARENA_ARENA_H
#define GREY_ARENA_ARENA_H

#include "heap/heap.h"
#include "mark/mark.h"

#define ARENA_CHUNK ((size_t)8 << 20)
#define ARENA_LARGEST (ARENA_CHUNK / 4) /* UA-3 */

extern struct arena_space {
    char *base;
    size_t reserved;
    _Atomic size_t extent; /* bytes from base that ever were a chunk; grows only */
} arena_space;
static inline bool arena_contains(uintptr_t p)
{
    /* acquire: pairs with the growth, so that the chunk's record is mapped */
    return p - (uintptr_t)arena_space.base < atomic_load_explicit(&arena_space.extent, memory_order_acquire);
}

int arena_init(void); /* 0, ENOMEM */
void arena_shutdown(void);
void arena_fork_child(void);

/* ---- marking: for words that arena_contains, or that lie one past the end of a chunk ------------------- */

/* A program thread in a busy section, phase ON (2.3).  True if this call coloured a chunk in quarantine. */
bool arena_shade(uintptr_t word);
/* Bytes of chunks between two arenas that a goal should reckon with; see chunks.c. */
uint64_t arena_standby_bytes(void);
/* The marker.  stack: one past the end counts. */
bool arena_mark(uintptr_t word, bool stack);
/* grey_touch of an arena object: shades what its chunk holds.  Outside sections. */
void arena_touch(struct thread *self, uintptr_t word);
bool arena_overlaps(uintptr_t start, uintptr_t end); /* with the reservation */

/* ---- roots (1.3): the pointer words of chunks that hold data, in pieces -------------------------------- */

enum { ARENA_PIECE = 128 << 10, ARENA_CHUNK_PIECES = (8 << 20) / ARENA_PIECE };
uint32_t arena_chunks(void);                 /* chunks below it may hold data */
uint32_t arena_chunk_pieces(uint32_t chunk); /* pieces from its low end that have pointer words; 0: none */
/* Pieces [first, end) by number: chunk * ARENA_CHUNK_PIECES + piece. */
void arena_scan_pieces(struct tracer *tracer, uint32_t first, uint32_t end);

/* ---- the end of a cycle -------------------------------------------------------------------------------- */

/* 1.6, round CLOSED, phase ON: finds the arenas whose handle is white. */
void arena_find_dead(void);
/* 1.7, after finish's FENCE, before the next arm: frees them, faults what is pending, lets chunks out of
 * quarantine, a bounded piece a call; other threads go on.  False: there was nothing left. */
void arena_sweep_begin(uint64_t cycle);
bool arena_sweep_some(void);

/* ---- for inspect/ -------------------------------------------------------------------------------------- */

/* All threads held.  fn(slot, word, arg) for each pointer word of chunks that hold data. */
void arena_each_word(void (*fn)(const void *slot, uintptr_t word, void *arg), void *arg);
/* The word points into a chunk that is in quarantine since before this cycle and was not coloured. */
bool arena_word_is_missed(uintptr_t word);
struct arena_figures {
    uint64_t arenas;                                        /* that are not freed */
    uint64_t active, reusable, pending, quarantined, ready; /* chunks; active: of arenas, full ones too */
};
void arena_figures(struct arena_figures *figures);

/* True if the address lies in a chunk that faults because an arena was freed; whose, and the code that made
 * and freed it (os_describe_code); freed 0: its handle was lost.  Signal-safe. */
struct arena_freed {
    uintptr_t arena, made, freed;
};
bool arena_freed_at(uintptr_t address, struct arena_freed *freed);

/* faults.c.  Installed at start as GREY_DEBUG=arenafault says. */
void arena_faults_init(void);
void arena_faults_shutdown(void);

#endif
