/* heap/unmanaged.c -- the persistent allocator and fixed-size pools.
 *
 * Persistent memory is packed into chunks of 256 KiB and lives until shutdown.  Requests of 64 KiB and
 * more get pages of their own.  There is one current chunk, under one lock, and not one a thread (UM-3
 * would allow that): persistent memory is asked for when a structure is made or grows, at most once per
 * chunk of a pool or interned type, never on the allocation path, so a lock that nobody contends for
 * costs less than a chunk's unused rest in each thread.
 *
 * Every chunk begins with a record of itself, linked into a list that is only ever pushed to.  So
 * persistent_contains can walk it without a lock, and persistent_shutdown finds everything.  A chunk is
 * counted under "persistent" when it is mapped; each allocation moves its bytes to the class that asked
 * (OS-21), and shutdown moves them back before the chunk is freed, since a chunk serves many classes.
 *
 * Pools cut chunks of 16 KiB, which come from persistent memory, into slots of one size.  A freed slot's
 * first word is the link of the free list, and a slot is never used for anything but its pool's objects,
 * so a stale reader still sees an object of the right type.
 */
#include "heap/unmanaged.h"

#include <errno.h>
#include <string.h>

#define CHUNK_BYTES ((size_t)256 << 10)
#define LARGE_BYTES ((size_t)64 << 10)
#define POOL_CHUNK_BYTES ((size_t)16 << 10)

enum { ALIGNMENT_MAX = 8192 };

struct chunk {
    struct chunk *next; /* set before the chunk is published, then constant */
    size_t size;        /* with this record */
};

static struct os_lock persistent_lock = OS_LOCK_INIT(OS_RANK_PERSISTENT);
static _Atomic(struct chunk *) chunks; /* pushed to under the lock, walked without */
static char *cursor, *cursor_end;      /* of the current chunk; under the lock */
static size_t moved[OS_CLASSES];       /* bytes recounted to each class; under the lock */

static size_t round_up(size_t n, size_t to) { return (n + to - 1) & ~(to - 1); }

/* ---- persistent -------------------------------------------------------------------------------------- */

static struct chunk *chunk_new(size_t size)
{
    struct chunk *chunk = os_alloc(size, OS_PERSISTENT);
    if (chunk == NULL)
        return NULL;
    chunk->size = size;
    chunk->next = atomic_load_explicit(&chunks, memory_order_relaxed);
    /* release: next and size are set; pairs with the acquire in persistent_contains */
    atomic_store_explicit(&chunks, chunk, memory_order_release);
    return chunk;
}

static void *cut(size_t size, size_t alignment)
{
    char *p = (char *)round_up((uintptr_t)cursor, alignment);
    if (cursor == NULL || p > cursor_end || (size_t)(cursor_end - p) < size) {
        struct chunk *chunk = chunk_new(CHUNK_BYTES);
        if (chunk == NULL)
            return NULL;
        cursor = (char *)(chunk + 1);
        cursor_end = (char *)chunk + CHUNK_BYTES;
        p = (char *)round_up((uintptr_t)cursor, alignment);
    }
    cursor = p + size;
    return p;
}

static void *large(size_t size, size_t alignment)
{
    /* The record, then enough to align within, whatever the kernel's page size is. */
    size_t all = size + sizeof(struct chunk) + alignment;
    if (all < size || all > SIZE_MAX - ALIGNMENT_MAX - os_page_size()) {
        errno = ENOMEM;
        return NULL;
    }
    struct chunk *chunk = chunk_new(round_up(all, os_page_size()));
    return chunk == NULL ? NULL : (void *)round_up((uintptr_t)(chunk + 1), alignment);
}

void *persistent_alloc(size_t size, size_t alignment, enum os_class class)
{
    if (alignment == 0)
        alignment = 8;
    if (size == 0)
        os_internal(NULL, "persistent allocation of 0 bytes");
    if ((alignment & (alignment - 1)) != 0 || alignment > ALIGNMENT_MAX)
        os_internal(NULL, "persistent allocation with alignment %zu", alignment);
    if ((unsigned)class >= OS_CLASSES)
        os_internal(NULL, "persistent allocation without a class: %d", (int)class);

    os_lock(&persistent_lock);
    void *p = size >= LARGE_BYTES ? large(size, alignment) : cut(size, alignment);
    if (p != NULL && class != OS_PERSISTENT) {
        os_recount(OS_PERSISTENT, class, size);
        moved[class] += size;
    }
    os_unlock(&persistent_lock);
    return p;
}

bool persistent_contains(const void *p)
{
    /* acquire: pairs with the release in chunk_new */
    const struct chunk *chunk = atomic_load_explicit(&chunks, memory_order_acquire);
    for (; chunk != NULL; chunk = chunk->next) {
        if ((uintptr_t)p - (uintptr_t)chunk < chunk->size)
            return true;
    }
    return false;
}

void persistent_shutdown(void)
{
    os_lock(&persistent_lock);
    for (int class = 0; class < OS_CLASSES; class ++) {
        if (moved[class] != 0)
            os_recount((enum os_class) class, OS_PERSISTENT, moved[class]);
        moved[class] = 0;
    }
    struct chunk *chunk = atomic_load_explicit(&chunks, memory_order_relaxed);
    atomic_store_explicit(&chunks, NULL, memory_order_release);
    cursor = cursor_end = NULL;
    while (chunk != NULL) {
        struct chunk *next = chunk->next;
        size_t size = chunk->size;
        os_free(chunk, size, OS_PERSISTENT, size, size);
        chunk = next;
    }
    os_unlock(&persistent_lock);
}

/* ---- pools ------------------------------------------------------------------------------------------- */

void pool_init(struct pool *pool, size_t size, enum os_class class, void (*first_use)(void *slot))
{
    if (size > POOL_CHUNK_BYTES)
        os_internal(pool, "pool of objects of %zu bytes", size);
    if (size < sizeof(void *))
        size = sizeof(void *);
    *pool = (struct pool){
        .size = round_up(size, sizeof(void *)), .class = class, .first_use = first_use, .ready = true};
}

/* For its lock, where it has one, the caller answers; debug builds look. */
static void check_usable(const struct pool *pool)
{
    if (UNLIKELY(!pool->ready))
        os_internal(pool, "pool used before its init");
    ASSERT(pool->lock == NULL || os_lock_held(pool->lock));
}

static void *fresh_slot(struct pool *pool)
{
    if (pool->chunk == pool->chunk_end) {
        size_t bytes = POOL_CHUNK_BYTES - POOL_CHUNK_BYTES % pool->size;
        char *chunk = persistent_alloc(bytes, 0, pool->class);
        if (chunk == NULL)
            return NULL;
        pool->chunk = chunk;
        pool->chunk_end = chunk + bytes;
    }
    void *slot = pool->chunk;
    pool->chunk += pool->size;
    if (pool->first_use != NULL)
        pool->first_use(slot);
    return slot;
}

void *pool_alloc(struct pool *pool)
{
    check_usable(pool);
    void *slot = pool->free_list;
    if (slot != NULL) {
        memcpy(&pool->free_list, slot, sizeof(void *));
        /* Old contents could hold heap pointers, and keep garbage alive once it is a root (UM-8). */
        if (!pool->keep_dirty)
            memset(slot, 0, pool->size);
    } else {
        slot = fresh_slot(pool);
    }
    if (slot != NULL)
        pool->in_use += pool->size;
    return slot;
}

void pool_free(struct pool *pool, void *slot)
{
    check_usable(pool);
    ASSERT(slot != NULL && slot != pool->free_list && persistent_contains(slot));
    if (UNLIKELY(pool->in_use < pool->size))
        os_internal(slot, "more slots freed than were allocated");
    memcpy(slot, &pool->free_list, sizeof(void *));
    pool->free_list = slot;
    pool->in_use -= pool->size;
}
