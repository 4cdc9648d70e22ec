/* os/thread.h -- the thread block: what every room needs to know of a thread, and busy sections.
 *
 * A block belongs to one attached thread at a time.  It is never freed, only given to another thread,
 * so that FENCE can walk all blocks without a lock (docs/protocol.md 2.1).  Who writes what:
 *
 *   busy        the owner and its own handler.  Counts up; odd inside a busy section.
 *   request     the collector sets it to a ticket (under the list lock), whoever answers clears it.
 *   state       RUNNING, BLOCKED, HELD; read-modify-writes only, but for the collector's release (2.6).
 *   runs        the owner; the collector reads them under the list lock (blacken).
 *   counters    the owner only, so plain adds; read by anybody.
 *   grey        the owner in a busy section, or whoever answers for it.
 */
#ifndef GREY_OS_THREAD_H
#define GREY_OS_THREAD_H

#include "grey.h"
#include "os/os.h"

#include <sys/types.h>

/* Cumulative counters, one table: name, what it counts. */
/* clang-format off */
#define OS_COUNTERS(X)                                                                                \
    X(allocated_bytes) X(allocated_objects) X(freed_bytes) X(freed_objects) X(large_allocated) \
    X(born_black_bytes)                                                                               \
    X(refills) X(spans_swept) X(sweep_ns) X(assist_ns) X(worker_ns) X(idle_worker_ns) X(handshake_ns) \
    X(handshakes) X(handshakes_polled) X(handshakes_signalled) X(handshakes_blocked)                  \
    X(handshakes_parked) X(signals_sent) X(rounds) X(rounds_held) X(rounds_called_off)                \
    X(cycles) X(cycles_forced) X(cycles_periodic) X(scanned_heap_bytes) X(scanned_stack_bytes)        \
    X(scanned_root_bytes) X(marked_objects) X(marked_bytes) X(shades) X(assists) X(fences)            \
    X(threads_attached) X(threads_detached) X(slow_stores) X(foreign_added) X(foreign_released) \
    X(foreign_died) X(held_ns) X(released_bytes) X(scavenge_ns) X(scavenge_assist_ns) \
    X(prefault_ns) X(prefaulted_bytes)
/* clang-format on */
enum os_counter {
#define X(name) OS_COUNT_##name,
    OS_COUNTERS(X)
#undef X
        OS_COUNTERS_END
};

enum { THREAD_RUNNING, THREAD_BLOCKED, THREAD_HELD };

enum { THREAD_PAGES = 8 };

struct mark_block;
struct thread_stack { /* a registered coroutine or alternate stack */
    char *low, *high;
    struct thread_stack *next;
};

struct thread {
    _Atomic uint32_t busy;
    _Atomic uint32_t request;
    _Atomic uint32_t state;
    _Atomic uint32_t attached; /* in the list; changed under the list lock */
    struct grey_tls_ *tls;
    struct grey_run_ *runs;
    uint32_t n_runs;
    uint32_t runs_room; /* bytes mapped for runs */
    _Atomic pid_t tid;
    pthread_t self;
    struct thread *next_block;      /* all blocks ever made; set before the block is published */
    struct thread *next_free;       /* list lock */
    struct thread *next, *previous; /* the list of attached threads; list lock */

    char *stack_low, *stack_high;
    char *stack_top;             /* nothing from there up is the program's; at most stack_high */
    struct thread_stack *stacks; /* changed by the owner under the list lock */

    struct epoch_reader *reader; /* of the range index; NULL until first needed */
    uint32_t pin_store;          /* an empty one kept for the next pin, 0: none; as runs (pin/pinners.c) */
    uint64_t pin_cycle;          /* in which it was put there */
    struct mark_block *grey;     /* grey buffer */
    struct mark_block *copy;     /* where the next answer's words go */
    int64_t assist_debt;         /* bytes of scan work owed; owner only */
    double sweep_debt;           /* spans owed to the sweep; owner only */
    uint64_t live_pending;       /* bytes of runs taken that heap.live has not been told of; as runs */
    /* Pages for its next spans of one page, the next to take last; as runs (heap/spans.c). */
    uint32_t page[THREAD_PAGES];
    uint32_t n_pages, pages_at_once; /* cached; asked for the last time */
    uint32_t dirty_pages;            /* bit i: page[i] has to be zeroed */
    uint32_t pages_cycle;            /* in which they were asked for */
    uint64_t slow_paths;             /* for gcstress; owner only */

    /* blocking regions; the owner before it is BLOCKED, then the collector while HELD */
    uint32_t blocking_depth;
    char *blocked_sp;
    void *blocked_registers[8];
    uint64_t region;         /* counts regions entered */
    uint64_t scanned_region; /* region at the last scan */
    uint64_t scanned_cycle;

    uint32_t fenced; /* busy, when FENCE began; who fences */

    /* collector, under the list lock */
    uint64_t requested_at; /* ns; for the 10 s warning */
    uint64_t warned_at;
    bool signalled, held_blocked;

    _Atomic uint64_t counters[OS_COUNTERS_END];
    _Atomic uint64_t pause_count, pause_total_ns, pause_max_ns; /* the owner writes */
};

static inline struct thread *thread_self(void) { return (struct thread *)grey_tls_.thread; }

void os_count_shared(enum os_counter counter, uint64_t n); /* for threads that are not attached */
uint64_t os_counter_read(enum os_counter counter);         /* sum over all blocks; never decreases */
extern _Atomic(struct thread *) thread_blocks;             /* all blocks ever made */

static inline void os_count(enum os_counter counter, uint64_t n)
{
    struct thread *self = thread_self();
    if (self != NULL) {
        _Atomic uint64_t *c = &self->counters[counter];
        atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
    } else {
        os_count_shared(counter, n);
    }
}

/* Set while a fork is being prepared: nobody may enter a section then (2.1). */
extern _Atomic uint32_t thread_fork_gate;
void thread_wait_for_fork(struct thread *self);
/* Answers a pending request; in a section of its own.  mutator/ implements it. */
void thread_poll(struct thread *self);

/* Busy sections (2.1): library code in which handshakes are noted and answered at the end.  FENCE waits
 * for the word to move.  No fence of its own: FENCE supplies it. */
static inline void thread_enter(struct thread *self)
{
    for (;;) {
        uint32_t busy = atomic_load_explicit(&self->busy, memory_order_relaxed);
        ASSERT((busy & 1) == 0);
        atomic_store_explicit(&self->busy, busy + 1, memory_order_relaxed);
        atomic_signal_fence(memory_order_seq_cst);
        if (LIKELY(atomic_load_explicit(&thread_fork_gate, memory_order_acquire) == 0))
            return;
        thread_wait_for_fork(self);
    }
}
static inline void thread_leave(struct thread *self)
{
    uint32_t busy = atomic_load_explicit(&self->busy, memory_order_relaxed);
    ASSERT((busy & 1) == 1);
    atomic_signal_fence(memory_order_seq_cst);
    /* release: FENCE's acquire of this word makes the section's effects visible to the collector */
    atomic_store_explicit(&self->busy, busy + 1, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst);
    if (UNLIKELY(atomic_load_explicit(&self->request, memory_order_relaxed) != 0))
        thread_poll(self);
}
static inline bool thread_busy(const struct thread *self)
{
    return atomic_load_explicit(&self->busy, memory_order_relaxed) & 1;
}

#endif
