/* mutator/blocking.c -- blocking regions: calls during which nobody waits for the thread (2.6).
 *
 * One state word: RUNNING, BLOCKED, HELD.  Every transition but the collector's release is a
 * read-modify-write of it, so "leave" and "request" cannot pass each other: leaving is CAS(BLOCKED ->
 * RUNNING) and waits while HELD; the collector takes CAS(BLOCKED -> HELD), acts for the thread, and
 * stores BLOCKED (release).
 *
 * The region is a call: capture.S puts the registers below the caller's frame and they stay there while
 * fn runs, so what the collector reads is true the whole time.  Of the two halves only the registers of
 * callers are: they are copied to the block, and hold because whoever is inside the region cannot change
 * what its callers keep in them (hence the rule for grey_blocking_begin in grey.h).
 */
#include "barrier/barrier.h"
#include "mutator/internal.h"
#include "os/events.h"

static void become_blocked(struct thread *self, char *sp)
{
    self->blocked_sp = sp;
    self->region++;
    /* release: pairs with the collector's CAS(BLOCKED -> HELD): it sees the stack and every store before */
    atomic_exchange_explicit(&self->state, THREAD_BLOCKED, memory_order_acq_rel);
}

static void become_running(struct thread *self)
{
    uint64_t since = 0;
    for (;;) {
        uint32_t state = THREAD_BLOCKED;
        /* acquire: pairs with the collector's release of BLOCKED */
        if (atomic_compare_exchange_strong_explicit(&self->state, &state, THREAD_RUNNING,
                                                    memory_order_acq_rel, memory_order_acquire))
            break;
        if (since == 0)
            since = os_now();
        os_wait(&self->state, THREAD_HELD, 1000000);
    }
    if (since != 0)
        os_events.pause(OS_PAUSE_wait, os_now() - since, 0);
    if (atomic_load_explicit(&self->request, memory_order_relaxed) != 0)
        thread_poll(self);
}

struct call {
    int (*fn)(void *arg);
    void *arg;
};

static long run_blocked(void *arg, char *sp)
{
    struct call *call = arg;
    struct thread *self = thread_self();
    for (int i = 0; i < 8; i++)
        self->blocked_registers[i] = NULL;
    self->blocking_depth = 1;
    become_blocked(self, sp);
    int result = call->fn(call->arg);
    if (self->blocking_depth != 1)
        os_fatal(NULL,
                 "a function run by grey_blocking_call left regions it had not entered, or entered some "
                 "it did not leave: pair grey_blocking_begin and _end");
    self->blocking_depth = 0;
    become_running(self);
    return result;
}

int mutator_blocking(int (*fn)(void *arg), void *arg)
{
    struct thread *self = thread_self();
    if (self == NULL)
        return fn(arg);
    if (self->blocking_depth != 0) { /* nests */
        self->blocking_depth++;
        int result = fn(arg);
        self->blocking_depth--;
        return result;
    }
    struct call call = {fn, arg};
    return (int)mutator_capture(run_blocked, &call);
}

int grey_blocking_call(int (*fn)(void *arg), void *arg)
{
    if (fn == NULL)
        os_fatal(NULL, "grey_blocking_call without a function");
    if (thread_self() == NULL && heap_thread("grey_blocking_call") == NULL)
        os_fatal(NULL, "no memory to attach the thread: attach threads first");
    return mutator_blocking(fn, arg);
}

/* What grey_blocking_begin does, called by its few instructions in capture.S: a compiled function would
 * have put some of its caller's registers into a frame of its own, which is gone when it returns.  From sp:
 * a word of padding, the 6 registers, the return address, and then the caller's frame. */
long blocking_begin(void *unused, char *sp)
{
    enum { REGISTERS = 6 };
    (void)unused;
    struct thread *self = thread_self();
    if (self == NULL)
        self = heap_thread("grey_blocking_begin");
    if (self == NULL)
        os_fatal(NULL, "no memory to attach the thread: attach threads first");
    /* cppcheck-suppress nullPointerRedundantCheck ; os_fatal does not return */
    if (self->blocking_depth++ != 0)
        return 0;
    void **saved = (void **)(void *)sp + 1;
    for (int i = 0; i < 8; i++)
        self->blocked_registers[i] = i < REGISTERS ? saved[i] : NULL;
    become_blocked(self, (char *)(saved + REGISTERS + 1));
    return 0;
}

void grey_blocking_end(void)
{
    struct thread *self = thread_self();
    if (self == NULL || self->blocking_depth == 0)
        os_fatal(NULL, "grey_blocking_end without grey_blocking_begin");
    /* cppcheck-suppress nullPointerRedundantCheck ; os_fatal does not return */
    if (--self->blocking_depth == 0)
        become_running(self);
}
