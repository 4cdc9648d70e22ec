/* reply.c -- RESP2: one byte that says what follows, a line, and for bulk strings the bytes. */
#include "reply.h"

/* '$', ':' or '*' and a number.  Every reply but a status has one, so it is made by hand. */
static void number_line(struct output *out, char type, int64_t value)
{
    char line[32];
    size_t at = sizeof line;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;

    line[--at] = '\n';
    line[--at] = '\r';
    do
        line[--at] = (char)('0' + rest % 10);
    while ((rest /= 10) != 0);
    if (value < 0)
        line[--at] = '-';
    line[--at] = type;
    output_append(out, line + at, sizeof line - at);
}

static void text_line(struct output *out, char type, const char *text)
{
    output_append(out, &type, 1);
    output_append(out, text, strlen(text));
    output_append(out, "\r\n", 2);
}

void reply_status(struct output *out, const char *status) { text_line(out, '+', status); }

void reply_error(struct output *out, const char *error) { text_line(out, '-', error); }

void reply_integer(struct output *out, int64_t value) { number_line(out, ':', value); }

void reply_bulk(struct output *out, struct slice value)
{
    number_line(out, '$', (int64_t)value.size);
    output_append(out, value.at, value.size);
    output_append(out, "\r\n", 2);
}

void reply_bytes(struct output *out, const struct bytes *value)
{
    if (value == NULL) {
        reply_nil(out);
        return;
    }
    number_line(out, '$', (int64_t)value->size);
    output_value(out, value);
    output_append(out, "\r\n", 2);
}

void reply_nil(struct output *out) { number_line(out, '$', -1); }

void reply_nil_array(struct output *out) { number_line(out, '*', -1); }

void reply_array(struct output *out, size_t n) { number_line(out, '*', (int64_t)n); }
