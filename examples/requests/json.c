/* json.c -- reading and cloning trees.
 *
 * The reader makes an object for each value as it comes upon it and frees none, not even when it finds an
 * error in the middle: the request's memory is freed as a whole.  That is what makes arenas pleasant,
 * besides fast.
 *
 * A tree that shall outlive its request is cloned into the heap, node by node.  grey_arena_clone makes a
 * shallow copy, so whatever the copy points to is cloned too and stored into it, with grey_store.
 */
#include "json.h"

#include <stdlib.h>
#include <string.h>

GREY_TYPE(json_type, struct json, name, text, first, next);
GREY_TYPE_LEAF(char_type, char);

struct reader {
    struct memory *memory;
    const char *at, *end; /* *end is 0 */
    const char *error;
    unsigned depth;
};

static bool read_value(struct reader *reader, struct json *json);

static bool fail(struct reader *reader, const char *error)
{
    reader->error = error;
    return false;
}

static bool no_memory(struct reader *reader) { return fail(reader, "out of memory"); }

static void skip_blanks(struct reader *reader)
{
    while (*reader->at == ' ' || *reader->at == '\t' || *reader->at == '\n' || *reader->at == '\r')
        reader->at++;
}

/* ---- strings ---------------------------------------------------------------------------------- */

static bool read_hex(struct reader *reader, uint32_t *code)
{
    *code = 0;
    for (int i = 0; i < 4; i++) {
        char c = reader->at[0];
        uint32_t digit = c >= '0' && c <= '9'                     ? (uint32_t)(c - '0')
                         : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (uint32_t)((c | 0x20) - 'a') + 10
                                                                  : 16;
        if (digit == 16)
            return fail(reader, "bad escape in a string");
        *code = *code << 4 | digit;
        reader->at++;
    }
    return true;
}

static char *put_utf8(char *to, uint32_t code)
{
    if (code < 0x80) {
        *to++ = (char)code;
        return to;
    }
    if (code < 0x800) {
        *to++ = (char)(0xc0 | code >> 6);
    } else {
        if (code < 0x10000) {
            *to++ = (char)(0xe0 | code >> 12);
        } else {
            *to++ = (char)(0xf0 | code >> 18);
            *to++ = (char)(0x80 | (code >> 12 & 0x3f));
        }
        *to++ = (char)(0x80 | (code >> 6 & 0x3f));
    }
    *to++ = (char)(0x80 | (code & 0x3f));
    return to;
}

/* \u0041, or the two halves of a surrogate pair.  6 bytes of text become at most 3, 12 become 4. */
static bool read_unicode(struct reader *reader, char **to)
{
    uint32_t code, low;

    if (!read_hex(reader, &code))
        return false;
    if (code >= 0xd800 && code < 0xdc00) {
        if (reader->at[0] != '\\' || reader->at[1] != 'u')
            return fail(reader, "half a surrogate pair in a string");
        reader->at += 2;
        if (!read_hex(reader, &low))
            return false;
        if (low < 0xdc00 || low >= 0xe000)
            return fail(reader, "half a surrogate pair in a string");
        code = 0x10000 + ((code & 0x3ff) << 10 | (low & 0x3ff));
    } else if (code >= 0xdc00 && code < 0xe000) {
        return fail(reader, "half a surrogate pair in a string");
    }
    *to = put_utf8(*to, code);
    return true;
}

static bool read_escape(struct reader *reader, char **to)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    char c = *reader->at++;
    const char *name = c != 0 ? strchr(names, c) : NULL;

    if (c == 'u')
        return read_unicode(reader, to);
    if (name == NULL)
        return fail(reader, "bad escape in a string");
    *(*to)++ = values[name - names];
    return true;
}

/* At the opening quote.  The text gets as many bytes as there are to the closing one: escapes only shrink. */
static char *read_string(struct reader *reader, size_t *size)
{
    const char *close = ++reader->at;

    while (close < reader->end && *close != '"')
        close += *close == '\\' ? 2 : 1;
    if (close >= reader->end) {
        fail(reader, "a string without an end");
        return NULL;
    }
    char *text = memory_bytes(reader->memory, (size_t)(close - reader->at) + 1), *to = text;
    if (text == NULL) {
        no_memory(reader);
        return NULL;
    }
    while (reader->at < close) {
        if ((unsigned char)*reader->at < ' ') {
            fail(reader, "a control character in a string");
            return NULL;
        }
        if (*reader->at != '\\') {
            *to++ = *reader->at++;
        } else {
            reader->at++;
            if (!read_escape(reader, &to))
                return NULL;
        }
    }
    reader->at = close + 1;
    *size = (size_t)(to - text);
    return text;
}

/* ---- values ----------------------------------------------------------------------------------- */

static size_t count_digits(const char *at)
{
    size_t n = 0;

    while (at[n] >= '0' && at[n] <= '9')
        n++;
    return n;
}

static bool read_number(struct reader *reader, struct json *json)
{
    const char *start = reader->at, *at = start + (*start == '-');
    size_t digits = count_digits(at);

    if (digits == 0 || (digits > 1 && *at == '0'))
        return fail(reader, "a value was expected");
    at += digits;
    if (*at == '.') {
        digits = count_digits(++at);
        at += digits;
    }
    if (digits > 0 && (*at | 0x20) == 'e') {
        at++;
        at += *at == '+' || *at == '-';
        digits = count_digits(at);
        at += digits;
    }
    if (digits == 0)
        return fail(reader, "a number without digits");
    char *text = memory_copy(reader->memory, start, (size_t)(at - start));
    if (text == NULL)
        return no_memory(reader);
    json->kind = JSON_NUMBER;
    json->number = strtod(text, NULL);
    grey_store(&json->text, (const char *)text);
    json->size = (size_t)(at - start);
    reader->at = at;
    return true;
}

static bool read_word(struct reader *reader, struct json *json, const char *word, enum json_kind kind)
{
    size_t size = strlen(word);

    if (strncmp(reader->at, word, size) != 0)
        return fail(reader, "a value was expected");
    reader->at += size;
    json->kind = kind;
    return true;
}

static bool read_name(struct reader *reader, struct json *json)
{
    size_t size;

    if (*reader->at != '"')
        return fail(reader, "a name was expected");
    const char *name = read_string(reader, &size);
    if (name == NULL)
        return false;
    grey_store(&json->name, name);
    json->name_size = (uint32_t)size;
    skip_blanks(reader);
    if (*reader->at != ':')
        return fail(reader, "a colon was expected");
    reader->at++;
    skip_blanks(reader);
    return true;
}

/* At the opening bracket. */
static bool read_members(struct reader *reader, struct json *json, char close)
{
    struct json *last = NULL;

    reader->at++;
    skip_blanks(reader);
    json->kind = close == '}' ? JSON_OBJECT : JSON_ARRAY;
    if (*reader->at == close) {
        reader->at++;
        return true;
    }
    for (;;) {
        struct json *member = memory_new(reader->memory, &json_type);
        if (member == NULL)
            return no_memory(reader);
        if ((close == '}' && !read_name(reader, member)) || !read_value(reader, member))
            return false;
        if (last == NULL)
            grey_store(&json->first, member);
        else
            grey_store(&last->next, member);
        last = member;
        skip_blanks(reader);
        char c = *reader->at;
        if (c != ',' && c != close)
            return fail(reader, "a comma or a closing bracket was expected");
        reader->at++;
        if (c == close)
            return true;
        skip_blanks(reader);
    }
}

static bool read_text(struct reader *reader, struct json *json)
{
    const char *text = read_string(reader, &json->size);

    if (text == NULL)
        return false;
    json->kind = JSON_STRING;
    grey_store(&json->text, text);
    return true;
}

static bool read_value(struct reader *reader, struct json *json)
{
    if (*reader->at == '"')
        return read_text(reader, json);
    if (*reader->at == '{' || *reader->at == '[') {
        if (reader->depth == JSON_DEEPEST)
            return fail(reader, "too deep");
        reader->depth++;
        bool read = read_members(reader, json, *reader->at == '{' ? '}' : ']');
        reader->depth--;
        return read;
    }
    if (*reader->at == 'n')
        return read_word(reader, json, "null", JSON_NULL);
    if (*reader->at == 't')
        return read_word(reader, json, "true", JSON_TRUE);
    if (*reader->at == 'f')
        return read_word(reader, json, "false", JSON_FALSE);
    return read_number(reader, json);
}

struct json *json_parse(struct memory *memory, const char *text, size_t size, const char **error)
{
    struct reader reader = {memory, text, text + size, NULL, 0};
    struct json *json = memory_new(memory, &json_type);

    if (json == NULL)
        no_memory(&reader);
    skip_blanks(&reader);
    if (json != NULL && read_value(&reader, json)) {
        skip_blanks(&reader);
        if (reader.at != reader.end)
            fail(&reader, "something behind the value");
    }
    *error = reader.error;
    return reader.error == NULL ? json : NULL;
}

/* ---- cloning ---------------------------------------------------------------------------------- */

/* One node, and all below it. */
static struct json *clone_node(const struct json *from)
{
    struct json *json = grey_arena_clone(from, &json_type, 1);

    if (json == NULL)
        return NULL;
    if (json->name != NULL) {
        const char *name = grey_arena_clone(json->name, &char_type, json->name_size + 1);
        if (name == NULL)
            return NULL;
        grey_store(&json->name, name);
    }
    if (json->text != NULL) {
        const char *text = grey_arena_clone(json->text, &char_type, json->size + 1);
        if (text == NULL)
            return NULL;
        grey_store(&json->text, text);
    }
    /* The copies in the copy still point into the arena: each is replaced before the next is made. */
    for (struct json **slot = &json->first; *slot != NULL; slot = &(*slot)->next) {
        struct json *member = clone_node(*slot);
        if (member == NULL)
            return NULL;
        grey_store(slot, member);
    }
    return json;
}

struct json *json_clone(const struct json *json) { return clone_node(json); }
