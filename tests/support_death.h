/* tests/support_death.h -- what tests of cleanups, finalizers and weak references share.
 *
 * Conservative stacks make it hard to say when an object is unreachable: a word that some call left behind
 * may keep it.  So objects are made, dropped and looked at by threads that exist only for that; nothing
 * remains of their stacks, and counts are exact.  The test itself never has such an address in its hands.
 */
#ifndef GREY_TESTS_SUPPORT_DEATH_H
#define GREY_TESTS_SUPPORT_DEATH_H

#include "grey.h"

#include <stdatomic.h>

/* Runs fn(arg) in an attached thread of its own and waits for its end. */
void apart(void (*fn)(void *arg), void *arg);
/* One cycle, swept; then runs in a thread of its own what was queued, by grey_cleanup_run.  How many ran.
 * The program is in charge: death_init. */
size_t death_cycle(void);
/* The same, until a cycle has brought nothing new; how many ran. */
size_t death_settle(void);
/* Group set-up: no automatic cycles, no threads for cleanups. */
int death_init(void **state);

/* A place that grey knows nothing of; what is in it keeps nothing alive. */
#define HIDE(p) (~(uintptr_t)(p))
#define SHOW(hidden) ((void *)~(hidden))

/* A cleanup that counts: arg is an index. */
enum { DEATHS = 1 << 18 };
extern _Atomic unsigned deaths[DEATHS];
void count_death(void *index);
unsigned deaths_of(size_t from, size_t to); /* sum over [from, to) */
void deaths_reset(void);

#endif
