/* parser.h -- cuts a connection's input into commands (RESP2 and inline).
 *
 * The parser remembers where it stopped, so a command that arrives in a thousand pieces is read once,
 * not a thousand times.  Nothing is allocated because a client announced it, only because its bytes
 * arrived: a client that promises 512 MB and sends none costs nothing.
 */
#ifndef CACHED_PARSER_H
#define CACHED_PARSER_H

#include "buffer.h"
#include "bytes.h"

enum {
    PARSER_MAX_LINE = 64 * 1024, /* an inline command, or a line with a length */
    PARSER_MAX_ARGS = 1024 * 1024,
    PARSER_MAX_BULK = 512 * 1024 * 1024, /* one argument */
    PARSER_MAX_COMMAND = 1024 * 1024 * 1024,
};

enum parser_result {
    PARSER_COMMAND, /* args holds one, perhaps of no arguments, which is to be passed over */
    PARSER_MORE,    /* the input ends inside a command */
    PARSER_ERROR,   /* error says why; the connection cannot go on */
};

/* Zero is the start. */
struct parser {
    size_t begin;         /* of the command being read, in the buffer */
    size_t at;            /* how far it was read, counted from begin */
    int64_t args_missing; /* of a multibulk */
    int64_t bulk_size;    /* of the argument being read */
    bool in_multibulk, in_bulk;
    struct slice *args; /* malloc; at is an offset from begin until the command is whole */
    size_t n_args, capacity;
    char error[64];
};

/* The next command of the input.  args stay valid until the input changes or the next call. */
enum parser_result parser_next(struct parser *parser, const struct buffer *input);

/* All before this offset of the input was returned as commands.  The caller removes it there and
 * calls parser_consumed. */
static inline size_t parser_done(const struct parser *parser) { return parser->begin; }
static inline void parser_consumed(struct parser *parser) { parser->begin = 0; }

void parser_free(struct parser *parser);

#endif
