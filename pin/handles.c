/* pin/handles.c -- grey_hold: a strong root by number (PN-20).
 *
 * A record holds the word and its handle.  Look-up is that of slots.h with a second look at the handle: it
 * is published last and taken back first, and never given twice, so if it is the same before and after the
 * word was read, the word is of this hold.  The reader has the word in a register by then; a drop that comes
 * later finds it on that thread's stack.  No section, no lock, nothing written: any thread may ask, attached
 * or not.
 *
 * Dropping.  Who changes the record's handle to 0 has dropped it; all others find nothing.
 *
 * Before the library is up, and after it, the table has no record: nothing is found.
 */
#include "barrier/barrier.h"
#include "foreign/foreign.h"
#include "os/thread.h"
#include "pin/internal.h"

#include <errno.h>

struct held {
    struct slot slot;
    struct pin_root root;
};

/* Records at most; and one for 1 KiB of heap, where the address space is limited (OS-19). */
enum { HANDLES_MOST = 1 << 26, HEAP_A_HANDLE = 1024 };

static struct slots table;

static struct held *held_at(uint32_t index) { return (struct held *)(void *)table.base + index; }

int handles_init(void)
{
    size_t most = heap.reserved / HEAP_A_HANDLE;
    return slots_init(&table, sizeof(struct held), most < HANDLES_MOST ? (uint32_t)most : HANDLES_MOST,
                      OS_PINS);
}
void handles_shutdown(void)
{
    slots_shutdown(&table);
    atomic_store(&table.in_use, 0);
}
void handles_fork_child(void) { slots_fork_child(&table); }

uint32_t pin_handles_end(void) { return slots_end(&table); }
uint64_t pin_handles(void) { return atomic_load_explicit(&table.in_use, memory_order_relaxed); }

void pin_mark_handles(struct tracer *tracer, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++)
        pin_root_mark(tracer, &held_at(i)->root);
}

void handles_each_root(void (*fn)(uintptr_t word, void *arg), void *arg)
{
    for (uint32_t i = 1; i < slots_end(&table); i++)
        pin_root_visit(&held_at(i)->root, fn, arg);
}

/* In a section.  0 and *error. */
static uint64_t hold(struct thread *self, uintptr_t p, int *error)
{
    struct pin_target target;
    pin_look(self, p, &target);
    if (target.kind == PIN_ARENA) {
        *error = ENOTSUP;
        return 0;
    }
    struct held *held = (struct held *)(void *)slots_take(&table);
    if (held == NULL) {
        *error = ENOMEM;
        return 0;
    }
    HOOK(HOLD_HANDLE, (void *)p);
    uint64_t region = target.kind == PIN_OBJECT   ? 0
                      : target.kind == PIN_REGION ? target.region
                                                  : PIN_NO_REGION;
    pin_root_set(&held->root, p, region);
    uint64_t handle = slots_publish(&table, &held->slot);
    if (barrier_on())
        shade(self, p);
    return handle;
}

grey_handle grey_hold(const void *p)
{
    int error = p == NULL ? EINVAL : ENOMEM;
    struct thread *self = p == NULL ? NULL : heap_thread("grey_hold");
    uint64_t handle = 0;
    if (self != NULL) {
        thread_enter(self);
        handle = hold(self, (uintptr_t)p, &error);
        thread_leave(self);
    }
    if (handle == 0)
        errno = error;
    grey_keep_alive(p);
    return handle;
}

void *grey_held(grey_handle handle)
{
    uint32_t index = (uint32_t)handle;
    if (UNLIKELY(index == 0 || index >= slots_end(&table)))
        return NULL;
    struct held *held = held_at(index);
    if (UNLIKELY(atomic_load_explicit(&held->slot.handle, memory_order_acquire) != handle))
        return NULL;
    /* acquire: before the second look; pairs with pin_root_clear and slots_take */
    uintptr_t word = atomic_load_explicit(&held->root.word, memory_order_acquire);
    return LIKELY(atomic_load_explicit(&held->slot.handle, memory_order_relaxed) == handle) ? (void *)word
                                                                                            : NULL;
}

bool grey_drop(grey_handle handle)
{
    struct slot *slot = slots_find(&table, handle);
    if (handle == 0 || slot == NULL)
        return false;
    struct thread *self = heap_thread("grey_drop");
    if (self == NULL)
        os_fatal(NULL, "no memory to attach the thread that drops a handle: attach threads first");
    thread_enter(self);
    /* acquire: the hold's words are behind it; release: pairs with grey_held */
    bool dropped = atomic_compare_exchange_strong_explicit(&slot->handle, &handle, 0, memory_order_acq_rel,
                                                           memory_order_relaxed);
    if (dropped) {
        pin_root_clear(&((struct held *)(void *)slot)->root);
        slots_give_back(&table, slot);
    }
    thread_leave(self);
    return dropped;
}
