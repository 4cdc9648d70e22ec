/* heap/alloc.c -- allocation: runs, their refill, large objects, and the calls of grey.h.
 *
 * The fast path (grey_bump_ in grey.h) moves a cursor inside the thread's current free run; it may be
 * interrupted anywhere (protocol.md 2.4).  Everything else is a slow path, a busy section:
 *
 *     take the span's sweep flag; then, not before, read sweep_cycle and black_cycle; sweep the span if
 *     its number is not sweep_cycle; find the next free run; zero it; fence; set its mark bits if
 *     black_cycle != sweep_cycle; its allocation bits; the run's number odd; cursor and end; even.
 *
 * Why that order.  The pair of cycle numbers is read under the flag, since a span swept between the
 * reading and the marking would keep a mark into the next cycle (M_EARLYREAD).  Zero before bits: a
 * tracer that finds a cell allocated may scan it at once, and must find nothing there.  Mark before
 * allocation bit: a stale word that meets the cell in between must not find it white and allocated.
 *
 * A run is at most RUN_BYTES long (or one cell), so a refill zeroes a bounded piece.  Large objects are
 * built outside sections: their pages belong to nobody until they are published in a second section.
 */
#include "heap/layout.h"
#include "heap/pages.h"
#include "heap/spans.h"

#include <errno.h>
#include <string.h>
#if OS_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)0)
#endif

/* A fourth of a small L1 cache: what is zeroed is still there when the program writes to it. */
enum { RUN_BYTES = 8192 };
/* Eight runs: see add_live. */
enum { LIVE_PENDING = 64 << 10 };
/* A section's bound on bulk work (protocol.md 2.1). */
enum { PIECE = 128 << 10 };
#define SIZE_LIMIT ((size_t)1 << 48) /* AL-13 */

struct heap heap;
static char zero_object[HEAP_GRANULE] __attribute__((aligned(16))); /* AL-1 */

/* ---- zeroing ------------------------------------------------------------------------------------ */

/* Memory that other threads' conservative scans may be reading: not through the sanitizers' memset. */
static OS_UNSANITIZED void zero(char *start, size_t size)
{
#if OS_TSAN
    for (uint64_t *word = (uint64_t *)start; word < (uint64_t *)(start + size); word++)
        __atomic_store_n(word, 0, __ATOMIC_RELAXED);
#else
    __builtin_memset(start, 0, size);
#endif
}

/* ---- runs ------------------------------------------------------------------------------------------- */

static bool cell_is_free(const struct span *span, const struct layout *layout, uint32_t i)
{
    return !heap_cell_allocated((uintptr_t)span_start(span) + (size_t)i * layout->cell);
}

/* The first cell after `from`, or `end`, that is allocated; from itself is free.  By words: only bases have
 * bits, so the next bit that is set is the next allocated cell. */
static uint32_t free_until(const struct span *span, const struct layout *layout, uint32_t from, uint32_t end)
{
    uintptr_t start = (uintptr_t)span_start(span), last = start + (size_t)end * layout->cell;
    for (uintptr_t p = start + (size_t)from * layout->cell; p < last; p = (p | 1023) + 1) { /* 64 granules */
        uint64_t word = atomic_load_explicit(&heap_bits_of(p)->alloc, memory_order_relaxed);
        word >>= heap_bit(p) & 63;
        if (word == 0)
            continue;
        p += (size_t)__builtin_ctzll(word) * HEAP_GRANULE;
        return p < last ? (uint32_t)((p - start) / layout->cell) : end;
    }
    return end;
}

/* Bits 0, n, 2n, ... of a word. */
static uint64_t every(unsigned n)
{
    uint64_t bits = 1;
    for (; n < 64; n *= 2)
        bits |= bits << n;
    return bits;
}

/* Sets the bits of cells [from, to): the mark bits atomically (tracers set others in the same words), the
 * allocation bits plainly, since the flag is held. */
static void set_bits(struct span *span, const struct layout *layout, uint32_t from, uint32_t to, bool black)
{
    uintptr_t p = (uintptr_t)span_start(span) + (size_t)from * layout->cell;
    uintptr_t end = (uintptr_t)span_start(span) + (size_t)to * layout->cell;
    uint64_t bases = every(layout->cell / HEAP_GRANULE);
    while (p < end) {
        struct bits *bits = heap_bits_of(p);
        uint64_t mask = bases << (heap_bit(p) & 63);
        if (end <= (p | 1023)) /* the last word: 64 granules */
            mask &= ~(~(uint64_t)0 << (heap_bit(end) & 63));
        p += os_popcount(mask) * layout->cell;
        if (black)
            atomic_fetch_or_explicit(&bits->mark, mask, memory_order_release);
        /* release: pairs with heap_cell_allocated */
        atomic_store_explicit(&bits->alloc, atomic_load_explicit(&bits->alloc, memory_order_relaxed) | mask,
                              memory_order_release);
    }
}

/* Cells that were never handed out become free again: allocation bit first, then mark, so that a tracer
 * with a stale word, which reads them in the other order, never finds such a cell allocated and white. */
static void clear_bits(struct span *span, const struct layout *layout, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++) {
        uintptr_t p = (uintptr_t)span_start(span) + (size_t)i * layout->cell;
        struct bits *bits = heap_bits_of(p);
        uint64_t keep = ~heap_mask(p);
        atomic_store_explicit(&bits->alloc, atomic_load_explicit(&bits->alloc, memory_order_relaxed) & keep,
                              memory_order_release);
        atomic_fetch_and_explicit(&bits->mark, keep, memory_order_release);
    }
}

/* The collector reads the run from outside: number odd while it changes (protocol.md 6, M_TORN). */
static void run_set(struct grey_run_ *run, char *cursor, char *end, uint32_t cell, uint32_t span)
{
    uint32_t number = __atomic_load_n(&run->number, __ATOMIC_RELAXED);
    __atomic_store_n(&run->number, number + 1, __ATOMIC_RELAXED);
    atomic_thread_fence(memory_order_release); /* pairs with the acquire fence in heap_blacken_runs */
    __atomic_store_n(&run->cursor, cursor, __ATOMIC_RELAXED);
    __atomic_store_n(&run->end, end, __ATOMIC_RELAXED);
    __atomic_store_n(&run->cell, cell, __ATOMIC_RELAXED);
    __atomic_store_n(&run->span, span, __ATOMIC_RELAXED);
    __atomic_store_n(&run->number, number + 2, __ATOMIC_RELEASE);
}

/* Flag held, span swept.  False: no free cell. */
static bool take_run(struct span *span, struct grey_run_ *run, bool black)
{
    const struct layout *layout = &heap_layouts[span->layout];
    uint32_t from = span->free_index;
    while (from < layout->cells && !cell_is_free(span, layout, from))
        from++;
    span->free_index = from;
    if (from == layout->cells)
        return false;
    uint32_t most = RUN_BYTES / layout->cell, left = layout->cells - from;
    uint32_t to = most <= 1 ? from + 1 : free_until(span, layout, from, from + (left < most ? left : most));
    char *start = span_start(span) + (size_t)from * layout->cell;
    size_t bytes = (size_t)(to - from) * layout->cell;
    ASAN_UNPOISON_MEMORY_REGION(start, bytes);
    if (layout->kind != LAYOUT_LEAF && span->needs_zero)
        zero(start, bytes);
    atomic_thread_fence(memory_order_release); /* OR-8 */
    set_bits(span, layout, from, to, black);
    span->free_index = to;
    span->live += to - from;
    run_set(run, start, start + bytes, layout->cell, span_number(span));
    os_count(OS_COUNT_allocated_objects, to - from);
    os_count(OS_COUNT_allocated_bytes, bytes);
    os_count(OS_COUNT_refills, 1);
    if (black)
        os_count(OS_COUNT_born_black_bytes, bytes);
    return true;
}

/* heap.live is one word for all threads, and a run is at most 8 KiB: at 64 processors each adding its own the
 * word would be on its way from one to the other most of the time.  So a thread adds them up to a 1,024th of what
 * is live, 64 KiB at most: so
 * much a thread may the heap be larger than it seems; or smaller, when a cycle has counted what was not told of. */
static void flush_live(struct thread *thread)
{
    atomic_fetch_add_explicit(&heap.live, thread->live_pending, memory_order_relaxed);
    thread->live_pending = 0;
}
static void add_live(struct thread *self, uint64_t bytes)
{
    uint64_t most = atomic_load_explicit(&heap.live, memory_order_relaxed) / 1024;
    self->live_pending += bytes;
    if (self->live_pending >= (most < LIVE_PENDING ? most : LIVE_PENDING))
        flush_live(self);
}

static bool reads_black(uint64_t *sweep_cycle)
{
    /* acquire: pairs with the collector's stores in 1.2 and 1.7 */
    *sweep_cycle = atomic_load_explicit(&heap.sweep_cycle, memory_order_acquire);
    return atomic_load_explicit(&heap.black_cycle, memory_order_acquire) != *sweep_cycle;
}

/* In a section.  On success the run has at least one cell. */
static bool refill(struct thread *self, uint32_t index)
{
    struct grey_run_ *run = &self->runs[index];
    struct span *span = run->span != 0 ? &heap.spans[run->span] : NULL;
    for (;;) {
        if (span == NULL) {
            span = span_get(self, index);
            if (span == NULL)
                return false;
        }
        span_lock(span);
        uint64_t sweep_cycle;
        bool black = reads_black(&sweep_cycle);
        if (atomic_load_explicit(&span->swept, memory_order_relaxed) != (uint32_t)sweep_cycle)
            heap_calls.sweep(span);
        if (take_run(span, run, black)) {
            span_unlock(span);
            add_live(self, (uint64_t)(run->end - run->cursor));
            return true;
        }
        run_set(run, NULL, NULL, 0, 0);
        span_give_back(span);
        span_unlock(span);
        span = NULL;
    }
}

static void give_up_run(struct thread *thread, struct grey_run_ *run)
{
    if (run->span == 0)
        return;
    struct span *span = &heap.spans[run->span];
    const struct layout *layout = &heap_layouts[span->layout];
    span_lock(span);
    uint64_t sweep_cycle;
    bool black = reads_black(&sweep_cycle);
    if (atomic_load_explicit(&span->swept, memory_order_relaxed) != (uint32_t)sweep_cycle)
        heap_calls.sweep(span); /* the rest is marked, so it stays allocated */
    uint32_t from = (uint32_t)((size_t)(run->cursor - span_start(span)) / layout->cell);
    uint32_t to = (uint32_t)((size_t)(run->end - span_start(span)) / layout->cell);
    if (from < to) {
        clear_bits(span, layout, from, to);
        span->live -= to - from;
        if (span->free_index > from)
            span->free_index = from;
        uint64_t bytes = (uint64_t)(to - from) * layout->cell;
        os_count(OS_COUNT_allocated_objects, -(uint64_t)(to - from));
        os_count(OS_COUNT_allocated_bytes, -bytes);
        if (black)
            os_count(OS_COUNT_born_black_bytes, -bytes);
        flush_live(thread); /* first: the figure is never below 0 */
        atomic_fetch_sub_explicit(&heap.live, bytes, memory_order_relaxed);
    }
    run_set(run, NULL, NULL, 0, 0);
    span_give_back(span);
    span_unlock(span);
}

void heap_give_up_runs(struct thread *thread)
{
    for (uint32_t i = 0; i < thread->n_runs; i++)
        give_up_run(thread, &thread->runs[i]);
    flush_live(thread);
    spans_give_up_pages(thread);
    heap_calls.give_up_caches(thread);
}

/* ---- runs seen from outside --------------------------------------------------------------------------- */

static bool read_run(struct grey_run_ *run, char **cursor, char **end, uint32_t *cell, uint32_t *span)
{
    uint32_t number = __atomic_load_n(&run->number, __ATOMIC_ACQUIRE);
    *cursor = __atomic_load_n(&run->cursor, __ATOMIC_RELAXED);
    *end = __atomic_load_n(&run->end, __ATOMIC_RELAXED);
    *cell = __atomic_load_n(&run->cell, __ATOMIC_RELAXED);
    *span = __atomic_load_n(&run->span, __ATOMIC_RELAXED);
    atomic_thread_fence(memory_order_acquire);
    return (number & 1) == 0 && __atomic_load_n(&run->number, __ATOMIC_RELAXED) == number;
}

/* 1.2, after its FENCE.  A run whose number is odd or changed was taken since, so it is black already. */
size_t heap_blacken_runs(struct thread *thread)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < thread->n_runs; i++) {
        char *cursor, *end;
        uint32_t cell, span;
        if (!read_run(&thread->runs[i], &cursor, &end, &cell, &span) || cursor == end || FAULT(NO_REST))
            continue;
        for (char *p = cursor; p < end; p += cell)
            heap_mark((uintptr_t)p);
        bytes += (size_t)(end - cursor);
    }
    return bytes;
}

void heap_runs_left(struct thread *thread, uint64_t *bytes, uint64_t *cells)
{
    /* acquire: pairs with mutator_grow_runs; the array is at least as long as the length read before it */
    uint32_t n = __atomic_load_n(&thread->n_runs, __ATOMIC_ACQUIRE);
    struct grey_run_ *runs = __atomic_load_n(&thread->runs, __ATOMIC_ACQUIRE);
    for (uint32_t i = 0; i < n; i++) {
        char *cursor, *end;
        uint32_t cell, span;
        if (read_run(&runs[i], &cursor, &end, &cell, &span) && cursor != end) {
            *bytes += (uint64_t)(end - cursor);
            *cells += (uint64_t)(end - cursor) / cell;
        }
    }
}

/* ---- entering ------------------------------------------------------------------------------------------- */

struct thread *heap_thread(const char *what)
{
    struct thread *self = thread_self();
    if (UNLIKELY(self == NULL))
        return heap_calls.attach();
    if (UNLIKELY(thread_busy(self)))
        os_fatal(NULL, "%s in a signal handler that interrupted grey: handlers may not call grey", what);
    if (UNLIKELY(atomic_load_explicit(&self->state, memory_order_relaxed) != THREAD_RUNNING))
        os_fatal(NULL, "%s in a blocking region: leave it with grey_blocking_end first", what);
    return self;
}

/* Tries twice with a collection in between (AL-14). */
static bool memory_came_back(int attempt) { return attempt == 0 && heap_calls.collect_for_memory(); }

static void *out_of_memory(void)
{
    errno = ENOMEM;
    return NULL;
}

static void *small(struct thread *self, uint32_t index)
{
    void *p = grey_bump_(index);
    if (p != NULL)
        return p;
    if (index >= self->n_runs)
        heap_calls.grow_runs(self, index + 1);
    if (index >= self->n_runs)
        return out_of_memory();
    for (int attempt = 0;; attempt++) {
        thread_enter(self);
        HOOK(REFILL, NULL);
        bool done = refill(self, index);
        /* The first cell is this call's: taken inside the section, so that nobody else can. */
        p = done ? grey_bump_(index) : NULL;
        thread_leave(self);
        if (done)
            break;
        if (!memory_came_back(attempt))
            return out_of_memory();
    }
    heap_calls.allocated(self, (size_t)(self->runs[index].end - (char *)p));
    return p;
}

/* ---- large objects --------------------------------------------------------------------------------------- */

static struct span *build_large(struct thread *self, size_t pages, size_t alignment)
{
    for (int attempt = 0;; attempt++) {
        heap_calls.sweep_some(pages); /* SW-9 */
        thread_enter(self);
        struct span *span = span_build(self, pages, alignment);
        thread_leave(self);
        if (span != NULL || !memory_came_back(attempt))
            return span;
    }
}

static void *large(struct thread *self, size_t size, size_t alignment, uint32_t layout, uint32_t type,
                   bool zeroed)
{
    if (size > SIZE_LIMIT || size > heap.reserved)
        return out_of_memory();
    size_t pages = (size + GREY_PAGE - 1) >> GREY_PAGE_SHIFT;
    size_t align_pages = alignment > GREY_PAGE ? alignment >> GREY_PAGE_SHIFT : 1;
    struct span *span = build_large(self, pages, align_pages);
    if (span == NULL)
        return out_of_memory();
    char *start = span_start(span);
    ASAN_UNPOISON_MEMORY_REGION(start, span->bytes);
    /* Nobody knows the pages yet, so this needs no section and holds nobody up. */
    if (span->needs_zero && zeroed)
        for (size_t at = 0; at < span->bytes; at += PIECE) {
            zero(start + at, span->bytes - at < PIECE ? span->bytes - at : PIECE);
            grey_safepoint();
        }
    HOOK(LARGE_BEFORE_PUBLISH, start);
    thread_enter(self);
    span_lock(span);
    uint64_t sweep_cycle;
    bool black = reads_black(&sweep_cycle);
    HOOK(LARGE_NUMBERED, start);
    atomic_store_explicit(&span->swept, (uint32_t)sweep_cycle, memory_order_relaxed);
    span->type = type;
    span->live = 1;
    struct page_bits *bits = &heap.bits[span->first_page];
    if (black)
        atomic_fetch_or_explicit(&bits->word[0].mark, 1, memory_order_release);
    atomic_store_explicit(&bits->word[0].alloc, 1, memory_order_release);
    span_publish(span, layout, SPAN_LARGE);
    /* A sweep that began after the numbers were read has passed by what was not published yet, and the mark
     * would last into the next cycle.  seq_cst: the place is stored before the number is read again; pairs
     * with may_sweep, behind which the spans' places are looked at. */
    atomic_thread_fence(memory_order_seq_cst);
    if (UNLIKELY(atomic_load_explicit(&heap.sweep_cycle, memory_order_relaxed) != sweep_cycle))
        heap_calls.sweep(span);
    span_unlock(span);
    os_count(OS_COUNT_allocated_objects, 1);
    os_count(OS_COUNT_allocated_bytes, span->bytes);
    os_count(OS_COUNT_large_allocated, 1);
    atomic_fetch_add_explicit(&heap.live, span->bytes, memory_order_relaxed);
    if (black)
        os_count(OS_COUNT_born_black_bytes, span->bytes);
    size_t bytes = span->bytes;
    thread_leave(self);
    heap_calls.allocated(self, bytes);
    return start;
}

/* ---- the calls -------------------------------------------------------------------------------------------- */

static void *alloc_untyped(size_t size, bool leaf, const char *what)
{
    if (size == 0)
        return zero_object;
    struct thread *self = heap_thread(what);
    if (self == NULL)
        return out_of_memory();
    if (size <= HEAP_SMALL_MAX)
        return small(self, 2 * class_of(size) + leaf);
    return large(self, size, 0, leaf ? LAYOUT_OF_LARGE_LEAF : LAYOUT_OF_LARGE_CONSERVATIVE, 0, !leaf);
}

void *grey_alloc_slow_(size_t size) { return alloc_untyped(size, false, "allocation"); }
void *grey_alloc_leaf_slow_(size_t size) { return alloc_untyped(size, true, "allocation"); }

/* In pieces with a safepoint between (AL-7). */
static void *zero_leaf(char *p, size_t size)
{
    for (size_t at = 0; p != NULL && at < size; at += PIECE) {
        if (at != 0)
            grey_safepoint();
        memset(p + at, 0, size - at < PIECE ? size - at : PIECE);
    }
    return p;
}

void *grey_zalloc_leaf(size_t size)
{
    if (size == 0)
        return zero_object;
    return zero_leaf(grey_alloc_leaf(size), size);
}

void *grey_alloc_leaf_aligned(size_t align, size_t size)
{
    if (align == 0 || (align & (align - 1)) != 0 || align > (size_t)2 << 20) {
        errno = EINVAL;
        return NULL;
    }
    if (align <= HEAP_GRANULE || size == 0)
        return grey_alloc_leaf(size);
    if (size > SIZE_LIMIT)
        return out_of_memory();
    size_t rounded = align;
    while (rounded < size && rounded <= HEAP_SMALL_MAX)
        rounded *= 2;
    /* Cells of a power of two lie on its multiples, up to the page. */
    if (align <= GREY_PAGE && rounded <= HEAP_SMALL_MAX)
        return grey_alloc_leaf(rounded);
    struct thread *self = heap_thread("allocation");
    if (self == NULL)
        return out_of_memory();
    return large(self, size, align, LAYOUT_OF_LARGE_LEAF, 0, false);
}

/* bytes of objects of the type, zeroed; bytes is a multiple of its size. */
static void *alloc_typed(struct thread *self, uint32_t number, size_t bytes)
{
    const struct heap_type *type = heap_type(number);
    if (type->last == 0)
        return zero_leaf(grey_alloc_leaf(bytes), bytes);
    if (type->layout != 0 && bytes == type->size)
        return small(self, type->layout);
    if (type->all_pointers) {
        if (bytes <= HEAP_SMALL_MAX)
            return small(self, LAYOUT_OF_POINTERS + class_of(bytes));
        return large(self, bytes, 0, LAYOUT_OF_LARGE_POINTERS, 0, true);
    }
    if (bytes > HEAP_SMALL_MAX - sizeof(uint64_t))
        return large(self, bytes, 0, LAYOUT_OF_LARGE_TYPED, number + 1, true);
    uint32_t layout = LAYOUT_OF_HEADERS + class_of(bytes + sizeof(uint64_t));
    char *p = small(self, layout);
    /* A tracer that comes before this finds 0: nothing is there yet, and what comes later comes through
     * the barrier. */
    if (p != NULL)
        __atomic_store_n((uint64_t *)(p + heap_layouts[layout].cell) - 1, number + 1, __ATOMIC_RELEASE);
    return p;
}

static void *new_objects(const struct grey_type *type, size_t count)
{
    if (type == NULL || type->run == NULL || type->size == 0) {
        errno = EINVAL;
        return NULL;
    }
    if (count > PTRDIFF_MAX / type->size || count * type->size > SIZE_LIMIT) {
        errno = EOVERFLOW;
        return NULL;
    }
    if (count == 0)
        return zero_object;
    struct thread *self = heap_thread("allocation");
    if (self == NULL)
        return out_of_memory();
    thread_enter(self);
    int64_t number = type_intern(type);
    thread_leave(self);
    return number < 0 ? NULL : alloc_typed(self, (uint32_t)number, count * type->size);
}

void *grey_new_slow_(const struct grey_type *type) { return new_objects(type, 1); }
void *grey_new_array(const struct grey_type *type, size_t count) { return new_objects(type, count); }

char *grey_strdup(const char *string)
{
    if (string == NULL) {
        errno = EINVAL;
        return NULL;
    }
    size_t size = strlen(string) + 1;
    char *copy = grey_alloc_leaf(size);
    return copy != NULL ? memcpy(copy, string, size) : NULL;
}

/* ---- realloc ------------------------------------------------------------------------------------------------ */

static void *alloc_like(struct thread *self, const struct heap_object *object, size_t size)
{
    const struct layout *layout = &heap_layouts[object->layout];
    bool fits = size <= HEAP_SMALL_MAX;
    switch ((enum layout_kind)layout->kind) {
    case LAYOUT_LEAF:
        return grey_alloc_leaf(size);
    case LAYOUT_POINTERS:
        return fits ? small(self, LAYOUT_OF_POINTERS + class_of(size))
                    : large(self, size, 0, LAYOUT_OF_LARGE_POINTERS, 0, true);
    case LAYOUT_MASK: {
        size_t unit = heap_type(layout->type)->size;
        return alloc_typed(self, layout->type, (size + unit - 1) / unit * unit);
    }
    case LAYOUT_HEADER:
    case LAYOUT_LARGE_TYPED: {
        uint64_t header =
            layout->kind == LAYOUT_HEADER
                ? __atomic_load_n((uint64_t *)(object->base + object->size) - 1, __ATOMIC_RELAXED)
                : heap_span_of(object->base)->type;
        size_t unit = heap_type((uint32_t)header - 1)->size;
        return alloc_typed(self, (uint32_t)header - 1, (size + unit - 1) / unit * unit);
    }
    case LAYOUT_CONSERVATIVE:
        break;
    }
    return grey_alloc(size);
}

void *grey_realloc(void *p, size_t size)
{
    if (p == NULL)
        return grey_alloc(size);
    if (size == 0)
        return zero_object;
    if (p == (void *)zero_object)
        return grey_alloc(size);
    struct thread *self = heap_thread("grey_realloc");
    if (self == NULL)
        return out_of_memory();
    struct heap_object object;
    if (!heap_find((uintptr_t)p, &object) || object.base != (uintptr_t)p) {
        errno = EINVAL;
        return NULL;
    }
    if (size > SIZE_LIMIT)
        return out_of_memory();
    size_t usable = heap_usable(&object);
    bool leaf = heap_layouts[object.layout].kind == LAYOUT_LEAF;
    /* In place while it fits and half of it is used; what a shrink leaves is cleared, so that a later
     * growth finds zeroes (AL-23). */
    if (size <= usable && (size > usable / 2 || usable <= HEAP_GRANULE)) {
        if (!leaf)
            grey_clear((char *)p + size, usable - size);
        return p;
    }
    void *copy = alloc_like(self, &object, size);
    if (copy == NULL)
        return NULL;
    size_t kept = usable < size ? usable : size;
    if (leaf)
        memcpy(copy, p, kept);
    else
        grey_move(copy, p, kept);
    return copy;
}
