/* tests/hooks/roots_phase_test.c -- memory that grey learns of while a cycle stands at each of its steps.
 *
 * Requirements: UM-10, BA-8, BA-17, ER-5a, ER-9, and the calls of 0.3 "in each phase".  The collector is
 * stopped at a step; there an actor puts its only reference to some leafs into memory that grey does not know, or by
 * a raw store into an object, then calls grey_root_add, grey_touch, grey_move, grey_stack_add or
 * grey_thread_create, and forgets them.  They must be intact two cycles later, with clobberfree=1 and
 * everything free handed out again.
 */
#include "support_heap.h"
#include "support_hooks.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

static const struct step {
    enum os_hook point;
    const char *name;
} steps[] = {
    {OS_HOOK_AFTER_ARM, "arm"},      {OS_HOOK_AFTER_BLACKEN, "blacken"},     {OS_HOOK_ROOTS, "roots"},
    {OS_HOOK_ROUND_START, "rescan"}, {OS_HOOK_ROUND_END, "round over"},      {OS_HOOK_CLOSED, "closed"},
    {OS_HOOK_FINISH, "finish"},      {OS_HOOK_AFTER_FINISH, "after finish"},
};
enum { STEPS = sizeof(steps) / sizeof(steps[0]), LEAFS = 200, SIZE = LEAFS * sizeof(void *) };

static void **memory; /* unmanaged */
static void **holder; /* the heap object that GREY_ROOT keeps */
GREY_ROOT(void *, held);

static void store_raw(void **words, void **leafs)
{
    for (int i = 0; i < LEAFS; i++)
        __atomic_store_n(&words[i], leafs[i], __ATOMIC_RELAXED);
}

/* The leafs are made before the cycle, so that they are white in it, and held by this frame until then. */
__attribute__((noinline)) static void make_and_store(void (*publish)(void **leafs))
{
    void *leafs[LEAFS];
    for (uint64_t i = 0; i < LEAFS; i++)
        leafs[i] = heap_marked_leaf(64, i);
    stage_set(1);
    stage_await(2);
    publish(leafs);
    memset(leafs, 0, sizeof(leafs));
    __asm__ volatile("" : : "r"(leafs) : "memory");
}

static void check(void *const *words)
{
    heap_reuse_free_memory();
    for (uint64_t i = 0; i < LEAFS; i++)
        if (!heap_leaf_is_intact(words[i], i))
            hooks_fail("a leaf was lost");
}

/* Everything that is freed in the actor's scenario is done with when stage 4 comes. */
static void act(void (*publish)(void **leafs), void **words)
{
    make_and_store(publish);
    heap_wipe_stack();
    stage_set(3);
    stage_await(4);
    check(words);
}

static void publish_root(void **leafs)
{
    store_raw(memory, leafs);
    HOOKS_CHECK(grey_root_add(memory, SIZE) == 0);
}
static void add_root(void)
{
    act(publish_root, memory);
    HOOKS_CHECK(grey_root_remove(memory, SIZE) == 0);
}

/* Removed again in the same step, then added: nothing of it is forgotten, and nothing is read after. */
static void publish_twice(void **leafs)
{
    publish_root(leafs);
    HOOKS_CHECK(grey_root_remove(memory, SIZE) == 0);
    HOOKS_CHECK(grey_root_remove(memory, SIZE) == ENOENT);
    HOOKS_CHECK(grey_root_add(memory, SIZE) == 0);
    HOOKS_CHECK(grey_root_add(memory, 0) == EINVAL);
}
static void add_remove_add(void)
{
    act(publish_twice, memory);
    HOOKS_CHECK(grey_root_remove(memory, SIZE) == 0);
}

static void publish_touched(void **leafs)
{
    store_raw(holder, leafs);
    grey_touch(&holder[LEAFS / 2]);
}
static void touch(void)
{
    holder = grey_alloc(SIZE);
    grey_store(&held, holder);
    act(publish_touched, holder);
}

static void publish_moved(void **leafs) { grey_move(holder, leafs, SIZE); }
static void move(void)
{
    holder = grey_alloc(SIZE);
    grey_store(&held, holder);
    act(publish_moved, holder);
}

static void publish_stack(void **leafs)
{
    store_raw(memory, leafs);
    HOOKS_CHECK(grey_stack_add(memory, (char *)memory + SIZE) == 0);
    HOOKS_CHECK(grey_stack_add(memory, (char *)memory + SIZE) == EEXIST);
}
static void add_stack(void)
{
    act(publish_stack, memory);
    HOOKS_CHECK(grey_stack_remove(memory) == 0);
    HOOKS_CHECK(grey_stack_remove(memory) == ENOENT);
}

static void *take_argument(void *words)
{
    stage_set(3);
    stage_await(4);
    check(words);
    return NULL;
}
/* White at its creation, held by the record alone. */
static pthread_t created;
static void publish_argument(void **leafs)
{
    void **words = grey_alloc(SIZE);
    grey_move(words, leafs, SIZE);
    HOOKS_CHECK(grey_thread_create(&created, NULL, take_argument, words) == 0);
}
static void create(void)
{
    make_and_store(publish_argument);
    heap_wipe_stack();
    HOOKS_CHECK(grey_thread_join(created, NULL) == 0);
}

static void in_each_step(void (*actor)(void))
{
    for (int i = 0; i < STEPS; i++) {
        held = holder = NULL;
        hooks_up("clobberfree=1");
        pthread_t thread = actor_start(actor);
        stage_await(1);
        int stop = stop_at(steps[i].point, NULL);
        cycle_begin();
        if (!stop_reached(stop, 20000))
            fail_msg("no cycle came to %s", steps[i].name);
        stage_set(2);
        stage_await(3);
        stop_release(stop);
        cycle_await(1);
        cycles_run(1);
        stage_set(4);
        actor_join(thread);
        hooks_down();
    }
}

#define EACH_STEP(actor)                                                                                     \
    static void test_##actor(void **unused)                                                                  \
    {                                                                                                        \
        (void)unused;                                                                                        \
        in_each_step(actor);                                                                                 \
    }
EACH_STEP(add_root)
EACH_STEP(add_remove_add)
EACH_STEP(touch)
EACH_STEP(move)
EACH_STEP(add_stack)
EACH_STEP(create)

static int get_memory(void **unused)
{
    (void)unused;
    memory = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_add_root), cmocka_unit_test(test_add_remove_add), cmocka_unit_test(test_touch),
        cmocka_unit_test(test_move),     cmocka_unit_test(test_add_stack),      cmocka_unit_test(test_create),
    };
    return cmocka_run_group_tests_name("roots in each phase", tests, get_memory, NULL);
}
