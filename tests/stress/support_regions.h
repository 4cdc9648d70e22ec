/* tests/stress/support_regions.h -- threads that map, register, share, drop, find and release foreign regions
 * under endless cycles.  For tests/stress/foreign_test.c, and for foreign_fork_test.c, which forks meanwhile.
 */
#ifndef GREY_TESTS_SUPPORT_REGIONS_H
#define GREY_TESTS_SUPPORT_REGIONS_H

#include "grey.h"

/* Starts the threads and the cycles, once a program.  They work until the time that it returns. */
uint64_t regions_start(void);
/* Waits for them; drops everything; all regions have died or were released, once. */
void regions_end(void);

/* A scanned region with lists in it, which the caller holds; NULL: no place is free. */
void *regions_new(uint64_t *random, grey_foreign *handle);
/* p is held: its region is there, and all that leads from it. */
void regions_check(const void *p);
/* The same for what the threads share.  Alone in the child of a fork. */
void regions_check_shared(void);
/* In the child of a fork: cleanups check, and leave the books alone, which other threads had locked. */
void regions_in_child(void);

#endif
