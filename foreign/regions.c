/* foreign/regions.c -- foreign regions: registration, release, marking, death (protocol.md 4).
 *
 * A region is a record in a table and a range in the index.  Its colour is the number of the last cycle
 * that marked it, so nothing is ever cleared.
 *
 * Born black.  The colour is black_cycle, read in the busy section that inserts the range, after the phase.
 * Registered before arm's FENCE: the section ends before it, so black_cycle is an old number and the region
 * white in this cycle; the index has it before the gate opens, and whoever holds a pointer is scanned.
 * After blacken's FENCE: the new number.  Between the two: either, but read again once the index has the
 * range.  For an object that is born black meanwhile may have got a pointer to it, by a barrier that did not
 * find the range yet, and nobody scans that object.  In phase OFF the number is that of the cycle that is
 * over: the sweep that may be running spares it.  A region with pointers inside whose adder saw the phase ON
 * has its contents shaded by the adder; one that saw it OFF was inserted before arm's FENCE, so it is white
 * and is scanned when found.
 *
 * Marked by whoever finds a pointer: the marker; the barrier, DIRTY first and not when the round is closed,
 * as for objects (2.3).  Scanned regions then wait on a stack of their own, outside the mark loop, and are
 * scanned piece by piece.  The push adds to work_pending before it can be seen and clears work_clean after,
 * as the hand-over of a grey buffer does.
 *
 * Dead is what is registered and not of this cycle's colour.  That is decided when the round closes, since
 * nobody marks from then on, and looked at after finish's FENCE (1.7), record by record, at leisure: until
 * the next arm it can't change, and what is added meanwhile has this cycle's colour.
 *
 * Taking.  Release and the sweep take a region by CAS(REGISTERED -> TAKEN): one wins.  It leaves the index
 * first; its cleanup is queued after (FR-26).  A scanner raises `scanners` and then looks at the state, a
 * release takes the state and then looks at `scanners`, all sequentially consistent: so either the scanner
 * sees TAKEN, or the release waits for it (FR-39).
 *
 * Records are given back when nobody can come upon them: `holds` counts the registration (until released or
 * cleaned up) and the place on the stack of work; then ck_epoch waits for readers who have the index of one.
 */
#include "foreign/foreign.h"
#include "arena/arena.h"
#include "foreign/index.h"
#include "heap/slots.h"
#include "inspect/gauges.h"
#include "mark/mark.h"
#include "mutator/mutator.h"
#include "os/thread.h"
#include "sweep/cleanups.h"

#include <errno.h>

/* Regions at most; and one for a page of heap, where the address space is limited (OS-19). */
enum { REGIONS_MOST = 1 << 26, HEAP_A_REGION = 4096 };
enum { BATCH = 16, LOOKED_AT = 4096, PIECE = 8 << 10 };
enum state { FREE, REGISTERED, TAKEN };

struct region {
    struct slot slot;
    _Atomic uint64_t colour;
    _Atomic uint32_t state, scanners;
    _Atomic uint32_t holds;
    _Atomic uint32_t pins;      /* of this registration */
    _Atomic uint32_t next_work; /* below it on the stack of work */
    _Atomic size_t scanned;     /* bytes; who took it from that stack */
    _Atomic uintptr_t arg;
    uintptr_t start;
    size_t size;
    grey_foreign_fn *cleanup;
    uint32_t flags;
    uint64_t verified; /* the verifier's */
    struct queued queued;
    ck_epoch_entry_t retired;
};

static struct os_lock lock = OS_LOCK_INIT(OS_RANK_FOREIGN); /* the writer's */
static struct index ranges;
static struct slots table;
static _Atomic uint64_t work_head; /* stack of scanned regions: a tag that counts pops, and an index */
static _Atomic uint64_t regions, bytes;
static _Atomic uint32_t sweep_at, sweep_end;
static uint64_t sweep_cycle;
static struct epoch_reader *sweep_reader; /* the collector's, for find_dead */

static struct region *region_at(uint32_t index) { return (struct region *)(void *)slots_at(&table, index); }
static uint32_t index_of(const struct region *region) { return slots_index(&table, &region->slot); }

/* ---- start and end ------------------------------------------------------------------------------------ */

int foreign_init(void)
{
    os_lock_init(&lock, OS_RANK_FOREIGN);
    index_init(&ranges);
    atomic_store(&work_head, 0);
    atomic_store(&regions, 0);
    atomic_store(&bytes, 0);
    atomic_store(&sweep_at, 0);
    atomic_store(&sweep_end, 0);
    int error = epoch_init();
    if (error != 0)
        return error;
    size_t most = heap.reserved / HEAP_A_REGION;
    error = slots_init(&table, sizeof(struct region), most < REGIONS_MOST ? (uint32_t)most : REGIONS_MOST,
                       OS_FOREIGN);
    if (error != 0)
        epoch_shutdown();
    return error;
}

/* A thread's block keeps its reader when it goes to another thread. */
static void forget_readers(void)
{
    for (struct thread *t = atomic_load(&thread_blocks); t != NULL; t = t->next_block)
        t->reader = NULL;
    sweep_reader = NULL;
}

void foreign_shutdown(void)
{
    if (table.base == NULL) /* start failed before it was up */
        return;
    outside_set(OUTSIDE_REGIONS, 1, 1);
    index_clear(&ranges);
    epoch_shutdown();
    slots_shutdown(&table);
    forget_readers();
    atomic_store(&regions, 0);
    atomic_store(&bytes, 0);
}

/* The stack of work is dropped with the cycle, and scanners are gone.  A reader is a thread's of before. */
void foreign_fork_child(void)
{
    os_lock_init(&lock, OS_RANK_FOREIGN);
    slots_fork_child(&table);
    epoch_fork_child();
    forget_readers();
    atomic_store(&work_head, 0);
    atomic_store(&sweep_at, 0);
    atomic_store(&sweep_end, 0);
    for (uint32_t i = 1; i < slots_end(&table); i++) {
        struct region *region = region_at(i);
        atomic_store(&region->scanners, 0);
        atomic_store(&region->colour, 0); /* the number of the cycle that is abandoned is used again */
        if (atomic_load(&region->state) != FREE)
            atomic_store(&region->holds, 1);
    }
}

uint32_t foreign_end(void) { return slots_end(&table); }
uint64_t foreign_regions(void) { return atomic_load_explicit(&regions, memory_order_relaxed); }
uint64_t foreign_bytes(void) { return atomic_load_explicit(&bytes, memory_order_relaxed); }

/* ---- lookup ---------------------------------------------------------------------------------------------- */

/* Without memory for a reader, as the writer: who holds the lock meets no other. */
static bool enter(struct epoch_reader **reader)
{
    if (UNLIKELY(*reader == NULL))
        *reader = epoch_reader_new();
    if (UNLIKELY(*reader == NULL)) {
        os_lock(&lock);
        return false;
    }
    epoch_enter(*reader);
    return true;
}
static void leave(struct epoch_reader **reader, bool entered)
{
    if (entered)
        epoch_leave(*reader);
    else
        os_unlock(&lock);
}

bool grey_foreign_find(const void *p, uintptr_t *start, size_t *size)
{
    if (!outside_is_of(OUTSIDE_REGIONS, (uintptr_t)p))
        return false;
    struct thread *self = heap_thread("grey_foreign_find");
    if (self == NULL)
        return false;
    struct index_range range;
    thread_enter(self);
    bool entered = enter(&self->reader);
    bool found = index_find(&ranges, (uintptr_t)p, &range);
    leave(&self->reader, entered);
    thread_leave(self);
    if (found && start != NULL)
        *start = range.start;
    if (found && size != NULL)
        *size = range.end - range.start;
    return found;
}

/* ---- work: scanned regions ---------------------------------------------------------------------------------- */

/* The count of work_pending comes first, so that nobody finds nothing pending while this waits. */
static void push_work(struct region *region)
{
    uint32_t index = index_of(region);
    atomic_fetch_add_explicit(&work_pending, 1, memory_order_seq_cst);
    uint64_t head = atomic_load_explicit(&work_head, memory_order_relaxed);
    do
        atomic_store_explicit(&region->next_work, (uint32_t)head, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&work_head, &head, (head >> 32) << 32 | index,
                                                  memory_order_release, memory_order_relaxed));
}

static struct region *pop_work(void)
{
    /* acquire: pairs with the push */
    uint64_t head = atomic_load_explicit(&work_head, memory_order_acquire), next;
    do {
        if ((uint32_t)head == 0)
            return NULL;
        next = ((head >> 32) + 1) << 32 |
               atomic_load_explicit(&region_at((uint32_t)head)->next_work, memory_order_relaxed);
    } while (!atomic_compare_exchange_weak_explicit(&work_head, &head, next, memory_order_acquire,
                                                    memory_order_acquire));
    return region_at((uint32_t)head);
}

bool foreign_pieces_wait(void)
{
    return (uint32_t)atomic_load_explicit(&work_head, memory_order_relaxed) != 0;
}

static void give_back(ck_epoch_entry_t *entry)
{
    struct region *region = (struct region *)(void *)((char *)entry - offsetof(struct region, retired));
    slots_give_back(&table, &region->slot);
}

static void drop_hold(struct region *region)
{
    if (atomic_fetch_sub_explicit(&region->holds, 1, memory_order_acq_rel) != 1)
        return;
    atomic_store_explicit(&region->arg, 0, memory_order_relaxed);
    atomic_store_explicit(&region->state, FREE, memory_order_relaxed);
    os_lock(&lock);
    epoch_retire(&region->retired, give_back);
    os_unlock(&lock);
}

bool foreign_take_piece(struct foreign_piece *piece)
{
    if (LIKELY(!foreign_pieces_wait()))
        return false;
    struct region *region = pop_work();
    if (region == NULL)
        return false;
    *piece = (struct foreign_piece){.index = index_of(region)};
    atomic_fetch_add_explicit(&region->scanners, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&region->state, memory_order_seq_cst) != REGISTERED)
        return true;
    uintptr_t first = (region->start + 7) & ~(uintptr_t)7;
    uintptr_t at = first + atomic_load_explicit(&region->scanned, memory_order_relaxed);
    uintptr_t end = (region->start + region->size) & ~(uintptr_t)7;
    if (at >= end)
        return true;
    piece->start = (const void *)at;
    piece->size = end - at < PIECE ? end - at : PIECE;
    if (end - at > PIECE) {
        atomic_store_explicit(&region->scanned, at - first + PIECE, memory_order_relaxed);
        atomic_fetch_add_explicit(&region->holds, 1, memory_order_relaxed);
        push_work(region); /* the rest: others may take it */
    }
    HOOK(FOREIGN_SCAN, (void *)region->start);
    return true;
}

void foreign_leave_piece(const struct foreign_piece *piece)
{
    struct region *region = region_at(piece->index);
    /* release: what was read of the region was read before its release returns */
    atomic_fetch_sub_explicit(&region->scanners, 1, memory_order_release);
    drop_hold(region);
}

/* ---- marking ------------------------------------------------------------------------------------------------- */

/* True: this call marked it.  by_program: by the barrier, in a busy section. */
static bool colour(struct region *region, bool by_program)
{
    uint64_t cycle = atomic_load_explicit(&work_cycle, memory_order_relaxed);
    uint64_t old = atomic_load_explicit(&region->colour, memory_order_relaxed);
    if (old == cycle || (by_program && !shade_make_dirty()))
        return false;
    if (!atomic_compare_exchange_strong_explicit(&region->colour, &old, cycle, memory_order_acq_rel,
                                                 memory_order_relaxed))
        return false; /* to this cycle's, by another */
    if (by_program)
        HOOK(SHADE_DIRTY, (void *)region->start);
    if (!(region->flags & GREY_FOREIGN_SCAN))
        return true;
    /* A region that was taken meanwhile may be on its way back: only one that is held gets another hold. */
    uint32_t holds = atomic_load_explicit(&region->holds, memory_order_relaxed);
    do
        if (holds == 0)
            return true;
    while (!atomic_compare_exchange_weak_explicit(&region->holds, &holds, holds + 1, memory_order_acq_rel,
                                                  memory_order_relaxed));
    atomic_store_explicit(&region->scanned, 0, memory_order_relaxed);
    push_work(region);
    if (by_program)
        atomic_store_explicit(&work_clean, 0, memory_order_seq_cst);
    work_wake();
    return true;
}

static bool mark_at(uintptr_t word, bool by_program)
{
    struct index_range range;
    return index_find(&ranges, word, &range) && colour(region_at(range.value), by_program);
}

bool foreign_shade(struct thread *self, uintptr_t word)
{
    if (!outside_is_of(OUTSIDE_REGIONS, word))
        return false;
    bool entered = enter(&self->reader);
    bool marked = mark_at(word, true);
    leave(&self->reader, entered);
    return marked;
}

bool foreign_mark(struct tracer *tracer, uintptr_t word, bool stack)
{
    if (!outside_is_of(OUTSIDE_REGIONS, word))
        return false;
    struct epoch_reader **reader = tracer_reader(tracer);
    bool entered = enter(reader);
    bool marked = mark_at(word, false);
    if (stack)
        marked |= mark_at(word - 1, false); /* one past the end (FR-23) */
    leave(reader, entered);
    return marked;
}

/* In the epoch: the record is not used for another region meanwhile.  Pins and handles are roots that change
 * while this looks, as arguments are: what is new was shaded by who set it. */
void foreign_mark_handle(struct tracer *tracer, uint64_t handle)
{
    struct epoch_reader **reader = tracer_reader(tracer);
    bool entered = enter(reader);
    struct region *region = (struct region *)(void *)slots_find(&table, handle);
    if (region != NULL)
        colour(region, false);
    leave(reader, entered);
}

bool foreign_registered(uint64_t handle) { return slots_find(&table, handle) != NULL; }

/* A record that changes while this looks: one that is new shades its argument itself, one that goes leaves
 * a word that is only conservative. */
void foreign_mark_args(struct tracer *tracer, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++) {
        uintptr_t arg = atomic_load_explicit(&region_at(i)->arg, memory_order_relaxed);
        if (arg != 0)
            tracer_word(tracer, arg);
    }
}

void foreign_touch(struct thread *self, uintptr_t word)
{
    struct index_range range;
    thread_enter(self);
    bool entered = enter(&self->reader);
    bool scan = index_find(&ranges, word, &range) && (region_at(range.value)->flags & GREY_FOREIGN_SCAN);
    leave(&self->reader, entered);
    thread_leave(self);
    if (scan) /* the caller holds a pointer: it stays */
        shade_range(self, (const void *)range.start, range.end - range.start);
}

/* ---- registration ----------------------------------------------------------------------------------------------- */

/* Writer. */
static void set_bounds(void)
{
    uintptr_t low, high;
    if (!index_bounds(&ranges, &low, &high)) {
        low = high = 1;
    } else {
        high++; /* the address behind the last one counts on stacks */
    }
    outside_set(OUTSIDE_REGIONS, low, high);
}

static int insert(struct region *region)
{
    char *low = (char *)region->start;
    os_lock(&lock);
    index_prepare(
        &ranges); /* memory is mapped while only writers wait; if there is none index_insert says so */
    os_unlock(&lock);
    mutator_lock_list();
    int error = mutator_stack_overlaps(low, low + region->size) ||
                        arena_overlaps(region->start, region->start + region->size)
                    ? EEXIST
                    : 0;
    if (error == 0) {
        os_lock(&lock);
        error = index_insert(&ranges, region->start, region->start + region->size, index_of(region));
        if (error == 0)
            set_bounds();
        os_unlock(&lock);
    }
    mutator_unlock_list();
    return error;
}

bool foreign_overlaps(uintptr_t start, uintptr_t end)
{
    struct index_range range;
    os_lock(&lock);
    bool found = index_next(&ranges, start, &range) && range.start < end;
    os_unlock(&lock);
    return found;
}

static void run_cleanup(struct queued *queued)
{
    struct region *region = (struct region *)(void *)((char *)queued - offsetof(struct region, queued));
    region->cleanup(region->start, region->size,
                    (void *)atomic_load_explicit(&region->arg, memory_order_relaxed));
}
static void cleanup_done(struct queued *queued)
{
    drop_hold((struct region *)(void *)((char *)queued - offsetof(struct region, queued)));
}

/* The section of a registration.  on: the phase was ON. */
static int add(struct thread *self, const struct region *like, grey_foreign *handle, bool *on)
{
    struct region *region = (struct region *)(void *)slots_take(&table);
    if (region == NULL)
        return ENOMEM;
    *on = barrier_on(); /* before the number: see above */
    region->start = like->start;
    region->size = like->size;
    region->cleanup = like->cleanup;
    region->flags = like->flags;
    region->queued = (struct queued){.run = run_cleanup, .done = cleanup_done};
    uintptr_t arg = atomic_load_explicit(&like->arg, memory_order_relaxed);
    atomic_store_explicit(&region->arg, arg, memory_order_relaxed);
    atomic_store_explicit(&region->holds, 1, memory_order_relaxed);
    uint64_t black = atomic_load_explicit(&heap.black_cycle, memory_order_acquire);
    atomic_store_explicit(&region->colour, black, memory_order_relaxed);
    /* release: pairs with the sweep's load */
    atomic_store_explicit(&region->state, REGISTERED, memory_order_release);
    HOOK(FOREIGN_ADD, (void *)region->start);
    int error = insert(region);
    /* Who read the new number and then missed the range was before the insertion: so this sees it too. */
    atomic_thread_fence(memory_order_seq_cst);
    uint64_t now = atomic_load_explicit(&heap.black_cycle, memory_order_acquire);
    if (UNLIKELY(now != black)) /* then the phase was ON; the gate is closed still */
        atomic_store_explicit(&region->colour, now, memory_order_relaxed);
    if (error != 0) {
        atomic_store_explicit(&region->state, TAKEN, memory_order_relaxed);
        drop_hold(region);
        return error;
    }
    if (*on)
        shade(self, arg);
    atomic_fetch_add_explicit(&regions, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&bytes, region->size, memory_order_relaxed);
    os_count(OS_COUNT_foreign_added, 1);
    uint64_t number = slots_publish(&table, &region->slot);
    if (handle != NULL)
        *handle = number;
    return 0;
}

int grey_foreign_add(void *start, size_t size, unsigned flags, grey_foreign_fn *cleanup, void *arg,
                     grey_foreign *handle)
{
    uintptr_t at = (uintptr_t)start;
    if (start == NULL || size == 0 || size > UINTPTR_MAX / 2 - at || at > UINTPTR_MAX / 2 ||
        cleanup == NULL || (flags & ~(unsigned)GREY_FOREIGN_SCAN) != 0 || (uintptr_t)arg - at < size)
        return EINVAL;
    struct thread *self = heap_thread("grey_foreign_add");
    if (self == NULL)
        return ENOMEM;
    if (cleanups_start(false) != 0)
        return ENOMEM;
    struct region like = {.start = at, .size = size, .cleanup = cleanup, .flags = flags};
    atomic_store_explicit(&like.arg, (uintptr_t)arg, memory_order_relaxed);
    bool on = false;
    thread_enter(self);
    int error = add(self, &like, handle, &on);
    thread_leave(self);
    if (error == 0 && on && (flags & GREY_FOREIGN_SCAN))
        shade_range(self, start, size);                       /* FR-9 */
    __asm__ volatile("" : : "r"(start), "r"(arg) : "memory"); /* alive until here */
    return error;
}

/* ---- release and death ------------------------------------------------------------------------------- */

static bool take(struct region *region)
{
    uint32_t state = REGISTERED;
    return atomic_compare_exchange_strong_explicit(&region->state, &state, TAKEN, memory_order_seq_cst,
                                                   memory_order_relaxed);
}

/* Writer.  The region is the caller's. */
static void unlink_range(struct region *region)
{
    if (!index_remove(&ranges, region->start))
        os_internal((void *)region->start, "a foreign region was not in the index");
    atomic_store_explicit(&region->slot.handle, 0, memory_order_release);
    atomic_fetch_sub_explicit(&regions, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&bytes, region->size, memory_order_relaxed);
}

bool grey_foreign_release(grey_foreign handle)
{
    if (handle == 0)
        return false;
    struct thread *self = heap_thread("grey_foreign_release");
    if (self == NULL)
        return false;
    thread_enter(self);
    bool entered = enter(&self->reader); /* the record is not used again while this looks */
    struct region *region = (struct region *)(void *)slots_find(&table, handle);
    bool won = region != NULL && take(region);
    leave(&self->reader, entered);
    if (won) {
        /* Now, not when the record goes: in a fork's child a record that was being released may stay. */
        atomic_store_explicit(&region->arg, 0, memory_order_relaxed);
        os_lock(&lock);
        unlink_range(region);
        set_bounds();
        os_unlock(&lock);
        os_count(OS_COUNT_foreign_released, 1);
    }
    thread_leave(self);
    if (!won)
        return false;
    /* FR-39: outside the section, and for nothing but a piece. */
    for (unsigned n = 0; atomic_load_explicit(&region->scanners, memory_order_seq_cst) != 0;) {
        mark_hurry(MARK_WAITED_FOR);
        os_pause(&n);
    }
    thread_enter(self);
    drop_hold(region);
    thread_leave(self);
    return true;
}

void foreign_sweep_begin(uint64_t cycle)
{
    sweep_cycle = cycle;
    atomic_store(&sweep_end, slots_end(&table));
    atomic_store(&sweep_at, 1);
}

static bool take_dead(struct region *region)
{
    HOOK(FOREIGN_SWEEP, (void *)region->start);
    return take(region);
}

static uint32_t find_dead(struct region **dead)
{
    uint32_t n = 0, i = atomic_load_explicit(&sweep_at, memory_order_relaxed);
    uint32_t end = atomic_load_explicit(&sweep_end, memory_order_relaxed);
    /* As a reader: no record is used again between the look and the taking.  Else a region that is released
     * and registered anew in between would be taken, alive, for what its record was (M_SWEEPBARE). */
    bool entered = enter(&sweep_reader);
    for (uint32_t looked = 0; i < end && n < BATCH && looked < LOOKED_AT; i++, looked++) {
        struct region *region = region_at(i);
        /* acquire: pairs with the release of a registration: its colour is there */
        if (atomic_load_explicit(&region->state, memory_order_acquire) == REGISTERED &&
            atomic_load_explicit(&region->colour, memory_order_relaxed) != sweep_cycle && take_dead(region))
            dead[n++] = region;
    }
    leave(&sweep_reader, entered);
    atomic_store_explicit(&sweep_at, i, memory_order_relaxed);
    return n;
}

bool foreign_sweep_some(void)
{
    struct region *dead[BATCH];
    uint32_t n = find_dead(dead);
    if (n != 0) {
        os_lock(&lock);
        for (uint32_t i = 0; i < n; i++)
            unlink_range(dead[i]);
        set_bounds();
        epoch_poll();
        os_unlock(&lock);
        os_count(OS_COUNT_foreign_died, n);
        struct queued_chain chain = {0};
        for (uint32_t i = 0; i < n; i++)
            cleanups_chain(&chain, &dead[i]->queued);
        cleanups_queue_chain(&chain);
    }
    return atomic_load_explicit(&sweep_at, memory_order_relaxed) <
           atomic_load_explicit(&sweep_end, memory_order_relaxed);
}

/* ---- pins ------------------------------------------------------------------------------------------------------- */

static struct epoch_reader **reader_of(struct thread *self)
{
    return self != NULL ? &self->reader : &sweep_reader;
}

uint64_t foreign_handle_at(struct thread *self, uintptr_t p)
{
    if (!outside_is_of(OUTSIDE_REGIONS, p))
        return 0;
    struct index_range range;
    bool entered = enter(reader_of(self));
    uint64_t handle = 0; /* so also of one that is still being registered or already released */
    if (index_find(&ranges, p, &range))
        handle = atomic_load_explicit(&region_at(range.value)->slot.handle, memory_order_acquire);
    leave(reader_of(self), entered);
    return handle;
}

void foreign_pin(struct thread *self, uint64_t handle, int by)
{
    bool entered = enter(reader_of(self));
    struct region *region = (struct region *)(void *)slots_find(&table, handle);
    if (region != NULL) /* relaxed: a count that others only look at */
        atomic_fetch_add_explicit(&region->pins, (uint32_t)by, memory_order_relaxed);
    leave(reader_of(self), entered);
}

bool foreign_pins_at(struct thread *self, uintptr_t p, size_t *pins)
{
    if (!outside_is_of(OUTSIDE_REGIONS, p))
        return false;
    struct index_range range;
    bool entered = enter(reader_of(self));
    bool found = index_find(&ranges, p, &range);
    if (found)
        *pins = atomic_load_explicit(&region_at(range.value)->pins, memory_order_relaxed);
    leave(reader_of(self), entered);
    return found;
}

/* ---- for the verifier -------------------------------------------------------------------------------- */

uint32_t foreign_verify_word(uintptr_t word, bool stack, uint64_t number)
{
    struct index_range range;
    for (int i = 0; i <= (stack ? 1 : 0); i++) {
        if (!outside_is_of(OUTSIDE_REGIONS, word) || !index_find(&ranges, word - (uintptr_t)i, &range))
            continue;
        struct region *region = region_at(range.value);
        if (region->verified == number)
            continue;
        region->verified = number;
        return range.value;
    }
    return 0;
}

bool foreign_verify_marked(uint32_t index)
{
    return atomic_load_explicit(&region_at(index)->colour, memory_order_relaxed) ==
           atomic_load_explicit(&work_cycle, memory_order_relaxed);
}

void foreign_verify_contents(uint32_t index, const void **start, size_t *size)
{
    const struct region *region = region_at(index);
    uintptr_t first = (region->start + 7) & ~(uintptr_t)7;
    uintptr_t end = (region->start + region->size) & ~(uintptr_t)7;
    *start = (const void *)first;
    *size = (region->flags & GREY_FOREIGN_SCAN) && end > first ? end - first : 0;
}

void foreign_each_arg(void (*fn)(uintptr_t word, void *arg), void *arg)
{
    for (uint32_t i = 1; i < slots_end(&table); i++)
        fn(atomic_load_explicit(&region_at(i)->arg, memory_order_relaxed), arg);
}
