/* sweep/cleanups.h -- running what was queued because something died (CF-9..CF-13, CF-15).
 *
 * Two queues, first in, first out: cleanups, run by a small pool of attached threads; and finalizers, run one
 * after the other by one thread.  The threads start on first use.  After grey_cleanup_fd the program runs all
 * of it itself, in grey_cleanup_run.
 *
 * What is queued is a record that its owner (a special, a foreign region) embeds in its own, so queueing
 * needs no memory and can't fail, and the owner's root job keeps arguments alive until done() is called.
 * Queued only while the phase is OFF, by whoever sweeps.
 */
#ifndef GREY_SWEEP_CLEANUPS_H
#define GREY_SWEEP_CLEANUPS_H

#include "mark/mark.h"

struct queued {
    struct queued *next;
    uint64_t sequence;                 /* 0: one more than that of the item before it */
    void (*run)(struct queued *self);  /* calls the program's function: no lock, no section */
    void (*done)(struct queued *self); /* after that, in a section: the owner may give the record back */
};

int cleanups_init(void);
/* Ends Grey's own threads, which are attached; waits for functions that they are running.  Before the check
 * that no thread is attached.  Fatal in a cleanup. */
void cleanups_stop(void);
void cleanups_shutdown(void); /* what has not run is dropped (FR-34) */
void cleanups_fork_child(void);

/* Sees to it that there are threads to run cleanups, or finalizers; 0 or an errno value.  Outside sections,
 * whenever something is registered that may be queued some day. */
int cleanups_start(bool finalizers);
/* In a fork's child: the same for those that the parent had; else nothing.  Outside sections. */
void cleanups_start_again(void);
/* What died together, in order; {0} is empty.  The caller's alone until it is queued. */
struct queued_chain {
    struct queued *first, *last;
    uint64_t n;
};
static inline void cleanups_chain(struct queued_chain *chain, struct queued *item)
{
    item->next = NULL;
    item->sequence = 0; /* follows the one before it */
    if (chain->last != NULL)
        chain->last->next = item;
    else
        chain->first = item;
    chain->last = item;
    chain->n++;
}
/* In a busy section, or a collector thread; no lock above OS_RANK_CLEANUPS held.  However long the chain is:
 * one short hold of the lock, at most one call that wakes, one thread for each 20 that wait.  An empty one:
 * nothing. */
void cleanups_queue_chain(const struct queued_chain *chain);
void cleanups_queue_finalizers(const struct queued_chain *chain);
/* Wakes somebody if anything waits: at the end of a sweep. */
void cleanups_flush(void);
uint64_t cleanups_queued(void), cleanups_run(void); /* since start; finalizers too */

#endif
