/* heap/pages.c -- the page allocator: address-ordered first fit over a bitmap.
 *
 * One bit a page, 1 = free.  Each chunk of 8 MiB (1024 pages) has a summary of its bitmap: free pages
 * at its start, the longest free run, free pages at its end.  A search walks the summaries in address
 * order and carries the run that ends the previous chunk, so that runs may cross chunks; only the chunk
 * that is known to hold the answer is looked at in detail (the idea is Go's mpagealloc.go, with one
 * level instead of five: a 1 TiB heap has 131,072 chunks, and nothing here is on a hot path).
 *
 * Two more bits a page: "dirty", it has held objects since it came from the system, so who takes it has
 * to zero it; "released", it was given back and costs nothing until used.
 *
 * Everything is under one lock, which is held for bitmaps and summaries and for mapping another chunk,
 * never while memory is zeroed.  Holders are in busy sections or collector threads.
 */
#include "heap/pages.h"
#include "inspect/gauges.h"

#include <errno.h>
#include <string.h>

struct summary {
    uint16_t start, longest, end;
};

enum { WORDS = HEAP_CHUNK_PAGES / 64 };

static struct os_lock pages_lock = OS_LOCK_INIT(OS_RANK_PAGES);
static uint64_t *free_bits, *dirty_bits, *released_bits;
static struct summary *summaries;
static size_t n_chunks;    /* mapped */
static size_t first_chunk; /* no free page below it */
static _Atomic uint64_t n_free, n_released;

/* A flat table indexed by page or chunk: reserved for the whole heap, made ready as the heap grows. */
struct table {
    char *start;
    size_t reserved, ready, per_chunk;
    const char *name;
    enum os_class class;
};
enum { TABLE_BITS, TABLE_INFO, TABLE_SPAN, TABLE_FREE, TABLE_DIRTY, TABLE_RELEASED, TABLE_SUMMARY, TABLES };
static struct table tables[TABLES];
/* Tables grow in steps of this, so that the bits get huge pages once the heap is 128 MiB. */
static const size_t table_step = (size_t)2 << 20;

static int table_init(int which, size_t per_chunk)
{
    struct table *table = &tables[which];
    table->per_chunk = per_chunk;
    table->reserved = per_chunk * (heap.reserved >> HEAP_CHUNK_SHIFT);
    table->reserved = (table->reserved + table_step - 1) & ~(table_step - 1);
    table->ready = 0;
    size_t kept = table->reserved;
    table->start = os_reserve_aligned(NULL, &kept, table_step);
    if (table->start == NULL)
        return ENOMEM;
    table->reserved = kept;
    return 0;
}

static int table_extend(int which, size_t chunks)
{
    struct table *table = &tables[which];
    size_t need = table->per_chunk * chunks;
    if (need <= table->ready)
        return 0;
    size_t step = need > table_step ? table_step : os_page_size();
    size_t end = (need + step - 1) & ~(step - 1);
    if (end > table->reserved)
        end = table->reserved;
    char *start = table->start + table->ready;
    int error = os_map(start, end - table->ready, OS_BITS, "grey: metadata");
    if (error != 0)
        return error;
    error = os_used(start, end - table->ready, end - table->ready);
    if (error != 0)
        return error;
    if (step == table_step)
        os_huge(start, end - table->ready);
    table->ready = end;
    return 0;
}

int pages_init(void)
{
    static const size_t per_chunk[TABLES] = {[TABLE_BITS] = HEAP_CHUNK_PAGES * sizeof(struct page_bits),
                                             [TABLE_INFO] = HEAP_CHUNK_PAGES * 4,
                                             [TABLE_SPAN] = HEAP_CHUNK_PAGES * 4,
                                             [TABLE_FREE] = HEAP_CHUNK_PAGES / 8,
                                             [TABLE_DIRTY] = HEAP_CHUNK_PAGES / 8,
                                             [TABLE_RELEASED] = HEAP_CHUNK_PAGES / 8,
                                             [TABLE_SUMMARY] = sizeof(struct summary)};
    os_lock_init(&pages_lock, OS_RANK_PAGES);
    for (int i = 0; i < TABLES; i++) {
        int error = table_init(i, per_chunk[i]);
        if (error != 0) {
            pages_shutdown();
            return error;
        }
    }
    heap.bits = (struct page_bits *)tables[TABLE_BITS].start;
    heap.info = (_Atomic uint32_t *)tables[TABLE_INFO].start;
    heap.page_span = (_Atomic uint32_t *)tables[TABLE_SPAN].start;
    free_bits = (uint64_t *)tables[TABLE_FREE].start;
    dirty_bits = (uint64_t *)tables[TABLE_DIRTY].start;
    released_bits = (uint64_t *)tables[TABLE_RELEASED].start;
    summaries = (struct summary *)tables[TABLE_SUMMARY].start;
    n_chunks = first_chunk = 0;
    atomic_store(&n_free, 0);
    atomic_store(&n_released, 0);
    return 0;
}

void pages_shutdown(void)
{
    for (int i = 0; i < TABLES; i++) {
        if (tables[i].start != NULL)
            os_free(tables[i].start, tables[i].reserved, OS_BITS, tables[i].ready, tables[i].ready);
        tables[i].start = NULL;
    }
    size_t ready = (n_chunks << HEAP_CHUNK_SHIFT) - (size_t)atomic_load(&n_released) * GREY_PAGE;
    if (heap.base != NULL)
        os_free(heap.base, heap.reserved, OS_HEAP, n_chunks << HEAP_CHUNK_SHIFT, ready);
    heap.base = NULL; /* pages_init that failed, and then heap_shutdown, both come here */
    n_chunks = first_chunk = 0;
    atomic_store(&n_free, 0);
    atomic_store(&n_released, 0);
}

/* ---- bitmaps -------------------------------------------------------------------------------------- */

static unsigned longest_run(uint64_t word)
{
    unsigned n = 0;
    while (word != 0) {
        word &= word << 1;
        n++;
    }
    return n;
}

static void summarize(size_t chunk)
{
    const uint64_t *words = free_bits + chunk * WORDS;
    unsigned run = 0, longest = 0;
    struct summary *summary = &summaries[chunk];
    bool at_start = true;
    summary->start = HEAP_CHUNK_PAGES;
    for (unsigned i = 0; i < WORDS; i++) {
        uint64_t word = words[i];
        if (word == ~(uint64_t)0) {
            run += 64;
            continue;
        }
        unsigned low = (unsigned)__builtin_ctzll(~word);
        if (at_start) {
            summary->start = (uint16_t)(run + low);
            at_start = false;
        }
        if (run + low > longest)
            longest = run + low;
        unsigned inside = longest_run(word);
        if (inside > longest)
            longest = inside;
        run = (unsigned)__builtin_clzll(~word);
    }
    if (run > longest)
        longest = run;
    summary->longest = (uint16_t)longest;
    summary->end = (uint16_t)run;
}

static void summarize_range(size_t first, size_t n)
{
    for (size_t chunk = first / HEAP_CHUNK_PAGES; chunk <= (first + n - 1) / HEAP_CHUNK_PAGES; chunk++)
        summarize(chunk);
}

/* The bits of word i that pages [first, end) cover. */
static uint64_t range_mask(size_t i, size_t first, size_t end)
{
    uint64_t mask = ~(uint64_t)0;
    if (first > i * 64)
        mask &= ~(uint64_t)0 << (first - i * 64);
    if (end < (i + 1) * 64)
        mask &= ~(uint64_t)0 >> ((i + 1) * 64 - end);
    return mask;
}

static void bits_set(uint64_t *bits, size_t first, size_t n)
{
    for (size_t i = first / 64; i <= (first + n - 1) / 64; i++)
        bits[i] |= range_mask(i, first, first + n);
}
static void bits_clear(uint64_t *bits, size_t first, size_t n)
{
    for (size_t i = first / 64; i <= (first + n - 1) / 64; i++)
        bits[i] &= ~range_mask(i, first, first + n);
}
static size_t bits_count(const uint64_t *bits, size_t first, size_t n)
{
    size_t count = 0;
    for (size_t i = first / 64; i <= (first + n - 1) / 64; i++)
        count += (size_t)__builtin_popcountll(bits[i] & range_mask(i, first, first + n));
    return count;
}

/* ---- search ---------------------------------------------------------------------------------------- */

/* The first run of n free pages that ends inside the chunk, given carry free pages before it. */
static bool search_chunk(size_t chunk, size_t n, size_t alignment, size_t *run_start, size_t *first)
{
    for (size_t i = 0; i < WORDS; i++) {
        uint64_t word = free_bits[chunk * WORDS + i];
        size_t page = (chunk * WORDS + i) * 64;
        for (unsigned bit = 0; bit < 64;) {
            if (word >> bit & 1) {
                unsigned length = ~(word >> bit) == 0 ? 64 : (unsigned)__builtin_ctzll(~(word >> bit));
                if (length > 64 - bit)
                    length = 64 - bit;
                bit += length;
                size_t start = (*run_start + alignment - 1) & ~(alignment - 1);
                if (page + bit >= start + n) {
                    *first = start;
                    return true;
                }
            } else {
                uint64_t rest = word >> bit;
                bit = rest == 0 ? 64 : bit + (unsigned)__builtin_ctzll(rest);
                *run_start = page + bit;
            }
        }
    }
    return false;
}

static bool search(size_t n, size_t alignment, size_t *first)
{
    /* An aligned run of n lies in any run of n + alignment - 1. */
    size_t enough = n + alignment - 1;
    size_t run_start = first_chunk * HEAP_CHUNK_PAGES;
    for (size_t chunk = first_chunk; chunk < n_chunks; chunk++) {
        const struct summary *summary = &summaries[chunk];
        size_t begin = chunk * HEAP_CHUNK_PAGES, carry = begin - run_start;
        if (chunk == first_chunk && summary->longest == 0) {
            first_chunk++; /* nothing free here */
            run_start = begin + HEAP_CHUNK_PAGES;
            continue;
        }
        if (carry + summary->start >= n || summary->longest >= n) {
            if (search_chunk(chunk, n, alignment, &run_start, first))
                return true;
        }
        if (summary->start == HEAP_CHUNK_PAGES) {
            if (carry + HEAP_CHUNK_PAGES >= enough) { /* cannot be: search_chunk would have found it */
                ASSERT(false);
            }
        } else {
            run_start = begin + HEAP_CHUNK_PAGES - summary->end;
        }
    }
    return false;
}

/* ---- growth ------------------------------------------------------------------------------------------ */

static bool grow(size_t pages)
{
    size_t free_at_end = 0;
    for (size_t chunk = n_chunks; chunk > 0; chunk--) {
        free_at_end += summaries[chunk - 1].end;
        if (summaries[chunk - 1].end != HEAP_CHUNK_PAGES)
            break;
    }
    size_t need = pages > free_at_end ? pages - free_at_end : pages;
    size_t chunks = (need + HEAP_CHUNK_PAGES - 1) / HEAP_CHUNK_PAGES;
    if (chunks > (heap.reserved >> HEAP_CHUNK_SHIFT) - n_chunks)
        return false;
    for (int i = 0; i < TABLES; i++)
        if (table_extend(i, n_chunks + chunks) != 0)
            return false;
    char *start = heap.base + (n_chunks << HEAP_CHUNK_SHIFT);
    size_t size = chunks << HEAP_CHUNK_SHIFT;
    if (os_map(start, size, OS_HEAP, "grey: heap") != 0)
        return false;
    if (os_used(start, size, size) != 0)
        return false;
    os_huge(start, size);
    size_t first = n_chunks * HEAP_CHUNK_PAGES;
    bits_set(free_bits, first, chunks * HEAP_CHUNK_PAGES);
    n_chunks += chunks;
    summarize_range(first, chunks * HEAP_CHUNK_PAGES);
    atomic_fetch_add_explicit(&n_free, chunks * HEAP_CHUNK_PAGES, memory_order_relaxed);
    /* release: who sees the extent sees the tables mapped */
    atomic_store_explicit(&heap.extent, n_chunks << HEAP_CHUNK_SHIFT, memory_order_release);
    return true;
}

static bool take(size_t first, size_t n, bool *needs_zero)
{
    size_t released = bits_count(released_bits, first, n);
    if (released != 0) {
        if (os_used(heap_page_address(first), n * GREY_PAGE, released * GREY_PAGE) != 0)
            return false;
        bits_clear(released_bits, first, n);
        atomic_fetch_sub_explicit(&n_released, released, memory_order_relaxed);
    }
    *needs_zero = bits_count(dirty_bits, first, n) != 0;
    bits_set(dirty_bits, first, n);
    bits_clear(free_bits, first, n);
    summarize_range(first, n);
    atomic_fetch_sub_explicit(&n_free, n, memory_order_relaxed);
    atomic_fetch_add_explicit(&heap.pages_in_use, n, memory_order_relaxed);
    return true;
}

bool pages_alloc(size_t n, size_t alignment, size_t *first, bool *needs_zero)
{
    os_lock(&pages_lock);
    bool found = search(n, alignment, first);
    if (!found && grow(n + alignment - 1))
        found = search(n, alignment, first);
    if (found)
        found = take(*first, n, needs_zero);
    os_unlock(&pages_lock);
    return found;
}

void pages_free(size_t first, size_t n)
{
    os_lock(&pages_lock);
    ASSERT(bits_count(free_bits, first, n) == 0);
    bits_set(free_bits, first, n);
    summarize_range(first, n);
    if (first / HEAP_CHUNK_PAGES < first_chunk)
        first_chunk = first / HEAP_CHUNK_PAGES;
    atomic_fetch_add_explicit(&n_free, n, memory_order_relaxed);
    atomic_fetch_sub_explicit(&heap.pages_in_use, n, memory_order_relaxed);
    os_unlock(&pages_lock);
}

/* Runs of free pages that were not released yet, one run under the lock at a time: an allocation never
 * waits for more than one madvise. */
size_t pages_release(void)
{
    struct thread *self = thread_self();
    size_t bytes = 0;
    for (size_t page = 0;;) {
        if (self != NULL)
            thread_enter(self);
        os_lock(&pages_lock);
        size_t end = n_chunks * HEAP_CHUNK_PAGES, run = 0;
        for (; page < end; page++) {
            size_t i = page / 64;
            if ((free_bits[i] & ~released_bits[i]) == 0) {
                page |= 63;
                continue;
            }
            if (!(free_bits[i] & ~released_bits[i] & (uint64_t)1 << page % 64))
                continue;
            while (page + run < end && run < HEAP_CHUNK_PAGES &&
                   (free_bits[(page + run) / 64] & ~released_bits[(page + run) / 64]) >> (page + run) % 64 &
                       1)
                run++;
            break;
        }
        if (run != 0) {
            os_unused(heap_page_address(page), run * GREY_PAGE);
            bits_set(released_bits, page, run);
            if (!os_unused_needs_zeroing())
                bits_clear(dirty_bits, page, run);
            atomic_fetch_add_explicit(&n_released, run, memory_order_relaxed);
            bytes += run * GREY_PAGE;
            page += run;
        }
        os_unlock(&pages_lock);
        if (self != NULL)
            thread_leave(self);
        if (run == 0)
            return bytes;
    }
}

void pages_fork_child(void) { os_lock_init(&pages_lock, OS_RANK_PAGES); }
uint64_t pages_released(void) { return atomic_load_explicit(&n_released, memory_order_relaxed) * GREY_PAGE; }
uint64_t pages_free_count(void) { return atomic_load_explicit(&n_free, memory_order_relaxed); }
