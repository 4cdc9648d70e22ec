/* tests/unit/pages_test.c -- the page allocator by itself, against a model of one byte a page.
 *
 * The allocator's source is part of this file, so that its bitmaps and summaries can be compared with the
 * model after every step; the linker then takes these functions and not the library's.  The heap here is
 * a reservation of 64 MiB (8 chunks of 1024 pages), so that its end is soon reached.
 *
 * Requirements: AL-5 (address-ordered first fit), AL-22 (no page is lost), OS-21 and TR-7 (idle + in use =
 * mapped; figures return to 0), OS-9 (what has to be zeroed), SC-4..SC-6, SC-8 (what is given back, and in
 * which order; TestPageAllocScavenge, TestPallocDataFindScavengeCandidate), SC-11 (what is touched ahead).
 * Seed: GREY_TEST_SEED or the clock; printed.
 */
#include "heap/pages.c" /* NOLINT(bugprone-suspicious-include) */

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* A chunk more is kept where the reservation comes aligned (OS-12). */
enum { CHUNKS = 8, PAGES = (CHUNKS + 1) * HEAP_CHUNK_PAGES };
enum { USED = 1, DIRTY = 2, RELEASED = 4 }; /* of a page in the model */

static uint8_t model[PAGES];
static size_t most_pages, model_chunks; /* reserved, mapped */
static bool memory_short;               /* an allocation failed, and the heap has not grown since */
static uint64_t state;

static uint64_t next_random(void) /* splitmix64 */
{
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int open_heap(void **unused)
{
    (void)unused;
    size_t kept = CHUNKS * HEAP_CHUNK;
    os_memory_init();
    memset(model, RELEASED, sizeof(model)); /* as chunks are before they are used */
    model_chunks = 0;
    memory_short = false;
    heap.base = os_reserve_aligned(NULL, &kept, HEAP_CHUNK);
    heap.reserved = kept;
    most_pages = kept / GREY_PAGE;
    return heap.base == NULL || most_pages > PAGES || pages_init() != 0;
}

static int close_heap(void **unused)
{
    (void)unused;
    size_t used = 0;
    for (size_t i = 0; i < PAGES; i++)
        used += model[i] & USED;
    atomic_fetch_sub(&heap.pages_in_use, used);
    atomic_store(&heap.extent, 0);
    pages_shutdown();
    return os_mapped(OS_HEAP) != 0 || os_mapped(OS_BITS) != 0 || os_mapped_ready() != 0 ||
           atomic_load(&heap.pages_in_use) != 0;
}

/* ---- the model -------------------------------------------------------------------------------------- */

static bool model_is_free(size_t first, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (model[first + i] & USED)
            return false;
    return true;
}

static bool model_search(size_t n, size_t alignment, size_t *first)
{
    for (*first = 0; *first + n <= model_chunks * HEAP_CHUNK_PAGES; *first += alignment)
        if (model_is_free(*first, n))
            return true;
    return false;
}

/* Where the next allocation has to be; false: nowhere.  The heap grows by as few chunks as make room for
 * the pages, at any alignment, together with the free ones at its end. */
static bool model_alloc(size_t n, size_t alignment, size_t *first)
{
    if (!model_search(n, alignment, first)) {
        size_t end = model_chunks * HEAP_CHUNK_PAGES, at_end = 0;
        while (at_end < end && !(model[end - 1 - at_end] & USED))
            at_end++;
        size_t more = n + alignment - 1 - at_end;
        size_t chunks = model_chunks + (more + HEAP_CHUNK_PAGES - 1) / HEAP_CHUNK_PAGES;
        if (chunks * HEAP_CHUNK_PAGES > most_pages)
            return false;
        model_chunks = chunks;
        assert_true(model_search(n, alignment, first));
    }
    return true;
}

/* ---- comparing ---------------------------------------------------------------------------------------- */

/* What the kernel backs with huge pages comes back as a whole (see the essay of pages.c). */
static void model_touch(size_t first, size_t n)
{
    for (size_t block = first / BLOCK_PAGES; block <= (first + n - 1) / BLOCK_PAGES; block++) {
        size_t released = 0;
        for (size_t i = block * BLOCK_PAGES; i < (block + 1) * BLOCK_PAGES; i++)
            released += (model[i] & RELEASED) != 0;
        if (released == BLOCK_PAGES)
            for (size_t i = block * BLOCK_PAGES; i < (block + 1) * BLOCK_PAGES; i++)
                model[i] &= (uint8_t)~RELEASED;
    }
    for (size_t i = first; i < first + n; i++)
        model[i] = USED | DIRTY;
}

static bool bit(const uint64_t *bits, size_t page) { return bits[page / 64] >> page % 64 & 1; }

static void check_chunk(size_t chunk)
{
    size_t run = 0, longest = 0, start = 0;
    for (size_t i = 0; i < HEAP_CHUNK_PAGES; i++) {
        size_t page = chunk * HEAP_CHUNK_PAGES + i;
        bool free = !(model[page] & USED);
        if (bit(free_bits, page) != free)
            fail_msg("page %zu should be %s", page, free ? "free" : "in use");
        assert_int_equal(bit(dirty_bits, page), (model[page] & DIRTY) != 0);
        assert_int_equal(bit(released_bits, page), (model[page] & RELEASED) != 0);
        run = free ? run + 1 : 0;
        longest = run > longest ? run : longest;
        if (run == i + 1)
            start = run;
    }
    assert_int_equal(summaries[chunk].start, start);
    assert_int_equal(summaries[chunk].longest, longest);
    assert_int_equal(summaries[chunk].end, run);
}

static void check_all(void)
{
    size_t used = 0, free = 0, released = 0;
    assert_int_equal(n_chunks, model_chunks);
    assert_true(first_chunk <= n_chunks);
    for (size_t chunk = 0; chunk < model_chunks; chunk++)
        check_chunk(chunk);
    for (size_t i = 0; i < model_chunks * HEAP_CHUNK_PAGES; i++) {
        used += model[i] & USED;
        free += !(model[i] & USED);
        released += (model[i] & RELEASED) != 0;
        assert_true((model[i] & USED) || i / HEAP_CHUNK_PAGES >= first_chunk);
    }
    assert_int_equal(pages_free_count(), free);
    assert_int_equal(atomic_load(&heap.pages_in_use), used);
    assert_int_equal(pages_released(), released * GREY_PAGE);
    assert_int_equal(atomic_load(&heap.extent), model_chunks * HEAP_CHUNK);
    assert_int_equal(os_mapped(OS_HEAP), (used + free) * GREY_PAGE); /* TR-7 */
    assert_int_equal(os_mapped_ready() + released * GREY_PAGE, os_mapped_total());
}

/* One step of both.  False: both say no. */
static bool alloc_step(size_t n, size_t alignment, size_t *first)
{
    size_t expected, got = SIZE_MAX;
    bool needs_zero = false, dirty = false;
    size_t chunks = model_chunks;
    bool fits = model_alloc(n, alignment, &expected);
    assert_int_equal(pages_alloc(n, alignment, &got, &needs_zero), fits);
    if (fits) {
        if (got != expected)
            fail_msg("%zu pages at a multiple of %zu: page %zu, first fit is %zu", n, alignment, got,
                     expected);
        for (size_t i = got; i < got + n; i++)
            dirty |= (model[i] & DIRTY) != 0;
        model_touch(got, n);
        assert_int_equal(needs_zero, dirty);
        *first = got;
    }
    memory_short = !fits || (memory_short && model_chunks == chunks);
    check_all();
    return fits;
}

static void free_step(size_t first, size_t n)
{
    pages_free(first, n);
    for (size_t i = first; i < first + n; i++)
        model[i] &= (uint8_t)~USED;
    check_all();
}

/* Pages [first, first + n) were given back. */
static void model_release(size_t first, size_t n)
{
    for (size_t i = first; i < first + n; i++) {
        assert_true((model[i] & (USED | RELEASED)) == 0);
        model[i] |= RELEASED;
        if (!os_unused_needs_zeroing())
            model[i] &= (uint8_t)~DIRTY;
    }
}

/* What steps of this way give back until so many pages are gone or nothing is left. */
static size_t release_pages(enum heap_release way, size_t most)
{
    size_t done = 0;
    for (bool more = true; more && done < most;)
        done += pages_release_some(way, (most - done) * GREY_PAGE, &more) / GREY_PAGE;
    return done;
}

static void release_step(void)
{
    size_t expected = 0;
    for (size_t i = 0; i < model_chunks * HEAP_CHUNK_PAGES; i++) {
        if (model[i] & (USED | RELEASED))
            continue;
        expected += GREY_PAGE;
        model[i] |= RELEASED;
        if (!os_unused_needs_zeroing())
            model[i] &= (uint8_t)~DIRTY;
    }
    assert_int_equal(pages_release(), expected);
    check_all();
}

/* Some of it: the highest that this way takes, so what the model finds from above. */
static void release_some_step(enum heap_release way)
{
    uint8_t before[PAGES];
    memcpy(before, model, sizeof(before));
    size_t want = 1 + next_random() % 600, done = release_pages(way, want), seen = 0;
    for (size_t i = 0; i < model_chunks * HEAP_CHUNK_PAGES; i++)
        if (bit(released_bits, i) && !(model[i] & RELEASED)) {
            model_release(i, 1);
            seen++;
        }
    assert_int_equal(seen, done);
    assert_true(done < want + BLOCK_PAGES);
    for (size_t i = 0, below = 0; i < model_chunks * HEAP_CHUNK_PAGES; i++) {
        below |= before[i] != model[i]; /* above the lowest that went, nothing is left if all may go */
        assert_true(way != HEAP_RELEASE_ALL || !below || model[i] & (USED | RELEASED));
    }
    if (done < want && way == HEAP_RELEASE_ALL)
        assert_int_equal(pages_free_count() * GREY_PAGE, pages_released());
    check_all();
}

static size_t model_released_block(void)
{
    size_t block = 0;
    for (; block < model_chunks * HEAP_CHUNK_PAGES / BLOCK_PAGES; block++) {
        size_t n = 0;
        for (size_t i = block * BLOCK_PAGES; i < (block + 1) * BLOCK_PAGES; i++)
            n += (model[i] & (USED | RELEASED)) == RELEASED;
        if (n == BLOCK_PAGES)
            break;
    }
    return block * BLOCK_PAGES;
}

/* A chunk more, if there is no block that costs nothing. */
static void model_extend(void)
{
    if (model_released_block() == model_chunks * HEAP_CHUNK_PAGES &&
        (model_chunks + 1) * HEAP_CHUNK_PAGES <= most_pages)
        model_chunks++;
}

/* The lowest block that costs nothing has memory afterwards, and is as free and as clean as before; the heap has
 * another if it can.  False: both found none. */
static bool prefault_step(void)
{
    if (!memory_short)
        model_extend();
    size_t block = model_released_block();
    bool fits = block < model_chunks * HEAP_CHUNK_PAGES && !memory_short;
    assert_int_equal(pages_prefault(), fits ? BLOCK_PAGES * GREY_PAGE : 0);
    if (fits) {
        for (size_t i = block; i < block + BLOCK_PAGES; i++)
            model[i] &= (uint8_t)~RELEASED;
        model_extend();
    }
    check_all();
    return fits;
}

/* ---- tests --------------------------------------------------------------------------------------------- */

static const size_t sizes[] = {1, 2, 3, 4, 5, 8, 16, 64, 1024, 1025, 2048, 2049};
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

static void each_size_alone(void **unused)
{
    (void)unused;
    for (int i = 0; i < SIZES; i++) {
        size_t first;
        assert_true(alloc_step(sizes[i], 1, &first));
        assert_int_equal(first, 0);
        free_step(first, sizes[i]);
    }
}

static void all_sizes_after_each_other(void **unused)
{
    (void)unused;
    size_t first[SIZES], next = 0;
    for (int i = 0; i < SIZES; i++) {
        assert_true(alloc_step(sizes[i], 1, &first[i]));
        assert_int_equal(first[i], next); /* no page is left out, chunk borders are no borders */
        next += sizes[i];
    }
    for (int i = 0; i < SIZES; i += 2)
        free_step(first[i], sizes[i]);
    for (int i = SIZES - 1; i > 0; i -= 2)
        free_step(first[i], sizes[i]);
    assert_int_equal(pages_free_count(), model_chunks * HEAP_CHUNK_PAGES);
}

/* The lowest address that fits, not the hole that fits best and not the last one freed. */
static void lowest_fit_wins(void **unused)
{
    (void)unused;
    size_t first[40], again;
    for (int i = 0; i < 40; i++)
        assert_true(alloc_step(16, 1, &first[i]));
    free_step(first[30], 16);
    free_step(first[20], 16);
    free_step(first[10], 16);
    free_step(first[11], 16);
    assert_true(alloc_step(17, 1, &again));
    assert_int_equal(again, first[10]);
    assert_true(alloc_step(16, 1, &again));
    assert_int_equal(again, first[20]);
    assert_true(alloc_step(15, 1, &again));
    assert_int_equal(again, first[11] + 1);
    assert_true(alloc_step(1, 1, &again));
    assert_int_equal(again, first[30]);
}

/* A last chunk that is partly free is used up before the next. */
static void growth_uses_the_end(void **unused)
{
    (void)unused;
    size_t first;
    assert_true(alloc_step(1000, 1, &first));
    assert_true(alloc_step(HEAP_CHUNK_PAGES, 1, &first));
    assert_int_equal(first, 1000);
    assert_int_equal(n_chunks, 2);
    assert_true(alloc_step(25, 1, &first)); /* 24 are left in the second chunk */
    assert_int_equal(first, 2024);
    assert_int_equal(n_chunks, 3);
}

static void full_heap_says_no(void **unused)
{
    (void)unused;
    size_t first, tail;
    assert_false(alloc_step(most_pages + 1, 1, &first));
    assert_int_equal(n_chunks, 0);
    assert_true(alloc_step(most_pages - 1, 1, &first));
    assert_false(alloc_step(2, 1, &tail));
    assert_true(alloc_step(1, 1, &tail));
    assert_int_equal(tail, most_pages - 1);
    assert_false(alloc_step(1, 1, &tail));
    free_step(first, most_pages - 1);
    assert_true(alloc_step(most_pages - 1, 1, &first));
    assert_int_equal(first, 0);
}

static void alignment_is_kept(void **unused)
{
    (void)unused;
    for (size_t alignment = 2; alignment <= 256; alignment *= 2)
        for (size_t n = 1; n <= 2 * alignment; n = 2 * n + 1) {
            size_t wedge, first;
            assert_true(alloc_step(1, 1, &wedge));
            assert_true(alloc_step(n, alignment, &first));
            assert_int_equal(first % alignment, 0);
            assert_int_equal((uintptr_t)heap_page_address(first) % (alignment * GREY_PAGE), 0);
            free_step(first, n);
            if (n % 3 == 1)
                free_step(wedge, 1);
        }
}

/* Released pages come back as zeroes, or are said to need zeroing (OS-9). */
static void release_and_use_again(void **unused)
{
    (void)unused;
    size_t first, again;
    assert_true(alloc_step(300, 1, &first));
    memset(heap_page_address(first), 0x5a, 300 * GREY_PAGE);
    free_step(first + 100, 100);
    release_step();
    release_step(); /* nothing is released twice */
    assert_int_equal(pages_released(), (HEAP_CHUNK_PAGES - 200) * GREY_PAGE);
    bool needs_zero;
    assert_true(pages_alloc(100, 1, &again, &needs_zero));
    assert_int_equal(again, first + 100);
    const unsigned char *p = (const unsigned char *)heap_page_address(again);
    for (size_t i = 0; !needs_zero && i < 100 * GREY_PAGE; i++)
        assert_int_equal(p[i], 0);
    assert_int_equal(p[-1], 0x5a); /* the neighbours kept theirs */
    assert_int_equal(p[100 * GREY_PAGE], 0x5a);
    model_touch(again, 100);
    check_all();
}

/* ---- giving back --------------------------------------------------------------------------------------- */

/* SC-6, SC-8: from the highest address; a huge page goes whole. */
static void highest_blocks_first(void **unused)
{
    (void)unused;
    size_t first;
    assert_true(alloc_step(2 * HEAP_CHUNK_PAGES, 1, &first));
    assert_int_equal(release_pages(HEAP_RELEASE_ALL, 1), 0); /* none free */
    free_step(300, 1700);                                    /* five whole blocks, and parts of two */
    assert_int_equal(release_pages(HEAP_RELEASE_BLOCKS, 1), BLOCK_PAGES);
    model_release(6 * BLOCK_PAGES, BLOCK_PAGES);
    check_all();
    assert_int_equal(release_pages(HEAP_RELEASE_BLOCKS, 2 * BLOCK_PAGES), 2 * BLOCK_PAGES);
    model_release(4 * BLOCK_PAGES, 2 * BLOCK_PAGES);
    check_all();
    assert_int_equal(release_pages(HEAP_RELEASE_BLOCKS, SIZE_MAX), 2 * BLOCK_PAGES);
    model_release(2 * BLOCK_PAGES, 2 * BLOCK_PAGES);
    check_all();
    assert_int_equal(release_pages(HEAP_RELEASE_BLOCKS, SIZE_MAX), 0);
    /* Only now parts of others, exactly as much as is wanted. */
    assert_int_equal(release_pages(HEAP_RELEASE_PAGES, 10), 10);
    model_release(1990, 10);
    check_all();
    assert_int_equal(release_pages(HEAP_RELEASE_PAGES, SIZE_MAX), 1990 - 1792 + 512 - 300);
    model_release(1792, 1990 - 1792);
    model_release(300, 512 - 300);
    check_all();
    assert_int_equal(release_pages(HEAP_RELEASE_ALL, SIZE_MAX), 0);
    /* Taking one page of a whole block brings the block back, one of the others only that page. */
    uint64_t before = pages_released();
    assert_true(alloc_step(212, 1, &first));
    assert_int_equal(first, 300);
    assert_int_equal(before - pages_released(), 212 * GREY_PAGE);
    assert_true(alloc_step(1, 1, &first));
    assert_int_equal(first, 512);
    assert_int_equal(before - pages_released(), (212 + BLOCK_PAGES) * GREY_PAGE);
    assert_int_equal(release_pages(HEAP_RELEASE_PAGES, SIZE_MAX), BLOCK_PAGES - 1);
    model_release(513, BLOCK_PAGES - 1);
    check_all();
}

/* SC-5: chunks that were nearly full are left alone, unless all is to go. */
static void dense_chunks_are_spared(void **unused)
{
    (void)unused;
    size_t first;
    assert_true(alloc_step(3 * HEAP_CHUNK_PAGES, 1, &first));
    free_step(500, HEAP_CHUNK_PAGES / 32);
    free_step(HEAP_CHUNK_PAGES + 500, HEAP_CHUNK_PAGES / 32 + 1);
    pages_note_density();
    free_step(2 * HEAP_CHUNK_PAGES, HEAP_CHUNK_PAGES); /* full when it was looked at */
    assert_int_equal(release_pages(HEAP_RELEASE_BLOCKS, SIZE_MAX), 0);
    assert_int_equal(release_pages(HEAP_RELEASE_PAGES, SIZE_MAX), HEAP_CHUNK_PAGES / 32 + 1);
    model_release(HEAP_CHUNK_PAGES + 500, HEAP_CHUNK_PAGES / 32 + 1);
    check_all();
    pages_note_density();
    assert_int_equal(release_pages(HEAP_RELEASE_BLOCKS, SIZE_MAX), HEAP_CHUNK_PAGES);
    model_release(2 * HEAP_CHUNK_PAGES, HEAP_CHUNK_PAGES);
    check_all();
    assert_int_equal(release_pages(HEAP_RELEASE_PAGES, SIZE_MAX), 0);
    assert_int_equal(release_pages(HEAP_RELEASE_ALL, SIZE_MAX), HEAP_CHUNK_PAGES / 32);
    model_release(500, HEAP_CHUNK_PAGES / 32);
    check_all();
}

/* SC-4: what the heap grew by is told once. */
static void growth_is_told_once(void **unused)
{
    (void)unused;
    size_t first;
    assert_int_equal(pages_take_growth(), 0);
    assert_true(alloc_step(1, 1, &first));
    assert_true(alloc_step(HEAP_CHUNK_PAGES, 1, &first));
    assert_int_equal(pages_take_growth(), 2 * HEAP_CHUNK);
    assert_true(alloc_step(1, 1, &first));
    assert_int_equal(pages_take_growth(), 0);
}

/* How often the kernel had to be asked for memory while each page of the block was stored to.  It says of its page of
 * zeroes too that it is there. */
static OS_UNSANITIZED long faults_in(size_t block)
{
    struct rusage before, after;
    volatile char *p = heap_page_address(block);
    getrusage(RUSAGE_THREAD, &before);
    for (size_t i = 0; i < BLOCK_PAGES * GREY_PAGE; i += 4096)
        p[i] = 0;
    getrusage(RUSAGE_THREAD, &after);
    return after.ru_minflt - before.ru_minflt;
}

/* SC-11: what is used next is there, nothing else is, and it need not be zeroed. */
static void lowest_block_first(void **unused)
{
    (void)unused;
    size_t first;
    bool needs_zero = true;
    assert_true(prefault_step()); /* of a heap that has no chunk */
    assert_int_equal(n_chunks, 1);
    assert_true(prefault_step());
    assert_int_equal(faults_in(BLOCK_PAGES), 0);
    assert_true(faults_in(2 * BLOCK_PAGES) > 0);
    assert_true(pages_alloc(2 * BLOCK_PAGES, 1, &first, &needs_zero));
    assert_int_equal(first, 0);
    assert_false(needs_zero);
    model_touch(0, 2 * BLOCK_PAGES);
    check_all();
    assert_true(alloc_step(1, 1, &first)); /* a page of the third block brings all of that */
    assert_int_equal(n_chunks, 1);
    assert_true(prefault_step());
    assert_int_equal(faults_in(3 * BLOCK_PAGES), 0);
    assert_int_equal(n_chunks, 2); /* before the last is touched, there is another */
}

/* Where an allocation found no pages nothing is touched ahead any more. */
static void not_where_memory_ends(void **unused)
{
    (void)unused;
    size_t first;
    assert_true(prefault_step());
    assert_false(alloc_step(most_pages + 1, 1, &first));
    assert_false(prefault_step());
    assert_true(alloc_step(HEAP_CHUNK_PAGES, 1, &first)); /* it was only too much */
    assert_true(alloc_step(1, 1, &first));
    assert_true(prefault_step());
    assert_true(alloc_step(most_pages - HEAP_CHUNK_PAGES - 1, 1, &first));
    assert_false(alloc_step(1, 1, &first));
    free_step(2 * HEAP_CHUNK_PAGES, HEAP_CHUNK_PAGES);
    release_step();
    assert_false(prefault_step());
}

#ifdef GREY_HOOKS
static _Atomic bool has_page;
static size_t last_page;

static void *take_last(void *unused)
{
    (void)unused;
    bool needs_zero;
    atomic_store(&has_page, pages_alloc(1, 1, &last_page, &needs_zero));
    return NULL;
}

/* While the only free block is out. */
static pthread_t taker;
static void want_a_page(enum os_hook point, const void *what)
{
    (void)what;
    if (point != OS_HOOK_PREFAULT)
        return;
    assert_int_equal(pthread_create(&taker, NULL, take_last, NULL), 0);
    usleep(50000);
    assert_false(atomic_load(&has_page));
}

/* Memory that is out for a moment is not memory that there isn't (AL-14). */
static void who_finds_nothing_waits(void **unused)
{
    (void)unused;
    size_t first;
    assert_true(alloc_step(most_pages, 1, &first));
    free_step(3 * BLOCK_PAGES, BLOCK_PAGES);
    release_step();
    atomic_store(&has_page, false);
    atomic_store(&os_hook_function, want_a_page);
    assert_int_equal(pages_prefault(), BLOCK_PAGES * GREY_PAGE);
    atomic_store(&os_hook_function, NULL);
    pthread_join(taker, NULL);
    assert_true(atomic_load(&has_page));
    assert_int_equal(last_page, 3 * BLOCK_PAGES);
    model_touch(last_page, 1);
    check_all();
}
#endif

/* SC-11: with what was given back and need not be zero it stays so; at the end of the heap there is nothing. */
static void until_the_heap_is_full(void **unused)
{
    (void)unused;
    size_t first;
    assert_true(alloc_step(BLOCK_PAGES, 1, &first));
    memset(heap_page_address(first), 0x5a, BLOCK_PAGES * GREY_PAGE);
    free_step(first, BLOCK_PAGES);
    release_step();
    while (prefault_step())
        ;
    assert_int_equal(pages_released(), 0);
    assert_int_equal(n_chunks * HEAP_CHUNK_PAGES, most_pages);
    bool needs_zero;
    assert_true(pages_alloc(BLOCK_PAGES, 1, &first, &needs_zero));
    assert_int_equal(first, 0);
    const unsigned char *p = (const unsigned char *)heap_page_address(first);
    for (size_t i = 0; !needs_zero && i < BLOCK_PAGES * GREY_PAGE; i++)
        assert_int_equal(p[i], 0);
    model_touch(first, BLOCK_PAGES);
    check_all();
}

#ifdef GREY_HOOKS
/* A refusal at any of the mappings that growth needs changes nothing that counts (AL-14, ER-2). */
static void refused_growth_changes_nothing(void **unused)
{
    (void)unused;
    size_t first;
    assert_true(alloc_step(HEAP_CHUNK_PAGES, 1, &first));
    unsigned refused = 0;
    for (unsigned nth = 1;; nth++) {
        bool needs_zero;
        size_t free = pages_free_count(), mapped = os_mapped(OS_HEAP);
        os_fail_mapping(nth, ENOMEM);
        bool done = pages_alloc(HEAP_CHUNK_PAGES * 4, 1, &first, &needs_zero);
        os_fail_mapping(0, 0);
        if (done)
            break;
        refused++;
        assert_int_equal(pages_free_count(), free);
        assert_int_equal(os_mapped(OS_HEAP), mapped);
        check_all();
    }
    assert_true(refused > 0);
    assert_int_equal(first, HEAP_CHUNK_PAGES);
    model_touch(first, 4 * HEAP_CHUNK_PAGES);
    model_chunks = 5;
    check_all();
}
#endif

static void random_steps(void **unused)
{
    (void)unused;
    enum { HELD = 400, STEPS = 4000 };
    static struct {
        size_t first, n;
    } held[HELD];
    size_t count = 0;
    for (int i = 0; i < STEPS; i++) {
        uint64_t choice = next_random() % 100;
        if (choice < 55 && count < HELD) {
            size_t most = (size_t)1 << next_random() % 11, alignment = 1;
            if (next_random() % 8 == 0)
                alignment = (size_t)1 << next_random() % 9;
            held[count].n = 1 + next_random() % most;
            count += alloc_step(held[count].n, alignment, &held[count].first);
        } else if (choice < 97 && count > 0) {
            size_t which = next_random() % count;
            free_step(held[which].first, held[which].n);
            held[which] = held[--count];
        } else if (next_random() % 4 == 0) {
            prefault_step();
        } else if (next_random() % 4 != 0) {
            release_some_step((enum heap_release)(next_random() % HEAP_RELEASE_WAYS));
        } else {
            release_step();
        }
    }
    while (count > 0) {
        count--;
        free_step(held[count].first, held[count].n);
    }
}

int main(void)
{
    const char *seed = getenv("GREY_TEST_SEED");
    state = seed != NULL ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
    printf("GREY_TEST_SEED=%llu\n", (unsigned long long)state);
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_heap, close_heap)
    const struct CMUnitTest tests[] = {
        TEST(each_size_alone),
        TEST(all_sizes_after_each_other),
        TEST(lowest_fit_wins),
        TEST(growth_uses_the_end),
        TEST(full_heap_says_no),
        TEST(alignment_is_kept),
        TEST(release_and_use_again),
        TEST(highest_blocks_first),
        TEST(dense_chunks_are_spared),
        TEST(growth_is_told_once),
        TEST(lowest_block_first),
        TEST(until_the_heap_is_full),
        TEST(not_where_memory_ends),
        TEST(random_steps),
#ifdef GREY_HOOKS
        TEST(refused_growth_changes_nothing),
        TEST(who_finds_nothing_waits),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
