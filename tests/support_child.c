/* tests/support_child.c -- see support_child.h. */
#include "support_child.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
enum { VARIABLES_MOST = 512, SECONDS_MOST = 100 };
static const char case_option[] = "--case";

void child_main(int argc, char **argv, const struct child_case *cases, size_t n)
{
    if (argc != 3 || strcmp(argv[1], case_option) != 0)
        return;
    const struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    alarm(SECONDS_MOST); /* a child that hangs dies of SIGALRM */
    for (size_t i = 0; i < n; i++) {
        if (strcmp(cases[i].name, argv[2]) == 0) {
            cases[i].run();
            exit(0);
        }
    }
    fprintf(stderr, "no case %s\n", argv[2]);
    exit(67);
}

void child_fail(const char *file, int line, const char *what)
{
    char text[512];
    int length = snprintf(text, sizeof(text), "%s:%d: %s\n", file, line, what);
    if (length > 0 && write(STDERR_FILENO, text, (size_t)length) < 0)
        _exit(65);
    _exit(66);
}

static void read_all(int fd, char *text, size_t size)
{
    size_t length = 0;
    ssize_t n;
    while (length < size - 1 && (n = read(fd, text + length, size - 1 - length)) > 0)
        length += (size_t)n;
    text[length] = '\0';
}

static int same_name(const char *entry, const char *change)
{
    size_t length = strcspn(change, "=");
    return strncmp(entry, change, length) == 0 && entry[length] == '=';
}

static char **environment_with(const char *const *changes)
{
    static char *result[VARIABLES_MOST];
    size_t n = 0;
    for (char **entry = environ; *entry != NULL && n < VARIABLES_MOST / 2; entry++) {
        int changed = 0;
        for (const char *const *c = changes; c != NULL && *c != NULL; c++)
            changed |= same_name(*entry, *c);
        if (!changed)
            result[n++] = *entry;
    }
    for (const char *const *c = changes; c != NULL && *c != NULL && n < VARIABLES_MOST - 1; c++)
        if (strchr(*c, '=') != NULL)
            result[n++] = (char *)*c;
    result[n] = NULL;
    return result;
}

const struct child_end *child_run(const char *name, const char *const *environment)
{
    static struct child_end end;
    int ends[2], status;
    pid_t child;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    char *arguments[] = {"test", (char *)case_option, (char *)name, NULL};
    assert_int_equal(
        posix_spawn(&child, "/proc/self/exe", &actions, NULL, arguments, environment_with(environment)), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    read_all(ends[0], end.message, sizeof(end.message));
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    end.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    end.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return &end;
}

void child_passes(const char *name, const char *const *environment)
{
    const struct child_end *end = child_run(name, environment);
    if (end->status != 0)
        fail_msg("case %s: signal %d, status %d, message \"%s\"", name, end->signal, end->status,
                 end->message);
}

void child_dies(const char *name, const char *const *environment, const char *text)
{
    const struct child_end *end = child_run(name, environment);
    int ours =
        strstr(end->message, "grey: fatal: ") != NULL || strstr(end->message, "grey: internal: ") != NULL;
    if (end->signal != SIGABRT || !ours || strstr(end->message, text) == NULL)
        fail_msg("case %s: expected death by \"%s\", got signal %d, status %d, message \"%s\"", name, text,
                 end->signal, end->status, end->message);
}
