/* response.h -- the answer to a request: a status, a type, and pieces of text in the request's memory. */
#ifndef REQUESTS_RESPONSE_H
#define REQUESTS_RESPONSE_H

#include "request.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct piece {
    char *at; /* of capacity bytes, size of them used */
    size_t size, capacity;
    struct piece *next;
};

struct response {
    uint16_t status;
    const char *type;  /* of the content; static text */
    const char *allow; /* for a 405: the methods there are; static text */
    struct piece *head, *last;
    size_t size; /* of all pieces */
    bool failed; /* no memory for a piece */
};

/* Gives the request one: 200, text/plain, empty.  0 or ENOMEM. */
int response_open(struct request *request);

/* Empties it and sets the status; the text is "reason\n". */
void response_error(struct request *request, uint16_t status, const char *reason);

void response_append(struct request *request, const void *bytes, size_t size);
__attribute__((format(printf, 2, 3))) void response_print(struct request *request, const char *format, ...);
/* n bytes to be filled in by the caller; NULL: failed. */
char *response_room(struct request *request, size_t n);

/* Status line, headers and text as one vector in the request's memory; *n pieces of it.  NULL: no memory. */
uv_buf_t *response_vector(struct request *request, bool close, unsigned *n);

/* What is left of a vector when the first skip bytes are sent, as one in the heap, *n pieces of it: what was
 * in the arena is copied.  NULL: no memory. */
uv_buf_t *response_rest(const uv_buf_t *vector, unsigned *n, size_t skip);

/* An answer to what is no request, for a connection that is closed after it. */
int response_refusal(uint16_t status, char *text, size_t size);

#endif
