/* table.c -- the incremental hash table.
 *
 * Buckets are numbered through both arrays where a function walks the whole table: 0 to n_buckets - 1
 * are the current array's, those from n_buckets on the old one's.
 */
#include "table.h"

#include <grey.h>

enum { SMALLEST = 4, MOVE_BUCKETS = 4, MOVE_EMPTY = 64 };

GREY_TYPE(entry_type, struct table_entry, next, key, value);
GREY_TYPE(bucket_type, struct table_bucket, first);
GREY_TYPE(table_type, struct table, buckets, old);

struct table *table_new(void)
{
    struct table *table = grey_new(&table_type);
    struct table_bucket *buckets = grey_new_array(&bucket_type, SMALLEST);

    if (table == NULL || buckets == NULL)
        return NULL;
    table->n_buckets = SMALLEST;
    grey_store(&table->buckets, buckets);
    return table;
}

/* Moves a few buckets of the old array.  Bounded work, also when all of them are empty. */
static void move_some(struct table *table)
{
    int full = MOVE_BUCKETS;

    if (table->old == NULL)
        return;
    for (int i = 0; i < MOVE_EMPTY && full > 0 && table->moved < table->n_old; i++, table->moved++) {
        struct table_bucket *from = &table->old[table->moved];
        if (from->first == NULL)
            continue;
        full--;
        while (from->first != NULL) {
            struct table_entry *entry = from->first;
            struct table_bucket *to = &table->buckets[entry->hash & (table->n_buckets - 1)];
            grey_store(&from->first, entry->next);
            grey_store(&entry->next, to->first);
            grey_store(&to->first, entry);
        }
    }
    if (table->moved == table->n_old) {
        grey_store(&table->old, NULL);
        table->n_old = table->moved = 0;
    }
}

/* Starts a move to a better size; if there is no memory for it the table stays as it is. */
static void resize_if_needed(struct table *table)
{
    size_t n = table->n_buckets;

    if (table->old != NULL)
        return;
    if (table->count > n)
        n *= 2;
    else if (table->count < n / 8 && n > SMALLEST)
        n /= 4;
    if (n < SMALLEST)
        n = SMALLEST;
    if (n == table->n_buckets)
        return;
    struct table_bucket *buckets = grey_new_array(&bucket_type, n);
    if (buckets == NULL)
        return;
    grey_store(&table->old, table->buckets);
    grey_store(&table->buckets, buckets);
    table->n_old = table->n_buckets;
    table->n_buckets = n;
    table->moved = 0;
}

/* The slot that points to the entry of this key, or NULL. */
static struct table_entry **find_slot(struct table *table, struct slice key, uint64_t hash)
{
    struct table_bucket *bucket = &table->buckets[hash & (table->n_buckets - 1)];

    for (;;) {
        for (struct table_entry **slot = &bucket->first; *slot != NULL; slot = &(*slot)->next) {
            if ((*slot)->hash == hash && slice_equal(bytes_slice((*slot)->key), key))
                return slot;
        }
        if (table->old == NULL || bucket == &table->old[hash & (table->n_old - 1)])
            return NULL;
        bucket = &table->old[hash & (table->n_old - 1)];
    }
}

struct table_entry *table_find(struct table *table, struct slice key, uint64_t hash)
{
    move_some(table);
    struct table_entry **slot = find_slot(table, key, hash);
    return slot != NULL ? *slot : NULL;
}

struct table_entry *table_add(struct table *table, struct slice key, uint64_t hash, void *value)
{
    struct bytes *name = bytes_new(key);
    struct table_entry *entry = grey_new(&entry_type);

    if (name == NULL || entry == NULL)
        return NULL;
    move_some(table);
    resize_if_needed(table);
    struct table_bucket *bucket = &table->buckets[hash & (table->n_buckets - 1)];
    /* The entry is new, but it may have been born black: nobody will scan it in this cycle, so what
     * is stored into it must be shaded by the store. */
    entry->hash = hash;
    grey_store(&entry->key, name);
    grey_store(&entry->value, value);
    grey_store(&entry->next, bucket->first);
    grey_store(&bucket->first, entry);
    table->count++;
    return entry;
}

struct table_entry *table_remove(struct table *table, struct slice key, uint64_t hash)
{
    struct table_entry **slot = find_slot(table, key, hash);

    if (slot == NULL)
        return NULL;
    struct table_entry *entry = *slot;
    grey_store(slot, entry->next);
    table->count--;
    move_some(table);
    resize_if_needed(table);
    return entry;
}

static struct table_bucket *bucket_at(const struct table *table, size_t i)
{
    return i < table->n_buckets ? &table->buckets[i] : &table->old[i - table->n_buckets];
}

size_t table_sample(const struct table *table, uint64_t random, struct table_entry **sample, size_t n)
{
    size_t n_all = table->n_buckets + table->n_old, found = 0;

    for (size_t i = 0, at = random % n_all; i < n_all && found < n; i++) {
        for (struct table_entry *e = bucket_at(table, at)->first; e != NULL && found < n; e = e->next)
            sample[found++] = e;
        at = at + 1 < n_all ? at + 1 : 0;
    }
    return found;
}

size_t table_sweep(struct table *table, size_t *cursor, size_t n, size_t *seen,
                   bool (*drop)(struct table_entry *entry, void *arg), void *arg)
{
    size_t n_all = table->n_buckets + table->n_old, dropped = 0;

    for (size_t i = 0; i < n && i < n_all; i++, ++*cursor) {
        struct table_entry **slot = &bucket_at(table, *cursor % n_all)->first;
        while (*slot != NULL) {
            ++*seen;
            if (drop(*slot, arg)) {
                grey_store(slot, (*slot)->next);
                dropped++;
            } else {
                slot = &(*slot)->next;
            }
        }
    }
    table->count -= dropped;
    move_some(table);
    resize_if_needed(table);
    return dropped;
}

struct table_entry *table_next(const struct table *table, struct table_cursor *cursor)
{
    if (cursor->entry != NULL)
        cursor->entry = cursor->entry->next;
    while (cursor->entry == NULL && cursor->bucket < table->n_buckets + table->n_old)
        cursor->entry = bucket_at(table, cursor->bucket++)->first;
    return cursor->entry;
}
