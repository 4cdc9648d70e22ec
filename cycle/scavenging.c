/* cycle/scavenging.c -- the scavenger at work: its thread, and what allocations give back.
 *
 * The thread is asleep while both goals are met, or nothing is left that could be given back.  A cycle's end
 * wakes it, a new goal or limit, and an allocation that finds memory beyond the limit's goal while the thread
 * sleeps with its goals met.  After a cycle it waits for the sweep, which is what frees pages, and takes note
 * of which chunks are nearly full even so: they will be filled up, and are left alone (SC-5).  Then whole
 * huge pages go, and only when none are left parts of others.
 *
 * It is not niced: it takes a hundredth of a processor anyway, and it holds the page allocator's lock
 * while it gives back, so that where niced threads starve allocations would wait for it.
 *
 * Allocations (SC-4) look at two words when they leave their slow path, outside sections.  Beyond the limit a
 * thread gives back what it has just taken, of any chunk, so that the overage cannot grow as long as there is
 * something free; and more for at most a slice of 100 us, in steps of one madvise each in a section of its
 * own.  As long as that has not taken a millisecond, huge pages are taken apart before parts of them go
 * (heap_split_next), each of which may take 200 us: past the limit, what stays charged may kill the process.
 * What was taken came out of memory that is not there until it is touched, and that is after this.
 * With the limiter on nobody waits for memory at the limit (PC-14).  After growth a thread gives
 * back at most as much as the heap grew by, if more is retained than the goal allows.
 *
 * Fork: the thread stands still between two steps, as the sweeper does; in the child it starts with the
 * others.  The goals stay.
 */
#include "cycle/cycle.h"
#include "cycle/scavenger.h"
#include "heap/heap.h"
#include "inspect/gauges.h"
#include "os/events.h"
#include "os/options.h"
#include "os/turnstile.h"
#include "sweep/sweep.h"

#include <errno.h>
#include <unistd.h>

static const uint64_t slice_ns = 100 * 1000, split_ns = 1000 * 1000, sweep_wait_ns = 10 * 1000 * 1000;
static const uint64_t trace_ns = 1000 * 1000 * 1000;

/* Why the thread sleeps: only the first is woken by allocations. */
enum { AWAKE, GOALS_MET, NOTHING_LEFT };

/* Written under the pacer's lock, read by all: relaxed, each stands alone, and all may be a moment old. */
static _Atomic uint64_t retained_goal, ready_goal, limit;
static uint64_t in_use_at_end, goal_at_end; /* the pacer's lock; of the last cycle */
static bool had_cycle;                      /* the same */

static _Atomic uint32_t bell;   /* the thread sleeps on it */
static _Atomic uint32_t asleep; /* why */
static _Atomic uint32_t cycles; /* that have ended */
static _Atomic uint32_t stopping;
static struct os_turnstile turnstile;
static _Atomic uint64_t eager_bytes; /* since the last line of scavtrace */
static pthread_t scavenger;
static bool running;

/* ---- goals --------------------------------------------------------------------------------------------- */

static void ring(void)
{
    atomic_fetch_add_explicit(&bell, 1, memory_order_release);
    os_wake(&bell, 1);
}

void scavenging_plan(uint64_t goal, size_t memory_limit)
{
    uint64_t retained =
        had_cycle ? scavenger_retained_goal(in_use_at_end, goal, goal_at_end) : UINT64_MAX; /* SC-2 */
    atomic_store_explicit(&retained_goal, retained, memory_order_relaxed);
    atomic_store_explicit(&ready_goal, scavenger_ready_goal(memory_limit), memory_order_relaxed);
    atomic_store_explicit(&limit, memory_limit, memory_order_relaxed);
}

void scavenging_note_end(uint64_t goal)
{
    in_use_at_end = heap_in_use_bytes();
    goal_at_end = goal;
    had_cycle = true;
}

void scavenging_wake(bool cycle_ended)
{
    if (cycle_ended) /* release: pairs with the thread, which then finds the sweep begun */
        atomic_fetch_add_explicit(&cycles, 1, memory_order_release);
    ring();
}

static uint64_t retained_now(void) { return heap_in_use_bytes() + heap_free_bytes(); }

bool scavenging_has_room(uint64_t bytes)
{
    return os_mapped_ready() + bytes <= atomic_load_explicit(&ready_goal, memory_order_relaxed);
}

static uint64_t due_now(void)
{
    struct scavenger_goals goals = {.retained = atomic_load_explicit(&retained_goal, memory_order_relaxed),
                                    .ready = atomic_load_explicit(&ready_goal, memory_order_relaxed)};
    return scavenger_due(&goals, retained_now(), os_mapped_ready());
}

/* ---- scavtrace=1 --------------------------------------------------------------------------------------- */

static void trace(uint64_t background, bool forced)
{
    char line[160];
    uint64_t eager = atomic_exchange_explicit(&eager_bytes, 0, memory_order_relaxed);
    if (background == 0 && eager == 0)
        return;
    struct scavenger_figures figures = {.background = background,
                                        .eager = eager,
                                        .released = heap_released_bytes(),
                                        .in_use = heap_in_use_bytes(),
                                        .retained = retained_now(),
                                        .forced = forced};
    size_t length = scavenger_trace(line, sizeof(line), &figures);
    int saved = errno;
    ssize_t written;
    do
        written = write(STDERR_FILENO, line, length);
    while (written < 0 && errno == EINTR);
    errno = saved;
}

void scavenging_release_all(void)
{
    uint64_t bytes = heap_release_free();
    os_count(OS_COUNT_released_bytes, bytes);
    atomic_fetch_add_explicit(&eager_bytes, bytes, memory_order_relaxed);
    if (os_debug.scavtrace)
        trace(0, true);
}

/* ---- what allocations give back ------------------------------------------------------------------------ */

/* One way after the other.  At least so many bytes, if they can be had; up to `most` within a slice.  A pause
 * also where nothing came of it: it may have waited for the pages' lock. */
static uint64_t release(enum heap_release way, enum heap_release last, uint64_t least, uint64_t most)
{
    uint64_t began = os_now(), cpu = os_thread_cpu(), done = 0;
    while (done < most && (done < least || os_now() - began < slice_ns)) {
        bool more;
        if (least != 0 && os_now() - began < split_ns)
            heap_split_next(way);
        done += heap_release_some(way, most - done, &more);
        if (!more && way++ == last)
            break;
    }
    os_count(OS_COUNT_released_bytes, done);
    cpu = os_thread_cpu() - cpu;
    os_count(OS_COUNT_scavenge_assist_ns, cpu);
    os_events.pause(OS_PAUSE_scavenge, os_now() - began, cpu);
    atomic_fetch_add_explicit(&eager_bytes, done, memory_order_relaxed);
    return done;
}

static void after_growth(uint64_t grown)
{
    uint64_t goal = atomic_load_explicit(&retained_goal, memory_order_relaxed), retained = retained_now();
    if (retained <= goal)
        return;
    uint64_t over = retained - goal < grown ? retained - goal : grown;
    release(HEAP_RELEASE_BLOCKS, HEAP_RELEASE_PAGES, 0, over);
}

void scavenging_allocated(size_t bytes)
{
    uint64_t ready = os_mapped_ready(), grown = heap_take_growth();
    uint64_t most = atomic_load_explicit(&limit, memory_order_relaxed);
    if (UNLIKELY(grown != 0))
        after_growth(grown);
    if (UNLIKELY(ready > most) && heap_free_bytes() != 0 && !limiting())
        release(HEAP_RELEASE_BLOCKS, HEAP_RELEASE_ALL, ready - most < bytes ? ready - most : bytes,
                ready - most);
    uint32_t met = GOALS_MET;
    if (UNLIKELY(ready > atomic_load_explicit(&ready_goal, memory_order_relaxed)) &&
        atomic_load_explicit(&asleep, memory_order_relaxed) == GOALS_MET &&
        atomic_compare_exchange_strong_explicit(&asleep, &met, AWAKE, memory_order_relaxed,
                                                memory_order_relaxed))
        ring();
}

/* ---- the thread ---------------------------------------------------------------------------------------- */

static enum heap_release background_way; /* the thread's */

static size_t release_step(uint64_t most, bool *more)
{
    heap_split_next(background_way);
    size_t bytes = heap_release_some(background_way, most, more);
    if (!*more && background_way < HEAP_RELEASE_PAGES) {
        background_way++;
        *more = true;
    }
    return bytes;
}

static bool is_stopping(void)
{
    return atomic_load_explicit(&stopping, memory_order_acquire) || os_turnstile_closed(&turnstile);
}

static void nap(uint64_t ns)
{
    uint64_t until = os_now() + ns;
    for (;;) {
        uint32_t seen = atomic_load_explicit(&bell, memory_order_acquire);
        uint64_t now = os_now();
        if (now >= until || atomic_load_explicit(&stopping, memory_order_acquire))
            return;
        os_wait(&bell, seen, until - now);
    }
}

struct background {
    struct scavenger_pace pace;
    uint32_t seen;                /* cycles whose end was taken note of */
    uint64_t untraced, traced_at; /* bytes since the last line, and when that was */
};

/* A cycle has ended: its sweep has to be over.  False: not yet. */
static bool take_note(struct background *b)
{
    uint32_t ended = atomic_load_explicit(&cycles, memory_order_acquire);
    if (ended == b->seen)
        return true;
    if (!sweep_done())
        return false;
    heap_note_density();
    b->seen = ended;
    return true;
}

static void trace_background(struct background *b, bool last)
{
    if (!os_debug.scavtrace || (!last && os_now() - b->traced_at < trace_ns))
        return;
    trace(b->untraced, false);
    b->untraced = 0;
    b->traced_at = os_now();
}

/* Works and naps until there is nothing to do; why. */
static uint32_t keep_to_goals(struct background *b)
{
    static const struct scavenger_calls calls = {os_thread_cpu, due_now, release_step, is_stopping};
    background_way = HEAP_RELEASE_BLOCKS;
    for (;;) {
        if (!os_turnstile_enter(&turnstile))
            return NOTHING_LEFT; /* the end of the fork rings */
        bool noted = take_note(b);
        struct scavenger_work work = noted ? scavenger_work(&calls) : (struct scavenger_work){0};
        os_turnstile_leave(&turnstile);
        os_count(OS_COUNT_released_bytes, work.bytes);
        os_count(OS_COUNT_scavenge_ns, work.worked);
        b->untraced += work.bytes;
        trace_background(b, work.met || work.exhausted);
        if (atomic_load_explicit(&stopping, memory_order_acquire))
            return NOTHING_LEFT;
        if (work.worked != 0) {
            uint64_t began = os_now();
            nap(scavenger_sleep_after(&b->pace, work.worked));
            scavenger_pace_update(&b->pace, work.worked, os_now() - began);
        }
        if (work.met || work.exhausted)
            return work.met ? GOALS_MET : NOTHING_LEFT;
        if (!noted)
            nap(sweep_wait_ns);
    }
}

static void *scavenger_main(void *unused)
{
    (void)unused;
    struct background b = {.traced_at = os_now()};
    scavenger_pace_init(&b.pace);
    for (;;) {
        /* The bell before what it rings for. */
        uint32_t seen = atomic_load_explicit(&bell, memory_order_acquire);
        if (atomic_load_explicit(&stopping, memory_order_acquire))
            return NULL;
        atomic_store_explicit(&asleep, AWAKE, memory_order_relaxed);
        uint32_t why = keep_to_goals(&b);
        atomic_store_explicit(&asleep, why, memory_order_relaxed);
        os_wait(&bell, seen, UINT64_MAX);
    }
}

int scavenging_start(void)
{
    atomic_store(&stopping, 0);
    int error = os_start_background(&scavenger, "grey-scavenge", scavenger_main, NULL);
    running = error == 0;
    return error;
}

void scavenging_stop(void)
{
    if (!running)
        return;
    atomic_store_explicit(&stopping, 1, memory_order_release);
    ring();
    pthread_join(scavenger, NULL);
    running = false;
    had_cycle = false; /* as if there had been none, for the library's next start */
    atomic_store_explicit(&retained_goal, UINT64_MAX, memory_order_relaxed);
}

void scavenging_park(void) { os_turnstile_close(&turnstile); }

void scavenging_unpark(void)
{
    os_turnstile_open(&turnstile);
    ring();
}

void scavenging_fork_child(void)
{
    os_turnstile_init(&turnstile);
    atomic_store(&asleep, AWAKE);
    running = false;
}
