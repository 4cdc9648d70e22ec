/* os/time.c -- clocks, and three ways to wait.
 *
 * Everything here may be called in the handshake's signal handler, so all of it leaves errno alone and
 * takes no lock.  os_wait is a private futex: its word is the state that is waited for itself, so a
 * waker that changes the word first cannot be missed.  os_pause is for waits that are nearly always over
 * within a microsecond (a busy section of another thread) but that may last a time slice when that
 * thread lost its processor: first it spins, then gives its processor away, and at last it sleeps, so
 * that a waiter with real-time priority cannot keep the one it waits for from running.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "os/os.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NANOSECONDS 1000000000u

enum {
    PAUSE_SPINS = 64,  /* some microseconds */
    PAUSE_YIELDS = 16, /* after the spins */
    PAUSE_SLEEP_NS = 50000
};

static uint64_t read_clock(clockid_t clock)
{
    struct timespec now;
    int saved = errno;
    if (clock_gettime(clock, &now) != 0)
        os_internal(NULL, "clock %d cannot be read, errno %d", (int)clock, errno);
    errno = saved;
    return (uint64_t)now.tv_sec * NANOSECONDS + (uint64_t)now.tv_nsec;
}

uint64_t os_now(void) { return read_clock(CLOCK_MONOTONIC); }

uint64_t os_thread_cpu(void) { return read_clock(CLOCK_THREAD_CPUTIME_ID); }

uint64_t os_process_cpu(void) { return read_clock(CLOCK_PROCESS_CPUTIME_ID); }

void os_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
    struct timespec limit, *timeout = NULL;
    int saved = errno;
    if (timeout_ns != UINT64_MAX) {
        limit.tv_sec = (time_t)(timeout_ns / NANOSECONDS);
        limit.tv_nsec = (long)(timeout_ns % NANOSECONDS);
        timeout = &limit;
    }
    /* All outcomes, a signal and a changed word among them, mean the same: look again. */
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout, NULL, 0);
    errno = saved;
}

void os_wake(_Atomic uint32_t *word, int count)
{
    int saved = errno;
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
    errno = saved;
}

void os_yield(void) { sched_yield(); }

void os_pause(unsigned *n)
{
    if (*n < PAUSE_SPINS) {
        ++*n;
        __builtin_ia32_pause();
    } else if (*n < PAUSE_SPINS + PAUSE_YIELDS) {
        ++*n;
        os_yield();
    } else {
        struct timespec nap = {0, PAUSE_SLEEP_NS};
        int saved = errno;
        nanosleep(&nap, NULL);
        errno = saved;
    }
}
