/* sweep/specials.c -- cleanups and finalizers: records that hang on spans (CF-1..CF-8, CF-14..CF-19).
 *
 * A special is a record in one table.  Those of a span's objects form a ring that the span leads to, in the
 * order of objects and, for one object, finalizer, weak references, cleanups.  The ring is changed under the
 * span's sweep flag, on a swept span (OR-12): so a special never meets marks of a cycle before it was made,
 * and whoever sweeps next finds it.
 *
 * Death.  Before a span's marks are moved the sweep looks at each special whose object is white.  If it has
 * a finalizer, that is queued, and the object marked, so that it stays; its cleanups wait for its real
 * death.  Else its cleanups are queued.  Weak references go either way; their cells were cleared in 1.6, so
 * before anything is queued (OR-4).  Every object in the ring is allocated: its cell can't have been freed
 * without this.  So when a span is freed its ring is empty.
 *
 * What died is queued at the end, as two chains, under the flag still: who takes the flag afterwards and finds
 * a special gone knows that it was queued, so grey_cleanup_wait will wait for it.  The whole ring is walked
 * under the flag, maybe by a program thread in a section, and one object may have any number of cleanups.
 * Nothing in the walk waits or calls the system; it costs what reading the records costs: some 5 ns each while
 * they fit into the caches (5 us for 1,000), 0.8 ms for 100,000 on one object, dead or alive.
 *
 * Roots.  A cleanup keeps its argument, a finalizer what its object points to, a weak reference its cell;
 * what is queued or running, the argument or the whole object.  A root job reads the table while threads add
 * and remove.  A handle is never given twice, and fields are set before it is published and cleared after it
 * is taken back; so fields that were read between two equal readings of the handle belong together.  While
 * the phase is ON nothing of them changes before the record is given back, since nothing is queued then.
 * What the job misses needs no visit:
 *   - a record of a section that saw the phase OFF is there when arm's FENCE is complete, before the job is;
 *   - one of a section that saw it ON shades what it keeps, in that section, while the caller holds it;
 *   - one that was given back keeps nothing any more: a stopped cleanup's argument can't be had from it, the
 *     object of a cleared finalizer is held by who cleared it, and what ran had its argument on the stack of
 *     the thread that ran it, which rounds scan.
 * Of a finalizer that is set in a cycle the object itself is shaded: simple, and it costs that object one
 * cycle.
 *
 * Stopping.  A handle leads to a record, the record to an object, that to a span; each may have a new life by
 * then.  Under the flag of the span found, the record's state is read, then its handle.  If that is the one
 * we came with, the state was the state of our special: handles never come back.  If the state is LISTED,
 * then it was when the page table was read; a span isn't freed while a special is listed on it; so the span
 * is the special's, we hold its flag, and only under this flag can the state change.
 *
 * fork: flags and the table's lock are held in sections only, or by the sweeper inside a piece of work: at a
 * fork nobody holds one.
 */
#include "arena/arena.h"
#include "barrier/barrier.h"
#include "os/thread.h"
#include "sweep/records.h"
#include "sweep/sweep.h"

#include <errno.h>
#include <link.h>

/* Records at most; and one for 512 bytes of heap, where the address space is limited (OS-19). */
enum { SPECIALS_MAX = 1 << 26, HEAP_A_SPECIAL = 512 };

static struct slots table;

int specials_init(void)
{
    size_t in_proportion = heap.reserved / HEAP_A_SPECIAL;
    uint32_t most = in_proportion < SPECIALS_MAX ? (uint32_t)in_proportion : SPECIALS_MAX;
    weak_init();
    return slots_init(&table, sizeof(struct special), most, OS_SPECIALS);
}

void specials_shutdown(void) { slots_shutdown(&table); }

void specials_fork_child(void)
{
    slots_fork_child(&table);
    weak_fork_child();
}

/* ---- what an address is ------------------------------------------------------------------------------ */

struct search {
    uintptr_t p;
    bool found;
};

static int look_in_object(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    struct search *search = arg;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        if (segment->p_type == PT_LOAD &&
            search->p - (uintptr_t)(info->dlpi_addr + segment->p_vaddr) < segment->p_memsz)
            search->found = true;
    }
    return search->found;
}

enum special_target special_target(const void *p, struct heap_object *object)
{
    if (heap_find((uintptr_t)p, object))
        return TARGET_HEAP;
    if (heap_contains((uintptr_t)p))
        return TARGET_UNKNOWN;
    if (arena_contains((uintptr_t)p))
        return TARGET_ARENA;
    if (grey_foreign_find(p, NULL, NULL))
        return TARGET_FOREIGN;
    /* The zero address is the library's own data. */
    struct search search = {(uintptr_t)p, false};
    dl_iterate_phdr(look_in_object, &search);
    return search.found ? TARGET_STATIC : TARGET_UNKNOWN;
}

/* ---- records ----------------------------------------------------------------------------------------- */

uint32_t specials_end(void) { return table.base != NULL ? slots_end(&table) : 0; }
struct special *special_at(uint32_t index) { return (struct special *)slots_at(&table, index); }
static uint32_t index_of(const struct special *special) { return slots_index(&table, &special->slot); }
static struct special *of_queued(struct queued *item)
{
    return (struct special *)(void *)((char *)item - offsetof(struct special, queued));
}

bool special_read(uint32_t index, struct special_view *view)
{
    struct special *special = special_at(index);
    /* acquire, all of them: the second look at the handle comes last; pairs with slots_take's release */
    uint64_t handle = atomic_load_explicit(&special->slot.handle, memory_order_acquire);
    view->kind = (enum special_kind)atomic_load_explicit(&special->kind, memory_order_acquire);
    view->state = (enum special_state)atomic_load_explicit(&special->state, memory_order_acquire);
    view->base = atomic_load_explicit(&special->base, memory_order_acquire);
    view->word = atomic_load_explicit(&special->word, memory_order_acquire);
    return handle != 0 && atomic_load_explicit(&special->slot.handle, memory_order_relaxed) == handle;
}

struct special *special_new(enum special_kind kind, uintptr_t base, uintptr_t word, void (*function)(void *))
{
    struct special *special = (struct special *)slots_take(&table);
    if (special == NULL)
        return NULL;
    /* relaxed, all of them: special_publish */
    atomic_store_explicit(&special->kind, kind, memory_order_relaxed);
    atomic_store_explicit(&special->base, base, memory_order_relaxed);
    atomic_store_explicit(&special->word, word, memory_order_relaxed);
    special->function = function;
    return special;
}

uint64_t special_publish(struct special *special) { return slots_publish(&table, &special->slot); }
void special_give_back(struct special *special) { slots_give_back(&table, &special->slot); }

static void set_state(struct special *special, enum special_state state)
{
    /* release: pairs with is_listed's acquire */
    atomic_store_explicit(&special->state, state, memory_order_release);
}

/* Whether this handle's special is in a list.  The state before the handle: see the essay. */
static bool is_listed(const struct special *special, uint64_t handle)
{
    struct special *s = (struct special *)special;
    return atomic_load_explicit(&s->state, memory_order_acquire) == SPECIAL_LISTED &&
           atomic_load_explicit(&s->slot.handle, memory_order_acquire) == handle;
}

/* ---- a span's ring, flag held ------------------------------------------------------------------------ */

static uint32_t first_of(const struct span *span)
{
    /* relaxed, here and below: the flag orders it; atomic for the sweep's look without a special */
    return atomic_load_explicit(&((struct span *)span)->specials, memory_order_relaxed);
}
static void set_first(struct span *span, uint32_t index)
{
    atomic_store_explicit(&span->specials, index, memory_order_relaxed);
}

struct span *special_span(uintptr_t base)
{
    struct span *span = heap_span_of(base);
    span_lock(span);
    sweep_if_due(span);
    return span;
}

struct special *special_before(const struct span *span, const struct special *special)
{
    return index_of(special) != first_of(span) ? special_at(special->previous) : NULL;
}

static bool stands_behind(const struct special *special, uintptr_t base, enum special_kind kind)
{
    uintptr_t its = special_base(special);
    return its != base ? its > base : special_kind(special) > kind;
}

/* From both ends at once: specials mostly come in the order in which objects are allocated, and one object may
 * have thousands of cleanups, which its finalizer and its weak references stand before. */
struct special *special_seek(const struct span *span, uintptr_t base, enum special_kind kind)
{
    if (first_of(span) == 0)
        return NULL;
    struct special *first = special_at(first_of(span));
    if (stands_behind(first, base, kind))
        return NULL;
    /* low isn't behind.  If high is, low isn't the last. */
    struct special *low = first, *high = special_at(first->previous);
    while (stands_behind(high, base, kind)) {
        struct special *next = special_at(low->next);
        if (stands_behind(next, base, kind))
            return low;
        low = next;
        high = special_at(high->previous);
    }
    return high;
}

uint64_t special_list(struct span *span, struct special *after, struct special *special)
{
    uint32_t index = index_of(special), first = first_of(span);
    if (first == 0) {
        special->next = special->previous = index;
    } else {
        struct special *previous = after != NULL ? after : special_at(special_at(first)->previous);
        special->previous = index_of(previous);
        special->next = previous->next;
        special_at(previous->next)->previous = index;
        previous->next = index;
    }
    if (after == NULL)
        set_first(span, index);
    set_state(special, SPECIAL_LISTED);
    return special_publish(special);
}

static void unlist(struct span *span, struct special *special, enum special_state to)
{
    uint32_t index = index_of(special);
    ASSERT(atomic_load_explicit(&special->state, memory_order_relaxed) == SPECIAL_LISTED);
    if (special->next == index) {
        set_first(span, 0);
    } else {
        special_at(special->previous)->next = special->next;
        special_at(special->next)->previous = special->previous;
        if (first_of(span) == index)
            set_first(span, special->next);
    }
    set_state(special, to);
}

void special_remove(struct span *span, struct special *special)
{
    unlist(span, special, SPECIAL_REMOVED);
    special_give_back(special);
}

/* ---- death ------------------------------------------------------------------------------------------- */

static void run_cleanup(struct queued *item)
{
    struct special *special = of_queued(item);
    special->function((void *)special_word(special));
}

static void run_finalizer(struct queued *item)
{
    struct special *special = of_queued(item);
    special->function((void *)special_base(special));
}

static void done(struct queued *item) { special_give_back(of_queued(item)); }

/* What died in a span. */
struct dead {
    struct queued_chain cleanups, finalizers;
};

static void finalize(struct span *span, struct special *special, struct dead *dead)
{
    uintptr_t base = special_base(special);
    unlist(span, special, SPECIAL_QUEUED);
    heap_mark(base);
    const struct layout *layout = &heap_layouts[span->layout];
    /* It was not counted with what the cycle marked. */
    atomic_fetch_add_explicit(&heap.live, layout->cell != 0 ? layout->cell : span->bytes,
                              memory_order_relaxed);
    special->queued.run = run_finalizer;
    special->queued.done = done;
    cleanups_chain(&dead->finalizers, &special->queued);
}

static void clean_up(struct span *span, struct special *special, struct dead *dead)
{
    unlist(span, special, SPECIAL_QUEUED);
    special->queued.run = run_cleanup;
    special->queued.done = done;
    cleanups_chain(&dead->cleanups, &special->queued);
}

static void drop_weak(struct span *span, struct special *special)
{
    unlist(span, special, SPECIAL_REMOVED);
    weak_died(special);
    special_give_back(special);
}

void specials_sweep(struct span *span)
{
    uint32_t last = special_at(first_of(span))->previous, next = first_of(span), index;
    uintptr_t base = 0;
    bool white = false, finalized = false;
    struct dead dead = {0};
    do {
        index = next;
        struct special *special = special_at(index);
        next = special->next;
        if (special_base(special) != base) {
            base = special_base(special);
            ASSERT(heap_cell_allocated(base));
            white = !heap_marked(base);
            finalized = false;
        }
        if (!white)
            continue;
        switch (special_kind(special)) {
        case SPECIAL_FINALIZER: /* the first of its object */
            finalize(span, special, &dead);
            finalized = true;
            break;
        case SPECIAL_WEAK:
            drop_weak(span, special);
            break;
        case SPECIAL_CLEANUP:
            if (!finalized)
                clean_up(span, special, &dead);
            break;
        case SPECIAL_PIN_COUNT:
            os_internal((void *)base, "a pinned object was not marked");
        case SPECIAL_STATIC_WEAK:
            os_internal(special, "a weak reference to static memory hangs on a span");
        }
    } while (index != last);
    cleanups_queue_chain(&dead.cleanups);
    cleanups_queue_finalizers(&dead.finalizers);
}

/* ---- roots ------------------------------------------------------------------------------------------- */

/* What a record keeps, as one word that may be a pointer; or the contents of the object at view->base. */
static bool keeps_contents(const struct special_view *view)
{
    return view->kind == SPECIAL_FINALIZER && view->state == SPECIAL_LISTED;
}
static uintptr_t kept_word(const struct special_view *view)
{
    if (view->kind == SPECIAL_PIN_COUNT)
        return 0;
    return view->kind == SPECIAL_FINALIZER ? view->base : view->word;
}

void specials_mark(struct tracer *tracer, uint32_t first, uint32_t end)
{
    for (uint32_t i = first != 0 ? first : 1; i < end; i++) {
        struct special_view view;
        if (!special_read(i, &view))
            continue;
        if (!keeps_contents(&view)) {
            tracer_word(tracer, kept_word(&view));
            continue;
        }
        struct heap_object object;
        if (!heap_find(view.base, &object))
            os_internal((void *)view.base, "a finalizer whose object is gone");
        if (heap_layouts[object.layout].kind != LAYOUT_LEAF)
            tracer_scan_object(tracer, view.base);
    }
}

void specials_each_root(void (*word)(uintptr_t word, void *arg), void (*contents)(uintptr_t base, void *arg),
                        void *arg)
{
    uint32_t end = specials_end();
    for (uint32_t i = 1; i < end; i++) {
        struct special_view view;
        if (!special_read(i, &view))
            continue;
        if (keeps_contents(&view))
            contents(view.base, arg);
        else
            word(kept_word(&view), arg);
    }
}

/* ---- the calls --------------------------------------------------------------------------------------- */

static int refusal(enum special_target target)
{
    return target == TARGET_STATIC ? 0 : target == TARGET_UNKNOWN ? EINVAL : ENOTSUP;
}

/* In a section.  0: no memory. */
static uint64_t add_cleanup(struct thread *self, uintptr_t base, void (*fn)(void *), void *arg)
{
    struct special *special = special_new(SPECIAL_CLEANUP, base, (uintptr_t)arg, fn);
    if (special == NULL)
        return 0;
    struct span *span = special_span(base);
    uint64_t handle = special_list(span, special_seek(span, base, SPECIAL_CLEANUP), special);
    span_unlock(span);
    if (barrier_on())
        shade(self, (uintptr_t)arg);
    return handle;
}

int grey_cleanup_add(void *object, void (*fn)(void *arg), void *arg, grey_cleanup *handle)
{
    if (object == NULL || fn == NULL || object == arg)
        return EINVAL;
    struct thread *self = heap_thread("grey_cleanup_add");
    if (self == NULL)
        return ENOMEM;
    struct heap_object found;
    uint64_t given = 0;
    enum special_target target = special_target(object, &found);
    if (target != TARGET_HEAP) {
        int error = refusal(target);
        if (error != 0)
            return error;
    } else {
        if ((uintptr_t)arg - found.base < found.size)
            return EINVAL;
        if (cleanups_start(false) != 0)
            return ENOMEM;
        thread_enter(self);
        given = add_cleanup(self, found.base, fn, arg);
        thread_leave(self);
        if (given == 0)
            return ENOMEM;
    }
    if (handle != NULL)
        *handle = given;
    grey_keep_alive(object);
    grey_keep_alive(arg);
    return 0;
}

/* In a section. */
static bool stop(uint64_t handle)
{
    struct special *special = (struct special *)slots_find(&table, handle);
    if (special == NULL)
        return false;
    struct special_view view;
    if (!special_read((uint32_t)handle, &view) || view.kind != SPECIAL_CLEANUP ||
        view.state == SPECIAL_REMOVED)
        return false;
    /* Also if it died: under the flag its sweep has queued it, and grey_cleanup_wait knows of it (CF-13). */
    struct span *span = heap_span_of(view.base);
    span_lock(span);
    if (is_listed(special, handle))
        sweep_if_due(span); /* it may be dead already, and is queued then */
    bool stopped = is_listed(special, handle);
    if (stopped)
        unlist(span, special, SPECIAL_REMOVED);
    span_unlock(span);
    if (stopped)
        special_give_back(special);
    return stopped;
}

bool grey_cleanup_stop(grey_cleanup handle)
{
    if (slots_find(&table, handle) == NULL)
        return false;
    struct thread *self = heap_thread("grey_cleanup_stop");
    if (self == NULL)
        os_fatal(NULL, "no memory to attach the thread that stops a cleanup: attach threads first");
    thread_enter(self);
    bool stopped = stop(handle);
    thread_leave(self);
    return stopped;
}

static bool is_finalizer_of(const struct special *special, uintptr_t base)
{
    return special != NULL && special_base(special) == base && special_kind(special) == SPECIAL_FINALIZER;
}

/* In a section. */
static int set_finalizer(struct thread *self, uintptr_t base, void (*fn)(void *))
{
    struct special *special = special_new(SPECIAL_FINALIZER, base, 0, fn);
    if (special == NULL)
        return ENOMEM;
    struct span *span = special_span(base);
    struct special *before = special_seek(span, base, SPECIAL_FINALIZER);
    bool set = is_finalizer_of(before, base);
    if (!set)
        special_list(span, before, special);
    span_unlock(span);
    if (set) {
        special_give_back(special);
        return EEXIST;
    }
    if (barrier_on())
        shade(self, base);
    return 0;
}

/* In a section. */
static void clear_finalizer(uintptr_t base)
{
    struct span *span = special_span(base);
    struct special *special = special_seek(span, base, SPECIAL_FINALIZER);
    bool set = is_finalizer_of(special, base);
    if (set)
        unlist(span, special, SPECIAL_REMOVED);
    span_unlock(span);
    if (set)
        special_give_back(special);
}

int grey_set_finalizer(void *object, void (*fn)(void *object))
{
    if (object == NULL)
        return EINVAL;
    struct thread *self = heap_thread("grey_set_finalizer");
    if (self == NULL)
        return ENOMEM;
    struct heap_object found;
    enum special_target target = special_target(object, &found);
    if (target != TARGET_HEAP)
        return refusal(target);
    if (found.base != (uintptr_t)object)
        return EINVAL;
    if (fn != NULL && cleanups_start(true) != 0)
        return ENOMEM;
    int error = 0;
    thread_enter(self);
    if (fn != NULL)
        error = set_finalizer(self, found.base, fn);
    else
        clear_finalizer(found.base);
    thread_leave(self);
    grey_keep_alive(object);
    return error;
}
