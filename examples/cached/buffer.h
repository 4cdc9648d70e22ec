/* buffer.h -- a growing byte buffer in malloc memory: the input of a connection, the text of its output.
 *
 * malloc memory is invisible to the collector, so a buffer holds copies of bytes and never a heap
 * pointer.  When memory runs out the buffer remembers it in failed and swallows what follows; the
 * connection looks once, at the end, and closes.
 */
#ifndef CACHED_BUFFER_H
#define CACHED_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

struct buffer {
    char *at;
    size_t size, capacity;
    bool failed;
};

/* Room for n more bytes, at + size being where they go; false: failed. */
bool buffer_reserve(struct buffer *buffer, size_t n);
void buffer_append(struct buffer *buffer, const void *bytes, size_t n);

/* Removes the first n bytes. */
void buffer_consume(struct buffer *buffer, size_t n);

/* Empties it and keeps a small allocation for the next use; a big one is freed. */
void buffer_reset(struct buffer *buffer);
void buffer_free(struct buffer *buffer);

#endif
