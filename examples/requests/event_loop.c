/* event_loop.c -- how an event loop waits politely.
 *
 * A thread that blocks in epoll_wait would do as well: when a cycle needs its stack it gets a signal,
 * answers, epoll_wait fails with EINTR and libuv waits again.  But that is a wake-up for each idle
 * thread in each cycle.  In grey_blocking_call nobody is sent a signal and nobody waits for an answer:
 * the thread has promised to touch no heap pointer until the call is over.
 *
 * The callbacks do touch heap pointers, so the region may hold the waiting only, not the run.  libuv
 * lets us take them apart: uv_run(UV_RUN_NOWAIT) does what there is to do, and the wait is a poll of
 * the loop's own descriptor.  (uv_prepare and uv_check callbacks would not do: libuv runs the I/O
 * callbacks between the two, inside the region.)
 */
#include "event_loop.h"

#include <grey.h>
#include <poll.h>

static int wait_for_events(void *arg)
{
    uv_loop_t *loop = arg;
    struct pollfd descriptor = {.fd = uv_backend_fd(loop), .events = POLLIN};

    /* The time-out is 0 when callbacks are pending or descriptors are yet to be given to the kernel,
     * and -1 when only a descriptor can wake us. */
    return poll(&descriptor, 1, uv_backend_timeout(loop));
}

void event_loop_run(uv_loop_t *loop)
{
    while (uv_run(loop, UV_RUN_NOWAIT) != 0)
        grey_blocking_call(wait_for_events, loop);
}
