/* mutator/registry.c -- thread blocks and the list of attached threads: attach, detach (2.5).
 *
 * A block is made when a thread attaches and none is free, and is never freed: FENCE and the counters
 * walk all of them without a lock.  The list is what a round takes its snapshot of.
 *
 * attach: the thread holds no heap pointer yet, by contract, so joining the list costs a cycle nothing;
 * it isn't part of a round in progress.
 *
 * exit, one step under the list lock against 1.4's: give up runs and spans; hand over the grey buffer
 * (which makes the round not clean); count as answered; leave the list; busy even, still under the lock,
 * before the block can belong to somebody else.
 */
#include "barrier/barrier.h"
#include "heap/unmanaged.h"
#include "mutator/internal.h"
#include "os/options.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FIRST_RUNS = LAYOUT_FIRST_TYPED + 32 };

__thread struct grey_tls_ grey_tls_ __attribute__((tls_model("initial-exec")));

static struct os_lock list_lock = OS_LOCK_INIT(OS_RANK_THREADS);
static struct thread *list, *free_blocks;
static _Atomic uint64_t n_attached;
static pthread_key_t exit_key;
static bool have_key;

void mutator_lock_list(void) { os_lock(&list_lock); }
void mutator_unlock_list(void) { os_unlock(&list_lock); }
struct thread *mutator_first(void) { return list; }
uint64_t mutator_threads(void) { return atomic_load_explicit(&n_attached, memory_order_relaxed); }

void mutator_each(void (*fn)(struct thread *thread, void *arg), void *arg)
{
    mutator_lock_list();
    for (struct thread *t = list; t != NULL; t = t->next)
        fn(t, arg);
    mutator_unlock_list();
}

/* ---- blocks ----------------------------------------------------------------------------------------- */

static size_t runs_bytes(uint32_t n)
{
    size_t page = os_page_size();
    return (n * sizeof(struct grey_run_) + page - 1) & ~(page - 1);
}

static struct thread *new_block(void)
{
    struct thread *block = persistent_alloc(sizeof(*block), 64, OS_THREADS);
    if (block == NULL)
        return NULL;
    block->runs_room = (uint32_t)runs_bytes(FIRST_RUNS);
    block->runs = os_alloc(block->runs_room, OS_THREADS);
    if (block->runs == NULL)
        return NULL; /* the block stays unused: a hundred bytes of persistent memory */
    block->n_runs = block->runs_room / sizeof(struct grey_run_);
    struct thread *first = atomic_load_explicit(&thread_blocks, memory_order_relaxed);
    do
        block->next_block = first;
    while (!atomic_compare_exchange_weak_explicit(&thread_blocks, &first, block, memory_order_release,
                                                  memory_order_relaxed)); /* pairs with walks' acquire */
    return block;
}

/* A new one is made under the list lock too: an unattached thread passes no gate, and a fork, which takes
 * that lock, must not find it inside the persistent allocator. */
struct thread *registry_take_block(void)
{
    mutator_lock_list();
    struct thread *block = free_blocks;
    if (block != NULL)
        free_blocks = block->next_free;
    else
        block = new_block();
    mutator_unlock_list();
    return block;
}

void registry_put_block(struct thread *block)
{
    mutator_lock_list();
    block->next_free = free_blocks;
    free_blocks = block;
    mutator_unlock_list();
}

/* The collector reads runs from outside under the list lock, so they move under it.  Figures read them
 * without it, so the old array stays mapped (all of a block's together are at most twice the last), and
 * its length changes after it. */
void mutator_grow_runs(struct thread *self, uint32_t n)
{
    size_t room = runs_bytes(n + n / 2);
    thread_enter(self);
    struct grey_run_ *runs = os_alloc(room, OS_THREADS);
    if (runs == NULL) {
        thread_leave(self);
        return;
    }
    mutator_lock_list();
    for (uint32_t i = 0; i < self->n_runs; i++)
        runs[i] = self->runs[i];
    self->tls->runs = runs;
    __atomic_store_n(&self->runs, runs, __ATOMIC_RELEASE);
    self->runs_room = (uint32_t)room;
    self->tls->n_runs = (uint32_t)(room / sizeof(struct grey_run_));
    /* release: pairs with heap_runs_left's acquire */
    __atomic_store_n(&self->n_runs, self->tls->n_runs, __ATOMIC_RELEASE);
    mutator_unlock_list();
    thread_leave(self);
}

/* ---- attach -------------------------------------------------------------------------------------------- */

static int find_stack(struct thread *block)
{
    pthread_attr_t attributes;
    void *low;
    size_t size;
    int error = pthread_getattr_np(pthread_self(), &attributes);
    if (error != 0)
        return error;
    pthread_attr_getstack(&attributes, &low, &size);
    pthread_attr_destroy(&attributes);
    block->stack_low = low;
    block->stack_high = (char *)low + size;
    return 0;
}

static void unblock_signal(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, handshake_signal_number());
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

int registry_attach(struct thread *block, char *top)
{
    int error = find_stack(block);
    block->stack_top = top != NULL ? top : block->stack_high;
    if (error == 0)
        error = pthread_setspecific(exit_key, (void *)1);
    if (error != 0)
        return ENOMEM;
    atomic_store_explicit(&block->tid, (pid_t)syscall(SYS_gettid), memory_order_relaxed);
    block->self = pthread_self();
    block->stacks = NULL;
    block->assist_debt = 0;
    block->sweep_debt = 0;
    block->blocking_depth = 0;
    block->scanned_cycle = 0;
    block->held_blocked = false;
    block->tls = &grey_tls_;
    atomic_store_explicit(&block->pause_count, 0, memory_order_relaxed);
    atomic_store_explicit(&block->pause_total_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&block->pause_max_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&block->state, THREAD_RUNNING, memory_order_relaxed);
    handshake_enter_list(block);
    HOOK(ATTACH, block);
    grey_tls_.runs = block->runs;
    grey_tls_.n_runs = block->n_runs;
    grey_tls_.thread = block;
    block->previous = NULL;
    block->next = list;
    if (list != NULL)
        list->previous = block;
    list = block;
    atomic_store_explicit(&block->attached, 1, memory_order_release);
    atomic_fetch_add_explicit(&n_attached, 1, memory_order_relaxed);
    mutator_unlock_list();
    os_count(OS_COUNT_threads_attached, 1);
    thread_leave(block);
    unblock_signal();
    return 0;
}

struct thread *mutator_attach(void)
{
    struct thread *self = thread_self();
    if (self != NULL)
        return self;
    struct thread *block = registry_take_block();
    if (block == NULL)
        return NULL;
    if (registry_attach(block, NULL) != 0) {
        registry_put_block(block);
        return NULL;
    }
    return block;
}

/* ---- detach ----------------------------------------------------------------------------------------------- */

/* List lock. */
static void leave_list(struct thread *self)
{
    heap_give_up_runs(self);
    shade_hand_over(self, false);
    if (self->copy != NULL)
        work_block_put(self->copy);
    self->copy = NULL;
    if (self->grey != NULL)
        work_block_put(self->grey);
    self->grey = NULL;
    stacks_forget(self);
    handshake_count_exit(self);
    if (self->previous != NULL)
        self->previous->next = self->next;
    else
        list = self->next;
    if (self->next != NULL)
        self->next->previous = self->previous;
    os_count(OS_COUNT_threads_detached, 1);
    atomic_store_explicit(&self->attached, 0, memory_order_release);
    atomic_fetch_sub_explicit(&n_attached, 1, memory_order_relaxed);
    self->next_free = free_blocks;
    free_blocks = self;
}

/* It ended past its key destructors: it attached in the last ones, or left by the system call.  Its thread
 * storage is gone too. */
void registry_lost(struct thread *block)
{
    leave_list(block);
    atomic_store_explicit(&block->state, THREAD_RUNNING, memory_order_relaxed);
}

static void detach(struct thread *self)
{
    handshake_enter_list(self);
    HOOK(EXIT, self);
    leave_list(self);
    grey_tls_.runs = NULL;
    grey_tls_.n_runs = 0;
    grey_tls_.thread = NULL;
    uint32_t busy = atomic_load_explicit(&self->busy, memory_order_relaxed);
    atomic_store_explicit(&self->busy, busy + 1, memory_order_release);
    mutator_unlock_list();
    work_wake();
}

int grey_thread_attach(void)
{
    if (thread_self() != NULL)
        return EALREADY;
    return heap_thread("grey_thread_attach") != NULL ? 0 : ENOMEM;
}

int grey_thread_detach(void)
{
    struct thread *self = thread_self();
    if (self == NULL)
        return EPERM;
    if (self->blocking_depth != 0)
        os_fatal(NULL, "grey_thread_detach in a blocking region: leave it first");
    if (thread_busy(self))
        os_fatal(NULL, "grey_thread_detach in a signal handler that interrupted grey");
    detach(self);
    return 0;
}

#if OS_TSAN
/* ThreadSanitizer takes its own state of the thread away in the last round. */
enum { LAST_ROUND = PTHREAD_DESTRUCTOR_ITERATIONS - 1 };
#else
enum { LAST_ROUND = PTHREAD_DESTRUCTOR_ITERATIONS };
#endif

/* Runs at thread exit; again until the last round of destructors, since others may use the heap (ER-5). */
static void at_thread_exit(void *value)
{
    uintptr_t round = (uintptr_t)value;
    if (round < LAST_ROUND) {
        pthread_setspecific(exit_key, (void *)(round + 1));
        return;
    }
    struct thread *self = thread_self();
    if (self != NULL && self->blocking_depth != 0) {
        self->blocking_depth = 1;
        grey_blocking_end();
    }
    created_finished();
    if (self != NULL)
        detach(self);
}

/* ---- start, end, fork ---------------------------------------------------------------------------------------- */

int mutator_init(int signal)
{
    if (!have_key) {
        int error = pthread_key_create(&exit_key, at_thread_exit);
        if (error != 0)
            return error;
        have_key = true;
    }
    os_lock_init(&list_lock, OS_RANK_THREADS);
    fence_init();
    return handshake_init(signal);
}

bool mutator_only_caller(void) { return mutator_threads() == (thread_self() != NULL) && created_all_began(); }

/* The caller is the last attached thread, if any is. */
void mutator_shutdown(void)
{
    struct thread *self = thread_self();
    if (self != NULL)
        detach(self);
    created_shutdown();
}

/* Nobody enters a section from here on; returns when no other thread is in one. */
void mutator_fork_prepare(void)
{
    struct thread *self = thread_self();
    atomic_store_explicit(&thread_fork_gate, 1, memory_order_seq_cst);
    mutator_fence();
    for (struct thread *t = atomic_load_explicit(&thread_blocks, memory_order_acquire); t != NULL;
         t = t->next_block)
        for (unsigned n = 0; t != self && (atomic_load_explicit(&t->busy, memory_order_acquire) & 1);)
            os_pause(&n);
}

static void open_fork_gate(void)
{
    atomic_store_explicit(&thread_fork_gate, 0, memory_order_release);
    os_wake(&thread_fork_gate, INT_MAX);
}

void mutator_fork_lock(void)
{
    os_lock(&list_lock);
    os_lock(created_lock());
}
void mutator_fork_parent(void)
{
    os_unlock(created_lock());
    os_unlock(&list_lock);
    open_fork_gate();
}

/* Every other thread is gone: what it held is given up (protocol.md 9). */
void mutator_fork_child(void)
{
    struct thread *self = thread_self();
    os_lock_init(&list_lock, OS_RANK_THREADS);
    handshake_fork_child();
    fence_init(); /* whether registration is inherited is not promised */
    list = self;
    for (struct thread *t = atomic_load(&thread_blocks); t != NULL; t = t->next_block) {
        atomic_store(&t->request, 0);
        t->grey = t->copy = NULL; /* the block store was emptied */
        if (t == self)
            continue;
        if (atomic_load(&t->attached)) {
            heap_give_up_runs(t);
            t->next_free = free_blocks;
            free_blocks = t;
        }
        atomic_store(&t->attached, 0);
        atomic_store(&t->busy, atomic_load(&t->busy) & ~1u);
        atomic_store(&t->state, THREAD_RUNNING);
    }
    if (self != NULL) {
        self->next = self->previous = NULL;
        atomic_store(&self->tid, (pid_t)syscall(SYS_gettid));
        if (atomic_load(&self->state) == THREAD_HELD)
            atomic_store(&self->state, THREAD_BLOCKED);
        self->held_blocked = false;
        self->scanned_cycle = 0; /* an abandoned cycle's number comes again: not parked in that one */
    }
    atomic_store(&n_attached, self != NULL ? 1 : 0);
    created_fork_child();
    open_fork_gate();
}
