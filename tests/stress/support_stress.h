/* tests/stress/support_stress.h -- what stress tests share: seeds, time, objects that know themselves.
 *
 * A collector that loses an object is noticed only when somebody looks at it again, and by then its cell
 * may hold another object that looks as good.  So every node here carries a seal made from its own address
 * and a serial number that is never used twice, and every edge carries the serial of the node that it leads
 * to: a swept, clobbered or reused cell differs from what its holder expects at the next step of any walk.
 *
 * Failures end the program at once with the place, the seed and what was found (a failing thread cannot
 * tell cmocka).  GREY_TEST_SECONDS says how long a test runs (3), GREY_TEST_SEED repeats one.
 */
#ifndef GREY_TESTS_SUPPORT_STRESS_H
#define GREY_TESTS_SUPPORT_STRESS_H

#include "grey.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdatomic.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define STRESS_TSAN 1
#else
#define STRESS_TSAN 0
#endif

/* Prints the seed the first time. */
uint64_t stress_seed(void);
uint64_t stress_random(uint64_t *state);
/* A number below n. */
static inline uint64_t stress_below(uint64_t *state, uint64_t n) { return stress_random(state) % n; }

uint64_t stress_now(void); /* ns */
/* Every test of a program gets an equal part of GREY_TEST_SECONDS: now plus that. */
uint64_t stress_deadline(unsigned tests);

/* The file and line are where the test noticed. */
_Noreturn void stress_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#define STRESS_CHECK(condition, ...)                                                                         \
    do {                                                                                                     \
        if (__builtin_expect(!(condition), 0))                                                               \
            stress_fail(__FILE__, __LINE__, __VA_ARGS__);                                                    \
    } while (0)

/* ---- nodes ------------------------------------------------------------------------------------------ */

enum { NODE_EDGES = 4 };
struct node {
    uint64_t magic, serial, seal, tag;
    uint64_t expect[NODE_EDGES]; /* serials of the nodes below; 0: none */
    struct node *edge[NODE_EDGES];
};

/* Of a random kind: typed, untyped of a random size, large.  No edges. */
struct node *node_new(uint64_t *random, uint64_t tag);
/* The same of the typed kind, for tests that want one size. */
struct node *node_new_typed(uint64_t tag);
/* Makes one of memory that the caller has got, which must be zero. */
struct node *node_fill(struct node *fresh, uint64_t tag);
/* Dies unless this is a live node. */
void node_check(const struct node *node);
/* parent's edge k becomes child, by the barrier.  For the owner of the parent. */
void node_link(struct node *parent, int k, struct node *child);
/* The node below, checked against what the edge expects; NULL: none. */
struct node *node_follow(const struct node *parent, int k);

/* Lists by edge 0. */
struct node *list_new(uint64_t *random, size_t length, uint64_t tag);
size_t list_check(const struct node *list); /* walks it; the length */
/* Trees by edges 0 and 1. */
struct node *tree_new(uint64_t *random, unsigned depth, uint64_t tag);
size_t tree_check(const struct node *tree); /* the number of nodes */

/* ---- cycles back to back ------------------------------------------------------------------------------- */

/* A thread that calls grey_collect in a loop until stop; stop returns how often. */
void stress_cycles_start(void);
uint64_t stress_cycles_stop(void);

/* Overwrites what earlier calls left on the stack below, so that no stale word keeps an object alive. */
void stress_wipe_stack(void);

#endif
