/* heap/pages.h -- the page allocator (private to heap/). */
#ifndef GREY_HEAP_PAGES_H
#define GREY_HEAP_PAGES_H

#include "heap/heap.h"

int pages_init(void);
void pages_shutdown(void);
/* n pages in a row, the first a multiple of alignment pages; growing the heap if need be.  *needs_zero:
 * whether any may hold old contents.  Returns false when memory is refused.  Takes its lock. */
bool pages_alloc(size_t n, size_t alignment, size_t *first, bool *needs_zero);
/* Up to n single pages, 1 to THREAD_PAGES, in falling order of addresses; bit i of *dirty: page i has to be
 * zeroed.  How many; 0: no memory.  The heap grows for the first only. */
size_t pages_alloc_some(size_t n, uint32_t *pages, uint32_t *dirty);
void pages_free(size_t first, size_t n);
size_t pages_prefault(void); /* heap_prefault */
/* One step (heap_release_some).  All of it, in such steps. */
size_t pages_release_some(enum heap_release way, size_t most, bool *more);
void pages_split_next(enum heap_release way); /* heap_split_next */
size_t pages_release(void);
void pages_note_density(void);
uint64_t pages_take_growth(void);
void pages_fork_child(void);
uint64_t pages_released(void);
uint64_t pages_free_count(void);

#endif
