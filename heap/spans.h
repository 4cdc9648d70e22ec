/* heap/spans.h -- span records and the lists of spans by layout (private to heap/). */
#ifndef GREY_HEAP_SPANS_H
#define GREY_HEAP_SPANS_H

#include "heap/heap.h"

int spans_init(void);
void spans_shutdown(void);
void spans_fork_child(void);
/* A layout is about to get its number. */
void spans_init_list(uint32_t layout);

/* Pages and a record, in state SPAN_BUILDING, owned by self: no reader finds it.  NULL: ENOMEM. */
struct span *span_build(struct thread *self, size_t pages, size_t alignment);
/* What the thread has cached goes back.  As heap_give_up_runs. */
void spans_give_up_pages(struct thread *thread);
/* Shows the span to readers: page tables last (release). */
void span_publish(struct span *span, uint32_t layout, enum span_place place);
/* Back to the page allocator.  Flag held or never published; nobody else knows the span. */
void span_free(struct span *span);

/* A span of layout `number` with at least one free cell, owned by self and swept; a new one if need be. */
struct span *span_get(struct thread *self, uint32_t number);
/* Flag held: the owner is done with it. */
void span_give_back(struct span *span);

#endif
