/* tests/api/reservation_test.c -- where Grey's address space is, and how much (OS-19, OS-20, UA-4).
 *
 * Each case is a process of its own: limits of address space can't be taken back.  OS-20's case is Go's
 * TestArenaCollision: whatever the program has mapped where Grey would like to be stays as it is.
 */
#include "support_child.h"
#include "support_heap.h"

#include "arena/arena.h"
#include "heap/heap.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum { TIMES = 5, PAGE = 4096 };
static const size_t gib = (size_t)1 << 30;

static bool overlap(const char *a, size_t a_size, const char *b, size_t b_size)
{
    return a < b + b_size && b < a + a_size;
}

/* The heap and the arenas work, each in its own part. */
static void use(void)
{
    for (int i = 0; i < 50; i++) {
        char *p = grey_alloc(1 << 20);
        CHILD_CHECK(p != NULL && heap_contains((uintptr_t)p) && !grey_in_arena(p));
        memset(p, 0, 1 << 20);
    }
    struct grey_arena *arena = grey_arena_new();
    for (int i = 0; i < 20; i++) {
        char *p = grey_arena_alloc_leaf(arena, 1 << 20, 0);
        CHILD_CHECK(p != NULL && arena_contains((uintptr_t)p) && !heap_contains((uintptr_t)p));
        memset(p, 0, 1 << 20);
    }
    grey_arena_free(arena);
}

static void everything(void)
{
    CHILD_CHECK(grey_init(NULL) == 0);
    CHILD_CHECK(heap.reserved >= (OS_TSAN ? 64 : 1024) * gib);
    CHILD_CHECK((uintptr_t)heap.base + heap.reserved <= (uintptr_t)1 << 48);
    CHILD_CHECK((uintptr_t)heap.base % HEAP_CHUNK == 0 && (uintptr_t)arena_space.base % ARENA_CHUNK == 0);
    CHILD_CHECK(!overlap(heap.base, heap.reserved, arena_space.base, arena_space.reserved));
    use();
}

static void limited(void)
{
    struct rlimit limit = {8 * gib, 8 * gib};
    CHILD_CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    CHILD_CHECK(grey_init(NULL) == 0);
    /* and what is kept with it if it was aligned already (OS-12) */
    CHILD_CHECK(heap.reserved <= 2 * gib + HEAP_CHUNK && heap.reserved > gib / 2);
    use();
}

/* ASan remembers what was there before. */
static OS_UNSANITIZED void write_whole(volatile unsigned char *page)
{
    for (int at = 0; at < PAGE; at++)
        page[at] = 0x5a;
}
static OS_UNSANITIZED bool is_whole(const volatile unsigned char *page)
{
    int at = 0;
    while (at < PAGE && page[at] == 0x5a)
        at++;
    return at == PAGE;
}

/* Pages of the program at the addresses that Grey had before: at their start, at what it would use next, at
 * the end. */
static void collides(void)
{
    static unsigned char *taken[4 * TIMES];
    int n = 0;
    for (int round = 0; round < TIMES; round++) {
        CHILD_CHECK(grey_init(NULL) == 0);
        use();
        char *wanted[] = {heap.base, heap.base + atomic_load(&heap.extent), heap.base + heap.reserved - PAGE,
                          arena_space.base + atomic_load(&arena_space.extent)};
        for (int i = 0; i < n; i++) {
            CHILD_CHECK(!overlap(heap.base, heap.reserved, (char *)taken[i], PAGE));
            CHILD_CHECK(!overlap(arena_space.base, arena_space.reserved, (char *)taken[i], PAGE));
            CHILD_CHECK(is_whole(taken[i]));
        }
        grey_shutdown();
        for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
            void *p = mmap(wanted[i], PAGE, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
            CHILD_CHECK(p == wanted[i]);
            write_whole(p);
            taken[n++] = p;
        }
    }
}

static const struct child_case cases[] = {
    {"everything", everything}, {"limited", limited}, {"collides", collides}};

/* OS-19, UA-4 */
static void size_of_the_reservation(void **state)
{
    (void)state;
    child_passes("everything", NULL);
}

static void size_under_a_limit(void **state)
{
    (void)state;
    if (OS_ASAN || OS_TSAN)
        skip(); /* their own address space is beyond any limit */
    child_passes("limited", NULL);
}

/* OS-20 */
static void mappings_in_the_way(void **state)
{
    (void)state;
    child_passes("collides", NULL);
}

int main(int argc, char **argv)
{
    CHILD_MAIN(argc, argv, cases);
    const struct CMUnitTest tests[] = {cmocka_unit_test(size_of_the_reservation),
                                       cmocka_unit_test(size_under_a_limit),
                                       cmocka_unit_test(mappings_in_the_way)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
