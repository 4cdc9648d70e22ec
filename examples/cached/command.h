/* command.h -- what a command is, and the help that commands share.
 *
 * A command function reads its arguments (slices of the connection's input), works on the store, and
 * appends exactly one reply to the output.  The functions are in command_*.c, the table of their
 * names in command.c.
 */
#ifndef CACHED_COMMAND_H
#define CACHED_COMMAND_H

#include "reply.h"
#include "store.h"

struct call {
    const struct slice *args; /* args[0] is the name */
    size_t n;
    struct output *out;
    int64_t now; /* milliseconds, the event loop's clock */
    bool quit;   /* set: close once the reply is sent */
};

/* Looks the name up, checks the number of arguments, makes room if the command may need memory, runs
 * it.  Answers with an error if one of these fails. */
void command_run(struct call *call);

/* The object of a locked key, if it is of this kind; *object is NULL if there is none.  Another kind
 * is answered with WRONGTYPE, and false returned. */
bool command_find(struct call *call, const struct key *key, enum kind kind, struct object **object);

/* The same, but makes a new, empty list, set or hash if there is none.  Also false, with an answer,
 * when memory is short. */
bool command_find_or_add(struct call *call, const struct key *key, enum kind kind, struct object **object);

/* Gives a new string value to a locked key that may exist, of whatever kind, and clears its expiry;
 * false: no memory, nothing has changed. */
bool command_set_string(const struct key *key, struct object *object, struct bytes *value);

/* Reads a decimal argument; on failure answers and returns false. */
bool command_integer(struct call *call, size_t arg, int64_t *value);

/* Answers. */
void command_out_of_memory(struct call *call);
void command_syntax_error(struct call *call);
void command_wrong_arguments(struct call *call);

/* command_string.c */
void command_get(struct call *call);
void command_set(struct call *call);
void command_setex(struct call *call);
void command_mget(struct call *call);
void command_mset(struct call *call);
void command_incr(struct call *call);
void command_decr(struct call *call);
void command_incrby(struct call *call);
void command_decrby(struct call *call);
/* command_key.c */
void command_del(struct call *call);
void command_exists(struct call *call);
void command_expire(struct call *call);
void command_pexpire(struct call *call);
void command_ttl(struct call *call);
void command_pttl(struct call *call);
void command_type(struct call *call);
void command_dbsize(struct call *call);
void command_flushall(struct call *call);
/* command_list.c */
void command_lpush(struct call *call);
void command_rpush(struct call *call);
void command_lpop(struct call *call);
void command_rpop(struct call *call);
void command_lrange(struct call *call);
void command_llen(struct call *call);
/* command_set.c */
void command_sadd(struct call *call);
void command_srem(struct call *call);
void command_spop(struct call *call);
void command_smembers(struct call *call);
void command_scard(struct call *call);
/* command_hash.c */
void command_hset(struct call *call);
void command_hget(struct call *call);
void command_hdel(struct call *call);
void command_hgetall(struct call *call);
/* command_server.c */
void command_ping(struct call *call);
void command_echo(struct call *call);
void command_select(struct call *call);
void command_quit(struct call *call);
void command_client(struct call *call);
void command_command(struct call *call);
void command_config(struct call *call);
void command_info(struct call *call);
void command_memory(struct call *call);

#endif
