/* event_loop.h -- a libuv loop in a thread that the collector knows.
 *
 * Copy this pair of files to embed Grey in a program built on libuv (or on any library whose loop can
 * be run without blocking and has a descriptor to wait for).
 */
#ifndef REQUESTS_EVENT_LOOP_H
#define REQUESTS_EVENT_LOOP_H

#include <uv.h>

/* As uv_run(loop, UV_RUN_DEFAULT): runs until no handle is active.  Waiting happens in a blocking
 * region, so a thread that has nothing to do is never interrupted by the collector. */
void event_loop_run(uv_loop_t *loop);

#endif
