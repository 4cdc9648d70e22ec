/* heap/pages.c -- the page allocator: address-ordered first fit over a bitmap.
 *
 * One bit a page, 1 = free.  Each chunk of 8 MiB (1024 pages) has a summary of its bitmap: free pages
 * at its start, the longest free run, free pages at its end.  A search walks the summaries in address
 * order and carries the run that ends the previous chunk, so that runs may cross chunks; only the chunk
 * that is known to hold the answer is looked at in detail (the idea is Go's mpagealloc.go, with one
 * level instead of five: a 1 TiB heap has 131,072 chunks, and nothing here is on a hot path).
 *
 * Two more bits a page: "dirty", it has held objects since it came from the system, so who takes it has
 * to zero it; "released", it costs nothing until used: it was given back, or it was never used.  A new
 * chunk is all released.
 *
 * Huge pages.  The kernel backs a block of 2 MiB in which nothing is present by one huge page at the first
 * touch, so with one page of a released block all of it comes back: the others are free then, and no longer
 * released.  In a block of which a part was kept only what is touched comes back.  Giving back a part breaks
 * the huge page for good (nothing but khugepaged makes it whole again), so whole blocks go first.
 *
 * Giving back goes in steps, from the highest address, since allocation fills from the lowest; a step
 * is at most one block, so an allocation never waits for more than one madvise.  For each way to choose what
 * to give back there is a page at and above which nothing is left for it, so that who asks often does not
 * search the heap each time.  Freed pages raise it.
 *
 * Ahead of use (pages_prefault).  Whoever touches a block first waits while the kernel finds memory for it and
 * clears it: 0.2 ms, on a virtual machine whose host has to find it too 5 ms.  So a thread of the library takes the
 * lowest block that is all free and released, touches it and frees it: it is neither released then nor, if it had
 * never been used, dirty.  As first fit fills from the lowest address, it is among the next to be used.  Between the
 * two its pages are not among the free ones, so nobody else takes it or gives it back; figures count them as free.
 * Before the first store the heap has another such block: mapping a chunk at the end of what is being touched would
 * wait for that, with the lock held.  Who finds no pages while a block is out waits for it and looks again, and
 * nothing is touched ahead any more, unless the heap can still grow: where memory ends, a huge page can decide.
 *
 * Everything is under one lock, which is held for bitmaps and summaries, for mapping another chunk and for
 * that madvise, never while memory is zeroed or touched ahead.  Holders are in busy sections or collector threads.
 */
#include "heap/pages.h"
#include "inspect/gauges.h"
#include "os/options.h"

#include <errno.h>
#include <string.h>

struct summary {
    uint16_t start, longest, end;
    uint16_t dense; /* nearly full when the last cycle was over (pages_note_density) */
};

enum {
    WORDS = HEAP_CHUNK_PAGES / 64,
    BLOCK_PAGES = (2 << 20) >> GREY_PAGE_SHIFT, /* of a huge page */
    DENSE_PAGES = HEAP_CHUNK_PAGES / 32 * 31,   /* 96.875 percent (SC-5) */
    CHUNKS_AT_ONCE = 128                        /* looked at while the lock is held */
};

static struct os_lock pages_lock = OS_LOCK_INIT(OS_RANK_PAGES);
static uint64_t *free_bits, *dirty_bits, *released_bits;
static struct summary *summaries;
static size_t n_chunks;                      /* mapped */
static size_t first_chunk;                   /* no free page below it */
static size_t releasable[HEAP_RELEASE_WAYS]; /* for each: nothing to release at or above this page */
static _Atomic uint64_t n_free, n_released, n_grown;
static _Atomic uint32_t block_is_out; /* written under the lock; seq_cst */
static bool memory_ended;             /* an allocation found no pages, and the heap has not grown since */

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

static void reset(void)
{
    n_chunks = first_chunk = 0;
    memset(releasable, 0, sizeof(releasable));
    atomic_store(&n_free, 0);
    atomic_store(&n_released, 0);
    atomic_store(&n_grown, 0);
    atomic_store(&block_is_out, 0);
    memory_ended = false;
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
    reset();
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
    reset();
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

/* What the chunk's bits say. */
static struct summary summary_of(size_t chunk)
{
    const uint64_t *words = free_bits + chunk * WORDS;
    unsigned run = 0, longest = 0;
    struct summary summary = {.start = HEAP_CHUNK_PAGES, .dense = summaries[chunk].dense};
    bool at_start = true;
    for (unsigned i = 0; i < WORDS; i++) {
        uint64_t word = words[i];
        if (word == ~(uint64_t)0) {
            run += 64;
            continue;
        }
        unsigned low = (unsigned)__builtin_ctzll(~word);
        if (at_start) {
            summary.start = (uint16_t)(run + low);
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
    summary.longest = (uint16_t)longest;
    summary.end = (uint16_t)run;
    return summary;
}
static void summarize(size_t chunk) { summaries[chunk] = summary_of(chunk); }
static bool summary_is_right(size_t chunk)
{
    struct summary right = summary_of(chunk);
    return memcmp(&right, &summaries[chunk], sizeof(right)) == 0;
}

static void summarize_range(size_t first, size_t n)
{
    for (size_t chunk = first / HEAP_CHUNK_PAGES; chunk <= (first + n - 1) / HEAP_CHUNK_PAGES; chunk++)
        summarize(chunk);
}

/* Free pages in [low, page) that end at page, in [page, high) that begin there. */
static size_t free_before(size_t low, size_t page)
{
    size_t at = page;
    while (at > low) {
        uint64_t used = ~free_bits[(at - 1) / 64] << (63 - (at - 1) % 64); /* bit 63: page at - 1 */
        size_t n = used != 0 ? (size_t)__builtin_clzll(used) : (at - 1) % 64 + 1;
        at = at - low > n ? at - n : low;
        if (used != 0)
            break;
    }
    return page - at;
}
static size_t free_after(size_t page, size_t high)
{
    size_t at = page;
    while (at < high) {
        uint64_t used = ~free_bits[at / 64] >> at % 64;
        size_t n = used != 0 ? (size_t)__builtin_ctzll(used) : 64 - at % 64;
        at = high - at > n ? at + n : high;
        if (used != 0)
            break;
    }
    return at - page;
}

/* Pages of the chunk came free or were taken, all n together, and their bits say so.  Only the run that they are
 * in has changed; where that was the longest one another may be as long, and all are looked at. */
static void resummarize(size_t chunk, size_t first, size_t n, bool came_free)
{
    struct summary *summary = &summaries[chunk];
    size_t low = chunk * HEAP_CHUNK_PAGES, high = low + HEAP_CHUNK_PAGES;
    size_t before = free_before(low, first), after = free_after(first + n, high);
    size_t whole = before + n + after;
    if (!came_free && whole == summary->longest) {
        summarize(chunk);
        return;
    }
    if (came_free && whole > summary->longest)
        summary->longest = (uint16_t)whole;
    if (first - before == low)
        summary->start = (uint16_t)(came_free ? whole : before);
    if (first + n + after == high)
        summary->end = (uint16_t)(came_free ? whole : after);
}

static void resummarize_range(size_t first, size_t n, bool came_free)
{
    for (size_t end = first + n; first < end;) {
        size_t chunk = first / HEAP_CHUNK_PAGES, chunk_end = (chunk + 1) * HEAP_CHUNK_PAGES;
        size_t here = end < chunk_end ? end - first : chunk_end - first;
        resummarize(chunk, first, here, came_free);
        ASSERT(summary_is_right(chunk));
        first += here;
    }
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
        count += os_popcount(bits[i] & range_mask(i, first, first + n));
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
    os_huge(start, size);
    size_t first = n_chunks * HEAP_CHUNK_PAGES;
    bits_set(free_bits, first, chunks * HEAP_CHUNK_PAGES);
    bits_set(released_bits, first, chunks * HEAP_CHUNK_PAGES);
    n_chunks += chunks;
    memory_ended = false;
    summarize_range(first, chunks * HEAP_CHUNK_PAGES);
    atomic_fetch_add_explicit(&n_free, chunks * HEAP_CHUNK_PAGES, memory_order_relaxed);
    atomic_fetch_add_explicit(&n_released, chunks * HEAP_CHUNK_PAGES, memory_order_relaxed);
    atomic_fetch_add_explicit(&n_grown, size, memory_order_relaxed);
    /* release: who sees the extent sees the tables mapped */
    atomic_store_explicit(&heap.extent, n_chunks << HEAP_CHUNK_SHIFT, memory_order_release);
    return true;
}

/* Pages [first, end) may be released now. */
static void may_release(size_t end)
{
    end = (end + BLOCK_PAGES - 1) & ~(size_t)(BLOCK_PAGES - 1); /* a whole block may have come free */
    for (int way = 0; way < HEAP_RELEASE_WAYS; way++)
        if (releasable[way] < end)
            releasable[way] = end;
}

static bool block_is(const uint64_t *bits, size_t page)
{
    return bits_count(bits, page & ~(size_t)(BLOCK_PAGES - 1), BLOCK_PAGES) == BLOCK_PAGES;
}

/* Pages about to be touched are Ready again, and with them those that come back by the same huge page. */
static bool unrelease(size_t first, size_t end)
{
    if (bits_count(released_bits, first, end - first) == 0)
        return true;
    if (!os_debug.disablethp) {
        if (block_is(released_bits, first))
            first &= ~(size_t)(BLOCK_PAGES - 1);
        if (block_is(released_bits, end - 1))
            end = (end + BLOCK_PAGES - 1) & ~(size_t)(BLOCK_PAGES - 1);
    }
    size_t released = bits_count(released_bits, first, end - first);
    if (os_used(heap_page_address(first), (end - first) * GREY_PAGE, released * GREY_PAGE) != 0)
        return false;
    bits_clear(released_bits, first, end - first);
    atomic_fetch_sub_explicit(&n_released, released, memory_order_relaxed);
    may_release(end);
    return true;
}

static bool take(size_t first, size_t n, bool *needs_zero)
{
    if (!unrelease(first, first + n))
        return false;
    *needs_zero = bits_count(dirty_bits, first, n) != 0;
    bits_set(dirty_bits, first, n);
    bits_clear(free_bits, first, n);
    resummarize_range(first, n, false);
    atomic_fetch_sub_explicit(&n_free, n, memory_order_relaxed);
    atomic_fetch_add_explicit(&heap.pages_in_use, n, memory_order_relaxed);
    return true;
}

/* Lock held, nothing was found: whether it is worth another look once await_block has returned. */
static bool may_come_back(void)
{
    memory_ended = true;
    return atomic_load(&block_is_out) != 0;
}

static void await_block(void)
{
    for (unsigned n = 0; atomic_load(&block_is_out) != 0;)
        os_pause(&n);
}

static bool alloc_once(size_t n, size_t alignment, size_t *first, bool *needs_zero, bool *again)
{
    os_lock(&pages_lock);
    bool found = search(n, alignment, first);
    if (!found && grow(n + alignment - 1))
        found = search(n, alignment, first);
    if (found)
        found = take(*first, n, needs_zero);
    *again = !found && may_come_back();
    os_unlock(&pages_lock);
    return found;
}

bool pages_alloc(size_t n, size_t alignment, size_t *first, bool *needs_zero)
{
    bool again, found = alloc_once(n, alignment, first, needs_zero, &again);
    if (LIKELY(!again))
        return found;
    await_block();
    return alloc_once(n, alignment, first, needs_zero, &again);
}

static size_t alloc_some_once(size_t n, uint32_t *page, bool *needs_zero, bool *again)
{
    size_t first, found = 0;
    os_lock(&pages_lock);
    while (found < n && (search(1, 1, &first) || (found == 0 && grow(1) && search(1, 1, &first))) &&
           take(first, 1, &needs_zero[found]))
        page[found++] = (uint32_t)first;
    *again = found == 0 && may_come_back();
    os_unlock(&pages_lock);
    return found;
}

size_t pages_alloc_some(size_t n, uint32_t *pages, uint32_t *dirty)
{
    uint32_t page[THREAD_PAGES] = {0};
    bool needs_zero[THREAD_PAGES], again;
    ASSERT(n >= 1 && n <= THREAD_PAGES);
    size_t found = alloc_some_once(n, page, needs_zero, &again);
    if (UNLIKELY(again)) {
        await_block();
        found = alloc_some_once(n, page, needs_zero, &again);
    }
    *dirty = 0;
    for (size_t i = 0; i < found; i++) {
        pages[found - 1 - i] = page[i];
        *dirty |= (uint32_t)needs_zero[i] << (found - 1 - i);
    }
    return found;
}

/* Pages that nobody else knows of come back. */
static void put_back(size_t first, size_t n)
{
    ASSERT(bits_count(free_bits, first, n) == 0);
    bits_set(free_bits, first, n);
    resummarize_range(first, n, true);
    if (first / HEAP_CHUNK_PAGES < first_chunk)
        first_chunk = first / HEAP_CHUNK_PAGES;
    may_release(first + n);
}

void pages_free(size_t first, size_t n)
{
    os_lock(&pages_lock);
    put_back(first, n);
    atomic_fetch_add_explicit(&n_free, n, memory_order_relaxed);
    atomic_fetch_sub_explicit(&heap.pages_in_use, n, memory_order_relaxed);
    os_unlock(&pages_lock);
}

/* ---- ahead of use -------------------------------------------------------------------------------------- */

/* The lowest block of which every page is free and released. */
static bool find_released_block(size_t *first)
{
    for (size_t chunk = first_chunk; chunk < n_chunks; chunk++) {
        if (summaries[chunk].longest < BLOCK_PAGES)
            continue;
        for (size_t i = 0; i < HEAP_CHUNK_PAGES; i += BLOCK_PAGES) {
            *first = chunk * HEAP_CHUNK_PAGES + i;
            if (block_is(free_bits, *first) && block_is(released_bits, *first))
                return true;
        }
    }
    return false;
}

/* Lock held.  Takes it out of the free pages; false: none, or no memory. */
static bool take_out(size_t *first)
{
    size_t next;
    if (memory_ended || !(find_released_block(first) || (grow(BLOCK_PAGES) && find_released_block(first))) ||
        !unrelease(*first, *first + BLOCK_PAGES))
        return false;
    bits_clear(free_bits, *first, BLOCK_PAGES);
    resummarize_range(*first, BLOCK_PAGES, false);
    atomic_store(&block_is_out, 1);
    if (!find_released_block(&next))
        grow(BLOCK_PAGES);
    return true;
}

size_t pages_prefault(void)
{
    size_t first;
    os_lock(&pages_lock);
    bool taken = take_out(&first);
    os_unlock(&pages_lock);
    if (!taken)
        return 0;
    HOOK(PREFAULT, heap_page_address(first));
    os_touch(heap_page_address(first), BLOCK_PAGES * GREY_PAGE);
    os_lock(&pages_lock);
    put_back(first, BLOCK_PAGES);
    atomic_store(&block_is_out, 0);
    os_unlock(&pages_lock);
    return BLOCK_PAGES * GREY_PAGE;
}

/* ---- giving back -------------------------------------------------------------------------------------- */

/* The last run of pages in [low, high), at most a block, that are free and not released.  Its length. */
static size_t last_run(size_t low, size_t high, size_t *first)
{
    size_t end = high;
    for (; end > low; end--) {
        size_t i = (end - 1) / 64;
        uint64_t word = free_bits[i] & ~released_bits[i];
        if (word >> (end - 1) % 64 & 1)
            break;
    }
    size_t start = end;
    for (; start > low; start--) {
        size_t i = (start - 1) / 64;
        if (!((free_bits[i] & ~released_bits[i]) >> (start - 1) % 64 & 1))
            break;
    }
    *first = start;
    return end - start;
}

static bool nothing_in_block(size_t block)
{
    uint64_t any = 0;
    for (size_t i = block / 64; i < (block + BLOCK_PAGES) / 64; i++)
        any |= free_bits[i] & ~released_bits[i];
    return any == 0;
}

/* The highest run below *from that this way takes; 0: none in so many chunks; *from is where it stopped. */
static size_t find_run(enum heap_release way, size_t *from, size_t *first)
{
    size_t page = *from, chunks = 0;
    while (page > 0 && chunks < CHUNKS_AT_ONCE) {
        size_t block = (page - 1) & ~(size_t)(BLOCK_PAGES - 1);
        const struct summary *summary = &summaries[block / HEAP_CHUNK_PAGES];
        if (summary->longest == 0 || (way != HEAP_RELEASE_ALL && summary->dense)) {
            page = block & ~(size_t)(HEAP_CHUNK_PAGES - 1);
            chunks++;
            continue;
        }
        bool wanted = way != HEAP_RELEASE_BLOCKS || os_debug.disablethp || block_is(free_bits, block);
        if (wanted && !nothing_in_block(block)) {
            size_t run = last_run(block, page, first);
            if (run != 0) {
                *from = *first + run;
                return run;
            }
        }
        page = block;
        chunks += block % HEAP_CHUNK_PAGES == 0;
    }
    *from = page;
    return 0;
}

/* Marked as released already.  With the last of a block all of it: parts that were given back before may have
 * come in again with a huge page of the rest. */
static void give_back(size_t first, size_t n)
{
    if (n < BLOCK_PAGES && !os_debug.disablethp && block_is(released_bits, first)) {
        size_t block = first & ~(size_t)(BLOCK_PAGES - 1);
        size_t others = (BLOCK_PAGES - n) * GREY_PAGE;
        if (os_used(heap_page_address(block), BLOCK_PAGES * GREY_PAGE, others) == 0) {
            first = block;
            n = BLOCK_PAGES;
        }
    }
    os_unused(heap_page_address(first), n * GREY_PAGE);
}

static size_t release_one(enum heap_release way, size_t most)
{
    size_t end = n_chunks * HEAP_CHUNK_PAGES, first;
    if (releasable[way] > end)
        releasable[way] = end;
    size_t run = find_run(way, &releasable[way], &first);
    if (run == 0)
        return 0;
    size_t want = most / GREY_PAGE + (most % GREY_PAGE != 0);
    /* A huge page goes whole or not at all; of other runs the end. */
    if (run != BLOCK_PAGES && want < run) {
        first += run - want;
        run = want;
    }
    bits_set(released_bits, first, run);
    give_back(first, run);
    if (!os_unused_needs_zeroing())
        bits_clear(dirty_bits, first, run);
    atomic_fetch_add_explicit(&n_released, run, memory_order_relaxed);
    releasable[way] = first;
    return run * GREY_PAGE;
}

/* If a part of a block is next, its huge page is taken apart before; not under the lock, because it takes long.
 * The part may be taken meanwhile, which does no harm. */
void pages_split_next(enum heap_release way)
{
    struct thread *self = thread_self();
    if (way == HEAP_RELEASE_BLOCKS || os_debug.disablethp)
        return;
    if (self != NULL)
        thread_enter(self);
    os_lock(&pages_lock);
    size_t end = n_chunks * HEAP_CHUNK_PAGES, from = releasable[way] < end ? releasable[way] : end, first;
    size_t run = find_run(way, &from, &first);
    os_unlock(&pages_lock);
    if (self != NULL)
        thread_leave(self);
    if (run != 0 && run != BLOCK_PAGES)
        os_split(heap_page_address(first), run * GREY_PAGE);
}

size_t pages_release_some(enum heap_release way, size_t most, bool *more)
{
    struct thread *self = thread_self();
    size_t bytes = 0;
    if (self != NULL)
        thread_enter(self);
    os_lock(&pages_lock);
    if (most != 0)
        bytes = release_one(way, most);
    *more = releasable[way] != 0;
    os_unlock(&pages_lock);
    if (self != NULL)
        thread_leave(self);
    return bytes;
}

size_t pages_release(void)
{
    size_t bytes = 0;
    for (bool more = true; more;) {
        pages_split_next(HEAP_RELEASE_ALL);
        bytes += pages_release_some(HEAP_RELEASE_ALL, SIZE_MAX, &more);
    }
    return bytes;
}

void pages_note_density(void)
{
    for (size_t chunk = 0, end = 1; chunk < end;) {
        os_lock(&pages_lock);
        end = n_chunks;
        for (size_t i = 0; i < CHUNKS_AT_ONCE && chunk < end; i++, chunk++) {
            size_t free = bits_count(free_bits, chunk * HEAP_CHUNK_PAGES, HEAP_CHUNK_PAGES);
            summaries[chunk].dense = HEAP_CHUNK_PAGES - free >= DENSE_PAGES;
        }
        /* What was passed over may not be dense any more. */
        releasable[HEAP_RELEASE_BLOCKS] = releasable[HEAP_RELEASE_PAGES] = end * HEAP_CHUNK_PAGES;
        os_unlock(&pages_lock);
    }
}

uint64_t pages_take_growth(void)
{
    if (LIKELY(atomic_load_explicit(&n_grown, memory_order_relaxed) == 0))
        return 0;
    return atomic_exchange_explicit(&n_grown, 0, memory_order_relaxed);
}

/* No block is out: who touches stood still. */
void pages_fork_child(void) { os_lock_init(&pages_lock, OS_RANK_PAGES); }
uint64_t pages_released(void) { return atomic_load_explicit(&n_released, memory_order_relaxed) * GREY_PAGE; }
uint64_t pages_free_count(void) { return atomic_load_explicit(&n_free, memory_order_relaxed); }
