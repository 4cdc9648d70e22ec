/* table.h -- a hash table in the Grey heap that grows and shrinks a little with each operation.
 *
 * Separate chaining.  The keyspace is 256 of these, and each set and each hash is one.  When the load
 * leaves its bounds a second bucket array is made and every following operation moves a few buckets,
 * so that no single one pays for the whole.  The old array, the removed entries and all they point to
 * are simply dropped: the collector finds them.
 *
 * The caller serialises: one thread at a time on one table.  The collector reads along at any time,
 * which is why each store of a pointer is a grey_store, in new objects too.
 */
#ifndef CACHED_TABLE_H
#define CACHED_TABLE_H

#include "bytes.h"

struct table_entry {
    struct table_entry *next;
    struct bytes *key;
    void *value; /* in the heap, or NULL */
    uint64_t hash;
};

struct table_bucket {
    struct table_entry *first;
};

struct table {
    struct table_bucket *buckets;
    struct table_bucket *old; /* being emptied, or NULL */
    size_t n_buckets;         /* powers of two */
    size_t n_old;
    size_t moved; /* buckets of old below this are empty */
    size_t count;
};

/* NULL: ENOMEM, here and below where it says so. */
struct table *table_new(void);

struct table_entry *table_find(struct table *table, struct slice key, uint64_t hash);

/* The key must not be there yet.  NULL: ENOMEM. */
struct table_entry *table_add(struct table *table, struct slice key, uint64_t hash, void *value);

/* Returns what it took out, or NULL. */
struct table_entry *table_remove(struct table *table, struct slice key, uint64_t hash);

/* Up to n entries that lie together at a random place; all of the table only if it has fewer. */
size_t table_sample(const struct table *table, uint64_t random, struct table_entry **sample, size_t n);

/* Walks n buckets on from *cursor, around and around over the calls, takes out each entry for which
 * drop says so, and adds up the entries it saw in *seen.  Returns the number taken out. */
size_t table_sweep(struct table *table, size_t *cursor, size_t n, size_t *seen,
                   bool (*drop)(struct table_entry *entry, void *arg), void *arg);

/* Each entry once, as long as the table isn't changed: start with a cursor of zeros; NULL at the end. */
struct table_cursor {
    size_t bucket;
    struct table_entry *entry;
};
struct table_entry *table_next(const struct table *table, struct table_cursor *cursor);

#endif
