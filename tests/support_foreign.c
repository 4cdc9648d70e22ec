/* tests/support_foreign.c -- see support_foreign.h. */
#include "support_child.h"
#include "support_foreign.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static _Noreturn void wrong(const struct region *region, const char *what)
{
    fprintf(stderr, "region %p, %zu bytes: %s\n", (void *)region_start(region), region->size, what);
    abort();
}

static size_t whole_pages(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (size + page - 1) & ~(page - 1);
}

char *region_map(size_t size, int protection)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = whole_pages(size);
    char *all = mmap(NULL, whole + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED || (protection != PROT_NONE && mprotect(all + page, whole, protection) != 0)) {
        perror("region_map");
        abort();
    }
    return all + page;
}

void region_unmap(void *start, size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (munmap((char *)start - page, whole_pages(size) + 2 * page) != 0) {
        perror("region_unmap");
        abort();
    }
}

static void *find(void *arg)
{
    const struct region *region = arg;
    uintptr_t start = 0;
    size_t size = 0;
    const size_t at[] = {0, region->size / 2, region->size - 1};
    for (int i = 0; i < 3; i++)
        if (!grey_foreign_find(region_start(region) + at[i], &start, &size) || start != ~region->hidden ||
            size != region->size)
            return NULL;
    return arg; /* a record is no heap object: only that it is not NULL matters */
}

/* On another thread, as it handles addresses. */
bool region_found(const struct region *region)
{
    pthread_t thread;
    void *found = NULL;
    if (grey_thread_create(&thread, NULL, find, (void *)region) != 0 || grey_thread_join(thread, &found) != 0)
        wrong(region, "could not be looked for: no thread");
    return found != NULL;
}

void region_assert_lives(const struct region *region)
{
    if (atomic_load(&region->died) != 0 || !region_found(region))
        fail_msg("a region of %zu bytes died", region->size);
}

void region_assert_died(const struct region *region)
{
    if (atomic_load(&region->died) != 1)
        fail_msg("a region of %zu bytes died %u times", region->size, atomic_load(&region->died));
}

void region_dies(uintptr_t start, size_t size, void *arg)
{
    struct region *region = arg;
    if (start != ~region->hidden || size != region->size)
        wrong(region, "its cleanup got another range");
    if (atomic_fetch_add(&region->died, 1) != 0)
        wrong(region, "died twice");
    if (!region->found_again && grey_foreign_find((void *)start, NULL, NULL))
        wrong(region, "is found in its own cleanup");
    if (grey_foreign_release(region->handle))
        wrong(region, "could be released in its own cleanup");
    if (region->also != NULL)
        region->also(region);
}

void region_add(struct region *region, void *start, size_t size, unsigned flags)
{
    region->hidden = ~(uintptr_t)start;
    region->size = size;
    region->handle = 0;
    atomic_store(&region->died, 0);
    int error = grey_foreign_add(start, size, flags, region_dies, region, &region->handle);
    if (error != 0 || region->handle == 0)
        wrong(region, "was refused");
}

void region_new(struct region *region, size_t size, unsigned flags)
{
    region_add(region, region_map(size, PROT_READ | PROT_WRITE), size, flags);
}

static void *call(void *fn)
{
    (*(void (**)(void))fn)();
    return NULL;
}

void region_thread(void (*fn)(void))
{
    pthread_t thread;
    void (*function)(void) = fn;
    if (grey_thread_create(&thread, NULL, call, &function) != 0 || grey_thread_join(thread, NULL) != 0) {
        fprintf(stderr, "no thread\n");
        abort();
    }
}

void region_settle(void)
{
    grey_collect();
    grey_collect();
    if (!grey_cleanup_wait(60ll * 1000 * 1000 * 1000)) {
        fprintf(stderr, "cleanups do not come to an end\n");
        abort();
    }
}
