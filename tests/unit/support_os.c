/* tests/unit/support_os.c -- see support_os.h.
 *
 * The stand-in for thread_poll does what the real one promises to the section word: it answers in a
 * section of its own, so that the fork gate's handling of a poll at the gate is tested with it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support_os.h"

#include "os/thread.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

__thread struct grey_tls_ grey_tls_;
_Atomic unsigned support_polls;

void thread_poll(struct thread *self)
{
    thread_enter(self);
    atomic_store(&self->request, 0);
    atomic_fetch_add(&support_polls, 1);
    thread_leave(self);
}

static void read_all(int fd, char *text, size_t size)
{
    size_t length = 0;
    ssize_t n;
    while (length < size - 1 && (n = read(fd, text + length, size - 1 - length)) > 0)
        length += (size_t)n;
    text[length] = '\0';
}

const struct child_end *run_child(void (*fn)(void *arg), void *arg)
{
    static struct child_end end;
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        signal(SIGABRT, SIG_DFL);
        signal(SIGSEGV, SIG_DFL);
        fn(arg);
        _exit(0);
    }
    close(ends[1]);
    read_all(ends[0], end.message, sizeof(end.message));
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    end.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    end.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return &end;
}

void assert_dies(void (*fn)(void *arg), void *arg, const char *message)
{
    const struct child_end *end = run_child(fn, arg);
    if (end->signal != SIGABRT || strstr(end->message, message) == NULL)
        fail_msg("expected death by \"%s\", got signal %d, status %d, message \"%s\"", message, end->signal,
                 end->status, end->message);
}

uint64_t support_seed(void)
{
    const char *text = getenv("GREY_TEST_SEED");
    uint64_t seed =
        text != NULL ? strtoull(text, NULL, 0) : (uint64_t)time(NULL) * 2654435761u ^ (uint64_t)getpid();
    print_message("GREY_TEST_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

/* splitmix64 */
uint64_t support_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

bool support_mapping(const void *p, struct mapping *mapping)
{
    char line[512];
    bool found = false;
    FILE *file = fopen("/proc/self/smaps", "r");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL) {
        unsigned long start, end;
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
            if (found)
                break;
            found = (uintptr_t)p >= start && (uintptr_t)p < end;
            mapping->start = start;
            mapping->end = end;
            snprintf(mapping->line, sizeof(mapping->line), "%.250s", line);
        } else if (found && strncmp(line, "VmFlags:", 8) == 0) {
            snprintf(mapping->flags, sizeof(mapping->flags), "%.250s", line + 8);
        }
    }
    fclose(file);
    return found;
}
