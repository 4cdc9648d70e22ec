/* tests/support_heap.h -- what tests of the whole library share: figures, garbage, objects that can tell
 * whether they were kept.
 */
#ifndef GREY_TESTS_SUPPORT_HEAP_H
#define GREY_TESTS_SUPPORT_HEAP_H

#include "grey.h"

/* A wait for what has to come is no bound, it only ends what hangs; ms. */
enum { PATIENCE_MS = 60000 };

struct grey_stats heap_figures(void);
/* The same once the collector is at rest: readings that agree for 200 ms. */
struct grey_stats heap_figures_at_rest(void);
/* ER-2: what no call that failed may have changed.  Not cycles: a debug mode may have begun one. */
void heap_assert_unchanged(const struct grey_stats *before, const struct grey_stats *after);

/* Overwrites what dead frames left below the caller's, so that it keeps nothing alive. */
void heap_wipe_stack(void);
/* Two cycles: what was born or dropped during the first is judged by the second (MK-21). */
void heap_collect_twice(void);
/* Allocates and fills every size class up to 1 KiB, so that a cell that was freed too early is overwritten;
 * and collects what it made. */
void heap_reuse_free_memory(void);
/* Two cycles; at least nine of ten of n objects have died since `before` (a word on some stack may keep a
 * few).  Take `before` when the garbage of others is gone and the n are still alive: an automatic cycle may
 * come early. */
void heap_assert_freed(const struct grey_stats *before, uint64_t n);

/* A leaf object that knows its number, and whether it is intact. */
void *heap_marked_leaf(size_t size, uint64_t number);
int heap_leaf_is_intact(const void *leaf, uint64_t number);

#endif
