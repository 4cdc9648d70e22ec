/* tests/support_child.h -- runs a part of a test in a process of its own.
 *
 * For what ends a process (fatal misuse), for what must be seen from the very start (first calls, the
 * environment) and for limits that cannot be taken back.  The child is the test program run again, not a
 * fork: it starts without the library up and with one thread, so sanitizers are at ease with it too.
 *
 * A test program lists its cases and lets child_main look at its arguments first:
 *
 *     static const struct child_case cases[] = {{"detach_blocked", detach_blocked}};
 *     int main(int argc, char **argv) { CHILD_MAIN(argc, argv, cases); return cmocka_run_...; }
 */
#ifndef GREY_TESTS_SUPPORT_CHILD_H
#define GREY_TESTS_SUPPORT_CHILD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct child_case {
    const char *name;
    void (*run)(void);
};
struct child_end {
    int status, signal; /* exit status, or -1; what killed it, or 0 */
    char message[8192]; /* what it wrote to standard error */
};

/* Does not return if the arguments name a case. */
void child_main(int argc, char **argv, const struct child_case *cases, size_t n);
#define CHILD_MAIN(argc, argv, cases) child_main(argc, argv, cases, sizeof(cases) / sizeof((cases)[0]))

/* environment: NAME=value sets, NAME alone removes; NULL ends it, and may stand for the whole. */
const struct child_end *child_run(const char *name, const char *const *environment);

/* The child ends by exit(0) and wrote nothing but warnings. */
void child_passes(const char *name, const char *const *environment);
/* The child dies of SIGABRT; its message has "grey: fatal: " or "grey: internal: ", and text. */
void child_dies(const char *name, const char *const *environment, const char *text);

/* In the child: says what is wrong and ends it. */
void child_fail(const char *file, int line, const char *what);
#define CHILD_CHECK(x) ((x) ? (void)0 : child_fail(__FILE__, __LINE__, #x))

#endif
