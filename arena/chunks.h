/* arena/chunks.h -- chunks, between the files of arena/ only.
 *
 * A chunk's number is its place in the reservation.  Its record is numbered one higher, since slot 0 is none;
 * lists link record numbers, 0 ends them.  Who may write what is said in chunks.c.
 */
#ifndef GREY_ARENA_CHUNKS_H
#define GREY_ARENA_CHUNKS_H

#include "arena/arena.h"
#include "heap/slots.h"

/* READY: access faults; new chunks too.  QUARANTINE: the same, but there may be pointers into it. */
enum chunk_state {
    CHUNK_READY,
    CHUNK_ACTIVE,
    CHUNK_FULL,
    CHUNK_PENDING,
    CHUNK_REUSABLE,
    CHUNK_QUARANTINE,
    CHUNK_STATES
};

/* Where its bytes count: as live, or as memory that goes with this cycle or the sweep after it. */
enum counted { COUNTED_NOWHERE, COUNTED_LIVE, COUNTED_WAITING };

struct chunk {
    struct slot slot;
    _Atomic uint64_t colour; /* number of the last cycle that found a pointer into it while in quarantine */
    _Atomic uint64_t quarantined_at; /* work_cycle when it faulted */
    _Atomic uint32_t state;          /* enum chunk_state */
    uint32_t next;
    _Atomic uint32_t low; /* offset: below it lie objects that may hold pointers */
    uint32_t high;        /* offset: from it on lie leaf objects */
    uint32_t stage;       /* how far its memory was made ready */
    uint32_t counted;     /* enum counted */
    char *start;          /* these two: from when it was first taken; for the fast path */
    _Atomic uint64_t *bits;
    _Atomic uintptr_t arena, made, freed; /* who freed it last, for messages; freed 0: the handle was lost */
} __attribute__((aligned(128)));          /* low is written at each allocation: no neighbour's line */

struct chunk_list {
    uint32_t first, last;
};

enum { CHUNK_BITS = (8 << 20) / 8 / 8 }; /* bytes of pointer bits a chunk: a bit a word (UA-7) */

extern struct slots chunk_table;
extern char *chunk_bits_base;

static inline struct chunk *chunk_at(uint32_t number)
{
    return (struct chunk *)(void *)chunk_table.base + number + 1;
}
static inline uint32_t chunk_number(const struct chunk *chunk)
{
    return (uint32_t)(chunk - (struct chunk *)(void *)chunk_table.base) - 1;
}
static inline char *chunk_start(const struct chunk *chunk)
{
    return arena_space.base + (size_t)chunk_number(chunk) * ARENA_CHUNK;
}
static inline _Atomic uint64_t *chunk_bits(const struct chunk *chunk)
{
    return (_Atomic uint64_t *)(void *)(chunk_bits_base + (size_t)chunk_number(chunk) * CHUNK_BITS);
}
static inline uint32_t chunk_state(const struct chunk *chunk)
{
    /* acquire: pairs with the step to that state */
    return atomic_load_explicit(&((struct chunk *)chunk)->state, memory_order_acquire);
}

int chunks_init(void); /* 0, ENOMEM */
void chunks_shutdown(void);
void chunks_fork_child(void);

void chunk_push(struct chunk_list *list, struct chunk *chunk);
struct chunk *chunk_pop(struct chunk_list *list);
static inline struct chunk *chunk_of_link(uint32_t link) { return link != 0 ? chunk_at(link - 1) : NULL; }

/* All of these: in a busy section, or the collector after finish's FENCE. */

/* An ACTIVE chunk: the last reusable one, else a ready one, else a new one (UA-12).  first: of its arena, so
 * it may stay small.  *fresh: its memory was not in use before.  NULL: no memory. */
struct chunk *chunk_take(bool first, bool *fresh);
/* Is no longer counted as live: its arena's handle is dead. */
void chunk_doom(struct chunk *chunk);
void chunk_fill(struct chunk *chunk);  /* ACTIVE -> FULL */
void chunk_reuse(struct chunk *chunk); /* ACTIVE -> REUSABLE */
/* A FULL chunk is its arena's no more: it faults now if the phase is OFF, else after this cycle (UA-23). */
void chunk_free(struct chunk *chunk, uintptr_t arena, uintptr_t made, uintptr_t freed);
bool chunks_crowded(void); /* quarantine takes so much address space that a cycle should empty it */

/* The collector, after finish's FENCE.  False: nothing left. */
void chunks_sweep_begin(uint64_t cycle);
bool chunks_sweep_some(void);

void chunks_figures(struct arena_figures *figures); /* all but arenas */

#endif
