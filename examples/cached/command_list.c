/* command_list.c -- lists.  Replies are made under the lock: the nodes of a list do change. */
#include "command.h"
#include "gather.h"
#include "list.h"

#include <grey.h>

static void push(struct call *call, enum list_end end)
{
    struct object *object;
    struct key key = store_lock(call->args[1], call->now);

    if (command_find_or_add(call, &key, KIND_LIST, &object)) {
        struct list *list = object->value;
        bool pushed = true;
        for (size_t i = 2; i < call->n && pushed; i++) {
            struct bytes *value = bytes_new(call->args[i]);
            pushed = value != NULL && list_push(list, end, value);
            if (pushed)
                store_charge(&key, object, (int64_t)(STORE_NODE_BYTES + value->size));
        }
        if (pushed)
            reply_integer(call->out, (int64_t)list->length);
        else
            command_out_of_memory(call);
        if (list->length == 0)
            store_remove(&key);
    }
    store_unlock(&key);
}

void command_lpush(struct call *call) { push(call, LIST_FIRST); }

void command_rpush(struct call *call) { push(call, LIST_LAST); }

static void pop_some(struct call *call, const struct key *key, struct object *object, enum list_end end,
                     size_t n)
{
    struct list *list = object->value;

    for (; n > 0 && list->length > 0; n--) {
        struct bytes *value = list_pop(list, end);
        store_charge(key, object, -(int64_t)(STORE_NODE_BYTES + value->size));
        reply_bytes(call->out, value);
    }
    if (list->length == 0)
        store_remove(key);
}

static void pop(struct call *call, enum list_end end)
{
    bool counted = call->n == 3;
    int64_t n = 1;
    struct object *object;

    if (call->n > 3) {
        command_wrong_arguments(call);
        return;
    }
    if (counted && (!slice_integer(call->args[2], &n) || n < 0)) {
        reply_error(call->out, "ERR value is out of range, must be positive");
        return;
    }
    struct key key = store_lock(call->args[1], call->now);
    if (command_find(call, &key, KIND_LIST, &object)) {
        size_t length = object != NULL ? ((struct list *)object->value)->length : 0;
        if (object == NULL && counted)
            reply_nil_array(call->out);
        else if (object == NULL)
            reply_nil(call->out);
        else if (counted)
            reply_array(call->out, (size_t)n < length ? (size_t)n : length);
        if (object != NULL)
            pop_some(call, &key, object, end, (size_t)n);
    }
    store_unlock(&key);
}

void command_lpop(struct call *call) { pop(call, LIST_FIRST); }

void command_rpop(struct call *call) { pop(call, LIST_LAST); }

/* The values from one index to another, either of which may count from the end. */
static void gather_range(struct gather *gather, struct call *call, struct list *list, int64_t from,
                         int64_t to)
{
    int64_t length = list != NULL ? (int64_t)list->length : 0;

    from = from >= 0 ? from : from + length < 0 ? 0 : from + length;
    to = to >= 0 ? to : to + length;
    to = to < length ? to : length - 1;
    int64_t n = from <= to ? to - from + 1 : 0;
    struct list_node *node = n > 0 ? list_at(list, (size_t)from) : NULL;
    if (!gather_begin(gather, call, (size_t)n))
        return;
    for (; n > 0; n--, node = node->after)
        gather_add(gather, node->value);
}

void command_lrange(struct call *call)
{
    int64_t from, to;
    struct object *object;
    struct gather gather = {.n = 0};

    if (!command_integer(call, 2, &from) || !command_integer(call, 3, &to))
        return;
    struct key key = store_lock(call->args[1], call->now);
    if (command_find(call, &key, KIND_LIST, &object))
        gather_range(&gather, call, object != NULL ? object->value : NULL, from, to);
    store_unlock(&key);
    gather_end(&gather);
}

void command_llen(struct call *call)
{
    struct object *object;
    struct key key = store_lock(call->args[1], call->now);

    if (command_find(call, &key, KIND_LIST, &object))
        reply_integer(call->out, object != NULL ? (int64_t)((struct list *)object->value)->length : 0);
    store_unlock(&key);
}
