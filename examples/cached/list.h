/* list.h -- a doubly linked list of byte strings in the Grey heap.
 *
 * Rings of pointers (each node is pointed to by both its neighbours) are what reference counting
 * cannot free and a tracing collector doesn't notice.  The caller serialises.
 */
#ifndef CACHED_LIST_H
#define CACHED_LIST_H

#include "bytes.h"

struct list_node {
    struct list_node *before, *after;
    struct bytes *value;
};

struct list {
    struct list_node *first, *last;
    size_t length;
};

enum list_end { LIST_FIRST, LIST_LAST };

/* NULL: ENOMEM. */
struct list *list_new(void);

/* Adds at that end; false: ENOMEM. */
bool list_push(struct list *list, enum list_end end, struct bytes *value);

/* Takes the value at that end; NULL if the list is empty. */
struct bytes *list_pop(struct list *list, enum list_end end);

/* The node at index (0 is the first), walked to from the nearer end; NULL beyond. */
struct list_node *list_at(const struct list *list, size_t index);

#endif
