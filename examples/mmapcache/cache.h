/* cache.h -- a read-only table in a file, looked up by key, used where it is mapped.
 *
 * What cache_find returns is a plain pointer into a mapping of the file.  It may be kept as long as one
 * likes, stored anywhere the collector looks, handed to other threads, and never has to be given back: the
 * mapping that it points into goes away when the last pointer into it has.
 */
#ifndef MMAPCACHE_CACHE_H
#define MMAPCACHE_CACHE_H

#include "table_file.h"

struct cache; /* in the Grey heap */

struct cache_options {
    int file;
    size_t n_segments, n_records;
    unsigned resident;    /* segments that the cache itself keeps mapped */
    unsigned most_mapped; /* mappings at any time; more than all readers together can hold */
};

/* Reads the whole file once, for the index.  NULL and errno: EIO an unusable file; ENOMEM; those of mmap. */
struct cache *cache_new(const struct cache_options *options);

/* NULL and errno: ENOENT no such key; ENOMEM; those of mmap.  Waits for the collector when most_mapped
 * mappings exist.  A key whose segment is mapped costs two loads and no lock. */
const struct record *cache_find(struct cache *cache, uint64_t key);

/* Since the program started. */
struct cache_figures {
    uint64_t misses; /* lookups that found their segment not resident */
    uint64_t waits;  /* for the collector, at the limit */
    uint64_t segments_mapped, segments_unmapped, most_at_a_time;
};
struct cache_figures cache_figures(void);

#endif
