/* heap/slots.c -- tables of numbered records: see slots.h.
 *
 * The lock orders takers and givers.  Whoever finds a record takes none: a handle is published last and taken
 * back first, and memory below `end` is mapped before `end` says so.
 */
#include "heap/slots.h"

#include <errno.h>
#include <string.h>

enum { STEP = 256 << 10 }; /* bytes made ready at a time */

int slots_init(struct slots *table, size_t size, uint32_t most, enum os_class class)
{
    ASSERT(size % 8 == 0 && size >= sizeof(struct slot) && most < UINT32_MAX);
    memset(table, 0, sizeof(*table));
    os_lock_init(&table->lock, OS_RANK_SLOTS);
    table->size = size;
    table->most = most;
    table->class = class;
    table->reserved = (((size_t)most + 1) * size + STEP - 1) & ~(size_t)(STEP - 1);
    table->base = os_reserve(NULL, table->reserved);
    atomic_store(&table->end, 1);
    return table->base != NULL ? 0 : ENOMEM;
}

void slots_shutdown(struct slots *table)
{
    if (table->base != NULL)
        os_free(table->base, table->reserved, table->class, table->mapped, table->ready);
    table->base = NULL;
    table->mapped = table->ready = 0;
    atomic_store(&table->end, 1);
}

void slots_fork_child(struct slots *table) { os_lock_init(&table->lock, OS_RANK_SLOTS); }

/* Lock. */
static struct slot *take_new(struct slots *table)
{
    uint32_t index = atomic_load_explicit(&table->end, memory_order_relaxed);
    if (index > table->most)
        return NULL;
    while (((size_t)index + 1) * table->size > table->ready) {
        char *at = table->base + table->ready;
        /* What was mapped stays so when it could not be made ready: the next try goes on from there. */
        if (table->mapped == table->ready) {
            if (os_map(at, STEP, table->class, "grey: metadata") != 0)
                return NULL;
            table->mapped += STEP;
        }
        if (os_used(at, STEP, STEP) != 0)
            return NULL;
        table->ready += STEP;
    }
    /* release: pairs with slots_end */
    atomic_store_explicit(&table->end, index + 1, memory_order_release);
    return slots_at(table, index);
}

/* Word by word, atomically: who walks the table may be looking.  release: who reads a word of the new use
 * (acquire) sees that the old one's handle was taken back. */
static void clear(struct slot *slot, size_t size)
{
    uint64_t *word = (uint64_t *)(slot + 1);
    for (size_t i = 0; i < (size - sizeof(*slot)) / sizeof(*word); i++)
        __atomic_store_n(&word[i], 0, __ATOMIC_RELEASE);
}

struct slot *slots_take(struct slots *table)
{
    os_lock(&table->lock);
    struct slot *slot;
    if (table->free_first != 0) {
        slot = slots_at(table, table->free_first);
        table->free_first = slot->next_free;
        if (table->free_first == 0)
            table->free_last = 0;
        clear(slot, table->size);
    } else {
        slot = take_new(table);
    }
    os_unlock(&table->lock);
    if (slot != NULL)
        atomic_fetch_add_explicit(&table->in_use, 1, memory_order_relaxed);
    return slot;
}

uint64_t slots_publish(struct slots *table, struct slot *slot)
{
    uint64_t handle = (uint64_t)slot->used << 32 | slots_index(table, slot);
    atomic_store_explicit(&slot->handle, handle, memory_order_release);
    return handle;
}

struct slot *slots_find(const struct slots *table, uint64_t handle)
{
    uint32_t index = (uint32_t)handle;
    if (table->base == NULL || index == 0 || index >= slots_end(table))
        return NULL;
    struct slot *slot = slots_at(table, index);
    return atomic_load_explicit(&slot->handle, memory_order_acquire) == handle ? slot : NULL;
}

void slots_give_back(struct slots *table, struct slot *slot)
{
    atomic_store_explicit(&slot->handle, 0, memory_order_release);
    os_lock(&table->lock);
    if (++slot->used != 0) { /* 0: it has had all its handles */
        slot->next_free = 0;
        if (table->free_last != 0)
            slots_at(table, table->free_last)->next_free = slots_index(table, slot);
        else
            table->free_first = slots_index(table, slot);
        table->free_last = slots_index(table, slot);
    }
    os_unlock(&table->lock);
    atomic_fetch_sub_explicit(&table->in_use, 1, memory_order_relaxed);
}
