/* route_json.c -- POST /sum, and documents: GET, PUT and DELETE /documents/NAME. */
#include "documents.h"
#include "json.h"
#include "routes.h"

#include <math.h>
#include <string.h>

static void set_json(struct request *request)
{
    grey_store(&request->response->type, (const char *)"application/json");
}

/* The body as a tree, or NULL and an answer that says why. */
static struct json *read_body(struct request *request)
{
    const char *error;
    struct json *json = json_parse(request->memory, request->body, request->body_size, &error);

    if (json == NULL && strcmp(error, "out of memory") == 0)
        request->response->failed = true;
    else if (json == NULL)
        response_error(request, HTTP_STATUS_BAD_REQUEST, error);
    return json;
}

/* ---- sum -------------------------------------------------------------------------------------- */

struct sum {
    double numbers, least, most;
    size_t n_numbers, n_values, depth;
};

static void add(struct sum *sum, const struct json *json, size_t depth)
{
    sum->n_values++;
    if (depth > sum->depth)
        sum->depth = depth;
    if (json->kind == JSON_NUMBER) {
        if (sum->n_numbers == 0 || json->number < sum->least)
            sum->least = json->number;
        if (sum->n_numbers == 0 || json->number > sum->most)
            sum->most = json->number;
        sum->numbers += json->number;
        sum->n_numbers++;
    }
    for (const struct json *member = json->first; member != NULL; member = member->next)
        add(sum, member, depth + 1);
}

/* All numbers in the body, wherever they are in it. */
void route_sum(struct request *request, const char *rest)
{
    struct json *json = read_body(request);
    struct sum sum = {.numbers = 0};

    (void)rest;
    if (json == NULL)
        return;
    add(&sum, json, 1);
    if (!isfinite(sum.numbers)) {
        response_error(request, HTTP_STATUS_UNPROCESSABLE_ENTITY, "the sum is too large");
        return;
    }
    set_json(request);
    response_print(request, "{\"sum\":%.17g,\"numbers\":%zu,\"least\":%.17g,\"most\":%.17g,", sum.numbers,
                   sum.n_numbers, sum.least, sum.most);
    response_print(request, "\"values\":%zu,\"depth\":%zu}\n", sum.n_values, sum.depth);
}

/* ---- documents -------------------------------------------------------------------------------- */

void route_document_get(struct request *request, const char *rest)
{
    /* On the stack only: stored into the arena, it would be kept as long as the arena's chunk is. */
    const struct json *json = documents_get(rest);

    if (json == NULL) {
        response_error(request, HTTP_STATUS_NOT_FOUND, "no such document");
        return;
    }
    set_json(request);
    json_write(request, json);
    response_append(request, "\n", 1);
}

void route_document_put(struct request *request, const char *rest)
{
    struct json *json = read_body(request);
    bool created;

    if (json == NULL)
        return;
    int error = documents_put(rest, json, &created);
    if (error == ENOSPC)
        response_error(request, HTTP_STATUS_INSUFFICIENT_STORAGE, "there are too many documents");
    else if (error != 0)
        request->response->failed = true;
    else
        request->response->status = created ? HTTP_STATUS_CREATED : HTTP_STATUS_OK;
}

void route_document_delete(struct request *request, const char *rest)
{
    if (!documents_remove(rest))
        response_error(request, HTTP_STATUS_NOT_FOUND, "no such document");
}
