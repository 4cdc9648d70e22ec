/* extents.c -- a bitmap of blocks, a region for each extent, and when to look for garbage.
 *
 * The bitmap lies in malloc memory.  Extents are never pointed to from it, only from what uses them.
 *
 * A pool of fixed size has to know how full it is with garbage, and the collector can't: it sees some words
 * that point here.  So the pool asks for a cycle itself, each time that half of what was free at the last
 * request has been handed out.  (Where there is no such bound, grey_external_add is the thing.)  A value that
 * finds no room goes into the heap, and the next cycle makes room for the ones after it.
 */
#include "extents.h"

#include <fcntl.h>
#include <grey.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BLOCK = 1024, SMALLEST_SHARE = 64 };

static struct {
    char *start;
    size_t n_blocks, least;
    pthread_mutex_t lock; /* of what follows */
    uint64_t *used;       /* a bit for each block */
    size_t n_used, next;
    size_t handed_out, allowance; /* blocks since the last request for a cycle, and before the next */
    struct extents_figures figures;
} extents = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int map_file(int file, size_t size)
{
    /* With all its blocks, so that no write to the mapping can find the disk full. */
    int error = posix_fallocate(file, 0, (off_t)size);

    if (error != 0)
        return error;
    extents.start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    return extents.start == MAP_FAILED ? errno : 0;
}

int extents_open(const char *path, size_t size, size_t least)
{
    size_t n_words = size / BLOCK / 64;
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (file < 0)
        return errno;
    int error = n_words > 0 ? map_file(file, n_words * 64 * BLOCK) : EINVAL;
    close(file);
    if (error != 0)
        return error;
    extents.used = calloc(n_words, sizeof *extents.used);
    if (extents.used == NULL) {
        munmap(extents.start, n_words * 64 * BLOCK);
        return ENOMEM;
    }
    extents.n_blocks = n_words * 64;
    extents.allowance = extents.n_blocks / 2;
    extents.least = least;
    return 0;
}

void extents_close(void)
{
    if (extents.n_blocks != 0)
        munmap(extents.start, extents.n_blocks * BLOCK);
    free(extents.used);
}

/* A block more than the bytes need, if they fill all: the byte behind the end of a region must not be the
 * first of another, since on a stack a pointer to it would keep both. */
static size_t blocks_of(size_t size) { return size / BLOCK + 1; }

/* ---- the bitmap, under the lock ------------------------------------------------------------------ */

static void set_blocks(size_t first, size_t n, bool used)
{
    for (size_t i = first; i < first + n; i++) {
        uint64_t bit = (uint64_t)1 << i % 64;
        extents.used[i / 64] = used ? extents.used[i / 64] | bit : extents.used[i / 64] & ~bit;
    }
    extents.n_used = used ? extents.n_used + n : extents.n_used - n;
}

/* The first n free blocks side by side in [from, to). */
static bool find_free(size_t from, size_t to, size_t n, size_t *first)
{
    size_t run = 0;

    for (size_t i = from; i < to; i++) {
        if (i % 64 == 0 && extents.used[i / 64] == UINT64_MAX) {
            run = 0;
            i += 63;
        } else if ((extents.used[i / 64] >> i % 64 & 1) != 0) {
            run = 0;
        } else if (++run == n) {
            *first = i + 1 - n;
            return true;
        }
    }
    return false;
}

static bool take_blocks(size_t n, size_t *first)
{
    if (!find_free(extents.next, extents.n_blocks, n, first) && !find_free(0, extents.n_blocks, n, first))
        return false;
    set_blocks(*first, n, true);
    extents.next = *first + n;
    return true;
}

/* Whether it is time for a cycle. */
static bool is_due(size_t n)
{
    extents.handed_out += n;
    if (extents.handed_out < extents.allowance)
        return false;
    size_t least = extents.n_blocks / SMALLEST_SHARE, half = (extents.n_blocks - extents.n_used) / 2;
    extents.handed_out = 0;
    extents.allowance = half > least ? half : least;
    return true;
}

/* ---- extents ---------------------------------------------------------------------------------- */

static void give_back(uintptr_t start, size_t size)
{
    pthread_mutex_lock(&extents.lock);
    set_blocks((start - (uintptr_t)extents.start) / BLOCK, blocks_of(size), false);
    extents.figures.returned++;
    pthread_mutex_unlock(&extents.lock);
}

/* The cleanup: nothing points into the extent, and it is no region any more. */
static void on_unreachable(uintptr_t start, size_t size, void *arg)
{
    (void)arg;
    give_back(start, size);
}

void *extent_new(size_t size)
{
    size_t first;

    if (extents.n_blocks == 0 || size < extents.least)
        return NULL;
    pthread_mutex_lock(&extents.lock);
    bool taken = take_blocks(blocks_of(size), &first);
    bool due = is_due(blocks_of(size));
    extents.figures.made += taken;
    extents.figures.refused += !taken;
    pthread_mutex_unlock(&extents.lock);
    if (due)
        grey_collect_start();
    if (!taken)
        return NULL;
    char *start = extents.start + first * BLOCK;
    if (grey_foreign_add(start, size, 0, on_unreachable, NULL, NULL) != 0) {
        give_back((uintptr_t)start, size);
        return NULL;
    }
    return start;
}

struct extents_figures extents_figures(void)
{
    pthread_mutex_lock(&extents.lock);
    struct extents_figures figures = extents.figures;
    figures.file = extents.n_blocks * BLOCK;
    figures.used = extents.n_used * BLOCK;
    pthread_mutex_unlock(&extents.lock);
    return figures;
}
