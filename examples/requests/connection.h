/* connection.h -- one client: input, requests, responses. */
#ifndef REQUESTS_CONNECTION_H
#define REQUESTS_CONNECTION_H

#include <stdint.h>
#include <uv.h>

/* Accepts the client that waits at the listener.  All callbacks run in the listener's loop. */
void connection_accept(uv_stream_t *listener);

/* If the handle is a connection: closes it when its client has been too slow (now: milliseconds of the loop's
 * clock), or, with now = INT64_MAX, in any case. */
void connection_check(uv_handle_t *handle, int64_t now);

struct connection_figures {
    uint64_t open;
    uint64_t refused; /* answered without having been a request: malformed, too large, too slow */
    uint64_t rests;   /* responses of which something had to be cloned */
};
struct connection_figures connection_figures(void);

#endif
