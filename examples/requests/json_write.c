/* json_write.c -- a tree as text, piece by piece into the response. */
#include "json.h"
#include "response.h"

#include <stdio.h>

void json_write_string(struct request *request, const char *text, size_t size)
{
    static const char escapes[32] = {['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};
    size_t plain = 0; /* text up to here is written */

    response_append(request, "\"", 1);
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= ' ' && c != '"' && c != '\\')
            continue;
        response_append(request, text + plain, i - plain);
        plain = i + 1;
        if (c >= ' ')
            response_print(request, "\\%c", c);
        else if (escapes[c] != 0)
            response_print(request, "\\%c", escapes[c]);
        else
            response_print(request, "\\u%04x", c);
    }
    response_append(request, text + plain, size - plain);
    response_append(request, "\"", 1);
}

static void write_members(struct request *request, const struct json *json)
{
    for (const struct json *member = json->first; member != NULL; member = member->next) {
        if (member != json->first)
            response_append(request, ",", 1);
        if (member->name != NULL) {
            json_write_string(request, member->name, member->name_size);
            response_append(request, ":", 1);
        }
        json_write(request, member);
    }
}

void json_write(struct request *request, const struct json *json)
{
    switch (json->kind) {
    case JSON_NULL:
        response_append(request, "null", 4);
        break;
    case JSON_FALSE:
        response_append(request, "false", 5);
        break;
    case JSON_TRUE:
        response_append(request, "true", 4);
        break;
    case JSON_NUMBER:
        response_append(request, json->text, json->size);
        break;
    case JSON_STRING:
        json_write_string(request, json->text, json->size);
        break;
    case JSON_ARRAY:
    case JSON_OBJECT:
        response_append(request, json->kind == JSON_ARRAY ? "[" : "{", 1);
        write_members(request, json);
        response_append(request, json->kind == JSON_ARRAY ? "]" : "}", 1);
        break;
    }
}
