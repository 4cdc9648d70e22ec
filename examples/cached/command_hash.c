/* command_hash.c -- hashes: tables from field to value. */
#include "command.h"
#include "gather.h"

#include <grey.h>

/* Sets one field; 1 it is new, 0 it was there, -1 no memory. */
static int set_field(const struct key *key, struct object *object, struct slice field, struct slice text)
{
    uint64_t hash = slice_hash(field);
    struct bytes *value = bytes_new(text);
    struct table_entry *entry = table_find(object->value, field, hash);

    if (value == NULL)
        return -1;
    if (entry == NULL) {
        if (table_add(object->value, field, hash, value) == NULL)
            return -1;
        store_charge(key, object, (int64_t)(STORE_ENTRY_BYTES + field.size + STORE_BYTES_BYTES + text.size));
        return 1;
    }
    store_charge(key, object, (int64_t)text.size - (int64_t)((struct bytes *)entry->value)->size);
    grey_store(&entry->value, (void *)value);
    return 0;
}

void command_hset(struct call *call)
{
    struct object *object;
    int64_t added = 0;

    if (call->n % 2 != 0) {
        command_wrong_arguments(call);
        return;
    }
    struct key key = store_lock(call->args[1], call->now);
    if (command_find_or_add(call, &key, KIND_HASH, &object)) {
        int result = 0;
        for (size_t i = 2; i < call->n && result >= 0; i += 2) {
            result = set_field(&key, object, call->args[i], call->args[i + 1]);
            added += result > 0;
        }
        if (result >= 0)
            reply_integer(call->out, added);
        else
            command_out_of_memory(call);
        if (((struct table *)object->value)->count == 0)
            store_remove(&key);
    }
    store_unlock(&key);
}

void command_hget(struct call *call)
{
    struct object *object;
    struct bytes *value = NULL;
    struct key key = store_lock(call->args[1], call->now);
    bool right = command_find(call, &key, KIND_HASH, &object);

    if (right && object != NULL) {
        struct table_entry *entry = table_find(object->value, call->args[2], slice_hash(call->args[2]));
        value = entry != NULL ? entry->value : NULL;
    }
    store_unlock(&key);
    if (right)
        reply_bytes(call->out, value);
}

void command_hdel(struct call *call)
{
    struct object *object;
    int64_t removed = 0;
    struct key key = store_lock(call->args[1], call->now);

    if (command_find(call, &key, KIND_HASH, &object)) {
        struct table *hash = object != NULL ? object->value : NULL;
        for (size_t i = 2; i < call->n && hash != NULL; i++) {
            struct table_entry *entry = table_remove(hash, call->args[i], slice_hash(call->args[i]));
            if (entry == NULL)
                continue;
            store_charge(&key, object,
                         -(int64_t)(STORE_ENTRY_BYTES + entry->key->size + STORE_BYTES_BYTES +
                                    ((struct bytes *)entry->value)->size));
            removed++;
        }
        if (hash != NULL && hash->count == 0)
            store_remove(&key);
        reply_integer(call->out, removed);
    }
    store_unlock(&key);
}

void command_hgetall(struct call *call)
{
    struct object *object;
    struct gather gather = {.n = 0};
    struct key key = store_lock(call->args[1], call->now);

    if (command_find(call, &key, KIND_HASH, &object)) {
        struct table *hash = object != NULL ? object->value : NULL;
        bool begun = gather_begin(&gather, call, hash != NULL ? 2 * hash->count : 0);
        struct table_cursor cursor = {0, NULL};
        struct table_entry *entry;
        while (begun && hash != NULL && (entry = table_next(hash, &cursor)) != NULL) {
            gather_add(&gather, entry->key);
            gather_add(&gather, entry->value);
        }
    }
    store_unlock(&key);
    gather_end(&gather);
}
