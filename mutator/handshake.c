/* mutator/handshake.c -- the one handshake: each thread is asked for a copy of its stack (1.4, 2.1, 2.6).
 *
 * Who answers.  The collector sets the thread's request word to the round's ticket, under the list lock.
 * The thread answers at its next slow path or grey_safepoint; if it has not after a short grace, it gets
 * a signal and answers in the handler; if it is in a blocking region, the collector answers for it.
 *
 *   - poll: a busy section of its own, so that the handler backs out meanwhile (else both would fill one
 *     buffer).  leave() clears busy first and looks at the request after, so a request whose signal found
 *     the section is seen there.
 *   - handler: does nothing if busy is odd (leave will see to it), if the state is not RUNNING (the
 *     collector will), or if nothing is asked.  It copies, hands over, and at most waits for a buffer or
 *     for a hold to end.  It takes no lock and allocates nothing.
 *   - collector: CAS(BLOCKED -> HELD), the same things, release.
 *
 * Exactly one of them clears the request and takes it off the outstanding count: the first two run on the
 * same thread and exclude each other by busy; the third holds the state word, on which leaving waits, and
 * looks at the request again once it holds it.  For a thread that it saw running and asked may have answered
 * and gone into a region since; counted twice, it would stand for another thread, whose stack nobody has.
 *
 * Order.  The answer's release of the request word makes every heap store before it visible to the
 * collector, which acquires the count.  Handing over comes before it (m_nobufcount, m_blockedbuf).
 *
 * Holds.  In a held round a thread waits after its answer, the collector keeps blocked threads HELD, and
 * attach and exit wait before their section.  `hold` is the ticket; sealed, the collector may rely on
 * it; 0 ends it.  Until it is sealed anybody who has waited 10 ms may call it off by CAS(hold, r -> 0):
 * a program with its own locks and blocked signals only waits for its cycle, it never deadlocks.
 */
#include "barrier/barrier.h"
#include "mutator/internal.h"
#include "os/events.h"
#include "os/options.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SEALED ((uint32_t)1 << 31)
static const uint64_t grace_ns = 50 * 1000;             /* MK-23 */
static const uint64_t hold_limit_ns = 10 * 1000 * 1000; /* BA-3 */
static const uint64_t warn_after_ns = 10ull * 1000 * 1000 * 1000;
static const uint64_t look_again_ns = 200 * 1000; /* at threads that entered a region meanwhile */

enum request_kind { ASK_NOTHING, ASK_STACK };

static _Atomic uint32_t kind, outstanding, hold, world_stopped;
static _Atomic uint64_t hold_since, cycle_number;
static int handshake_signal;

/* ---- answering ------------------------------------------------------------------------------------ */

static void take_off(struct thread *thread)
{
    /* release: pairs with the collector's acquire of outstanding; every store of the thread before its
     * answer is visible to who has seen the count */
    atomic_store_explicit(&thread->request, 0, memory_order_release);
    uint32_t before = atomic_fetch_sub_explicit(&outstanding, 1, memory_order_acq_rel);
    if (before == 1)
        os_wake(&outstanding, 1);
    else if (UNLIKELY(before == 0))
        os_internal(thread, "a handshake was answered more often than asked");
}

struct answer {
    struct thread *self;
    enum os_counter how;
    /* Planted faults: where to copy from instead; what to leave out. */
    const char *fault_from, *fault_skip, *fault_skip_end;
};

static void copy_own(struct thread *self, const struct answer *a, char *sp)
{
    if (a->fault_skip != NULL) {
        mutator_copy_words(self, sp, a->fault_skip);
        sp = (char *)a->fault_skip_end;
    }
    mutator_copy_stacks(self, a->fault_from != NULL ? (char *)a->fault_from : sp);
    mutator_copy_given(self);
}

static long answer(void *arg, char *sp)
{
    const struct answer *a = arg;
    struct thread *self = a->self;
    /* acquire: pairs with the collector's release: kind is the request's */
    if (atomic_load_explicit(&self->request, memory_order_acquire) == 0)
        return 0;
    uint64_t wall = os_now(), cpu = os_thread_cpu();
    if (atomic_load_explicit(&kind, memory_order_relaxed) == ASK_STACK) {
        HOOK(ANSWER, self);
        copy_own(self, a, sp);
        shade_hand_over(self, false);
    }
    os_count(OS_COUNT_handshakes, 1);
    os_count(a->how, 1);
    take_off(self);
    cpu = os_thread_cpu() - cpu;
    os_count(OS_COUNT_handshake_ns, cpu);
    os_events.pause(OS_PAUSE_handshake, os_now() - wall, cpu);
    return 0;
}

static bool held(void)
{
    return atomic_load_explicit(&hold, memory_order_acquire) != 0 ||
           atomic_load_explicit(&world_stopped, memory_order_acquire) != 0;
}

static void call_off_if_late(void)
{
    uint32_t ticket = atomic_load_explicit(&hold, memory_order_acquire);
    if (ticket == 0 || (ticket & SEALED))
        return;
    if (os_now() - atomic_load_explicit(&hold_since, memory_order_relaxed) < hold_limit_ns)
        return;
    if (atomic_compare_exchange_strong_explicit(&hold, &ticket, 0, memory_order_acq_rel,
                                                memory_order_relaxed)) {
        os_count(OS_COUNT_rounds_called_off, 1);
        os_wake(&hold, 1 << 20);
    }
}

static void wait_a_bit_held(void)
{
    call_off_if_late();
    uint32_t ticket = atomic_load_explicit(&hold, memory_order_acquire);
    if (ticket != 0)
        os_wait(&hold, ticket, 1000000);
    else
        os_wait(&world_stopped, 1, 1000000);
}

/* After an answer: until the hold is over, answering what else is asked.  In a handler the answers are
 * given here; at a poll the caller gives them, in a section. */
static void wait_while_held(struct thread *self, struct answer *in_handler)
{
    if (!held())
        return;
    uint64_t since = os_now();
    HOOK(HOLD, self);
    while (held()) {
        if (atomic_load_explicit(&self->request, memory_order_relaxed) != 0) {
            if (in_handler == NULL)
                break;
            mutator_capture(answer, in_handler);
        }
        wait_a_bit_held();
    }
    since = os_now() - since;
    os_count(OS_COUNT_held_ns, since);
    os_events.pause(OS_PAUSE_hold, since, 0);
}

void thread_poll(struct thread *self)
{
    if (atomic_load_explicit(&self->state, memory_order_relaxed) != THREAD_RUNNING)
        return;
    struct answer a = {.self = self, .how = OS_COUNT_handshakes_polled};
    while (atomic_load_explicit(&self->request, memory_order_relaxed) != 0) {
        /* Not thread_enter: an answer goes ahead while a fork waits. */
        uint32_t busy = atomic_load_explicit(&self->busy, memory_order_relaxed);
        atomic_store_explicit(&self->busy, busy + 1, memory_order_relaxed);
        atomic_signal_fence(memory_order_seq_cst);
        mutator_capture(answer, &a);
        atomic_signal_fence(memory_order_seq_cst);
        atomic_store_explicit(&self->busy, busy + 2, memory_order_release);
        atomic_signal_fence(memory_order_seq_cst);
        wait_while_held(self, NULL);
    }
}

void grey_safepoint(void)
{
    struct thread *self = thread_self();
    if (self == NULL && (self = heap_thread("grey_safepoint")) == NULL)
        return;
    if (!thread_busy(self) && atomic_load_explicit(&self->request, memory_order_relaxed) != 0)
        thread_poll(self);
}

#ifdef GREY_HOOKS
/* The faults of a handler that forgets the registers: all of them, or the vector state only, which lies in
 * an area of the frame that says its own size (in the last bytes of its old, fixed part). */
static void plant_in_frame(struct answer *a, const ucontext_t *context)
{
    if (FAULT(NO_SIGNAL_FRAME))
        a->fault_from = (const char *)context->uc_mcontext.gregs[REG_RSP] - 128;
    if (FAULT(NO_VECTOR)) {
        struct _fpx_sw_bytes size;
        a->fault_skip = (const char *)context->uc_mcontext.fpregs;
        memcpy(&size, a->fault_skip + sizeof(struct _fpstate) - sizeof(size), sizeof(size));
        a->fault_skip_end =
            a->fault_skip + (size.magic1 == FP_XSTATE_MAGIC1 ? size.extended_size : sizeof(struct _fpstate));
    }
}
#endif

static void on_signal(int number, siginfo_t *info, void *context)
{
    (void)number, (void)info, (void)context;
    struct thread *self = thread_self();
    if (self == NULL || thread_busy(self) ||
        atomic_load_explicit(&self->state, memory_order_relaxed) != THREAD_RUNNING ||
        atomic_load_explicit(&self->request, memory_order_relaxed) == 0)
        return;
    int saved_errno = errno;
    struct answer a = {.self = self, .how = OS_COUNT_handshakes_signalled};
#ifdef GREY_HOOKS
    plant_in_frame(&a, context);
#endif
    mutator_capture(answer, &a);
    wait_while_held(self, &a);
    errno = saved_errno;
}

/* ---- answering for blocked threads -------------------------------------------------------------------- */

static void hold_state_release(struct thread *thread)
{
    thread->held_blocked = false;
    /* release: pairs with become_running's acquire */
    atomic_store_explicit(&thread->state, THREAD_BLOCKED, memory_order_release);
    os_wake(&thread->state, 1);
}

static void copy_for(struct thread *thread)
{
    uint64_t cycle = atomic_load_explicit(&cycle_number, memory_order_relaxed);
    bool same_region = thread->scanned_region == thread->region;
    if (same_region && thread->scanned_cycle == cycle) { /* parked */
        os_count(OS_COUNT_handshakes_parked, 1);
    } else {
        if (same_region) /* a whole cycle in one region: its caches come back (AL-22) */
            heap_give_up_runs(thread);
        mutator_copy_stacks(thread, thread->blocked_sp);
        mutator_copy_words(thread, (const char *)thread->blocked_registers,
                           (const char *)(thread->blocked_registers + 8));
        mutator_copy_given(thread);
        thread->scanned_region = thread->region;
        thread->scanned_cycle = cycle;
    }
    shade_hand_over(thread, false);
}

/* List lock.  True if the thread was in a region, so that it has been answered for.  Who is kept HELD from an
 * earlier answer (stoptheworld's rounds come after its stop) is still ours. */
static bool answer_for(struct thread *thread)
{
    uint32_t state = THREAD_BLOCKED;
    HOOK(ANSWER_FOR, thread);
    /* acq: pairs with become_blocked's release */
    if (!thread->held_blocked &&
        !atomic_compare_exchange_strong_explicit(&thread->state, &state, THREAD_HELD, memory_order_acq_rel,
                                                 memory_order_relaxed))
        return false;
    if (atomic_load_explicit(&thread->request, memory_order_relaxed) ==
        0) { /* by itself, before the region */
        hold_state_release(thread);
        return true;
    }
    if (atomic_load_explicit(&kind, memory_order_relaxed) == ASK_STACK)
        copy_for(thread);
    os_count(OS_COUNT_handshakes, 1);
    os_count(OS_COUNT_handshakes_blocked, 1);
    take_off(thread);
    if (held())
        thread->held_blocked = true;
    else
        hold_state_release(thread);
    return true;
}

static void release_blocked(void)
{
    mutator_lock_list();
    for (struct thread *t = mutator_first(); t != NULL; t = t->next)
        if (t->held_blocked)
            hold_state_release(t);
    mutator_unlock_list();
}

/* ---- asking -------------------------------------------------------------------------------------------------- */

/* List lock. */
static void request_all(uint32_t ticket, enum request_kind what)
{
    atomic_store_explicit(&kind, what, memory_order_relaxed);
    uint32_t n = 0;
    for (struct thread *t = mutator_first(); t != NULL; t = t->next)
        n++;
    atomic_store_explicit(&outstanding, n, memory_order_relaxed);
    uint64_t now = os_now();
    for (struct thread *t = mutator_first(); t != NULL; t = t->next) {
        t->signalled = false;
        t->requested_at = t->warned_at = now;
        /* release: pairs with the answer's acquire */
        atomic_store_explicit(&t->request, ticket, memory_order_release);
    }
}

static void warn_if_stuck(struct thread *thread)
{
    uint64_t now = os_now();
    if (now - thread->warned_at < warn_after_ns)
        return;
    thread->warned_at = now;
    os_warn(
        "thread %d has not answered for %llu s: it blocks signal %d and doesn't call grey; the cycle waits",
        (int)thread->tid, (unsigned long long)((now - thread->requested_at) / 1000000000), handshake_signal);
}

/* List lock. */
static void send_signal(struct thread *thread)
{
    if (syscall(SYS_tgkill, getpid(), thread->tid, handshake_signal) == 0) {
        thread->signalled = true;
        os_count(OS_COUNT_signals_sent, 1);
    } else if (errno == ESRCH) {
        registry_lost(thread);
    } else if (errno != EAGAIN) { /* EAGAIN: the queue is full; tried again */
        os_internal(thread, "cannot signal thread %d: error %d", (int)thread->tid, errno);
    }
}

/* One walk over the list: answers for who is in a region, signals the others if it is time. */
static void look_at_threads(bool signals)
{
    /* ThreadSanitizer runs handlers at moments of its own choice; one that was sent to a thread just starting
     * was once not run at all there (not seen without it): so there it is sent again every 100 ms or so. */
    static uint32_t looks;
    bool again = OS_TSAN && ++looks % (100 * 1000 * 1000 / 200000) == 0;
    mutator_lock_list();
    for (struct thread *t = mutator_first(), *next; t != NULL; t = next) {
        next = t->next; /* a lost one leaves the list */
        if (atomic_load_explicit(&t->request, memory_order_acquire) == 0 || answer_for(t))
            continue;
        if (signals && (!t->signalled || again))
            send_signal(t);
        else if (signals)
            warn_if_stuck(t);
    }
    mutator_unlock_list();
}

void mutator_round_wait(bool (*meanwhile)(void))
{
    uint64_t begin = os_now();
    bool signals = false, hold_over = false;
    look_at_threads(false);
    for (uint32_t n; (n = atomic_load_explicit(&outstanding, memory_order_acquire)) != 0;) {
        work_blocks_prepare(16); /* a handler may be waiting for one */
        if (meanwhile != NULL && meanwhile())
            continue;
        if (!signals) {
            if (os_now() - begin >= grace_ns) {
                signals = true;
                look_at_threads(true);
            } else {
                os_yield();
            }
            continue;
        }
        os_wait(&outstanding, n, look_again_ns);
        call_off_if_late();
        if (!hold_over && !held()) {
            release_blocked();
            hold_over = true;
        }
        look_at_threads(true);
    }
}

bool mutator_round_begin(uint32_t ticket, bool hold_it, uint64_t cycle, bool (*ready)(void))
{
    work_blocks_prepare((uint32_t)mutator_threads() + 16);
    mutator_lock_list();
    bool go = ready();
    if (go) {
        atomic_store_explicit(&cycle_number, cycle, memory_order_relaxed);
        if (hold_it) {
            atomic_store_explicit(&hold_since, os_now(), memory_order_relaxed);
            atomic_store_explicit(&hold, ticket, memory_order_release);
        }
        request_all(ticket, ASK_STACK);
    }
    mutator_unlock_list();
    return go;
}

/* Whoever asks may be attached, and may block the signal: a thread that forks. */
static void answer_myself(void)
{
    struct thread *self = thread_self();
    if (self != NULL && !thread_busy(self) && atomic_load_explicit(&self->request, memory_order_relaxed) != 0)
        thread_poll(self);
}

void mutator_handshake(void)
{
    mutator_lock_list();
    request_all(1, ASK_NOTHING);
    mutator_unlock_list();
    answer_myself();
    mutator_round_wait(NULL);
}

void mutator_lock_answering(pthread_mutex_t *mutex)
{
    for (unsigned n = 0; pthread_mutex_trylock(mutex) != 0; os_pause(&n))
        answer_myself();
}

/* ---- holds ------------------------------------------------------------------------------------------------------ */

bool mutator_holds(void) { return held(); }

bool mutator_seal(uint32_t ticket)
{
    uint32_t expected = ticket;
    return atomic_compare_exchange_strong_explicit(&hold, &expected, ticket | SEALED, memory_order_acq_rel,
                                                   memory_order_relaxed);
}

void mutator_release(void)
{
    atomic_store_explicit(&hold, 0, memory_order_release);
    os_wake(&hold, 1 << 20);
    if (!held())
        release_blocked();
}

bool mutator_stop_world(void)
{
    mutator_lock_list();
    atomic_store_explicit(&world_stopped, 1, memory_order_release);
    request_all(1, ASK_NOTHING);
    mutator_unlock_list();
    uint64_t begin = os_now();
    bool late = false;
    look_at_threads(true);
    for (uint32_t n; (n = atomic_load_explicit(&outstanding, memory_order_acquire)) != 0;) {
        os_wait(&outstanding, n, look_again_ns);
        if (!late && os_now() - begin > hold_limit_ns) {
            late = true;
            mutator_start_world();
        }
        look_at_threads(true);
    }
    return !late;
}

void mutator_start_world(void)
{
    atomic_store_explicit(&world_stopped, 0, memory_order_release);
    os_wake(&world_stopped, 1 << 20);
    if (!held())
        release_blocked();
}

/* Enters a section and takes the list lock, at a moment when no hold is on: attach and exit. */
void handshake_enter_list(struct thread *self)
{
    uint64_t since = 0;
    for (;;) {
        thread_enter(self);
        mutator_lock_list();
        if (!held() || FAULT(ATTACH_IN_HOLD))
            break;
        mutator_unlock_list();
        thread_leave(self);
        if (since == 0)
            since = os_now();
        wait_a_bit_held();
    }
    if (since != 0)
        os_events.pause(OS_PAUSE_wait, os_now() - since, 0);
}

/* List lock: an exiting thread counts as having answered; its stack is no root any more. */
void handshake_count_exit(struct thread *self)
{
    if (atomic_load_explicit(&self->request, memory_order_relaxed) != 0)
        take_off(self);
}

/* ---- start ------------------------------------------------------------------------------------------- */

int handshake_signal_number(void) { return handshake_signal; }

int handshake_init(int signal)
{
    handshake_signal = signal;
    atomic_store(&hold, 0);
    atomic_store(&world_stopped, 0);
    atomic_store(&outstanding, 0);
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_RESTART; /* no SA_ONSTACK (MK-23) */
    sigfillset(&action.sa_mask);
    return sigaction(signal, &action, NULL) == 0 ? 0 : errno;
}

/* In a fork's child nobody is left to answer or to wait. */
void handshake_fork_child(void)
{
    atomic_store(&hold, 0);
    atomic_store(&world_stopped, 0);
    atomic_store(&outstanding, 0);
}
