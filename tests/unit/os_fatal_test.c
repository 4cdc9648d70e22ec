/* tests/unit/os_fatal_test.c -- the library's last words: format, one line, one write, handler, abort.
 *
 * Requirements: behaviour 0.2 (tiers F and T), ER-3, ER-4.  Deaths happen in children.  That the line is
 * one write(2) shows in a packet pipe, and that nothing else is asked of the kernel before the handler in
 * seccomp's strict mode, which kills at any call but read, write and exit.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support_os.h"

#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- os_format -------------------------------------------------------------------------------------- */

#define SAME(...)                                                                                            \
    do {                                                                                                     \
        char ours_[256], theirs_[256];                                                                       \
        size_t n_ = os_format(ours_, sizeof(ours_), __VA_ARGS__);                                            \
        snprintf(theirs_, sizeof(theirs_), __VA_ARGS__);                                                     \
        assert_string_equal(ours_, theirs_);                                                                 \
        assert_int_equal(n_, strlen(theirs_));                                                               \
    } while (0)

static void format_agrees_with_printf(void **state)
{
    (void)state;
    SAME("plain");
    SAME("100%%");
    SAME("%s|%s|%c", "", "abc", 'x');
    SAME("%d %d %d %d", 0, -1, INT_MAX, INT_MIN);
    SAME("%u %u %x", 0u, UINT_MAX, 0xdeadbeefu);
    SAME("%zu %zu", (size_t)0, SIZE_MAX);
    SAME("%llu %lld %lld", ULLONG_MAX, LLONG_MIN, LLONG_MAX);
    SAME("%lu %ld %lx", ULONG_MAX, LONG_MIN, 0x123456789abcdefUL);
    SAME("%p", (void *)&errno);
    SAME("%d%s%u%llu%s%zu", 1, "two", 3u, 4ULL, "five", (size_t)6);
}

static void format_cuts(void **state)
{
    char buffer[8];
    (void)state;
    memset(buffer, 'z', sizeof(buffer));
    assert_int_equal(os_format(buffer, 5, "%s", "abcdefgh"), 4);
    assert_string_equal(buffer, "abcd");
    assert_int_equal(buffer[5], 'z');
    assert_int_equal(os_format(buffer, 1, "%d", 12345), 0);
    assert_string_equal(buffer, "");
    buffer[0] = 'q';
    assert_int_equal(os_format(buffer, 0, "x"), 0);
    assert_int_equal(buffer[0], 'q');
}

static void format_survives_nonsense(void **state)
{
    char buffer[32];
    const char *volatile null = NULL;
    const char *volatile unknown = "a%fb";
    (void)state;
    os_format(buffer, sizeof(buffer), "%s", null);
    assert_string_equal(buffer, "(null)");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-security"
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    os_format(buffer, sizeof(buffer), unknown, 1.0);
#pragma GCC diagnostic pop
    assert_string_equal(buffer, "a%?");
}

/* ---- deaths ----------------------------------------------------------------------------------------- */

static void die_plain(void *arg) { os_fatal(arg, "value %d of \"%s\" is wrong: do that", 7, "name"); }

static void fatal_writes_a_line_and_aborts(void **state)
{
    (void)state;
    const struct child_end *end = run_child(die_plain, (void *)0x1230);
    assert_int_equal(end->signal, SIGABRT);
    assert_string_equal(end->message,
                        "grey: fatal: value 7 of \"name\" is wrong: do that (address 0x1230)\n");
    end = run_child(die_plain, NULL);
    assert_string_equal(end->message, "grey: fatal: value 7 of \"name\" is wrong: do that\n");
}

static void context(const char **phase, uint64_t *cycle)
{
    *phase = "rescan";
    *cycle = 42;
}

static void die_internal(void *arg)
{
    if (arg != NULL)
        os_internal_context = context;
    os_internal((void *)0x50, "broken %zu", (size_t)9);
}

/* ER-3: T names phase, thread and cycle, too. */
static void internal_names_phase_thread_cycle(void **state)
{
    int thread = 0, used = 0;
    (void)state;
    const struct child_end *end = run_child(die_internal, (void *)1);
    assert_int_equal(end->signal, SIGABRT);
    sscanf(end->message, "grey: internal: broken 9 [phase rescan, thread %d, cycle 42] (address 0x50)\n%n",
           &thread, &used);
    assert_true(thread > 1);
    assert_int_equal(used, strlen(end->message));
    end = run_child(die_internal, NULL);
    assert_non_null(strstr(end->message, "phase unknown"));
}

static void tell(const char *message, const void *address)
{
    char line[256];
    size_t n = os_format(line, sizeof(line), "handler: %s at %p\n", message, address);
    if (write(STDERR_FILENO, line, n) < 0)
        _exit(99);
}

static void die_with_handler(void *arg)
{
    (void)arg;
    os_set_fatal_handler(tell);
    os_fatal((void *)0x77, "no %s", "luck");
}

/* 0.2: the line, then the handler; if it returns, abort. */
static void handler_runs_after_the_line(void **state)
{
    (void)state;
    const struct child_end *end = run_child(die_with_handler, NULL);
    assert_int_equal(end->signal, SIGABRT);
    assert_string_equal(end->message, "grey: fatal: no luck (address 0x77)\n"
                                      "handler: no luck (address 0x77) at 0x77\n");
}

static void fail_again(const char *message, const void *address)
{
    (void)message;
    os_fatal(address, "the handler fails");
}

static void die_twice(void *arg)
{
    (void)arg;
    os_set_fatal_handler(fail_again);
    os_fatal(NULL, "first");
}

static void failing_handler_is_not_called_again(void **state)
{
    (void)state;
    const struct child_end *end = run_child(die_twice, NULL);
    assert_int_equal(end->signal, SIGABRT);
    assert_string_equal(end->message, "grey: fatal: first\ngrey: fatal: the handler fails\n");
}

static jmp_buf back;
static int returns;

static void jump(const char *message, const void *address)
{
    (void)message;
    (void)address;
    returns++;
    longjmp(back, 1);
}

static void jump_out_repeatedly(void *arg)
{
    (void)arg;
    for (volatile int i = 0; i < 3; i++) {
        os_set_fatal_handler(jump);
        if (setjmp(back) == 0)
            os_fatal(NULL, "again");
    }
    _exit(returns);
}

/* ER-4: a test's handler may leave by longjmp, and set itself again. */
static void handler_may_jump(void **state)
{
    (void)state;
    const struct child_end *end = run_child(jump_out_repeatedly, NULL);
    assert_int_equal(end->status, 3);
}

static void die_on_a_signal(int number) { os_fatal(NULL, "in handler of signal %d", number); }

static void raise_in_child(void *arg)
{
    (void)arg;
    signal(SIGUSR1, die_on_a_signal);
    raise(SIGUSR1);
}

static void fatal_works_in_a_signal_handler(void **state)
{
    char expected[64];
    (void)state;
    snprintf(expected, sizeof(expected), "grey: fatal: in handler of signal %d\n", SIGUSR1);
    assert_dies(raise_in_child, NULL, expected);
}

static void warn(void *arg)
{
    (void)arg;
    errno = 1234;
    os_warn("cgroup %s, %u", "ignored", 5u);
    _exit(errno == 1234 ? 0 : 1);
}

static void warning_is_a_line_and_leaves_errno(void **state)
{
    (void)state;
    const struct child_end *end = run_child(warn, NULL);
    assert_int_equal(end->status, 0);
    assert_string_equal(end->message, "grey: warning: cgroup ignored, 5\n");
}

static void leave_strictly(const char *message, const void *address)
{
    (void)message;
    (void)address;
    syscall(SYS_exit, 42);
}

static void die_strictly(void *arg)
{
    int fd = *(int *)arg;
    dup2(fd, STDERR_FILENO);
    os_set_fatal_handler(leave_strictly);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0)
        _exit(77);
    os_fatal((void *)0x10, "%s %d %u %zu %llu %lx", "one line of several parts", -1, 2u, (size_t)3, 4ULL,
             5UL);
}

/* ER-3: no lock that must be waited for, no memory, no stdio: nothing but one write. */
static void fatal_asks_for_one_write_only(void **state)
{
    int ends[2];
    char packet[512];
    (void)state;
#if OS_TSAN || OS_ASAN
    skip(); /* the sanitizer makes calls of its own */
#endif
    assert_int_equal(pipe2(ends, O_DIRECT), 0);
    const struct child_end *end = run_child(die_strictly, &ends[1]);
    if (end->status == 77) {
        close(ends[0]);
        close(ends[1]);
        skip();
    }
    assert_int_equal(end->signal, 0);
    assert_int_equal(end->status, 42);
    close(ends[1]);
    ssize_t n = read(ends[0], packet, sizeof(packet));
    assert_true(n > 0);
    assert_int_equal(packet[n - 1], '\n'); /* the whole line in the first packet */
    assert_int_equal(read(ends[0], packet, sizeof(packet)), 0);
    close(ends[0]);
}

static void die_at_length(void *arg) { os_fatal(NULL, "%s", (const char *)arg); }

static void long_message_is_cut_to_a_line(void **state)
{
    static char text[3000];
    (void)state;
    memset(text, 'm', sizeof(text) - 1);
    const struct child_end *end = run_child(die_at_length, text);
    size_t n = strlen(end->message);
    assert_int_equal(end->signal, SIGABRT);
    assert_true(n > 500 && n < 2000);
    assert_ptr_equal(strchr(end->message, '\n'), end->message + n - 1);
}

static void fail_assert(void *arg) { ASSERT(arg != NULL); }

static void assert_is_internal_in_debug_builds(void **state)
{
    (void)state;
#ifdef GREY_ASSERTS
    assert_dies(fail_assert, NULL, "arg != NULL");
#else
    assert_int_equal(run_child(fail_assert, NULL)->status, 0);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(format_agrees_with_printf),
        cmocka_unit_test(format_cuts),
        cmocka_unit_test(format_survives_nonsense),
        cmocka_unit_test(fatal_writes_a_line_and_aborts),
        cmocka_unit_test(internal_names_phase_thread_cycle),
        cmocka_unit_test(handler_runs_after_the_line),
        cmocka_unit_test(failing_handler_is_not_called_again),
        cmocka_unit_test(handler_may_jump),
        cmocka_unit_test(fatal_works_in_a_signal_handler),
        cmocka_unit_test(warning_is_a_line_and_leaves_errno),
        cmocka_unit_test(fatal_asks_for_one_write_only),
        cmocka_unit_test(long_message_is_cut_to_a_line),
        cmocka_unit_test(assert_is_internal_in_debug_builds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
