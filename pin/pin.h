/* pin/ -- roots that the program sets by call: pinners, and handles for C APIs (PN-1..PN-20).
 *
 *     handles.c    grey_hold, grey_held, grey_drop
 *     pinners.c    pinners: what each has pinned; those that were lost
 *     objects.c    what is known of a pinned object: that it is, and how often
 *
 * What is held or pinned is a word in a table record, and the records are roots of every cycle.  A pointer
 * into a foreign region is kept as the region's handle: release makes it empty (PN-6).
 *
 * Roots that change while they are read.  A root job reads the records of a cycle while threads add and
 * remove.  What it misses needs no visit:
 *   - what was set in a section that saw the phase OFF is there when arm's FENCE is complete, before the job;
 *   - what was set in a section that saw it ON was shaded in that section, while the caller held it;
 *   - what was taken back keeps nothing: who took it back, or read it before, has it on a stack, and no stack
 *     is asked before the root jobs are done.
 * A word that belongs to a use of the record that is over is only conservative.
 *
 * May call: foreign/, arena/'s, sweep/'s and mark/'s headers, barrier/, mutator/, heap/, os/.
 */
#ifndef GREY_PIN_PIN_H
#define GREY_PIN_PIN_H

#include "heap/heap.h"
#include "mark/mark.h"

int pin_init(void); /* 0, ENOMEM */
void pin_shutdown(void);
void pin_fork_child(void);

/* Roots (1.3): records [first, end). */
void pin_mark_stores(struct tracer *tracer, uint32_t first, uint32_t end);
uint32_t pin_stores_end(void);
void pin_mark_handles(struct tracer *tracer, uint32_t first, uint32_t end);
uint32_t pin_handles_end(void);
/* For the verifier: the same roots. */
void pin_each_root(void (*fn)(uintptr_t word, void *arg), void *arg);

/* 1.6, round CLOSED, phase ON: finds pinners that are white and have pins (PN-12). */
void pin_find_leaked(void);
/* 1.7, after finish's FENCE: drops their pins, as GREY_DEBUG=pinleak says, a bounded number a call.  False:
 * there was nothing left. */
bool pin_drop_leaked(void);

/* What the thread keeps for its next pin goes back (PN-11).  Its own section, or whoever acts for it. */
void pin_give_up_cache(struct thread *thread);

/* Gauges, too (inspect/gauges.h). */
uint64_t pin_count(void);   /* pins that are set */
uint64_t pin_handles(void); /* handles that are held */

#endif
