/* tests/api/arena_fault_test.c -- access to freed arenas: what the fault handler says, and that the signal
 * goes where it would have gone without it.
 *
 * Requirements: TR-18, UA-22, UA-27, UA-28, UA-29.  Each access is in a child (support_child.h), which
 * first writes the address that it is about to touch; so the message can be compared with it.  With a
 * sanitizer the default action is the sanitizer's own handler, which exits with a report instead of dying
 * of the signal.
 */
#include "support_child.h"
#include "support_heap.h"

#include "os/os.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MIB = 1 << 20, CHUNK = 8 * MIB, HANDLED = 42, SANITIZED = OS_ASAN || OS_TSAN };

/* ---- accesses, in a child ------------------------------------------------------------------------------ */

/* No sanitizer looks: it's the kernel that must notice. */
static OS_UNSANITIZED char read_byte(const volatile char *p) { return *p; }
static OS_UNSANITIZED void write_byte(volatile char *p) { *p = 1; }

static void expect(const volatile char *p) { dprintf(STDERR_FILENO, "expect %p\n", (const void *)p); }

/* The first object of an arena with one chunk full and another begun; 1 MiB each, and all of it can be
 * used. */
static char *fill(struct grey_arena *arena)
{
    char *first = NULL;
    for (int i = 0; i < 9; i++) {
        char *p = grey_arena_alloc_leaf(arena, MIB, 0);
        CHILD_CHECK(p != NULL);
        memset(p, i + 1, MIB);
        if (first == NULL)
            first = p;
    }
    for (size_t i = 0; i < MIB; i += 4096)
        CHILD_CHECK(first[i] == 1);
    return first;
}

/* What was freed while a cycle ran faults after it, before the next (UA-23, UA-24). */
static void settle(void) { grey_collect(); }

static char *freed_object(void)
{
    struct grey_arena *arena = grey_arena_new();
    CHILD_CHECK(arena != NULL);
    char *p = fill(arena);
    grey_arena_free(arena);
    settle();
    return p;
}

static char *freed_chunk(void) { return (char *)((uintptr_t)freed_object() & ~(uintptr_t)(CHUNK - 1)); }

static void touch(volatile char *p, int write)
{
    expect(p);
    if (write)
        write_byte(p);
    else
        read_byte(p);
}

static void reads(void) { touch(freed_object(), 0); }
static void writes(void) { touch(freed_object(), 1); }
static void reads_inside(void) { touch(freed_object() + 123457, 0); }
static void writes_inside(void) { touch(freed_object() + MIB / 2 + 1, 1); }
static void reads_first_byte(void) { touch(freed_chunk(), 0); }
static void reads_last_byte(void) { touch(freed_chunk() + CHUNK - 1, 0); }
static void writes_last_byte(void) { touch(freed_chunk() + CHUNK - 1, 1); }

/* The marker does not come this way: a heap object points there, and cycles go on (UA-35).  Nor does it
 * help that nobody points there any more: until the addresses are used again they fault. */
static void reads_after_cycles(void)
{
    char **slot = grey_alloc(sizeof(*slot));
    grey_store(slot, freed_object());
    for (int i = 0; i < 3; i++)
        grey_collect();
    touch(*slot, 0);
    grey_keep_alive(slot);
}
static void reads_when_ready(void)
{
    uintptr_t hidden = ~(uintptr_t)freed_object();
    heap_wipe_stack();
    for (int i = 0; i < 3; i++)
        grey_collect();
    touch((char *)~hidden, 0);
}

static void *read_in_thread(void *p)
{
    dprintf(STDERR_FILENO, "in thread %d\n", (int)syscall(SYS_gettid));
    touch(p, 0);
    return NULL;
}
static void reads_in_thread(void)
{
    pthread_t thread;
    CHILD_CHECK(pthread_create(&thread, NULL, read_in_thread, freed_object()) == 0);
    pthread_join(thread, NULL);
}

/* One of a few chunks, so that the address tells which arena it was. */
static void reads_one_of_many(void)
{
    struct grey_arena *arena[5];
    char *p[5];
    for (int i = 0; i < 5; i++) {
        arena[i] = grey_arena_new();
        p[i] = fill(arena[i]);
    }
    grey_arena_free(arena[1]);
    grey_arena_free(arena[3]);
    settle();
    for (int i = 0; i < 5; i += 2) {
        CHILD_CHECK(read_byte(p[i]) == 1); /* of the others nothing faults */
        grey_keep_alive(arena[i]);
    }
    dprintf(STDERR_FILENO, "of arena %p\n", (void *)arena[3]);
    touch(p[3], 0);
}

static __attribute__((noinline)) uintptr_t lose(void)
{
    struct grey_arena *arena = grey_arena_new();
    return ~(uintptr_t)fill(arena);
}
static void *lose_in_thread(void *hidden)
{
    *(uintptr_t *)hidden = lose();
    grey_thread_detach();
    return NULL;
}
static void reads_of_lost_arena(void)
{
    uintptr_t hidden;
    pthread_t thread;
    CHILD_CHECK(pthread_create(&thread, NULL, lose_in_thread, &hidden) == 0);
    CHILD_CHECK(pthread_join(thread, NULL) == 0);
    grey_collect();
    grey_collect();
    touch((char *)~hidden, 0);
}

static void reads_after_reset(void)
{
    struct grey_arena *arena = grey_arena_new();
    char *p = fill(arena);
    grey_arena_reset(arena);
    settle();
    touch(p, 0);
    grey_keep_alive(arena);
}

/* UA-29: the active chunk.  Small objects, one of each end. */
static void reads_active(void)
{
    struct grey_arena *arena = grey_arena_new();
    char *p = grey_arena_alloc_leaf(arena, 100, 0);
    memset(p, 7, 100);
    grey_arena_free(arena);
    settle();
    touch(p + 99, 0);
    exit(read_byte(p + 99) == 7 ? HANDLED : 1); /* not strict: it is still there (UA-28) */
}

static void reads_null(void) { read_byte((const volatile char *)16); }
static void reads_page_4095(void) { read_byte((const volatile char *)4095); }
static void reads_elsewhere(void)
{
    CHILD_CHECK(freed_object() != NULL);
    read_byte(mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}
/* In the reservation, but never a chunk. */
static void reads_beyond(void)
{
    char *p = freed_object();
    read_byte((char *)((uintptr_t)p & ~(uintptr_t)(CHUNK - 1)) + (size_t)1000 * CHUNK);
}

static void killed(void)
{
    CHILD_CHECK(freed_object() != NULL);
    kill(getpid(), SIGSEGV);
    for (;;)
        pause();
}
static void killed_by_thread(void)
{
    CHILD_CHECK(freed_object() != NULL);
    pthread_kill(pthread_self(), SIGSEGV);
    for (;;)
        pause();
}
/* With the address of a freed object as its value: it isn't a fault for that. */
static void queued(void)
{
    union sigval value = {.sival_ptr = freed_object()};
    CHILD_CHECK(sigqueue(getpid(), SIGSEGV, value) == 0);
    for (;;)
        pause();
}

/* ---- what is expected of the message ------------------------------------------------------------------- */

/* Child `name` with these debug options and those of the test's own environment. */
static const struct child_end *run(const char *name, const char *debug)
{
    static char variable[512];
    const char *environment = getenv("GREY_DEBUG");
    snprintf(variable, sizeof(variable), "GREY_DEBUG=%s%s%s", environment != NULL ? environment : "",
             environment != NULL ? "," : "", debug);
    const char *const changes[] = {variable, NULL};
    return child_run(name, changes);
}

static void assert_killed(const struct child_end *end, const char *name)
{
    bool reported = SANITIZED && end->signal != SIGSEGV && end->status != 0 && end->status != HANDLED &&
                    strstr(end->message, "SEGV") != NULL;
    if (end->signal != SIGSEGV && !reported)
        fail_msg("%s: signal %d, status %d, \"%s\"", name, end->signal, end->status, end->message);
}

static const char *must_find(const char *text, const char *what, const char *name)
{
    const char *at = strstr(text, what);
    if (at == NULL)
        fail_msg("%s: no \"%s\" in \"%s\"", name, what, text);
    return at;
}

/* The message is about the address that the child said, names a place in this program for where the arena was
 * made and, unless it was lost, freed, and the thread and the cycle. */
static void assert_message(const struct child_end *end, const char *name, bool lost)
{
    char program[400], line[600], address[40];
    ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
    assert_true(n > 0);
    program[n] = '\0';
    assert_int_equal(sscanf(must_find(end->message, "expect ", name), "expect %39s", address), 1);
    snprintf(line, sizeof(line), "grey: fatal: accessed data from freed arena %s\n", address);
    const char *at = must_find(end->message, line, name);
    snprintf(line, sizeof(line), ", made at %s+0x", program);
    must_find(at, line, name);
    snprintf(line, sizeof(line), "grey:   freed at %s%s", lost ? "the end of a cycle" : program,
             lost ? "" : "+0x");
    must_find(at, line, name);
    must_find(at, "grey:   thread ", name);
    must_find(at, ", phase ", name);
    must_find(at, ", cycle ", name);
}

/* ---- the handler alone --------------------------------------------------------------------------------- */

/* UA-27 */
static void says_which_arena(void **state)
{
    static const char *const names[] = {"reads",
                                        "writes",
                                        "reads_inside",
                                        "writes_inside",
                                        "reads_first_byte",
                                        "reads_last_byte",
                                        "writes_last_byte",
                                        "reads_after_cycles",
                                        "reads_when_ready",
                                        "reads_after_reset",
                                        "reads_one_of_many",
                                        "reads_in_thread"};
    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const struct child_end *end = run(names[i], "arenafault=1");
        assert_killed(end, names[i]);
        assert_message(end, names[i], false);
    }
}

static void says_which_handle(void **state)
{
    char handle[40], line[80];
    (void)state;
    const struct child_end *end = run("reads_one_of_many", "arenafault=1");
    assert_int_equal(sscanf(must_find(end->message, "of arena ", "handle"), "of arena %39s", handle), 1);
    snprintf(line, sizeof(line), "grey:   arena %s, made at", handle);
    must_find(end->message, line, "handle");
}

static void says_which_thread(void **state)
{
    int thread;
    char line[80];
    (void)state;
    const struct child_end *end = run("reads_in_thread", "arenafault=1");
    assert_int_equal(sscanf(must_find(end->message, "in thread ", "thread"), "in thread %d", &thread), 1);
    snprintf(line, sizeof(line), "grey:   thread %d, ", thread);
    must_find(end->message, line, "thread");
}

/* UA-20: nobody freed it but a cycle. */
static void says_it_was_lost(void **state)
{
    (void)state;
    const struct child_end *end = run("reads_of_lost_arena", "arenafault=1");
    assert_killed(end, "lost");
    assert_message(end, "lost", true);
}

/* UA-28, UA-29 */
static void active_chunk_when_strict(void **state)
{
    (void)state;
    const struct child_end *end = run("reads_active", "arenafault=1,arenastrict=1");
    assert_killed(end, "strict");
    assert_message(end, "strict", false);
    end = run("reads_active", "arenafault=1,arenastrict=0");
    if (OS_ASAN)
        assert_message(end, "under ASan", false);
    else
        assert_int_equal(end->status, HANDLED);
}

static void silent(void **state)
{
    static const struct {
        const char *name, *debug;
    } cases[] = {
        {"reads", "arenafault=0"},
        {"reads_null", "arenafault=1"},
        {"reads_page_4095", "arenafault=1"},
        {"reads_elsewhere", "arenafault=1"},
        {"reads_beyond", "arenafault=1"},
        {"killed", "arenafault=1"},
        {"killed_by_thread", "arenafault=1"},
        {"queued", "arenafault=1"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct child_end *end = run(cases[i].name, cases[i].debug);
        assert_killed(end, cases[i].name);
        if (strstr(end->message, "grey:") != NULL)
            fail_msg("%s: \"%s\"", cases[i].name, end->message);
    }
}

/* -1, the default: only where SIGSEGV has its default action (TR-18). */
static void by_default(void **state)
{
    (void)state;
    const struct child_end *end = run("reads", "arenafault=-1");
    assert_killed(end, "default");
    if (!SANITIZED)
        assert_message(end, "default", false);
}

/* ---- with another handler ------------------------------------------------------------------------------ */

static const volatile char *expected;
static struct sigaction before;
static int code;
static bool on_stack, blocked_self, blocked_other;
static char *alternate;
enum { ALTERNATE = 64 << 10 };

static void note_place(void)
{
    char here;
    sigset_t mask;
    on_stack = alternate != NULL && &here >= alternate && &here < alternate + ALTERNATE;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    blocked_self = sigismember(&mask, SIGSEGV);
    blocked_other = sigismember(&mask, SIGUSR1);
}

/* ThreadSanitizer stands between the kernel and every handler, and blocks all signals. */
static void on_signal_info(int signal, siginfo_t *info, void *context)
{
    note_place();
    code = info->si_code;
    bool right =
        signal == SIGSEGV && context != NULL && (code <= 0 || info->si_addr == (void *)(uintptr_t)expected);
    struct sigaction now;
    sigaction(SIGSEGV, NULL, &now);
    bool reset = now.sa_handler == SIG_DFL;
    bool masked = blocked_self == !(before.sa_flags & SA_NODEFER) &&
                  blocked_other == sigismember(&before.sa_mask, SIGUSR1);
    if (!right || !(masked || OS_TSAN) || on_stack != !!(before.sa_flags & SA_ONSTACK) ||
        reset != !!(before.sa_flags & (int)SA_RESETHAND))
        _exit(1);
    _exit(HANDLED);
}
static void on_signal_only(int signal)
{
    note_place();
    _exit(signal == SIGSEGV && blocked_self && (!blocked_other || OS_TSAN) ? HANDLED : 1);
}

/* A handler of the program's, installed before the library is started. */
static void install(int flags, bool mask)
{
    stack_t stack = {.ss_size = ALTERNATE};
    before.sa_flags = flags;
    sigemptyset(&before.sa_mask);
    if (mask)
        sigaddset(&before.sa_mask, SIGUSR1);
    if (flags & SA_SIGINFO)
        before.sa_sigaction = on_signal_info;
    else
        before.sa_handler = on_signal_only;
    alternate = stack.ss_sp = malloc(ALTERNATE);
    CHILD_CHECK(alternate != NULL && sigaltstack(&stack, NULL) == 0);
    CHILD_CHECK(sigaction(SIGSEGV, &before, NULL) == 0);
}

static void touch_expected(void)
{
    expected = freed_object() + 77;
    touch((volatile char *)(uintptr_t)expected, 1);
}
static void chained(void)
{
    install(SA_SIGINFO, false);
    touch_expected();
}
static void chained_masked(void)
{
    install(SA_SIGINFO, true);
    touch_expected();
}
static void chained_on_stack(void)
{
    install(SA_SIGINFO | SA_ONSTACK, false);
    touch_expected();
}
static void chained_not_deferred(void)
{
    install(SA_SIGINFO | SA_NODEFER, true);
    touch_expected();
}
static void chained_once(void)
{
    install(SA_SIGINFO | (int)SA_RESETHAND, false);
    touch_expected();
}
static void chained_plain(void)
{
    install(0, false);
    touch_expected();
}
static void chained_null(void)
{
    install(SA_SIGINFO, false);
    CHILD_CHECK(freed_object() != NULL);
    expected = (const volatile char *)8;
    read_byte(expected);
}
static void chained_killed(void)
{
    install(SA_SIGINFO, false);
    CHILD_CHECK(freed_object() != NULL);
    kill(getpid(), SIGSEGV);
}

/* TR-18: called with what it asked for. */
static void passes_on_to_handler(void **state)
{
    static const struct {
        const char *name;
        bool message;
    } cases[] = {{"chained", true},          {"chained_masked", true},
                 {"chained_on_stack", true}, {"chained_not_deferred", true},
                 {"chained_once", true},     {"chained_plain", true},
                 {"chained_null", false},    {"chained_killed", false}};
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct child_end *end = run(cases[i].name, "arenafault=1");
        if (end->status != HANDLED)
            fail_msg("%s: signal %d, status %d, \"%s\"", cases[i].name, end->signal, end->status,
                     end->message);
        if (cases[i].message)
            assert_message(end, cases[i].name, false);
        else if (strstr(end->message, "grey:") != NULL)
            fail_msg("%s: \"%s\"", cases[i].name, end->message);
    }
    /* -1: a program that has a handler is left alone. */
    const struct child_end *end = run("chained", "arenafault=-1");
    assert_int_equal(end->status, HANDLED);
    assert_null(strstr(end->message, "grey:"));
}

static void ignored_kill(void)
{
    CHILD_CHECK(signal(SIGSEGV, SIG_IGN) != SIG_ERR);
    CHILD_CHECK(freed_object() != NULL);
    kill(getpid(), SIGSEGV);
    exit(HANDLED);
}
static void ignored_fault(void)
{
    CHILD_CHECK(signal(SIGSEGV, SIG_IGN) != SIG_ERR);
    touch(freed_object(), 0);
}

/* SIG_IGN is for signals that somebody sent; the kernel does not let a fault be ignored, nor do we. */
static void ignored(void **state)
{
    (void)state;
    const struct child_end *end = run("ignored_kill", "arenafault=1");
    assert_int_equal(end->status, HANDLED);
    end = run("ignored_fault", "arenafault=1");
    assert_killed(end, "ignored_fault");
    assert_message(end, "ignored_fault", false);
}

/* ---- installed, taken off, replaced -------------------------------------------------------------------- */

static bool same_action(const struct sigaction *a, const struct sigaction *b)
{
    return a->sa_handler == b->sa_handler &&
           (a->sa_flags & (SA_SIGINFO | SA_ONSTACK)) == (b->sa_flags & (SA_SIGINFO | SA_ONSTACK));
}

static void comes_and_goes(void)
{
    struct sigaction at_first, now;
    sigaction(SIGSEGV, NULL, &at_first);
    for (int i = 0; i < 3; i++) {
        CHILD_CHECK(grey_init(NULL) == 0);
        sigaction(SIGSEGV, NULL, &now);
        CHILD_CHECK(!same_action(&at_first, &now));
        grey_shutdown();
        sigaction(SIGSEGV, NULL, &now);
        CHILD_CHECK(same_action(&at_first, &now));
    }
    exit(HANDLED);
}

static struct sigaction below;
static void call_below(int signal, siginfo_t *info, void *context)
{
    static int depth;
    if (depth++ != 0)
        _exit(2); /* they call each other */
    below.sa_sigaction(signal, info, context);
}

/* A handler over ours that calls ours, and stays over a restart. */
static void replaced(void)
{
    struct sigaction over = {.sa_sigaction = call_below, .sa_flags = SA_SIGINFO}, now;
    CHILD_CHECK(grey_init(NULL) == 0);
    sigaction(SIGSEGV, &over, &below);
    CHILD_CHECK(below.sa_flags & SA_SIGINFO);
    grey_shutdown();
    sigaction(SIGSEGV, NULL, &now);
    CHILD_CHECK(same_action(&over, &now));
    CHILD_CHECK(grey_init(NULL) == 0);
    sigaction(SIGSEGV, NULL, &now);
    CHILD_CHECK(same_action(&over, &now));
    touch(freed_object(), 0);
}

/* And when the library is down: ours says nothing and passes on. */
static void replaced_and_down(void)
{
    struct sigaction over = {.sa_sigaction = call_below, .sa_flags = SA_SIGINFO};
    CHILD_CHECK(grey_init(NULL) == 0);
    sigaction(SIGSEGV, &over, &below);
    char *p = freed_object();
    grey_shutdown();
    read_byte(p);
}

static void lives_beside_others(void **state)
{
    (void)state;
    assert_int_equal(run("comes_and_goes", "arenafault=1")->status, HANDLED);
    const struct child_end *end = run("replaced", "arenafault=1");
    assert_killed(end, "replaced");
    assert_message(end, "replaced", false);
    end = run("replaced_and_down", "arenafault=1");
    assert_killed(end, "replaced_and_down");
    assert_null(strstr(end->message, "grey:"));
}

/* ---- a foreign region that was unmapped too early ------------------------------------------------------ */

static void no_cleanup(uintptr_t start, size_t size, void *arg) { (void)start, (void)size, (void)arg; }

static void unmapped_region(void)
{
    char *map = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    grey_foreign handle;
    void **slot = grey_alloc(sizeof(*slot));
    CHILD_CHECK(grey_foreign_add(map, MIB, GREY_FOREIGN_SCAN, no_cleanup, NULL, &handle) == 0);
    grey_store(slot, (void *)map);
    expect(map);
    CHILD_CHECK(mprotect(map, MIB, PROT_NONE) == 0);
    grey_collect();
    grey_keep_alive(slot);
}

/* Its pieces are taken by several workers, so the first to fault need not be the first piece. */
static void names_a_foreign_region(void **state)
{
    static const char fatal[] = "grey: fatal: cannot scan foreign memory at ";
    unsigned long region, at;
    (void)state;
    const struct child_end *end = run("unmapped_region", "arenafault=1");
    assert_killed(end, "unmapped_region");
    assert_int_equal(sscanf(must_find(end->message, "expect ", "region"), "expect %lx", &region), 1);
    assert_int_equal(sscanf(must_find(end->message, fatal, "region") + strlen(fatal), "%lx: it was ", &at),
                     1);
    assert_true(at >= region && at < region + MIB);
    must_find(end->message, "call grey_foreign_release first\n", "region");
}

/* -------------------------------------------------------------------------------------------------------- */

#define CASE(f)                                                                                              \
    {                                                                                                        \
#f, f                                                                                                \
    }
static const struct child_case cases[] = {
    CASE(reads),
    CASE(writes),
    CASE(reads_inside),
    CASE(writes_inside),
    CASE(reads_first_byte),
    CASE(reads_last_byte),
    CASE(writes_last_byte),
    CASE(reads_after_cycles),
    CASE(reads_when_ready),
    CASE(reads_in_thread),
    CASE(reads_one_of_many),
    CASE(reads_of_lost_arena),
    CASE(reads_after_reset),
    CASE(reads_active),
    CASE(reads_null),
    CASE(reads_page_4095),
    CASE(reads_elsewhere),
    CASE(reads_beyond),
    CASE(killed),
    CASE(killed_by_thread),
    CASE(queued),
    CASE(chained),
    CASE(chained_masked),
    CASE(chained_on_stack),
    CASE(chained_not_deferred),
    CASE(chained_once),
    CASE(chained_plain),
    CASE(chained_null),
    CASE(chained_killed),
    CASE(ignored_kill),
    CASE(ignored_fault),
    CASE(comes_and_goes),
    CASE(replaced),
    CASE(replaced_and_down),
    CASE(unmapped_region),
};

int main(int argc, char **argv)
{
    CHILD_MAIN(argc, argv, cases);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_which_arena),
        cmocka_unit_test(says_which_handle),
        cmocka_unit_test(says_which_thread),
        cmocka_unit_test(says_it_was_lost),
        cmocka_unit_test(active_chunk_when_strict),
        cmocka_unit_test(silent),
        cmocka_unit_test(by_default),
        cmocka_unit_test(passes_on_to_handler),
        cmocka_unit_test(ignored),
        cmocka_unit_test(lives_beside_others),
        cmocka_unit_test(names_a_foreign_region),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
