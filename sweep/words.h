/* sweep/words.h -- moving mark words to allocation words; see words.c. */
#ifndef GREY_SWEEP_WORDS_H
#define GREY_SWEEP_WORDS_H

#include "heap/heap.h"
#include "os/simd.h"

/* A mark was set where nothing is allocated; the words that show it are as they were. */
#define SWEEP_WRONG UINT32_MAX

/* In each of the pages the mark words become the allocation words, and are cleared.  How many bits were set,
 * or SWEEP_WRONG.  Under the flag of the span that the pages are of. */
typedef uint32_t sweep_function(struct page_bits *bits, uint32_t pages);

sweep_function *sweep_kernel(enum os_simd simd); /* the fastest up to this one, which must be supported */

/* The one that is used: before any span is swept. */
extern sweep_function *sweep_words;
void sweep_words_init(void);

#endif
