/* sweep/records.h -- the record of a special: for specials.c, weak.c and pin/ only. */
#ifndef GREY_SWEEP_RECORDS_H
#define GREY_SWEEP_RECORDS_H

#include "heap/slots.h"
#include "sweep/cleanups.h"
#include "sweep/specials.h"

/* In the order in which an object's specials stand in the list. */
enum special_kind {
    SPECIAL_PIN_COUNT = 1, /* word: how often the object is pinned, 2 or more (pin/objects.c) */
    SPECIAL_FINALIZER,
    SPECIAL_WEAK,
    SPECIAL_CLEANUP,
    SPECIAL_STATIC_WEAK /* of static memory: in no span's list */
};
/* Of one handle's life: LISTED, then QUEUED or REMOVED.  Leaves LISTED only under the span's flag. */
enum special_state { SPECIAL_NEW, SPECIAL_LISTED, SPECIAL_QUEUED, SPECIAL_REMOVED };

/* Who finds a record by its index or handle may meet its next use: what he may read is atomic, and judged by
 * the handle before and after.  Everything else: the span's flag, then whoever took it out of the list. */
struct special {
    struct slot slot;
    struct queued queued;
    _Atomic uint32_t kind, state;
    uint32_t next, previous; /* in the span's ring, by index: the first's previous is the last */
    _Atomic uintptr_t base;  /* of the object */
    _Atomic uintptr_t word;  /* a cleanup's argument, a weak reference's cell */
    void (*function)(void *);
};
struct special_view {
    enum special_kind kind;
    enum special_state state;
    uintptr_t base, word;
};

enum special_target { TARGET_HEAP, TARGET_STATIC, TARGET_FOREIGN, TARGET_ARENA, TARGET_UNKNOWN };
/* What an address of the program's is; object is filled in for TARGET_HEAP.  Takes the loader's lock: not in
 * a section. */
enum special_target special_target(const void *p, struct heap_object *object);

struct special *special_at(uint32_t index);
/* The record's contents, if it is in use, all of one use. */
bool special_read(uint32_t index, struct special_view *view);
/* A record that nobody finds; NULL: ENOMEM.  In a section. */
struct special *special_new(enum special_kind kind, uintptr_t base, uintptr_t word, void (*function)(void *));
uint64_t special_publish(struct special *special);
void special_give_back(struct special *special);

/* The flag of the span of an object that the caller holds, and the span swept (OR-12).  In a section. */
struct span *special_span(uintptr_t base);
/* Flag held: the last special that stands before or at this place; NULL: none does. */
struct special *special_seek(const struct span *span, uintptr_t base, enum special_kind kind);
/* Flag held: the one before it in the list, NULL: it is the first. */
struct special *special_before(const struct span *span, const struct special *special);
/* Flag held: puts a new one behind `after` (of special_seek), and publishes it. */
uint64_t special_list(struct span *span, struct special *after, struct special *special);
/* Flag held: takes one out of the list and gives it back. */
void special_remove(struct span *span, struct special *special);

static inline enum special_kind special_kind(const struct special *special)
{
    return (enum special_kind)atomic_load_explicit(&((struct special *)special)->kind, memory_order_relaxed);
}
static inline uintptr_t special_base(const struct special *special)
{
    return atomic_load_explicit(&((struct special *)special)->base, memory_order_relaxed);
}
static inline uintptr_t special_word(const struct special *special)
{
    return atomic_load_explicit(&((struct special *)special)->word, memory_order_relaxed);
}
static inline void special_set_word(struct special *special, uintptr_t word)
{
    atomic_store_explicit(&special->word, word, memory_order_relaxed);
}

/* weak.c */
void weak_init(void);
void weak_fork_child(void);
void weak_died(struct special *special); /* flag held, out of the list */

#endif
