/* inspect/later.c -- calls that the interface has already and this release doesn't answer.
 *
 * They are there so that programs can be written and linked against the whole interface now: ENOSYS is
 * their documented answer, after the kernel's manner for a call that exists in name only.  The heap
 * profile needs allocation sites, the path to an object needs a marker that remembers edges, and the
 * trace needs events from inside a cycle; none of these is kept yet.
 */
#include "grey.h"

int grey_heap_profile_write(int fd)
{
    (void)fd;
    return ENOSYS;
}

int grey_heap_why(const void *object, int fd)
{
    (void)object;
    (void)fd;
    return ENOSYS;
}

void grey_set_trace(void (*fn)(const struct grey_trace_event *, void *), void *arg)
{
    (void)fn;
    (void)arg;
    errno = ENOSYS;
}
