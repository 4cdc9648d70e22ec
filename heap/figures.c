/* heap/figures.c -- what the heap answers when inspect/ asks (inspect/gauges.h).
 *
 * Allocation is counted when a run is taken, for all its cells; what threads have not handed out yet is
 * subtracted here, read from outside while they go on.  Such a sum can be a little behind one that was
 * reported before, so what is cumulative is kept from going back (TR-5).
 */
#include "heap/pages.h"
#include "inspect/gauges.h"

static _Atomic uint64_t reported_bytes, reported_objects; /* heap_allocated never goes back */

static uint64_t never_back(_Atomic uint64_t *reported, uint64_t value)
{
    uint64_t old = atomic_load_explicit(reported, memory_order_relaxed);
    while (old < value && !atomic_compare_exchange_weak_explicit(reported, &old, value, memory_order_relaxed,
                                                                 memory_order_relaxed))
        ;
    return old < value ? value : old;
}

static void runs_left(uint64_t *bytes, uint64_t *cells)
{
    *bytes = *cells = 0;
    for (struct thread *t = atomic_load_explicit(&thread_blocks, memory_order_acquire); t != NULL;
         t = t->next_block)
        if (atomic_load_explicit(&t->attached, memory_order_acquire))
            heap_runs_left(t, bytes, cells);
}

/* A run that was just taken may not be counted yet. */
static uint64_t less(uint64_t count, uint64_t left) { return count > left ? count - left : 0; }

void heap_allocated(uint64_t *bytes, uint64_t *objects)
{
    uint64_t left_bytes, left_cells;
    runs_left(&left_bytes, &left_cells);
    *bytes = never_back(&reported_bytes, less(os_counter_read(OS_COUNT_allocated_bytes), left_bytes));
    *objects = never_back(&reported_objects, less(os_counter_read(OS_COUNT_allocated_objects), left_cells));
}
uint64_t heap_live_bytes(void)
{
    return atomic_load_explicit(&heap.live, memory_order_relaxed) +
           atomic_load_explicit(&heap.chunks_live, memory_order_relaxed);
}
uint64_t heap_in_use_bytes(void)
{
    return atomic_load_explicit(&heap.pages_in_use, memory_order_relaxed) << GREY_PAGE_SHIFT;
}
uint64_t heap_free_bytes(void)
{
    uint64_t free_pages = pages_free_count() << GREY_PAGE_SHIFT, released = pages_released();
    return free_pages > released ? free_pages - released : 0;
}
uint64_t heap_released_bytes(void) { return pages_released(); }
