/* tests/support_foreign.h -- foreign regions that know what has happened to them.
 *
 * A test must know where a region is without keeping it alive, so a record has its complement; and what
 * makes and drops regions runs on threads of its own, which take every stale word of their stacks and
 * registers with them.  Then death is certain and tests may ask for it exactly, not for nine of ten.
 *
 * The cleanup of a region checks what every cleanup must find (FR-25, FR-26): the range that was registered,
 * for the first time, and gone from the index.  What is wrong there ends the program: a cleanup thread
 * cannot tell cmocka.
 */
#ifndef GREY_TESTS_SUPPORT_FOREIGN_H
#define GREY_TESTS_SUPPORT_FOREIGN_H

#include "grey.h"

#include <stdatomic.h>

struct region {
    uintptr_t hidden; /* ~start */
    size_t size;
    grey_foreign handle;
    _Atomic unsigned died;               /* how often its cleanup ran */
    void (*also)(struct region *region); /* last in the cleanup; may be NULL */
    bool found_again;                    /* its range may be a new region's by the time of its cleanup */
};

/* Memory of its own, between two pages without access: no mapping's addresses touch it (FR-23).  0: whole
 * pages are not needed.  Dies if there is none. */
char *region_map(size_t size, int protection);
void region_unmap(void *start, size_t size);

/* Registers [start, start + size) under a record that is used for nothing else; the rest of it stays.
 * Dies if it is refused. */
void region_add(struct region *region, void *start, size_t size, unsigned flags);
/* The same on a mapping of its own. */
void region_new(struct region *region, size_t size, unsigned flags);
static inline char *region_start(const struct region *region) { return (char *)~region->hidden; }
/* The grey_foreign_fn of them all; arg is the record. */
void region_dies(uintptr_t start, size_t size, void *region);
/* Whether the index knows it, whole and by its bytes. */
bool region_found(const struct region *region);

/* For the thread that runs the test. */
void region_assert_lives(const struct region *region);
void region_assert_died(const struct region *region); /* once */

/* Runs fn on an attached thread of its own, and joins it. */
void region_thread(void (*fn)(void));
/* Two cycles; then all that was queued has run, by Grey's own threads. */
void region_settle(void);

#endif
