/* inspect/figures.c -- all figures at one moment, made to fit together.
 *
 * The collector counts in many places and none of them waits for a reader, so a reader that comes in
 * between sees one figure already moved and another not yet.  Left alone that would show sums that don't
 * add up, and differences that wrap around.  Three means, cheapest first, make a reading consistent:
 *
 *   order      of two figures of which one never exceeds the other (freed and allocated) the smaller is
 *              read first;
 *   residue    one part of a sum is not read but is what the others leave, each cut to what there is;
 *   ratchet    a residue of cumulative figures is too small for a moment when a part moves before the
 *              whole.  Every reading is a lower bound of the truth, so the largest one yet is the best
 *              known, and it never decreases.
 *
 * Exact when no thread runs; else off by what happened during the reading.
 */
#include "inspect/gauges.h"
#include "inspect/inspect.h"
#include "os/options.h"

static _Atomic uint64_t automatic_floor, program_floor, idle_floor;
static _Atomic uint64_t start_ns, start_processor_ns;

static inline uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t minus(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

/* relaxed: each ratchet stands alone; readers need only agree on its own order of values */
static uint64_t ratchet(_Atomic uint64_t *highest, uint64_t value)
{
    uint64_t old = atomic_load_explicit(highest, memory_order_relaxed);
    while (value > old)
        if (atomic_compare_exchange_weak_explicit(highest, &old, value, memory_order_relaxed,
                                                  memory_order_relaxed))
            return value;
    return old;
}

void figures_reset(void)
{
    _Atomic uint64_t *const all[] = {&automatic_floor, &program_floor, &idle_floor};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        atomic_store_explicit(all[i], 0, memory_order_relaxed);
    atomic_store_explicit(&start_ns, os_now(), memory_order_relaxed);
    atomic_store_explicit(&start_processor_ns, os_process_cpu(), memory_order_relaxed);
}

static void read_counters(struct inspect_figures *f)
{
    /* Freed before allocated, cycles before forced ones: the order that the ratchets below rely on. */
    f->freed_bytes = os_counter_read(OS_COUNT_freed_bytes);
    f->freed_objects = os_counter_read(OS_COUNT_freed_objects);
    f->counter[OS_COUNT_cycles] = os_counter_read(OS_COUNT_cycles);
    for (unsigned i = 0; i < OS_COUNTERS_END; i++)
        if (i != OS_COUNT_cycles)
            f->counter[i] = os_counter_read((enum os_counter)i);
}

static void read_allocation(struct inspect_figures *f)
{
    heap_allocated(&f->allocated_bytes, &f->allocated_objects);
    f->freed_bytes = least(f->freed_bytes, f->allocated_bytes);
    f->freed_objects = least(f->freed_objects, f->allocated_objects);
}

static void divide_cycles(struct inspect_figures *f)
{
    /* A forced cycle is counted as forced first, then as a cycle. */
    uint64_t total = f->counter[OS_COUNT_cycles];
    uint64_t automatic = ratchet(&automatic_floor, minus(total, f->counter[OS_COUNT_cycles_forced]));
    automatic = least(automatic, total); /* another reader may have seen more */
    f->forced_cycles = total - automatic;
    f->periodic_cycles = least(f->counter[OS_COUNT_cycles_periodic], automatic);
}

static void divide_memory(struct inspect_figures *f)
{
    f->live_bytes = heap_live_bytes();
    f->objects = f->allocated_objects - f->freed_objects; /* of this reading: they fit together */
    uint64_t released = heap_released_bytes();
    uint64_t in_use = heap_in_use_bytes();
    f->mapped = 0;
    for (unsigned i = 0; i < OS_CLASSES; i++) {
        f->class[i] = os_mapped((enum os_class)i);
        f->mapped += f->class[i];
    }
    f->metadata = f->mapped - f->class[OS_HEAP] - f->class[OS_ARENAS];
    in_use = least(in_use, f->class[OS_HEAP]);
    uint64_t idle = f->class[OS_HEAP] - in_use;
    f->released_bytes = least(released, idle);
    f->free_bytes = idle - f->released_bytes;
    f->object_bytes = least(f->live_bytes, in_use);
    f->unused_bytes = in_use - f->object_bytes;
}

void figures_read(struct inspect_figures *f)
{
    read_counters(f);
    read_allocation(f);
    divide_cycles(f);
    divide_memory(f);
    f->goal = cycle_goal();
    f->threads = mutator_threads();
    f->foreign_regions = foreign_regions();
    f->foreign_bytes = foreign_bytes();
    f->weak = specials_weak();
    f->cleanups_run = cleanups_run(); /* before those queued: never more than they */
    f->cleanups_queued = cleanups_queued();
    f->pins = pin_count();
    f->handles = pin_handles();
    arena_figures(&f->arenas);
    int percent = cycle_percent();
    f->percent = percent < 0 ? UINT64_MAX : (uint64_t)percent;
    f->memory_limit = cycle_memory_limit();
    f->limiter_last = cycle_limiter_last();
}

void figures_processor_time(const struct inspect_figures *f, struct inspect_processor_time *out)
{
    uint64_t start = atomic_load_explicit(&start_ns, memory_order_relaxed);
    uint64_t elapsed = start == 0 ? 0 : minus(os_now(), start); /* first: idle is a lower bound then */
    uint64_t used = minus(os_process_cpu(), atomic_load_explicit(&start_processor_ns, memory_order_relaxed));
    const uint64_t *counter = f->counter;
    out->collector = counter[OS_COUNT_assist_ns] + counter[OS_COUNT_worker_ns] +
                     counter[OS_COUNT_idle_worker_ns] + counter[OS_COUNT_handshake_ns] +
                     counter[OS_COUNT_sweep_ns];
    out->scavenger =
        counter[OS_COUNT_scavenge_ns] + counter[OS_COUNT_scavenge_assist_ns] + counter[OS_COUNT_prefault_ns];
    /* The kernel charges the process at once, the collector itself at the end of each slice of work. */
    out->program = ratchet(&program_floor, minus(used, out->collector + out->scavenger));
    out->idle = ratchet(&idle_floor, minus(elapsed * os_tuning.processors, used));
}
