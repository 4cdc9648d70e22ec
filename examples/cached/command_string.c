/* command_string.c -- GET, SET, counters.
 *
 * New values are allocated before the lock is taken, and read after it is dropped: values never
 * change and cannot be freed while this thread's stack points to them.
 */
#include "command.h"

#include <grey.h>
#include <stdio.h>

/* The string of the key, or NULL; false: WRONGTYPE was answered. */
static bool load(struct call *call, struct slice name, struct bytes **value)
{
    struct object *object;
    struct key key = store_lock(name, call->now);
    bool right = command_find(call, &key, KIND_STRING, &object);

    *value = right && object != NULL ? object->value : NULL;
    store_unlock(&key);
    return right;
}

void command_get(struct call *call)
{
    struct bytes *value;

    if (load(call, call->args[1], &value))
        reply_bytes(call->out, value);
}

void command_mget(struct call *call)
{
    reply_array(call->out, call->n - 1);
    for (size_t i = 1; i < call->n; i++) {
        struct bytes *value = NULL;
        struct key key = store_lock(call->args[i], call->now);
        struct object *object = store_find(&key);
        if (object != NULL && object->kind == KIND_STRING)
            value = object->value;
        store_unlock(&key);
        reply_bytes(call->out, value);
    }
}

enum condition { ALWAYS, IF_ABSENT, IF_PRESENT };

/* expires: 0 = never. */
static void store_string(struct call *call, struct slice name, struct slice value, int64_t expires,
                         enum condition condition)
{
    struct bytes *bytes = bytes_new(value);

    if (bytes == NULL) {
        command_out_of_memory(call);
        return;
    }
    struct key key = store_lock(name, call->now);
    struct object *object = store_find(&key);
    if (condition != ALWAYS && (condition == IF_PRESENT) != (object != NULL)) {
        reply_nil(call->out);
    } else if (!command_set_string(&key, object, bytes)) {
        command_out_of_memory(call);
    } else {
        if (expires != 0)
            store_set_expiry(&key, object != NULL ? object : store_find(&key), expires);
        reply_status(call->out, "OK");
    }
    store_unlock(&key);
}

/* Turns a time to live into a point of time; answers and returns false if it can't be one. */
static bool read_expiry(struct call *call, size_t arg, int64_t unit, int64_t *expires)
{
    int64_t time;

    if (!command_integer(call, arg, &time))
        return false;
    if (time <= 0 || time > (INT64_MAX - call->now) / unit) {
        reply_error(call->out, "ERR invalid expire time in 'set' command");
        return false;
    }
    *expires = call->now + time * unit;
    return true;
}

void command_set(struct call *call)
{
    enum condition condition = ALWAYS;
    int64_t expires = 0;

    for (size_t i = 3; i < call->n; i++) {
        bool ex = slice_is(call->args[i], "EX"), px = slice_is(call->args[i], "PX");
        bool nx = slice_is(call->args[i], "NX"), xx = slice_is(call->args[i], "XX");
        if ((nx || xx) && condition == ALWAYS) {
            condition = nx ? IF_ABSENT : IF_PRESENT;
        } else if ((ex || px) && expires == 0 && i + 1 < call->n) {
            if (!read_expiry(call, ++i, ex ? 1000 : 1, &expires))
                return;
        } else {
            command_syntax_error(call);
            return;
        }
    }
    store_string(call, call->args[1], call->args[2], expires, condition);
}

void command_setex(struct call *call)
{
    int64_t expires;

    if (read_expiry(call, 2, 1000, &expires))
        store_string(call, call->args[1], call->args[3], expires, ALWAYS);
}

void command_mset(struct call *call)
{
    if (call->n % 2 == 0) {
        command_wrong_arguments(call);
        return;
    }
    bool stored = true;
    for (size_t i = 1; i < call->n && stored; i += 2) {
        struct bytes *value = bytes_new(call->args[i + 1]);
        struct key key = store_lock(call->args[i], call->now);
        stored = value != NULL && command_set_string(&key, store_find(&key), value);
        store_unlock(&key);
    }
    if (stored)
        reply_status(call->out, "OK");
    else
        command_out_of_memory(call);
}

/* Replaces the value of a counter under its lock. */
static void add_to(struct call *call, const struct key *key, int64_t by)
{
    struct object *object;
    int64_t sum = 0;
    char text[24];

    if (!command_find(call, key, KIND_STRING, &object))
        return;
    if (object != NULL && !slice_integer(bytes_slice(object->value), &sum)) {
        reply_error(call->out, "ERR value is not an integer or out of range");
        return;
    }
    if (__builtin_add_overflow(sum, by, &sum)) {
        reply_error(call->out, "ERR increment or decrement would overflow");
        return;
    }
    int size = snprintf(text, sizeof text, "%lld", (long long)sum);
    struct bytes *value = bytes_new((struct slice){text, (size_t)size});
    int64_t expires = object != NULL ? object->expires : 0;
    if (value == NULL || !command_set_string(key, object, value)) {
        command_out_of_memory(call);
        return;
    }
    if (expires != 0)
        store_set_expiry(key, object, expires);
    reply_integer(call->out, sum);
}

static void change(struct call *call, int64_t by)
{
    struct key key = store_lock(call->args[1], call->now);

    add_to(call, &key, by);
    store_unlock(&key);
}

void command_incr(struct call *call) { change(call, 1); }

void command_decr(struct call *call) { change(call, -1); }

void command_incrby(struct call *call)
{
    int64_t by;

    if (command_integer(call, 2, &by))
        change(call, by);
}

void command_decrby(struct call *call)
{
    int64_t by;

    if (!command_integer(call, 2, &by))
        return;
    if (by == INT64_MIN)
        reply_error(call->out, "ERR decrement would overflow");
    else
        change(call, -by);
}
