/* command_key.c -- commands on keys of any kind. */
#include "command.h"

void command_del(struct call *call)
{
    int64_t n = 0;

    for (size_t i = 1; i < call->n; i++) {
        struct key key = store_lock(call->args[i], call->now);
        n += store_find(&key) != NULL && store_remove(&key);
        store_unlock(&key);
    }
    reply_integer(call->out, n);
}

void command_exists(struct call *call)
{
    int64_t n = 0;

    for (size_t i = 1; i < call->n; i++) {
        struct key key = store_lock(call->args[i], call->now);
        n += store_find(&key) != NULL;
        store_unlock(&key);
    }
    reply_integer(call->out, n);
}

/* A time that is not in the future removes the key. */
static void expire(struct call *call, int64_t unit)
{
    int64_t time;

    if (!command_integer(call, 2, &time))
        return;
    if (time > (INT64_MAX - call->now) / unit || time < INT64_MIN / unit) {
        reply_error(call->out, "ERR invalid expire time in 'expire' command");
        return;
    }
    struct key key = store_lock(call->args[1], call->now);
    struct object *object = store_find(&key);
    if (object != NULL && time > 0)
        store_set_expiry(&key, object, call->now + time * unit);
    else if (object != NULL)
        store_remove(&key);
    store_unlock(&key);
    reply_integer(call->out, object != NULL);
}

void command_expire(struct call *call) { expire(call, 1000); }

void command_pexpire(struct call *call) { expire(call, 1); }

/* The milliseconds left; -1 for ever, -2 no such key. */
static int64_t time_left(struct call *call)
{
    struct key key = store_lock(call->args[1], call->now);
    struct object *object = store_find(&key);
    int64_t left = object == NULL ? -2 : object->expires == 0 ? -1 : object->expires - call->now;

    store_unlock(&key);
    return left;
}

void command_ttl(struct call *call)
{
    int64_t left = time_left(call);

    reply_integer(call->out, left < 0 ? left : (left + 500) / 1000);
}

void command_pttl(struct call *call) { reply_integer(call->out, time_left(call)); }

void command_type(struct call *call)
{
    static const char *const names[] = {"string", "list", "set", "hash"};
    struct key key = store_lock(call->args[1], call->now);
    struct object *object = store_find(&key);
    const char *name = object != NULL ? names[object->kind] : "none";

    store_unlock(&key);
    reply_status(call->out, name);
}

void command_dbsize(struct call *call) { reply_integer(call->out, (int64_t)store_count()); }

void command_flushall(struct call *call)
{
    if (call->n > 2 ||
        (call->n == 2 && !slice_is(call->args[1], "ASYNC") && !slice_is(call->args[1], "SYNC"))) {
        command_syntax_error(call);
        return;
    }
    store_flush();
    reply_status(call->out, "OK");
}
