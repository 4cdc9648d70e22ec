/* buffers.c -- one mapping cut into buffers; a region for each that is out, made anew each time.
 *
 * Regions may touch, but then a pointer to the first byte of one that lies on a stack would keep the one
 * below too, since one past the end of an object is a pointer to it.  So there is a page between them.
 *
 * The stack of free buffers lies in malloc memory: it holds numbers, and a buffer on it is no region.
 */
#include "buffers.h"

#include <grey.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { STRIDE = BUFFER_SIZE + 4096 };

static struct {
    char *start;
    unsigned n;
    pthread_mutex_t lock; /* of what follows */
    unsigned *free, n_free;
    struct buffer_figures figures;
} buffers = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Not at a multiple of 4 GiB, nor close above one.  Where a pointer was and then an int is, a stack has its upper half
 * with the int below it, which is an address there.  It would keep a buffer for as long as the frame lasts: one of
 * some 60,000 did not come back in every hundredth run.  NULL: errno says why. */
static char *map_apart(size_t size)
{
    int flags =
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE; /* two thirds go again: not to be refused for them */
    char *start = mmap(NULL, 3 * size, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (start == MAP_FAILED)
        return NULL;
    uintptr_t from = (uintptr_t)start, multiple = (from + size - 1) >> 32 << 32;
    size_t before = multiple + size > from ? multiple + size - from : 0; /* at most 2 * size - 1 */
    if (before != 0)
        munmap(start, before);
    munmap(start + before + size, 2 * size - before);
    return start + before;
}

int buffers_open(unsigned n)
{
    buffers.start = map_apart((size_t)n * STRIDE);
    if (buffers.start == NULL)
        return errno;
    buffers.free = malloc(n * sizeof *buffers.free);
    if (buffers.free == NULL) {
        munmap(buffers.start, (size_t)n * STRIDE);
        return ENOMEM;
    }
    buffers.n = n;
    for (unsigned i = 0; i < n; i++)
        buffers.free[buffers.n_free++] = i;
    return 0;
}

void buffers_close(void)
{
    munmap(buffers.start, (size_t)buffers.n * STRIDE);
    free(buffers.free);
}

static void put_back(unsigned i)
{
    pthread_mutex_lock(&buffers.lock);
    buffers.free[buffers.n_free++] = i;
    buffers.figures.back++;
    pthread_mutex_unlock(&buffers.lock);
}

/* The region's cleanup.  The region is off the books already: the buffer may be out again, as a new region,
 * before this returns. */
static void on_unreachable(uintptr_t start, size_t size, void *arg)
{
    (void)size;
    (void)arg;
    put_back((unsigned)((start - (uintptr_t)buffers.start) / STRIDE));
}

static bool take(unsigned *i)
{
    pthread_mutex_lock(&buffers.lock);
    bool there = buffers.n_free > 0;
    if (there) {
        *i = buffers.free[--buffers.n_free];
        buffers.figures.taken++;
    } else {
        buffers.figures.waits++;
    }
    pthread_mutex_unlock(&buffers.lock);
    return there;
}

void *buffer_get(void)
{
    unsigned i;

    while (!take(&i)) {
        grey_collect();
        grey_cleanup_wait(-1);
    }
    char *start = buffers.start + (size_t)i * STRIDE;
    int error = grey_foreign_add(start, BUFFER_SIZE, 0, on_unreachable, NULL, NULL);
    if (error != 0) {
        put_back(i);
        errno = error;
        return NULL;
    }
    /* A buffer in use is as good as an object of its size: so many of them make a cycle due. */
    grey_external_add(BUFFER_SIZE);
    return start;
}

struct buffer_figures buffer_figures(void)
{
    pthread_mutex_lock(&buffers.lock);
    struct buffer_figures figures = buffers.figures;
    pthread_mutex_unlock(&buffers.lock);
    return figures;
}
