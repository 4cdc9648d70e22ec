/* tests/unit/os_options_test.c -- every form that the environment and struct grey_options accept or refuse.
 *
 * Requirements: TU-1 to TU-7, TU-11.  The lists of TU-2 are Go's TestParseByteCount.  The set-uid case
 * runs this program itself, copied, set-uid and started by nobody; that takes root.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support_os.h"

#include "os/options.h"
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static char why[256];

static int clear_environment(void **state)
{
    (void)state;
    unsetenv("GREY_GC");
    unsetenv("GREY_MEMLIMIT");
    unsetenv("GREY_PROCS");
    unsetenv("GREY_DEBUG");
    strcpy(why, "untouched");
    return 0;
}

/* ---- the parts --------------------------------------------------------------------------------------- */

static void percent_forms(void **state)
{
    static const struct {
        const char *text;
        int percent;
    } table[] = {
        {NULL, 100},
        {"", 100},
        {"off", -1},
        {"0", 0},
        {"1", 1},
        {"100", 100},
        {"050", 50},
        {"2147483647", 2147483647},
        {"-1", -1},
        {"-50", -1},
        {"-0", 0},
        {"-2147483648", -1},
        {"2147483648", 100},
        {"-2147483649", 100},
        {"99999999999999999999", 100},
        {"5x", 100},
        {"0x10", 100},
        {"1.5", 100},
        {" 5", 100},
        {"5 ", 100},
        {"+5", 100},
        {"OFF", 100},
        {"-", 100},
        {"--5", 100},
        {"off ", 100},
        {"50%", 100},
    };
    (void)state;
    for (size_t i = 0; i < LENGTH(table); i++) {
        if (os_parse_percent(table[i].text) != table[i].percent)
            fail_msg("GREY_GC=%s gives %d, not %d", table[i].text, os_parse_percent(table[i].text),
                     table[i].percent);
    }
}

static void byte_forms_accepted(void **state)
{
    static const struct {
        const char *text;
        size_t bytes;
    } table[] = {
        {"off", SIZE_MAX},
        {"", SIZE_MAX},
        {NULL, SIZE_MAX},
        {"0", 1}, /* acts as 1 byte */
        {"-0", 1},
        {"0B", 1},
        {"0KiB", 1},
        {"-0KiB", 1},
        {"0TiB", 1},
        {"1", 1},
        {"1B", 1},
        {"12345", 12345},
        {"12345B", 12345},
        {"0012345", 12345},
        {"00KiB", 1},
        {"1KiB", 1024},
        {"05KiB", 5 * 1024},
        {"1MiB", 1 << 20},
        {"1GiB", 1 << 30},
        {"1TiB", (size_t)1 << 40},
        {"99999TiB", (size_t)99999 << 40},
        {"8388607TiB", (size_t)8388607 << 40},
        {"9007199254740991KiB", (size_t)9007199254740991 << 10},
        {"9223372036854775807", INT64_MAX},
        {"9223372036854775807B", INT64_MAX},
    };
    (void)state;
    for (size_t i = 0; i < LENGTH(table); i++) {
        size_t bytes = 77;
        if (!os_parse_bytes(table[i].text, &bytes) || bytes != table[i].bytes)
            fail_msg("GREY_MEMLIMIT=%s gives %zu, not %zu", table[i].text, bytes, table[i].bytes);
    }
}

static void byte_forms_rejected(void **state)
{
    static const char *const table[] = {
        "-1",
        "-1B",
        "-1KiB",
        "--0",
        "+1",
        "a12345",
        "12345a",
        "0x1",
        "0x10KiB",
        "1e3",
        "1.5GiB",
        " 1",
        "1 ",
        "1 KiB",
        "B",
        "KiB",
        "MiB",
        "iB",
        "i",
        "Ki",
        "1Ki",
        "1Mi",
        "1Gi",
        "1Ti",
        "1iB",
        "1EiB",
        "1PiB",
        "1ZiB",
        "K",
        "1K",
        "1M",
        "1G",
        "1T",
        "0K",
        "0M",
        "1KB",
        "1MB",
        "1GB",
        "1TB",
        "0KB",
        "1kB",
        "1kiB",
        "1b",
        "1mib",
        "1KiBB",
        "1BKiB",
        "1KiBKiB",
        "OFF",
        "off ",
        "none",
        "9223372036854775808",
        "9223372036854775808B",
        "18446744073709551616",
        "99999999999999999999999",
        "9007199254740992KiB",
        "8796093022208MiB",
        "8589934592GiB",
        "8388608TiB",
    };
    (void)state;
    for (size_t i = 0; i < LENGTH(table); i++) {
        size_t bytes = 77;
        if (os_parse_bytes(table[i], &bytes) || bytes != 77)
            fail_msg("GREY_MEMLIMIT=%s is accepted, as %zu", table[i], bytes);
    }
}

static void processor_forms(void **state)
{
    static const struct {
        const char *text;
        unsigned processors;
    } table[] = {
        {NULL, 0},    {"", 0},          {"0", 0},     {"-1", 0},         {"x", 0},
        {"4x", 0},    {" 4", 0},        {"1", 1},     {"4", 4},          {"007", 7},
        {"256", 256}, {"65536", 65536}, {"65537", 0}, {"4294967297", 0}, {"99999999999999999999", 0},
        {"off", 0},   {"1.5", 0},
    };
    (void)state;
    for (size_t i = 0; i < LENGTH(table); i++) {
        if (os_parse_processors(table[i].text) != table[i].processors)
            fail_msg("GREY_PROCS=%s gives %u", table[i].text, os_parse_processors(table[i].text));
    }
}

/* ---- GREY_DEBUG: the table makes the test ------------------------------------------------------------ */

static void debug_defaults_are_the_tables(void **state)
{
    struct os_debug debug;
    (void)state;
    memset(&debug, 0x7f, sizeof(debug));
    os_parse_debug(NULL, &debug);
#define X(name, standard, low, high, help) assert_int_equal(debug.name, standard);
    OS_DEBUG_FLAGS(X)
#undef X
}

/* Sets each flag to its lowest and highest, and beyond both; all others keep their defaults. */
static void debug_range_of_each_flag(void **state)
{
    static const char *const names[] = {
#define X(name, standard, low, high, help) #name,
        OS_DEBUG_FLAGS(X)
#undef X
    };
    static const int bounds[][3] = {
#define X(name, standard, low, high, help) {standard, low, high},
        OS_DEBUG_FLAGS(X)
#undef X
    };
    (void)state;
    for (size_t i = 0; i < LENGTH(names); i++) {
        const int standard = bounds[i][0], low = bounds[i][1], high = bounds[i][2];
        const long long tried[] = {low, high, (long long)low - 1, (long long)high + 1};
        for (size_t j = 0; j < LENGTH(tried); j++) {
            struct os_debug debug;
            char text[64];
            snprintf(text, sizeof(text), "%s=%lld", names[i], tried[j]);
            os_parse_debug(text, &debug);
            const int *values = (const int *)&debug;
            for (size_t k = 0; k < LENGTH(names); k++) {
                int expected = k != i ? bounds[k][0] : j < 2 ? (int)tried[j] : standard;
                if (values[k] != expected)
                    fail_msg("GREY_DEBUG=%s: %s is %d, not %d", text, names[k], values[k], expected);
            }
        }
    }
}

static void debug_lists(void **state)
{
    struct os_debug debug;
    (void)state;
    os_parse_debug("gctrace=1,stoptheworld=2,holdround=5", &debug);
    assert_int_equal(debug.gctrace, 1);
    assert_int_equal(debug.stoptheworld, 2);
    assert_int_equal(debug.holdround, 5);
    os_parse_debug("holdround=5,holdround=9", &debug); /* later wins */
    assert_int_equal(debug.holdround, 9);
    os_parse_debug("holdround=5,holdround=x", &debug); /* but not if it is none */
    assert_int_equal(debug.holdround, 5);
    os_parse_debug(",,nonsense,=1,=,nonsense=1,gctrace,gctrace=,checkmark=one,gctracex=1,gctrac=1,"
                   "efence=1=1,clobberfree=1,",
                   &debug);
    assert_int_equal(debug.gctrace, 0);
    assert_int_equal(debug.checkmark, 0);
    assert_int_equal(debug.clobberfree, 1);
    os_parse_debug("gctrace=1 ,checkmark= 1, autoroots=1,workers=4", &debug);
    assert_int_equal(debug.gctrace, 0);
    assert_int_equal(debug.checkmark, 0);
    assert_int_equal(debug.autoroots, 0);
    assert_int_equal(debug.workers, 4);
    os_parse_debug("", &debug); /* nothing stays from before */
    assert_int_equal(debug.workers, 0);
}

/* ---- environment and options together ---------------------------------------------------------------- */

static void unset_environment_gives_defaults(void **state)
{
    (void)state;
    assert_int_equal(os_options_read(NULL, why, sizeof(why)), 0);
    assert_int_equal(os_tuning.percent, 100);
    /* none, or what the cgroup that this runs in leaves */
    assert_true(os_tuning.memory_limit == SIZE_MAX || os_tuning.memory_limit < INT64_MAX);
    assert_int_equal(os_tuning.processors, os_allowed_processors(true));
    assert_int_equal(os_tuning.signal, SIGRTMIN + 2);
    assert_int_equal(os_debug.holdround, 32);
    assert_string_equal(why, "untouched");
}

static void environment_is_read(void **state)
{
    (void)state;
    setenv("GREY_GC", "250", 1);
    setenv("GREY_MEMLIMIT", "3GiB", 1);
    setenv("GREY_PROCS", "7", 1);
    setenv("GREY_DEBUG", "gctrace=1", 1);
    assert_int_equal(os_options_read(NULL, why, sizeof(why)), 0);
    assert_int_equal(os_tuning.percent, 250);
    assert_int_equal(os_tuning.memory_limit, (size_t)3 << 30);
    assert_int_equal(os_tuning.processors, 7);
    assert_int_equal(os_debug.gctrace, 1);
    /* TU-6: the same through marks */
    struct grey_options options = GREY_OPTIONS_INIT;
    setenv("GREY_GC", "off", 1);
    assert_int_equal(os_options_read(&options, why, sizeof(why)), 0);
    assert_int_equal(os_tuning.percent, -1);
    assert_int_equal(os_tuning.memory_limit, (size_t)3 << 30);
}

static void empty_and_malformed_environment(void **state)
{
    (void)state;
    setenv("GREY_GC", "", 1);
    setenv("GREY_MEMLIMIT", "", 1);
    setenv("GREY_PROCS", "", 1);
    setenv("GREY_DEBUG", "", 1);
    assert_int_equal(os_options_read(NULL, why, sizeof(why)), 0);
    assert_int_equal(os_tuning.percent, 100);
    assert_int_equal(os_tuning.memory_limit, SIZE_MAX);
    assert_int_equal(os_tuning.processors, os_allowed_processors(true));
    setenv("GREY_GC", "many", 1); /* silently */
    setenv("GREY_PROCS", "many", 1);
    setenv("GREY_DEBUG", "many", 1);
    assert_int_equal(os_options_read(NULL, why, sizeof(why)), 0);
    assert_int_equal(os_tuning.percent, 100);
    assert_int_equal(os_tuning.processors, os_allowed_processors(true));
    assert_string_equal(why, "untouched");
}

/* TU-2: names variable and value; TU-6, tier R: nothing has changed. */
static void malformed_limit_is_refused(void **state)
{
    (void)state;
    assert_int_equal(os_options_read(NULL, why, sizeof(why)), 0);
    struct os_tuning tuning = os_tuning;
    struct os_debug debug = os_debug;
    setenv("GREY_GC", "17", 1);
    setenv("GREY_DEBUG", "gctrace=1", 1);
    setenv("GREY_MEMLIMIT", "4GB", 1);
    assert_int_equal(os_options_read(NULL, why, sizeof(why)), EINVAL);
    assert_non_null(strstr(why, "GREY_MEMLIMIT"));
    assert_non_null(strstr(why, "4GB"));
    assert_memory_equal(&tuning, &os_tuning, sizeof(tuning));
    assert_memory_equal(&debug, &os_debug, sizeof(debug));
    /* an option that is set: the variable isn't looked at */
    struct grey_options options = GREY_OPTIONS_INIT;
    options.memory_limit = 1 << 30;
    assert_int_equal(os_options_read(&options, why, sizeof(why)), 0);
    assert_int_equal(os_tuning.memory_limit, 1 << 30);
}

static void options_override_environment(void **state)
{
    (void)state;
    setenv("GREY_GC", "250", 1);
    setenv("GREY_MEMLIMIT", "3GiB", 1);
    setenv("GREY_PROCS", "7", 1);
    setenv("GREY_DEBUG", "gctrace=1,checkmark=1", 1);
    struct grey_options options = GREY_OPTIONS_INIT;
    options.percent = 0; /* a percent, not a mark */
    options.memory_limit = SIZE_MAX;
    options.processors = 3;
    options.signal = SIGUSR2;
    options.debug = "clobberfree=1";
    assert_int_equal(os_options_read(&options, why, sizeof(why)), 0);
    assert_int_equal(os_tuning.percent, 0);
    assert_int_equal(os_tuning.memory_limit, SIZE_MAX);
    assert_int_equal(os_tuning.processors, 3);
    assert_int_equal(os_tuning.signal, SIGUSR2);
    assert_int_equal(os_debug.gctrace, 0); /* instead of the variable, not on top of it */
    assert_int_equal(os_debug.clobberfree, 1);
    options.percent = -7;
    options.memory_limit = 0;
    assert_int_equal(os_options_read(&options, why, sizeof(why)), 0);
    assert_int_equal(os_tuning.percent, -1);
    assert_int_equal(os_tuning.memory_limit, 1);
}

static void options_sizes(void **state)
{
    struct {
        struct grey_options options;
        unsigned char later[24];
    } newer = {GREY_OPTIONS_INIT, {0}};
    (void)state;
    newer.options.percent = 33;
    newer.options.size = sizeof(newer);
    assert_int_equal(os_options_read(&newer.options, why, sizeof(why)), 0);
    assert_int_equal(os_tuning.percent, 33);
    newer.options.percent = 44;
    newer.later[sizeof(newer.later) - 1] = 1;
    assert_int_equal(os_options_read(&newer.options, why, sizeof(why)), EINVAL);
    assert_non_null(strstr(why, "size"));
    newer.later[sizeof(newer.later) - 1] = 0;
    newer.options.size = sizeof(struct grey_options) - 1;
    assert_int_equal(os_options_read(&newer.options, why, sizeof(why)), EINVAL);
    newer.options.size = 0;
    assert_int_equal(os_options_read(&newer.options, why, sizeof(why)), EINVAL);
    assert_int_equal(os_tuning.percent, 33);
    newer.options.size = sizeof(struct grey_options);
    assert_int_equal(os_options_read(&newer.options, why, sizeof(why)), 0);
    assert_int_equal(os_tuning.percent, 44);
}

static void signals(void **state)
{
    const int refused[] = {-1,     SIGKILL, SIGSTOP, SIGSEGV, SIGBUS,       SIGFPE,
                           SIGILL, SIGTRAP, SIGABRT, 32,      SIGRTMIN - 1, SIGRTMAX + 1};
    const int taken[] = {SIGUSR1, SIGURG, SIGRTMIN, SIGRTMIN + 5, SIGRTMAX};
    struct grey_options options = GREY_OPTIONS_INIT;
    (void)state;
    for (size_t i = 0; i < LENGTH(refused); i++) {
        options.signal = refused[i];
        assert_int_equal(os_options_read(&options, why, sizeof(why)), EINVAL);
        assert_non_null(strstr(why, "signal"));
    }
    for (size_t i = 0; i < LENGTH(taken); i++) {
        options.signal = taken[i];
        assert_int_equal(os_options_read(&options, why, sizeof(why)), 0);
        assert_int_equal(os_tuning.signal, taken[i]);
    }
}

/* ---- processors -------------------------------------------------------------------------------------- */

static void affinity_bounds_processors(void **state)
{
    cpu_set_t before, one;
    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
    assert_int_equal(os_allowed_processors(false), CPU_COUNT(&before));
    assert_true(os_allowed_processors(true) >= 1);
    assert_true(os_allowed_processors(true) <= os_allowed_processors(false));
    CPU_ZERO(&one);
    for (int i = 0; CPU_COUNT(&one) == 0; i++) {
        if (CPU_ISSET(i, &before))
            CPU_SET(i, &one);
    }
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    assert_int_equal(os_allowed_processors(false), 1);
    assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
}

static char mount[64];

static void write_figure(const char *group, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof(path), "%s%s/%s", mount, group, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static void write_quota(const char *group, const char *text) { write_figure(group, "cpu.max", text); }

static void remove_tree(void)
{
    static const char *const parts[] = {"/a/b/cpu.max", "/a/b", "/a/cpu.max", "/a", "/cpu.max", ""};
    char path[256];
    for (size_t i = 0; i < LENGTH(parts); i++) {
        snprintf(path, sizeof(path), "%s%s", mount, parts[i]);
        remove(path);
    }
}

/* TU-3, on a tree of files that looks like a cgroup's. */
static void cgroup_quota(void **state)
{
    static const struct {
        const char *text;
        unsigned processors;
    } table[] = {
        {"max 100000\n", 0},
        {"100000 100000\n", 1},
        {"50000 100000\n", 1},
        {"100001 100000\n", 2},
        {"250000 100000\n", 3},
        {"400000 100000", 4},
        {"1 1000000\n", 1},
        {"garbage\n", 0},
        {"", 0},
        {"100000\n", 0},
        {"100000 0\n", 0},
        {"-1 100000\n", 0},
        {"9223372036854775807 1\n", 65536},
    };
    char path[128];
    (void)state;
    strcpy(mount, "/tmp/grey_cgroup_XXXXXX");
    assert_non_null(mkdtemp(mount));
    assert_int_equal(os_cgroup_processors(mount, "/"), 0); /* no file: no quota */
    for (size_t i = 0; i < LENGTH(table); i++) {
        write_quota("", table[i].text);
        if (os_cgroup_processors(mount, "/") != table[i].processors)
            fail_msg("cpu.max \"%s\" gives %u", table[i].text, os_cgroup_processors(mount, "/"));
    }
    snprintf(path, sizeof(path), "%s/a", mount);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof(path), "%s/a/b", mount);
    assert_int_equal(mkdir(path, 0700), 0);
    /* the least of the group and all above it */
    write_quota("", "max 100000\n");
    write_quota("/a", "300000 100000\n");
    write_quota("/a/b", "500000 100000\n");
    assert_int_equal(os_cgroup_processors(mount, "/a/b"), 3);
    write_quota("/a/b", "200000 100000\n");
    assert_int_equal(os_cgroup_processors(mount, "/a/b"), 2);
    write_quota("", "100000 100000\n");
    assert_int_equal(os_cgroup_processors(mount, "/a/b"), 1);
    assert_int_equal(os_cgroup_processors(mount, "/a/missing"), 1);
    remove_tree();
}

/* PC-12: the least of the group and all above it, less what the process holds already. */
static void cgroup_memory(void **state)
{
    static const struct {
        const char *text;
        size_t bytes;
    } table[] = {
        {"max\n", SIZE_MAX},
        {"268435456\n", 268435456},
        {"268435456", 268435456},
        {"0\n", 1},
        {"9223372036854771712\n", 9223372036854771712u},
        {"garbage\n", SIZE_MAX},
        {"", SIZE_MAX},
        {"-1\n", SIZE_MAX},
    };
    static const char *const parts[] = {"/a/memory.max", "/a", "/memory.max", ""};
    char path[256];
    (void)state;
    strcpy(mount, "/tmp/grey_cgroup_XXXXXX");
    assert_non_null(mkdtemp(mount));
    assert_true(os_cgroup_memory(mount, "/") == SIZE_MAX); /* no file: no limit */
    for (size_t i = 0; i < LENGTH(table); i++) {
        write_figure("", "memory.max", table[i].text);
        if (os_cgroup_memory(mount, "/") != table[i].bytes)
            fail_msg("memory.max \"%s\" gives %zu", table[i].text, os_cgroup_memory(mount, "/"));
    }
    snprintf(path, sizeof(path), "%s/a", mount);
    assert_int_equal(mkdir(path, 0700), 0);
    write_figure("", "memory.max", "max\n");
    write_figure("/a", "memory.max", "300000000\n");
    assert_int_equal(os_cgroup_memory(mount, "/a"), 300000000);
    write_figure("", "memory.max", "200000000\n");
    assert_int_equal(os_cgroup_memory(mount, "/a"), 200000000);
    assert_int_equal(os_cgroup_memory(mount, "/a/missing"), 200000000);
    for (size_t i = 0; i < LENGTH(parts); i++) {
        snprintf(path, sizeof(path), "%s%s", mount, parts[i]);
        assert_int_equal(remove(path), 0);
    }
    /* a twentieth is left for what is in no mapping */
    assert_true(os_default_limit(SIZE_MAX, 1 << 20) == SIZE_MAX);
    assert_int_equal(os_default_limit(100000, 5000), 90000);
    assert_int_equal(os_default_limit(100000, 95000), 1);
    assert_int_equal(os_default_limit(100000, SIZE_MAX), 1);
}

/* cgroup=0, off and empty say that there is no limit, wherever this runs. */
static void cgroup_limit_can_be_refused(void **state)
{
    (void)state;
    setenv("GREY_DEBUG", "cgroup=0", 1);
    assert_int_equal(os_options_read(NULL, why, sizeof(why)), 0);
    assert_true(os_tuning.memory_limit == SIZE_MAX);
    unsetenv("GREY_DEBUG");
    setenv("GREY_MEMLIMIT", "off", 1);
    assert_int_equal(os_options_read(NULL, why, sizeof(why)), 0);
    assert_true(os_tuning.memory_limit == SIZE_MAX);
    setenv("GREY_MEMLIMIT", "", 1);
    assert_int_equal(os_options_read(NULL, why, sizeof(why)), 0);
    assert_true(os_tuning.memory_limit == SIZE_MAX);
}

/* ---- set-uid ----------------------------------------------------------------------------------------- */

enum { SECURE = 40, NOT_SECURE = 41, HEARD = 42 };

/* What the set-uid copy of this program does. */
static int report_secure(void)
{
    if (getauxval(AT_SECURE) == 0)
        return NOT_SECURE;
    if (getenv("GREY_GC") == NULL || os_options_read(NULL, why, sizeof(why)) != 0)
        return HEARD;
    bool deaf = os_tuning.percent == 100 && os_tuning.memory_limit == SIZE_MAX && os_debug.gctrace == 0 &&
                os_tuning.processors == os_allowed_processors(true);
    return deaf ? SECURE : HEARD;
}

static void start_as_nobody(void *arg)
{
    char *path = arg, mode[] = "secure";
    char *arguments[] = {path, mode, NULL};
    char *variables[] = {(char[]){"GREY_GC=17"}, (char[]){"GREY_MEMLIMIT=bad"}, (char[]){"GREY_PROCS=9999"},
                         (char[]){"GREY_DEBUG=gctrace=1"}, NULL};
    if (setgid(65534) != 0 || setuid(65534) != 0)
        _exit(NOT_SECURE);
    execve(path, arguments, variables);
    _exit(NOT_SECURE);
}

/* TU-7 */
static void set_uid_hears_no_environment(void **state)
{
    char path[] = "/tmp/grey_setuid_XXXXXX", buffer[65536];
    ssize_t n;
    (void)state;
    if (geteuid() != 0)
        skip();
    int from = open("/proc/self/exe", O_RDONLY), to = mkstemp(path);
    assert_true(from >= 0 && to >= 0);
    while ((n = read(from, buffer, sizeof(buffer))) > 0)
        assert_int_equal(write(to, buffer, (size_t)n), n);
    assert_int_equal(fchmod(to, 04755), 0);
    close(from);
    close(to);
    int status = run_child(start_as_nobody, path)->status;
    unlink(path);
    if (status == NOT_SECURE) /* a file system mounted nosuid, say */
        skip();
    assert_int_equal(status, SECURE);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, clear_environment, clear_environment)

int main(int n, char **arguments)
{
    if (n == 2 && strcmp(arguments[1], "secure") == 0)
        return report_secure();
    const struct CMUnitTest tests[] = {
        TEST(percent_forms),
        TEST(byte_forms_accepted),
        TEST(byte_forms_rejected),
        TEST(processor_forms),
        TEST(debug_defaults_are_the_tables),
        TEST(debug_range_of_each_flag),
        TEST(debug_lists),
        TEST(unset_environment_gives_defaults),
        TEST(environment_is_read),
        TEST(empty_and_malformed_environment),
        TEST(malformed_limit_is_refused),
        TEST(options_override_environment),
        TEST(options_sizes),
        TEST(signals),
        TEST(affinity_bounds_processors),
        TEST(cgroup_quota),
        TEST(cgroup_memory),
        TEST(cgroup_limit_can_be_refused),
        TEST(set_uid_hears_no_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
