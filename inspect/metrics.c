/* inspect/metrics.c -- every metric, in one table; reading one by name, writing all as OpenMetrics text.
 *
 * Names are in the style of Go's runtime/metrics: a path that says what, a colon, the unit.  The table is
 * the only place that knows a metric: the list, the reader, the writer, docs/metrics.md and the tests are
 * made from it.  An entry is (id, kind, cumulative, name, value, help):
 *
 *     U64        value is an expression over the figures f
 *     F64        the same in nanoseconds (f, or processor time p); shown in seconds, so never NaN, and
 *                written as decimals from the integer, so never in a locale's notation
 *     HISTOGRAM  value is the set of the ledger's histograms that are taken together
 *
 * A histogram read by name has the ledger's full resolution, up to its highest value.  Its counts are
 * copied to memory of the reading thread: 30 KiB of address space, asked for at the first such read and
 * used again by another thread after this one's end.  As text it has 25 buckets, a factor of two apart.
 */
#include "inspect/inspect.h"
#include "inspect/text.h"
#include "os/options.h"

#include <string.h>

/* ---- the table ---------------------------------------------------------------------------------------- */

#define COUNTER(name) (f->counter[OS_COUNT_##name])
#define PAUSE_METRICS(kind, what)                                                                            \
    X(pause_##kind, HISTOGRAM, true, "/gc/pauses/" #kind ":seconds", WALL | 1u << OS_PAUSE_##kind,           \
      "Pauses of program threads, wall time: " what ".")                                                     \
    X(pause_cpu_##kind, HISTOGRAM, true, "/gc/pauses/" #kind ":cpu-seconds", 1u << OS_PAUSE_##kind,          \
      "Pauses of program threads, processor time where measured: " what ".")
#define ALL_PAUSES ((1u << OS_PAUSE_KINDS) - 1)
#define WALL (1u << 31)

/* clang-format off */
#define METRICS                                                                                       \
    X(arena_active, U64, false, "/gc/arenas/chunks/active:chunks", f->arenas.active,                  \
      "Chunks of arenas that are in use.")                                                            \
    X(arena_pending, U64, false, "/gc/arenas/chunks/pending:chunks", f->arenas.pending,               \
      "Chunks of freed arenas that wait for the end of the cycle to be made to fault.")               \
    X(arena_quarantined, U64, false, "/gc/arenas/chunks/quarantined:chunks", f->arenas.quarantined,   \
      "Chunks that fault, until no pointer into them is left.")                                       \
    X(arena_ready, U64, false, "/gc/arenas/chunks/ready:chunks", f->arenas.ready,                     \
      "Chunks without memory, to be used again.")                                                     \
    X(arena_reusable, U64, false, "/gc/arenas/chunks/reusable:chunks", f->arenas.reusable,            \
      "Chunks of freed arenas that were not full, for the next arena to continue in.")                \
    X(arenas, U64, false, "/gc/arenas/live:arenas", f->arenas.arenas,                                 \
      "Arenas that are not freed.")                                                                   \
    X(assists, U64, true, "/gc/assists:assists", COUNTER(assists),                                    \
      "Times that an allocating thread marked on the collector's behalf.")                            \
    X(cleanups_queued, U64, true, "/gc/cleanups/queued:cleanups", f->cleanups_queued,               \
      "Cleanups and finalizers of objects and foreign regions that died.")                          \
    X(cleanups_run, U64, true, "/gc/cleanups/run:cleanups", f->cleanups_run,                        \
      "Of those the ones that have run.")                                                           \
    X(cycles_automatic, U64, true, "/gc/cycles/automatic:gc-cycles", COUNTER(cycles) - f->forced_cycles, \
      "Cycles that the collector began by itself, periodic ones included.")                           \
    X(cycles_forced, U64, true, "/gc/cycles/forced:gc-cycles", f->forced_cycles,                      \
      "Cycles that the program asked for.")                                                           \
    X(cycles_periodic, U64, true, "/gc/cycles/periodic:gc-cycles", f->periodic_cycles,                \
      "Cycles begun because there had been none for two minutes.")                                    \
    X(cycles_total, U64, true, "/gc/cycles/total:gc-cycles", COUNTER(cycles),                         \
      "All cycles: automatic and forced.")                                                            \
    X(fences, U64, true, "/gc/fences:fences", COUNTER(fences),                                        \
      "Times that the collector waited for all threads to have passed a memory fence.")               \
    X(foreign_added, U64, true, "/gc/foreign/added:regions", COUNTER(foreign_added),                \
      "Foreign regions registered.")                                                                \
    X(foreign_bytes, U64, false, "/gc/foreign/bytes:bytes", f->foreign_bytes,                       \
      "Bytes of foreign regions that are registered.")                                              \
    X(foreign_died, U64, true, "/gc/foreign/died:regions", COUNTER(foreign_died),                   \
      "Foreign regions found unreachable.")                                                         \
    X(foreign_regions, U64, false, "/gc/foreign/live:regions", f->foreign_regions,                  \
      "Foreign regions that are registered.")                                                       \
    X(foreign_released, U64, true, "/gc/foreign/released:regions", COUNTER(foreign_released),       \
      "Foreign regions that the program released.")                                                 \
    X(handles, U64, false, "/gc/handles:handles", f->handles,                                         \
      "Handles that are held.")                                                                       \
    X(handshakes_blocked, U64, true, "/gc/handshakes/blocked:handshakes", COUNTER(handshakes_blocked), \
      "Handshakes that the collector answered for threads in blocking regions.")                      \
    X(handshakes_parked, U64, true, "/gc/handshakes/parked:handshakes", COUNTER(handshakes_parked),   \
      "Of the blocked ones those without a scan: same region as in this cycle's last round.")         \
    X(handshakes_polled, U64, true, "/gc/handshakes/polled:handshakes", COUNTER(handshakes_polled),   \
      "Handshakes that threads answered at a slow path or safepoint.")                                \
    X(handshakes_signalled, U64, true, "/gc/handshakes/signalled:handshakes", COUNTER(handshakes_signalled), \
      "Handshakes that threads answered in the signal handler.")                                      \
    X(handshakes_total, U64, true, "/gc/handshakes/total:handshakes", COUNTER(handshakes),            \
      "All answers to handshakes: polled, signalled and blocked.")                                    \
    X(allocated_bytes, U64, true, "/gc/heap/allocs:bytes", f->allocated_bytes,                        \
      "Bytes allocated, in whole cells.")                                                             \
    X(allocated_objects, U64, true, "/gc/heap/allocs:objects", f->allocated_objects,                  \
      "Objects allocated.")                                                                           \
    X(freed_bytes, U64, true, "/gc/heap/frees:bytes", f->freed_bytes,                                 \
      "Bytes freed by sweeping.")                                                                     \
    X(freed_objects, U64, true, "/gc/heap/frees:objects", f->freed_objects,                           \
      "Objects freed by sweeping.")                                                                   \
    X(large_objects, U64, true, "/gc/heap/large-allocs:objects", COUNTER(large_allocated),            \
      "Objects allocated that are too large for a size class; part of all allocated.")                \
    X(goal, U64, false, "/gc/heap/goal:bytes", f->goal,                                               \
      "Heap size at which the cycle that is running, or the next, should end.")                       \
    X(live, U64, false, "/gc/heap/live:bytes", f->live_bytes,                                         \
      "Bytes that the last cycle marked and that were allocated since.")                              \
    X(objects, U64, false, "/gc/heap/objects:objects", f->objects,                                    \
      "Objects in the heap, garbage that was not swept yet included.")                                \
    X(limiter_last, U64, false, "/gc/limiter/last-on:gc-cycle", f->limiter_last,                      \
      "Number of the last cycle in which the limiter went on; 0 if it never has.")                    \
    X(marked_bytes, U64, true, "/gc/mark/marked:bytes", COUNTER(marked_bytes),                        \
      "Bytes of objects found reachable, all cycles together.")                                       \
    X(marked_objects, U64, true, "/gc/mark/marked:objects", COUNTER(marked_objects),                  \
      "Objects found reachable, all cycles together.")                                                \
    X(shades, U64, true, "/gc/mark/shaded:objects", COUNTER(shades),                                  \
      "Objects that the write barrier marked.")                                                       \
    X(slow_stores, U64, true, "/gc/mark/stores:stores", COUNTER(slow_stores),                         \
      "Stores that took the write barrier's slow path.")                                              \
    X(memory_limit, U64, false, "/gc/memory-limit:bytes", f->memory_limit,                            \
      "Soft memory limit; 18446744073709551615 if there is none.")                                    \
    OS_PAUSES(PAUSE_METRICS)                                                                          \
    X(pause_total, HISTOGRAM, true, "/gc/pauses/total:seconds", WALL | ALL_PAUSES,                    \
      "Pauses of program threads, wall time: all causes.")                                            \
    X(pause_cpu_total, HISTOGRAM, true, "/gc/pauses/total:cpu-seconds", ALL_PAUSES,                   \
      "Pauses of program threads, processor time where measured: all causes.")                        \
    X(percent, U64, false, "/gc/percent:percent", f->percent,                                         \
      "Heap growth before the next cycle; 18446744073709551615 if automatic cycles are off.")         \
    X(pins, U64, false, "/gc/pins:pins", f->pins,                                                     \
      "Pins that are set.")                                                                           \
    X(rounds_called_off, U64, true, "/gc/rounds/called-off:rounds", COUNTER(rounds_called_off),       \
      "Held rounds called off because a thread did not answer in time.")                              \
    X(rounds_held, U64, true, "/gc/rounds/held:rounds", COUNTER(rounds_held),                         \
      "Rounds in which threads were held until all had answered.")                                    \
    X(rounds_total, U64, true, "/gc/rounds/total:rounds", COUNTER(rounds),                            \
      "Rounds of stack scans, held ones included.")                                                   \
    X(scanned_heap, U64, true, "/gc/scan/heap:bytes", COUNTER(scanned_heap_bytes),                    \
      "Bytes of objects scanned.")                                                                    \
    X(scanned_roots, U64, true, "/gc/scan/roots:bytes", COUNTER(scanned_root_bytes),                  \
      "Bytes of registered roots scanned.")                                                           \
    X(scanned_stacks, U64, true, "/gc/scan/stacks:bytes", COUNTER(scanned_stack_bytes),               \
      "Bytes of stacks and registers scanned.")                                                       \
    X(scanned_total, U64, true, "/gc/scan/total:bytes",                                               \
      COUNTER(scanned_heap_bytes) + COUNTER(scanned_root_bytes) + COUNTER(scanned_stack_bytes),       \
      "All bytes scanned: heap, roots and stacks.")                                                   \
    X(prefaulted_bytes, U64, true, "/gc/scavenge/prefaulted:bytes", COUNTER(prefaulted_bytes),        \
      "Bytes of free memory touched before anybody allocated them.")                                  \
    X(released_bytes, U64, true, "/gc/scavenge/released:bytes", COUNTER(released_bytes),              \
      "Bytes given back to the operating system.")                                                    \
    X(signals, U64, true, "/gc/signals:signals", COUNTER(signals_sent),                               \
      "Handshake signals sent.")                                                                      \
    X(spans_swept, U64, true, "/gc/sweep/spans:spans", COUNTER(spans_swept),                          \
      "Spans swept.")                                                                                 \
    X(weak, U64, false, "/gc/weak:references", f->weak,                                             \
      "Weak references whose object lives.")                                                        \
    X(cpu_handshake, F64, true, "/cpu/classes/gc/handshake:cpu-seconds", COUNTER(handshake_ns),       \
      "Processor time that program threads spent answering handshakes.")                              \
    X(cpu_assist, F64, true, "/cpu/classes/gc/mark/assist:cpu-seconds", COUNTER(assist_ns),           \
      "Processor time that program threads spent marking.")                                           \
    X(cpu_dedicated, F64, true, "/cpu/classes/gc/mark/dedicated:cpu-seconds", COUNTER(worker_ns),     \
      "Processor time of the mark workers.")                                                          \
    X(cpu_nice, F64, true, "/cpu/classes/gc/mark/idle:cpu-seconds", COUNTER(idle_worker_ns),          \
      "Processor time of the nice-19 mark workers.")                                                  \
    X(cpu_sweep, F64, true, "/cpu/classes/gc/sweep:cpu-seconds", COUNTER(sweep_ns),                   \
      "Processor time spent sweeping, by whatever thread.")                                           \
    X(cpu_collector, F64, true, "/cpu/classes/gc/total:cpu-seconds", p->collector,                    \
      "Processor time of the collector: handshakes, marking and sweeping.")                           \
    X(cpu_idle, F64, true, "/cpu/classes/idle:cpu-seconds", p->idle,                                  \
      "Time of the planned processors that this process did not use.")                                \
    X(cpu_scavenge_assist, F64, true, "/cpu/classes/scavenge/assist:cpu-seconds",                     \
      COUNTER(scavenge_assist_ns), "Processor time that allocating threads spent giving memory back.") \
    X(cpu_scavenge, F64, true, "/cpu/classes/scavenge/background:cpu-seconds", COUNTER(scavenge_ns),  \
      "Processor time of the thread that gives memory back.")                                         \
    X(cpu_prefault, F64, true, "/cpu/classes/scavenge/prefault:cpu-seconds", COUNTER(prefault_ns),    \
      "Processor time of the thread that touches free memory ahead of its use.")                      \
    X(cpu_scavenge_total, F64, true, "/cpu/classes/scavenge/total:cpu-seconds", p->scavenger,         \
      "Processor time spent giving memory back, and touching it ahead of use.")                        \
    X(cpu_total, F64, true, "/cpu/classes/total:cpu-seconds",                                         \
      p->collector + p->scavenger + p->program + p->idle,                                             \
      "All of it: collector, scavenging, program and idle.")                                          \
    X(cpu_program, F64, true, "/cpu/classes/user:cpu-seconds", p->program,                            \
      "Processor time of the program itself.")                                                        \
    X(memory_arenas, U64, false, "/memory/classes/arenas:bytes", f->class[OS_ARENAS],                 \
      "Chunks of arenas that have memory.")                                                           \
    X(memory_heap_free, U64, false, "/memory/classes/heap/free:bytes", f->free_bytes,                 \
      "Free pages of the heap that still have memory.")                                               \
    X(memory_heap_objects, U64, false, "/memory/classes/heap/objects:bytes", f->object_bytes,         \
      "Bytes of spans in objects, as /gc/heap/live counts them.")                                     \
    X(memory_heap_released, U64, false, "/memory/classes/heap/released:bytes", f->released_bytes,     \
      "Free pages of the heap without memory: given back to the operating system, or not used yet.")  \
    X(memory_heap_unused, U64, false, "/memory/classes/heap/unused:bytes", f->unused_bytes,           \
      "Bytes of spans in no object.")                                                                 \
    X(memory_chunks, U64, false, "/memory/classes/metadata/arenas:bytes", f->class[OS_CHUNKS],        \
      "Records of arenas and their chunks, pointer bits.")                                            \
    X(memory_bits, U64, false, "/memory/classes/metadata/bits:bytes", f->class[OS_BITS],              \
      "Mark and allocation bits, page tables.")                                                       \
    X(memory_foreign, U64, false, "/memory/classes/metadata/foreign:bytes", f->class[OS_FOREIGN],   \
      "The range index and the records of foreign regions.")                                        \
    X(memory_inspect, U64, false, "/memory/classes/metadata/inspect:bytes", f->class[OS_INSPECT],     \
      "Readers' copies of histograms, verifier.")                                                     \
    X(memory_mark, U64, false, "/memory/classes/metadata/mark:bytes", f->class[OS_MARK],              \
      "Work queues and grey buffers.")                                                                \
    X(memory_other, U64, false, "/memory/classes/metadata/other:bytes",                               \
      f->class[OS_PERSISTENT] + f->class[OS_POOL], "Pools and persistent memory of no other class.")  \
    X(memory_pins, U64, false, "/memory/classes/metadata/pins:bytes", f->class[OS_PINS],              \
      "Records of pins and handles.")                                                                 \
    X(memory_spans, U64, false, "/memory/classes/metadata/spans:bytes", f->class[OS_SPANS],           \
      "Span records.")                                                                                \
    X(memory_specials, U64, false, "/memory/classes/metadata/specials:bytes", f->class[OS_SPECIALS],\
      "Records of cleanups, finalizers and weak references.")                                       \
    X(memory_threads, U64, false, "/memory/classes/metadata/threads:bytes", f->class[OS_THREADS],     \
      "Thread blocks, runs and copy buffers.")                                                        \
    X(memory_total, U64, false, "/memory/classes/total:bytes", f->mapped,                             \
      "All memory that the library has mapped: the sum of the classes.")                              \
    X(refills, U64, true, "/sched/refills:refills", COUNTER(refills),                                 \
      "Times that a thread took a new run of free cells.")                                            \
    X(threads_attached, U64, true, "/sched/threads/attached:threads", COUNTER(threads_attached),      \
      "Threads that attached.")                                                                       \
    X(threads_detached, U64, true, "/sched/threads/detached:threads", COUNTER(threads_detached),      \
      "Threads that detached.")                                                                       \
    X(threads, U64, false, "/sched/threads/now:threads", f->threads,                                  \
      "Threads that are attached.")
/* clang-format on */

enum metric {
#define X(id, kind, cumulative, name, value, help) METRIC_##id,
    METRICS
#undef X
        METRIC_COUNT
};

static const struct grey_metric_info infos[METRIC_COUNT] = {
#define X(id, kind, cumulative, name, value, help) {name, help, GREY_METRIC_##kind, cumulative},
    METRICS
#undef X
};

/* A number, nanoseconds, or a set of histograms, as the metric's kind says. */
static uint64_t value_of(enum metric metric, const struct inspect_figures *f,
                         const struct inspect_processor_time *p)
{
    switch (metric) {
#define X(id, kind, cumulative, name, value, help)                                                           \
    case METRIC_##id:                                                                                        \
        return (value);
        METRICS
#undef X
    case METRIC_COUNT:
        break;
    }
    os_internal(NULL, "metric %d", (int)metric);
}

const struct grey_metric_info *grey_metric_list(size_t *count)
{
    if (count != NULL)
        *count = METRIC_COUNT;
    return infos;
}

/* ---- histograms ------------------------------------------------------------------------------------ */

static size_t histograms_of(uint64_t selected, const struct histogram *set[OS_PAUSE_KINDS])
{
    size_t n = 0;
    for (unsigned kind = 0; kind < OS_PAUSE_KINDS; kind++)
        if (selected & (1u << kind))
            set[n++] = selected & WALL ? inspect_pauses((enum os_pause_kind)kind)
                                       : inspect_pauses_cpu((enum os_pause_kind)kind);
    return n;
}

static uint64_t count_at(const struct histogram *const *set, size_t n, unsigned bucket)
{
    uint64_t count = 0;
    for (size_t h = 0; h < n; h++)
        count += histogram_at(set[h], bucket);
    return count;
}

/* Where a thread keeps the counts that it read last.  Slots are static, so that a thread that ends while
 * the library stops has something to write to; their memory is the operating system's pages. */
struct copy {
    _Atomic uint32_t taken; /* acquire to take, release to give back: the next owner sees the memory */
    uint64_t *counts;       /* the owner's */
};
enum { COPIES = 128 };
#define COPY_BYTES ((HISTOGRAM_BUCKETS * sizeof(uint64_t) + GREY_PAGE - 1) & ~(GREY_PAGE - 1))
static struct copy copies[COPIES];
static double bounds[HISTOGRAM_BUCKETS + 1]; /* seconds */
static pthread_key_t copy_key;
static pthread_once_t copy_once = PTHREAD_ONCE_INIT;

static void give_back(void *copy)
{
    atomic_store_explicit(&((struct copy *)copy)->taken, 0, memory_order_release);
}

static void prepare_copies(void)
{
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        bounds[i] = (double)histogram_low(i) / 1e9;
    bounds[HISTOGRAM_BUCKETS] = 18446744073709551616.0 / 1e9;
    if (pthread_key_create(&copy_key, give_back) != 0)
        os_internal(NULL, "no thread-specific key left for the histograms of metrics");
}

static uint64_t *own_counts(void)
{
    pthread_once(&copy_once, prepare_copies);
    struct copy *copy = pthread_getspecific(copy_key);
    for (unsigned i = 0; copy == NULL && i < COPIES; i++) {
        uint32_t taken = 0;
        if (atomic_compare_exchange_strong_explicit(&copies[i].taken, &taken, 1, memory_order_acquire,
                                                    memory_order_relaxed)) {
            copy = &copies[i];
            if (pthread_setspecific(copy_key, copy) != 0) {
                give_back(copy);
                return NULL;
            }
        }
    }
    if (copy == NULL)
        return NULL;
    if (copy->counts == NULL)
        copy->counts = os_alloc(COPY_BYTES, OS_INSPECT);
    return copy->counts;
}

void metrics_shutdown(void)
{
    for (unsigned i = 0; i < COPIES; i++) {
        if (copies[i].counts != NULL)
            os_free(copies[i].counts, COPY_BYTES, OS_INSPECT, COPY_BYTES, COPY_BYTES);
        copies[i].counts = NULL;
    }
}

static int read_histogram(uint64_t selected, struct grey_metric *out)
{
    uint64_t *counts = own_counts();
    if (counts == NULL)
        return ENOMEM;
    const struct histogram *set[OS_PAUSE_KINDS];
    size_t n = histograms_of(selected, set);
    unsigned last = 0;
    for (size_t h = 0; h < n; h++) {
        unsigned own = histogram_index(histogram_max(set[h]));
        last = own > last ? own : last;
    }
    for (unsigned i = 0; i <= last; i++)
        counts[i] = count_at(set, n, i);
    out->counts = counts;
    out->bounds = bounds;
    out->n = last + 1;
    return 0;
}

/* ---- by name ------------------------------------------------------------------------------------------ */

int grey_metric_read(const char *name, struct grey_metric *out)
{
    if (out == NULL)
        return EINVAL;
    *out = (struct grey_metric){.kind = GREY_METRIC_NONE};
    if (name == NULL)
        return EINVAL;
    unsigned i = 0;
    while (i < METRIC_COUNT && strcmp(infos[i].name, name) != 0)
        i++;
    if (i == METRIC_COUNT)
        return ENOENT;

    struct inspect_figures f;
    struct inspect_processor_time p = {0};
    figures_read(&f);
    if (infos[i].kind == GREY_METRIC_F64)
        figures_processor_time(&f, &p);
    uint64_t value = value_of((enum metric)i, &f, &p);
    if (infos[i].kind == GREY_METRIC_HISTOGRAM) {
        int error = read_histogram(value, out);
        if (error != 0)
            return error;
    } else if (infos[i].kind == GREY_METRIC_F64) {
        out->f64 = (double)value / 1e9;
    } else {
        out->u64 = value;
    }
    out->kind = infos[i].kind;
    return 0;
}

/* ---- as text ------------------------------------------------------------------------------------------ */

/* "/gc/heap/allocs:bytes" is grey_gc_heap_allocs_bytes. */
static void put_family(struct text *t, const struct grey_metric_info *info)
{
    text_string(t, "grey");
    for (const char *c = info->name; *c != '\0'; c++)
        text_char(t, *c == '/' || *c == ':' || *c == '-' ? '_' : *c);
}

static void put_head(struct text *t, const struct grey_metric_info *info)
{
    text_string(t, "# TYPE ");
    put_family(t, info);
    bool histogram = info->kind == GREY_METRIC_HISTOGRAM;
    text_string(t, histogram ? " histogram\n" : info->cumulative ? " counter\n" : " gauge\n");
    /* OpenMetrics has units for bytes and seconds; counts of things have none. */
    const char *unit = strrchr(info->name, ':') + 1;
    if (strcmp(unit, "cpu-seconds") == 0)
        unit = "seconds";
    if (strcmp(unit, "bytes") == 0 || strcmp(unit, "seconds") == 0) {
        text_string(t, "# UNIT ");
        put_family(t, info);
        text_char(t, ' ');
        text_string(t, unit);
        text_char(t, '\n');
    }
    text_string(t, "# HELP ");
    put_family(t, info);
    text_char(t, ' ');
    text_string(t, info->help);
    text_char(t, '\n');
}

static void put_bucket(struct text *t, const struct grey_metric_info *info, uint64_t highest, uint64_t count)
{
    put_family(t, info);
    text_string(t, "_bucket{le=\"");
    if (highest == UINT64_MAX)
        text_string(t, "+Inf");
    else
        text_decimal(t, highest, 9, 9);
    text_string(t, "\"} ");
    text_number(t, count);
    text_char(t, '\n');
}

/* Cuts at the powers of two from 1 us to 17 s, which are edges of the ledger's buckets.  A label is the
 * highest value below the power, so that "less or equal" is exact. */
static void put_histogram(struct text *t, const struct grey_metric_info *info, uint64_t selected)
{
    const struct histogram *set[OS_PAUSE_KINDS];
    size_t n = histograms_of(selected, set);
    uint64_t sum = 0, count = 0;
    for (size_t h = 0; h < n; h++)
        sum += histogram_sum(set[h]);
    unsigned bucket = 0;
    for (unsigned power = 10; power <= 34; power++) {
        uint64_t edge = (uint64_t)1 << power;
        for (; bucket < histogram_index(edge); bucket++)
            count += count_at(set, n, bucket);
        put_bucket(t, info, edge - 1, count);
    }
    for (; bucket < HISTOGRAM_BUCKETS; bucket++)
        count += count_at(set, n, bucket);
    put_bucket(t, info, UINT64_MAX, count);
    put_family(t, info);
    text_string(t, "_sum ");
    text_decimal(t, sum, 9, 9);
    text_char(t, '\n');
    put_family(t, info);
    text_string(t, "_count ");
    text_number(t, count);
    text_char(t, '\n');
}

int grey_metrics_write(int fd)
{
    if (fd < 0)
        return EBADF;
    struct inspect_figures f;
    struct inspect_processor_time p;
    figures_read(&f);
    figures_processor_time(&f, &p);
    char buffer[4096];
    struct text t = TEXT_INIT(buffer, fd);
    for (unsigned i = 0; i < METRIC_COUNT && t.error == 0; i++) {
        const struct grey_metric_info *info = &infos[i];
        uint64_t value = value_of((enum metric)i, &f, &p);
        put_head(&t, info);
        if (info->kind == GREY_METRIC_HISTOGRAM) {
            put_histogram(&t, info, value);
            continue;
        }
        put_family(&t, info);
        text_string(&t, info->cumulative ? "_total " : " ");
        if (info->kind == GREY_METRIC_F64)
            text_decimal(&t, value, 9, 9);
        else
            text_number(&t, value);
        text_char(&t, '\n');
    }
    text_string(&t, "# EOF\n");
    return text_flush(&t);
}
