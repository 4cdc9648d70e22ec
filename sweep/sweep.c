/* sweep/sweep.c -- sweeping is moving a span's mark words to its allocation words (protocol.md 6).
 *
 * Under the span's flag: read the mark words, write them as allocation words, clear them, set the number.
 * Marks are left clear for the next cycle; that holds only because a slow path reads the cycle numbers
 * under the same flag.  An owned span may be swept by anybody: the cells of its owner's run are marked, so
 * they stay allocated.  Nothing else is written for an object, unless a debug mode wants it.
 *
 * Who sweeps what: an index into the span table, claimed in batches of 10 (SW-7).  Somebody may stop in
 * the middle of a batch (a preempted thread), so the collector's last pass looks at every span itself.
 */
#include "sweep/cleanups.h"
#include "sweep/specials.h"
#include "sweep/sweep.h"
#include "sweep/words.h"
#include "os/options.h"
#include "os/turnstile.h"

#if OS_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)0)
#endif

enum { BATCH = 10 };
static const double least_distance = 1 << 20; /* SW-8 */

static _Atomic uint32_t next_span, end_span, sweeper_signal, stopping;
static struct os_turnstile turnstile;
static _Atomic uint64_t debt_ratio; /* spans a byte, as a double's bits */
static pthread_t sweeper;
static bool running;

/* ---- one span --------------------------------------------------------------------------------------- */

static uint32_t cycle_now(void)
{
    /* acquire: pairs with the store in 1.7 */
    return (uint32_t)atomic_load_explicit(&heap.sweep_cycle, memory_order_acquire);
}

static OS_UNSANITIZED void fill_dead(uintptr_t *at, size_t size)
{
    for (size_t i = 0; i < size / sizeof(uintptr_t); i++)
        __atomic_store_n(&at[i], (uintptr_t)0xdeadbeefdeadbeef, __ATOMIC_RELAXED);
}

/* SW-12, TR-16: each dead cell. */
static void bury(const struct span *span, const struct layout *layout)
{
    uint32_t cells = layout->cell != 0 ? layout->cells : 1;
    size_t size = layout->cell != 0 ? layout->cell : span->bytes;
    for (uint32_t i = 0; i < cells; i++) {
        uintptr_t base = (uintptr_t)span_start(span) + i * size;
        if (!heap_cell_allocated(base) || heap_marked(base))
            continue;
        if (os_debug.clobberfree)
            fill_dead((uintptr_t *)base, size);
        ASAN_POISON_MEMORY_REGION((void *)base, size);
    }
}

static _Noreturn void wrong_mark(const struct span *span, uint32_t pages)
{
    const struct page_bits *bits = &heap.bits[span->first_page];
    uint64_t mark = 0, alloc = 0;
    for (uint32_t w = 0; w < 8 * pages && (mark & ~alloc) == 0; w++) {
        mark = atomic_load_explicit(&bits[w / 8].word[w % 8].mark, memory_order_relaxed);
        alloc = atomic_load_explicit(&bits[w / 8].word[w % 8].alloc, memory_order_relaxed);
    }
    os_internal(span_start(span), "marking free object: marks %lx where %lx is allocated",
                (unsigned long)mark, (unsigned long)alloc);
}

void sweep_span(struct span *span)
{
    const struct layout *layout = &heap_layouts[span->layout];
    HOOK(SWEEP_SPAN, span);
    if (UNLIKELY(atomic_load_explicit(&span->specials, memory_order_relaxed) != 0))
        specials_sweep(span);
    bool debug = os_debug.clobberfree;
#if OS_ASAN
    debug = true;
#endif
    if (debug)
        bury(span, layout);
    uint32_t pages = layout->cell != 0 ? span->pages : 1;
    uint32_t live = sweep_words(&heap.bits[span->first_page], pages);
    if (UNLIKELY(live == SWEEP_WRONG))
        wrong_mark(span, pages);
    uint32_t old = span->live;
    ASSERT(live <= old);
    span->live = live;
    span->free_index = 0;
    span->needs_zero = true;
    /* release: pairs with needs_sweep; what was queued for the dead is among the next cycle's roots */
    atomic_store_explicit(&span->swept, cycle_now(), memory_order_release);
    os_count(OS_COUNT_spans_swept, 1);
    span_swept(span, old);
}

static bool needs_sweep(const struct span *span)
{
    return span_in_use(span) &&
           atomic_load_explicit(&((struct span *)span)->swept, memory_order_acquire) != cycle_now();
}

void sweep_if_due(struct span *span)
{
    if (needs_sweep(span)) /* it may have been swept, freed or made anew before the flag was taken */
        sweep_span(span);
}

static void sweep_if_needed(struct span *span)
{
    if (!needs_sweep(span))
        return;
    span_lock(span);
    sweep_if_due(span);
    span_unlock(span);
}

/* ---- batches -------------------------------------------------------------------------------------------- */

static bool sweep_batch(void)
{
    if (sweep_done())
        return false;
    /* seq_cst: see sweep_done */
    uint32_t first = atomic_fetch_add_explicit(&next_span, BATCH, memory_order_seq_cst);
    uint32_t end = atomic_load_explicit(&end_span, memory_order_relaxed);
    for (uint32_t i = first; i < first + BATCH && i < end; i++)
        sweep_if_needed(&heap.spans[i]);
    return first < end;
}

bool sweep_done(void)
{
    /* seq_cst, as every claim: against what cleanups.c has waiting, see its essay */
    return atomic_load_explicit(&next_span, memory_order_seq_cst) >=
           atomic_load_explicit(&end_span, memory_order_relaxed);
}

void sweep_open(void)
{
    uint32_t n = atomic_load_explicit(&heap.n_spans, memory_order_acquire);
    atomic_store_explicit(&end_span, n, memory_order_relaxed);
    atomic_store_explicit(&next_span, 1, memory_order_release);
}

void sweep_begin(uint64_t distance)
{
    uint32_t n = atomic_load_explicit(&end_span, memory_order_relaxed);
    union {
        double ratio;
        uint64_t bits;
    } debt = {.ratio = n / ((double)distance > least_distance ? (double)distance : least_distance)};
    atomic_store_explicit(&debt_ratio, debt.bits, memory_order_relaxed);
    atomic_fetch_add_explicit(&sweeper_signal, 1, memory_order_release);
    os_wake(&sweeper_signal, 1);
}

void sweep_finish(void)
{
    uint64_t begin = os_thread_cpu();
    while (sweep_batch())
        ;
    uint32_t n = atomic_load_explicit(&heap.n_spans, memory_order_acquire);
    for (uint32_t i = 1; i < n; i++)
        sweep_if_needed(&heap.spans[i]);
    os_count(OS_COUNT_sweep_ns, os_thread_cpu() - begin);
    cleanups_flush();
}

void sweep_some(size_t pages)
{
    struct thread *self = thread_self();
    uint64_t before = atomic_load_explicit(&heap.pages_in_use, memory_order_relaxed);
    while (!sweep_done()) {
        thread_enter(self);
        sweep_batch();
        thread_leave(self);
        uint64_t now = atomic_load_explicit(&heap.pages_in_use, memory_order_relaxed);
        if (now + pages <= before)
            return;
    }
}

void sweep_pay(struct thread *self, size_t bytes)
{
    if (sweep_done())
        return;
    union {
        uint64_t bits;
        double ratio;
    } debt = {.bits = atomic_load_explicit(&debt_ratio, memory_order_relaxed)};
    self->sweep_debt += debt.ratio * (double)bytes;
    if (self->sweep_debt < BATCH)
        return;
    self->sweep_debt = 0; /* one batch a refill: a thread is not held up for more */
    thread_enter(self);
    sweep_batch();
    thread_leave(self);
}

/* ---- the background sweeper -------------------------------------------------------------------------------- */

static void *sweeper_main(void *unused)
{
    (void)unused;
    for (;;) {
        /* The signal before the flag: stopping changes them in the other order. */
        uint32_t signal = atomic_load_explicit(&sweeper_signal, memory_order_acquire);
        if (atomic_load_explicit(&stopping, memory_order_acquire))
            return NULL;
        uint64_t begin = os_thread_cpu();
        bool any = false, more = true;
        while (more && !atomic_load_explicit(&stopping, memory_order_relaxed)) {
            more = os_turnstile_enter(&turnstile);
            if (more) {
                more = sweep_batch();
                os_turnstile_leave(&turnstile);
            }
            any |= more;
            if (more)
                os_yield();
        }
        if (any)
            os_count(OS_COUNT_sweep_ns, os_thread_cpu() - begin);
        /* Also if there was nothing to do: program threads may have swept all before this one ran, and what
         * they queued while there was more to sweep waits for this. */
        cleanups_flush();
        os_wait(&sweeper_signal, signal, UINT64_MAX);
    }
}

int sweep_thread_start(void)
{
    atomic_store(&stopping, 0);
    int error = os_start_background(&sweeper, "grey-sweep", sweeper_main, NULL);
    running = error == 0;
    return error;
}

void sweep_thread_stop(void)
{
    if (!running)
        return;
    atomic_store_explicit(&stopping, 1, memory_order_release);
    atomic_fetch_add_explicit(&sweeper_signal, 1, memory_order_release);
    os_wake(&sweeper_signal, 1);
    pthread_join(sweeper, NULL);
    running = false;
    atomic_store(&next_span, 0);
    atomic_store(&end_span, 0);
}

void sweep_park(void) { os_turnstile_close(&turnstile); }
void sweep_unpark(void)
{
    os_turnstile_open(&turnstile);
    atomic_fetch_add_explicit(&sweeper_signal, 1, memory_order_release);
    os_wake(&sweeper_signal, 1);
}
void sweep_fork_child(void)
{
    os_turnstile_init(&turnstile);
    running = false;
}
