/* os/lock.c -- mutexes with a rank, so that a deadlock is found by the first test that could have had it.
 *
 * A plain pthread mutex does the work: ThreadSanitizer and debuggers understand it.  In debug builds
 * each thread keeps the list of locks that it holds.  Taking one whose rank is not above all of them
 * dies, whether or not another thread is there at that moment to complete the deadlock.  A try cannot
 * deadlock, so its rank isn't checked, but what it got counts for later ones.  The list holds addresses,
 * not ranks, so that a lock that is initialised anew, in the child of a fork, leaves it.
 */
#include "os/os.h"

#include <errno.h>

/* With ThreadSanitizer too: os_lock_init has to know then what is held. */
#if defined(GREY_ASSERTS) || OS_TSAN
#define HELD_LIST 1
#endif

#ifdef HELD_LIST
enum { HELD_MAX = 2 * OS_RANKS };
static __thread struct {
    const struct os_lock *lock[HELD_MAX];
    unsigned n;
} held __attribute__((tls_model("initial-exec")));

static void held_check(const struct os_lock *lock)
{
    for (unsigned i = 0; i < held.n; i++) {
        if (held.lock[i] == lock)
            os_internal(lock, "lock of rank %d taken twice by one thread", (int)lock->rank);
        if (held.lock[i]->rank >= lock->rank)
            os_internal(lock, "lock of rank %d taken while holding one of rank %d", (int)lock->rank,
                        (int)held.lock[i]->rank);
    }
}

static void held_add(const struct os_lock *lock)
{
    if (held.n == HELD_MAX)
        os_internal(lock, "one thread holds %d locks", (int)HELD_MAX);
    held.lock[held.n++] = lock;
}

static bool held_remove(const struct os_lock *lock)
{
    for (unsigned i = held.n; i-- > 0;) {
        if (held.lock[i] == lock) {
            held.lock[i] = held.lock[--held.n];
            return true;
        }
    }
    return false;
}

bool os_lock_held_any(void) { return held.n != 0; }

bool os_lock_held(const struct os_lock *lock)
{
    for (unsigned i = 0; i < held.n; i++) {
        if (held.lock[i] == lock)
            return true;
    }
    return false;
}
#else
static void held_check(const struct os_lock *lock) { (void)lock; }

static void held_add(const struct os_lock *lock) { (void)lock; }

static bool held_remove(const struct os_lock *lock)
{
    (void)lock;
    return true;
}

bool os_lock_held_any(void) { return false; }

bool os_lock_held(const struct os_lock *lock)
{
    (void)lock;
    return true;
}
#endif

void os_lock_init(struct os_lock *lock, enum os_rank rank)
{
#ifdef HELD_LIST
    if (os_lock_held(lock)) /* in the child of a fork: ThreadSanitizer wants to see it released */
        os_unlock(lock);
#endif
    lock->rank = rank;
    int error = pthread_mutex_init(&lock->mutex, NULL);
    if (error != 0)
        os_internal(lock, "lock of rank %d cannot be made, error %d", (int)rank, error);
}

void os_lock(struct os_lock *lock)
{
    held_check(lock);
    int error = pthread_mutex_lock(&lock->mutex);
    if (UNLIKELY(error != 0))
        os_internal(lock, "lock of rank %d cannot be taken, error %d", (int)lock->rank, error);
    held_add(lock);
}

bool os_trylock(struct os_lock *lock)
{
    int error = pthread_mutex_trylock(&lock->mutex);
    if (error == EBUSY)
        return false;
    if (UNLIKELY(error != 0))
        os_internal(lock, "lock of rank %d cannot be tried, error %d", (int)lock->rank, error);
    held_add(lock);
    return true;
}

void os_unlock(struct os_lock *lock)
{
    if (UNLIKELY(!held_remove(lock)))
        os_internal(lock, "lock of rank %d released by a thread that does not hold it", (int)lock->rank);
    int error = pthread_mutex_unlock(&lock->mutex);
    if (UNLIKELY(error != 0))
        os_internal(lock, "lock of rank %d cannot be released, error %d", (int)lock->rank, error);
}
