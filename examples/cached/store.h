/* store.h -- the keyspace that all threads share.
 *
 * 256 stripes, chosen by the high bits of a key's hash; each is a lock and a table from key to struct
 * object.  All work on a key is done between store_lock and store_unlock, which is short: replies of one
 * value are copied after the unlock (see bytes.h), and so are those of more than some values (gather.h).
 * A thread may be interrupted by the collector while it holds a lock; it answers in some microseconds
 * and goes on, and the collector takes no lock of ours.
 *
 * Commands on several keys are atomic for each key, not for all of them together.
 */
#ifndef CACHED_STORE_H
#define CACHED_STORE_H

#include "table.h"

enum { STORE_STRIPES = 256 };

enum kind { KIND_STRING, KIND_LIST, KIND_SET, KIND_HASH };

struct object {
    void *value;     /* struct bytes, list, table, table */
    int64_t expires; /* milliseconds of the event loop's clock; 0 = never */
    uint64_t bytes;  /* counted against maxmemory */
    uint32_t used;   /* when last, for eviction; units of 16 ms */
    uint32_t kind;
};

/* What counts for each thing beside its bytes: headers, links, the share of a bucket array. */
enum { STORE_OBJECT_BYTES = 96, STORE_NODE_BYTES = 48, STORE_ENTRY_BYTES = 64, STORE_BYTES_BYTES = 16 };

/* A locked key. */
struct key {
    struct slice name;
    uint64_t hash;
    unsigned stripe;
    int64_t now;
};

/* Makes the empty tables; 0 or ENOMEM. */
int store_init(void);

struct key store_lock(struct slice name, int64_t now);
void store_unlock(const struct key *key);

/* These need the lock of the key.  NULL from find: not there, or its time has come.  NULL from add:
 * ENOMEM; the key must not be there. */
struct object *store_find(const struct key *key);
struct object *store_add(const struct key *key, enum kind kind, void *value);
bool store_remove(const struct key *key);
void store_charge(const struct key *key, struct object *object, int64_t bytes);
void store_set_expiry(const struct key *key, struct object *object, int64_t at);

/* These lock what they need. */
void store_flush(void);
size_t store_count(void);
uint64_t store_bytes(void);

/* Evicts keys until bytes are below the limit (0 = none); false if there is nothing left to evict. */
bool store_make_room(uint64_t limit);
/* Goes on a little in the search for expired keys in these stripes: first, first + step, ... */
void store_expire_some(unsigned first, unsigned step, int64_t now);

struct store_events {
    uint64_t expired, evicted;
};
struct store_events store_events(void);

#endif
