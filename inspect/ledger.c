/* inspect/ledger.c -- the pause ledger: every time that the library held up a program thread.
 *
 * A pause is any time that the library holds up a program thread on behalf of a cycle (behaviour 0.5), or to
 * keep to the memory limit (SC-4).  What an allocation does for itself, sweeping a span for instance, is none.
 * The room that caused it reports it through os_events.pause; all figures about pauses come from here and
 * from nowhere else, so they can't contradict each other.
 *
 * Wall time is what the program feels.  It includes the time that the kernel gave to somebody else while
 * the thread stood in the library, which on a busy machine is most of it.  Processor time, where the room
 * measured it, is what the library itself took.  The two are kept apart, by kind.
 *
 * Recording happens in signal handlers on top of any code, this file included: only atomic
 * read-modify-writes, no order between them but the histogram's own.
 */
#include "inspect/inspect.h"

static struct histogram wall[OS_PAUSE_KINDS], cpu[OS_PAUSE_KINDS];
static _Atomic uint64_t longest, longest_handshake; /* in this cycle */

static void raise_to(_Atomic uint64_t *max, uint64_t value)
{
    /* relaxed: a maximum for reporting; nothing is published by it */
    uint64_t old = atomic_load_explicit(max, memory_order_relaxed);
    while (value > old && !atomic_compare_exchange_weak_explicit(max, &old, value, memory_order_relaxed,
                                                                 memory_order_relaxed))
        ;
}

void ledger_record(enum os_pause_kind kind, uint64_t wall_ns, uint64_t cpu_ns)
{
    ASSERT((unsigned)kind < OS_PAUSE_KINDS);
    histogram_record(&wall[kind], wall_ns);
    if (cpu_ns != 0)
        histogram_record(&cpu[kind], cpu_ns);
    raise_to(&longest, wall_ns);
    if (kind == OS_PAUSE_handshake)
        raise_to(&longest_handshake, wall_ns);

    struct thread *self = thread_self();
    if (self != NULL) {
        /* relaxed, and yet read-modify-writes: the thread's handler may come in between */
        atomic_fetch_add_explicit(&self->pause_count, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&self->pause_total_ns, wall_ns, memory_order_relaxed);
        raise_to(&self->pause_max_ns, wall_ns);
    }
}

void ledger_reset(void)
{
    for (unsigned kind = 0; kind < OS_PAUSE_KINDS; kind++) {
        histogram_reset(&wall[kind]);
        histogram_reset(&cpu[kind]);
    }
    inspect_longest_pause(false, true);
    inspect_longest_pause(true, true);
}

const struct histogram *inspect_pauses(enum os_pause_kind kind) { return &wall[kind]; }

const struct histogram *inspect_pauses_cpu(enum os_pause_kind kind) { return &cpu[kind]; }

void inspect_pauses_summarize(struct histogram_summary *out)
{
    const struct histogram *set[OS_PAUSE_KINDS];
    for (unsigned kind = 0; kind < OS_PAUSE_KINDS; kind++)
        set[kind] = &wall[kind];
    histogram_summarize(set, OS_PAUSE_KINDS, out);
}

uint64_t inspect_longest_pause(bool handshakes_only, bool reset)
{
    _Atomic uint64_t *max = handshakes_only ? &longest_handshake : &longest;
    if (reset)
        return atomic_exchange_explicit(max, 0, memory_order_relaxed);
    return atomic_load_explicit(max, memory_order_relaxed);
}

struct inspect_thread_pauses inspect_thread_pauses(const struct thread *thread)
{
    return (struct inspect_thread_pauses){
        .count = atomic_load_explicit(&thread->pause_count, memory_order_relaxed),
        .total_ns = atomic_load_explicit(&thread->pause_total_ns, memory_order_relaxed),
        .max_ns = atomic_load_explicit(&thread->pause_max_ns, memory_order_relaxed),
    };
}
