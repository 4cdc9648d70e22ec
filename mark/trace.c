/* mark/trace.c -- the mark loop.
 *
 * Marking is bound by cache misses, so each edge is met three times, with a prefetch between (figures in
 * docs/limits.md; the two rings are the difference between 150 and 40 ns an object):
 *
 *     edge found -> prefetch its page's mark line  -> ring of 32
 *          -> test the mark; if it is clear: find the base, check the cell, set the mark
 *          -> stack -> prefetch the object's lines -> ring of 16
 *          -> scan it
 *
 * The raw bit at the word's own address is tested first: pointers mostly go to bases, and most edges lead
 * to what is marked.  Everything here is scalar; SIMD lost wherever it was tried, but for picking the words
 * that may be pointers out of large blocks (filter.c).
 *
 * What sits in a ring or on the private stack can't be stolen, and counts in work_pending through the
 * tracer's tokens; so a tracer that stops publishes everything first.
 *
 * A slot is read once, whole, while the program may be storing to it: any value it holds or held since
 * the cycle began is marked by somebody (the old one if it was reachable, the new one by the barrier).
 */
#include "arena/arena.h"
#include "foreign/epoch.h"
#include "foreign/foreign.h"
#include "mark/internal.h"
#include "os/options.h"

#define CONSERVATIVE ((uintptr_t)1 << 63) /* user addresses have at most 48 bits (OS-19) */
/* What the stack and the second ring hold: a marked object's base; or, with PIECE, where its next piece begins.
 * Above its 48 bits its layout + 1, or 0: to be looked up; with TWO_LINES its pointers reach into the line
 * after that of its base.  Both are what resolve knows already, and scan would have to fetch again. */
enum { PIECE = 1, TWO_LINES = 2, LAYOUT_SHIFT = 48 };
#define REFERENCE_ADDRESS (((uintptr_t)1 << LAYOUT_SHIFT) - HEAP_GRANULE)
_Static_assert(LAYOUT_MAX < 1 << (64 - LAYOUT_SHIFT), "a layout fits above an address");
/* Objects between looks at the clock and at idle tracers, if tracer->step is not reached before: one for so
 * many bytes of a step, since each object costs about two cache misses whatever its size. */
enum { STEP_OBJECT = 128 };
/* Looks between two times that the rings are emptied for the sake of idle tracers: refilling them costs some 50
 * cache misses. */
enum { SPILL_LOOKS = 16 };

_Atomic uint32_t mark_gate;
_Atomic uint64_t mark_scanned, mark_tracer_bytes;
_Atomic int64_t mark_credit;

/* ---- tracers ------------------------------------------------------------------------------------------ */

struct tracer *tracer_new(bool assist)
{
    size_t page = os_page_size();
    struct tracer *tracer = os_alloc((sizeof(struct tracer) + page - 1) & ~(page - 1), OS_MARK);
    if (tracer != NULL) {
        tracer->assist = assist;
        tracer->step = assist ? ASSIST_STEP : WORKER_STEP;
    }
    return tracer;
}
void tracer_free(struct tracer *tracer)
{
    size_t page = os_page_size(), size = (sizeof(struct tracer) + page - 1) & ~(page - 1);
    if (tracer != NULL)
        os_free(tracer, size, OS_MARK, size, size);
}

static void drop_for_rescan(void)
{
    atomic_store_explicit(&work_overflowed, 1, memory_order_seq_cst);
    atomic_store_explicit(&work_clean, 0, memory_order_seq_cst);
}

/* Gives up to `most` of the newest entries to the pool; false: no memory for a block. */
static bool share(struct tracer *tracer, size_t most)
{
    struct mark_block *block = work_block_get();
    if (block == NULL)
        return false;
    size_t n = most < MARK_BLOCK_ENTRIES ? most : MARK_BLOCK_ENTRIES;
    if (n > tracer->depth)
        n = tracer->depth;
    tracer->depth -= n;
    for (size_t i = 0; i < n; i++)
        block->entry[i] = tracer->stack[tracer->depth + i];
    block->count = (uint32_t)n;
    work_push(block, false);
    return true;
}

static inline void push(struct tracer *tracer, uintptr_t reference)
{
    if (UNLIKELY(tracer->depth == TRACER_STACK) && !share(tracer, MARK_BLOCK_ENTRIES)) {
        tracer->depth /= 2; /* no room and no memory: found again by a rescan */
        drop_for_rescan();
    }
    tracer->stack[tracer->depth++] = reference;
}

/* ---- edges ---------------------------------------------------------------------------------------------- */

/* MK-14, SW-5: a typed slot that points at no object.  Conservative words may. */
static void bad_pointer(uintptr_t word, bool free_cell)
{
    if (!os_debug.invalidptr || (word & (GREY_PAGE - 1)) == 0)
        return; /* a page's first byte may be one past the end of what lies before */
    struct heap_object object;
    bool found = heap_find(word, &object);
    if (free_cell) {
        const struct span *span = heap_span_of(word);
        uint32_t cell = heap_layouts[span->layout].cell; /* 0: a large object that is being freed */
        if (!os_debug.checkmark && cell != 0 && (word - (uintptr_t)span_start(span)) % cell == 0)
            return; /* a cell's first byte: the same */
        os_fatal(
            (void *)word,
            "found pointer to free object: a typed slot holds %p, whose cell is free; a hidden pointer, a "
            "store without grey_store, or a missed mark two cycles ago",
            (void *)word);
    }
    if (!found)
        os_fatal((void *)word, "found bad pointer in heap: a typed slot holds %p, which is in no span",
                 (void *)word);
}

/* What the word points to has no mark at its own address.  Marks it; true if this call did. */
static __attribute__((noinline)) bool resolve_white(struct tracer *tracer, uintptr_t word, struct bits *bits)
{
    uintptr_t p = word & ~CONSERVATIVE;
    size_t page = heap_page(p);
    /* acquire: pairs with span_publish */
    uint32_t info = atomic_load_explicit(&heap.info[page], memory_order_acquire);
    if (UNLIKELY(info == 0)) {
        if (!(word & CONSERVATIVE))
            bad_pointer(p, false);
        return false;
    }
    uint32_t number = heap_info_layout(info);
    const struct layout *layout = &heap_layouts[number];
    uintptr_t base;
    size_t size;
    if (UNLIKELY(layout->cell == 0)) {
        const struct span *span = heap_span_of(p);
        base = (uintptr_t)span_start(span);
        size = span->bytes;
    } else {
        uintptr_t start = (uintptr_t)heap_page_address(page - heap_info_offset(info));
        uint32_t index = (uint32_t)((uint64_t)(p - start) * layout->inverse >> 32);
        if (UNLIKELY(index >= layout->cells))
            return false;
        base = start + (size_t)index * layout->cell;
        size = layout->cell;
    }
    uint64_t mask = heap_mask(base);
    if (UNLIKELY(base != p)) {
        bits = heap_bits_of(base);
        if (atomic_load_explicit(&bits->mark, memory_order_relaxed) & mask)
            return false;
    }
    if (UNLIKELY((atomic_load_explicit(&bits->alloc, memory_order_acquire) & mask) == 0)) {
        if (!(word & CONSERVATIVE))
            bad_pointer(p, true);
        return false;
    }
    if (!heap_mark_cell_at(bits, base, mask))
        return false;
    tracer->marked_objects++;
    tracer->marked_bytes += size;
    if (layout->kind != LAYOUT_LEAF)
        push(tracer, base | (uintptr_t)(number + 1) << LAYOUT_SHIFT |
                         ((base & 63) + layout->reach >= 64 ? TWO_LINES : 0));
    return true;
}

/* Marks what the word points to; true if this call did. */
static inline bool resolve(struct tracer *tracer, uintptr_t word)
{
    struct bits *bits = heap_bits_of(word & ~CONSERVATIVE);
    if (atomic_load_explicit(&bits->mark, memory_order_relaxed) & heap_mask(word))
        return false;
    return resolve_white(tracer, word, bits);
}

static inline void edge(struct tracer *tracer, uintptr_t word)
{
    __builtin_prefetch(heap_bits_of(word & ~CONSERVATIVE));
    unsigned at = tracer->edge_at++ % EDGE_RING;
    uintptr_t old = tracer->edge[at];
    tracer->edge[at] = word;
    if (LIKELY(old != 0))
        resolve(tracer, old);
}

static void flush_edges(struct tracer *tracer)
{
    for (unsigned i = 0; i < EDGE_RING; i++) {
        uintptr_t word = tracer->edge[(tracer->edge_at + i) % EDGE_RING];
        tracer->edge[(tracer->edge_at + i) % EDGE_RING] = 0;
        if (word != 0)
            resolve(tracer, word);
    }
}

/* A word within the bounds of what lies outside the heap: in a chunk of an arena, a foreign region or between.
 * stack: one past the end counts. */
static __attribute__((noinline)) bool mark_outside(struct tracer *tracer, uintptr_t word, bool stack)
{
    bool white = outside_is_of(OUTSIDE_CHUNKS, word) && arena_mark(word, stack);
    return white | foreign_mark(tracer, word, stack);
}

void tracer_word(struct tracer *tracer, uintptr_t word)
{
    if (heap_contains(word))
        edge(tracer, word | CONSERVATIVE);
    else if (UNLIKELY(outside_may_matter(word)))
        mark_outside(tracer, word, false);
}

bool tracer_stack_word(struct tracer *tracer, uintptr_t word)
{
    bool white = heap_contains(word) && resolve(tracer, word | CONSERVATIVE);
    /* The first byte of a cell is also one past the end of the one before. */
    if ((word & (HEAP_GRANULE - 1)) == 0 && heap_contains(word - 1))
        white |= resolve(tracer, (word - 1) | CONSERVATIVE);
    if (UNLIKELY(outside_may_matter(word)))
        white |= mark_outside(tracer, word, true);
    return white;
}

/* ---- scanning ------------------------------------------------------------------------------------------------ */

/* acquire: pairs with the release in grow (pages.c), which mapped the tables.  A function of its own, which is
 * not put into those that ThreadSanitizer does not see: it must see this. */
static inline size_t heap_extent(void) { return atomic_load_explicit(&heap.extent, memory_order_acquire); }

/* A large block: what may matter is picked out first, then met (filter.c).  kind: CONSERVATIVE or 0.
 * A piece is waited for as a whole, so its lines are asked for while the one before is worked on.  The first
 * is the rest of the two lines that advance asked for; the others begin with a line. */
static __attribute__((noinline)) void scan_large(struct tracer *tracer, const uintptr_t *at, size_t size,
                                                 uintptr_t kind)
{
    const struct filter_bounds bounds = {(uintptr_t)heap.base, heap_extent(), tracer->outside};
    size_t left = size / sizeof(uintptr_t),
           most = FILTER_FIRST - (uintptr_t)at / sizeof(uintptr_t) % LINE_WORDS;
    for (size_t n; left != 0; at += n, left -= n, most = FILTER_WORDS) {
        n = left < most ? left : most;
        for (size_t i = n; i < left && i < n + FILTER_WORDS; i += LINE_WORDS)
            __builtin_prefetch(at + i);
        size_t count = filter_words(&bounds, at, n, tracer->found);
        if (LIKELY(bounds.outside.length == 0)) {
            for (size_t i = 0; i < count; i++)
                edge(tracer, tracer->found[i] | kind);
            continue;
        }
        for (size_t i = 0; i < count; i++) {
            uintptr_t word = tracer->found[i];
            if (LIKELY(word - bounds.base < bounds.extent))
                edge(tracer, word | kind);
            else
                mark_outside(tracer, word, false);
        }
    }
    tracer->scanned += size;
}

OS_UNSANITIZED void tracer_words(struct tracer *tracer, const void *start, size_t size)
{
    if (size > FILTER_ABOVE) {
        scan_large(tracer, start, size, CONSERVATIVE);
        return;
    }
    uintptr_t base = (uintptr_t)heap.base;
    size_t extent = heap_extent();
    struct outside outside = tracer->outside;
    const volatile uintptr_t *slot = start, *end = slot + size / sizeof(uintptr_t);
    for (; slot < end; slot++) {
        uintptr_t word = *slot;
        if (word - base < extent)
            edge(tracer, word | CONSERVATIVE);
        else if (UNLIKELY(word - outside.low < outside.length))
            mark_outside(tracer, word, false);
    }
    tracer->scanned += size;
}

static OS_UNSANITIZED void scan_pointers(struct tracer *tracer, uintptr_t at, size_t size)
{
    if (size > FILTER_ABOVE) {
        scan_large(tracer, (const uintptr_t *)at, size, 0);
        return;
    }
    uintptr_t base = (uintptr_t)heap.base;
    size_t extent = heap_extent();
    struct outside outside = tracer->outside;
    const volatile uintptr_t *slot = (const volatile uintptr_t *)at, *end = slot + size / sizeof(uintptr_t);
    for (; slot < end; slot++) {
        uintptr_t word = *slot;
        if (word - base < extent)
            edge(tracer, word);
        else if (UNLIKELY(word - outside.low < outside.length))
            mark_outside(tracer, word, false);
    }
    tracer->scanned += size;
}

/* The common case, and so all of it in the loop. */
static OS_UNSANITIZED_INLINE void scan_mask(struct tracer *tracer, uintptr_t at, uint64_t mask)
{
    uintptr_t base = (uintptr_t)heap.base;
    size_t extent = heap_extent();
    struct outside outside = tracer->outside;
    const volatile uintptr_t *words = (const volatile uintptr_t *)at;
    for (; mask != 0; mask &= mask - 1) {
        uintptr_t word = words[__builtin_ctzll(mask)];
        if (word - base < extent)
            edge(tracer, word);
        else if (UNLIKELY(word - outside.low < outside.length))
            mark_outside(tracer, word, false);
    }
}

void tracer_mask(struct tracer *tracer, uintptr_t at, uint64_t mask)
{
    scan_mask(tracer, at, mask);
    tracer->scanned += os_popcount(mask) * sizeof(uintptr_t);
}

/* Elements of the type from byte `from` of the object to `to`; from need not be an element's start. */
static OS_UNSANITIZED void scan_typed(struct tracer *tracer, uintptr_t object, size_t from, size_t to,
                                      const struct heap_type *type)
{
    uintptr_t base = (uintptr_t)heap.base;
    size_t extent = heap_extent();
    struct outside outside = tracer->outside;
    if (type->size % sizeof(uintptr_t) != 0) { /* later elements are not aligned: no word is a pointer */
        if (from >= type->size)
            return;
        to = to < type->size ? to : type->size;
    }
    size_t start = from / type->size * type->size;
    for (; start + sizeof(uintptr_t) <= to; start += type->size)
        for (size_t i = 0; i < type->last; i++) {
            size_t offset = start + i * sizeof(uintptr_t);
            if (!(type->bits[i / 64] >> i % 64 & 1) || offset < from)
                continue;
            if (offset + sizeof(uintptr_t) > to)
                break;
            uintptr_t word = *(const volatile uintptr_t *)(object + offset);
            if (word - base < extent)
                edge(tracer, word);
            else if (UNLIKELY(word - outside.low < outside.length))
                mark_outside(tracer, word, false);
        }
    tracer->scanned += to - from;
}

/* The cell that `at`, the object's base or where its next piece begins, lies in, up to where pointers end. */
static uintptr_t object_at(uintptr_t at, const struct layout *layout, size_t *size)
{
    if (layout->cell == 0) {
        const struct span *span = heap_span_of(at);
        *size = span->bytes;
        return (uintptr_t)span_start(span);
    }
    uint32_t info = atomic_load_explicit(&heap.info[heap_page(at)], memory_order_relaxed);
    uintptr_t start = (uintptr_t)heap_page_address(heap_page(at) - heap_info_offset(info));
    uint32_t index = (uint32_t)((uint64_t)(at - start) * layout->inverse >> 32);
    *size = layout->kind == LAYOUT_HEADER ? layout->cell - sizeof(uint64_t) : layout->cell;
    return start + (size_t)index * layout->cell;
}

/* What is larger than a step, one step of it (MK-3).  The rest is pushed first: others may take it. */
static void scan_piece(struct tracer *tracer, uintptr_t at, const struct layout *layout)
{
    size_t size;
    uintptr_t object = object_at(at, layout, &size);
    size_t from = at - object, to = size;
    if (to - from > tracer->step) {
        to = from + tracer->step;
        push(tracer, (object + to) | PIECE);
    }
    if (layout->kind == LAYOUT_CONSERVATIVE) {
        tracer_words(tracer, (const void *)at, to - from);
    } else if (layout->kind == LAYOUT_POINTERS) {
        scan_pointers(tracer, at, to - from);
    } else if (layout->kind == LAYOUT_HEADER) {
        uint64_t header = __atomic_load_n((uint64_t *)(object + size), __ATOMIC_ACQUIRE);
        if (header != 0) /* else nothing is there yet (2.4) */
            scan_typed(tracer, object, from, to, heap_type((uint32_t)header - 1));
    } else {
        scan_typed(tracer, object, from, to, heap_type(heap_span_of(at)->type - 1));
    }
}

static uint32_t layout_at(uintptr_t at)
{
    return heap_info_layout(atomic_load_explicit(&heap.info[heap_page(at)], memory_order_relaxed));
}

static __attribute__((noinline)) void scan_other(struct tracer *tracer, uintptr_t reference,
                                                 const struct layout *layout)
{
    uintptr_t at = reference & REFERENCE_ADDRESS;
    if (layout->cell == 0 || layout->cell > tracer->step || (reference & PIECE)) {
        scan_piece(tracer, at, layout);
    } else if (layout->kind == LAYOUT_CONSERVATIVE) {
        tracer_words(tracer, (const void *)at, layout->cell);
    } else if (layout->kind == LAYOUT_POINTERS) {
        scan_pointers(tracer, at, layout->cell);
    } else if (layout->kind == LAYOUT_HEADER) {
        uint64_t header = __atomic_load_n((uint64_t *)(at + layout->cell) - 1, __ATOMIC_ACQUIRE);
        if (header != 0)
            scan_typed(tracer, at, 0, layout->cell - sizeof(uint64_t), heap_type((uint32_t)header - 1));
    }
}

static inline void scan(struct tracer *tracer, uintptr_t reference)
{
    uintptr_t at = reference & REFERENCE_ADDRESS;
    uint32_t number = (uint32_t)(reference >> LAYOUT_SHIFT);
    if (UNLIKELY(number == 0))
        number = layout_at(at) + 1;
    const struct layout *layout = &heap_layouts[number - 1];
    HOOK(MARK_SCAN, (void *)at);
    if (LIKELY(layout->kind == LAYOUT_MASK)) {
        scan_mask(tracer, at, layout->mask);
        tracer->scanned += layout->cell;
    } else {
        scan_other(tracer, reference, layout);
    }
}

void tracer_scan_object(struct tracer *tracer, uintptr_t base) { scan(tracer, base); }

/* ---- the loop ---------------------------------------------------------------------------------------------------- */

/* One object into the ring, the oldest out of it. */
static inline void advance(struct tracer *tracer)
{
    uintptr_t next = tracer->stack[--tracer->depth];
    uintptr_t at_line = next & REFERENCE_ADDRESS;
    __builtin_prefetch((const void *)at_line);
    __builtin_prefetch((const void *)(at_line + (next & TWO_LINES) * (64 / TWO_LINES)));
    unsigned at = tracer->scan_at++ % SCAN_RING;
    uintptr_t old = tracer->scan[at];
    tracer->scan[at] = next;
    if (LIKELY(old != 0))
        scan(tracer, old);
}

/* The oldest object in the ring: one at a time, since each may be a whole piece.  False: it is empty. */
static bool scan_oldest(struct tracer *tracer)
{
    for (unsigned i = 0; i < SCAN_RING; i++) {
        unsigned at = (tracer->scan_at + i) % SCAN_RING;
        uintptr_t reference = tracer->scan[at];
        if (reference == 0)
            continue;
        tracer->scan[at] = 0;
        scan(tracer, reference);
        return true;
    }
    return false;
}

static bool others_idle(void)
{
    return atomic_load_explicit(&work_idle, memory_order_relaxed) != 0 && !work_available();
}

/* Everything onto the stack. */
static void empty_rings(struct tracer *tracer)
{
    flush_edges(tracer);
    for (unsigned i = 0; i < SCAN_RING; i++) {
        if (tracer->scan[i] != 0)
            push(tracer, tracer->scan[i]);
        tracer->scan[i] = 0;
    }
}

/* Half of what is held, so that who is idle has something to do.  Where the graph is narrow the rings hold
 * all of it: 64 lists leave 16 entries on the stack, and were one worker's alone. */
static void give_half(struct tracer *tracer)
{
    if (tracer->depth < EDGE_RING + SCAN_RING) {
        if (tracer->looks - tracer->spilled < SPILL_LOOKS)
            return;
        tracer->spilled = tracer->looks;
        empty_rings(tracer);
    }
    size_t half = tracer->depth / 2;
    if (half != 0 && share(tracer, half < WORK_SHARE ? half : WORK_SHARE))
        work_wake();
}

struct epoch_reader **tracer_reader(struct tracer *tracer) { return &tracer->reader; }
void tracer_look_outside(struct tracer *tracer) { tracer->outside = outside_read(); }

bool tracer_drain(struct tracer *tracer, size_t bytes, uint64_t deadline)
{
    uint64_t end = tracer->scanned + bytes;
    for (;;) {
        uint64_t look = tracer->scanned + tracer->step;
        for (size_t i = tracer->step / STEP_OBJECT; i != 0 && tracer->depth != 0 && tracer->scanned < look;
             i--)
            advance(tracer);
        /* The edges last: the longer they wait, the more of their lines have come. */
        bool more = true;
        while (tracer->depth == 0 && tracer->scanned < look && more)
            more = scan_oldest(tracer);
        if (tracer->depth == 0 && !more) {
            flush_edges(tracer);
            if (tracer->depth == 0)
                return true;
        }
        tracer->looks++;
        if (!tracer->assist && others_idle())
            give_half(tracer);
        if (tracer->scanned >= end || (deadline != 0 && os_now() >= deadline))
            return false;
    }
}

bool tracer_claim(struct tracer *tracer)
{
    struct mark_block *block = work_pop();
    if (block == NULL)
        return false;
    tracer->tokens++;
    uint32_t count = block->count;
    for (uint32_t i = 0; i < count; i++)
        push(tracer, block->entry[i]);
    work_block_put(block);
    return true;
}

void tracer_give_tokens(struct tracer *tracer)
{
    os_count(OS_COUNT_marked_objects, tracer->marked_objects);
    os_count(OS_COUNT_marked_bytes, tracer->marked_bytes);
    os_count(OS_COUNT_scanned_heap_bytes, tracer->scanned);
    atomic_fetch_add_explicit(&mark_tracer_bytes, tracer->marked_bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&mark_scanned, tracer->scanned, memory_order_relaxed);
    tracer->credit += tracer->scanned;
    tracer->marked_objects = tracer->marked_bytes = tracer->scanned = 0;
    if (tracer->tokens == 0)
        return;
    uint64_t tokens = tracer->tokens;
    tracer->tokens = 0;
    /* release: what was marked is visible to who sees the count (acquire in mark_idle) */
    if (atomic_fetch_sub_explicit(&work_pending, tokens, memory_order_acq_rel) == tokens)
        work_done();
}

void tracer_publish(struct tracer *tracer)
{
    empty_rings(tracer);
    bool left = tracer->depth != 0;
    while (tracer->depth != 0)
        if (!share(tracer, MARK_BLOCK_ENTRIES)) {
            tracer->depth = 0;
            drop_for_rescan();
        }
    if (left && !tracer->assist)
        work_wake();
    tracer_give_tokens(tracer);
}

/* ---- contents, for the verifier ---------------------------------------------------------------------- */

static OS_UNSANITIZED uintptr_t load_word(uintptr_t slot) { return *(const volatile uintptr_t *)slot; }

static bool is_pointer_word(const struct heap_object *object, const struct layout *layout,
                            const struct heap_type *type, size_t word)
{
    switch ((enum layout_kind)layout->kind) {
    case LAYOUT_LEAF:
        return false;
    case LAYOUT_CONSERVATIVE:
    case LAYOUT_POINTERS:
        return true;
    case LAYOUT_MASK:
        return word < 64 && (layout->mask >> word & 1);
    case LAYOUT_HEADER:
    case LAYOUT_LARGE_TYPED:
        break;
    }
    if (type == NULL || (word + 1) * sizeof(uintptr_t) > heap_usable(object))
        return false;
    size_t offset = word * sizeof(uintptr_t);
    if (type->size % sizeof(uintptr_t) != 0 && offset >= type->size)
        return false;
    size_t in_type = offset % type->size / sizeof(uintptr_t);
    return in_type < type->last && (type->bits[in_type / 64] >> in_type % 64 & 1);
}

void object_words(const struct heap_object *object, void (*fn)(const void *slot, uintptr_t word, void *arg),
                  void *arg)
{
    const struct layout *layout = &heap_layouts[object->layout];
    if (layout->kind == LAYOUT_LEAF)
        return;
    const struct heap_type *type = NULL;
    if (layout->kind == LAYOUT_LARGE_TYPED) {
        type = heap_type(heap_span_of(object->base)->type - 1);
    } else if (layout->kind == LAYOUT_HEADER) {
        uint64_t header = load_word(object->base + object->size - sizeof(uint64_t));
        type = header != 0 ? heap_type((uint32_t)header - 1) : NULL;
    }
    for (size_t i = 0; i < object->size / sizeof(uintptr_t); i++) {
        uintptr_t slot = object->base + i * sizeof(uintptr_t), word = load_word(slot);
        if ((heap_contains(word) || outside_may_matter(word)) && is_pointer_word(object, layout, type, i))
            fn((const void *)slot, word, arg);
    }
}
