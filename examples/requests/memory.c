/* memory.c -- arena or heap; see memory.h. */
#include "memory.h"

#include "settings.h"

#include <string.h>

int memory_open(struct memory *memory)
{
    memory->arena = NULL;
    if (!settings.arenas)
        return 0;
    memory->arena = grey_arena_new();
    return memory->arena != NULL ? 0 : errno;
}

void memory_close(struct memory *memory)
{
    grey_arena_free(memory->arena);
    memory->arena = NULL;
}

void *memory_new(struct memory *memory, const struct grey_type *type)
{
    return memory->arena != NULL ? grey_arena_new_object(memory->arena, type) : grey_new(type);
}

void *memory_array(struct memory *memory, const struct grey_type *type, size_t count)
{
    return memory->arena != NULL ? grey_arena_new_array(memory->arena, type, count)
                                 : grey_new_array(type, count);
}

char *memory_bytes(struct memory *memory, size_t size)
{
    return memory->arena != NULL ? grey_arena_alloc_leaf(memory->arena, size, 1) : grey_zalloc_leaf(size);
}

char *memory_copy(struct memory *memory, const char *from, size_t size)
{
    char *copy = memory_bytes(memory, size + 1);

    if (copy != NULL && size > 0)
        memcpy(copy, from, size);
    return copy;
}
