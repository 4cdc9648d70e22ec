/* foreign/nodes.h -- the nodes of the range index and their memory; for index.c only. */
#ifndef GREY_FOREIGN_NODES_H
#define GREY_FOREIGN_NODES_H

#include "foreign/index.h"

enum { RANGES = 12, CHILDREN = 16 };

struct index_node {
    uint32_t count; /* ranges or children */
    uint32_t level; /* 0: leaf */
    union {
        struct { /* unused separators: UINTPTR_MAX */
            uintptr_t separator[CHILDREN - 1];
            _Atomic(struct index_node *) child[CHILDREN];
        };
        struct { /* unused starts: UINTPTR_MAX */
            uintptr_t start[RANGES];
            _Atomic uintptr_t end[RANGES]; /* == start: removed */
            uint32_t value[RANGES];
        };
    };
};
_Static_assert(sizeof(struct index_node) == 256, "four cache lines");

/* All: the writer. */
bool index_nodes_prepare(struct index *index,
                         size_t n); /* sees to it that n can be taken; false: no memory */
struct index_node *index_node_new(struct index *index, unsigned level); /* contents undefined */
void index_node_retire(struct index *index, struct index_node *node);   /* no new reader finds it */
void index_nodes_clear(struct index *index);                            /* no readers; unmaps all */

#endif
