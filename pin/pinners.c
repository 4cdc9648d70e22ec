/* pin/pinners.c -- pinners: sets of pins (PN-1..PN-14, PN-18, PN-19).
 *
 * A pinner is a small leaf object with the index of its first store.  A store is a record of a table with
 * five pins; it comes with the first pin, and what doesn't fit goes into further stores, chained behind the
 * first.  All entries of all records are roots, whoever they belong to (PN-14).  Taken out of a record, a pin
 * is cleared in it: so a record without pins, in a thread's cache or free, keeps nothing, and nobody asks
 * which it is.
 *
 * Who may touch what.  A chain is its pinner's user's, one thread at a time, in busy sections.  The marker
 * and the verifier read entries only, atomically; what they miss: see pin.h.  `pinner` of a chain's first
 * store is read by pin_find_leaked.
 *
 * Lost pinners.  When the round is closed every pinner that a thread can still come upon is black: it was
 * marked, or it was born black.  So a store whose pinner is white is a lost pinner's, and nobody adds to the
 * chain or takes from it any more: it is the collector's.  The walk goes on while threads use theirs.  The
 * field that it reads is set in a section of somebody who holds the pinner, and cleared when the chain is
 * emptied, again by a holder.  If that holder is gone by now it has answered, so the collector sees the
 * field cleared; else the pinner is black, and it does not matter which value is seen.  A pinner made while
 * this runs is of a run that is black (2.4).
 *
 * The pins of lost pinners are dropped after finish's FENCE, since dropping one may mean sweeping its span.
 * Not later than the next arm: until then they keep what they did, and what the pinner's address is used for
 * next does not matter, for it is only printed.  In a fork's child chains that wait here go on waiting, and
 * are dropped after the child's first cycle; their first store no longer names a pinner.
 */
#include "arena/arena.h"
#include "barrier/barrier.h"
#include "foreign/foreign.h"
#include "os/options.h"
#include "os/thread.h"
#include "pin/internal.h"

#include <errno.h>

enum { PINS_A_STORE = 5, STORES_A_SECTION = 12 }; /* PN-10; bounds a section */
/* Stores at most; and one for a half page of heap, where the address space is limited (OS-19). */
enum { STORES_MOST = 1 << 24, HEAP_A_STORE = 4096 };
#define MAGIC UINT64_C(0x70696e6e65722121)

struct grey_pinner {
    uint64_t magic;
    uint32_t first; /* store; 0: nothing is pinned */
};

struct store {
    struct slot slot;
    _Atomic uintptr_t pinner; /* of a first store; not a root */
    uint32_t next;            /* in the chain; 0: the last */
    uint32_t pins;            /* entry[0..pins) */
    struct pin_root entry[PINS_A_STORE];
    /* of a lost pinner, the collector's */
    uintptr_t lost;     /* its address, until it was reported */
    uint32_t next_lost; /* first store of another chain */
    uint32_t unused;
};

static struct slots table;
static _Atomic uint64_t pins_set;
static uint32_t first_lost; /* the collector's */

static struct store *store_at(uint32_t index) { return (struct store *)(void *)slots_at(&table, index); }
static uint32_t index_of(const struct store *store) { return slots_index(&table, &store->slot); }

/* ---- start and end ------------------------------------------------------------------------------------ */

int pin_init(void)
{
    atomic_store(&pins_set, 0);
    first_lost = 0;
    size_t most = heap.reserved / HEAP_A_STORE;
    int error =
        slots_init(&table, sizeof(struct store), most < STORES_MOST ? (uint32_t)most : STORES_MOST, OS_PINS);
    if (error == 0)
        error = objects_init();
    if (error == 0)
        error = handles_init();
    return error;
}

void pin_shutdown(void)
{
    slots_shutdown(&table);
    objects_shutdown();
    handles_shutdown();
    atomic_store(&pins_set, 0);
}

void pin_fork_child(void)
{
    slots_fork_child(&table);
    objects_fork_child();
    handles_fork_child();
}

uint64_t pin_count(void) { return atomic_load_explicit(&pins_set, memory_order_relaxed); }

/* ---- roots --------------------------------------------------------------------------------------------- */

void pin_root_mark(struct tracer *tracer, struct pin_root *root)
{
    /* acquire: pairs with pin_root_set */
    uintptr_t word = atomic_load_explicit(&root->word, memory_order_acquire);
    uint64_t region = atomic_load_explicit(&root->region, memory_order_relaxed);
    if (word == 0)
        return;
    if (region == 0)
        tracer_word(tracer, word);
    else if (region != PIN_NO_REGION)
        foreign_mark_handle(tracer, region);
}

void pin_root_visit(struct pin_root *root, void (*fn)(uintptr_t word, void *arg), void *arg)
{
    uintptr_t word = atomic_load_explicit(&root->word, memory_order_relaxed);
    uint64_t region = atomic_load_explicit(&root->region, memory_order_relaxed);
    if (word != 0 && (region == 0 || (region != PIN_NO_REGION && foreign_registered(region))))
        fn(word, arg);
}

uint32_t pin_stores_end(void) { return slots_end(&table); }

void pin_mark_stores(struct tracer *tracer, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++)
        for (int k = 0; k < PINS_A_STORE; k++)
            pin_root_mark(tracer, &store_at(i)->entry[k]);
}

void pin_each_root(void (*fn)(uintptr_t word, void *arg), void *arg)
{
    for (uint32_t i = 1; i < slots_end(&table); i++)
        for (int k = 0; k < PINS_A_STORE; k++)
            pin_root_visit(&store_at(i)->entry[k], fn, arg);
    handles_each_root(fn, arg);
}

/* ---- stores ------------------------------------------------------------------------------------------ */

void pin_give_up_cache(struct thread *thread)
{
    if (thread->pin_store != 0)
        slots_give_back(&table, &store_at(thread->pin_store)->slot);
    thread->pin_store = 0;
}

static uint64_t cycle_now(void) { return atomic_load_explicit(&work_cycle, memory_order_relaxed); }

/* PN-11: of a cycle that is over. */
static void give_up_old_cache(struct thread *self)
{
    if (self->pin_store != 0 && self->pin_cycle != cycle_now())
        pin_give_up_cache(self);
}

static struct store *store_take(struct thread *self)
{
    if (self->pin_store == 0)
        return (struct store *)(void *)slots_take(&table);
    struct store *store = store_at(self->pin_store);
    self->pin_store = 0;
    return store;
}

/* It has no pins and is in no chain.  self NULL: the collector. */
static void store_put(struct thread *self, struct store *store)
{
    ASSERT(store->pins == 0);
    store->next = 0;
    if (self != NULL && self->pin_store == 0) {
        self->pin_store = index_of(store);
        self->pin_cycle = cycle_now();
    } else {
        slots_give_back(&table, &store->slot);
    }
}

/* One with room: of the chain, or one that is in none yet and has no pins.  NULL: no memory. */
static struct store *store_with_room(struct thread *self, const struct grey_pinner *pinner)
{
    if (pinner->first != 0) {
        struct store *first = store_at(pinner->first);
        if (first->pins < PINS_A_STORE)
            return first;
        /* Only the newest of the others can have room. */
        if (first->next != 0 && store_at(first->next)->pins < PINS_A_STORE)
            return store_at(first->next);
    }
    return store_take(self);
}

static void chain(struct grey_pinner *pinner, struct store *store)
{
    if (pinner->first != 0) {
        struct store *first = store_at(pinner->first);
        store->next = first->next;
        first->next = index_of(store);
    } else {
        pinner->first = index_of(store);
        /* relaxed: see the essay */
        atomic_store_explicit(&store->pinner, (uintptr_t)pinner, memory_order_relaxed);
    }
}

static void drop_pin(struct thread *self, struct pin_root *root)
{
    uintptr_t word = atomic_load_explicit(&root->word, memory_order_relaxed);
    uint64_t region = atomic_load_explicit(&root->region, memory_order_relaxed);
    struct heap_object object;
    if (region != 0)
        foreign_pin(self, region, -1);
    else if (heap_find(word, &object))
        object_unpin(object.base);
    else
        os_internal((void *)word, "unpinning what is not pinned");
    pin_root_clear(root);
}

static void drop_pins(struct thread *self, struct store *store)
{
    atomic_fetch_sub_explicit(&pins_set, store->pins, memory_order_relaxed);
    while (store->pins != 0)
        drop_pin(self, &store->entry[--store->pins]);
}

/* A bounded number of pins, the first store's last.  False: there are none left, but the store is. */
static bool drop_some(struct thread *self, struct store *first)
{
    for (int n = 0; n < STORES_A_SECTION; n++) {
        if (first->next == 0) {
            drop_pins(self, first);
            return false;
        }
        struct store *store = store_at(first->next);
        drop_pins(self, store);
        first->next = store->next;
        store_put(self, store);
    }
    return true;
}

/* ---- lost pinners ------------------------------------------------------------------------------------ */

void pin_find_leaked(void)
{
    uint32_t end = slots_end(&table);
    for (uint32_t i = 1; i < end; i++) {
        struct store *store = store_at(i);
        uintptr_t pinner = atomic_load_explicit(&store->pinner, memory_order_relaxed);
        if (pinner == 0 || heap_marked(pinner))
            continue;
        store->lost = pinner;
        atomic_store_explicit(&store->pinner, 0, memory_order_relaxed);
        store->next_lost = first_lost;
        first_lost = i;
    }
}

/* PN-13.  Once a pinner: a lost one may have thousands. */
static void report(struct store *first)
{
    void *pinner = (void *)first->lost;
    void *pinned = (void *)atomic_load_explicit(&first->entry[0].word, memory_order_relaxed);
    first->lost = 0;
    if (os_debug.pinleak == 1)
        os_warn("found leaking pinned pointer; forgot to unpin? %p, pinned by the lost pinner %p", pinned,
                pinner);
    else if (os_debug.pinleak == 2)
        os_fatal(pinned, "found leaking pinned pointer; forgot to unpin? %p, pinned by the lost pinner %p",
                 pinned, pinner);
}

bool pin_drop_leaked(void)
{
    if (first_lost == 0)
        return false;
    struct store *first = store_at(first_lost);
    if (first->lost != 0)
        report(first);
    if (!drop_some(NULL, first)) {
        first_lost = first->next_lost;
        store_put(NULL, first);
    }
    return true;
}

/* ---- the calls --------------------------------------------------------------------------------------- */

struct grey_pinner *grey_pinner_new(void)
{
    struct grey_pinner *pinner = grey_alloc_leaf(sizeof(*pinner));
    if (pinner != NULL)
        *pinner = (struct grey_pinner){.magic = MAGIC};
    return pinner;
}

static void check(const struct grey_pinner *pinner, const char *call)
{
    struct heap_object object;
    if (!heap_find((uintptr_t)pinner, &object) || object.base != (uintptr_t)pinner || pinner->magic != MAGIC)
        os_fatal(pinner, "%s of what is no pinner", call);
}

/* In a section. */
static int pin(struct thread *self, struct grey_pinner *pinner, uintptr_t p)
{
    give_up_old_cache(self);
    struct pin_target target;
    pin_look(self, p, &target);
    if (target.kind == PIN_ARENA)
        return ENOTSUP;
    if (target.kind == PIN_NOTHING)
        return 0;
    struct store *store = store_with_room(self, pinner);
    if (store == NULL)
        return ENOMEM;
    if (target.kind == PIN_REGION)
        foreign_pin(self, target.region, 1);
    else if (object_pin(target.base) != 0) {
        if (store->pins == 0)
            store_put(self, store);
        return ENOMEM;
    }
    if (store->pins == 0)
        chain(pinner, store);
    HOOK(PIN, (void *)p);
    pin_root_set(&store->entry[store->pins++], p, target.region);
    atomic_fetch_add_explicit(&pins_set, 1, memory_order_relaxed);
    if (barrier_on())
        shade(self, p);
    return 0;
}

int grey_pin(struct grey_pinner *pinner, const void *p)
{
    if (pinner == NULL || p == NULL)
        return EINVAL;
    struct thread *self = heap_thread("grey_pin");
    if (self == NULL)
        return ENOMEM;
    check(pinner, "grey_pin");
    thread_enter(self);
    int error = pin(self, pinner, (uintptr_t)p);
    thread_leave(self);
    grey_keep_alive(p);
    grey_keep_alive(pinner);
    return error;
}

/* For calls that cannot say that there is no memory. */
static struct thread *attached(const char *call)
{
    struct thread *self = heap_thread(call);
    if (self == NULL)
        os_fatal(NULL, "no memory to attach the thread that calls %s: attach threads first", call);
    return self;
}

/* In a section.  False: it is empty. */
static bool unpin_some(struct thread *self, struct grey_pinner *pinner)
{
    struct store *first = store_at(pinner->first);
    if (drop_some(self, first))
        return true;
    pinner->first = 0;
    atomic_store_explicit(&first->pinner, 0, memory_order_relaxed);
    store_put(self, first);
    return false;
}

void grey_unpin(struct grey_pinner *pinner)
{
    if (pinner == NULL)
        return;
    check(pinner, "grey_unpin");
    struct thread *self = attached("grey_unpin");
    for (bool more = true; more;) {
        thread_enter(self);
        give_up_old_cache(self);
        more = pinner->first != 0 && unpin_some(self, pinner);
        thread_leave(self);
    }
    grey_keep_alive(pinner);
}

/* Of a foreign region.  False: p points into none. */
static bool region_pins(uintptr_t p, size_t *pins, const char *call)
{
    if (!outside_is_of(OUTSIDE_REGIONS, p))
        return false;
    struct thread *self = attached(call);
    thread_enter(self);
    bool found = foreign_pins_at(self, p, pins);
    thread_leave(self);
    return found;
}

bool grey_is_pinned(const void *p)
{
    struct heap_object object;
    size_t pins;
    if (p == NULL || arena_contains((uintptr_t)p))
        return false;
    if (heap_contains((uintptr_t)p))
        return heap_find((uintptr_t)p, &object) && object_is_pinned(object.base);
    return !region_pins((uintptr_t)p, &pins, "grey_is_pinned") || pins != 0;
}

size_t grey_pin_count(const void *p)
{
    struct heap_object object;
    size_t pins = 0;
    if (!heap_contains((uintptr_t)p)) {
        region_pins((uintptr_t)p, &pins, "grey_pin_count");
        return pins;
    }
    if (!heap_find((uintptr_t)p, &object) || !object_is_pinned(object.base))
        return 0;
    struct thread *self = attached("grey_pin_count");
    thread_enter(self);
    pins = object_pins(object.base);
    thread_leave(self);
    grey_keep_alive(p);
    return pins;
}
