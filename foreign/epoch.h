/* foreign/epoch.h -- when memory that readers may still look at can be used again (FR-18).
 *
 * ck_epoch: readers enter and leave, which costs them one exchange; the writer, one at a time, puts what
 * it unlinked on a list, and it is given back once every reader who was inside has left.  Readers never
 * wait; a reader who is switched away inside delays only the reuse.
 */
#ifndef GREY_FOREIGN_EPOCH_H
#define GREY_FOREIGN_EPOCH_H

#include "os/os.h"

#include <ck_epoch.h>

struct epoch_reader; /* one thread's at a time */

int epoch_init(void); /* 0 or ENOMEM */
void epoch_shutdown(void);
void epoch_fork_child(void); /* no reader is left; all readers of before are invalid */
/* A reader; NULL: no memory.  Takes a lock.  Never freed before shutdown: give it back for another. */
struct epoch_reader *epoch_reader_new(void);
void epoch_reader_give_back(struct epoch_reader *reader);
/* Not nested.  Not in signal handlers. */
void epoch_enter(struct epoch_reader *reader);
void epoch_leave(struct epoch_reader *reader);

/* The writer, under its lock.  entry lies inside what is retired; fn gets it when nobody can see it. */
void epoch_retire(ck_epoch_entry_t *entry, void (*fn)(ck_epoch_entry_t *entry));
/* Gives back what can be given back now; never waits. */
void epoch_poll(void);

#endif
