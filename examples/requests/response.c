/* response.c -- pieces in the arena, and what becomes of them when the client is slow.
 *
 * A response is built and given to the socket at once, from where it lies in the arena.  Nearly always the
 * socket takes all of it, and the arena is freed.  What it doesn't take has to outlive the request: that, and
 * no more, is cloned into the heap.
 */
#include "response.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { SMALLEST = 1024, LARGEST = 64 * 1024 };

GREY_TYPE(piece_type, struct piece, at, next);
GREY_TYPE(response_type, struct response, type, allow, head, last);
GREY_TYPE(vector_type, uv_buf_t, base);
GREY_TYPE_LEAF(char_type, char);

int response_open(struct request *request)
{
    struct response *response = memory_new(request->memory, &response_type);

    if (response == NULL)
        return ENOMEM;
    response->status = HTTP_STATUS_OK;
    grey_store(&response->type, (const char *)"text/plain; charset=utf-8");
    grey_store(&request->response, response);
    return 0;
}

/* ---- building --------------------------------------------------------------------------------- */

static struct piece *add_piece(struct request *request, size_t least)
{
    struct response *response = request->response;
    size_t capacity = response->last != NULL ? response->last->capacity * 2 : SMALLEST;

    if (capacity > LARGEST)
        capacity = LARGEST;
    if (capacity < least)
        capacity = least;
    struct piece *piece = memory_new(request->memory, &piece_type);
    char *at = memory_bytes(request->memory, capacity);
    if (piece == NULL || at == NULL) {
        response->failed = true;
        return NULL;
    }
    grey_store(&piece->at, at);
    piece->capacity = capacity;
    if (response->last != NULL)
        grey_store(&response->last->next, piece);
    else
        grey_store(&response->head, piece);
    grey_store(&response->last, piece);
    return piece;
}

char *response_room(struct request *request, size_t n)
{
    struct response *response = request->response;
    struct piece *piece = response->last;

    if (response->failed)
        return NULL;
    if (piece == NULL || piece->capacity - piece->size < n)
        piece = add_piece(request, n);
    if (piece == NULL)
        return NULL;
    char *at = piece->at + piece->size;
    piece->size += n;
    response->size += n;
    return at;
}

void response_append(struct request *request, const void *bytes, size_t size)
{
    char *at = size > 0 ? response_room(request, size) : NULL;

    if (at != NULL)
        memcpy(at, bytes, size);
}

void response_print(struct request *request, const char *format, ...)
{
    char text[1024];
    va_list arguments;

    va_start(arguments, format);
    int n = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    response_append(request, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

void response_error(struct request *request, uint16_t status, const char *reason)
{
    struct response *response = request->response;

    response->status = status;
    grey_store(&response->type, (const char *)"text/plain; charset=utf-8");
    grey_store(&response->head, NULL);
    grey_store(&response->last, NULL);
    response->size = 0;
    response_print(request, "%s\n", reason);
}

/* ---- sending ---------------------------------------------------------------------------------- */

static int print_head(const struct response *response, bool close, char *text, size_t size)
{
    return snprintf(text, size, "HTTP/1.1 %u %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s%s%s%s\r\n",
                    response->status, http_status_str(response->status), response->type, response->size,
                    response->allow != NULL ? "Allow: " : "", response->allow != NULL ? response->allow : "",
                    response->allow != NULL ? "\r\n" : "", close ? "Connection: close\r\n" : "");
}

static void set_piece(uv_buf_t *piece, char *at, size_t size)
{
    grey_store(&piece->base, at);
    piece->len = size;
}

uv_buf_t *response_vector(struct request *request, bool close, unsigned *n)
{
    struct response *response = request->response;
    char head[512];
    int head_size = print_head(response, close, head, sizeof head);
    char *copy = memory_copy(request->memory, head, (size_t)head_size);
    size_t most = 1;

    for (const struct piece *piece = response->head; piece != NULL; piece = piece->next)
        most++;
    uv_buf_t *vector = memory_array(request->memory, &vector_type, most);
    if (copy == NULL || vector == NULL)
        return NULL;
    set_piece(&vector[0], copy, (size_t)head_size);
    *n = 1;
    if (request->method != HTTP_HEAD)
        for (const struct piece *piece = response->head; piece != NULL; piece = piece->next)
            set_piece(&vector[(*n)++], piece->at, piece->size);
    return vector;
}

uv_buf_t *response_rest(const uv_buf_t *vector, unsigned *n, size_t skip)
{
    uv_buf_t *rest = grey_new_array(&vector_type, *n);
    unsigned n_left = 0;

    if (rest == NULL)
        return NULL;
    for (unsigned i = 0; i < *n; i++) {
        size_t skipped = skip < vector[i].len ? skip : vector[i].len;
        skip -= skipped;
        if (skipped == vector[i].len)
            continue;
        /* What is in the heap already is held as it is. */
        char *at = grey_arena_clone(vector[i].base + skipped, &char_type, vector[i].len - skipped);
        if (at == NULL)
            return NULL;
        set_piece(&rest[n_left++], at, vector[i].len - skipped);
    }
    *n = n_left;
    return rest;
}

int response_refusal(uint16_t status, char *text, size_t size)
{
    const char *reason = http_status_str(status);

    return snprintf(text, size,
                    "HTTP/1.1 %u %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %zu\r\n"
                    "Connection: close\r\n\r\n%s\n",
                    status, reason, strlen(reason) + 1, reason);
}
