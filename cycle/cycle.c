/* cycle/cycle.c -- one cycle, as the numbered steps of docs/protocol.md, section 1.
 *
 * Only the collector's thread runs this.  What each step guarantees to the next is said beside it; the
 * argument that one clean round is enough is in the document and checked by models/core.pml.
 *
 *     1.0 every span is swept, every mark is clear
 *     1.1 arm       round OPEN, phase ON, FENCE
 *     1.2 blacken   black_cycle, FENCE, mark the rests of runs
 *     1.3 roots     gate open, root jobs, records of created threads
 *     1.4 rounds    every thread's stack, until a round is clean
 *     1.6 finish    gate closed, phase OFF, FENCE
 *     1.7 sweep_cycle: anyone may sweep; dead foreign regions leave the index, leaked pins go,
 *                   freed arenas fault
 *
 * The collector calls nothing that takes a lock the program could own (malloc, stdio): in a held round
 * the owner may be held.
 */
#include "cycle/cycle.h"
#include "arena/arena.h"
#include "foreign/foreign.h"
#include "inspect/gauges.h"
#include "mark/mark.h"
#include "mutator/mutator.h"
#include "os/events.h"
#include "os/options.h"
#include "pin/pin.h"
#include "sweep/cleanups.h"
#include "sweep/specials.h"
#include "sweep/sweep.h"

#include <string.h>

enum { PUBLISH_AT_ONCE_FROM = 4, HOLD_ATTEMPTS = 100 };

static _Atomic uint64_t cycle; /* number of the last cycle begun */
static _Atomic uint32_t step;
static uint32_t ticket;
static uint64_t library_start;
size_t (*cycle_verify)(int fd);

uint64_t cycle_number(void) { return atomic_load_explicit(&cycle, memory_order_acquire); }
enum cycle_step cycle_step(void)
{
    return (enum cycle_step)atomic_load_explicit(&step, memory_order_relaxed);
}
static void enter_step(enum cycle_step s) { atomic_store_explicit(&step, s, memory_order_relaxed); }

const char *cycle_step_name(enum cycle_step s)
{
    static const char *const names[] = {"off", "arm", "blacken", "roots", "mark", "rescan", "finish"};
    return names[s];
}

void cycle_reset(void)
{
    atomic_store(&cycle, 0);
    atomic_store(&work_cycle, 0); /* else what is stamped before the first cycle looks newer than many */
    library_start = os_now();
    enter_step(STEP_OFF);
}

/* What one run of the steps measured. */
struct run {
    struct cycle_request *request;
    struct os_cycle_event event;
    uint64_t began, armed, marked, closed;
    uint64_t live_at_arm, worker_cpu, idle_cpu, assist_cpu, handshake_cpu, handshakes, born_black;
    uint64_t shaded_bytes, allocated, blackened;
    bool world_stopped;
};

/* ---- 1.1, 1.2, 1.3 ------------------------------------------------------------------------------------- */

static void set_phase(uint32_t phase)
{
    /* release: pairs with barrier_on; FENCE makes it known in every thread */
    __atomic_store_n(&grey_phase_, phase, __ATOMIC_RELEASE);
}

/* 1.1.  Afterwards every store that tested phase = OFF is visible and every later one shades. */
static void arm(void)
{
    enter_step(STEP_ARM);
    atomic_store_explicit(&work_round, ROUND_OPEN, memory_order_seq_cst);
    atomic_store_explicit(&work_at_once, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&cycle, 1, memory_order_acq_rel);
    atomic_store_explicit(&work_cycle, cycle_number(), memory_order_relaxed);
    set_phase(1);
    mutator_fence();
    HOOK(AFTER_ARM, NULL);
}

static void blacken_thread(struct thread *thread, void *bytes)
{
    *(uint64_t *)bytes += heap_blacken_runs(thread);
}

/* 1.2.  Afterwards everything that is born is black.  The FENCE before the runs are read is needed: a run
 * taken by who still saw the old number would be skipped as new (M_NOFENCE). */
static uint64_t blacken(void)
{
    enter_step(STEP_BLACKEN);
    atomic_store_explicit(&heap.black_cycle, cycle_number(), memory_order_release);
    mutator_fence();
    uint64_t bytes = 0;
    mutator_each(blacken_thread, &bytes);
    HOOK(AFTER_BLACKEN, NULL);
    return bytes;
}

static uint64_t roots(bool periodic)
{
    enter_step(STEP_ROOTS);
    HOOK(ROOTS, NULL);
    uint64_t bytes = mark_begin(periodic);
    mutator_each_created_slot(mark_root_word, NULL);
    return bytes;
}

/* ---- 1.4 ------------------------------------------------------------------------------------------------- */

/* The one step under the list lock.  clean and round are reset before the test: a hand-over outside an
 * answer counts itself pending first and clears clean after, so it shows in one of them. */
static bool ready_for_round(void)
{
    atomic_store_explicit(&work_clean, 1, memory_order_seq_cst);
    atomic_store_explicit(&work_round, ROUND_OPEN, memory_order_seq_cst);
    return mark_idle();
}

static void wait_until_copies_are_tested(void)
{
    for (unsigned n = 0; atomic_load_explicit(&work_copies, memory_order_seq_cst) != 0;)
        if (!mark_test_copies())
            os_pause(&n);
}

static uint32_t next_ticket(void)
{
    ticket = (ticket + 1) & 0x7fffffff;
    return ticket != 0 ? ticket : (ticket = 1);
}

/* Asks every thread and waits for it. */
static uint32_t ask(struct run *run, bool held)
{
    for (;;) {
        if (run->event.rounds > 1) /* the first round's stacks may have held most of the heap */
            mark_without_idle_workers();
        mark_wait_idle(run->event.rounds != 0);
        control_pause_point();
        if (run->event.rounds == 0)
            run->marked = os_now();
        uint32_t t = next_ticket();
        HOOK(ROUND_START, NULL);
        if (!mutator_round_begin(t, held, cycle_number(), ready_for_round))
            continue;
        enter_step(STEP_RESCAN);
        run->event.rounds++;
        run->event.rounds_held += held;
        if (run->event.rounds >= PUBLISH_AT_ONCE_FROM)
            atomic_store_explicit(&work_at_once, 1, memory_order_relaxed);
        mutator_round_wait(mark_test_copies);
        wait_until_copies_are_tested();
        HOOK(ROUND_END, NULL);
        return t;
    }
}

static bool round_was_clean(void)
{
    return atomic_load_explicit(&work_clean, memory_order_seq_cst) &&
           atomic_load_explicit(&work_round, memory_order_seq_cst) == ROUND_OPEN;
}

/* OPEN -> CLOSED: from here on nothing may be greyed. */
static bool close_round(void)
{
    uint32_t open = ROUND_OPEN;
    return atomic_load_explicit(&work_clean, memory_order_seq_cst) &&
           atomic_compare_exchange_strong_explicit(&work_round, &open, ROUND_CLOSED, memory_order_seq_cst,
                                                   memory_order_relaxed);
}

/* All threads are held: what is still grey is traced while they wait, and then marking is over. */
static void end_held(struct run *run)
{
    if (os_debug.autoroots)
        mark_autoroots_again();
    mark_hurry(MARK_WAITED_FOR);
    mark_wait_idle(true);
    atomic_store_explicit(&work_round, ROUND_CLOSED, memory_order_seq_cst);
    if ((os_debug.checkmark || run->request->verify) && cycle_verify != NULL) {
        int fd = run->request->verify ? run->request->verify_fd : 2;
        size_t found = cycle_verify(fd);
        run->request->verify_found = found;
        if (found != 0 && !run->request->verify)
            os_internal(NULL, "checkmark: %zu reachable objects were not marked; see above", found);
    }
}

/* Rounds until one is clean, or a held one is sealed.  True: threads are held and must be released. */
static bool rescan(struct run *run)
{
    bool must_hold = os_debug.autoroots || os_debug.checkmark || run->request->verify;
    bool hold_next = false;
    int attempts = 0;
    for (;;) {
        bool held = hold_next || run->event.rounds >= (uint64_t)os_debug.holdround;
        bool keep = held && must_hold;
        if (keep)
            mark_keep_copies(true);
        uint32_t t = ask(run, held);
        if (held) {
            if (mutator_seal(t)) {
                end_held(run);
                if (keep)
                    mark_keep_copies(false);
                return true;
            }
            mutator_release(); /* called off: somebody could not answer in time */
            if (keep)
                mark_keep_copies(false);
            if (must_hold && ++attempts == HOLD_ATTEMPTS) {
                os_warn("threads could not be held %d times; this cycle goes unchecked", attempts);
                must_hold = hold_next = false;
            }
        } else if (must_hold) {
            hold_next = round_was_clean();
        } else if (close_round()) {
            return false;
        }
    }
}

/* ---- 1.6, 1.7 ------------------------------------------------------------------------------------------- */

static void may_sweep(void)
{
    /* release: pairs with the slow paths' acquire; a full fence so that nothing of the cycle is later */
    atomic_store_explicit(&heap.sweep_cycle, cycle_number(), memory_order_seq_cst);
    atomic_thread_fence(memory_order_seq_cst);
    sweep_open();
}

/* Afterwards no thread is inside a slow path that began while the phase was ON; grey buffers are empty. */
static void finish(bool held)
{
    enter_step(STEP_FINISH);
    HOOK(FINISH, NULL);
    mark_end();
    specials_clear_weak();
    arena_find_dead();
    pin_find_leaked();
    set_phase(0);
    if (held)
        mutator_release();
    if (FAULT(EARLY_SWEEP))
        may_sweep();
    mutator_fence();
    HOOK(AFTER_FINISH, NULL);
}

/* 1.7, the rest of it: nobody can colour a region or a chunk any more, and what is new has this cycle's
 * colour, so they are looked for while everybody goes on.  Before the next arm, and before who waits for this
 * cycle is told (FR-28, UA-24). */
static void sweep_the_rest(void)
{
    foreign_sweep_begin(cycle_number());
    while (foreign_sweep_some())
        control_pause_point();
    cleanups_flush();
    while (pin_drop_leaked())
        control_pause_point();
    arena_sweep_begin(cycle_number());
    while (arena_sweep_some())
        control_pause_point();
}

/* Live bytes: what was marked, and what was born black or counted black.  *too_much: what the running sum has
 * more, to be taken off it as a difference, so that allocation that goes on meanwhile isn't lost. */
static uint64_t measure_live(struct run *run, uint64_t *too_much)
{
    uint64_t live = atomic_load_explicit(&heap.live, memory_order_relaxed);
    uint64_t marked = atomic_load_explicit(&mark_tracer_bytes, memory_order_relaxed) + run->blackened +
                      (os_counter_read(OS_COUNT_born_black_bytes) - run->born_black) +
                      (os_counter_read(OS_COUNT_marked_bytes) - run->shaded_bytes -
                       atomic_load_explicit(&mark_tracer_bytes, memory_order_relaxed));
    *too_much = live - marked;
    return marked + atomic_load_explicit(&heap.chunks_live, memory_order_relaxed) + arena_standby_bytes();
}

/* ---- measuring -------------------------------------------------------------------------------------------- */

static void measure_begin(struct run *run, struct cycle_request *request)
{
    memset(run, 0, sizeof(*run));
    run->request = request;
    run->began = os_now();
    run->live_at_arm = heap_live_bytes();
    run->worker_cpu = os_counter_read(OS_COUNT_worker_ns);
    run->idle_cpu = os_counter_read(OS_COUNT_idle_worker_ns);
    run->assist_cpu = os_counter_read(OS_COUNT_assist_ns);
    run->handshake_cpu = os_counter_read(OS_COUNT_handshake_ns);
    run->handshakes = os_counter_read(OS_COUNT_handshakes);
    run->born_black = os_counter_read(OS_COUNT_born_black_bytes);
    run->shaded_bytes = os_counter_read(OS_COUNT_marked_bytes);
    run->allocated = os_counter_read(OS_COUNT_allocated_bytes);
    mutator_stack_bytes(true);
}

static void report(struct run *run, const struct pacer_cycle *measured, uint64_t finished, struct pacer pacer)
{
    struct os_cycle_event *e = &run->event;
    e->number = cycle_number();
    e->arm_ns = run->armed - run->began;
    e->mark_ns = run->marked - run->armed;
    e->rescan_ns = run->closed - run->marked;
    e->finish_ns = finished - run->closed;
    e->handshakes = os_counter_read(OS_COUNT_handshakes) - run->handshakes;
    e->assist_cpu_ns = measured->assist_cpu_ns;
    e->worker_cpu_ns = measured->mark_cpu_ns;
    e->idle_worker_cpu_ns = measured->idle_cpu_ns;
    e->handshake_cpu_ns = os_counter_read(OS_COUNT_handshake_ns) - run->handshake_cpu;
    e->live_start = run->live_at_arm;
    e->live_end = run->live_at_arm + measured->allocated;
    e->live_marked = measured->marked;
    e->goal = pacer.goal;
    e->trigger = pacer.trigger;
    struct pacer plan = control_plan();
    e->planned_goal = plan.goal;
    e->planned_work = plan.scanned + plan.stacks + plan.roots;
    e->planned_ratio = pacer_assist_ratio(&plan, run->live_at_arm, 0);
    e->scanned = measured->scanned;
    e->cons_mark = pacer.cons_mark_now;
    e->limited = plan.limited;
    e->limiting = limiting();
    e->stack_bytes = measured->stacks;
    e->root_bytes = measured->roots;
    e->threads = (unsigned)mutator_threads();
    e->processors = measured->processors;
    e->forced = run->request->forced;
    e->periodic = run->request->periodic;
    e->verify = run->request->verify;
    os_count(OS_COUNT_rounds, e->rounds);
    os_count(OS_COUNT_rounds_held, e->rounds_held);
    os_events.cycle(e);
}

static struct pacer_cycle measure_end(struct run *run, uint64_t marked, uint64_t root_bytes)
{
    struct pacer_cycle m = {.marked = marked, .roots = root_bytes, .processors = os_tuning.processors};
    uint64_t rounds = run->event.rounds != 0 ? run->event.rounds : 1;
    m.stacks = mutator_stack_bytes(false) / rounds;
    uint64_t scanned = atomic_load(&mark_scanned); /* roots are in it (jobs.c) */
    m.scanned = scanned > root_bytes ? scanned - root_bytes : 0;
    /* Threads that exit take back what is left of their runs: the sum may have shrunk. */
    uint64_t allocated = os_counter_read(OS_COUNT_allocated_bytes);
    m.allocated = allocated > run->allocated ? allocated - run->allocated : 0;
    m.mark_wall_ns = run->closed - run->began;
    m.mark_cpu_ns = os_counter_read(OS_COUNT_worker_ns) - run->worker_cpu;
    m.idle_cpu_ns = os_counter_read(OS_COUNT_idle_worker_ns) - run->idle_cpu;
    m.assist_cpu_ns = os_counter_read(OS_COUNT_assist_ns) - run->assist_cpu;
    return m;
}

/* ---- the cycle ---------------------------------------------------------------------------------------------- */

void cycle_run(struct cycle_request *request)
{
    struct run run;
    uint64_t sweep_began = os_now();
    sweep_finish(); /* 1.0 */
    control_pause_point();
    measure_begin(&run, request);
    run.event.start_ns = run.began - library_start;
    run.event.sweep_ns = run.began - sweep_began;
    mark_note_segments();
    if (os_debug.stoptheworld)
        run.world_stopped = mutator_stop_world();

    arm();
    run.blackened = blacken();
    run.armed = os_now();
    control_cycle_began(cycle_number());
    uint64_t root_bytes = roots(request->periodic);
    if (run.world_stopped)
        mark_hurry(MARK_WAITED_FOR);
    enter_step(STEP_MARK);
    bool held = rescan(&run);
    HOOK(CLOSED, NULL);
    run.closed = os_now();
    finish(held);
    /* What is dead may be swept before it is taken off: with a collector that waits for a processor in
     * between, who is past a memory limit's goal waits too, and does not take new memory in its place. */
    uint64_t too_much, marked = measure_live(&run, &too_much);
    may_sweep(); /* 1.7 */
    HOOK(SWEEP_OPEN, NULL);
    atomic_fetch_sub_explicit(&heap.live, too_much, memory_order_relaxed);
    enter_step(STEP_OFF);
    struct pacer_cycle measured = measure_end(&run, marked, root_bytes);
    control_cycle_ended(&measured);
    os_count(OS_COUNT_cycles_forced, request->forced); /* who sees a cycle counted sees the goal it led to */
    os_count(OS_COUNT_cycles_periodic, request->periodic);
    os_count(OS_COUNT_cycles, 1);
    struct pacer pacer = control_pacer();
    sweep_begin(pacer.trigger > marked ? pacer.trigger - marked : 0);
    scavenging_wake(true);
    if (os_debug.stoptheworld == 2) {
        sweep_finish(); /* SW-16 */
        sweep_the_rest();
    }
    if (run.world_stopped)
        mutator_start_world();
    report(&run, &measured, os_now(), pacer);
    control_pause_point();
    sweep_the_rest();
}

/* The child of a fork: nobody else is left.  Another thread may have stored a white object into a black
 * one and not have tested the phase; it is gone, so the cycle cannot go on (mx_fork). */
static void clear_marks(void)
{
    size_t pages = atomic_load(&heap.extent) >> GREY_PAGE_SHIFT;
    for (size_t i = 0; i < pages; i++)
        for (int w = 0; w < 8; w++)
            if (atomic_load_explicit(&heap.bits[i].word[w].mark, memory_order_relaxed) != 0)
                atomic_store_explicit(&heap.bits[i].word[w].mark, 0, memory_order_relaxed);
}

void cycle_abandon(void)
{
    if (grey_phase_ != 0) {
        set_phase(0);
        clear_marks();
    }
    atomic_store(&work_round, ROUND_OPEN);
    uint64_t sweep = atomic_load(&heap.sweep_cycle);
    atomic_store(&heap.black_cycle, sweep); /* never the reverse: that would sweep everything */
    atomic_store(&cycle, sweep);
    enter_step(STEP_OFF);
}
