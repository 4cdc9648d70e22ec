/* os/turnstile.h -- where a background thread stands still while a fork is made.
 *
 * Between enter and leave the thread does a piece of its work, and may hold locks.  Who closes the turnstile waits
 * until nobody is inside.  The thread is counted before it looks whether it is closed, and who closes it looks at the
 * count afterwards, both seq_cst: so one of them sees the other.  One closes at a time (fork.c's lock).
 */
#ifndef GREY_OS_TURNSTILE_H
#define GREY_OS_TURNSTILE_H

#include "os/os.h"

struct os_turnstile {
    _Atomic uint32_t closed, inside;
};

static inline bool os_turnstile_closed(struct os_turnstile *turnstile)
{
    return atomic_load_explicit(&turnstile->closed, memory_order_seq_cst) != 0;
}

static inline void os_turnstile_leave(struct os_turnstile *turnstile)
{
    /* release: pairs with the loop in close, which then sees the work done */
    atomic_fetch_sub_explicit(&turnstile->inside, 1, memory_order_release);
}

/* False: closed. */
static inline bool os_turnstile_enter(struct os_turnstile *turnstile)
{
    atomic_fetch_add_explicit(&turnstile->inside, 1, memory_order_seq_cst);
    if (!os_turnstile_closed(turnstile))
        return true;
    os_turnstile_leave(turnstile);
    return false;
}

static inline void os_turnstile_close(struct os_turnstile *turnstile)
{
    atomic_store_explicit(&turnstile->closed, 1, memory_order_seq_cst);
    for (unsigned n = 0; atomic_load_explicit(&turnstile->inside, memory_order_seq_cst) != 0;)
        os_pause(&n);
}

static inline void os_turnstile_open(struct os_turnstile *turnstile)
{
    atomic_store_explicit(&turnstile->closed, 0, memory_order_seq_cst);
}

/* In a fork's child: there is no thread.  Not when one is started, for somebody may just be forking. */
static inline void os_turnstile_init(struct os_turnstile *turnstile)
{
    atomic_store(&turnstile->closed, 0);
    atomic_store(&turnstile->inside, 0);
}

#endif
