/* tests/hooks/foreign_hidden_test.c -- each way to hide the only pointer to a foreign region, by force.
 *
 * As hidden_test.c does with objects: from a stack into a black object; from the heap to a stack, then
 * erased; from an object that the marker has yet to scan into a black one, by grey_move, exchange,
 * compare-exchange and grey_touch; with rounds held after 0, 1, 2 and 32 that were not clean.  Then pointers
 * that are in one register and nowhere else, or on the stack of a thread in a blocking call; and one past
 * the end, in the same places (FR-19, FR-20, FR-23, MK-10, BA-2 .. BA-8, BA-12, BA-17).
 *
 * And the colour that is stolen: test_stolen_mark of planted_test.c, with a region.
 *
 * The region must live, and its contents with it: it is marked late, so they are scanned late.  When all is
 * dropped it must die.
 */
#include "support_foreign.h"
#include "support_heap.h"
#include "support_hooks.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* Many leafs: of the first of its span the library's frames are full. */
enum { SIZE = 4096, LEAFS = 100 };

static const char *const held_after[] = {"clobberfree=1,holdround=0", "clobberfree=1,holdround=1",
                                         "clobberfree=1,holdround=2", "clobberfree=1"};
enum { CONFIGURATIONS = 4 };

GREY_ROOT(struct cell *, black);  /* scanned when the stop is reached */
GREY_ROOT(struct cell *, source); /* whoever it leads to isn't scanned yet */
static struct region hidden;

static void up(const char *debug)
{
    black = source = NULL; /* they led into the heap that is gone */
    hooks_up(debug);
}

/* A region and its contents.  Returns an address inside; else the record is all that knows it. */
__attribute__((noinline)) static void *make(void)
{
    region_new(&hidden, SIZE, GREY_FOREIGN_SCAN);
    void **words = (void **)(void *)region_start(&hidden);
    for (uint64_t i = 0; i < LEAFS; i++)
        grey_store(&words[SIZE / 8 - 1 - i], heap_marked_leaf(64, i));
    return &words[SIZE / 16];
}

static void check_contents(void)
{
    void **words = (void **)(void *)region_start(&hidden);
    for (uint64_t i = 0; i < LEAFS; i++)
        HOOKS_CHECK(heap_leaf_is_intact(words[SIZE / 8 - 1 - i], i));
}

/* Also after everything free was handed out again. */
static void check_lives(void)
{
    HOOKS_CHECK(atomic_load(&hidden.died) == 0);
    HOOKS_CHECK(region_found(&hidden));
    region_thread(heap_reuse_free_memory);
    region_thread(check_contents);
    grey_thread_detach(); /* the director: the calls above attached it */
}

static void drop(void)
{
    grey_store(&black, NULL);
    grey_store(&source, NULL);
}

/* Nothing holds it any more. */
static void down(void)
{
    region_thread(drop);
    grey_thread_detach();
    cycles_run(2);
    for (uint64_t end = os_now() + 5000000000; os_now() < end && atomic_load(&hidden.died) == 0;)
        os_yield(); /* its cleanup is queued, and runs some time */
    HOOKS_CHECK(atomic_load(&hidden.died) == 1);
    hooks_down();
}

/* ---- from a stack into a black object -------------------------------------------------------------- */

__attribute__((noinline)) static void store_hidden(void)
{
    grey_store(&black->other, (struct cell *)(void *)(region_start(&hidden) + SIZE - 1));
}

static void stack_to_black(void)
{
    grey_store(&black, cells_new(1));
    void *volatile only = make();
    wipe_stack();
    stage_set(1);
    stage_await(2);
    store_hidden();
    only = NULL;
    (void)only;
    wipe_stack();
    stage_set(3);
    stage_await(4);
}

/* ---- from where the marker has not been ------------------------------------------------------------ */

__attribute__((noinline)) static void make_both(void)
{
    grey_store(&black, cells_new(1));
    struct cell *from = cells_new(1);
    grey_store(&from->other, (struct cell *)make());
    grey_store(&source, from);
}

static void heap_to_stack(void)
{
    make_both();
    wipe_stack();
    stage_set(1);
    stage_await(2);
    void *volatile only = source->other;
    grey_store(&source->other, NULL);
    stage_set(3);
    stage_await(4);
    HOOKS_CHECK(only == region_start(&hidden) + SIZE / 2);
    only = NULL;
    (void)only;
}

static void heap_to_heap(void (*move)(void))
{
    make_both();
    wipe_stack();
    stage_set(1);
    stage_await(2);
    move();
    wipe_stack();
    stage_set(3);
    stage_await(4);
    HOOKS_CHECK((char *)black->other == region_start(&hidden) + SIZE / 2 && source->other == NULL);
}

__attribute__((noinline)) static void move(void)
{
    grey_move(&black->other, &source->other, sizeof(black->other));
    grey_clear(&source->other, sizeof(source->other));
}
__attribute__((noinline)) static void exchange(void)
{
    struct cell *p = grey_exchange(&source->other, NULL);
    HOOKS_CHECK(grey_exchange(&black->other, p) == NULL);
}
__attribute__((noinline)) static void compare_exchange(void)
{
    struct cell *p = source->other, *none = NULL;
    HOOKS_CHECK(grey_compare_exchange(&black->other, &none, p));
    HOOKS_CHECK(grey_compare_exchange(&source->other, &p, NULL));
}
/* BA-17 */
__attribute__((noinline)) static void touch(void)
{
    struct cell *p = source->other;
    __atomic_store_n(&black->other, p, __ATOMIC_RELAXED);
    grey_touch(black);
    grey_keep_alive(p);
    grey_store(&source->other, NULL);
}
static void by_move(void) { heap_to_heap(move); }
static void by_exchange(void) { heap_to_heap(exchange); }
static void by_compare_exchange(void) { heap_to_heap(compare_exchange); }
static void by_touch(void) { heap_to_heap(touch); }

/* The stop; the actor does it; the cycle goes on; and one more. */
static void scenario(void (*actor)(void), enum os_hook point, bool at_source)
{
    for (int i = 0; i < CONFIGURATIONS; i++) {
        up(held_after[i]);
        pthread_t thread = actor_start(actor);
        stage_await(1);
        int stop = stop_at(point, at_source ? source : NULL);
        cycle_begin();
        assert_true(stop_reached(stop, PATIENCE_MS));
        stage_set(2);
        stage_await(3);
        stop_release(stop);
        cycle_await(1);
        cycles_run(1);
        check_lives();
        stage_set(4);
        actor_join(thread);
        down();
    }
}

#define SCENARIO(name, actor, point, at_source)                                                              \
    static void test_##name(void **unused)                                                                   \
    {                                                                                                        \
        (void)unused;                                                                                        \
        scenario(actor, point, at_source);                                                                   \
    }
SCENARIO(stack_to_black, stack_to_black, OS_HOOK_ROUND_START, false)
SCENARIO(heap_to_stack, heap_to_stack, OS_HOOK_MARK_SCAN, true)
SCENARIO(move, by_move, OS_HOOK_MARK_SCAN, true)
SCENARIO(exchange, by_exchange, OS_HOOK_MARK_SCAN, true)
SCENARIO(compare_exchange, by_compare_exchange, OS_HOOK_MARK_SCAN, true)
SCENARIO(touch, by_touch, OS_HOOK_MARK_SCAN, true)

/* ---- the round word (protocol.md 0.1, 2.3) --------------------------------------------------------- */

/* The giver has published a white region and not answered; the taker has answered, and colours it, but its
 * contents are not queued yet when the giver's copy is tested. */
static _Atomic uintptr_t mailbox; /* not scanned */
static struct thread *_Atomic giver_block, *_Atomic taker_block;

static void giver(void)
{
    void *volatile only = make();
    wipe_stack();
    atomic_store(&giver_block, thread_self());
    atomic_store(&mailbox, (uintptr_t)only);
    stage_set(1);
    stage_await(3);
    grey_pass(only);
    only = NULL;
    (void)only;
}

static void taker(void)
{
    grey_store(&black, cells_new(1));
    wipe_stack();
    atomic_store(&taker_block, thread_self());
    stage_set(2);
    stage_await(3);
    store_hidden();
    wipe_stack();
    stage_set(4);
    stage_await(5);
}

static void test_stolen_colour(void **unused)
{
    (void)unused;
    up("clobberfree=1");
    pthread_t first = actor_start(giver);
    stage_await(1);
    pthread_t second = actor_start(taker);
    stage_await(2);
    int stop = stop_at(OS_HOOK_ANSWER, atomic_load(&giver_block));
    cycle_begin();
    assert_true(stop_reached(stop, PATIENCE_MS));
    while (atomic_load(&atomic_load(&taker_block)->request) != 0)
        os_yield();
    int coloured = stop_at(OS_HOOK_SHADE_DIRTY, region_start(&hidden));
    stage_set(3);
    assert_true(stop_reached(coloured, PATIENCE_MS));
    stop_release(stop);
    for (uint64_t end = os_now() + 200000000; os_now() < end;)
        os_yield(); /* a round that may close does so now */
    stop_release(coloured);
    stage_await(4);
    cycle_await(1);
    cycles_run(1);
    check_lives();
    stage_set(5);
    actor_join(first);
    actor_join(second);
    down();
}

/* ---- in one register, and nowhere else ------------------------------------------------------------- */

/* ThreadSanitizer delivers signals at its own calls only, of which an assembly loop makes none. */
#if OS_TSAN
#define SKIP_REGISTERS() skip()
#else
#define SKIP_REGISTERS() ((void)0)
#endif

static _Atomic uint32_t let_go, is_held;
static long beside; /* what is added to the start */

/* The complement comes in; the pointer exists in the register alone, until the flag is set. */
#define HOLD_GENERAL(r)                                                                                      \
    __attribute__((noinline)) static void hold_##r(uintptr_t complement)                                     \
    {                                                                                                        \
        __asm__ volatile("mov %0, %%" #r "\nnot %%" #r "\nmovl $1, %2\n"                                     \
                         "1: pause\ncmpl $0, %1\nje 1b\n"                                                    \
                         "xor %%" #r ", %%" #r                                                               \
                         :                                                                                   \
                         : "a"(complement), "m"(let_go), "m"(is_held)                                        \
                         : #r, "cc", "memory");                                                              \
    }
#define HOLD_VECTOR(r)                                                                                       \
    __attribute__((noinline)) static void hold_##r(uintptr_t complement)                                     \
    {                                                                                                        \
        __asm__ volatile("mov %0, %%rcx\nnot %%rcx\nmovq %%rcx, %%" #r "\nxor %%ecx, %%ecx\nmovl $1, %2\n"   \
                         "1: pause\ncmpl $0, %1\nje 1b\n"                                                    \
                         "pxor %%" #r ", %%" #r                                                              \
                         :                                                                                   \
                         : "a"(complement), "m"(let_go), "m"(is_held)                                        \
                         : "rcx", #r, "cc", "memory");                                                       \
    }
HOLD_GENERAL(rbx)
HOLD_GENERAL(rdx)
HOLD_GENERAL(rdi)
HOLD_GENERAL(r8)
HOLD_GENERAL(r12)
HOLD_GENERAL(r15)
HOLD_VECTOR(xmm0)
HOLD_VECTOR(xmm7)
HOLD_VECTOR(xmm15)

static int await_let_go(void *unused)
{
    (void)unused;
    atomic_store(&is_held, 1);
    while (atomic_load(&let_go) == 0)
        os_yield();
    return 0;
}
__attribute__((noinline)) static void hold_in_a_call(uintptr_t complement)
{
    void *volatile only = (void *)~complement;
    grey_blocking_call(await_let_go, NULL);
    only = NULL;
    (void)only;
}

static void (*hold)(uintptr_t complement);

__attribute__((noinline)) static void make_only(void) { make(); }
static void hold_it(void)
{
    make_only();
    wipe_stack();
    hold(hidden.hidden - (uintptr_t)beside); /* ~(start + beside) */
    wipe_stack();
    stage_set(2);
    stage_await(3);
}

static void held_by(void (*how)(uintptr_t), long at, const char *debug)
{
    up(debug);
    hold = how;
    beside = at;
    atomic_store(&let_go, 0);
    atomic_store(&is_held, 0);
    pthread_t thread = actor_start(hold_it);
    for (uint64_t end = os_now() + 20000000000; atomic_load(&is_held) == 0;) {
        HOOKS_CHECK(os_now() < end);
        os_yield();
    }
    cycles_run(3);
    check_lives();
    atomic_store(&let_go, 1);
    stage_await(2);
    stage_set(3);
    actor_join(thread);
    down();
}

static const long addresses[] = {0, SIZE - 1, SIZE}; /* one past the end counts here */
enum { ADDRESSES = 3 };

static void test_registers(void **unused)
{
    (void)unused;
    static void (*const ways[])(uintptr_t) = {hold_rbx, hold_rdx,  hold_rdi,  hold_r8,   hold_r12,
                                              hold_r15, hold_xmm0, hold_xmm7, hold_xmm15};
    SKIP_REGISTERS();
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
        for (int k = 0; k < ADDRESSES; k++)
            held_by(ways[i], addresses[k], held_after[(i + (size_t)k) % CONFIGURATIONS]);
}

static void test_blocked(void **unused)
{
    (void)unused;
    for (int i = 0; i < CONFIGURATIONS; i++)
        for (int k = 0; k < ADDRESSES; k++)
            held_by(hold_in_a_call, addresses[k], held_after[i]);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stack_to_black),
        cmocka_unit_test(test_heap_to_stack),
        cmocka_unit_test(test_move),
        cmocka_unit_test(test_exchange),
        cmocka_unit_test(test_compare_exchange),
        cmocka_unit_test(test_touch),
        cmocka_unit_test(test_stolen_colour),
        cmocka_unit_test(test_registers),
        cmocka_unit_test(test_blocked),
    };
    return hooks_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
