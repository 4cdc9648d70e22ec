/* parser.c -- the RESP2 state machine.
 *
 * Arguments are kept as offsets while the command is incomplete, since the input buffer moves when it
 * grows, and turned into slices when it is whole.
 */
#include "parser.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEEP_ARGS = 1024 };

static enum parser_result fail(struct parser *parser, const char *error)
{
    snprintf(parser->error, sizeof parser->error, "ERR Protocol error: %s", error);
    return PARSER_ERROR;
}

static enum parser_result add(struct parser *parser, size_t offset, size_t size)
{
    if (parser->n_args == parser->capacity) {
        size_t capacity = parser->capacity != 0 ? parser->capacity * 2 : 8;
        struct slice *args = realloc(parser->args, capacity * sizeof *args);
        if (args == NULL)
            return fail(parser, "out of memory");
        parser->args = args;
        parser->capacity = capacity;
    }
    parser->args[parser->n_args++] = (struct slice){(const char *)offset, size};
    return PARSER_COMMAND;
}

/* The command is whole. */
static enum parser_result finish(struct parser *parser, const char *start)
{
    for (size_t i = 0; i < parser->n_args; i++)
        parser->args[i].at = start + (size_t)parser->args[i].at;
    parser->begin += parser->at;
    parser->at = 0;
    parser->in_multibulk = false;
    return PARSER_COMMAND;
}

/* A line from at on, its end excluded.  Moves on behind it. */
static enum parser_result take_line(struct parser *parser, const char *start, size_t size, struct slice *line,
                                    const char *too_long)
{
    size_t rest = size - parser->at;
    size_t seen = rest < PARSER_MAX_LINE ? rest : PARSER_MAX_LINE;
    const char *from = start + parser->at;
    const char *end = seen != 0 ? memchr(from, '\n', seen) : NULL;

    if (end == NULL)
        return rest >= PARSER_MAX_LINE ? fail(parser, too_long) : PARSER_MORE;
    *line = (struct slice){from, (size_t)(end - from)};
    if (line->size > 0 && line->at[line->size - 1] == '\r')
        line->size--;
    parser->at = (size_t)(end + 1 - start);
    return PARSER_COMMAND;
}

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

/* "PING", "SET key value": words between blanks, for people with netcat.  A word may be quoted to
 * hold blanks. */
static enum parser_result read_inline(struct parser *parser, const char *start, size_t size)
{
    struct slice line;
    enum parser_result result = take_line(parser, start, size, &line, "too big inline request");

    if (result != PARSER_COMMAND)
        return result;
    for (size_t i = 0; i < line.size;) {
        if (is_blank(line.at[i])) {
            i++;
            continue;
        }
        char quote = line.at[i] == '"' || line.at[i] == '\'' ? line.at[i] : 0;
        size_t from = i += quote != 0;
        while (i < line.size && (quote != 0 ? line.at[i] != quote : !is_blank(line.at[i])))
            i++;
        if (quote != 0 && (i == line.size || (i + 1 < line.size && !is_blank(line.at[i + 1]))))
            return fail(parser, "unbalanced quotes in request");
        result = add(parser, (size_t)(line.at + from - start), i - from);
        if (result != PARSER_COMMAND)
            return result;
        i += quote != 0;
    }
    return finish(parser, start);
}

static enum parser_result read_bulk_header(struct parser *parser, const char *start, size_t size)
{
    struct slice line;

    if (parser->at == size)
        return PARSER_MORE;
    if (start[parser->at] != '$') {
        unsigned char c = (unsigned char)start[parser->at];
        char text[32];
        snprintf(text, sizeof text, "expected '$', got '%c'", c >= ' ' && c < 127 ? c : '?');
        return fail(parser, text);
    }
    enum parser_result result = take_line(parser, start, size, &line, "too big bulk count string");
    if (result != PARSER_COMMAND)
        return result;
    if (!slice_integer((struct slice){line.at + 1, line.size - 1}, &parser->bulk_size) ||
        parser->bulk_size < 0 || parser->bulk_size > PARSER_MAX_BULK ||
        parser->at + (size_t)parser->bulk_size > PARSER_MAX_COMMAND)
        return fail(parser, "invalid bulk length");
    parser->in_bulk = true;
    return PARSER_COMMAND;
}

static enum parser_result read_bulk(struct parser *parser, const char *start, size_t size)
{
    size_t bulk = (size_t)parser->bulk_size;

    if (size - parser->at < bulk + 2)
        return PARSER_MORE;
    if (start[parser->at + bulk] != '\r' || start[parser->at + bulk + 1] != '\n')
        return fail(parser, "expected end of line after bulk");
    enum parser_result result = add(parser, parser->at, bulk);
    parser->at += bulk + 2;
    parser->in_bulk = false;
    parser->args_missing--;
    return result;
}

enum parser_result parser_next(struct parser *parser, const struct buffer *input)
{
    const char *start = input->at + parser->begin;
    size_t size = input->size - parser->begin;
    enum parser_result result = PARSER_COMMAND;

    if (!parser->in_multibulk) {
        parser->n_args = 0;
        if (size == 0)
            return PARSER_MORE;
        if (start[0] != '*')
            return read_inline(parser, start, size);
        struct slice line;
        result = take_line(parser, start, size, &line, "too big mbulk count string");
        if (result != PARSER_COMMAND)
            return result;
        if (!slice_integer((struct slice){line.at + 1, line.size - 1}, &parser->args_missing) ||
            parser->args_missing < 0 || parser->args_missing > PARSER_MAX_ARGS)
            return fail(parser, "invalid multibulk length");
        parser->in_multibulk = true;
    }
    while (result == PARSER_COMMAND && parser->args_missing > 0)
        result = parser->in_bulk ? read_bulk(parser, start, size) : read_bulk_header(parser, start, size);
    return result == PARSER_COMMAND ? finish(parser, start) : result;
}

void parser_free(struct parser *parser)
{
    free(parser->args);
    *parser = (struct parser){.begin = 0};
}
