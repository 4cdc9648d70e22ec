/* routes.h -- which function answers which request. */
#ifndef REQUESTS_ROUTES_H
#define REQUESTS_ROUTES_H

#include "response.h"

/* Fills the request's response. */
void routes_run(struct request *request);

/* A route's function; rest is the path behind the route's. */
typedef void route_fn(struct request *request, const char *rest);

/* route_json.c */
route_fn route_sum, route_document_get, route_document_put, route_document_delete;
/* route_words.c */
route_fn route_words;
/* route_figures.c */
route_fn route_stats, route_metrics;
/* Requests that were answered, for the figures; any thread. */
void route_count(void);

#endif
