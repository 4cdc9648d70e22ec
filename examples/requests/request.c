/* request.c -- from positions in a buffer to objects in an arena.
 *
 * Stores of pointers go through grey_store, as everywhere: an arena object may point into the heap, the
 * collector looks for such pointers in it, and what is stored into it during a cycle may be behind the place
 * where it looks.
 */
#include "request.h"

#include "response.h"

#include <string.h>
#include <strings.h>

GREY_TYPE(header_type, struct header, name, value, next);
GREY_TYPE(parameter_type, struct parameter, name, value, next);
GREY_TYPE(request_type, struct request, path, parameters, headers, body, response);

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Replaces %41 by A, in a parameter + by a blank too.  NULL and *error: EINVAL malformed, or a zero byte;
 * ENOMEM. */
static const char *decode(struct memory *memory, const char *from, size_t size, bool plus, int *error)
{
    char *text = memory_bytes(memory, size + 1), *to = text;

    if (text == NULL) {
        *error = ENOMEM;
        return NULL;
    }
    for (size_t i = 0; i < size; i++) {
        char c = from[i];
        if (c == '%') {
            int high = size - i > 2 ? hex_digit(from[i + 1]) : -1;
            int low = size - i > 2 ? hex_digit(from[i + 2]) : -1;
            if (high < 0 || low < 0 || high + low == 0) {
                *error = EINVAL;
                return NULL;
            }
            c = (char)(high << 4 | low);
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        *to++ = c;
    }
    return text;
}

/* "a=1&b=2", in front of those that there are already. */
static int read_parameters(struct request *request, const char *from, size_t size)
{
    const char *end = from + size;
    int error = 0;

    while (from < end) {
        const char *stop = memchr(from, '&', (size_t)(end - from));
        if (stop == NULL)
            stop = end;
        const char *equals = memchr(from, '=', (size_t)(stop - from));
        const char *name_end = equals != NULL ? equals : stop;
        const char *value = equals != NULL ? equals + 1 : stop;
        struct parameter *parameter = memory_new(request->memory, &parameter_type);
        if (parameter == NULL)
            return ENOMEM;
        grey_store(&parameter->name, decode(request->memory, from, (size_t)(name_end - from), true, &error));
        grey_store(&parameter->value, decode(request->memory, value, (size_t)(stop - value), true, &error));
        if (error != 0)
            return error;
        grey_store(&parameter->next, request->parameters);
        grey_store(&request->parameters, parameter);
        from = stop + (stop < end);
    }
    return 0;
}

static int read_url(struct request *request, const char *url, size_t size)
{
    struct http_parser_url parts;
    int error = 0;

    http_parser_url_init(&parts);
    if (http_parser_parse_url(url, size, request->method == HTTP_CONNECT, &parts) != 0)
        return EINVAL;
    if ((parts.field_set & 1 << UF_PATH) != 0)
        grey_store(&request->path, decode(request->memory, url + parts.field_data[UF_PATH].off,
                                          parts.field_data[UF_PATH].len, false, &error));
    else
        grey_store(&request->path, (const char *)"/");
    if (error == 0 && (parts.field_set & 1 << UF_QUERY) != 0)
        error =
            read_parameters(request, url + parts.field_data[UF_QUERY].off, parts.field_data[UF_QUERY].len);
    return error;
}

static int read_headers(struct request *request, const struct message *message)
{
    for (unsigned i = 0; i < message->n_headers; i++) {
        struct span name = message->headers[i].name, value = message->headers[i].value;
        struct header *header = memory_new(request->memory, &header_type);
        char *text = memory_copy(request->memory, message->input + value.at, value.size);
        if (header == NULL || text == NULL)
            return ENOMEM;
        for (uint32_t j = 0; j < value.size; j++)
            if (text[j] == '\r' || text[j] == '\n')
                text[j] = ' ';
        const char *copy = memory_copy(request->memory, message->input + name.at, name.size);
        if (copy == NULL)
            return ENOMEM;
        grey_store(&header->name, copy);
        grey_store(&header->value, (const char *)text);
        grey_store(&header->next, request->headers);
        grey_store(&request->headers, header);
    }
    return 0;
}

static int read_body(struct request *request, const struct message *message)
{
    const char *body = memory_copy(request->memory, message->input + message->body.at, message->body.size);

    if (body == NULL)
        return ENOMEM;
    grey_store(&request->body, body);
    request->body_size = message->body.size;
    const char *type = request_header(request, "content-type");
    if (type == NULL || strncasecmp(type, "application/x-www-form-urlencoded", 33) != 0)
        return 0;
    return read_parameters(request, body, request->body_size);
}

/* The request does not point to its arena's handle, but to the struct on the stack that does.  What an arena
 * holds is kept alive by it, so one that holds its own handle can't be found lost. */
struct request *request_new(struct memory *memory, const struct message *message, int *error)
{
    struct request *request = memory_new(memory, &request_type);

    if (request == NULL) {
        *error = ENOMEM;
        return NULL;
    }
    request->memory = memory;
    request->method = message->parser.method;
    request->keep_alive = message->keep_alive;
    *error = read_url(request, message->input + message->url.at, message->url.size);
    if (*error == 0)
        *error = read_headers(request, message);
    if (*error == 0)
        *error = read_body(request, message);
    if (*error == 0)
        *error = response_open(request);
    return *error == 0 ? request : NULL;
}

const char *request_header(const struct request *request, const char *name)
{
    for (const struct header *header = request->headers; header != NULL; header = header->next)
        if (strcasecmp(header->name, name) == 0)
            return header->value;
    return NULL;
}

const char *request_parameter(const struct request *request, const char *name)
{
    for (const struct parameter *p = request->parameters; p != NULL; p = p->next)
        if (strcmp(p->name, name) == 0)
            return p->value;
    return NULL;
}
