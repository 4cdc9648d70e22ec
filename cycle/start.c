/* cycle/start.c -- start and end of the library.
 *
 * grey_init, or the first call of any other function that needs the heap (TU-8).  One mutex; who loses
 * the race finds the library up.  The rooms start from the bottom and end from the top.
 */
#include "arena/arena.h"
#include "barrier/barrier.h"
#include "cycle/cycle.h"
#include "foreign/foreign.h"
#include "inspect/inspect.h"
#include "inspect/verify.h"
#include "mark/mark.h"
#include "mutator/mutator.h"
#include "os/options.h"
#include "pin/pin.h"
#include "sweep/cleanups.h"
#include "sweep/specials.h"
#include "sweep/sweep.h"
#include "sweep/words.h"

#include <errno.h>
#include <signal.h>

static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;
static _Atomic uint32_t up;

bool start_is_up(void) { return atomic_load_explicit(&up, memory_order_acquire) != 0; }

static void internal_context(const char **phase, uint64_t *cycle)
{
    *phase = cycle_step_name(cycle_step());
    *cycle = cycle_number();
}

static bool shade_outside(struct thread *self, uintptr_t word)
{
    return arena_contains(word) ? arena_shade(word) : foreign_shade(self, word);
}

static void touch_outside(struct thread *self, uintptr_t word)
{
    if (arena_contains(word))
        arena_touch(self, word);
    else
        foreign_touch(self, word);
}

static bool overlaps_outside(uintptr_t start, uintptr_t end)
{
    return arena_overlaps(start, end) || foreign_overlaps(start, end);
}

/* How heap/ reaches the rooms above it.  Defined here, so that a program which is linked with the archive
 * and only allocates gets this file and with it the rest. */
const struct heap_calls heap_calls = {
    .attach = start_and_attach,
    .sweep = sweep_span,
    .sweep_some = sweep_some,
    .allocated = control_allocated,
    .grow_runs = mutator_grow_runs,
    .collect_for_memory = control_collect_for_memory,
    .ask_for_cycle = control_ask_for_cycle,
    .shade_outside = shade_outside,
    .touch_outside = touch_outside,
    .overlaps_outside = overlaps_outside,
    .give_up_caches = pin_give_up_cache,
};

/* The same for what is set at run time.  Before any constructor of the program, so that its first call finds
 * the way in. */
__attribute__((constructor(101))) static void set_calls(void)
{
    fork_init(); /* not at start: fork must not find another thread in the middle of that */
    os_internal_context = internal_context;
    cycle_verify = verify_heap;
}

static void stop_rooms(void)
{
    arena_faults_shutdown();
    cleanups_shutdown();
    specials_shutdown();
    pin_shutdown();
    arena_shutdown();
    foreign_shutdown();
    mark_shutdown();
    work_shutdown();
    heap_shutdown();
}

static int start_rooms(void)
{
    int error = heap_init();
    if (error != 0)
        return error;
    sweep_words_init();
    error = work_init();
    if (error == 0)
        error = mark_init();
    if (error == 0)
        error = foreign_init();
    if (error == 0)
        error = cleanups_init();
    if (error == 0)
        error = specials_init();
    if (error == 0)
        error = arena_init();
    if (error == 0)
        error = pin_init();
    if (error == 0)
        error = mutator_init(os_tuning.signal != 0 ? os_tuning.signal : SIGRTMIN + 2);
    cycle_reset();
    if (error == 0)
        error = control_init();
    if (error != 0)
        stop_rooms();
    return error;
}

/* starting held. */
static int start(const struct grey_options *options, char *why, size_t why_size)
{
    os_memory_init();
    int error = os_options_read(options, why, why_size);
    if (error != 0)
        return error;
    inspect_init();
    error = start_rooms();
    if (error != 0) {
        inspect_shutdown();
        return error;
    }
    arena_faults_init();
    atomic_store_explicit(&up, 1, memory_order_release);
    return 0;
}

int grey_init(const struct grey_options *options)
{
    char why[200] = "";
    pthread_mutex_lock(&starting);
    int error = start_is_up() ? EBUSY : start(options, why, sizeof(why));
    pthread_mutex_unlock(&starting);
    if (error == EINVAL && why[0] != '\0')
        os_warn("%s", why);
    return error;
}

void start_fork_lock(void) { mutator_lock_answering(&starting); }
void start_fork_parent(void) { pthread_mutex_unlock(&starting); }
void start_fork_child(void) { pthread_mutex_init(&starting, NULL); }

/* 0, or an errno value; a malformed environment is fatal (TU-2). */
static int ensure(void)
{
    if (LIKELY(start_is_up()))
        return 0;
    char why[200] = "";
    pthread_mutex_lock(&starting);
    int error = start_is_up() ? 0 : start(NULL, why, sizeof(why));
    pthread_mutex_unlock(&starting);
    if (error == EINVAL)
        os_fatal(NULL, "%s", why[0] != '\0' ? why : "cannot start: a bad option");
    return error;
}

void start_ensure(void)
{
    int error = ensure();
    if (error != 0)
        os_fatal(NULL, "cannot start: error %d", error);
}

struct thread *start_and_attach(void) { return ensure() == 0 ? mutator_attach() : NULL; }

void grey_shutdown(void)
{
    /* Its threads are attached.  Not under `starting`, which a fork takes: a cleanup that runs may fork. */
    if (start_is_up())
        cleanups_stop();
    pthread_mutex_lock(&starting);
    if (start_is_up()) {
        if (!mutator_only_caller())
            os_fatal(
                NULL,
                "grey_shutdown while %llu other threads are attached, or were created and will be: they must "
                "detach first",
                (unsigned long long)(mutator_threads() - (thread_self() != NULL)));
        control_shutdown();
        mutator_shutdown();
        atomic_store_explicit(&up, 0, memory_order_release);
        roots_shutdown();
        stop_rooms();
        inspect_shutdown();
    }
    pthread_mutex_unlock(&starting);
}

const char *grey_version(void) { return GREY_VERSION; }

void grey_set_fatal_handler(void (*handler)(const char *message, const void *address))
{
    os_set_fatal_handler(handler);
}
