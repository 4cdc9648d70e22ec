/* message.h -- cuts a connection's input into requests, and says which parts are what.
 *
 * While a request arrives there are only its bytes, in malloc memory, and numbers: where in them the URL, the
 * headers and the body are.  Its objects are made when it is whole.  So a client that sends a byte a second
 * costs as much as it has sent, and not an arena; and a worker that serves thousands of clients needs one
 * arena at a time.
 *
 * The parser is http_parser.  It is given each byte once, however slowly they come.
 */
#ifndef REQUESTS_MESSAGE_H
#define REQUESTS_MESSAGE_H

#include <http_parser.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MOST_HEADERS = 100, LONGEST_URL = 8 * 1024 };

/* Bytes of the message, from its first on. */
struct span {
    uint32_t at, size;
};

struct message {
    char *input;
    size_t size, capacity;
    size_t parsed; /* of the input: the request's own bytes when it is whole */
    http_parser parser;
    struct span url, body; /* the body is made contiguous in place */
    struct {
        struct span name, value;
    } headers[MOST_HEADERS];
    unsigned n_headers;
    bool in_value, head_done, done;
    bool expects; /* the client waits for "100 Continue" */
    bool keep_alive;
    uint16_t error; /* the status to answer with; 0: none so far */
};

enum message_result {
    MESSAGE_WHOLE,
    MESSAGE_MORE, /* the input ends inside a request, or before one */
    MESSAGE_ERROR /* error says which; the connection cannot go on */
};

/* Of a zeroed message. */
void message_open(struct message *message);
void message_close(struct message *message);

/* Room for n more bytes at input + size; false: no memory. */
bool message_reserve(struct message *message, size_t n);

/* Goes on with what has come since the last call. */
enum message_result message_parse(struct message *message);

/* Removes the request that was whole; what follows it is the beginning of the next. */
void message_next(struct message *message);

/* Some of a request has come. */
static inline bool message_begun(const struct message *message) { return message->size > 0; }

#endif
