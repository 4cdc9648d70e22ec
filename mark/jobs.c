/* mark/jobs.c -- root work: registered ranges in pieces, records of other rooms (foreign regions, specials,
 * pins), chunks of arenas, and the rescan after an overflow.
 *
 * The collector makes all jobs of a cycle before it opens the gate; workers claim them one by one through
 * an index.  Each counts in work_pending until what it found is drained.  A job's state lets removal of a
 * root wait for a scanner that is inside, and for no more than that (UM-10).
 *
 * Overflow.  When no memory can be had for a block, references to marked objects are dropped and a flag
 * is set.  Before marking may end, every marked object of the heap is scanned again: slow, and never
 * loses anything ("Failure" in docs/architecture.md).
 */
#include "arena/arena.h"
#include "foreign/foreign.h"
#include "mark/internal.h"
#include "os/options.h"
#include "pin/pin.h"
#include "sweep/specials.h"

#include <link.h>

enum { ROOT_PIECE = 256 << 10, SPANS_A_JOB = 256, JOBS_STEP = 1 << 16 }; /* UM-11 */
enum { RECORDS_A_JOB = 4096 };                                           /* foreign regions, specials */
enum { JOB_READY, JOB_RUNNING, JOB_DONE };

struct job {
    const char *start;
    size_t size; /* 0: fn, or without fn a rescan of spans, of [first, end) */
    void (*fn)(struct tracer *tracer, uint32_t first, uint32_t end);
    const struct grey_root_ *root;
    uint32_t first, end;
    _Atomic uint32_t state;
};

static struct job *jobs;
static size_t jobs_room; /* bytes */
static _Atomic uint32_t n_jobs, next_job;
static atomic_bool rescanning; /* the jobs are of a rescan, not roots */

/* There is always room for JOBS_STEP bytes of jobs, so that a rescan needs no memory. */
bool jobs_init(void)
{
    jobs_drop();
    jobs = os_alloc(JOBS_STEP, OS_MARK);
    jobs_room = jobs != NULL ? JOBS_STEP : 0;
    return jobs != NULL;
}
void jobs_shutdown(void)
{
    jobs_drop();
    if (jobs != NULL)
        os_free(jobs, jobs_room, OS_MARK, jobs_room, jobs_room);
    jobs = NULL;
    jobs_room = 0;
}
void jobs_drop(void)
{
    atomic_store(&n_jobs, 0);
    atomic_store(&next_job, 0);
}

/* The collector, gate closed. */
static bool add(struct job job)
{
    uint32_t n = atomic_load_explicit(&n_jobs, memory_order_relaxed);
    if ((n + 1) * sizeof(struct job) > jobs_room) {
        size_t room = jobs_room * 2;
        struct job *more = os_alloc(room, OS_MARK);
        if (more == NULL)
            return false;
        for (uint32_t i = 0; i < n; i++)
            more[i] = jobs[i];
        os_free(jobs, jobs_room, OS_MARK, jobs_room, jobs_room);
        jobs = more;
        jobs_room = room;
    }
    jobs[n] = job;
    atomic_fetch_add_explicit(&work_pending, 1, memory_order_seq_cst);
    /* release: pairs with the claim's acquire */
    atomic_store_explicit(&n_jobs, n + 1, memory_order_release);
    return true;
}

static _Thread_local size_t root_bytes;
static _Thread_local bool refused;

static void add_range(void *start, size_t size, const struct grey_root_ *root, void *unused)
{
    (void)unused;
    const char *at = (const char *)(((uintptr_t)start + 7) & ~(uintptr_t)7);
    const char *end = (const char *)start + size;
    for (; at + sizeof(void *) <= end; at += ROOT_PIECE) {
        size_t piece = (size_t)(end - at) < ROOT_PIECE ? (size_t)(end - at) & ~(size_t)7 : ROOT_PIECE;
        refused |= !add((struct job){.start = at, .size = piece, .root = root});
        root_bytes += piece;
    }
}

/* Records of another room that hold pointers. */
static void add_records(void (*fn)(struct tracer *, uint32_t, uint32_t), uint32_t n)
{
    for (uint32_t first = 1; first < n; first += RECORDS_A_JOB)
        refused |= !add((struct job){
            .fn = fn, .first = first, .end = n - first > RECORDS_A_JOB ? first + RECORDS_A_JOB : n});
}

/* Chunks of arenas that hold data (UA-20).  What is allocated after this gets its pointers by a barrier that
 * is on. */
static void add_chunks(void)
{
    for (uint32_t chunk = 0; chunk < arena_chunks(); chunk++) {
        uint32_t first = chunk * ARENA_CHUNK_PIECES, end = first + arena_chunk_pieces(chunk);
        for (uint32_t i = first; i < end; i++)
            refused |= !add((struct job){.fn = arena_scan_pieces, .first = i, .end = i + 1});
    }
}

/* autoroots=1: the writable segments of all loaded objects, the library's own among them: conservative
 * words of ours keep nothing alive that the program has let go for longer than a cycle.  Collected before
 * the roots lock is taken: dlclose holds the loader's lock while it unregisters roots. */
enum { SEGMENTS_MAX = 2048 };
static struct segment {
    char *start;
    size_t size;
} segments[SEGMENTS_MAX];
static size_t n_segments;

static int note_object(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size, (void)unused;
    for (int i = 0; i < info->dlpi_phnum && n_segments < SEGMENTS_MAX; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        if (segment->p_type == PT_LOAD && (segment->p_flags & PF_W) && (segment->p_flags & PF_R))
            segments[n_segments++] =
                (struct segment){(char *)info->dlpi_addr + segment->p_vaddr, segment->p_memsz};
    }
    return 0;
}

void mark_note_segments(void)
{
    n_segments = 0;
    if (!os_debug.autoroots)
        return;
    dl_iterate_phdr(note_object, NULL);
    if (n_segments == SEGMENTS_MAX)
        os_fatal(NULL, "autoroots=1 knows at most %d writable segments", SEGMENTS_MAX);
}

/* 1.3 */
size_t jobs_make(void)
{
    root_bytes = 0;
    refused = false;
    roots_lock();
    jobs_drop();
    atomic_store_explicit(&rescanning, false, memory_order_relaxed);
    roots_each(add_range, NULL);
    for (size_t i = 0; i < n_segments; i++)
        add_range(segments[i].start, segments[i].size, NULL, NULL);
    add_records(foreign_mark_args, foreign_end());
    add_records(specials_mark, specials_end());
    add_records(pin_mark_stores, pin_stores_end());
    add_records(pin_mark_handles, pin_handles_end());
    add_chunks();
    roots_unlock();
    if (refused)
        os_internal(NULL, "no memory for the list of %zu bytes of roots", root_bytes);
    os_count(OS_COUNT_scanned_root_bytes, root_bytes);
    return root_bytes;
}

/* Held round with autoroots=1: the segments again, since stores into them have no barrier. */
void jobs_rescan_segments(struct tracer *tracer)
{
    for (size_t i = 0; i < n_segments; i++) {
        char *start = (char *)(((uintptr_t)segments[i].start + 7) & ~(uintptr_t)7);
        tracer_words(tracer, start, (segments[i].size - (size_t)(start - segments[i].start)) & ~(size_t)7);
    }
}

void jobs_make_rescan(void)
{
    uint32_t n = atomic_load_explicit(&heap.n_spans, memory_order_acquire), made = 0;
    uint32_t most = (uint32_t)(jobs_room / sizeof(struct job)) - 1, step = n / most + 1;
    if (step < SPANS_A_JOB)
        step = SPANS_A_JOB;
    roots_lock();
    jobs_drop();
    /* The gate is open: all become visible at once, and in place, since memory is what is short. */
    for (uint32_t i = 1; i < n; i += step)
        jobs[made++] = (struct job){.first = i, .end = n - i > step ? i + step : n};
    /* What was dropped may be the rest of an object with a finalizer, which isn't marked itself. */
    if (specials_end() > 1)
        jobs[made++] = (struct job){.fn = specials_mark, .first = 1, .end = specials_end()};
    atomic_store_explicit(&rescanning, true, memory_order_relaxed);
    atomic_fetch_add_explicit(&work_pending, made, memory_order_seq_cst);
    /* release: pairs with the claim's acquire */
    atomic_store_explicit(&n_jobs, made, memory_order_release);
    roots_unlock();
}

/* ---- running ---------------------------------------------------------------------------------------------- */

static void rescan_span(struct tracer *tracer, const struct span *span)
{
    const struct layout *layout = &heap_layouts[span->layout];
    if (layout->kind == LAYOUT_LEAF)
        return;
    uint32_t cells = layout->cell != 0 ? layout->cells : 1;
    for (uint32_t i = 0; i < cells; i++) {
        uintptr_t base = (uintptr_t)span_start(span) + (size_t)i * layout->cell;
        if (heap_marked(base) && heap_cell_allocated(base))
            tracer_scan_object(tracer, base);
    }
}

static void run(struct tracer *tracer, const struct job *job)
{
    if (job->size != 0) {
        tracer_words(tracer, job->start, job->size);
        return;
    }
    if (job->fn != NULL) {
        job->fn(tracer, job->first, job->end);
        return;
    }
    for (uint32_t i = job->first; i < job->end; i++)
        if (span_in_use(&heap.spans[i])) {
            rescan_span(tracer, &heap.spans[i]);
            tracer_drain(tracer, SIZE_MAX, 0); /* the private stack is not for a whole heap's edges */
        }
}

/* For this kind of worker: what somebody may wait for (roots) is not for those at nice 19. */
bool jobs_left(bool may_hold_roots)
{
    if (!may_hold_roots && !atomic_load_explicit(&rescanning, memory_order_relaxed))
        return false;

    return atomic_load_explicit(&next_job, memory_order_relaxed) <
           atomic_load_explicit(&n_jobs, memory_order_acquire);
}

bool jobs_run_one(struct tracer *tracer, bool may_hold_roots)
{
    if (!jobs_left(may_hold_roots))
        return false;
    /* Not fetch_add: a claim that finds nothing must not move the index, since a rescan starts it anew
     * while tracers look.  acquire, and before n_jobs: who sees the index reset sees the count reset. */
    uint32_t i = atomic_load_explicit(&next_job, memory_order_acquire);
    do
        if (i >= atomic_load_explicit(&n_jobs, memory_order_acquire))
            return false;
    while (!atomic_compare_exchange_weak_explicit(&next_job, &i, i + 1, memory_order_acq_rel,
                                                  memory_order_acquire));
    tracer->tokens++;
    struct job *job = &jobs[i];
    uint32_t state = JOB_READY;
    if (atomic_compare_exchange_strong_explicit(&job->state, &state, JOB_RUNNING, memory_order_seq_cst,
                                                memory_order_relaxed)) {
        run(tracer, job);
        atomic_store_explicit(&job->state, JOB_DONE, memory_order_release);
    }
    return true;
}

/* Roots lock; the root is out of the list.  No piece of it is begun any more; true if one is being
 * scanned at the moment. */
bool jobs_cancel(const struct grey_root_ *root)
{
    bool running = false;
    uint32_t n = atomic_load_explicit(&n_jobs, memory_order_acquire);
    for (uint32_t i = 0; i < n; i++) {
        if (jobs[i].root != root)
            continue;
        uint32_t state = JOB_READY;
        if (!atomic_compare_exchange_strong_explicit(&jobs[i].state, &state, JOB_DONE, memory_order_seq_cst,
                                                     memory_order_acquire))
            running |= state == JOB_RUNNING;
    }
    return running;
}
