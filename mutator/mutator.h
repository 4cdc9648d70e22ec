/* mutator/ -- attached threads: registry, stacks, the handshake, FENCE, blocking regions.
 *
 *     registry.c    thread blocks, attach and detach, grey_thread_create and _join
 *     handshake.c   requests, answers by poll, by signal and on behalf, holds (protocol.md 1, 2.6)
 *     stack.c       stack bounds, registered stacks, copying the words that could matter
 *     fence.c       FENCE: membarrier and busy words, or a handshake that asks nothing
 *     blocking.c    grey_blocking_call and its halves
 *     capture.S     callee-saved registers on the stack
 *
 * The list lock guards the list of attached threads and is held for the one step that begins a round, for
 * attach and exit, never while waiting for answers.  May call: barrier/'s header, heap/, os/.
 */
#ifndef GREY_MUTATOR_MUTATOR_H
#define GREY_MUTATOR_MUTATOR_H

#include "os/thread.h"

/* ---- registry ------------------------------------------------------------------------------------------ */

int mutator_init(int signal); /* installs the handler; 0 or an errno value */
void mutator_shutdown(void);
/* The calling thread's block, attaching it if need be; NULL: ENOMEM. */
struct thread *mutator_attach(void);
void mutator_lock_list(void);
void mutator_unlock_list(void);
struct thread *mutator_first(void); /* list lock */
uint64_t mutator_threads(void);
bool mutator_only_caller(void); /* nobody else is attached */
/* blacken (1.2): for each attached thread, under the list lock. */
void mutator_each(void (*fn)(struct thread *thread, void *arg), void *arg);
/* Arguments and results of created threads (1.3). */
void mutator_each_created_slot(void (*fn)(uintptr_t word, void *arg), void *arg);
/* runs array to at least n; outside sections */
void mutator_grow_runs(struct thread *self, uint32_t n);

/* ---- the handshake --------------------------------------------------------------------------------------- */

/* 1.4, one step under the list lock: if ready(), requests all attached threads' stacks.  ticket: not 0, a
 * new one each time.  False if not ready: nothing was done. */
bool mutator_round_begin(uint32_t ticket, bool held, uint64_t cycle, bool (*ready)(void));
/* Waits for all answers, calling meanwhile() in between, which returns true if it did something. */
void mutator_round_wait(bool (*meanwhile)(void));
/* A no-op handshake: every thread has answered since the call (2.1, FENCE without membarrier). */
void mutator_handshake(void);
/* Held rounds: seals the hold; false if it was called off.  Then mutator_release. */
bool mutator_seal(uint32_t ticket);
void mutator_release(void);
/* stoptheworld: a no-op handshake after which all threads wait until mutator_start_world.  False: not all
 * answered in time; nobody is held. */
bool mutator_stop_world(void);
void mutator_start_world(void);
/* A hold or stop is on: somebody whom the collector would wait for may be unable to move. */
bool mutator_holds(void);
/* Locks what may be held while its holder waits for this thread's answer.  The caller may block signals. */
void mutator_lock_answering(pthread_mutex_t *mutex);
uint64_t mutator_stack_bytes(bool reset); /* copied since the last reset */

/* ---- FENCE ------------------------------------------------------------------------------------------------- */

void mutator_fence(void);
bool mutator_membarrier(void); /* whether FENCE uses it */

/* ---- regions and stacks -------------------------------------------------------------------------------------- */

/* Runs fn in a blocking region of an attached thread, or just so. */
int mutator_blocking(int (*fn)(void *arg), void *arg);
/* Copies the words of [from, to) that could point into the heap into the thread's copy buffers. */
void mutator_copy_words(struct thread *thread, const char *from, const char *to);
void mutator_copy_stacks(struct thread *thread, char *sp);
bool mutator_stack_overlaps(const char *low, const char *high);
bool mutator_copy_given(struct thread *thread); /* publishes what was copied */
/* Calls fn(arg, sp) with the callee-saved registers on the stack above sp. */
long mutator_capture(long (*fn)(void *arg, char *sp), void *arg);

/* ---- fork -------------------------------------------------------------------------------------------------------- */

void mutator_fork_prepare(void); /* waits until no other thread is in a section; gate set */
void mutator_fork_lock(void);    /* list and join locks, in rank order */
void mutator_fork_parent(void);
void mutator_fork_child(void); /* the caller is the only thread */

#endif
