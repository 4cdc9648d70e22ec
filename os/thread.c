/* os/thread.c -- the list of thread blocks, counters, and the gate that stops sections for a fork.
 *
 * A counter is one word in each thread block, which only its owner adds to, so that counting costs no
 * locked instruction on the paths where it happens most; threads without a block add to a shared word.
 * Blocks are never freed and a new owner goes on where the last one stopped.  So each word only grows,
 * and with it the sum that any one reader sees, although the words are read one after the other.
 *
 * The gate: while a fork is prepared nobody may be inside a busy section (protocol.md 2.1, 9).  A thread
 * that meets the gate steps back out of its section, because the fork waits for that, and answers what
 * was asked of it meanwhile, because the cycle may wait for that and the fork for the cycle.
 */
#include "os/thread.h"

_Atomic(struct thread *) thread_blocks;
_Atomic uint32_t thread_fork_gate;

static _Atomic uint64_t shared_counters[OS_COUNTERS_END];

/* initial-exec: no allocation at the first use, which may be in a signal handler */
static __thread bool polling __attribute__((tls_model("initial-exec")));

enum { GATE_LOOK_NS = 1000000 };

void os_count_shared(enum os_counter counter, uint64_t n)
{
    /* relaxed: a figure, which orders nothing */
    atomic_fetch_add_explicit(&shared_counters[counter], n, memory_order_relaxed);
}

uint64_t os_counter_read(enum os_counter counter)
{
    uint64_t sum = atomic_load_explicit(&shared_counters[counter], memory_order_relaxed);
    /* acquire: pairs with the release that publishes a block in mutator/, so next_block is set */
    struct thread *block = atomic_load_explicit(&thread_blocks, memory_order_acquire);
    for (; block != NULL; block = block->next_block)
        sum += atomic_load_explicit(&block->counters[counter], memory_order_relaxed);
    return sum;
}

/* The request is answered here and not left to the handler: its signal may have come while the word was
 * odd, when the handler only notes it.  Answering enters a section, so it may end up here again with the
 * gate still closed; that inner call only waits, else the two would call each other for ever. */
static void answer_outside(struct thread *self)
{
    if (polling)
        return;
    /* relaxed: as in thread_leave; thread_poll looks again, in order */
    if (atomic_load_explicit(&self->request, memory_order_relaxed) == 0)
        return;
    polling = true;
    thread_poll(self);
    polling = false;
}

void thread_wait_for_fork(struct thread *self)
{
    uint32_t busy = atomic_load_explicit(&self->busy, memory_order_relaxed);
    ASSERT((busy & 1) == 1);
    /* release: pairs with FENCE's acquire of this word, as in thread_leave */
    atomic_store_explicit(&self->busy, busy + 1, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst);
    for (;;) {
        answer_outside(self);
        /* acquire: pairs with the release store that opens the gate after the fork */
        uint32_t gate = atomic_load_explicit(&thread_fork_gate, memory_order_acquire);
        if (gate == 0)
            return;
        /* Looks now and then: a request sends a signal only after it was left unanswered a while. */
        os_wait(&thread_fork_gate, gate, GATE_LOOK_NS);
    }
}
