/* os/options.c -- the environment and struct grey_options, made into numbers.
 *
 * The forms are Go's, rules and rejections included, so that a value which works there works here: a
 * percent that cannot be read counts as unset, since a typo there costs some memory; a limit that cannot
 * be read stops the start, since the program would run without the limit it asked for (TU-1, TU-2).
 * Where both are given a field of struct grey_options wins over the environment (TU-6), and a program
 * with more rights than its caller hears no environment at all (TU-7).
 *
 * All is read into locals and stored at the end, so a call that failed has changed nothing.  Files are
 * read with plain system calls: no stdio, because that allocates.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "os/options.h"

#include "os/os.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

enum { PROCESSORS_MAX = 1 << 16, PERCENT_DEFAULT = 100, TEXT_MAX = 4096 };

#define DEBUG_DEFAULTS                                                                                       \
    {                                                                                                        \
        OS_DEBUG_FLAGS(X)                                                                                    \
    }
#define X(name, standard, low, high, help) .name = (standard),
struct os_debug os_debug = DEBUG_DEFAULTS;
static const struct os_debug debug_defaults = DEBUG_DEFAULTS;
#undef X

struct os_tuning os_tuning = {.percent = PERCENT_DEFAULT, .memory_limit = SIZE_MAX, .processors = 1};

/* ---- numbers ----------------------------------------------------------------------------------------- */

/* Decimal digits, all of text up to end and at least one, and a minus sign where allowed.  False also
 * when the value does not fit. */
static bool parse_number(const char *text, const char *end, int64_t *value)
{
    uint64_t sum = 0;
    bool negative = text < end && *text == '-';
    if (negative)
        text++;
    if (text == end)
        return false;
    for (; text < end; text++) {
        if (*text < '0' || *text > '9')
            return false;
        uint64_t digit = (uint64_t)(*text - '0');
        if (sum > ((uint64_t)INT64_MAX - digit) / 10)
            return false;
        sum = sum * 10 + digit;
    }
    *value = negative ? -(int64_t)sum : (int64_t)sum;
    return true;
}

int os_parse_percent(const char *text)
{
    int64_t value;
    if (text == NULL)
        return PERCENT_DEFAULT;
    if (strcmp(text, "off") == 0)
        return -1;
    if (!parse_number(text, text + strlen(text), &value) || value < INT32_MIN || value > INT32_MAX)
        return PERCENT_DEFAULT;
    return value < 0 ? -1 : (int)value;
}

/* The length of the suffix, and its shift. */
static size_t byte_suffix(const char *text, size_t length, unsigned *shift)
{
    static const char prefixes[] = "KMGT";
    *shift = 0;
    if (length < 1 || text[length - 1] != 'B')
        return 0;
    if (length < 3 || text[length - 2] != 'i')
        return 1;
    const char *prefix = memchr(prefixes, text[length - 3], sizeof(prefixes) - 1);
    if (prefix == NULL)
        return 1; /* what stands before the B is no number then */
    *shift = 10 * (unsigned)(prefix - prefixes + 1);
    return 3;
}

bool os_parse_bytes(const char *text, size_t *bytes)
{
    int64_t value;
    unsigned shift;
    if (text == NULL || *text == '\0' || strcmp(text, "off") == 0) {
        *bytes = SIZE_MAX;
        return true;
    }
    size_t length = strlen(text);
    length -= byte_suffix(text, length, &shift);
    if (!parse_number(text, text + length, &value) || value < 0 || value > INT64_MAX >> shift)
        return false;
    *bytes = value == 0 ? 1 : (size_t)value << shift; /* 0: as little as the limiter allows */
    return true;
}

unsigned os_parse_processors(const char *text)
{
    int64_t value;
    if (text == NULL || !parse_number(text, text + strlen(text), &value) || value < 1 ||
        value > PROCESSORS_MAX)
        return 0;
    return (unsigned)value;
}

/* ---- GREY_DEBUG -------------------------------------------------------------------------------------- */

static void set_flag(const char *name, size_t length, int64_t value, struct os_debug *out)
{
#define X(flag, standard, low, high, help)                                                                   \
    if (length == sizeof(#flag) - 1 && memcmp(name, #flag, length) == 0 && value >= (low) &&                 \
        value <= (high))                                                                                     \
        out->flag = (int)value;
    OS_DEBUG_FLAGS(X)
#undef X
}

void os_parse_debug(const char *text, struct os_debug *out)
{
    *out = debug_defaults;
    while (text != NULL && *text != '\0') {
        const char *end = strchrnul(text, ',');
        const char *equals = memchr(text, '=', (size_t)(end - text));
        int64_t value;
        if (equals != NULL && parse_number(equals + 1, end, &value))
            set_flag(text, (size_t)(equals - text), value, out);
        text = *end == ',' ? end + 1 : end;
    }
}

/* ---- processors and memory ---------------------------------------------------------------------------- */

/* A whole small file, terminated; false: it isn't there or is too large. */
static bool read_text(const char *path, char *text, size_t size)
{
    size_t length = 0;
    ssize_t n = 1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    while (length < size && (n = read(fd, text + length, size - length)) > 0)
        length += (size_t)n;
    close(fd);
    if (n < 0 || length == size)
        return false;
    text[length] = '\0';
    return true;
}

static const char *parse_word(const char *text, int64_t *value)
{
    const char *end = text + strcspn(text, " \n");
    return parse_number(text, end, value) ? end : NULL;
}

/* "quota period" or "max period", in microseconds; part of a processor counts as one.  0: no quota. */
static size_t read_quota(const char *directory)
{
    char path[TEXT_MAX], text[128];
    int64_t quota, period;
    os_format(path, sizeof(path), "%s/cpu.max", directory);
    if (!read_text(path, text, sizeof(text)))
        return 0;
    const char *rest = parse_word(text, &quota);
    if (rest == NULL || *rest != ' ' || parse_word(rest + 1, &period) == NULL || quota <= 0 || period <= 0)
        return 0;
    int64_t processors = quota / period + (quota % period != 0);
    return processors > PROCESSORS_MAX ? PROCESSORS_MAX : (size_t)processors;
}

/* "max" or bytes; 0: no limit. */
static size_t read_memory(const char *directory)
{
    char path[TEXT_MAX], text[128];
    int64_t bytes;
    os_format(path, sizeof(path), "%s/memory.max", directory);
    if (!read_text(path, text, sizeof(text)) || parse_word(text, &bytes) == NULL || bytes < 0)
        return 0;
    return bytes == 0 ? 1 : (size_t)bytes;
}

/* What read finds in the group or one above it, the least of all; 0: nothing. */
static size_t least_of_groups(const char *mount, const char *group, size_t (*read)(const char *directory))
{
    char directory[TEXT_MAX];
    size_t least = 0;
    size_t root = strlen(mount);
    if (root + strlen(group) >= sizeof(directory))
        return 0;
    size_t length = os_format(directory, sizeof(directory), "%s%s", mount, group);
    /* A group is bound by its parents' quotas and limits too. */
    for (;;) {
        size_t found = read(directory);
        if (found != 0 && (least == 0 || found < least))
            least = found;
        if (length <= root)
            return least;
        while (length > root && directory[length - 1] != '/')
            length--;
        if (length > root)
            length--; /* the slash */
        directory[length] = '\0';
    }
}

unsigned os_cgroup_processors(const char *mount, const char *group)
{
    return (unsigned)least_of_groups(mount, group, read_quota);
}

size_t os_cgroup_memory(const char *mount, const char *group)
{
    size_t least = least_of_groups(mount, group, read_memory);
    return least != 0 ? least : SIZE_MAX;
}

size_t os_default_limit(size_t cgroup, size_t held)
{
    if (cgroup == SIZE_MAX)
        return SIZE_MAX;
    size_t rest = cgroup - cgroup / 20;   /* page tables, sockets, and what our own limit is passed by */
    return rest > held ? rest - held : 1; /* as little as the limiter allows */
}

/* Version 2's line in /proc/self/cgroup is "0::/path".  false: there is none. */
static bool own_group(char *group, size_t size)
{
    char text[TEXT_MAX];
    if (!read_text("/proc/self/cgroup", text, sizeof(text)))
        return false;
    for (char *line = text; *line != '\0';) {
        char *end = strchrnul(line, '\n');
        bool last = *end == '\0';
        *end = '\0';
        if (strncmp(line, "0::/", 4) == 0) {
            os_format(group, size, "%s", line + 3);
            return true;
        }
        line = last ? end : end + 1;
    }
    return false;
}

/* The process's resident memory: second figure of statm, in pages. */
static size_t resident(void)
{
    char text[256];
    int64_t size, pages;
    if (!read_text("/proc/self/statm", text, sizeof(text)))
        return 0;
    const char *rest = parse_word(text, &size);
    if (rest == NULL || *rest != ' ' || parse_word(rest + 1, &pages) == NULL || pages < 0)
        return 0;
    return (size_t)pages * os_page_size();
}

static size_t cgroup_limit(void)
{
    char group[TEXT_MAX];
    if (!own_group(group, sizeof(group)))
        return SIZE_MAX;
    return os_default_limit(os_cgroup_memory("/sys/fs/cgroup", group), resident());
}

static unsigned affinity_processors(void)
{
    unsigned long set[PROCESSORS_MAX / (8 * sizeof(unsigned long))];
    memset(set, 0, sizeof(set));
    if (sched_getaffinity(0, sizeof(set), (cpu_set_t *)set) != 0)
        return 1;
    unsigned n = 0;
    for (size_t i = 0; i < sizeof(set) / sizeof(set[0]); i++)
        n += (unsigned)__builtin_popcountl(set[i]);
    return n == 0 ? 1 : n;
}

unsigned os_allowed_processors(bool cgroup)
{
    unsigned n = affinity_processors();
    char group[TEXT_MAX];
    unsigned quota = 0;
    if (cgroup && own_group(group, sizeof(group)))
        quota = os_cgroup_processors("/sys/fs/cgroup", group);
    return quota != 0 && quota < n ? quota : n;
}

/* ---- all of it --------------------------------------------------------------------------------------- */

static const char *environment(const char *name) { return getauxval(AT_SECURE) != 0 ? NULL : getenv(name); }

/* A struct of a later version is fine as long as it asks for nothing that is unknown here. */
static bool size_understood(const struct grey_options *options)
{
    const unsigned char *bytes = (const unsigned char *)options;
    if (options->size < sizeof(*options))
        return false;
    for (size_t i = sizeof(*options); i < options->size; i++) {
        if (bytes[i] != 0)
            return false;
    }
    return true;
}

/* Not to be had: what cannot be caught, what the C library keeps, what faults raise. */
static bool signal_usable(int number)
{
    static const int unusable[] = {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    if (number < 1 || number > SIGRTMAX || (number >= 32 && number < SIGRTMIN))
        return false;
    for (size_t i = 0; i < sizeof(unusable) / sizeof(unusable[0]); i++) {
        if (number == unusable[i])
            return false;
    }
    return true;
}

int os_options_read(const struct grey_options *options, char *why, size_t why_size)
{
    static const struct grey_options standard = GREY_OPTIONS_INIT;
    struct os_debug debug;
    struct os_tuning tuning;
    if (options == NULL)
        options = &standard;
    else if (!size_understood(options)) {
        os_format(why, why_size, "grey_options.size is %zu, of this version %zu: use GREY_OPTIONS_INIT",
                  options->size, sizeof(*options));
        return EINVAL;
    }

    os_parse_debug(options->debug != NULL ? options->debug : environment("GREY_DEBUG"), &debug);

    tuning.percent = options->percent;
    if (tuning.percent == GREY_PERCENT_FROM_ENVIRONMENT)
        tuning.percent = os_parse_percent(environment("GREY_GC"));
    else if (tuning.percent < 0)
        tuning.percent = -1;

    tuning.memory_limit = options->memory_limit == 0 ? 1 : options->memory_limit;
    if (tuning.memory_limit == GREY_MEMORY_LIMIT_FROM_ENVIRONMENT) {
        const char *text = environment("GREY_MEMLIMIT");
        if (!os_parse_bytes(text, &tuning.memory_limit)) {
            os_format(why, why_size, "GREY_MEMLIMIT=%s: not off nor a number of B, KiB, MiB, GiB or TiB",
                      text);
            return EINVAL;
        }
        if (text == NULL && debug.cgroup) /* what the library itself will map is not there yet */
            tuning.memory_limit = cgroup_limit();
    }

    tuning.processors = options->processors;
    if (tuning.processors == 0)
        tuning.processors = os_parse_processors(environment("GREY_PROCS"));
    if (tuning.processors == 0)
        tuning.processors = os_allowed_processors(debug.cgroup != 0);
    if (tuning.processors > PROCESSORS_MAX)
        tuning.processors = PROCESSORS_MAX;

    tuning.signal = options->signal == 0 ? SIGRTMIN + 2 : options->signal;
    if (!signal_usable(tuning.signal)) {
        os_format(why, why_size, "grey_options.signal: %d cannot be the handshake signal", tuning.signal);
        return EINVAL;
    }

    os_debug = debug;
    os_tuning = tuning;
    return 0;
}
