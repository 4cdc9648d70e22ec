/* bytes.h -- runs of bytes: struct slice is borrowed, struct bytes lives in the Grey heap or an extent.
 *
 * A slice points into somebody else's memory (a connection's input buffer, or a struct bytes) and is
 * valid as long as that is.  A struct bytes is a leaf object: the collector never looks inside, so
 * millions of values cost it one mark bit each.  It is immutable once made.  That is what the whole
 * server rests on: a reader takes the pointer under a lock, drops the lock, and goes on reading; the
 * pointer on its stack keeps the bytes alive, whatever other threads do to the key meanwhile.
 *
 * Large ones may lie in a mapped file instead (extents.h).  Everything said here is true of them too.
 */
#ifndef CACHED_BYTES_H
#define CACHED_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const char *at;
    size_t size;
};

struct bytes {
    size_t size;
    char at[];
};

/* A copy in the heap or in an extent, or NULL (ENOMEM). */
struct bytes *bytes_new(struct slice from);

static inline struct slice bytes_slice(const struct bytes *bytes)
{
    return (struct slice){bytes->at, bytes->size};
}

static inline struct slice slice_of(const char *text) { return (struct slice){text, strlen(text)}; }

static inline bool slice_equal(struct slice a, struct slice b)
{
    return a.size == b.size && memcmp(a.at, b.at, a.size) == 0;
}

/* Equal to word, upper and lower case being the same. */
bool slice_is(struct slice s, const char *word);

/* The whole slice as a decimal number, as Redis reads one: no blanks, no plus, no leading zeros. */
bool slice_integer(struct slice s, int64_t *value);

/* A size such as 100, 64kb, 700mb, 2gb. */
bool slice_size(struct slice s, size_t *size);

/* A keyed hash: who doesn't know the key cannot choose names that collide. */
uint64_t slice_hash(struct slice s);
void slice_hash_seed(uint64_t k0, uint64_t k1);

#endif
