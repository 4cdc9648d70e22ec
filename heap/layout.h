/* heap/layout.h -- size classes and types by number (private to heap/). */
#ifndef GREY_HEAP_LAYOUT_H
#define GREY_HEAP_LAYOUT_H

#include "heap/heap.h"

void layouts_init(void);
void layouts_fork_child(void);
unsigned class_of(size_t size);
/* The type's number, interning it if need be; -1 with errno EINVAL, ENOMEM.  Takes a lock. */
int64_t type_intern(const struct grey_type *type);

#endif
