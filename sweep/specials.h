/* sweep/specials.h -- what is to happen when an object dies: cleanups, finalizers, weak references.
 *
 * A special hangs on its object's span, in order of address; spans that have none pay one test a sweep.
 * Lists are changed under the span's sweep flag, and only on a swept span (OR-12).
 */
#ifndef GREY_SWEEP_SPECIALS_H
#define GREY_SWEEP_SPECIALS_H

#include "heap/heap.h"
#include "mark/mark.h"

int specials_init(void);
void specials_shutdown(void);
void specials_fork_child(void);

/* Flag held, before the span's marks are moved: queues what died, keeps what has a finalizer (by marking
 * it), drops weak references of what died. */
void specials_sweep(struct span *span);
/* 1.6, round CLOSED, phase ON: clears every weak cell whose target is white. */
void specials_clear_weak(void);
/* Roots (1.3), indexes [first, end): arguments of cleanups, contents of objects with finalizers, weak cells. */
void specials_mark(struct tracer *tracer, uint32_t first, uint32_t end);
uint32_t specials_end(void);
/* For the verifier: the same roots.  contents: everything in the object is reachable, the object need not be. */
void specials_each_root(void (*word)(uintptr_t word, void *arg), void (*contents)(uintptr_t base, void *arg),
                        void *arg);
uint64_t specials_weak(void); /* weak references whose target lives */

#endif
