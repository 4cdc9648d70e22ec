/* tests/api/threads_test.c -- threads: attached and detached in every way, their values, their stacks.
 *
 * Requirements: ER-5, ER-5a, ER-9, AL-16, AL-22, MK-10, MK-12, MK-23, 0.3.  The deaths of misuse are in
 * tests/api/misuse_test.c.
 */
#include "support_child.h"
#include "support_heap.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#endif

static uint64_t threads_now(void) { return heap_figures().threads; }

/* Threads go away a little after they were joined by pthread_join, for a detached one. */
static void assert_threads_become(uint64_t n)
{
    for (int i = 0; i < 2000 && threads_now() != n; i++)
        usleep(5000);
    assert_int_equal(threads_now(), n);
}

static void codes(void **unused)
{
    (void)unused;
    uint64_t before = threads_now();
    assert_int_equal(grey_thread_attach(), EALREADY);
    assert_int_equal(grey_thread_attach(), EALREADY);
    assert_int_equal(threads_now(), before);
    assert_int_equal(grey_thread_detach(), 0);
    assert_int_equal(threads_now(), before - 1);
    assert_int_equal(grey_thread_detach(), EPERM);
    assert_int_equal(threads_now(), before - 1);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(grey_thread_attach(), 0);
        assert_non_null(grey_alloc(100));
        assert_int_equal(grey_thread_detach(), 0);
    }
    assert_int_equal(grey_thread_attach(), 0);
    assert_int_equal(threads_now(), before);
}

static void *return_it(void *arg) { return arg; }

static void create_refusals(void **unused)
{
    (void)unused;
    pthread_t thread;
    pthread_attr_t attributes;
    void *result = &thread;
    struct grey_stats before = heap_figures_at_rest();
    assert_int_equal(grey_thread_create(NULL, NULL, return_it, NULL), EINVAL);
    assert_int_equal(grey_thread_create(&thread, NULL, NULL, NULL), EINVAL);
    assert_int_equal(grey_thread_join(pthread_self(), &result), EDEADLK);
    assert_ptr_equal(result, &thread);
    struct grey_stats after = heap_figures_at_rest();
    heap_assert_unchanged(&before, &after);
    /* those of pthread_create and pthread_join: a stack that cannot be had; a detached thread */
    assert_int_equal(pthread_attr_init(&attributes), 0);
    assert_int_equal(pthread_attr_setstacksize(&attributes, (size_t)1 << 46), 0);
    assert_int_equal(grey_thread_create(&thread, &attributes, return_it, NULL), EAGAIN);
    pthread_attr_destroy(&attributes);
    assert_int_equal(threads_now(), before.threads);
}

/* ---- values -------------------------------------------------------------------------------------------- */

static atomic_int gate; /* threads that may go on */

static void *wait_and_return(void *arg)
{
    while (!atomic_load(&gate))
        usleep(1000);
    return heap_leaf_is_intact(arg, 99) ? heap_marked_leaf(64, 100) : NULL;
}

__attribute__((noinline)) static int create_with_leaf(pthread_t *thread)
{
    return grey_thread_create(thread, NULL, wait_and_return, heap_marked_leaf(64, 99));
}

/* Argument and result are held by the record alone, over cycles (ER-5a). */
static void values_are_carried(void **unused)
{
    (void)unused;
    enum { N = 20 };
    pthread_t threads[N];
    atomic_store(&gate, 0);
    for (int i = 0; i < N; i++)
        assert_int_equal(create_with_leaf(&threads[i]), 0);
    heap_collect_twice();
    heap_reuse_free_memory();
    atomic_store(&gate, 1);
    usleep(50000); /* most have ended; nobody has joined them */
    heap_collect_twice();
    heap_reuse_free_memory();
    for (int i = 0; i < N; i++) {
        void *result = NULL;
        assert_int_equal(grey_thread_join(threads[i], &result), 0);
        assert_non_null(result);
        assert_true(heap_leaf_is_intact(result, 100));
    }
}

static void *exit_with(void *arg) { pthread_exit(arg); }

static void join_of_others(void **unused)
{
    (void)unused;
    static int data;
    pthread_t thread;
    void *result = NULL;
    assert_int_equal(pthread_create(&thread, NULL, return_it, &data), 0);
    assert_int_equal(grey_thread_join(thread, &result), 0); /* not ours: pthread_join */
    assert_ptr_equal(result, &data);
    assert_int_equal(grey_thread_create(&thread, NULL, exit_with, &data), 0);
    assert_int_equal(grey_thread_join(thread, &result), 0);
    assert_ptr_equal(result, &data); /* passed on, though a heap pointer would not be held */
    assert_int_equal(grey_thread_create(&thread, NULL, return_it, &data), 0);
    result = NULL;
    assert_int_equal(pthread_join(thread, &result), 0); /* and the other way round */
    assert_ptr_equal(result, &data);
    assert_int_equal(grey_thread_create(&thread, NULL, return_it, NULL), 0);
    assert_int_equal(grey_thread_join(thread, NULL), 0);
    assert_int_equal(grey_thread_create(&thread, NULL, return_it, NULL), 0);
    result = &data;
    assert_int_equal(grey_thread_join(thread, &result), 0);
    assert_null(result);
}

/* ---- the end of threads -------------------------------------------------------------------------------- */

static void *use_heap(void *unused)
{
    (void)unused;
    for (int i = 0; i < 50; i++)
        memset(grey_alloc(16 + (size_t)i * 16), 1, 16);
    return NULL;
}

static void *use_heap_and_detach(void *unused)
{
    use_heap(unused);
    grey_thread_detach();
    return NULL;
}

static void *detach_and_use_again(void *unused)
{
    use_heap_and_detach(unused);
    return use_heap(unused);
}

static void *end_in_a_region(void *unused)
{
    use_heap(unused);
    grey_blocking_begin();
    grey_blocking_begin();
    pthread_exit(NULL);
}

/* AL-22: however a thread ends, it is detached, and no count is lost. */
static void detached_at_the_end(void **unused)
{
    (void)unused;
    void *(*const ways[])(void *) = {use_heap, use_heap_and_detach, detach_and_use_again, end_in_a_region};
    uint64_t before = threads_now();
    for (size_t way = 0; way < sizeof(ways) / sizeof(ways[0]); way++)
        for (int grey = 0; grey < 2; grey++) {
            pthread_t thread;
            int error = grey ? grey_thread_create(&thread, NULL, ways[way], NULL)
                             : pthread_create(&thread, NULL, ways[way], NULL);
            assert_int_equal(error, 0);
            assert_int_equal(grey ? grey_thread_join(thread, NULL) : pthread_join(thread, NULL), 0);
            assert_int_equal(threads_now(), before);
            grey_collect();
        }
}

static pthread_key_t heap_key;
static atomic_int destroyed, wrong;

/* A destructor that uses the heap, in as many iterations as its value says. */
static void destroy(void *value)
{
    uintptr_t rounds = (uintptr_t)value;
    void *leaf = heap_marked_leaf(64, rounds);
    grey_collect();
    if (!heap_leaf_is_intact(leaf, rounds))
        atomic_fetch_add(&wrong, 1);
    atomic_fetch_add(&destroyed, 1);
    if (rounds > 1)
        pthread_setspecific(heap_key, (void *)(rounds - 1));
}

static void *leave_to_destructors(void *rounds)
{
    pthread_setspecific(heap_key, rounds);
    return NULL;
}
static void *use_and_leave_to_destructors(void *rounds)
{
    use_heap(NULL);
    return leave_to_destructors(rounds);
}

/* ER-5: also in a thread whose first use of the heap is in a destructor. */
static void destructors_use_the_heap(void **unused)
{
    (void)unused;
    /* ThreadSanitizer takes its own state of the thread away in the last iterations. */
#ifdef __SANITIZE_THREAD__
    enum { ROUNDS = 1, USED = 1 };
#else
    enum { ROUNDS = 3, USED = 0 };
#endif
    uint64_t before = threads_now();
    assert_int_equal(pthread_key_create(&heap_key, destroy), 0);
    for (uintptr_t rounds = 1; rounds <= ROUNDS; rounds++)
        for (int used = USED; used < 2; used++) {
            pthread_t thread;
            atomic_store(&destroyed, 0);
            assert_int_equal(pthread_create(&thread, NULL,
                                            used ? use_and_leave_to_destructors : leave_to_destructors,
                                            (void *)rounds),
                             0);
            assert_int_equal(pthread_join(thread, NULL), 0);
            assert_int_equal(atomic_load(&destroyed), rounds);
            grey_collect(); /* asks every thread that it believes attached */
            assert_int_equal(threads_now(), before);
        }
    assert_int_equal(atomic_load(&wrong), 0);
    pthread_key_delete(heap_key);
}

/* Thousands, some at once, joined, detached, automatic; while cycles run. */
static void short_lives(void **unused)
{
    (void)unused;
    enum { N = 5000, AT_ONCE = 8 };
    uint64_t before = threads_now();
    pthread_t threads[AT_ONCE];
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    uint64_t mapped = 0;
    for (int i = 0; i < N / AT_ONCE; i++) {
        if (i % 50 == 0)
            grey_collect_start();
        for (int t = 0; t < AT_ONCE; t++)
            if (t % 4 == 0)
                assert_int_equal(grey_thread_create(&threads[t], &detached, use_heap, NULL), 0);
            else if (t % 4 == 1)
                assert_int_equal(pthread_create(&threads[t], NULL, use_heap, NULL), 0);
            else
                assert_int_equal(grey_thread_create(&threads[t], NULL, use_heap, NULL), 0);
        for (int t = 0; t < AT_ONCE; t++)
            if (t % 4 != 0)
                assert_int_equal(grey_thread_join(threads[t], NULL), 0);
        if (i == N / AT_ONCE / 2)
            mapped = heap_figures().metadata;
    }
    pthread_attr_destroy(&detached);
    assert_threads_become(before);
    /* records and blocks are used again */
    assert_true(heap_figures().metadata <= mapped + (4 << 20));
}

/* ---- blocking regions ---------------------------------------------------------------------------------- */

struct call {
    int depth;
    atomic_int *inside, *go_on;
    const char *bytes; /* of a leaf that the caller holds */
};

static int nested_call(void *arg)
{
    struct call *call = arg;
    if (call->depth-- > 0) {
        grey_blocking_begin();
        int result = grey_blocking_call(nested_call, call);
        grey_blocking_end();
        return result + 1;
    }
    atomic_store(call->inside, 1);
    while (!atomic_load(call->go_on))
        usleep(1000);
    return call->bytes[0];
}

static void *stay_in_a_call(void *arg)
{
    struct call *call = arg;
    char *leaf = grey_strdup("x");
    void *kept[64];
    for (uint64_t i = 0; i < 64; i++)
        kept[i] = heap_marked_leaf(64, i);
    call->bytes = leaf;
    int result = grey_blocking_call(nested_call, call);
    bool intact = leaf[0] == 'x';
    for (uint64_t i = 0; i < 64; i++)
        intact &= heap_leaf_is_intact(kept[i], i) != 0;
    return (void *)(uintptr_t)(intact ? result : 0);
}

/* MK-12: what a blocked thread's stack holds lives; its result comes back; regions nest. */
static void blocked_threads_keep_objects(void **unused)
{
    (void)unused;
    for (int depth = 0; depth < 3; depth++) {
        atomic_int inside = 0, go_on = 0;
        struct call call = {depth, &inside, &go_on, NULL};
        pthread_t thread;
        void *result;
        assert_int_equal(pthread_create(&thread, NULL, stay_in_a_call, &call), 0);
        while (!atomic_load(&inside))
            usleep(1000);
        for (int i = 0; i < 4; i++) {
            heap_collect_twice();
            heap_reuse_free_memory();
        }
        atomic_store(&go_on, 1);
        assert_int_equal(pthread_join(thread, &result), 0);
        assert_int_equal((uintptr_t)result, 'x' + depth);
    }
}

#ifndef __SANITIZE_THREAD__ /* which keeps the signal back until the call returns (TR-16) */
static void *wait_for_pipe(void *arg)
{
    char byte;
    void *leaf = heap_marked_leaf(64, 5);
    ssize_t n = read(*(int *)arg, &byte, 1); /* a plain system call: reached by the signal, restarted */
    return (void *)(uintptr_t)(n == 1 && heap_leaf_is_intact(leaf, 5));
}

static void plain_system_calls_go_on(void **unused)
{
    (void)unused;
    int ends[2];
    pthread_t thread;
    void *result;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(pthread_create(&thread, NULL, wait_for_pipe, &ends[0]), 0);
    usleep(20000);
    heap_collect_twice();
    heap_reuse_free_memory();
    assert_int_equal(write(ends[1], "", 1), 1);
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_non_null(result);
    close(ends[0]);
    close(ends[1]);
}
#endif

/* ---- other stacks -------------------------------------------------------------------------------------- */

enum { STACK = 256 << 10 };

static char *new_stack(void)
{
    char *low = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(low != MAP_FAILED);
    return low;
}

static void stack_codes(void **unused)
{
    (void)unused;
    char local[128], *low = new_stack();
    void *object = grey_alloc(64);
    struct grey_stats before = heap_figures_at_rest();
    assert_int_equal(grey_stack_add(NULL, low), EINVAL);
    assert_int_equal(grey_stack_add(low, NULL), EINVAL);
    assert_int_equal(grey_stack_add(low, low), EINVAL);
    assert_int_equal(grey_stack_add(low + STACK, low), EINVAL);
    assert_int_equal(grey_stack_add(low, low + 1), EINVAL);
    assert_int_equal(grey_stack_add(local, local + sizeof(local)), EEXIST); /* this thread's own */
    assert_int_equal(grey_stack_add(object, (char *)object + 64), EEXIST);
    assert_int_equal(grey_stack_remove(NULL), ENOENT);
    assert_int_equal(grey_stack_remove(low), ENOENT);
    struct grey_stats after = heap_figures_at_rest();
    heap_assert_unchanged(&before, &after);
    assert_int_equal(grey_stack_add(low, low + STACK / 2), 0);
    assert_int_equal(grey_stack_add(low, low + STACK / 2), EEXIST);
    assert_int_equal(grey_stack_add(low + STACK / 2 - 8, low + STACK), EEXIST);
    assert_int_equal(grey_stack_add(low + STACK / 2, low + STACK), 0); /* touching is no overlap */
    assert_int_equal(grey_stack_remove(low + 8), ENOENT);
    assert_int_equal(grey_stack_remove(low), 0);
    assert_int_equal(grey_stack_remove(low), ENOENT);
    assert_int_equal(grey_stack_remove(low + STACK / 2), 0);
    munmap(low, STACK);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they must be told of each switch */
static ucontext_t main_context, routine_context;
static int routine_result;

static void routine(void)
{
    void *kept[100];
    for (uint64_t i = 0; i < 100; i++)
        kept[i] = heap_marked_leaf(64, i);
    swapcontext(&routine_context, &main_context); /* left: kept lies on a stack nobody runs on */
    grey_collect();                               /* and one that the collecting thread runs on */
    heap_reuse_free_memory();
    routine_result = 1;
    for (uint64_t i = 0; i < 100; i++)
        routine_result &= heap_leaf_is_intact(kept[i], i);
}

/* ER-9: objects that only a suspended coroutine's stack holds. */
static void coroutines(void **unused)
{
    (void)unused;
    char *low = new_stack();
    for (int i = 0; i < 3; i++) {
        assert_int_equal(grey_stack_add(low, low + STACK), 0);
        assert_int_equal(getcontext(&routine_context), 0);
        routine_context.uc_stack.ss_sp = low;
        routine_context.uc_stack.ss_size = STACK;
        routine_context.uc_link = &main_context;
        makecontext(&routine_context, routine, 0);
        routine_result = 0;
        assert_int_equal(swapcontext(&main_context, &routine_context), 0);
        heap_collect_twice();
        heap_reuse_free_memory();
        assert_int_equal(swapcontext(&main_context, &routine_context), 0);
        assert_int_equal(routine_result, 1);
        assert_int_equal(grey_stack_remove(low), 0);
    }
    munmap(low, STACK);
}
#endif

#ifndef __SANITIZE_THREAD__ /* which runs no handler while it is in another */
static atomic_int on_alternate, leave_alternate;
static _Atomic uint64_t alternate_found;
static void *alternate_kept; /* moved into the handler's frame, then cleared */

static void handler(int number)
{
    (void)number;
    uint64_t *volatile kept = alternate_kept;
    alternate_kept = NULL;
    atomic_store(&on_alternate, 1);
    while (!atomic_load(&leave_alternate))
        ;
    atomic_store(&alternate_found, *kept);
    kept = NULL;
}

static const uint64_t alternate_word = UINT64_C(0x1234567890abcdef);

__attribute__((noinline)) static void hand_to_handler(void)
{
    uint64_t *leaf = grey_alloc_leaf(64);
    *leaf = alternate_word;
    alternate_kept = leaf;
    raise(SIGUSR1);
}

static void *run_on_alternate_stack(void *low)
{
    stack_t stack = {.ss_sp = low, .ss_size = STACK}, none = {.ss_flags = SS_DISABLE};
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = handler;
    action.sa_flags = SA_ONSTACK;
    sigaltstack(&stack, NULL);
    sigaction(SIGUSR1, &action, NULL);
    hand_to_handler();
    sigaltstack(&none, NULL);
    return NULL;
}

/* MK-23: interrupted on an alternate stack that the kernel reports, registered or not. */
static void alternate_signal_stacks(void **unused)
{
    (void)unused;
    char *low = new_stack();
    pthread_t thread;
    atomic_store(&on_alternate, 0);
    atomic_store(&leave_alternate, 0);
    assert_int_equal(pthread_create(&thread, NULL, run_on_alternate_stack, low), 0);
    while (!atomic_load(&on_alternate))
        usleep(1000);
    for (int i = 0; i < 3; i++) {
        heap_collect_twice();
        heap_reuse_free_memory();
    }
    atomic_store(&leave_alternate, 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(atomic_load(&alternate_found), alternate_word);
    munmap(low, STACK);
}
#endif

static int attach(void **unused)
{
    (void)unused;
    return grey_thread_attach();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes),
        cmocka_unit_test(create_refusals),
        cmocka_unit_test(values_are_carried),
        cmocka_unit_test(join_of_others),
        cmocka_unit_test(detached_at_the_end),
        cmocka_unit_test(destructors_use_the_heap),
        cmocka_unit_test(short_lives),
        cmocka_unit_test(blocked_threads_keep_objects),
#ifndef __SANITIZE_THREAD__
        cmocka_unit_test(plain_system_calls_go_on),
#endif
        cmocka_unit_test(stack_codes),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        cmocka_unit_test(coroutines),
#endif
#ifndef __SANITIZE_THREAD__
        cmocka_unit_test(alternate_signal_stacks),
#endif
    };
    return cmocka_run_group_tests_name("threads", tests, attach, NULL);
}
