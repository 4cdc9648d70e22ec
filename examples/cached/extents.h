/* extents.h -- room for large values in a mapped file.
 *
 * The file is mapped once, whole, and cut into extents.  Each extent that is in use is a foreign region: it
 * lives as long as anything points into it (an object of the store, a reply that is being sent, a thread's
 * stack), and its cleanup gives its blocks back.  To the rest of the server a value is a struct bytes, be it
 * in the heap or in an extent; nobody asks which.
 *
 * The file is scratch: what it held before is overwritten, and what is left in it means nothing.  On a file
 * system with a disk behind it, values that nobody asks for need no memory.
 */
#ifndef CACHED_EXTENTS_H
#define CACHED_EXTENTS_H

#include <stddef.h>
#include <stdint.h>

/* Makes the file that large and maps it; values of least bytes and more shall go there.  Once, before the
 * threads start.  0 or an errno value. */
int extents_open(const char *path, size_t size, size_t least);

/* After grey_shutdown. */
void extents_close(void);

/* Uninitialized, on a cache line's boundary.  NULL: too small for an extent, no file, or no room in it now:
 * it has to go into the heap. */
void *extent_new(size_t size);

struct extents_figures {
    uint64_t file, used; /* bytes */
    uint64_t made, returned, refused;
};
struct extents_figures extents_figures(void);

#endif
