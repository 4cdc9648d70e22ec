/* foreign/index.h -- the range index: a B-tree over disjoint address ranges (FR-13..FR-18).
 *
 * One writer at a time, under a lock of the caller's; any number of readers, wait-free, each inside an
 * epoch section (epoch.h).  A node that readers can see never changes but for one child pointer in it: the
 * writer makes a new node and swaps the pointer to it, and the old one is retired.  (And but for a range's
 * end, when a removal has to do without memory.)  So a reader meets a tree
 * as it was at some moment, or parts of it as they were at two; a range that was in the index before he
 * entered and is not removed until he leaves, he finds.
 *
 * Nodes are 256 bytes (the kernel's maple tree is the reference for the shape).  Neighbours never
 * coalesce.
 */
#ifndef GREY_FOREIGN_INDEX_H
#define GREY_FOREIGN_INDEX_H

#include "os/os.h"

struct index_node;
struct index_chunk;
struct index {
    /* Apart from what the writer writes at every change. */
    _Alignas(64) _Atomic(struct index_node *) root; /* NULL: empty */
    /* The writer's. */
    _Alignas(64) size_t count;  /* ranges */
    unsigned depth;             /* levels; 0: empty */
    size_t in_place;            /* removals that did without memory; then nodes may have too few entries */
    struct index_chunk *chunks; /* that nodes are cut from, the newest first */
    struct ck_stack_entry *free;
    size_t available, retired; /* nodes: free ones; those that readers may still see */
};

struct index_range {
    uintptr_t start, end; /* half-open */
    uint32_t value;
};

void index_init(struct index *index);
/* No readers are left, of this index or another.  Unmaps all nodes; the index is empty and can be used. */
void index_clear(struct index *index);

/* Writer: [start, end), start < end.  0, or nothing changed: EEXIST (it overlaps one that is there), ENOMEM. */
int index_insert(struct index *index, uintptr_t start, uintptr_t end, uint32_t value);
/* Writer: sees to it that the next insertion finds its nodes, so that it maps nothing; false: no memory. */
bool index_prepare(struct index *index);
/* Writer: removes the range that starts exactly there.  False: none.  Where memory is refused it changes
 * less, and never fails for it. */
bool index_remove(struct index *index, uintptr_t start);
/* Writer: bounds of all ranges; false: empty. */
bool index_bounds(const struct index *index, uintptr_t *first_start, uintptr_t *last_end);

/* Reader: the range that contains p. */
bool index_find(const struct index *index, uintptr_t p, struct index_range *out);
/* Reader: in order of address, the first range whose end is above p. */
bool index_next(const struct index *index, uintptr_t p, struct index_range *out);

/* For tests: the tree is what it should be (order, occupancy, equal depth); ends the process if not. */
void index_check(const struct index *index);

#endif
