/* tests/unit/support_os.h -- what the unit tests of os/ and of unmanaged memory share: deaths, seeds, maps.
 *
 * A fatal error is tested in a child process, whose standard error is kept and whose end is looked at.
 * The tests of these rooms run before there is a library, so support_os.c also stands in for the two
 * symbols that os/ expects of the rooms above.
 */
#ifndef GREY_TESTS_SUPPORT_OS_H
#define GREY_TESTS_SUPPORT_OS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>

struct child_end {
    int signal;         /* that ended it, or 0 */
    int status;         /* of exit, or -1 */
    char message[4096]; /* standard error */
};

/* Runs fn(arg) in a child; a return from it is exit(0).  The answer is valid until the next call. */
const struct child_end *run_child(void (*fn)(void *arg), void *arg);
/* The child must abort, with this text on standard error. */
void assert_dies(void (*fn)(void *arg), void *arg, const char *message);

/* How often thread_poll's stand-in was called. */
extern _Atomic unsigned support_polls;

/* From GREY_TEST_SEED, else from the clock; printed, so that a failure can be repeated. */
uint64_t support_seed(void);
uint64_t support_random(uint64_t *state);

/* The mapping that holds p: its line of /proc/self/smaps, borders, and flags.  False: there is none. */
struct mapping {
    uintptr_t start, end;
    char line[256], flags[256];
};
bool support_mapping(const void *p, struct mapping *mapping);

#endif
