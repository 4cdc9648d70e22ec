/* routes.c -- the table of routes. */
#include "routes.h"

#include <string.h>

/* A path that ends with a slash is the beginning of many, the others are whole. */
static const struct route {
    const char *path;
    enum http_method method;
    route_fn *run;
} routes[] = {
    {"/sum", HTTP_POST, route_sum},
    {"/words", HTTP_GET, route_words},
    {"/words", HTTP_POST, route_words},
    {"/documents/", HTTP_GET, route_document_get},
    {"/documents/", HTTP_PUT, route_document_put},
    {"/documents/", HTTP_DELETE, route_document_delete},
    {"/stats", HTTP_GET, route_stats},
    {"/metrics", HTTP_GET, route_metrics},
};
enum { N_ROUTES = sizeof routes / sizeof routes[0] };

/* What is behind the route's path, or NULL: the route is another's. */
static const char *match(const struct route *route, const char *path)
{
    size_t size = strlen(route->path);

    if (strncmp(path, route->path, size) != 0)
        return NULL;
    bool is_beginning = route->path[size - 1] == '/';
    return is_beginning == (path[size] != '\0') ? path + size : NULL;
}

static void not_allowed(struct request *request)
{
    char allow[128] = "";
    size_t n = 0;

    for (size_t i = 0; i < N_ROUTES; i++) {
        if (match(&routes[i], request->path) == NULL)
            continue;
        const char *method = http_method_str(routes[i].method);
        if (n > 0)
            n += (size_t)(stpcpy(allow + n, ", ") - (allow + n));
        n += (size_t)(stpcpy(allow + n, method) - (allow + n));
        if (routes[i].method == HTTP_GET)
            n += (size_t)(stpcpy(allow + n, ", HEAD") - (allow + n));
    }
    response_error(request, HTTP_STATUS_METHOD_NOT_ALLOWED, "this method is not for this path");
    const char *copy = memory_copy(request->memory, allow, n);
    grey_store(&request->response->allow, copy);
}

void routes_run(struct request *request)
{
    unsigned method = request->method == HTTP_HEAD ? HTTP_GET : request->method;
    bool found = false;

    route_count();
    for (size_t i = 0; i < N_ROUTES; i++) {
        const char *rest = match(&routes[i], request->path);
        if (rest == NULL)
            continue;
        found = true;
        if (routes[i].method == method) {
            routes[i].run(request, rest);
            return;
        }
    }
    if (found)
        not_allowed(request);
    else
        response_error(request, HTTP_STATUS_NOT_FOUND, "nothing is here");
}
