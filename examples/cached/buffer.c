/* buffer.c -- growing by doubling; see buffer.h. */
#include "buffer.h"

#include <stdlib.h>
#include <string.h>

/* A reply beyond LARGEST (all of a list of millions, say) costs the client its connection, not the
 * server its memory. */
static const size_t SMALLEST = 4096, KEEP = 64 * 1024, LARGEST = (size_t)2 << 30;

bool buffer_reserve(struct buffer *buffer, size_t n)
{
    if (buffer->failed)
        return false;
    if (buffer->capacity - buffer->size >= n)
        return true;
    size_t capacity = buffer->capacity != 0 ? buffer->capacity : SMALLEST;
    while (capacity - buffer->size < n && capacity < LARGEST)
        capacity *= 2;
    char *at = capacity - buffer->size >= n ? realloc(buffer->at, capacity) : NULL;
    if (at == NULL) {
        buffer->failed = true;
        return false;
    }
    buffer->at = at;
    buffer->capacity = capacity;
    return true;
}

void buffer_append(struct buffer *buffer, const void *bytes, size_t n)
{
    if (n != 0 && buffer_reserve(buffer, n)) {
        memcpy(buffer->at + buffer->size, bytes, n);
        buffer->size += n;
    }
}

void buffer_consume(struct buffer *buffer, size_t n)
{
    buffer->size -= n;
    if (buffer->size != 0 && n != 0)
        memmove(buffer->at, buffer->at + n, buffer->size);
    if (buffer->size == 0)
        buffer_reset(buffer);
}

void buffer_reset(struct buffer *buffer)
{
    if (buffer->capacity > KEEP)
        buffer_free(buffer);
    buffer->size = 0;
}

void buffer_free(struct buffer *buffer)
{
    free(buffer->at);
    *buffer = (struct buffer){.failed = buffer->failed};
}
