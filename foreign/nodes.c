/* foreign/nodes.c -- memory for the nodes of the range index.
 *
 * Nodes are cut from chunks of 2 MiB of huge pages.  The first chunk is smaller and grows by 64 KiB: a
 * program with a few regions shall not pay for a million.  Chunks are kept until the index is cleared.
 *
 * A page holds 15 nodes and, in the place of the sixteenth, the entries of the 15 for ck_epoch: a retired
 * node is still read, so the list of what is retired can't run through it.  The list of free nodes runs
 * through the same entries, and so a node that nobody may read can be poisoned as a whole.
 */
#include "foreign/nodes.h"

#include "foreign/epoch.h"

#include <string.h>
#if OS_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)0)
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)0)
#endif

enum { PAGE = 4096, PAGE_NODES = PAGE / sizeof(struct index_node) - 1 };
struct page {
    ck_epoch_entry_t entry[PAGE_NODES]; /* of the node with the same number: retired, or free */
    struct index *index;
    uint64_t unused;
    struct index_node node[PAGE_NODES];
};
_Static_assert(sizeof(struct page) == PAGE, "nodes are found from entries, and entries from nodes");

/* The first chunk grows in small steps, enough for some thousand regions; those after it are huge pages. */
enum { FIRST = 256 << 10, STEP = 64 << 10, CHUNK = 2 << 20 };
struct index_chunk { /* in the place of its first page */
    struct index_chunk *next;
    size_t reserved, step, mapped, ready; /* bytes */
};

CK_STACK_CONTAINER(struct ck_epoch_entry, stack_entry, entry_of)

static struct page *page_of(const void *p) { return (struct page *)((uintptr_t)p & ~(uintptr_t)(PAGE - 1)); }

static void push_free(struct index *index, struct page *page, unsigned i)
{
#ifdef GREY_ASSERTS
    memset(&page->node[i], 0xdb, sizeof(struct index_node)); /* who still reads it gets lost */
#endif
    ASAN_POISON_MEMORY_REGION(&page->node[i], sizeof(struct index_node));
    page->entry[i].stack_entry.next = index->free;
    index->free = &page->entry[i].stack_entry;
    index->available++;
}

struct index_node *index_node_new(struct index *index, unsigned level)
{
    ASSERT(index->available != 0); /* index_nodes_prepare */
    struct ck_epoch_entry *entry = entry_of(index->free);
    struct page *page = page_of(entry);
    struct index_node *node = &page->node[entry - page->entry];
    index->free = index->free->next;
    index->available--;
    ASAN_UNPOISON_MEMORY_REGION(node, sizeof(*node));
    node->level = level;
    return node;
}

static void give_back(ck_epoch_entry_t *entry)
{
    struct page *page = page_of(entry);
    page->index->retired--;
    push_free(page->index, page, (unsigned)(entry - page->entry));
}

void index_node_retire(struct index *index, struct index_node *node)
{
    struct page *page = page_of(node);
    index->retired++;
    epoch_retire(&page->entry[node - page->node], give_back);
}

static struct index_chunk *chunk_new(struct index *index)
{
    bool huge = index->chunks != NULL;
    size_t size = huge ? CHUNK : FIRST, step = huge ? CHUNK : STEP;
    struct index_chunk *chunk = os_reserve_aligned(NULL, &size, size);
    if (chunk == NULL)
        return NULL;
    if (os_map(chunk, step, OS_FOREIGN, "grey: metadata") != 0) {
        os_unreserve(chunk, size);
        return NULL;
    }
    if (huge)
        os_huge(chunk, step);
    if (os_used(chunk, step, step) != 0) {
        os_free(chunk, size, OS_FOREIGN, step, 0);
        return NULL;
    }
    *chunk = (struct index_chunk){index->chunks, size, step, step, step};
    index->chunks = chunk;
    return chunk;
}

/* The next piece of the newest chunk; false: it is full, or memory is refused. */
static bool chunk_grow(struct index_chunk *chunk)
{
    char *at = (char *)chunk + chunk->ready;
    size_t size = chunk->step;
    if (chunk->ready == chunk->reserved)
        return false;
    if (chunk->mapped == chunk->ready) { /* else the last attempt stopped between the two */
        if (os_map(at, size, OS_FOREIGN, "grey: metadata") != 0)
            return false;
        chunk->mapped += size;
        if (size == CHUNK)
            os_huge(at, size);
    }
    if (os_used(at, size, size) != 0)
        return false;
    chunk->ready += size;
    return true;
}

static bool more_nodes(struct index *index)
{
    struct index_chunk *chunk = index->chunks;
    size_t from = chunk != NULL ? chunk->ready : 0;
    if (from == 0 || from == chunk->reserved) {
        chunk = chunk_new(index);
        if (chunk == NULL)
            return false;
        from = PAGE;
    } else if (!chunk_grow(chunk)) {
        return false;
    }
    for (size_t at = chunk->ready - PAGE; at + PAGE > from; at -= PAGE) { /* the lowest is taken first */
        struct page *page = (struct page *)(void *)((char *)chunk + at);
        page->index = index;
        for (unsigned i = PAGE_NODES; i-- > 0;)
            push_free(index, page, i);
    }
    return true;
}

bool index_nodes_prepare(struct index *index, size_t n)
{
    if (index->available < n)
        epoch_poll();
    while (index->available < n) {
        if (!more_nodes(index))
            return false;
    }
    return true;
}

void index_nodes_clear(struct index *index)
{
    epoch_poll(); /* nobody is inside: all that was retired comes back */
    if (index->retired != 0)
        os_internal(index, "%zu nodes of the range index are still read", index->retired);
    struct index_chunk *chunk = index->chunks;
    while (chunk != NULL) {
        struct index_chunk *next = chunk->next;
        ASAN_UNPOISON_MEMORY_REGION(chunk, chunk->ready);
        os_free(chunk, chunk->reserved, OS_FOREIGN, chunk->mapped, chunk->ready);
        chunk = next;
    }
    index->chunks = NULL;
    index->free = NULL;
    index->available = 0;
}
