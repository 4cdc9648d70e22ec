/* request.h -- a request as objects, all of which end with it. */
#ifndef REQUESTS_REQUEST_H
#define REQUESTS_REQUEST_H

#include "memory.h"
#include "message.h"

#include <stdbool.h>

/* Text with a zero byte behind it, or NULL. */
struct header {
    const char *name, *value;
    struct header *next;
};

/* One of "?a=1&b=2", or of a form in the body. */
struct parameter {
    const char *name, *value;
    struct parameter *next;
};

struct response;

struct request {
    struct memory *memory; /* not in itself: see request_new */
    unsigned method;       /* enum http_method */
    bool keep_alive;
    const char *path; /* decoded; begins with a slash */
    struct parameter *parameters;
    struct header *headers;
    const char *body;
    size_t body_size;
    struct response *response;
};

/* A request from a message that is whole, made in this memory, which stays where it is (on the caller's
 * stack) and is closed to free the request and all that was made for it.  NULL, and an errno value in
 * *error: EINVAL the URL can't be understood; ENOMEM. */
struct request *request_new(struct memory *memory, const struct message *message, int *error);

/* NULL: there is none of this name.  Header names are the same in upper and lower case. */
const char *request_header(const struct request *request, const char *name);
const char *request_parameter(const struct request *request, const char *name);

#endif
