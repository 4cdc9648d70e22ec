/* command.c -- the table of commands, the dispatcher, and what commands have in common. */
#include "command.h"

#include "list.h"
#include "settings.h"

#include <ctype.h>
#include <grey.h>
#include <stdio.h>
#include <stdlib.h>

enum { LONGEST_NAME = 15 };

/* Sorted by name.  arity counts the name; negative: at least so many.  grows: refused when there is
 * no room and nothing to evict. */
static const struct command {
    const char *name;
    int arity;
    bool grows;
    void (*run)(struct call *call);
} commands[] = {
    {"CLIENT", -2, false, command_client},
    {"COMMAND", -1, false, command_command},
    {"CONFIG", -2, false, command_config},
    {"DBSIZE", 1, false, command_dbsize},
    {"DECR", 2, true, command_decr},
    {"DECRBY", 3, true, command_decrby},
    {"DEL", -2, false, command_del},
    {"ECHO", 2, false, command_echo},
    {"EXISTS", -2, false, command_exists},
    {"EXPIRE", 3, false, command_expire},
    {"FLUSHALL", -1, false, command_flushall},
    {"GET", 2, false, command_get},
    {"HDEL", -3, false, command_hdel},
    {"HGET", 3, false, command_hget},
    {"HGETALL", 2, false, command_hgetall},
    {"HSET", -4, true, command_hset},
    {"INCR", 2, true, command_incr},
    {"INCRBY", 3, true, command_incrby},
    {"INFO", -1, false, command_info},
    {"LLEN", 2, false, command_llen},
    {"LPOP", -2, false, command_lpop},
    {"LPUSH", -3, true, command_lpush},
    {"LRANGE", 4, false, command_lrange},
    {"MEMORY", -2, false, command_memory},
    {"MGET", -2, false, command_mget},
    {"MSET", -3, true, command_mset},
    {"PEXPIRE", 3, false, command_pexpire},
    {"PING", -1, false, command_ping},
    {"PTTL", 2, false, command_pttl},
    {"QUIT", -1, false, command_quit},
    {"RPOP", -2, false, command_rpop},
    {"RPUSH", -3, true, command_rpush},
    {"SADD", -3, true, command_sadd},
    {"SCARD", 2, false, command_scard},
    {"SELECT", 2, false, command_select},
    {"SET", -3, true, command_set},
    {"SETEX", 4, true, command_setex},
    {"SMEMBERS", 2, false, command_smembers},
    {"SPOP", -2, false, command_spop},
    {"SREM", -3, false, command_srem},
    {"TTL", 2, false, command_ttl},
    {"TYPE", 2, false, command_type},
};

static int compare(const void *name, const void *command)
{
    return strcmp(name, ((const struct command *)command)->name);
}

static const struct command *find_command(struct slice name)
{
    char upper[LONGEST_NAME + 1];

    if (name.size > LONGEST_NAME)
        return NULL;
    for (size_t i = 0; i < name.size; i++)
        upper[i] = (char)toupper((unsigned char)name.at[i]);
    upper[name.size] = '\0';
    return bsearch(upper, commands, sizeof commands / sizeof commands[0], sizeof commands[0], compare);
}

static void unknown_command(struct call *call)
{
    char name[64], error[128];
    size_t n = call->args[0].size < sizeof name - 1 ? call->args[0].size : sizeof name - 1;

    for (size_t i = 0; i < n; i++)
        name[i] = isprint((unsigned char)call->args[0].at[i]) ? call->args[0].at[i] : '?';
    name[n] = '\0';
    snprintf(error, sizeof error, "ERR unknown command '%s'", name);
    reply_error(call->out, error);
}

void command_wrong_arguments(struct call *call)
{
    char error[128];
    int size = (int)(call->args[0].size < LONGEST_NAME ? call->args[0].size : LONGEST_NAME);

    snprintf(error, sizeof error, "ERR wrong number of arguments for '%.*s' command", size, call->args[0].at);
    for (char *c = strchr(error, '\''); c != NULL && *c != '\0'; c++)
        *c = (char)tolower((unsigned char)*c);
    reply_error(call->out, error);
}

void command_run(struct call *call)
{
    const struct command *command = find_command(call->args[0]);

    if (command == NULL)
        unknown_command(call);
    else if (command->arity >= 0 ? call->n != (size_t)command->arity : call->n < (size_t)-command->arity)
        command_wrong_arguments(call);
    else if (command->grows && !store_make_room(settings_maxmemory()))
        command_out_of_memory(call);
    else
        command->run(call);
}

bool command_find(struct call *call, const struct key *key, enum kind kind, struct object **object)
{
    *object = store_find(key);
    if (*object == NULL || (*object)->kind == kind)
        return true;
    reply_error(call->out, "WRONGTYPE Operation against a key holding the wrong kind of value");
    return false;
}

bool command_find_or_add(struct call *call, const struct key *key, enum kind kind, struct object **object)
{
    if (!command_find(call, key, kind, object))
        return false;
    if (*object != NULL)
        return true;
    void *empty = kind == KIND_LIST ? (void *)list_new() : (void *)table_new();
    if (empty != NULL)
        *object = store_add(key, kind, empty);
    if (*object == NULL)
        command_out_of_memory(call);
    return *object != NULL;
}

bool command_set_string(const struct key *key, struct object *object, struct bytes *value)
{
    if (object == NULL) {
        object = store_add(key, KIND_STRING, value);
        if (object == NULL)
            return false;
    } else {
        /* The old value, a list of a million nodes perhaps, is garbage from here on. */
        grey_store(&object->value, (void *)value);
        object->kind = KIND_STRING;
        store_set_expiry(key, object, 0);
        store_charge(key, object, (int64_t)(STORE_OBJECT_BYTES + key->name.size) - (int64_t)object->bytes);
    }
    store_charge(key, object, (int64_t)(STORE_BYTES_BYTES + value->size));
    return true;
}

bool command_integer(struct call *call, size_t arg, int64_t *value)
{
    if (slice_integer(call->args[arg], value))
        return true;
    reply_error(call->out, "ERR value is not an integer or out of range");
    return false;
}

void command_out_of_memory(struct call *call)
{
    reply_error(call->out, "OOM command not allowed when used memory > 'maxmemory'.");
}

void command_syntax_error(struct call *call) { reply_error(call->out, "ERR syntax error"); }
