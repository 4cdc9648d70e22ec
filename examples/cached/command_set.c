/* command_set.c -- sets: tables whose entries have no value. */
#include "command.h"
#include "gather.h"

#include <grey.h>

enum { POP_SAMPLE = 8 };

void command_sadd(struct call *call)
{
    struct object *object;
    int64_t added = 0;
    struct key key = store_lock(call->args[1], call->now);

    if (command_find_or_add(call, &key, KIND_SET, &object)) {
        struct table *set = object->value;
        bool stored = true;
        for (size_t i = 2; i < call->n && stored; i++) {
            struct slice member = call->args[i];
            uint64_t hash = slice_hash(member);
            if (table_find(set, member, hash) != NULL)
                continue;
            stored = table_add(set, member, hash, NULL) != NULL;
            if (stored) {
                store_charge(&key, object, (int64_t)(STORE_ENTRY_BYTES + member.size));
                added++;
            }
        }
        if (stored)
            reply_integer(call->out, added);
        else
            command_out_of_memory(call);
        if (set->count == 0)
            store_remove(&key);
    }
    store_unlock(&key);
}

/* Takes a member out of the set and out of the accounts. */
static bool take(const struct key *key, struct object *object, struct slice member, uint64_t hash)
{
    if (table_remove(object->value, member, hash) == NULL)
        return false;
    store_charge(key, object, -(int64_t)(STORE_ENTRY_BYTES + member.size));
    return true;
}

void command_srem(struct call *call)
{
    struct object *object;
    int64_t removed = 0;
    struct key key = store_lock(call->args[1], call->now);

    if (command_find(call, &key, KIND_SET, &object)) {
        for (size_t i = 2; i < call->n && object != NULL; i++)
            removed += take(&key, object, call->args[i], slice_hash(call->args[i]));
        if (object != NULL && ((struct table *)object->value)->count == 0)
            store_remove(&key);
        reply_integer(call->out, removed);
    }
    store_unlock(&key);
}

/* Takes n random members and answers each. */
static void pop_some(struct call *call, const struct key *key, struct object *object, size_t n)
{
    static _Thread_local uint64_t random = 2463534242;
    struct table *set = object->value;

    for (; n > 0; n--) {
        struct table_entry *sample[POP_SAMPLE];
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        size_t found = table_sample(set, random >> 16, sample, POP_SAMPLE);
        struct table_entry *entry = sample[(random & 0xffff) % found];
        reply_bytes(call->out, entry->key);
        take(key, object, bytes_slice(entry->key), entry->hash);
    }
    if (set->count == 0)
        store_remove(key);
}

void command_spop(struct call *call)
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
    if (command_find(call, &key, KIND_SET, &object)) {
        size_t count = object != NULL ? ((struct table *)object->value)->count : 0;
        size_t taken = (size_t)n < count ? (size_t)n : count;
        if (counted)
            reply_array(call->out, taken);
        else if (object == NULL)
            reply_nil(call->out);
        if (taken > 0)
            pop_some(call, &key, object, taken);
    }
    store_unlock(&key);
}

void command_smembers(struct call *call)
{
    struct object *object;
    struct gather gather = {.n = 0};
    struct key key = store_lock(call->args[1], call->now);

    if (command_find(call, &key, KIND_SET, &object)) {
        struct table *set = object != NULL ? object->value : NULL;
        bool begun = gather_begin(&gather, call, set != NULL ? set->count : 0);
        struct table_cursor cursor = {0, NULL};
        struct table_entry *entry;
        while (begun && set != NULL && (entry = table_next(set, &cursor)) != NULL)
            gather_add(&gather, entry->key);
    }
    store_unlock(&key);
    gather_end(&gather);
}

void command_scard(struct call *call)
{
    struct object *object;
    struct key key = store_lock(call->args[1], call->now);

    if (command_find(call, &key, KIND_SET, &object))
        reply_integer(call->out, object != NULL ? (int64_t)((struct table *)object->value)->count : 0);
    store_unlock(&key);
}
