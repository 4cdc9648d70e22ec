/* heap/slots.h -- tables of records that programs name by number (FR-38, CF-7).
 *
 * A handle is a record's index in the low half and, in the high half, how often that record was used
 * before: so looking it up is one load and one compare, without a lock, and a handle that is stale or made
 * up finds nothing.  The first handle of a table is 1; none is given twice before 2^32 uses of one record,
 * and a record that has had those is not used again.
 *
 * Records lie in one reserved range that grows in place and is never unmapped before slots_shutdown, so
 * that an index that somebody still holds can always be read (what it finds is judged by the handle).
 */
#ifndef GREY_HEAP_SLOTS_H
#define GREY_HEAP_SLOTS_H

#include "os/os.h"

/* Every record begins with it. */
struct slot {
    _Atomic uint64_t handle;  /* 0: free */
    uint32_t next_free, used; /* table's lock */
};

struct slots {
    char *base;
    size_t size;                    /* of a record, bytes */
    size_t reserved;                /* bytes */
    size_t mapped, ready;           /* bytes; lock */
    _Atomic uint32_t end;           /* indexes below it were given out; 0 never is */
    uint32_t free_first, free_last; /* a queue, oldest first; lock */
    uint32_t most;
    _Atomic uint32_t in_use;
    enum os_class class;
    struct os_lock lock;
};

/* size: a multiple of 8, struct slot included.  most: records.  0 or ENOMEM. */
int slots_init(struct slots *table, size_t size, uint32_t most, enum os_class class);
void slots_shutdown(struct slots *table);
void slots_fork_child(struct slots *table);

/* A record, zeroed behind struct slot, whose handle isn't set: nobody finds it yet.  NULL: ENOMEM.
 * In a busy section or a collector thread. */
struct slot *slots_take(struct slots *table);
/* Makes it findable, and returns the handle.  release: pairs with slots_find. */
uint64_t slots_publish(struct slots *table, struct slot *slot);
/* The record, or NULL.  Lock-free.  It may be given back at any time unless the caller excludes that. */
struct slot *slots_find(const struct slots *table, uint64_t handle);
/* The record is nobody's any more; its handle is unpublished first if the caller has not done so. */
void slots_give_back(struct slots *table, struct slot *slot);

static inline uint32_t slots_end(const struct slots *table)
{
    /* acquire: pairs with slots_take, so that what lies below is mapped */
    return atomic_load_explicit(&((struct slots *)table)->end, memory_order_acquire);
}
static inline struct slot *slots_at(const struct slots *table, uint32_t index)
{
    return (struct slot *)(void *)(table->base + (size_t)index * table->size);
}
static inline uint32_t slots_index(const struct slots *table, const struct slot *slot)
{
    return (uint32_t)((size_t)((const char *)slot - table->base) / table->size);
}

#endif
