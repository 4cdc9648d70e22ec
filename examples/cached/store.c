/* store.c -- stripes, look-up, accounts, expiry and eviction.
 *
 * The tables hang from one Grey root.  Everything else of a stripe (lock, counters) is plain static
 * memory, which may hold no heap pointers.
 */
#include "store.h"

#include <grey.h>
#include <stdatomic.h>
#include <stdalign.h>

enum { EVICTION_SAMPLE = 8, EXPIRY_BUCKETS = 32, EXPIRY_TURNS = 16 };

struct store_tables {
    struct table *of[STORE_STRIPES];
};
GREY_ROOT(struct store_tables, tables);

/* All under the lock. */
struct stripe {
    alignas(64) pthread_mutex_t lock;
    uint64_t bytes;
    uint64_t expiring; /* objects that have a time to go */
    size_t cursor;     /* of the search for them */
};
static struct stripe stripes[STORE_STRIPES];

/* Figures, not protocol: relaxed order is enough for all three. */
static atomic_uint_fast64_t all_bytes, n_expired, n_evicted;

GREY_TYPE(object_type, struct object, value);

int store_init(void)
{
    for (unsigned i = 0; i < STORE_STRIPES; i++) {
        struct table *table = table_new();
        if (table == NULL)
            return ENOMEM;
        pthread_mutex_init(&stripes[i].lock, NULL);
        grey_store(&tables.of[i], table);
    }
    return 0;
}

struct key store_lock(struct slice name, int64_t now)
{
    uint64_t hash = slice_hash(name);
    struct key key = {name, hash, (unsigned)(hash >> 56) % STORE_STRIPES, now};

    pthread_mutex_lock(&stripes[key.stripe].lock);
    return key;
}

void store_unlock(const struct key *key) { pthread_mutex_unlock(&stripes[key->stripe].lock); }

/* Takes the object out of the accounts.  It needs no freeing. */
static void forget(struct stripe *stripe, const struct object *object)
{
    stripe->bytes -= object->bytes;
    stripe->expiring -= object->expires != 0;
    atomic_fetch_sub_explicit(&all_bytes, object->bytes, memory_order_relaxed);
}

static bool is_expired(const struct object *object, int64_t now)
{
    return object->expires != 0 && object->expires <= now;
}

struct object *store_find(const struct key *key)
{
    struct table_entry *entry = table_find(tables.of[key->stripe], key->name, key->hash);

    if (entry == NULL)
        return NULL;
    struct object *object = entry->value;
    if (is_expired(object, key->now)) {
        atomic_fetch_add_explicit(&n_expired, 1, memory_order_relaxed);
        store_remove(key);
        return NULL;
    }
    object->used = (uint32_t)(key->now / 16);
    return object;
}

struct object *store_add(const struct key *key, enum kind kind, void *value)
{
    struct object *object = grey_new(&object_type);

    if (object == NULL)
        return NULL;
    object->kind = kind;
    object->used = (uint32_t)(key->now / 16);
    grey_store(&object->value, value);
    if (table_add(tables.of[key->stripe], key->name, key->hash, object) == NULL)
        return NULL;
    store_charge(key, object, (int64_t)(STORE_OBJECT_BYTES + key->name.size));
    return object;
}

bool store_remove(const struct key *key)
{
    struct table_entry *entry = table_remove(tables.of[key->stripe], key->name, key->hash);

    if (entry == NULL)
        return false;
    forget(&stripes[key->stripe], entry->value);
    return true;
}

void store_charge(const struct key *key, struct object *object, int64_t bytes)
{
    object->bytes += (uint64_t)bytes;
    stripes[key->stripe].bytes += (uint64_t)bytes;
    atomic_fetch_add_explicit(&all_bytes, (uint64_t)bytes, memory_order_relaxed);
}

void store_set_expiry(const struct key *key, struct object *object, int64_t at)
{
    struct stripe *stripe = &stripes[key->stripe];

    stripe->expiring += (at != 0) - (uint64_t)(object->expires != 0);
    object->expires = at;
}

/* A stripe is emptied by letting go of its table. */
void store_flush(void)
{
    for (unsigned i = 0; i < STORE_STRIPES; i++) {
        struct table *empty = table_new();
        if (empty == NULL)
            return;
        pthread_mutex_lock(&stripes[i].lock);
        grey_store(&tables.of[i], empty);
        atomic_fetch_sub_explicit(&all_bytes, stripes[i].bytes, memory_order_relaxed);
        stripes[i].bytes = stripes[i].expiring = 0;
        pthread_mutex_unlock(&stripes[i].lock);
    }
}

size_t store_count(void)
{
    size_t count = 0;

    for (unsigned i = 0; i < STORE_STRIPES; i++) {
        pthread_mutex_lock(&stripes[i].lock);
        count += tables.of[i]->count;
        pthread_mutex_unlock(&stripes[i].lock);
    }
    return count;
}

uint64_t store_bytes(void) { return atomic_load_explicit(&all_bytes, memory_order_relaxed); }

struct store_events store_events(void)
{
    return (struct store_events){atomic_load_explicit(&n_expired, memory_order_relaxed),
                                 atomic_load_explicit(&n_evicted, memory_order_relaxed)};
}

/* Approximate LRU, as in Redis: the one of a small random sample that was not used for longest. */
static bool evict_from(unsigned i, uint64_t random)
{
    struct table_entry *sample[EVICTION_SAMPLE];
    struct table_entry *oldest = NULL;

    pthread_mutex_lock(&stripes[i].lock);
    size_t n = table_sample(tables.of[i], random, sample, EVICTION_SAMPLE);
    for (size_t k = 0; k < n; k++) {
        const struct object *object = sample[k]->value;
        if (oldest == NULL || object->used < ((struct object *)oldest->value)->used)
            oldest = sample[k];
    }
    if (oldest != NULL) {
        struct key key = {bytes_slice(oldest->key), oldest->hash, i, 0};
        store_remove(&key);
        atomic_fetch_add_explicit(&n_evicted, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&stripes[i].lock);
    return oldest != NULL;
}

bool store_make_room(uint64_t limit)
{
    static _Thread_local uint64_t random = 88172645463325252;

    while (limit != 0 && store_bytes() > limit) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        unsigned start = (unsigned)(random >> 32) % STORE_STRIPES, tried = 0;
        while (tried < STORE_STRIPES && !evict_from((start + tried) % STORE_STRIPES, random))
            tried++;
        if (tried == STORE_STRIPES)
            return store_bytes() <= limit;
    }
    return true;
}

struct expiry {
    struct stripe *stripe;
    int64_t now;
};

static bool drop_if_expired(struct table_entry *entry, void *arg)
{
    struct expiry *expiry = arg;

    if (!is_expired(entry->value, expiry->now))
        return false;
    forget(expiry->stripe, entry->value);
    return true;
}

/* As long as every fourth key found is an expired one, more of them are worth looking for.  The lock
 * is dropped between the turns. */
static void expire_in(unsigned i, int64_t now)
{
    struct expiry expiry = {&stripes[i], now};

    for (int turn = 0; turn < EXPIRY_TURNS; turn++) {
        size_t seen = 0, dropped = 0;
        pthread_mutex_lock(&stripes[i].lock);
        if (stripes[i].expiring != 0)
            dropped = table_sweep(tables.of[i], &stripes[i].cursor, EXPIRY_BUCKETS, &seen, drop_if_expired,
                                  &expiry);
        pthread_mutex_unlock(&stripes[i].lock);
        atomic_fetch_add_explicit(&n_expired, dropped, memory_order_relaxed);
        if (dropped == 0 || dropped * 4 < seen)
            return;
    }
}

void store_expire_some(unsigned first, unsigned step, int64_t now)
{
    for (unsigned i = first; i < STORE_STRIPES; i += step)
        expire_in(i, now);
}
