/* sweep/weak.c -- weak references (CF-20..CF-26, docs/protocol.md 3).
 *
 * A reference is a leaf object of 16 bytes, its cell, with the target's address in it: so it keeps nothing
 * alive, and shares its storage with nothing.  It is one for an address because it hangs on the target's span
 * as a special, and whoever asks again finds it there; that special is a root of the cell while the target
 * lives.
 *
 * Get.  The phase is read, then the target, in one section.
 *   Phase OFF: what is in the cell was alive at the end of the last cycle, since cells are cleared before the
 *   phase goes OFF; and the next cycle's arm waits for the end of this section, by which time the caller
 *   holds it.
 *   Phase ON: a white target is shaded, the round made DIRTY first, as for a store: somebody who has not
 *   answered may hold what only it leads to.  If the round is CLOSED it is dead, for everybody at once, and
 *   reads NULL, before its cell is cleared.
 * The target first would be wrong: between the two readings a cycle can end (m_weak_targetfirst).
 *
 * Clearing, 1.6: round CLOSED, so nothing turns black any more.  References that are made meanwhile are to
 * what a thread holds, which is black; so to miss one in the walk over the table does not matter, nor does a
 * cell that is found: whoever asks for it holds its target.  A cell is cleared once and for ever: when its
 * target is swept its special goes, and if a finalizer brings the object back, the next one is a new cell.
 *
 * Static memory never dies: its cells are kept for ever, in a small hash table under a lock of its own.
 */
#include "barrier/barrier.h"
#include "os/thread.h"
#include "sweep/records.h"

#include <errno.h>

struct grey_weak {
    _Atomic uintptr_t target;
    uintptr_t unused; /* the cell is 16 bytes: nothing else fits in (CF-25) */
};

static _Atomic uint64_t living;

uint64_t specials_weak(void) { return atomic_load_explicit(&living, memory_order_relaxed); }

/* ---- static memory ----------------------------------------------------------------------------------- */

enum { STATIC_HEADS = 256 };
static struct os_lock static_lock = OS_LOCK_INIT(OS_RANK_STATIC_WEAK);
static uint32_t static_head[STATIC_HEADS]; /* chains by special->next; lock */

void weak_init(void)
{
    os_lock_init(&static_lock, OS_RANK_STATIC_WEAK);
    for (int i = 0; i < STATIC_HEADS; i++)
        static_head[i] = 0;
    atomic_store(&living, 0);
}

void weak_fork_child(void) { os_lock_init(&static_lock, OS_RANK_STATIC_WEAK); }

void weak_died(struct special *special)
{
    struct grey_weak *cell = (struct grey_weak *)special_word(special);
    ASSERT(atomic_load_explicit(&cell->target, memory_order_relaxed) == 0); /* OR-4 */
    (void)cell;
    atomic_fetch_sub_explicit(&living, 1, memory_order_relaxed);
}

/* ---- the cell of an address -------------------------------------------------------------------------- */

static uintptr_t target_of(const struct special *special)
{
    struct grey_weak *cell = (struct grey_weak *)special_word(special);
    return atomic_load_explicit(&cell->target, memory_order_relaxed);
}

/* Flag held; at: the last weak reference of the object, or something before it. */
static struct special *find_weak(const struct span *span, struct special *at, uintptr_t base,
                                 uintptr_t address)
{
    while (at != NULL && special_base(at) == base && special_kind(at) == SPECIAL_WEAK) {
        if (target_of(at) == address)
            return at;
        at = special_before(span, at);
    }
    return NULL;
}

/* The address's special, or `fresh`, put there; NULL: neither.  In a section. */
static struct special *find_or_list(uintptr_t base, uintptr_t address, struct special *fresh)
{
    struct span *span = special_span(base);
    struct special *last = special_seek(span, base, SPECIAL_WEAK);
    struct special *found = find_weak(span, last, base, address);
    if (found == NULL && fresh != NULL) {
        special_list(span, last, fresh);
        found = fresh;
    }
    span_unlock(span);
    return found;
}

static struct special *find_or_list_static(uintptr_t address, struct special *fresh)
{
    uint32_t *head = &static_head[(address >> 4 ^ address >> 12) % STATIC_HEADS];
    os_lock(&static_lock);
    struct special *found = NULL;
    for (uint32_t i = *head; i != 0 && found == NULL; i = special_at(i)->next)
        if (target_of(special_at(i)) == address)
            found = special_at(i);
    if (found == NULL && fresh != NULL) {
        fresh->next = *head;
        *head = (uint32_t)special_publish(fresh);
        found = fresh;
    }
    os_unlock(&static_lock);
    return found;
}

/* The cell that is there, or `fresh` from now on; NULL: there is none, and fresh is NULL or there is no
 * memory for its record.  base 0: static memory. */
static struct grey_weak *cell_of(struct thread *self, uintptr_t base, uintptr_t address,
                                 struct grey_weak *fresh)
{
    thread_enter(self);
    struct special *special = NULL;
    if (fresh != NULL)
        special = special_new(base != 0 ? SPECIAL_WEAK : SPECIAL_STATIC_WEAK, base, (uintptr_t)fresh, NULL);
    struct special *found =
        base != 0 ? find_or_list(base, address, special) : find_or_list_static(address, special);
    if (special != NULL && found == special)
        atomic_fetch_add_explicit(&living, 1, memory_order_relaxed);
    else if (special != NULL) /* somebody was first */
        special_give_back(special);
    /* The target is held, so the special stays, and with it the cell. */
    struct grey_weak *cell = found != NULL ? (struct grey_weak *)special_word(found) : NULL;
    if (cell != NULL && barrier_on())
        shade(self, (uintptr_t)cell); /* the special may have come after the root job, the cell before arm */
    thread_leave(self);
    return cell;
}

static struct grey_weak *refused(int error)
{
    errno = error;
    return NULL;
}

struct grey_weak *grey_weak_new(void *object)
{
    if (object == NULL)
        return refused(EINVAL);
    struct thread *self = heap_thread("grey_weak_new");
    if (self == NULL)
        return refused(ENOMEM);
    struct heap_object found = {.base = 0};
    enum special_target target = special_target(object, &found);
    if (target == TARGET_FOREIGN || target == TARGET_ARENA)
        return refused(ENOTSUP);
    if (target == TARGET_UNKNOWN)
        return refused(EINVAL);
    uintptr_t base = target == TARGET_HEAP ? found.base : 0;
    struct grey_weak *cell = cell_of(self, base, (uintptr_t)object, NULL);
    if (cell == NULL) {
        struct grey_weak *fresh = grey_alloc_leaf(sizeof(*fresh));
        if (fresh == NULL)
            return refused(ENOMEM);
        /* relaxed: others find it under the flag or the lock */
        atomic_store_explicit(&fresh->target, (uintptr_t)object, memory_order_relaxed);
        fresh->unused = 0;
        cell = cell_of(self, base, (uintptr_t)object, fresh);
        if (cell == NULL)
            return refused(ENOMEM);
    }
    grey_keep_alive(object); /* CF-23 */
    return cell;
}

/* ---- get and clear ----------------------------------------------------------------------------------- */

void *grey_weak_get(struct grey_weak *weak)
{
    if (weak == NULL)
        return NULL;
    struct thread *self = heap_thread("grey_weak_get");
    if (self == NULL)
        os_fatal(weak, "no memory to attach the thread that reads a weak reference: attach threads first");
    thread_enter(self);
    bool on = barrier_on();
    HOOK(WEAK_GET, weak);
    /* acquire: behind the phase; and pairs with the clearing */
    uintptr_t target = atomic_load_explicit(&weak->target, memory_order_acquire);
    if (target != 0 && on && heap_contains(target) && !shade_unless_dead(self, target))
        target = 0;
    thread_leave(self);
    void *object = (void *)target;
    grey_keep_alive(object);
    return object;
}

void specials_clear_weak(void)
{
    if (specials_weak() == 0)
        return;
    uint32_t end = specials_end();
    for (uint32_t i = 1; i < end; i++) {
        struct special_view view;
        if (!special_read(i, &view) || view.kind != SPECIAL_WEAK || heap_marked(view.base))
            continue;
        struct grey_weak *cell = (struct grey_weak *)view.word;
        uintptr_t target = atomic_load_explicit(&cell->target, memory_order_relaxed);
        /* release: pairs with grey_weak_get */
        atomic_compare_exchange_strong_explicit(&cell->target, &target, 0, memory_order_release,
                                                memory_order_relaxed);
    }
}
