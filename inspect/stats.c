/* inspect/stats.c -- struct grey_stats, and the start and end of this room.
 *
 * The struct is versioned by its size: a caller says which one it was compiled with.  There has been one
 * so far, so every other size is unknown.
 */
#include "inspect/inspect.h"

static struct os_events events_before; /* functions that do nothing */

void inspect_init(void)
{
    ledger_reset();
    figures_reset();
    events_before = os_events;
    os_events.pause = ledger_record;
    os_events.cycle = gctrace_cycle;
}

void inspect_shutdown(void)
{
    os_events = events_before;
    metrics_shutdown();
}

int grey_stats_read(struct grey_stats *stats)
{
    if (stats == NULL || stats->size != sizeof(struct grey_stats))
        return EINVAL;
    struct inspect_figures f;
    struct histogram_summary pauses;
    figures_read(&f);
    inspect_pauses_summarize(&pauses);
    *stats = (struct grey_stats){
        .size = sizeof(struct grey_stats),
        .cycles = f.counter[OS_COUNT_cycles],
        .forced_cycles = f.forced_cycles,
        .heap_live = f.live_bytes,
        .heap_goal = f.goal,
        .heap_objects = f.objects,
        .mapped = f.mapped,
        .released = f.released_bytes,
        .metadata = f.metadata,
        .allocated_bytes = f.allocated_bytes,
        .allocated_objects = f.allocated_objects,
        .freed_bytes = f.freed_bytes,
        .freed_objects = f.freed_objects,
        .pause_count = pauses.count,
        .pause_total_ns = pauses.sum,
        .pause_max_ns = pauses.max,
        .pause_p50_ns = pauses.p50,
        .pause_p99_ns = pauses.p99,
        .pause_p9999_ns = pauses.p9999,
        .assist_ns = f.counter[OS_COUNT_assist_ns],
        /* both sorts of mark worker: what marking took beside the program's own threads */
        .worker_ns = f.counter[OS_COUNT_worker_ns] + f.counter[OS_COUNT_idle_worker_ns],
        .sweep_ns = f.counter[OS_COUNT_sweep_ns],
        .handshakes = f.counter[OS_COUNT_handshakes],
        .rescan_rounds = f.counter[OS_COUNT_rounds],
        .threads = f.threads,
        .foreign_regions = f.foreign_regions,
        .foreign_bytes = f.foreign_bytes,
        .foreign_died = f.counter[OS_COUNT_foreign_died],
        .arenas = f.arenas.arenas,
        .arena_chunks_active = f.arenas.active,
        .arena_chunks_reusable = f.arenas.reusable,
        .arena_chunks_pending = f.arenas.pending,
        .arena_chunks_quarantined = f.arenas.quarantined,
        .arena_chunks_ready = f.arenas.ready,
        .pins = f.pins,
        .weak = f.weak,
        .cleanups_queued = f.cleanups_queued,
        .cleanups_run = f.cleanups_run,
    };
    return 0;
}
