/* message.c -- http_parser's callbacks note positions; see message.h.
 *
 * Positions count from the start of the input, which may move when it grows.  The pieces that the parser
 * hands out of one thing are side by side, except of a chunked body, whose pieces are moved together, and of
 * a header value that was folded over several lines, which becomes one with blanks for the line ends
 * (request.c).
 */
#include "message.h"

#include "settings.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { SMALLEST = 4096, KEEP = 64 * 1024 };

static struct message *message_of(http_parser *parser) { return parser->data; }

/* The parser stops at a callback that doesn't return 0. */
static int fail(struct message *message, uint16_t status)
{
    message->error = status;
    return -1;
}

static void extend(struct message *message, struct span *span, const char *at, size_t size)
{
    uint32_t from = (uint32_t)(at - message->input);

    if (span->size == 0)
        span->at = from;
    span->size = from + (uint32_t)size - span->at;
}

static int on_url(http_parser *parser, const char *at, size_t size)
{
    struct message *message = message_of(parser);

    extend(message, &message->url, at, size);
    return message->url.size <= LONGEST_URL ? 0 : fail(message, HTTP_STATUS_URI_TOO_LONG);
}

static int on_header_field(http_parser *parser, const char *at, size_t size)
{
    struct message *message = message_of(parser);

    if (message->head_done) /* the trailer of a chunked body */
        return 0;
    if (message->n_headers == 0 || message->in_value) {
        if (message->n_headers == MOST_HEADERS)
            return fail(message, HTTP_STATUS_REQUEST_HEADER_FIELDS_TOO_LARGE);
        message->n_headers++;
        message->in_value = false;
    }
    extend(message, &message->headers[message->n_headers - 1].name, at, size);
    return 0;
}

static int on_header_value(http_parser *parser, const char *at, size_t size)
{
    struct message *message = message_of(parser);

    if (message->head_done)
        return 0;
    message->in_value = true;
    extend(message, &message->headers[message->n_headers - 1].value, at, size);
    return 0;
}

static bool is(const struct message *message, struct span span, const char *text)
{
    return span.size == strlen(text) && strncasecmp(message->input + span.at, text, span.size) == 0;
}

/* What the server must know before the body. */
static int on_headers_complete(http_parser *parser)
{
    struct message *message = message_of(parser);
    unsigned n_hosts = 0;

    message->head_done = true;
    for (unsigned i = 0; i < message->n_headers; i++) {
        n_hosts += is(message, message->headers[i].name, "host");
        if (is(message, message->headers[i].name, "expect") &&
            is(message, message->headers[i].value, "100-continue"))
            message->expects = true;
    }
    if (parser->http_major != 1)
        return fail(message, HTTP_STATUS_HTTP_VERSION_NOT_SUPPORTED);
    if (n_hosts > 1 || (n_hosts == 0 && parser->http_minor > 0))
        return fail(message, HTTP_STATUS_BAD_REQUEST);
    if (parser->content_length != UINT64_MAX && parser->content_length > settings.max_body)
        return fail(message, HTTP_STATUS_PAYLOAD_TOO_LARGE);
    return 0;
}

static int on_body(http_parser *parser, const char *at, size_t size)
{
    struct message *message = message_of(parser);

    if (message->body.size == 0)
        message->body.at = (uint32_t)(at - message->input);
    if (message->body.size + size > settings.max_body)
        return fail(message, HTTP_STATUS_PAYLOAD_TOO_LARGE);
    /* The bytes that are overwritten were parsed before. */
    memmove(message->input + message->body.at + message->body.size, at, size);
    message->body.size += (uint32_t)size;
    return 0;
}

/* Refused when it is announced, not when it has come. */
static int on_chunk_header(http_parser *parser)
{
    struct message *message = message_of(parser);

    return parser->content_length <= settings.max_body - message->body.size
               ? 0
               : fail(message, HTTP_STATUS_PAYLOAD_TOO_LARGE);
}

static int on_message_complete(http_parser *parser)
{
    struct message *message = message_of(parser);

    message->done = true;
    message->keep_alive = http_should_keep_alive(parser) != 0 && parser->upgrade == 0;
    http_parser_pause(parser, 1); /* the next request waits until this one is answered */
    return 0;
}

static const http_parser_settings callbacks = {.on_url = on_url,
                                               .on_header_field = on_header_field,
                                               .on_header_value = on_header_value,
                                               .on_headers_complete = on_headers_complete,
                                               .on_body = on_body,
                                               .on_chunk_header = on_chunk_header,
                                               .on_message_complete = on_message_complete};

/* All but the input. */
static void begin(struct message *message)
{
    http_parser_init(&message->parser, HTTP_REQUEST);
    message->parser.data = message;
    memset(message->headers, 0, message->n_headers * sizeof message->headers[0]);
    message->n_headers = 0;
    message->url = message->body = (struct span){0, 0};
    message->parsed = 0;
    message->in_value = message->head_done = message->done = message->expects = message->keep_alive = false;
}

void message_open(struct message *message) { begin(message); }

void message_close(struct message *message)
{
    free(message->input);
    message->input = NULL;
    message->size = message->capacity = 0;
}

bool message_reserve(struct message *message, size_t n)
{
    size_t capacity = message->capacity != 0 ? message->capacity : SMALLEST;

    while (capacity - message->size < n)
        capacity *= 2;
    if (capacity == message->capacity)
        return true;
    char *input = realloc(message->input, capacity);
    if (input == NULL)
        return false;
    message->input = input;
    message->capacity = capacity;
    return true;
}

static uint16_t status_of(enum http_errno error)
{
    return error == HPE_HEADER_OVERFLOW ? HTTP_STATUS_REQUEST_HEADER_FIELDS_TOO_LARGE
                                        : HTTP_STATUS_BAD_REQUEST;
}

enum message_result message_parse(struct message *message)
{
    if (message->size > message->parsed) {
        message->parsed += http_parser_execute(&message->parser, &callbacks, message->input + message->parsed,
                                               message->size - message->parsed);
        enum http_errno error = HTTP_PARSER_ERRNO(&message->parser);
        if (error != HPE_OK && error != HPE_PAUSED && message->error == 0)
            message->error = status_of(error);
    }
    if (message->error != 0)
        return MESSAGE_ERROR;
    if (message->done)
        return MESSAGE_WHOLE;
    /* All was parsed.  What is behind the body so far, the sizes of chunks, is of no more use. */
    if (message->body.size > 0)
        message->parsed = message->size = message->body.at + message->body.size;
    return MESSAGE_MORE;
}

void message_next(struct message *message)
{
    message->size -= message->parsed;
    if (message->size > 0)
        memmove(message->input, message->input + message->parsed, message->size);
    else if (message->capacity > KEEP)
        message_close(message);
    begin(message);
}
