/* sweep/cleanups.c -- running what was queued because something died (CF-9..CF-13, CF-15).
 *
 * Two queues under one lock.  A number, given in the order of queueing over both, says how far things are:
 * what is unfinished is what waits and what runs, each list knows its lowest number, so "all that was queued
 * at the call has run" is one comparison (CF-13).
 *
 * What died together is queued together, as a chain: all that died in one span in one hold of the lock, with
 * one write to the descriptor and one call that wakes, since a program thread may be the one who sweeps, and
 * others may wait for the span.  The hold is short however long the chain is: only its first item gets a number,
 * every other when it comes to the head of the queue, where alone it is looked at.
 *
 * An item is taken, run, given back to its owner, and only then counts as run:
 *
 *     section, lock: take it, enter it in the list of running items
 *     outside:       run(): the program's function
 *     section:       done(): the owner's locks; no lock of this file
 *     section, lock: off the list; waiters, the descriptor
 *
 * One at a time, so that a function that never returns holds up nothing that was queued beside it (CF-9), and
 * no thread sits on a batch that others could run.  That is two short holds of the lock for each; what a
 * cleanup usually does is a system call.  The lock is held in busy sections only (or by a collector thread,
 * which a fork parks), so a fork finds the lists whole.  A finalizer is taken only while no other runs.
 *
 * Who runs them.  Grey's own threads: at most a quarter of the processors for cleanups and one for
 * finalizers, started by whoever first registers something that may be queued; what queues can't, being in a
 * section.  They are threads of grey_thread_create, so they are attached, scanned, and counted in
 * grey_stats.threads; they block all signals but the handshake's.  While idle they sleep in a blocking
 * region, so they delay no cycle.  Every thread may help with grey_cleanup_run.  After grey_cleanup_fd Grey's
 * own take nothing more.  The descriptor is readable while there is something that could be run: finalizers
 * that wait for a running one do not count, else an event loop would spin on them.
 *
 * No wake is lost: a bell is rung after the queue has changed, and a thread reads the bell before it looks
 * into the queue.  It is rung for every 20 that wait, and at the end of a sweep.  A mutator may still be at
 * its last span after that; it sees that the sweep is over and rings itself.  That is Dekker's argument.  The
 * mutator writes `waiting`, then reads next_span (sweep_done); the sweeper reads next_span, or moves it past
 * the end, before it reads `waiting` here.  All of these are seq_cst, the claims of others that move next_span
 * too, so they have one order.  If the mutator finds the sweep not done, its read is before the claim that
 * ended the sweep, that before the sweeper's look which finds it over, and that before the sweeper's read of
 * `waiting`: which finds what the mutator wrote.  Next_span only grows until the next sweep begins, which is
 * not before this section is over; a look before this sweep has begun finds the last one over, and rings.  At
 * a fork the sweeper may stop and flush early; it is signalled again afterwards.
 *
 * Fork: the child has none of Grey's threads; they start again with the first cycle, registration or
 * grey_cleanup_wait.  What another thread was running is lost with it: never finished, its argument kept.
 * A cleanup may fork on one of Grey's own threads.  In the child that thread is still Grey's, and the only
 * one: when the function returns it goes on with what waits, and then waits for more, as in the parent; it
 * keeps its place in the pool, and grey_shutdown waits for it.  What else the child is to do, the function does
 * or starts a thread for.
 */
#include "sweep/cleanups.h"
#include "heap/heap.h"
#include "mutator/mutator.h"
#include "os/options.h"
#include "sweep/sweep.h"

#include <limits.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum kind { CLEANUP, FINALIZER, KINDS };
enum { WAKE_AT = 20, POOL_MOST = 64, OWN_THREADS = POOL_MOST + 1 };

struct queue {
    struct queued *first, *last; /* lock; the first has its number */
    _Atomic uint64_t waiting;    /* lock; cleanups_flush reads it without */
};
/* An item that is being run; on the stack of who runs it. */
struct running {
    struct running *next;  /* lock */
    struct running *outer; /* of the same thread: grey_cleanup_run was called from a cleanup */
    uint64_t sequence;
    enum kind kind;
};
struct waiter {
    struct waiter *next; /* lock */
    uint64_t target;
    _Atomic uint32_t over;
};
enum { ABSENT, STARTING, UP };
struct own_thread {
    _Atomic uint32_t state; /* release of UP pairs with join_own's acquire: id is set */
    pthread_t id;
};

static struct os_lock lock = OS_LOCK_INIT(OS_RANK_CLEANUPS);
static struct queue queues[KINDS];
static struct running *all_running; /* lock */
static struct waiter *waiters;      /* lock */
static bool finalizing;             /* lock: a finalizer runs */
static _Atomic uint64_t n_queued;   /* changed under the lock; the number last given */
static _Atomic uint64_t n_run;
static int descriptor = -1; /* lock */
static bool readable;       /* lock: what the descriptor was last made */
static _Atomic uint32_t program_runs;
static struct own_thread own[OWN_THREADS]; /* the last one runs finalizers */
static _Atomic uint32_t started;           /* bit for each kind: its threads are there */
static _Atomic uint32_t start_again;       /* those that the parent of a fork had */
static _Atomic uint32_t bells[KINDS], stopping;
static pthread_mutex_t joining = PTHREAD_MUTEX_INITIALIZER; /* two grey_shutdown at once */

/* The calling thread's innermost running item, its wait, and itself if it is Grey's. */
static __thread struct running *innermost __attribute__((tls_model("initial-exec")));
static __thread struct waiter *my_wait __attribute__((tls_model("initial-exec")));
static __thread struct own_thread *my_own __attribute__((tls_model("initial-exec")));

static void enter(struct thread *self)
{
    if (self != NULL)
        thread_enter(self);
    os_lock(&lock);
}
static void leave(struct thread *self)
{
    os_unlock(&lock);
    if (self != NULL)
        thread_leave(self);
}

static void ring(enum kind kind, int count)
{
    /* release: pairs with own_main's acquire: it finds in the queue what it is woken for */
    atomic_fetch_add_explicit(&bells[kind], 1, memory_order_release);
    os_wake(&bells[kind], count);
}

static uint64_t n_waiting(enum kind kind)
{
    return atomic_load_explicit(&queues[kind].waiting, memory_order_relaxed);
}

/* ---- the descriptor ------------------------------------------------------------------------------------ */

/* Lock.  The counter of an eventfd only says "not 0": one read makes it 0 however often it was written.
 * again: writes even if it should be readable already, since the program may have read it. */
static void set_readable(bool again)
{
    if (descriptor < 0)
        return;
    bool want = n_waiting(CLEANUP) != 0 || (n_waiting(FINALIZER) != 0 && !finalizing);
    uint64_t value = 1;
    int saved = errno;
    ssize_t n = 0;
    if (want && (again || !readable))
        n = write(descriptor, &value, sizeof(value));
    else if (!want && readable)
        n = read(descriptor, &value, sizeof(value)); /* EAGAIN: the program has */
    (void)n;
    errno = saved;
    readable = want;
}

int grey_cleanup_fd(void)
{
    struct thread *self = heap_thread("grey_cleanup_fd");
    if (self == NULL) {
        errno = ENOMEM;
        return -1;
    }
    int error = 0;
    enter(self);
    if (descriptor < 0) {
        descriptor = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        error = descriptor < 0 ? errno : 0;
        readable = false;
        if (descriptor >= 0)
            atomic_store_explicit(&program_runs, 1, memory_order_relaxed);
        set_readable(false);
    }
    int fd = descriptor;
    leave(self);
    if (fd < 0)
        errno = error;
    return fd;
}

/* ---- queueing ------------------------------------------------------------------------------------------ */

static int at_most_int(uint64_t n) { return n < INT_MAX ? (int)n : INT_MAX; }

/* Once its first is in the queue an item may run and be its owner's again, so `chain` isn't read through. */
static void queue_chain(enum kind kind, const struct queued_chain *chain)
{
    struct queue *queue = &queues[kind];
    if (chain->n == 0)
        return;
    os_lock(&lock);
    uint64_t before = atomic_load_explicit(&n_queued, memory_order_relaxed);
    chain->first->sequence = before + 1;
    atomic_store_explicit(&n_queued, before + chain->n, memory_order_relaxed);
    if (queue->last != NULL)
        queue->last->next = chain->first;
    else
        queue->first = chain->first;
    queue->last = chain->last;
    uint64_t waited = n_waiting(kind), waiting = waited + chain->n;
    /* seq_cst: before the look at the sweep below; pairs with cleanups_flush, see the essay */
    atomic_store_explicit(&queue->waiting, waiting, memory_order_seq_cst);
    set_readable(false);
    os_unlock(&lock);
    /* At the end one for each, as in cleanups_flush: one that never returns must hold up no other. */
    bool last = thread_self() != NULL && sweep_done();
    uint64_t to_wake = last ? chain->n : waiting / WAKE_AT - waited / WAKE_AT;
    if (to_wake != 0)
        ring(kind, at_most_int(to_wake));
}

void cleanups_queue_chain(const struct queued_chain *chain) { queue_chain(CLEANUP, chain); }
void cleanups_queue_finalizers(const struct queued_chain *chain) { queue_chain(FINALIZER, chain); }

/* No lock: the sweeper calls it where a fork does not wait for it. */
void cleanups_flush(void)
{
    for (int kind = 0; kind < KINDS; kind++) {
        /* seq_cst: pairs with queue_chain */
        uint64_t waiting = atomic_load_explicit(&queues[kind].waiting, memory_order_seq_cst);
        if (waiting != 0)
            ring((enum kind)kind, at_most_int(waiting));
    }
}

uint64_t cleanups_queued(void) { return atomic_load_explicit(&n_queued, memory_order_acquire); }
/* acquire: pairs with run_one's release: who reads this one first never reads fewer that were queued */
uint64_t cleanups_run(void) { return atomic_load_explicit(&n_run, memory_order_acquire); }

/* ---- waiting ------------------------------------------------------------------------------------------- */

/* Lock.  The number of the oldest item that has not run; UINT64_MAX: all have. */
static uint64_t oldest_unfinished(void)
{
    uint64_t oldest = UINT64_MAX;
    for (int kind = 0; kind < KINDS; kind++)
        if (queues[kind].first != NULL && queues[kind].first->sequence < oldest)
            oldest = queues[kind].first->sequence;
    for (const struct running *r = all_running; r != NULL; r = r->next)
        if (r->sequence < oldest)
            oldest = r->sequence;
    return oldest;
}

/* Lock, so the waiter is still there. */
static void tell_waiters(void)
{
    if (waiters == NULL)
        return;
    uint64_t oldest = oldest_unfinished();
    for (struct waiter *w = waiters; w != NULL; w = w->next) {
        if (w->target >= oldest || atomic_load_explicit(&w->over, memory_order_relaxed))
            continue;
        /* release: pairs with wait_until_over */
        atomic_store_explicit(&w->over, 1, memory_order_release);
        os_wake(&w->over, 1);
    }
}

struct wait {
    struct waiter waiter;
    uint64_t deadline;
};

static int wait_until_over(void *arg)
{
    struct wait *wait = arg;
    while (!atomic_load_explicit(&wait->waiter.over, memory_order_acquire)) {
        uint64_t now = wait->deadline != UINT64_MAX ? os_now() : 0;
        if (now >= wait->deadline)
            return ETIMEDOUT;
        os_wait(&wait->waiter.over, 0, wait->deadline != UINT64_MAX ? wait->deadline - now : UINT64_MAX);
    }
    return 0;
}

/* False: nothing to wait for. */
static bool begin_wait(struct thread *self, struct waiter *waiter)
{
    enter(self);
    waiter->target = atomic_load_explicit(&n_queued, memory_order_relaxed);
    bool any = oldest_unfinished() <= waiter->target;
    if (any) {
        waiter->next = waiters;
        waiters = waiter;
        my_wait = waiter;
    }
    leave(self);
    return any;
}

static bool end_wait(struct thread *self, struct waiter *waiter)
{
    enter(self);
    struct waiter **link = &waiters;
    while (*link != waiter)
        link = &(*link)->next;
    *link = waiter->next;
    my_wait = NULL;
    bool over = atomic_load_explicit(&waiter->over, memory_order_relaxed) != 0;
    leave(self);
    return over;
}

bool grey_cleanup_wait(int64_t timeout_ns)
{
    if (innermost != NULL) /* it would wait for itself */
        return false;
    struct thread *self = heap_thread("grey_cleanup_wait");
    if (self == NULL)
        return false;
    struct wait wait = {.deadline = UINT64_MAX};
    if (timeout_ns >= 0)
        wait.deadline = os_now() + (uint64_t)timeout_ns;
    if (!begin_wait(self, &wait.waiter))
        return true;
    /* In a fork's child there may be nobody yet; and no sweep may have ended since the last was queued. */
    if (n_waiting(CLEANUP) != 0)
        cleanups_start(false);
    if (n_waiting(FINALIZER) != 0)
        cleanups_start(true);
    cleanups_flush();
    if (timeout_ns != 0)
        mutator_blocking(wait_until_over, &wait);
    return end_wait(self, &wait.waiter);
}

/* ---- running ------------------------------------------------------------------------------------------- */

/* Lock.  Of the kinds in the mask the one that was queued first, if not after `newest`. */
static struct queued *take(unsigned kinds, uint64_t newest, enum kind *kind)
{
    struct queued *cleanup = kinds & 1u << CLEANUP ? queues[CLEANUP].first : NULL;
    struct queued *finalizer = kinds & 1u << FINALIZER && !finalizing ? queues[FINALIZER].first : NULL;
    bool second = cleanup == NULL || (finalizer != NULL && finalizer->sequence < cleanup->sequence);
    struct queued *item = second ? finalizer : cleanup;
    if (item == NULL || item->sequence > newest)
        return NULL;
    *kind = second ? FINALIZER : CLEANUP;
    finalizing |= second;
    struct queue *queue = &queues[*kind];
    queue->first = item->next;
    if (queue->first == NULL)
        queue->last = NULL;
    else if (queue->first->sequence == 0)
        queue->first->sequence = item->sequence + 1;
    atomic_store_explicit(&queue->waiting, n_waiting(*kind) - 1, memory_order_relaxed);
    return item;
}

static struct queued *begin(struct thread *self, struct running *running, unsigned kinds, uint64_t newest)
{
    struct queued *item = NULL;
    enter(self);
    if (my_own == NULL || innermost != NULL || !atomic_load_explicit(&program_runs, memory_order_relaxed))
        item = take(kinds, newest, &running->kind);
    if (item != NULL) {
        running->sequence = item->sequence;
        running->next = all_running;
        all_running = running;
        running->outer = innermost;
        innermost = running;
        set_readable(false);
    }
    leave(self);
    return item;
}

static void end(struct thread *self, struct running *running, struct queued *item)
{
    thread_enter(self);
    item->done(item);
    os_lock(&lock);
    struct running **link = &all_running;
    while (*link != running)
        link = &(*link)->next;
    *link = running->next;
    innermost = running->outer;
    atomic_fetch_add_explicit(&n_run, 1, memory_order_release);
    if (running->kind == FINALIZER)
        finalizing = false;
    tell_waiters();
    set_readable(false);
    /* The finalizers' thread may have found this one running and have gone to sleep. */
    bool next_one = running->kind == FINALIZER && n_waiting(FINALIZER) != 0;
    leave(self);
    if (next_one && my_own != &own[POOL_MOST])
        ring(FINALIZER, 1);
}

static void ended_inside(void *unused)
{
    (void)unused;
    os_fatal(NULL, "a cleanup or finalizer ended its thread: it has to return");
}

static __attribute__((noinline)) void call(struct queued *item)
{
    pthread_cleanup_push(ended_inside, NULL);
    item->run(item);
    pthread_cleanup_pop(0);
}

static bool run_one(struct thread *self, unsigned kinds, uint64_t newest)
{
    struct running running;
    struct queued *item = begin(self, &running, kinds, newest);
    if (item == NULL)
        return false;
    call(item);
    self = heap_thread("the return of a cleanup or finalizer"); /* it may have detached its thread */
    if (self == NULL)
        os_fatal(NULL, "no memory to attach the thread that a cleanup or finalizer detached");
    end(self, &running, item);
    return true;
}

/* From within a cleanup it runs others; from within a finalizer only cleanups, since that one still runs. */
size_t grey_cleanup_run(size_t max)
{
    struct thread *self = heap_thread("grey_cleanup_run");
    if (self == NULL)
        return 0;
    uint64_t newest = cleanups_queued(); /* else it might never end */
    size_t n = 0;
    while (n < max && run_one(thread_self(), 1u << CLEANUP | 1u << FINALIZER, newest))
        n++;
    self = thread_self(); /* a cleanup may have detached it; then it was attached anew */
    enter(self);
    set_readable(true);
    leave(self);
    return n;
}

/* ---- Grey's own threads -------------------------------------------------------------------------------- */

struct sleep {
    enum kind kind;
    uint32_t seen;
};
static int sleep_until_rung(void *arg)
{
    const struct sleep *sleep = arg;
    os_wait(&bells[sleep->kind], sleep->seen, UINT64_MAX);
    return 0;
}

static void *own_main(void *arg)
{
    my_own = arg;
    struct sleep sleep = {.kind = my_own == &own[POOL_MOST] ? FINALIZER : CLEANUP};
    pthread_setname_np(pthread_self(), sleep.kind == FINALIZER ? "grey-final" : "grey-cleanup");
    for (;;) {
        /* acquire: pairs with ring */
        sleep.seen = atomic_load_explicit(&bells[sleep.kind], memory_order_acquire);
        if (atomic_load_explicit(&stopping, memory_order_acquire))
            return NULL;
        if (!run_one(thread_self(), 1u << sleep.kind, UINT64_MAX))
            mutator_blocking(sleep_until_rung, &sleep);
    }
}

static int start_one(struct own_thread *thread)
{
    uint32_t state = ABSENT;
    if (!atomic_compare_exchange_strong_explicit(&thread->state, &state, STARTING, memory_order_acq_rel,
                                                 memory_order_acquire))
        return 0; /* it is there, or another thread is about to see to it */
    sigset_t old;
    os_block_signals(&old); /* not faults: a cleanup's goes to the program's handler, or ours (TR-18) */
    int error = grey_thread_create(&thread->id, NULL, own_main, thread);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    atomic_store_explicit(&thread->state, error == 0 ? UP : ABSENT, memory_order_release);
    return error;
}

static unsigned pool_size(void)
{
    unsigned n = os_tuning.processors / 4;
    return n == 0 ? 1 : n > POOL_MOST ? POOL_MOST : n;
}

/* A smaller pool than planned will do. */
int cleanups_start(bool finalizers)
{
    uint32_t bit = 1u << (finalizers ? FINALIZER : CLEANUP);
    if (LIKELY(atomic_load_explicit(&started, memory_order_relaxed) & bit) ||
        atomic_load_explicit(&program_runs, memory_order_relaxed))
        return 0;
    struct own_thread *first = finalizers ? &own[POOL_MOST] : &own[0];
    int error = start_one(first);
    if (error != 0)
        return error;
    for (unsigned i = 1; !finalizers && i < pool_size(); i++)
        if (start_one(first + i) != 0)
            break;
    /* Not while another thread is still about to: if that fails the next call tries again. */
    if (atomic_load_explicit(&first->state, memory_order_acquire) == UP)
        atomic_fetch_or_explicit(&started, bit, memory_order_relaxed);
    return 0;
}

void cleanups_start_again(void)
{
    uint32_t kinds = atomic_exchange_explicit(&start_again, 0, memory_order_relaxed);
    if (kinds & 1u << CLEANUP)
        cleanups_start(false);
    if (kinds & 1u << FINALIZER)
        cleanups_start(true);
}

/* Twice: the finalizer that was running may have registered a cleanup and so have started the pool.  Those
 * find `stopping` set and run nothing, so they start no more. */
static int join_own(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&joining);
    for (int pass = 0; pass < 2; pass++)
        for (struct own_thread *t = own; t < own + OWN_THREADS; t++) {
            if (atomic_load_explicit(&t->state, memory_order_acquire) != UP)
                continue;
            pthread_join(t->id, NULL);
            atomic_store_explicit(&t->state, ABSENT, memory_order_relaxed);
        }
    pthread_mutex_unlock(&joining);
    return 0;
}

/* In a region: a cleanup may be waiting for a cycle. */
void cleanups_stop(void)
{
    if (innermost != NULL)
        os_fatal(NULL, "grey_shutdown in a cleanup or finalizer: it would wait for itself");
    atomic_store_explicit(&stopping, 1, memory_order_release);
    for (int kind = 0; kind < KINDS; kind++)
        ring((enum kind)kind, INT_MAX);
    mutator_blocking(join_own, NULL);
}

/* ---- start, end, fork ---------------------------------------------------------------------------------- */

static void forget_threads(void)
{
    for (struct own_thread *t = own; t < own + OWN_THREADS; t++)
        if (t != my_own)
            atomic_store_explicit(&t->state, ABSENT, memory_order_relaxed);
    atomic_store_explicit(&started, 0, memory_order_relaxed);
}

static void close_descriptor(void)
{
    if (descriptor >= 0)
        close(descriptor);
    descriptor = -1;
    readable = false;
}

int cleanups_init(void)
{
    os_lock_init(&lock, OS_RANK_CLEANUPS);
    atomic_store(&n_queued, 0);
    atomic_store(&n_run, 0);
    atomic_store(&program_runs, 0);
    atomic_store(&start_again, 0);
    atomic_store(&stopping, 0);
    return 0;
}

/* Nobody queues and nobody runs any more. */
void cleanups_shutdown(void)
{
    for (int kind = 0; kind < KINDS; kind++) {
        queues[kind].first = queues[kind].last = NULL;
        atomic_store(&queues[kind].waiting, 0);
    }
    forget_threads();
    close_descriptor();
}

/* The descriptor is shared with the parent, so the child gets one of its own at the next grey_cleanup_fd.
 * The caller may itself be in a cleanup, or in a signal handler that interrupted its wait. */
void cleanups_fork_child(void)
{
    os_lock_init(&lock, OS_RANK_CLEANUPS);
    pthread_mutex_init(&joining, NULL);
    all_running = innermost;
    finalizing = false;
    for (struct running *r = innermost; r != NULL; r = r->outer) {
        r->next = r->outer;
        finalizing |= r->kind == FINALIZER;
    }
    waiters = my_wait;
    if (my_wait != NULL)
        my_wait->next = NULL;
    atomic_store(&stopping, 0); /* another thread's grey_shutdown, in the parent */
    atomic_fetch_or(&start_again, atomic_load(&started));
    forget_threads();
    if (my_own != NULL) { /* who started it may not have got round to saying so */
        my_own->id = pthread_self();
        atomic_store_explicit(&my_own->state, UP, memory_order_relaxed);
    }
    close_descriptor();
}
