/* heap/spans.c -- span records, the sweep flag, and the lists of spans that nobody owns.
 *
 * Each layout has a list of spans that had free cells when last swept, and two of full ones: those swept
 * for the cycle that is over and those that wait for it, told apart by the parity of the cycle number
 * (as Go's mcentral swaps its sets).  A span that a thread allocates from is in no list and belongs to
 * that thread (protocol.md 6).
 *
 * Exclusion.  The sweep flag guards a span's bits, counts and number; the layout's lock guards the links
 * and the place.  Order: flag, then lock.  Where there are many processors the lists are in shards, and the lock is
 * that of the shard which the span was put into: under the flag, so it stays the same while the flag is held.  Who
 * pops a span owns it before he takes the flag, and the sweeper frees an empty span only if, under flag and lock, it
 * finds it in a list: so a span is never freed under somebody who popped it.  A flag is held for one sweep or one
 * run, by a thread in a busy section or a collector thread at normal priority, so waiting for it inside a section is
 * allowed (1, lock rules).
 *
 * Records are never unmapped before shutdown; a number can be used again.  Whoever walks the table takes
 * the flag and then looks at the place again.
 */
#include "heap/spans.h"
#include "heap/pages.h"
#include "os/options.h"

#include <errno.h>
#include <string.h>

/* A shard for so many processors: a thread that allocates at full speed holds the lock of its layout's list for some
 * 2 % of the time (bench/locks.c). */
enum { SPAN_SHARDS = 8, SHARD_PROCESSORS = 8 };

/* Spans of one layout, or a shard of them: heads, 0 = empty.  Those with free cells at the last sweep; full ones,
 * by parity of the number of the cycle that they were swept for.  On a line of its own: threads write it in
 * turns. */
struct list {
    struct os_lock lock;
    _Atomic uint32_t partial, full[2]; /* relaxed: the lock orders, who only looks may be wrong */
} __attribute__((aligned(64)));
static struct list lists[LAYOUT_MAX][SPAN_SHARDS];
static unsigned n_shards = 1; /* a power of two */

static struct os_lock spans_lock = OS_LOCK_INIT(OS_RANK_SPANS);
static size_t reserved_bytes, ready_bytes;
static uint32_t free_number; /* list of records to be used again */

enum { RECORDS_STEP = 1 << 18 }; /* bytes of records made ready at a time: 3,000 spans */

int spans_init(void)
{
    os_lock_init(&spans_lock, OS_RANK_SPANS);
    /* One record a page at most. */
    reserved_bytes = ((heap.reserved >> GREY_PAGE_SHIFT) + 1) * sizeof(struct span);
    reserved_bytes = (reserved_bytes + RECORDS_STEP - 1) & ~(size_t)(RECORDS_STEP - 1);
    heap.spans = os_reserve(NULL, reserved_bytes);
    if (heap.spans == NULL)
        return ENOMEM;
    ready_bytes = 0;
    free_number = 0;
    while (n_shards < SPAN_SHARDS && n_shards * SHARD_PROCESSORS < os_tuning.processors)
        n_shards *= 2;
    atomic_store(&heap.n_spans, 1);
    return 0;
}

void spans_shutdown(void)
{
    if (heap.spans != NULL)
        os_free(heap.spans, reserved_bytes, OS_SPANS, ready_bytes, ready_bytes);
    heap.spans = NULL;
    for (uint32_t i = 0; i < atomic_load(&heap_n_layouts); i++)
        for (unsigned shard = 0; shard < SPAN_SHARDS; shard++)
            memset(&lists[i][shard].partial, 0, 3 * sizeof(uint32_t));
}

void spans_init_list(uint32_t layout)
{
    for (unsigned shard = 0; shard < SPAN_SHARDS; shard++)
        os_lock_init(&lists[layout][shard].lock, OS_RANK_CLASS);
}

void spans_fork_child(void)
{
    os_lock_init(&spans_lock, OS_RANK_SPANS);
    for (uint32_t i = 0; i < atomic_load(&heap_n_layouts); i++)
        spans_init_list(i);
}

/* ---- the sweep flag ------------------------------------------------------------------------------- */

bool span_trylock(struct span *span)
{
    /* acquire: pairs with span_unlock */
    return atomic_load_explicit(&span->flag, memory_order_relaxed) == 0 &&
           atomic_exchange_explicit(&span->flag, 1, memory_order_acquire) == 0;
}
void span_lock(struct span *span)
{
    for (unsigned n = 0; !span_trylock(span);)
        os_pause(&n);
}
void span_unlock(struct span *span) { atomic_store_explicit(&span->flag, 0, memory_order_release); }

/* ---- records ---------------------------------------------------------------------------------------- */

static struct span *record_alloc(void)
{
    os_lock(&spans_lock);
    struct span *span = NULL;
    if (free_number != 0) {
        span = &heap.spans[free_number];
        free_number = span->next;
    } else {
        uint32_t number = atomic_load_explicit(&heap.n_spans, memory_order_relaxed);
        if (((size_t)number + 1) * sizeof(struct span) > ready_bytes) {
            char *at = (char *)heap.spans + ready_bytes;
            if (ready_bytes + RECORDS_STEP > reserved_bytes ||
                os_map(at, RECORDS_STEP, OS_SPANS, "grey: metadata") != 0 ||
                os_used(at, RECORDS_STEP, RECORDS_STEP) != 0) {
                os_unlock(&spans_lock);
                return NULL;
            }
            ready_bytes += RECORDS_STEP;
        }
        span = &heap.spans[number];
        atomic_store_explicit(&heap.n_spans, number + 1, memory_order_release);
    }
    os_unlock(&spans_lock);
    return span;
}

static void record_free(struct span *span)
{
    os_lock(&spans_lock);
    span->next = free_number;
    free_number = span_number(span);
    os_unlock(&spans_lock);
}

/* ---- the heap's first page -------------------------------------------------------------------------- */

/* It is never used: where the heap begins is a word that the library's own frames are full of, and an object there
 * would be kept by threads' stacks.  Who gets it keeps it, and asks again. */
static bool pages_but_first(size_t pages, size_t alignment, size_t *first, bool *needs_zero)
{
    if (!pages_alloc(pages, alignment, first, needs_zero))
        return false;
    if (LIKELY(*first != 0))
        return true;
    if (pages > 1)
        pages_free(1, pages - 1);
    return pages_alloc(pages, alignment, first, needs_zero);
}

/* ---- pages of a thread (AL-5) ----------------------------------------------------------------------- */

/* A thread that builds one span of one page after the other takes more of them at a time, up to 64 KiB, and the page
 * allocator's lock less often.  It begins with one again in each cycle: a thousand threads that build one
 * now and then shall not sit on the memory of thousands. */
static bool page_of_cache(struct thread *self, size_t *first, bool *needs_zero)
{
    if (self->n_pages == 0) {
        uint32_t cycle = (uint32_t)atomic_load_explicit(&heap.sweep_cycle, memory_order_relaxed);
        bool again = self->pages_cycle == cycle && self->pages_at_once != 0;
        self->pages_cycle = cycle;
        self->pages_at_once = !again                               ? 1
                              : self->pages_at_once < THREAD_PAGES ? 2 * self->pages_at_once
                                                                   : THREAD_PAGES;
        self->n_pages = (uint32_t)pages_alloc_some(self->pages_at_once, self->page, &self->dirty_pages);
        if (self->n_pages != 0 && self->page[self->n_pages - 1] == 0) /* the lowest */
            self->n_pages--;
        if (self->n_pages == 0)
            self->n_pages = (uint32_t)pages_alloc_some(self->pages_at_once, self->page, &self->dirty_pages);
        if (self->n_pages == 0)
            return false;
    }
    uint32_t i = --self->n_pages;
    *first = self->page[i];
    *needs_zero = self->dirty_pages >> i & 1;
    return true;
}

void spans_give_up_pages(struct thread *thread)
{
    while (thread->n_pages != 0)
        pages_free(thread->page[--thread->n_pages], 1);
    thread->pages_at_once = 0;
}

struct span *span_build(struct thread *self, size_t pages, size_t alignment)
{
    if (pages > UINT32_MAX)
        return NULL;
    struct span *span = record_alloc();
    if (span == NULL)
        return NULL;
    size_t first;
    bool needs_zero;
    if (pages == 1 && alignment == 1 ? !page_of_cache(self, &first, &needs_zero)
                                     : !pages_but_first(pages, alignment, &first, &needs_zero)) {
        record_free(span);
        return NULL;
    }
    span->first_page = (uint32_t)first;
    span->pages = (uint32_t)pages;
    span->needs_zero = needs_zero;
    span->free_index = span->live = span->next = span->previous = span->type = 0;
    span->bytes = pages << GREY_PAGE_SHIFT;
    span->owner = self;
    span->layout = 0;
    atomic_store_explicit(&span->place, SPAN_BUILDING, memory_order_relaxed);
    return span;
}

void span_publish(struct span *span, uint32_t layout, enum span_place place)
{
    bool large = heap_layouts[layout].cell == 0;
    span->layout = layout;
    for (uint32_t i = 0; i < span->pages; i++) {
        atomic_store_explicit(&heap.page_span[span->first_page + i], span_number(span), memory_order_relaxed);
        /* release: who finds the page in use finds its bits clear and its span */
        atomic_store_explicit(&heap.info[span->first_page + i], heap_info_make(layout, large ? 0 : i),
                              memory_order_release);
    }
    /* release: the sweeper that sees the place sees the rest of the record */
    atomic_store_explicit(&span->place, (uint8_t)place, memory_order_release);
}

void span_free(struct span *span)
{
    uint32_t first = span->first_page, pages = span->pages;
    /* The sweep that found it empty took them away: the record's next use begins without. */
    ASSERT(atomic_load_explicit(&span->specials, memory_order_relaxed) == 0);
    /* What is pinned is marked. */
    ASSERT(atomic_load_explicit(&span->pins, memory_order_relaxed) == 0);
    bool published =
        span->layout != 0 || atomic_load_explicit(&span->place, memory_order_relaxed) != SPAN_BUILDING;
    atomic_store_explicit(&span->place, SPAN_NONE, memory_order_relaxed);
    if (published)
        for (uint32_t i = 0; i < pages; i++)
            atomic_store_explicit(&heap.info[first + i], 0, memory_order_relaxed);
    span->owner = NULL;
    record_free(span);
    pages_free(first, pages);
}

/* ---- lists ------------------------------------------------------------------------------------------- */

static _Atomic uint32_t *list_of(struct list *list, const struct span *span)
{
    if (atomic_load_explicit(&span->place, memory_order_relaxed) == SPAN_PARTIAL)
        return &list->partial;
    return &list->full[span->parity];
}

static uint32_t head_of(const _Atomic uint32_t *head)
{
    return atomic_load_explicit(head, memory_order_relaxed);
}
static void set_head(_Atomic uint32_t *head, uint32_t number)
{
    atomic_store_explicit(head, number, memory_order_relaxed);
}

static void list_push(struct list *list, struct span *span, enum span_place place)
{
    span->parity = atomic_load_explicit(&span->swept, memory_order_relaxed) & 1;
    span->owner = NULL;
    atomic_store_explicit(&span->place, (uint8_t)place, memory_order_relaxed);
    _Atomic uint32_t *head = list_of(list, span);
    span->previous = 0;
    span->next = head_of(head);
    if (span->next != 0)
        heap.spans[span->next].previous = span_number(span);
    set_head(head, span_number(span));
}

static void list_remove(struct list *list, struct span *span)
{
    if (span->previous != 0)
        heap.spans[span->previous].next = span->next;
    else
        set_head(list_of(list, span), span->next);
    if (span->next != 0)
        heap.spans[span->next].previous = span->previous;
    span->next = span->previous = 0;
}

static struct span *list_pop(struct list *list, _Atomic uint32_t *head, struct thread *self)
{
    if (head_of(head) == 0)
        return NULL;
    struct span *span = &heap.spans[head_of(head)];
    list_remove(list, span);
    span->owner = self;
    atomic_store_explicit(&span->place, SPAN_OWNED, memory_order_relaxed);
    return span;
}

static unsigned shard_of(const struct thread *thread)
{
    /* Fibonacci hashing: the blocks lie at regular distances. */
    return (unsigned)(((uint64_t)(uintptr_t)thread * 0x9e3779b97f4a7c15u) >> 56) & (n_shards - 1);
}

void span_give_back(struct span *span)
{
    span->shard = (uint8_t)shard_of(span->owner);
    struct list *list = &lists[span->layout][span->shard];
    enum span_place place = span->live < heap_layouts[span->layout].cells ? SPAN_PARTIAL : SPAN_FULL;
    os_lock(&list->lock);
    list_push(list, span, place);
    os_unlock(&list->lock);
}

void span_swept(struct span *span, uint32_t old_live)
{
    const struct layout *layout = &heap_layouts[span->layout];
    struct list *list = &lists[span->layout][span->shard];
    bool empty = false;
    os_lock(&list->lock);
    switch (atomic_load_explicit(&span->place, memory_order_relaxed)) {
    case SPAN_PARTIAL:
    case SPAN_FULL:
        empty = span->live == 0;
        list_remove(list, span);
        if (!empty)
            list_push(list, span, span->live < layout->cells ? SPAN_PARTIAL : SPAN_FULL);
        break;
    case SPAN_LARGE:
        empty = span->live == 0;
        break;
    default:
        break;
    }
    os_unlock(&list->lock);
    uint64_t bytes = (uint64_t)(old_live - span->live) * (layout->cell != 0 ? layout->cell : span->bytes);
    os_count(OS_COUNT_freed_objects, old_live - span->live);
    os_count(OS_COUNT_freed_bytes, bytes);
    if (empty)
        span_free(span);
}

/* ---- a span to allocate from ---------------------------------------------------------------------------- */

/* From the thread's own shard, or else from any. */
static struct span *pop(uint32_t number, struct thread *self)
{
    uint64_t cycle = atomic_load_explicit(&heap.sweep_cycle, memory_order_acquire);
    unsigned own = shard_of(self);
    for (unsigned i = 0; i < n_shards; i++) {
        struct list *list = &lists[number][(own + i) & (n_shards - 1)];
        /* full when last looked at, in a cycle before this sweep's */
        _Atomic uint32_t *full = &list->full[(cycle & 1) ^ 1];
        if (head_of(&list->partial) == 0 && head_of(full) == 0)
            continue;
        os_lock(&list->lock);
        struct span *span = list_pop(list, &list->partial, self);
        if (span == NULL)
            span = list_pop(list, full, self);
        os_unlock(&list->lock);
        if (span != NULL)
            return span;
    }
    return NULL;
}

struct span *span_get(struct thread *self, uint32_t number)
{
    const struct layout *layout = &heap_layouts[number];
    /* Sweeping full spans in the hope of a free cell: as many as Go tries (mcentral.go, spanBudget). */
    for (int budget = 100; budget > 0; budget--) {
        struct span *span = pop(number, self);
        if (span == NULL)
            break;
        span_lock(span);
        if (atomic_load_explicit(&span->swept, memory_order_relaxed) !=
            (uint32_t)atomic_load_explicit(&heap.sweep_cycle, memory_order_acquire))
            heap_calls.sweep(span);
        if (span->live < layout->cells) {
            span_unlock(span);
            return span;
        }
        span_give_back(span);
        span_unlock(span);
    }
    struct span *span = span_build(self, layout->pages, 1);
    if (span == NULL)
        return NULL;
    span_lock(span);
    atomic_store_explicit(&span->swept,
                          (uint32_t)atomic_load_explicit(&heap.sweep_cycle, memory_order_acquire),
                          memory_order_relaxed);
    span_publish(span, number, SPAN_OWNED);
    span_unlock(span);
    return span;
}
