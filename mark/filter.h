/* mark/filter.h -- which of some words may be pointers; see filter.c. */
#ifndef GREY_MARK_FILTER_H
#define GREY_MARK_FILTER_H

#include "barrier/barrier.h"
#include "os/simd.h"

/* The heap, and what lies outside it (length 0: nothing does). */
struct filter_bounds {
    uintptr_t base;
    size_t extent;
    struct outside outside;
};

/* Copies to out, in their order, those of the n words that lie within one of the bounds; how many.  `at` is
 * aligned to a word; out has room for n words, and all of it may be written. */
typedef size_t filter_function(const struct filter_bounds *bounds, const uintptr_t *at, size_t n,
                               uintptr_t *out);

filter_function *filter_kernel(enum os_simd simd); /* the fastest up to this one, which must be supported */

/* The one that is used: before any tracer runs. */
extern filter_function *filter_words;
void filter_init(void);

#endif
