/* mark/workers.c -- who does the marking: worker threads, the collector's help, assists.
 *
 * Background workers use a quarter of the processors (MK-18): so many dedicated ones, or fewer and one
 * fractional worker that runs in slices and sleeps in between.  Further workers run at nice 19 in slices of
 * 1 ms and sleep when they were switched away for good, so they only take time that nobody wants; they hold
 * nothing while they sleep and never scan what somebody may be waiting for (registered roots).
 *
 * Everyone who traces is counted in `inside` while he does.  Who comes looks at the gate after he was
 * counted, who closes it waits until nobody is inside: so nobody traces in the next cycle before its
 * gate opens (M_TRACEEARLY), and a fork finds every worker between two pieces of work.
 */
#include "foreign/foreign.h"
#include "mark/internal.h"
#include "os/options.h"

#include <errno.h>

enum worker_kind { DEDICATED, FRACTIONAL, IDLE };
enum { WORKERS_MAX = 256, ASSISTS_MAX = 16 };
static const uint64_t slice_ns = 1000 * 1000; /* architecture.md, "Who does the work" */
static const uint64_t fractional_slice_ns = 200 * 1000;
/* A nice-19 worker that was switched away for good sleeps so long, twice as long each time it happens again.  In the
 * middle of a slice it holds work that nobody can take from it, and among busy threads it may not run again
 * for a second: half a second of a cache server's cycle was spent waiting for one. */
static const uint64_t yield_ns = 2 * 1000 * 1000, yield_most_ns = 256 * 1000 * 1000;
/* What the collector marks itself while it waits for the end of a round: so many slices, for the few greys that a
 * round leaves.  A round's stacks may as well have held most of the heap, and that is for the workers. */
static const uint64_t help_ns = 100 * 1000;
enum { HELP_MOST = 5 };
/* A slice of an idle worker that took so much longer than it had the processor was switched away for good. */
static const uint64_t away_ns = 500 * 1000;

struct worker {
    pthread_t thread;
    struct tracer *tracer;
    enum worker_kind kind;
    uint64_t yield; /* ns; IDLE */
};

static struct worker workers[WORKERS_MAX];
static unsigned n_workers;
static double fraction;
static _Atomic uint32_t stopping, parked, inside, no_idle_workers;
static _Atomic uint32_t hurry; /* enum mark_hurry, of this cycle; relaxed: it only says how hard to work */
static bool exact;
static _Atomic uint64_t mark_began; /* os_now() when this cycle's gate opened */
static void (*pause_point)(void);
static struct tracer *collector_tracer, *assist_tracers[ASSISTS_MAX];

/* ---- the gate -------------------------------------------------------------------------------------- */

static bool come_in(void)
{
    atomic_fetch_add_explicit(&inside, 1, memory_order_seq_cst); /* pairs with close_gate, park */
    if (atomic_load_explicit(&mark_gate, memory_order_seq_cst) &&
        !atomic_load_explicit(&parked, memory_order_seq_cst))
        return true;
    atomic_fetch_sub_explicit(&inside, 1, memory_order_release);
    return false;
}
static void go_out(void) { atomic_fetch_sub_explicit(&inside, 1, memory_order_release); }
static void wait_until_empty(void)
{
    for (unsigned n = 0; atomic_load_explicit(&inside, memory_order_seq_cst) != 0;)
        os_pause(&n);
}

/* ---- workers ------------------------------------------------------------------------------------------ */

static bool must_stop(void)
{
    return atomic_load_explicit(&stopping, memory_order_relaxed) ||
           atomic_load_explicit(&parked, memory_order_relaxed);
}

__thread struct mark_piece mark_foreign_piece;

/* A piece of a scanned foreign region.  Not at nice 19: its release waits for who is inside (FR-39). */
static bool scan_foreign(struct tracer *tracer)
{
    struct foreign_piece piece;
    if (!foreign_take_piece(&piece))
        return false;
    tracer->tokens++;
    if (piece.size != 0) {
        mark_foreign_piece = (struct mark_piece){piece.start, piece.size};
        atomic_signal_fence(memory_order_seq_cst); /* the fault handler reads it, on this thread */
        tracer_words(tracer, piece.start, piece.size);
        atomic_signal_fence(memory_order_seq_cst);
        mark_foreign_piece.size = 0;
    }
    foreign_leave_piece(&piece);
    return true;
}

static bool take_something(struct tracer *tracer, bool may_hold_roots)
{
    return (!copies_kept() && copies_test_one(tracer)) || jobs_run_one(tracer, may_hold_roots) ||
           (may_hold_roots && scan_foreign(tracer)) || tracer_claim(tracer);
}

/* Traces for about ns; true if there was anything to do. */
static bool trace(struct tracer *tracer, uint64_t ns, bool may_hold_roots)
{
    uint64_t deadline = os_now() + ns;
    bool any = false;
    tracer_look_outside(tracer);
    while (take_something(tracer, may_hold_roots)) {
        any = true;
        if (tracer_drain(tracer, SIZE_MAX, deadline))
            tracer_give_tokens(tracer);
        if (must_stop() || os_now() >= deadline)
            break;
    }
    tracer_publish(tracer);
    return any;
}

static void give_credit(struct tracer *tracer)
{
    atomic_fetch_add_explicit(&mark_credit, (int64_t)tracer->credit, memory_order_relaxed);
    tracer->credit = 0;
}

static bool may_work(enum worker_kind kind)
{
    return kind != IDLE || !atomic_load_explicit(&no_idle_workers, memory_order_relaxed);
}

static void sleep_until_work(enum worker_kind kind)
{
    uint32_t signal = atomic_load_explicit(&work_signal, memory_order_acquire);
    atomic_fetch_add_explicit(&work_idle, 1, memory_order_seq_cst);
    /* Only what this kind may take: else it would look again and again. */
    bool something = atomic_load_explicit(&mark_gate, memory_order_seq_cst) && !must_stop() &&
                     may_work(kind) &&
                     (work_available() || jobs_left(kind != IDLE) || (kind != IDLE && foreign_pieces_wait()));
    HOOK(MARK_IDLE, NULL);
    if (!something && !atomic_load_explicit(&stopping, memory_order_relaxed))
        os_wait(&work_signal, signal, 100 * 1000 * 1000);
    atomic_fetch_sub_explicit(&work_idle, 1, memory_order_seq_cst);
}

static void sleep_ns(uint64_t ns)
{
    struct timespec time = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
    nanosleep(&time, NULL);
}

/* The fractional worker: sleeps while it has had more than its share of the time since marking began.
 * Counted in processor time, so that what other threads took from it is made up for. */
static void keep_to_share(uint64_t cpu)
{
    static uint64_t cycle_began, used; /* of this one worker */
    uint64_t began = atomic_load_explicit(&mark_began, memory_order_relaxed);
    if (began != cycle_began) {
        cycle_began = began;
        used = 0;
    }
    used += cpu;
    uint64_t due = (uint64_t)((double)used / fraction), elapsed = os_now() - began;
    if (due > elapsed && atomic_load_explicit(&hurry, memory_order_relaxed) == MARK_AT_LEISURE)
        sleep_ns(due - elapsed < yield_ns ? due - elapsed : yield_ns);
}

static void keep_out_of_the_way(struct worker *worker, uint64_t wall, uint64_t cpu)
{
    if (wall < cpu + away_ns) {
        worker->yield = worker->yield > 2 * yield_ns ? worker->yield - yield_ns : yield_ns;
        return;
    }
    sleep_ns(worker->yield);
    worker->yield = worker->yield < yield_most_ns ? worker->yield * 2 : yield_most_ns;
}

/* One slice; false if there was nothing to do. */
static bool run_slice(struct worker *worker)
{
    if (!may_work(worker->kind))
        return false;
    if (!come_in())
        return false;
    uint64_t wall = os_now(), begin = os_thread_cpu();
    bool any = trace(worker->tracer, worker->kind == FRACTIONAL ? fractional_slice_ns : slice_ns,
                     worker->kind != IDLE);
    give_credit(worker->tracer);
    go_out();
    uint64_t cpu = os_thread_cpu() - begin;
    os_count(worker->kind == IDLE ? OS_COUNT_idle_worker_ns : OS_COUNT_worker_ns, cpu);
    if (worker->kind == FRACTIONAL && any)
        keep_to_share(cpu);
    if (worker->kind == IDLE && any)
        keep_out_of_the_way(worker, os_now() - wall, cpu);
    return any;
}

static void *worker_main(void *arg)
{
    struct worker *worker = arg;
    os_give_way(worker->kind == IDLE ? 19 : OS_NICE);
    while (!atomic_load_explicit(&stopping, memory_order_acquire))
        if (!run_slice(worker))
            sleep_until_work(worker->kind);
    return NULL;
}

struct mark_workers mark_workers_plan(unsigned processors, unsigned exactly)
{
    struct mark_workers plan = {0};
    if (exactly != 0) {
        plan.dedicated = exactly;
        plan.exact = true;
        return plan;
    }
    double share = 0.25 * processors;
    plan.dedicated = (unsigned)(share + 0.5);
    double off = plan.dedicated / share - 1;
    if (off > 0.3 || off < -0.3) { /* MK-18 */
        if (plan.dedicated > share)
            plan.dedicated--;
        plan.fractional = share - plan.dedicated;
    }
    plan.idle = processors - plan.dedicated;
    return plan;
}

static int start_one(enum worker_kind kind)
{
    if (n_workers == WORKERS_MAX)
        return 0;
    struct worker *worker = &workers[n_workers];
    worker->kind = kind;
    worker->yield = yield_ns;
    if (worker->tracer == NULL)
        worker->tracer = tracer_new(false);
    if (worker->tracer == NULL)
        return ENOMEM;
    int error = os_start_background(&worker->thread, kind == IDLE ? "grey-mark-idle" : "grey-mark",
                                    worker_main, worker);
    if (error == 0)
        n_workers++;
    return error;
}

int mark_workers_start(struct mark_workers plan)
{
    atomic_store(&stopping, 0);
    fraction = plan.fractional;
    exact = plan.exact;
    int error = 0;
    for (unsigned i = 0; i < plan.dedicated && error == 0; i++)
        error = start_one(DEDICATED);
    if (error == 0 && plan.fractional > 0)
        error = start_one(FRACTIONAL);
    for (unsigned i = 0; i < plan.idle && error == 0; i++)
        error = start_one(IDLE);
    return n_workers != 0 ? 0 : error; /* fewer than planned will do */
}

void mark_workers_stop(void)
{
    atomic_store(&stopping, 1);
    atomic_fetch_add(&work_signal, 1);
    os_wake(&work_signal, 1 << 20);
    for (unsigned i = 0; i < n_workers; i++)
        pthread_join(workers[i].thread, NULL);
    n_workers = 0;
}

void mark_workers_park(void)
{
    atomic_store_explicit(&parked, 1, memory_order_seq_cst);
    wait_until_empty();
}
void mark_workers_unpark(void)
{
    atomic_store_explicit(&parked, 0, memory_order_seq_cst);
    atomic_fetch_add(&work_signal, 1);
    os_wake(&work_signal, 1 << 20);
}

/* ---- for the collector ------------------------------------------------------------------------------------ */

int mark_init(void)
{
    bool have_jobs = jobs_init();
    filter_init();
    atomic_store(&mark_gate, 0);
    collector_tracer = tracer_new(false);
    bool have_tracers = collector_tracer != NULL;
    for (int i = 0; i < ASSISTS_MAX; i++) {
        assist_tracers[i] = tracer_new(true);
        have_tracers &= assist_tracers[i] != NULL;
    }
    return have_jobs && have_tracers ? 0 : ENOMEM;
}

void mark_shutdown(void)
{
    jobs_shutdown();
    tracer_free(collector_tracer);
    collector_tracer = NULL;
    for (int i = 0; i < ASSISTS_MAX; i++) {
        tracer_free(assist_tracers[i]);
        assist_tracers[i] = NULL;
    }
    for (int i = 0; i < WORKERS_MAX; i++) {
        tracer_free(workers[i].tracer);
        workers[i].tracer = NULL;
    }
}

size_t mark_begin(bool periodic)
{
    atomic_store(&mark_scanned, 0);
    atomic_store(&mark_credit, 0);
    atomic_store(&mark_tracer_bytes, 0);
    atomic_store(&hurry, MARK_AT_LEISURE);
    /* A periodic cycle has time (MK-18). */
    atomic_store(&no_idle_workers, 0);
    if (periodic)
        mark_without_idle_workers();
    atomic_store(&mark_began, os_now());
    size_t bytes = jobs_make();
    atomic_store_explicit(&mark_gate, 1, memory_order_seq_cst);
    work_wake();
    return bytes;
}

void mark_without_idle_workers(void)
{
    bool alone = n_workers == 0 || workers[0].kind == IDLE;
    atomic_store_explicit(&no_idle_workers, !alone, memory_order_relaxed);
}

void mark_root_word(uintptr_t word, void *unused)
{
    (void)unused;
    atomic_fetch_add_explicit(&work_pending, 1, memory_order_seq_cst);
    collector_tracer->tokens++;
    tracer_word(collector_tracer, word);
    tracer_publish(collector_tracer);
}

void mark_autoroots_again(void)
{
    atomic_fetch_add_explicit(&work_pending, 1, memory_order_seq_cst);
    collector_tracer->tokens++;
    tracer_look_outside(collector_tracer);
    jobs_rescan_segments(collector_tracer);
    tracer_publish(collector_tracer);
}

bool mark_test_copies(void)
{
    bool any = false;
    while (copies_test_one(collector_tracer))
        any = true;
    if (any) {
        tracer_publish(collector_tracer);
        work_wake();
    }
    return any;
}

bool mark_idle(void)
{
    /* acquire: pairs with tracer_give_tokens and copies_test_one */
    return atomic_load_explicit(&work_copies, memory_order_seq_cst) == 0 &&
           atomic_load_explicit(&work_pending, memory_order_seq_cst) == 0 &&
           !atomic_load_explicit(&work_overflowed, memory_order_seq_cst);
}

static bool recover_overflow(void)
{
    if (atomic_load_explicit(&work_pending, memory_order_seq_cst) != 0 ||
        !atomic_exchange_explicit(&work_overflowed, 0, memory_order_seq_cst))
        return false;
    jobs_make_rescan();
    work_wake();
    return true;
}

void mark_set_pause_point(void (*fn)(void)) { pause_point = fn; }

void mark_hurry(enum mark_hurry why)
{
    if (atomic_load_explicit(&hurry, memory_order_relaxed) < why) /* many may come, and read only */
        atomic_store_explicit(&hurry, why, memory_order_relaxed);
}

/* help: it is for the collector to help, at least a little. */
static bool may_help(bool help, unsigned slices)
{
    uint32_t now = atomic_load_explicit(&hurry, memory_order_relaxed);
    if (n_workers == 0)
        return true;
    return help ? slices < HELP_MOST || now != MARK_AT_LEISURE : now == MARK_WAITED_FOR && !exact;
}

static bool help_out(void)
{
    uint64_t begin = os_thread_cpu();
    HOOK(MARK_HELP, NULL);
    bool any = trace(collector_tracer, help_ns, true);
    give_credit(collector_tracer);
    os_count(OS_COUNT_worker_ns, os_thread_cpu() - begin);
    return any;
}

void mark_wait_idle(bool help)
{
    unsigned helped = 0;
    while (!mark_idle()) {
        uint32_t signal = atomic_load_explicit(&work_signal, memory_order_acquire);
        if (mark_test_copies() || recover_overflow())
            continue;
        if (may_help(help, helped)) {
            helped++;
            if (help_out()) {
                if (pause_point != NULL)
                    pause_point();
                continue;
            }
        }
        if (!mark_idle())
            os_wait(&work_signal, signal, 200 * 1000);
        if (work_available()) /* an assist may have left it, and wakes nobody */
            work_wake();
        if (pause_point != NULL)
            pause_point();
    }
}

void mark_end(void)
{
    atomic_store_explicit(&mark_gate, 0, memory_order_seq_cst);
    wait_until_empty();
    if (atomic_load(&work_pending) != 0 || jobs_left(true))
        os_internal(NULL, "root jobs or grey objects left when marking ends"); /* MK-9 */
    jobs_drop();
}

/* ---- assists --------------------------------------------------------------------------------------------------- */

size_t mark_assist(size_t bytes, uint64_t ns)
{
    struct tracer *tracer = NULL;
    for (int i = 0; i < ASSISTS_MAX && tracer == NULL; i++)
        if (atomic_exchange_explicit(&assist_tracers[i]->taken, 1, memory_order_acquire) == 0)
            tracer = assist_tracers[i];
    if (tracer == NULL)
        return 0;
    size_t done = 0;
    if (come_in()) {
        uint64_t deadline = os_now() + ns;
        tracer_look_outside(tracer);
        while (done < bytes && os_now() < deadline && tracer_claim(tracer)) {
            bool drained = tracer_drain(tracer, bytes - done, deadline);
            done += tracer->scanned;
            if (!drained)
                break;
            tracer_give_tokens(tracer);
        }
        tracer_publish(tracer);
        go_out();
    }
    atomic_store_explicit(&tracer->taken, 0, memory_order_release);
    return done;
}

/* ---- fork ------------------------------------------------------------------------------------------------------- */

/* The workers are gone; their tracers were empty (parked), and new ones start when first needed. */
void mark_fork_child(void)
{
    n_workers = 0;
    atomic_store(&inside, 0);
    atomic_store(&parked, 0);
    atomic_store(&mark_gate, 0);
    jobs_drop();
    collector_tracer->reader = NULL;
    for (int i = 0; i < ASSISTS_MAX; i++)
        assist_tracers[i]->reader = NULL;
    for (int i = 0; i < WORKERS_MAX; i++)
        if (workers[i].tracer != NULL)
            workers[i].tracer->reader = NULL;
    roots_fork_child();
    copies_fork_child();
}
