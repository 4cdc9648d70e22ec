/* json.h -- JSON as a tree of objects, in a request's memory or in the heap. */
#ifndef REQUESTS_JSON_H
#define REQUESTS_JSON_H

#include "request.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum json_kind {
    JSON_NULL,
    JSON_FALSE,
    JSON_TRUE,
    JSON_NUMBER,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT,
};
enum { JSON_DEEPEST = 64 };

/* Never changes once it is made.  Strings may hold zero bytes. */
struct json {
    enum json_kind kind;
    uint32_t name_size;
    const char *name; /* of a member of an object, else NULL */
    double number;
    const char *text; /* a string's; a number's, as it was written */
    size_t size;
    struct json *first, *next; /* an array's or object's first value; the next one of the same */
};

/* The tree in the text, which ends with a zero byte that is not counted.  NULL, and *error says why: a static
 * text, "out of memory" among them. */
struct json *json_parse(struct memory *memory, const char *text, size_t size, const char **error);

/* A copy in the heap that shares nothing with an arena; the same tree if nothing of it is in one.  NULL: no
 * memory. */
struct json *json_clone(const struct json *json);

/* Appends the tree as text to the response. */
void json_write(struct request *request, const struct json *json);
void json_write_string(struct request *request, const char *text, size_t size);

#endif
