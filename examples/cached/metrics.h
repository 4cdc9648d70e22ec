/* metrics.h -- the collector's metrics as an OpenMetrics page over HTTP, for Prometheus to fetch. */
#ifndef CACHED_METRICS_H
#define CACHED_METRICS_H

#include <uv.h>

/* Serves GET /metrics on a listener that is bound already; 0 or a negative libuv error. */
int metrics_listen(uv_tcp_t *listener);

/* If the handle is a client of the page, closes it. */
void metrics_close(uv_handle_t *handle);

#endif
