/* route_figures.c -- GET /stats: arenas and collector as JSON; GET /metrics: all of Grey's metrics as
 * OpenMetrics text.
 *
 * grey_metrics_write writes to a descriptor.  A memfd takes the text without blocking.
 */
#define _GNU_SOURCE
#include "connection.h"
#include "documents.h"
#include "routes.h"
#include "settings.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_uint_fast64_t n_requests; /* relaxed: a figure */

void route_count(void) { atomic_fetch_add_explicit(&n_requests, 1, memory_order_relaxed); }

static void print_figure(struct request *request, const char *name, uint64_t value)
{
    response_print(request, ",\n  \"%s\": %" PRIu64, name, value);
}

void route_stats(struct request *request, const char *rest)
{
    struct grey_stats stats = GREY_STATS_INIT;
    struct connection_figures connections = connection_figures();

    (void)rest;
    if (request_parameter(request, "collect") != NULL)
        grey_collect();
    grey_stats_read(&stats);
    grey_store(&request->response->type, (const char *)"application/json");
    response_print(request, "{\n  \"memory\": \"%s\"", settings.arenas ? "arenas" : "heap");
    print_figure(request, "requests", atomic_load_explicit(&n_requests, memory_order_relaxed));
    print_figure(request, "refused", connections.refused);
    print_figure(request, "connections", connections.open);
    print_figure(request, "rests_cloned", connections.rests);
    print_figure(request, "documents", documents_count());
    print_figure(request, "cycles", stats.cycles);
    print_figure(request, "forced_cycles", stats.forced_cycles);
    print_figure(request, "heap_live", stats.heap_live);
    print_figure(request, "heap_objects", stats.heap_objects);
    print_figure(request, "allocated_bytes", stats.allocated_bytes);
    print_figure(request, "allocated_objects", stats.allocated_objects);
    print_figure(request, "mapped", stats.mapped);
    print_figure(request, "pause_p99_ns", stats.pause_p99_ns);
    print_figure(request, "pause_max_ns", stats.pause_max_ns);
    print_figure(request, "assist_ns", stats.assist_ns);
    print_figure(request, "worker_ns", stats.worker_ns);
    print_figure(request, "arenas", stats.arenas);
    print_figure(request, "arena_chunks_active", stats.arena_chunks_active);
    print_figure(request, "arena_chunks_reusable", stats.arena_chunks_reusable);
    print_figure(request, "arena_chunks_pending", stats.arena_chunks_pending);
    print_figure(request, "arena_chunks_quarantined", stats.arena_chunks_quarantined);
    print_figure(request, "arena_chunks_ready", stats.arena_chunks_ready);
    response_append(request, "\n}\n", 3);
}

static bool copy_page(struct request *request, int page)
{
    struct stat status;

    if (grey_metrics_write(page) != 0 || fstat(page, &status) != 0)
        return false;
    char *text = response_room(request, (size_t)status.st_size);
    return text == NULL || pread(page, text, (size_t)status.st_size, 0) == status.st_size;
}

void route_metrics(struct request *request, const char *rest)
{
    int page = memfd_create("metrics", MFD_CLOEXEC);

    (void)rest;
    grey_store(&request->response->type,
               (const char *)"application/openmetrics-text; version=1.0.0; charset=utf-8");
    if (page < 0 || !copy_page(request, page))
        response_error(request, HTTP_STATUS_INTERNAL_SERVER_ERROR, "the metrics could not be written");
    if (page >= 0)
        close(page);
}
