/* cycle/control.c -- the collector's thread, requests for cycles, what allocation owes.
 *
 * A cycle is asked for by number: "one that begins after cycle n".  Requests are a single maximum, so many
 * callers share a cycle, and each sees one that began after its call (MK-17).  Asking from a slow path is
 * one store and one wake, no lock.
 *
 * The collector owns `working` while it works and gives it up at its pause points: between sweeps and
 * arm, while marking, between rounds, after 1.7; never between CLOSED and the end of 1.7.  A fork takes it
 * (protocol.md 9).
 */
#include "cycle/cycle.h"
#include "inspect/gauges.h"
#include "mark/mark.h"
#include "mutator/mutator.h"
#include "os/events.h"
#include "os/options.h"
#include "sweep/cleanups.h"
#include "sweep/sweep.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

_Atomic uint64_t control_period_ns = 120ull * 1000 * 1000 * 1000; /* PC-10 */
static const uint64_t memory_wait_ns = 1000ull * 1000 * 1000;     /* AL-14 */
/* PC-8 says about 100 us.  A slice ends at the first look at the clock after this, and then publishes what it
 * holds: with 20 us the longest stay below 50 us of processor time (docs/performance.md). */
static const uint64_t assist_slice_ns = 20 * 1000;
static const uint64_t wait_most_ns = 1000 * 1000; /* at once, past the goal or the limit */
enum { ASSIST_LEAST = 64 << 10, CREDIT_SLACK = 2000, DEBT_MOST = 1 << 20, ROOM_LEAST = 1 << 20 };

static struct os_lock lock = OS_LOCK_INIT(OS_RANK_CONTROL); /* the pacer, setters, start of threads */
static struct pacer pacer;
static struct pacer plan;                        /* as the cycle began; the collector's */
static uint64_t planned_at, planned_allocated;   /* when the last cycle ended; the collector's */
static _Atomic uint64_t trigger, goal, last_end; /* copies of the pacer's, for readers without a lock */
static _Atomic uint64_t last_marked, last_stacks, last_roots, last_scanned, last_began;
static _Atomic int percent_now;
static _Atomic size_t limit_now;
static _Atomic uint64_t limit_goal;           /* the goal at most, by the memory limit; the same */
static _Atomic uint64_t limit_heap;           /* the heap at most, by the memory limit */
static _Atomic uint64_t wanted, begun, ended; /* cycle numbers; ended: swept too, if anybody waits */
static _Atomic uint32_t forced_wanted, sweep_waiters;
static _Atomic int64_t external;    /* grey_external_add since the last cycle began, bytes */
static _Atomic uint32_t bell;       /* the collector sleeps on it */
static _Atomic uint32_t ended_bell; /* callers of grey_collect sleep on it, and who waits for the others */
static _Atomic uint32_t threads_up, stopping;
static pthread_t collector;
static pthread_mutex_t working = PTHREAD_MUTEX_INITIALIZER;
static _Atomic uint32_t fork_waits;
static _Atomic(struct cycle_request *) verify_request;
static pthread_mutex_t verifying = PTHREAD_MUTEX_INITIALIZER; /* one grey_verify at a time */

static void commit(void)
{
    if (UNLIKELY(pacer.trigger > pacer.goal)) /* PC-3 */
        os_internal(NULL, "trigger %llu past the goal %llu", (unsigned long long)pacer.trigger,
                    (unsigned long long)pacer.goal);
    atomic_store_explicit(&trigger, pacer.trigger, memory_order_relaxed);
    atomic_store_explicit(&goal, pacer.goal, memory_order_relaxed);
    atomic_store_explicit(&last_marked, pacer.marked, memory_order_relaxed);
    atomic_store_explicit(&last_stacks, pacer.stacks, memory_order_relaxed);
    atomic_store_explicit(&last_roots, pacer.roots, memory_order_relaxed);
    atomic_store_explicit(&last_scanned, pacer.scanned, memory_order_relaxed);
    atomic_store_explicit(&last_began, pacer.began, memory_order_relaxed);
    atomic_store_explicit(&limit_goal, pacer.limit_goal, memory_order_relaxed);
    atomic_store_explicit(&limit_heap, pacer.limit_heap, memory_order_relaxed);
    atomic_store_explicit(&percent_now, pacer.percent, memory_order_relaxed);
    atomic_store_explicit(&limit_now, pacer.memory_limit, memory_order_relaxed);
    scavenging_plan(pacer.goal, pacer.memory_limit);
}

/* ---- the collector's thread --------------------------------------------------------------------------- */

void control_pause_point(void)
{
    if (limiting_due(os_now()))
        limiting_look(false);
    /* With the limiter on nobody assists. */
    if (atomic_load_explicit(&sweep_waiters, memory_order_relaxed) != 0 || limiting())
        mark_hurry(MARK_WAITED_FOR);
    if (LIKELY(atomic_load_explicit(&fork_waits, memory_order_acquire) == 0))
        return;
    if (mutator_holds()) /* the forking thread may be among the held: it could not come to us */
        return;
    pthread_mutex_unlock(&working);
    /* The forking thread takes it now; it clears fork_waits when it is done. */
    for (unsigned n = 0; atomic_load_explicit(&fork_waits, memory_order_acquire) != 0;)
        os_pause(&n);
    pthread_mutex_lock(&working);
}

static bool period_is_over(void)
{
    return os_now() - atomic_load_explicit(&last_end, memory_order_relaxed) >=
               atomic_load_explicit(&control_period_ns, memory_order_relaxed) &&
           cycle_percent() >= 0 && cycle_number() != 0;
}

static void run_one(bool periodic)
{
    struct cycle_request request = {.forced = atomic_exchange(&forced_wanted, 0) != 0, .periodic = periodic};
    struct cycle_request *verify = atomic_exchange(&verify_request, NULL);
    struct cycle_request *use = verify != NULL ? verify : &request;
    if (verify != NULL)
        verify->forced = true;
    cycle_run(use);
    /* release: pairs with grey_verify; from here on it is the caller's again */
    atomic_store_explicit(&use->done, 1, memory_order_release);
    atomic_store_explicit(&last_end, os_now(), memory_order_relaxed);
    if (atomic_load_explicit(&sweep_waiters, memory_order_seq_cst) != 0)
        sweep_finish();
    /* release: who waited for the cycle sees all of it */
    atomic_store_explicit(&ended, cycle_number(), memory_order_seq_cst);
    atomic_fetch_add_explicit(&ended_bell, 1, memory_order_release);
    os_wake(&ended_bell, INT_MAX);
}

static void *collector_main(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&working);
    for (;;) {
        /* The bell before what it rings for. */
        uint32_t ring = atomic_load_explicit(&bell, memory_order_acquire);
        if (atomic_load_explicit(&stopping, memory_order_acquire))
            break;
        control_pause_point();
        bool asked = atomic_load_explicit(&wanted, memory_order_acquire) > cycle_number();
        bool periodic = !asked && period_is_over();
        if (asked || periodic) {
            run_one(periodic);
            continue;
        }
        pthread_mutex_unlock(&working);
        os_wait(&bell, ring, 1000ull * 1000 * 1000);
        pthread_mutex_lock(&working);
    }
    pthread_mutex_unlock(&working);
    return NULL;
}

static void ring(void)
{
    atomic_fetch_add_explicit(&bell, 1, memory_order_release);
    os_wake(&bell, 1);
}

/* In a section: the collector takes this lock too, maybe with the world stopped. */
static void enter_lock(void)
{
    if (thread_self() != NULL)
        thread_enter(thread_self());
    os_lock(&lock);
}
static void leave_lock(void)
{
    os_unlock(&lock);
    if (thread_self() != NULL)
        thread_leave(thread_self());
}

/* At start, and again in a fork's child when first needed. */
static int start_threads(void)
{
    enter_lock();
    int error = 0;
    if (!atomic_load(&threads_up)) {
        atomic_store(&stopping, 0);
        error = mark_workers_start(mark_workers_plan(os_tuning.processors, (unsigned)os_debug.workers));
        if (error == 0)
            error = sweep_thread_start();
        if (error == 0)
            error = scavenging_start();
        if (error == 0)
            error = prefault_start();
        if (error == 0)
            error = os_start_background(&collector, "grey-collector", collector_main, NULL);
        atomic_store(&threads_up, error == 0);
        if (error != 0) {
            prefault_stop();
            scavenging_stop();
            sweep_thread_stop();
            mark_workers_stop();
        }
    }
    leave_lock();
    return error;
}

/* A cycle that begins after number `after`. */
static void ask_for_cycle_after(uint64_t after)
{
    uint64_t want = atomic_load_explicit(&wanted, memory_order_relaxed);
    while (want <= after && !atomic_compare_exchange_weak_explicit(
                                &wanted, &want, after + 1, memory_order_acq_rel, memory_order_relaxed))
        ;
    if (UNLIKELY(!atomic_load_explicit(&threads_up, memory_order_acquire))) {
        start_threads();
        cleanups_start_again();
    }
    ring();
}

int control_init(void)
{
    os_lock_init(&lock, OS_RANK_CONTROL);
    pacer_init(&pacer, os_tuning.percent, os_tuning.memory_limit);
    pacer.balance = os_debug.balance; /* nothing measured yet: no other plan */
    commit();
    plan = pacer;
    planned_at = os_now();
    planned_allocated = os_counter_read(OS_COUNT_allocated_bytes);
    limiting_begin();
    atomic_store(&wanted, 0);
    atomic_store(&begun, 0);
    atomic_store(&ended, 0);
    atomic_store(&last_end, os_now());
    atomic_store(&verify_request, NULL);
    atomic_store(&external, 0);
    mark_set_pause_point(control_pause_point);
    return start_threads();
}

static int join_threads(void *unused)
{
    (void)unused;
    pthread_join(collector, NULL);
    mark_workers_stop();
    sweep_thread_stop();
    prefault_stop();
    scavenging_stop();
    return 0;
}

/* In a region: a cycle under way may still ask the caller, who may block the signal. */
void control_shutdown(void)
{
    if (atomic_load(&threads_up)) {
        atomic_store(&stopping, 1);
        ring();
        mutator_blocking(join_threads, NULL);
    }
    atomic_store(&threads_up, 0);
}

/* ---- pacing ------------------------------------------------------------------------------------------ */

static uint64_t minus(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

/* In no object are tables and records, and what is left free in spans.  Chunks of arenas are in
 * heap_live_bytes, as objects are.  Free pages are for objects to come, and if there are too many they are
 * what is given back, so they are nowhere counted.  The figures are read one by one. */
static struct pacer_memory memory_now(bool sweeping)
{
    uint64_t in_use = heap_in_use_bytes(), freed = os_counter_read(OS_COUNT_freed_bytes);
    uint64_t objects = minus(os_counter_read(OS_COUNT_allocated_bytes), freed);
    uint64_t ready = minus(os_mapped_ready(), heap_free_bytes());
    uint64_t outside = minus(ready, in_use + os_mapped(OS_ARENAS));
    return (struct pacer_memory){.live = heap_live_bytes(),
                                 .ready = ready,
                                 .non_heap = outside + minus(in_use, objects),
                                 .sweeping = sweeping};
}

void control_cycle_began(uint64_t number)
{
    atomic_store_explicit(&begun, number, memory_order_seq_cst);
    atomic_store_explicit(&external, 0, memory_order_relaxed);
    struct pacer_memory memory = memory_now(false);
    os_lock(&lock);
    pacer_begin_cycle(&pacer, &memory);
    plan = pacer;
    commit();
    os_unlock(&lock);
    limiting_look(true);
}

void control_cycle_ended(struct pacer_cycle *measured)
{
    uint64_t now = os_now(), allocated = os_counter_read(OS_COUNT_allocated_bytes);
    measured->since_ns = now - planned_at;
    measured->allocated_since = minus(allocated, planned_allocated);
    planned_at = now;
    planned_allocated = allocated;
    struct pacer_memory memory = memory_now(true); /* may_sweep was just now */
    os_lock(&lock);
    scavenging_note_end(pacer.goal);
    pacer_end_cycle(&pacer, measured, &memory);
    commit();
    os_unlock(&lock);
    limiting_look(true);
    /* What is dead is no longer in live: who waits may go on, and sweep.  release: pairs with
     * wait_for_the_others */
    atomic_fetch_add_explicit(&ended_bell, 1, memory_order_release);
    os_wake(&ended_bell, INT_MAX);
}

struct pacer control_plan(void) { return plan; }

struct pacer control_pacer(void)
{
    os_lock(&lock);
    struct pacer copy = pacer;
    os_unlock(&lock);
    return copy;
}

/* ---- what an allocation owes ------------------------------------------------------------------------- */

static int64_t take_credit(int64_t want)
{
    int64_t have = atomic_load_explicit(&mark_credit, memory_order_relaxed);
    while (have > 0) {
        int64_t take = have < want ? have : want;
        if (atomic_compare_exchange_weak_explicit(&mark_credit, &have, have - take, memory_order_relaxed,
                                                  memory_order_relaxed))
            return take;
    }
    return 0;
}

/* The figures of the pacer that assists need, read without its lock: they only scale a debt. */
static double assist_ratio(void)
{
    struct pacer figures = {.percent = cycle_percent(),
                            .marked = atomic_load_explicit(&last_marked, memory_order_relaxed),
                            .stacks = atomic_load_explicit(&last_stacks, memory_order_relaxed),
                            .roots = atomic_load_explicit(&last_roots, memory_order_relaxed),
                            .scanned = atomic_load_explicit(&last_scanned, memory_order_relaxed),
                            .began = atomic_load_explicit(&last_began, memory_order_relaxed),
                            .limit_goal = atomic_load_explicit(&limit_goal, memory_order_relaxed),
                            .limit_heap = atomic_load_explicit(&limit_heap, memory_order_relaxed),
                            .goal = atomic_load_explicit(&goal, memory_order_relaxed)};
    return pacer_assist_ratio(&figures, heap_live_bytes(),
                              atomic_load_explicit(&mark_scanned, memory_order_relaxed));
}

/* How long a thread waits that took so many bytes, the heap being so far over a memory limit's goal.  That
 * goal is 3 percent below the limit (PC-11).  Over the first 3 percent it rises from the slice to five of them,
 * for each 64 KiB: two threads then take a mebibyte in a millisecond.  What is further over the goal is over
 * the limit, and in a container the process may be killed for it: it goes on rising, to a millisecond. */
static uint64_t wait_at_limit(uint64_t over, size_t bytes)
{
    double room = (double)cycle_memory_limit() / 32, part;
    part = (double)over / (room > ROOM_LEAST ? room : ROOM_LEAST);
    uint64_t most = part < 1 ? 5 * assist_slice_ns : wait_most_ns;
    double each = (double)assist_slice_ns * (part < 1 ? 1 + 4 * part : 5 * part * part * part);
    double wait = bytes > ASSIST_LEAST ? each * (double)bytes / ASSIST_LEAST : each;
    return wait < (double)most ? (uint64_t)wait : most;
}

/* Dead chunks of arenas are no part of what a goal is for, but they take memory until this cycle gives it back. */
static uint64_t live_or_waiting(void)
{
    return heap_live_bytes() + atomic_load_explicit(&heap.chunks_waiting, memory_order_relaxed);
}

/* No cycle, and none is asked for.  A periodic one is not asked for. */
static bool nothing_under_way(void)
{
    uint64_t over = atomic_load_explicit(&ended, memory_order_acquire);
    return over == cycle_number() && over >= atomic_load_explicit(&wanted, memory_order_relaxed);
}

/* How long past the goal: a slice for each 64 KiB, so that a thread is slowed down the same whatever it takes.
 * With one slice for anything, four threads that lost arenas took chunks of 8 MiB faster than any cycle ends
 * (bench/arena.c, untouched).  Why a millisecond at most: of six such programs on two processors each held 14,000
 * to 28,000 chunks before, 4,600 and more with 200 us, 350 to 780 with 500, 250 to 500 with this; a program with
 * sixteen threads ran out of mappings with 200 us, and held 34,000 with 500, 2,000 with this. */
static uint64_t wait_past_goal(size_t bytes)
{
    if (limiting()) /* PC-14: it is not to be held up for the collector's sake */
        return assist_slice_ns;
    uint64_t slices = bytes > ASSIST_LEAST ? bytes / ASSIST_LEAST : 1, most = wait_most_ns / assist_slice_ns;
    return assist_slice_ns * (slices < most ? slices : most);
}

/* The heap has passed its goal, and the cycle that is to help is under way or asked for.  What it takes now
 * is born black and raises the next goal, and would go on doing so (a thread that took leaves of 200 KB at
 * full speed had grown a heap of 4 MB to gigabytes).  So it gives up the processor for a while.  PC-7 lets
 * live pass the goal by a tenth; not past a memory limit's goal, which is only 3 percent below it, whichever
 * of the two is this cycle's.  With the limiter on that one can't be met anyway, and to wait for it would be a
 * spiral of another kind (PC-14). */
static void wait_for_the_others(size_t bytes)
{
    uint64_t most = atomic_load_explicit(&goal, memory_order_relaxed), live = live_or_waiting();
    uint64_t by_limit = atomic_load_explicit(&limit_goal, memory_order_relaxed);
    bool limited = live > by_limit && !limiting();
    if (!limited && (live / 11 <= most / 10 || by_limit == most))
        return;
    uint64_t began = os_now(), now = began;
    uint64_t until = began + (limited ? wait_at_limit(live - by_limit, bytes) : wait_past_goal(bytes));
    do {
        uint32_t seen = atomic_load_explicit(&ended_bell, memory_order_acquire);
        if (nothing_under_way() || live_or_waiting() <= (limited ? by_limit : most))
            break;
        os_wait(&ended_bell, seen, until - now);
        now = os_now();
    } while (now < until);
    if (now == began)
        return;
    mark_hurry(MARK_WAITED_FOR);
    os_count(OS_COUNT_held_ns, now - began);
    os_events.pause(OS_PAUSE_assist, now - began, 0);
}

/* PC-8: the last resort, in a bounded slice; what is still owed is met at the next slow path. */
static void assist(struct thread *self, size_t bytes)
{
    if (limiting()) { /* PC-14 */
        self->assist_debt = 0;
        return;
    }
    /* A byte over the goal may owe all that is left to scan: nobody is asked for more than the most. */
    double debt = assist_ratio() * (double)bytes;
    self->assist_debt += debt < DEBT_MOST ? (int64_t)debt : DEBT_MOST;
    if (self->assist_debt <= 0)
        return;
    self->assist_debt -= take_credit(self->assist_debt);
    if (self->assist_debt <= CREDIT_SLACK || !atomic_load_explicit(&mark_gate, memory_order_acquire))
        return;
    HOOK(ASSIST, self);
    uint64_t wall = os_now(), cpu = os_thread_cpu();
    if (limiting_due(wall))
        limiting_look(false);
    size_t want = self->assist_debt > ASSIST_LEAST ? (size_t)self->assist_debt : ASSIST_LEAST;
    thread_enter(self);
    size_t done = mark_assist(want, assist_slice_ns);
    thread_leave(self);
    self->assist_debt -= (int64_t)done;
    if (done == 0 || self->assist_debt > DEBT_MOST)
        self->assist_debt = done == 0 ? 0 : DEBT_MOST;
    if (done == 0)
        return;
    mark_hurry(MARK_ASSISTED);
    cpu = os_thread_cpu() - cpu;
    os_count(OS_COUNT_assists, 1);
    os_count(OS_COUNT_assist_ns, cpu);
    os_events.pause(OS_PAUSE_assist, os_now() - wall, cpu);
}

/* What stands outside the heap counts as allocated, not as heap (FR-43). */
static bool trigger_is_reached(void)
{
    int64_t outside = atomic_load_explicit(&external, memory_order_relaxed);
    uint64_t at = atomic_load_explicit(&trigger, memory_order_relaxed), live = heap_live_bytes();
    return live >= at || (outside > 0 && (uint64_t)outside >= at - live);
}

void control_ask_for_cycle(void)
{
    uint64_t last = cycle_number();
    if (!barrier_on() && cycle_percent() >= 0 &&
        atomic_load_explicit(&wanted, memory_order_relaxed) <= last &&
        atomic_load_explicit(&ended, memory_order_relaxed) == last)
        ask_for_cycle_after(last);
}

void control_allocated(struct thread *self, size_t bytes)
{
    self->slow_paths++;
    scavenging_allocated(bytes);
    prefault_allocated();
    bool marking = __atomic_load_n(&grey_phase_, __ATOMIC_RELAXED) != 0;
    if (os_debug.gcstress != 0 && self->slow_paths % (uint64_t)os_debug.gcstress == 0 && !marking)
        ask_for_cycle_after(cycle_number());
    if (marking) {
        assist(self, bytes);
        wait_for_the_others(bytes);
        return;
    }
    self->assist_debt = 0;
    sweep_pay(self, bytes);
    if (!trigger_is_reached())
        return;
    /* Once for each cycle: afterwards the collector knows. */
    uint64_t last = cycle_number();
    if (atomic_load_explicit(&wanted, memory_order_relaxed) <= last &&
        atomic_load_explicit(&ended, memory_order_relaxed) == last)
        ask_for_cycle_after(last);
    else
        wait_for_the_others(bytes);
}

void grey_external_add(int64_t bytes)
{
    start_ensure();
    int64_t old = atomic_load_explicit(&external, memory_order_relaxed), sum;
    do
        if (__builtin_add_overflow(old, bytes, &sum))
            sum = bytes > 0 ? INT64_MAX : 0;
        else if (sum <
                 0) /* what a cleanup takes back was forgotten when the cycle began that found it dead */
            sum = 0;
    while (!atomic_compare_exchange_weak_explicit(&external, &old, sum, memory_order_relaxed,
                                                  memory_order_relaxed));
    if (bytes <= 0 || barrier_on() || !trigger_is_reached())
        return;
    uint64_t last = cycle_number();
    if (atomic_load_explicit(&wanted, memory_order_relaxed) <= last)
        ask_for_cycle_after(last);
}

/* ---- waiting for cycles ------------------------------------------------------------------------------- */

struct wait_for {
    uint64_t number, deadline;
};

static int wait_for_end(void *arg)
{
    const struct wait_for *wait = arg;
    for (;;) {
        uint32_t seen = atomic_load_explicit(&ended_bell, memory_order_acquire);
        if (atomic_load_explicit(&ended, memory_order_seq_cst) >= wait->number)
            return 0;
        uint64_t now = os_now();
        if (now >= wait->deadline)
            return ETIMEDOUT;
        os_wait(&ended_bell, seen, wait->deadline - now < 100000000 ? wait->deadline - now : 100000000);
    }
}

/* One whole cycle that begins after now, swept.  In a blocking region, so that the cycle needs no answer. */
static int collect(uint64_t timeout_ns)
{
    atomic_fetch_add_explicit(&sweep_waiters, 1, memory_order_seq_cst);
    uint64_t last = cycle_number();
    atomic_store(&forced_wanted, 1);
    ask_for_cycle_after(last);
    struct wait_for wait = {last + 1, timeout_ns == UINT64_MAX ? UINT64_MAX : os_now() + timeout_ns};
    int error = mutator_blocking(wait_for_end, &wait);
    atomic_fetch_sub_explicit(&sweep_waiters, 1, memory_order_seq_cst);
    return error;
}

static void must_be_outside(struct thread *self, const char *what)
{
    if (self == NULL)
        os_fatal(NULL, "%s: no memory to attach the thread: attach threads first", what);
}

void grey_collect(void)
{
    must_be_outside(heap_thread("grey_collect"), "grey_collect");
    collect(UINT64_MAX);
}

void grey_collect_start(void)
{
    start_ensure();
    atomic_store(&forced_wanted, 1);
    ask_for_cycle_after(cycle_number());
}

void grey_trim(void)
{
    grey_collect();
    scavenging_release_all();
}

bool control_collect_for_memory(void)
{
    collect(memory_wait_ns);
    scavenging_release_all();
    return true;
}

size_t grey_verify(int fd)
{
    must_be_outside(heap_thread("grey_verify"), "grey_verify");
    grey_blocking_begin();
    pthread_mutex_lock(&verifying);
    grey_blocking_end();
    struct cycle_request request = {.forced = true, .verify = true, .verify_fd = fd};
    atomic_store(&verify_request, &request);
    do
        collect(UINT64_MAX);
    while (!atomic_load_explicit(&request.done, memory_order_acquire)); /* the cycle had begun without it */
    pthread_mutex_unlock(&verifying);
    return request.verify_found;
}

/* A setter holds at once, also for a program that allocates nothing just then. */
static void start_if_reached(void)
{
    uint64_t last = cycle_number();
    if (!barrier_on() && trigger_is_reached() &&
        atomic_load_explicit(&wanted, memory_order_relaxed) <= last &&
        atomic_load_explicit(&ended, memory_order_relaxed) == last)
        ask_for_cycle_after(last);
}

/* ---- setters ------------------------------------------------------------------------------------------ */

int grey_set_percent(int percent)
{
    start_ensure();
    if (percent < 0)
        percent = -1;
    struct pacer_memory memory = memory_now(!sweep_done());
    enter_lock();
    int old = pacer.percent;
    pacer.percent = percent;
    pacer_commit(&pacer, &memory);
    commit();
    leave_lock();
    scavenging_wake(false);
    start_if_reached();
    if (percent < 0) { /* PC-13 */
        struct wait_for wait = {0, UINT64_MAX};
        if (__atomic_load_n(&grey_phase_, __ATOMIC_ACQUIRE) != 0) {
            wait.number = cycle_number();
            mutator_blocking(wait_for_end, &wait);
        }
    }
    return old;
}

size_t grey_set_memory_limit(size_t bytes)
{
    start_ensure();
    struct pacer_memory memory = memory_now(!sweep_done());
    enter_lock();
    size_t old = pacer.memory_limit;
    if (bytes != 0) {
        pacer.memory_limit = bytes;
        pacer_commit(&pacer, &memory);
        commit();
    }
    leave_lock();
    scavenging_wake(false);
    start_if_reached();
    return old;
}

uint64_t cycle_goal(void) { return atomic_load_explicit(&goal, memory_order_relaxed); }
int cycle_percent(void) { return atomic_load_explicit(&percent_now, memory_order_relaxed); }
size_t cycle_memory_limit(void) { return atomic_load_explicit(&limit_now, memory_order_relaxed); }

/* ---- fork --------------------------------------------------------------------------------------------- */

void control_fork_wait(void)
{
    atomic_fetch_add_explicit(&fork_waits, 1, memory_order_seq_cst);
    mutator_lock_answering(&working); /* the collector is at a pause point, nobody is held */
}
/* Nobody else is in a section. */
void control_fork_lock(void) { os_lock(&lock); }
void control_fork_parent(void)
{
    os_unlock(&lock);
    pthread_mutex_unlock(&working);
    atomic_fetch_sub_explicit(&fork_waits, 1, memory_order_seq_cst);
}
void control_fork_child(void)
{
    os_lock_init(&lock, OS_RANK_CONTROL);
    pthread_mutex_init(&working, NULL);
    pthread_mutex_init(&verifying, NULL);
    pacer.running = false; /* the cycle is abandoned */
    limiting_begin();      /* its processor time begins anew, and somebody may have been at it */
    atomic_store(&fork_waits, 0);
    atomic_store(&threads_up, 0);
    atomic_store(&wanted, 0);
    atomic_store(&begun, cycle_number());
    atomic_store(&ended, cycle_number());
    atomic_store(&forced_wanted, 0);
    atomic_store(&sweep_waiters, 0);
    atomic_store(&verify_request, NULL);
}
