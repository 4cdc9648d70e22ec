/* gather.h -- the values of a long reply, taken while their key is locked and written when it isn't any more.
 *
 * A list, set or hash may have a million elements.  Copying them into the output under the lock would hold up
 * everybody who works on a key of the same stripe; taking their addresses is quick, and since values never
 * change nothing else is needed.  The addresses live in an arena, for as long as the command runs.
 *
 * Short replies are written at once: for them the arena would cost more than the lock.
 */
#ifndef CACHED_GATHER_H
#define CACHED_GATHER_H

#include "command.h"

struct gathered; /* in the arena */

/* On the stack of the command; zeroed. */
struct gather {
    struct call *call;
    struct grey_arena *arena; /* NULL: the reply is short, or there is none */
    struct gathered *values;
    size_t n;
};

/* With the key locked: replies with an array of n values, and then the values.  False: there is no memory,
 * which was answered. */
bool gather_begin(struct gather *gather, struct call *call, size_t n);
void gather_add(struct gather *gather, const struct bytes *value);

/* After the unlock: writes what was gathered, and frees the arena. */
void gather_end(struct gather *gather);

#endif
