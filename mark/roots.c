/* mark/roots.c -- registered roots: grey_root_add, GREY_ROOT.
 *
 * A range's words are scanned once a cycle, after arm, in pieces (jobs.c); what is stored into it
 * afterwards comes through the barrier.  A range added during a cycle is shaded by the caller instead.
 * Both lists are under the roots lock.  GREY_ROOT's records lie in the program's data and register when
 * their object file is loaded, maybe before the library is up and from a thread that isn't attached.
 */
#include "heap/unmanaged.h"
#include "mark/internal.h"

#include <errno.h>

static struct os_lock lock = OS_LOCK_INIT(OS_RANK_ROOTS);
static struct grey_root_ *dynamic, *declared;
static struct pool pool;

void roots_lock(void) { os_lock(&lock); }
void roots_unlock(void) { os_unlock(&lock); }

void roots_each(void (*fn)(void *start, size_t size, const struct grey_root_ *root, void *arg), void *arg)
{
    for (const struct grey_root_ *root = dynamic; root != NULL; root = root->next)
        fn(root->start, root->size, root, arg);
    for (const struct grey_root_ *root = declared; root != NULL; root = root->next)
        fn(root->start, root->size, root, arg);
}

/* At least one aligned word inside. */
static bool holds_a_word(const void *start, size_t size)
{
    uintptr_t first = ((uintptr_t)start + 7) & ~(uintptr_t)7;
    return start != NULL && size <= UINTPTR_MAX - (uintptr_t)start && first >= (uintptr_t)start &&
           first + 8 <= (uintptr_t)start + size;
}

static struct grey_root_ **find(void *start, size_t size)
{
    struct grey_root_ **link = &dynamic;
    while (*link != NULL && ((*link)->start != start || (*link)->size != size))
        link = &(*link)->next;
    return link;
}

int grey_root_add(void *start, size_t size)
{
    if (!holds_a_word(start, size))
        return EINVAL;
    struct thread *self = heap_thread("grey_root_add");
    if (self == NULL)
        return ENOMEM;
    int error = 0;
    thread_enter(self);
    roots_lock();
    struct grey_root_ *root = *find(start, size);
    if (root != NULL) {
        root->count++;
    } else {
        if (!pool.ready)
            pool_init(&pool, sizeof(*root), OS_MARK, NULL);
        root = pool_alloc(&pool);
        if (root != NULL) {
            *root = (struct grey_root_){start, size, dynamic, 1};
            dynamic = root;
        } else {
            error = ENOMEM;
        }
    }
    roots_unlock();
    thread_leave(self);
    if (error == 0)
        shade_range(self, start, size); /* UM-10 */
    return error;
}

/* Waits, outside sections, until no worker is inside the root. */
static void wait_for_scanner(struct thread *self, const struct grey_root_ *root)
{
    mark_hurry(MARK_WAITED_FOR);
    for (unsigned n = 0;; os_pause(&n)) {
        if (self != NULL)
            thread_enter(self);
        roots_lock();
        bool running = jobs_cancel(root);
        roots_unlock();
        if (self != NULL)
            thread_leave(self);
        if (!running)
            return;
    }
}

int grey_root_remove(void *start, size_t size)
{
    if (!holds_a_word(start, size))
        return EINVAL;
    struct thread *self = heap_thread("grey_root_remove");
    if (self == NULL)
        return ENOMEM;
    thread_enter(self);
    roots_lock();
    struct grey_root_ **link = find(start, size), *root = *link;
    bool last = root != NULL && --root->count == 0;
    if (last)
        *link = root->next;
    roots_unlock();
    thread_leave(self);
    if (root == NULL)
        return ENOENT;
    if (!last)
        return 0;
    wait_for_scanner(self, root);
    thread_enter(self);
    roots_lock();
    pool_free(&pool, root);
    roots_unlock();
    thread_leave(self);
    return 0;
}

void grey_root_register_(struct grey_root_ *root)
{
    struct thread *self = thread_self();
    if (self != NULL)
        thread_enter(self);
    roots_lock();
    root->next = declared;
    declared = root;
    roots_unlock();
    if (self != NULL) {
        thread_leave(self);
        shade_range(self, root->start, root->size);
    }
}

void grey_root_unregister_(struct grey_root_ *root)
{
    struct thread *self = thread_self();
    if (self != NULL)
        thread_enter(self);
    roots_lock();
    struct grey_root_ **link = &declared;
    while (*link != NULL && *link != root)
        link = &(*link)->next;
    if (*link != NULL)
        *link = root->next;
    roots_unlock();
    if (self != NULL)
        thread_leave(self);
    wait_for_scanner(self, root);
}

/* Those added at run time are gone; GREY_ROOT's stay (ER-6). */
void roots_shutdown(void)
{
    roots_lock();
    while (dynamic != NULL) {
        struct grey_root_ *root = dynamic;
        dynamic = root->next;
        pool_free(&pool, root);
    }
    roots_unlock();
}

void roots_fork_child(void) { os_lock_init(&lock, OS_RANK_ROOTS); }
