/* tests/hooks/support_hooks.h -- how a test holds a race open (TR-15).
 *
 * The library calls a hook at named points (OS_HOOKS, os/os.h).  A test arms a stop at one of them; the
 * first thread that passes waits there until the test releases it.  Meanwhile the test lets another thread
 * do what would have to fit into nanoseconds.
 *
 * The test itself (the director) is no attached thread, so no cycle waits for it; what a scenario needs of
 * mutators is done by actors, threads that go from stage to stage.  Between stages an actor spins, outside
 * the library, and answers by signal; what it holds is on its stack.
 */
#ifndef GREY_TESTS_SUPPORT_HOOKS_H
#define GREY_TESTS_SUPPORT_HOOKS_H

#include "barrier/barrier.h"
#include "grey.h"
#include "support_heap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* ---- stops -------------------------------------------------------------------------------------------- */

/* Arms a stop; what: only who passes with this, NULL: anybody.  At most 8 at a time. */
int stop_at(enum os_hook point, const void *what);
/* Waits until somebody stands there; false after ms. */
bool stop_reached(int stop, unsigned ms);
void stop_release(int stop);
/* Called at every hook, if set; in signal handlers too. */
extern void (*_Atomic hooks_also)(enum os_hook point, const void *what);
unsigned hooks_passed(enum os_hook point); /* how often, since hooks_up */

/* ---- the library --------------------------------------------------------------------------------------- */

/* Starts it with these debug options and those of the environment; cycles begin only when asked for. */
void hooks_up(const char *debug);
/* Every heap that a scenario leaves is verified, then the library goes down. */
void hooks_down(void);
/* Asks for a cycle. */
void cycle_begin(void);
/* Waits until as many cycles are over since hooks_up; dies after PATIENCE_MS. */
void cycle_await(uint64_t number);
uint64_t cycles_over(void);
/* n cycles: with two, what the first has freed is swept, and clobbered with clobberfree=1. */
void cycles_run(unsigned n);

/* ---- actors -------------------------------------------------------------------------------------------- */

/* The stage of the scenario: whoever waits for it goes on when it is reached. */
void stage_set(int stage);
void stage_await(int stage);               /* actors; dies after PATIENCE_MS */
bool stage_within(int stage, unsigned ms); /* the director */
/* An actor attaches, runs fn and detaches; actor_join waits for its end. */
pthread_t actor_start(void (*fn)(void));
void actor_join(pthread_t actor);

/* ---- objects ------------------------------------------------------------------------------------------- */

/* A list of cells that know their place in it; clobbered ones don't. */
struct cell {
    struct cell *next, *other;
    uint64_t number, check;
};
struct cell *cells_new(size_t n); /* numbers n-1 down to 0, by next */
/* The list is whole: n cells, all of them allocated.  Dies otherwise. */
void cells_check(const struct cell *list, size_t n);
/* Overwrites dead frames and the registers that calls may change. */
void wipe_stack(void);
_Noreturn void hooks_fail(const char *what);
#define HOOKS_CHECK(x) ((x) ? (void)0 : hooks_fail(#x))

/* cmocka's tests of this program, or those that the first argument names. */
int hooks_main(int argc, char **argv, const struct CMUnitTest *tests, size_t n);

#endif
