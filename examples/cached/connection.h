/* connection.h -- one client: input, commands, output. */
#ifndef CACHED_CONNECTION_H
#define CACHED_CONNECTION_H

#include <stdint.h>
#include <uv.h>

/* Accepts the client that waits at the listener.  All callbacks run in the listener's loop. */
void connection_accept(uv_stream_t *listener);

/* If the handle is a connection: closes it when its client has taken nothing of its output for long
 * (now: milliseconds of the loop's clock), or, with now = INT64_MAX, in any case. */
void connection_check(uv_handle_t *handle, int64_t now);

struct connection_figures {
    uint64_t open, accepted, commands;
};
struct connection_figures connection_figures(void);

#endif
