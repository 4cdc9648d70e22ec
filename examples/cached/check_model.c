/* check_model.c -- random commands, and what the answers must be.
 *
 * Key i of a connection is a string, list, set, hash or counter by i mod 5.  A value starts with its
 * key and version, and the rest is a pseudo-random function of the two, so that a value that was torn,
 * mixed up with another or overwritten after its memory was given away too early cannot look right.
 *
 * Where the server may forget keys (--evicting) or a key has a time to live, a missing value is right
 * too, but an older or a foreign one never is.
 */
#include "check.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_MOST = 24, N_MEMBERS = 32, N_FIELDS = 12, MEMBER_SIZE = 48, NAME_SIZE = 40, QUEUE = 4096 };
enum { SLACK_NS = 100 * 1000 * 1000, TTL_MS = 250 };

enum kind { STRING, LIST, SET, HASH, COUNTER, N_KINDS };

/* What a key holds; copied at the time of a command to be compared with its answer. */
struct state {
    bool present;             /* string, counter */
    uint32_t version;         /* of the string */
    uint32_t list[LIST_MOST]; /* versions */
    unsigned length;
    uint32_t members;          /* bits */
    uint32_t fields[N_FIELDS]; /* versions; 0 = absent */
    int64_t counter;
    bool mortal;                     /* has a time to live: */
    int64_t alive_until, dead_after; /* surely alive before the one, surely dead after the other */
};

struct key {
    struct state state;
    uint32_t last_version;
};

enum answer { IS_OK, IS_INTEGER, IS_COUNT, IS_VALUE, IS_LIST, IS_SET, IS_HASH, IS_COUNTER, IS_ANY };

struct expected {
    enum answer answer;
    unsigned key;
    uint32_t version; /* 0: nil */
    int64_t integer;
    int64_t sent;
    bool starts_ttl;
    struct state state;
};

struct model {
    unsigned connection, n_keys;
    uint64_t random;
    struct key *keys;
    char *scratch, *written;
    struct expected queue[QUEUE];
    unsigned head, tail;
};

struct model *model_new(unsigned connection, unsigned keys, uint64_t seed)
{
    struct model *model = calloc(1, sizeof *model);
    size_t room = options.value_max + NAME_SIZE + MEMBER_SIZE;

    model->connection = connection;
    model->n_keys = keys;
    model->random = seed;
    model->keys = calloc(keys, sizeof *model->keys);
    model->scratch = malloc(room);
    model->written = malloc(room);
    return model;
}

void model_free(struct model *model)
{
    free(model->keys);
    free(model->scratch);
    free(model->written);
    free(model);
}

static size_t key_name(const struct model *model, unsigned i, char *name)
{
    return (size_t)snprintf(name, NAME_SIZE, "%c:%u:%u", "slehc"[i % N_KINDS], model -> connection, i);
}

/* The one value that this version of this key can have. */
static size_t make_value(const struct model *model, unsigned i, uint32_t version, char *value)
{
    char name[NAME_SIZE];
    size_t least = options.value_min, most = options.value_max;
    uint64_t state = options.seed ^ ((uint64_t)model->connection << 40) ^
                     ((uint64_t)i << 8) * 0x9e3779b97f4a7c15 ^ version * 0xd1342543de82ef95;

    key_name(model, i, name);
    if (i % N_KINDS == SET)
        least = 8, most = MEMBER_SIZE;
    size_t at = (size_t)sprintf(value, "%s:%u:", name, version);
    size_t size = least + next_random(&state) % (most - least + 1);
    if (size < at + 8)
        size = at + 8;
    while (at < size) {
        uint64_t word = next_random(&state);
        size_t n = size - at < 8 ? size - at : 8;
        memcpy(value + at, &word, n);
        at += n;
    }
    return size;
}

/* The version that a value says it has, if the rest is as it must be; 0 if it isn't. */
static uint32_t read_value(struct model *model, unsigned i, const redisReply *reply)
{
    char name[NAME_SIZE];
    size_t n = key_name(model, i, name);
    uint32_t version = 0;

    if (reply->type != REDIS_REPLY_STRING || reply->len < n + 3 || memcmp(reply->str, name, n) != 0)
        return 0;
    for (size_t at = n + 1; at < reply->len && isdigit((unsigned char)reply->str[at]); at++)
        version = version * 10 + (uint32_t)(reply->str[at] - '0');
    size_t size = make_value(model, i, version, model->scratch);
    return size == reply->len && memcmp(model->scratch, reply->str, size) == 0 ? version : 0;
}

/* ---- sending ---------------------------------------------------------------------------------- */

struct sender {
    struct model *model;
    redisContext *context;
    unsigned key;
    struct key *of;
    size_t bytes;
};

static void send_words(struct sender *sender, int n, const char **words, const size_t *sizes,
                       enum answer answer, int64_t integer)
{
    struct model *model = sender->model;
    struct expected *expected = &model->queue[model->tail++ % QUEUE];

    redisAppendCommandArgv(sender->context, n, words, sizes);
    for (int i = 0; i < n; i++)
        sender->bytes += sizes[i] + 16;
    *expected = (struct expected){.answer = answer, .key = sender->key, .integer = integer, .sent = now_ns()};
    expected->version = sender->of->state.present ? sender->of->state.version : 0;
    expected->state = sender->of->state;
}

/* NAME key, then those of the three that are given: a word, a number, the value of a version. */
static void command(struct sender *sender, enum answer answer, int64_t integer, const char *name,
                    const char *first, int64_t number, uint32_t version)
{
    char key[NAME_SIZE], digits[24];
    const char *words[5] = {name, key};
    size_t sizes[5] = {strlen(name), key_name(sender->model, sender->key, key)};
    int n = 2;

    if (first != NULL) {
        words[n] = first;
        sizes[n++] = strlen(first);
    }
    if (number >= 0) {
        words[n] = digits;
        sizes[n++] = (size_t)sprintf(digits, "%lld", (long long)number);
    }
    if (version != 0) {
        words[n] = sender->model->written;
        sizes[n++] = make_value(sender->model, sender->key, version, sender->model->written);
    }
    send_words(sender, n, words, sizes, answer, integer);
}

static bool uncertain(const struct state *state) { return options.evicting || state->mortal; }

static void send_set(struct sender *sender, const char *option)
{
    struct state *state = &sender->of->state;
    char key[NAME_SIZE], ttl[24];
    uint32_t version = ++sender->of->last_version;
    bool px = option != NULL && strcmp(option, "PX") == 0;
    const char *words[5] = {"SET", key, sender->model->written, option, ttl};
    size_t sizes[5] = {3, key_name(sender->model, sender->key, key),
                       make_value(sender->model, sender->key, version, sender->model->written),
                       option != NULL ? strlen(option) : 0, (size_t)sprintf(ttl, "%d", TTL_MS)};

    if (option == NULL || px || (strcmp(option, "NX") == 0) == !state->present) {
        state->present = true;
        state->version = version;
        state->mortal = px;
        state->alive_until = now_ns() + TTL_MS * 1000000ll - SLACK_NS;
        state->dead_after = INT64_MAX;
        send_words(sender, px ? 5 : option != NULL ? 4 : 3, words, sizes, IS_OK, 0);
        sender->model->queue[(sender->model->tail - 1) % QUEUE].starts_ttl = px;
    } else {
        /* The condition fails: nil. */
        send_words(sender, 4, words, sizes, IS_VALUE, 0);
        sender->model->queue[(sender->model->tail - 1) % QUEUE].version = 0;
    }
}

static void send_string(struct sender *sender, unsigned choice)
{
    struct state *state = &sender->of->state;

    if (choice < 40) {
        send_set(sender, NULL);
    } else if (choice < 46) {
        send_set(sender, "PX");
    } else if (choice < 52 && !uncertain(state)) {
        send_set(sender, choice < 49 ? "NX" : "XX");
    } else if (choice < 56) {
        bool was = state->present;
        struct state before = *state;
        state->present = state->mortal = false;
        command(sender, IS_COUNT, was, "DEL", NULL, -1, 0);
        sender->model->queue[(sender->model->tail - 1) % QUEUE].state = before;
    } else if (choice < 60) {
        command(sender, IS_COUNT, state->present, "EXISTS", NULL, -1, 0);
    } else if (choice < 62 && state->present && !uncertain(state)) {
        command(sender, IS_INTEGER, 1, "EXPIRE", NULL, 1000, 0); /* far enough to be no matter */
    } else {
        command(sender, IS_VALUE, 0, "GET", NULL, -1, 0);
    }
}

static void send_list(struct sender *sender, unsigned choice)
{
    struct state *state = &sender->of->state;
    bool left = choice % 2 == 0;

    if (choice < 45 && state->length < LIST_MOST) {
        uint32_t version = ++sender->of->last_version;
        if (left)
            memmove(state->list + 1, state->list, state->length * sizeof state->list[0]);
        state->list[left ? 0 : state->length] = version;
        state->length++;
        command(sender, IS_COUNT, state->length, left ? "LPUSH" : "RPUSH", NULL, -1, version);
    } else if (choice < 65) {
        uint32_t version = state->length == 0 ? 0 : state->list[left ? 0 : state->length - 1];
        state->length -= state->length != 0;
        if (left)
            memmove(state->list, state->list + 1, state->length * sizeof state->list[0]);
        command(sender, IS_VALUE, 0, left ? "LPOP" : "RPOP", NULL, -1, 0);
        sender->model->queue[(sender->model->tail - 1) % QUEUE].version = version;
    } else if (choice < 75) {
        command(sender, IS_COUNT, state->length, "LLEN", NULL, -1, 0);
    } else {
        command(sender, IS_LIST, 0, "LRANGE", "0", LIST_MOST, 0);
    }
}

static void send_members(struct sender *sender, unsigned choice)
{
    struct state *state = &sender->of->state;
    uint32_t member = (uint32_t)(next_random(&sender->model->random) % N_MEMBERS), bit = 1u << member;

    if (choice < 45) {
        bool added = (state->members & bit) == 0;
        state->members |= bit;
        command(sender, options.evicting ? IS_ANY : IS_COUNT, added, "SADD", NULL, -1, member + 1);
    } else if (choice < 65) {
        bool removed = (state->members & bit) != 0;
        state->members &= ~bit;
        command(sender, IS_COUNT, removed, "SREM", NULL, -1, member + 1);
    } else if (choice < 75) {
        command(sender, IS_COUNT, __builtin_popcount(state->members), "SCARD", NULL, -1, 0);
    } else {
        command(sender, IS_SET, 0, "SMEMBERS", NULL, -1, 0);
    }
}

static void send_hash(struct sender *sender, unsigned choice)
{
    struct state *state = &sender->of->state;
    unsigned field = (unsigned)(next_random(&sender->model->random) % N_FIELDS);
    char name[8];

    sprintf(name, "f%u", field);
    if (choice < 45) {
        bool added = state->fields[field] == 0;
        state->fields[field] = ++sender->of->last_version;
        command(sender, options.evicting ? IS_ANY : IS_COUNT, added, "HSET", name, -1, state->fields[field]);
    } else if (choice < 60) {
        bool removed = state->fields[field] != 0;
        state->fields[field] = 0;
        command(sender, IS_COUNT, removed, "HDEL", name, -1, 0);
    } else if (choice < 80) {
        command(sender, IS_VALUE, 0, "HGET", name, -1, 0);
        sender->model->queue[(sender->model->tail - 1) % QUEUE].version = state->fields[field];
    } else {
        command(sender, IS_HASH, 0, "HGETALL", NULL, -1, 0);
    }
}

static void send_counter(struct sender *sender, unsigned choice)
{
    struct state *state = &sender->of->state;
    int64_t by = choice < 25 ? 1 : choice < 50 ? -1 : (int64_t)choice * 1000003;

    if (choice >= 70 || (choice < 50 && choice % 5 == 0)) {
        command(sender, IS_COUNTER, state->counter, "GET", NULL, -1, 0);
        return;
    }
    state->present = true;
    state->counter += by;
    command(sender, options.evicting ? IS_ANY : IS_INTEGER, state->counter,
            choice < 25   ? "INCR"
            : choice < 50 ? "DECR"
                          : "INCRBY",
            NULL, choice < 50 ? -1 : by, 0);
}

static void (*const send_kind[])(struct sender *, unsigned) = {send_string, send_list, send_members,
                                                               send_hash, send_counter};

size_t model_send(struct model *model, redisContext *context)
{
    unsigned i = (unsigned)(next_random(&model->random) % model->n_keys);
    struct sender sender = {model, context, i, &model->keys[i], 0};

    send_kind[i % N_KINDS](&sender, (unsigned)(next_random(&model->random) % 100));
    return sender.bytes;
}

size_t model_send_read(struct model *model, redisContext *context, unsigned i)
{
    struct sender sender = {model, context, i, &model->keys[i], 0};

    send_kind[i % N_KINDS](&sender, 99); /* the highest choice is always a read of all */
    return sender.bytes;
}

/* ---- checking --------------------------------------------------------------------------------- */

/* May the key be missing at the time of this command, or must it even be? */
static bool may_miss(const struct expected *expected)
{
    return options.evicting || (expected->state.mortal && now_ns() > expected->state.alive_until);
}

static bool must_miss(const struct expected *expected)
{
    return expected->state.mortal && expected->sent > expected->state.dead_after;
}

static void check_value(struct model *model, const struct expected *expected, const redisReply *reply,
                        struct faults *faults)
{
    bool list = expected->key % N_KINDS == LIST;

    if (reply->type == REDIS_REPLY_NIL) {
        faults->lost += expected->version != 0 && !may_miss(expected);
        return;
    }
    uint32_t version = read_value(model, expected->key, reply);
    if (list && options.evicting) /* an evicted list starts again: another of its values may be first */
        faults->corrupt += version == 0;
    else
        faults->corrupt += version == 0 || version != expected->version || must_miss(expected);
}

static void check_list(struct model *model, const struct expected *expected, const redisReply *reply,
                       struct faults *faults)
{
    if (reply->type != REDIS_REPLY_ARRAY) {
        faults->corrupt++;
        return;
    }
    if (!options.evicting && reply->elements < expected->state.length)
        faults->lost++;
    for (size_t k = 0; k < reply->elements; k++) {
        uint32_t version = read_value(model, expected->key, reply->element[k]);
        bool right = options.evicting ? version != 0
                                      : k < expected->state.length && version == expected->state.list[k];
        faults->corrupt += !right;
    }
}

static void check_set(struct model *model, const struct expected *expected, const redisReply *reply,
                      struct faults *faults)
{
    uint32_t seen = 0;

    if (reply->type != REDIS_REPLY_ARRAY) {
        faults->corrupt++;
        return;
    }
    for (size_t k = 0; k < reply->elements; k++) {
        uint32_t version = read_value(model, expected->key, reply->element[k]);
        uint32_t bit = version >= 1 && version <= N_MEMBERS ? 1u << (version - 1) : 0;
        faults->corrupt += bit == 0 || (seen & bit) != 0 || (expected->state.members & bit) == 0;
        seen |= bit;
    }
    faults->lost += !options.evicting && (expected->state.members & ~seen) != 0;
}

static void check_hash(struct model *model, const struct expected *expected, const redisReply *reply,
                       struct faults *faults)
{
    uint32_t seen = 0, all = 0;

    if (reply->type != REDIS_REPLY_ARRAY || reply->elements % 2 != 0) {
        faults->corrupt++;
        return;
    }
    for (size_t k = 0; k < reply->elements; k += 2) {
        const redisReply *name = reply->element[k];
        unsigned field = name->type == REDIS_REPLY_STRING && name->len > 1 && name->str[0] == 'f'
                             ? (unsigned)atoi(name->str + 1)
                             : N_FIELDS;
        uint32_t version = read_value(model, expected->key, reply->element[k + 1]);
        bool right = field < N_FIELDS && (seen & 1u << field) == 0 && version != 0 &&
                     version == expected->state.fields[field];
        faults->corrupt += !right;
        seen |= right ? 1u << field : 0;
    }
    for (unsigned field = 0; field < N_FIELDS; field++)
        all |= expected->state.fields[field] != 0 ? 1u << field : 0;
    faults->lost += !options.evicting && (all & ~seen) != 0;
}

static void check_integer(const struct expected *expected, const redisReply *reply, struct faults *faults)
{
    bool count = expected->answer == IS_COUNT;

    if (reply->type != REDIS_REPLY_INTEGER)
        faults->corrupt++;
    else if (count && reply->integer < expected->integer)
        faults->lost += !may_miss(expected);
    else if (reply->integer != expected->integer)
        faults->corrupt++;
}

static void check_counter(const struct expected *expected, const redisReply *reply, struct faults *faults)
{
    if (reply->type == REDIS_REPLY_NIL)
        faults->lost += expected->state.present && !options.evicting;
    else if (reply->type != REDIS_REPLY_STRING)
        faults->corrupt++;
    else
        faults->corrupt += !options.evicting && strtoll(reply->str, NULL, 10) != expected->integer;
}

void model_check(struct model *model, const redisReply *reply, struct faults *faults)
{
    struct expected *expected = &model->queue[model->head++ % QUEUE];
    struct state *state = &model->keys[expected->key].state;

    if (reply->type == REDIS_REPLY_ERROR) {
        if (faults->errors++ == 0)
            fprintf(stderr, "cached_check: server says: %s\n", reply->str);
        return;
    }
    switch (expected->answer) {
    case IS_OK:
        faults->corrupt += reply->type != REDIS_REPLY_STATUS || strcmp(reply->str, "OK") != 0;
        /* The time to live began before now; if no later command ended it, it ends by then. */
        if (expected->starts_ttl && state->mortal && state->version == expected->version)
            state->dead_after = now_ns() + TTL_MS * 1000000ll + SLACK_NS;
        break;
    case IS_VALUE:
        check_value(model, expected, reply, faults);
        break;
    case IS_LIST:
        check_list(model, expected, reply, faults);
        break;
    case IS_SET:
        check_set(model, expected, reply, faults);
        break;
    case IS_HASH:
        check_hash(model, expected, reply, faults);
        break;
    case IS_COUNTER:
        check_counter(expected, reply, faults);
        break;
    case IS_INTEGER:
    case IS_COUNT:
        check_integer(expected, reply, faults);
        break;
    case IS_ANY:
        faults->corrupt += reply->type != REDIS_REPLY_INTEGER;
        break;
    }
}
