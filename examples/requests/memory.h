/* memory.h -- where the objects of a request come from: its arena, or the heap.
 *
 * The one place that knows of both.  Everything else asks for memory and doesn't care, so the same program
 * shows what arenas save: in the heap each request leaves garbage for the collector to find; in an arena it
 * leaves nothing.
 */
#ifndef REQUESTS_MEMORY_H
#define REQUESTS_MEMORY_H

#include <grey.h>

struct memory {
    struct grey_arena *arena; /* NULL: the heap */
};

/* 0 or ENOMEM.  The memory lies on the stack, where the collector sees the arena's handle. */
int memory_open(struct memory *memory);

/* Frees all that was taken from the arena.  Nothing may point to it any more. */
void memory_close(struct memory *memory);

/* Zeroed; NULL: no memory.  Bytes are never scanned. */
void *memory_new(struct memory *memory, const struct grey_type *type);
void *memory_array(struct memory *memory, const struct grey_type *type, size_t count);
char *memory_bytes(struct memory *memory, size_t size);

/* A copy with a zero byte behind it. */
char *memory_copy(struct memory *memory, const char *from, size_t size);

#endif
