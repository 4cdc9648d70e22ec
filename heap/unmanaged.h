/* heap/unmanaged.h -- memory for the collector's own structures (UM-1..UM-8).
 *
 * Three kinds and no fourth: whole pages (os_alloc), persistent (packed, never freed before shutdown),
 * fixed-size pools.  No malloc in the library.  All of it is zeroed when handed out.
 */
#ifndef GREY_HEAP_UNMANAGED_H
#define GREY_HEAP_UNMANAGED_H

#include "os/os.h"

/* alignment 0 means 8; a power of two up to 8192.  NULL when memory is refused.  Any thread. */
void *persistent_alloc(size_t size, size_t alignment, enum os_class class);
bool persistent_contains(const void *p); /* lock-free */
void persistent_shutdown(void);          /* unmaps everything */

struct pool {
    struct os_lock *lock; /* the caller takes it; NULL: the caller has other exclusion */
    size_t size;
    void *free_list;
    char *chunk, *chunk_end;
    void (*first_use)(void *slot); /* once a slot, not on reuse; may be NULL */
    bool keep_dirty;               /* don't zero on reuse: only for what never holds heap pointers */
    size_t in_use;                 /* bytes */
    enum os_class class;
    bool ready;
};
void pool_init(struct pool *pool, size_t size, enum os_class class, void (*first_use)(void *slot));
void *pool_alloc(struct pool *pool); /* NULL when memory is refused */
void pool_free(struct pool *pool, void *slot);

#endif
