/* tests/api/arena_test.c -- allocation from arenas, clone, reset, and misuse.
 *
 * Requirements: UA-3, UA-6, UA-8 .. UA-15, UA-22, UA-28 .. UA-34, UA-36.  When what is in arenas lives and
 * dies is the subject of arena_death_test.c.
 */
#include "support_child.h"
#include "support_death.h"
#include "support_heap.h"

#include "os/options.h"
#include "os/os.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

enum { CHUNK = 8 << 20, LARGEST = CHUNK / 4 };

struct empty {
    char none[0];
};
struct mixed { /* with an odd tail */
    void *pointer;
    uint64_t number;
    void *other;
    char tail[3];
};
struct scalars_8192 {
    char bytes[8192];
};
struct scalars_3321 {
    char bytes[3321];
};
struct pointers_1024 {
    void *pointer[1024];
};
struct pointers_1023 {
    void *pointer[1023];
};
GREY_TYPE_LEAF(empty_type, struct empty);
GREY_TYPE_LEAF(word_type, uint64_t);
GREY_TYPE_LEAF(byte_type, char);
GREY_TYPE(mixed_type, struct mixed, pointer, other);
GREY_TYPE_LEAF(scalars_8192_type, struct scalars_8192);
GREY_TYPE_LEAF(scalars_3321_type, struct scalars_3321);
GREY_TYPE(pointers_1024_type, struct pointers_1024, GREY_ARRAY(pointer, 1024));
GREY_TYPE(pointers_1023_type, struct pointers_1023, GREY_ARRAY(pointer, 1023));
struct pointer {
    void *pointer;
};
GREY_TYPE(pointer_type, struct pointer, pointer);

static void *zero_address(void) { return grey_alloc(0); }

static struct grey_arena *arena_new(void)
{
    struct grey_arena *arena = grey_arena_new();
    CHILD_CHECK(arena != NULL);
    return arena;
}

static int is_zero(const void *p, size_t size)
{
    const char *bytes = p;
    return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

/* ---- all kinds (TestUserArena/Alloc) ------------------------------------------------------------------- */

static const struct kind {
    const struct grey_type *type;
    size_t count; /* of an array; 0: one object */
} kinds[] = {
    {&word_type, 0},
    {&pointer_type, 0},
    {&mixed_type, 0},
    {&scalars_8192_type, 0},
    {&scalars_3321_type, 0},
    {&pointers_1024_type, 0},
    {&pointers_1023_type, 0},
    {&word_type, 25},
    {&pointer_type, 25},
    {&mixed_type, 25},
    {&scalars_8192_type, 5},
    {&scalars_3321_type, 5},
    {&pointers_1024_type, 5},
    {&pointers_1023_type, 5},
    {&word_type, CHUNK / 8 + 1},
    {&pointer_type, CHUNK / 8 + 1},
    {&scalars_8192_type, 1025},
    {&byte_type, LARGEST},
};

static void *make_one(struct grey_arena *arena, const struct kind *kind)
{
    return kind->count == 0 ? grey_arena_new_object(arena, kind->type)
                            : grey_arena_new_array(arena, kind->type, kind->count);
}

/* The last byte, which no pointer's barrier is needed for: user addresses leave it 0 in pointers. */
static unsigned char *tail_of(void *p, size_t size) { return (unsigned char *)p + size - 1; }

static void one_kind(const struct kind *kind)
{
    size_t size = kind->type->size * (kind->count != 0 ? kind->count : 1);
    size_t n = size > LARGEST ? 2 : CHUNK / size + 2;
    struct grey_arena *arena = arena_new();
    /* Links from each to the one before, in its first word; so that none is counted on twice. */
    void *last = NULL;
    for (size_t i = 0; i < n; i++) {
        void *p = make_one(arena, kind);
        CHILD_CHECK(p != NULL && p != zero_address());
        CHILD_CHECK((uintptr_t)p % (size >= 16 ? 16 : 8) == 0);
        CHILD_CHECK(grey_in_arena(p) == (size <= LARGEST));
        CHILD_CHECK(i > 100 && size > 64 ? is_zero(p, 64) : is_zero(p, size));
        if (size > 8)
            *tail_of(p, size) = (unsigned char)(i % 100 + 1);
        grey_store((void **)p, last);
        last = p;
    }
    for (size_t i = n; i-- != 0;) {
        CHILD_CHECK(size <= 8 || *tail_of(last, size) == (unsigned char)(i % 100 + 1));
        last = *(void **)last;
    }
    CHILD_CHECK(last == NULL);
    grey_arena_free(arena);
}

static void each_kind(void *unused)
{
    (void)unused;
    for (size_t i = 0; i < LENGTH(kinds); i++)
        one_kind(&kinds[i]);
}

static void collect_all(void *unused)
{
    (void)unused;
    grey_collect();
}

static void all_kinds(void **unused)
{
    (void)unused;
    apart(each_kind, NULL);
    for (int i = 0; i < 3; i++) /* a cycle that was on at a free puts it off */
        apart(collect_all, NULL);
    struct grey_stats figures = heap_figures();
    assert_int_equal(figures.arenas, 0);
    assert_int_equal(figures.arena_chunks_active, 0);
    assert_int_equal(figures.arena_chunks_pending, 0);
    assert_int_equal(figures.arena_chunks_quarantined, 0);
}

/* ---- sizes, alignments, refusals ----------------------------------------------------------------------- */

/* UA-10 */
static void nothing_takes_no_space(void **unused)
{
    (void)unused;
    struct grey_arena *arena = arena_new();
    char *before = grey_arena_alloc_leaf(arena, 8, 0);
    assert_ptr_equal(grey_arena_new_object(arena, &empty_type), zero_address());
    assert_ptr_equal(grey_arena_new_array(arena, &empty_type, 5), zero_address());
    assert_ptr_equal(grey_arena_new_array(arena, &mixed_type, 0), zero_address());
    assert_ptr_equal(grey_arena_alloc_leaf(arena, 0, 0), zero_address());
    assert_ptr_equal(grey_arena_alloc_leaf(arena, 0, 4096), zero_address());
    assert_ptr_equal((char *)grey_arena_alloc_leaf(arena, 8, 0) + 8, before);
    grey_arena_free(arena);
}

/* UA-6: what may hold pointers from the low end, the rest from the high end; UA-8: a chunk at once. */
static void from_both_ends(void **unused)
{
    (void)unused;
    struct grey_stats before = heap_figures();
    struct grey_arena *arena = arena_new();
    struct grey_stats after = heap_figures();
    assert_int_equal(after.arenas - before.arenas, 1);
    assert_int_equal(after.arena_chunks_active - before.arena_chunks_active, 1);
    char *low = grey_arena_new_object(arena, &mixed_type), *high = grey_arena_new_object(arena, &word_type);
    assert_true(low < high);
    assert_ptr_equal(grey_arena_new_object(arena, &mixed_type), low + 32);
    assert_ptr_equal(grey_arena_new_object(arena, &word_type), high - 8);
    grey_arena_free(arena);
}

/* UA-11 */
static void alignments(void **unused)
{
    (void)unused;
    struct grey_arena *arena = arena_new();
    for (size_t align = 1; align <= (size_t)2 << 20; align *= 2)
        for (size_t size = 1; size <= 40; size += 13) {
            char *p = grey_arena_alloc_leaf(arena, size, align);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % align, 0);
            assert_int_equal((uintptr_t)p % (size >= 16 ? 16 : 8), 0);
            assert_true(is_zero(p, size));
            memset(p, 0xff, size);
        }
    char *largest = grey_arena_alloc_leaf(arena, LARGEST, LARGEST);
    assert_true(grey_in_arena(largest) && (uintptr_t)largest % LARGEST == 0);
    char *larger = grey_arena_alloc_leaf(arena, LARGEST + 1, 4096); /* UA-3 */
    assert_false(grey_in_arena(larger));
    assert_ptr_equal(grey_base(larger), larger);
    assert_int_equal((uintptr_t)larger % 4096, 0);
    assert_true(is_zero(larger, LARGEST + 1));
    grey_arena_free(arena);
    larger[LARGEST] = 1;
}

#define REFUSED(call, error)                                                                                 \
    do {                                                                                                     \
        errno = 0;                                                                                           \
        assert_null(call);                                                                                   \
        assert_int_equal(errno, error);                                                                      \
    } while (0)

static void refusals(void **unused)
{
    (void)unused;
    struct grey_arena *arena = arena_new();
    struct grey_type bad = mixed_type;
    bad.run = NULL;
    REFUSED(grey_arena_new_object(NULL, &mixed_type), EINVAL);
    REFUSED(grey_arena_new_object(arena, NULL), EINVAL);
    REFUSED(grey_arena_new_object(arena, &bad), EINVAL);
    REFUSED(grey_arena_new_array(NULL, &mixed_type, 1), EINVAL);
    REFUSED(grey_arena_new_array(arena, NULL, 1), EINVAL);
    REFUSED(grey_arena_alloc_leaf(NULL, 8, 0), EINVAL);
    REFUSED(grey_arena_alloc_leaf(arena, 8, 3), EINVAL);
    REFUSED(grey_arena_alloc_leaf(arena, 8, (size_t)4 << 20), EINVAL);
    REFUSED(grey_arena_new_array(arena, &word_type, PTRDIFF_MAX / 8 + 1), EOVERFLOW); /* UA-15 */
    REFUSED(grey_arena_new_array(arena, &mixed_type, SIZE_MAX), EOVERFLOW);
    REFUSED(grey_arena_alloc_leaf(arena, (size_t)1 << 46, 0), ENOMEM);
    struct mixed *p = grey_arena_new_object(arena, &mixed_type);
    assert_non_null(p); /* it works still */
    errno = 0;          /* UA-33, UA-34 */
    assert_int_equal(grey_cleanup_add(p, count_death, NULL, NULL), ENOTSUP);
    assert_int_equal(grey_set_finalizer(p, NULL), ENOTSUP);
    REFUSED(grey_weak_new(p), ENOTSUP);
    int on_the_stack;
    assert_false(grey_in_arena(NULL) || grey_in_arena(&on_the_stack) || grey_in_arena(arena));
    grey_arena_free(arena);
    grey_arena_free(NULL);
    grey_arena_reset(NULL);
}

/* ---- smoke (arena.TestSmoke, TestSmokeLarge) ----------------------------------------------------------- */

static void smoke(void **unused)
{
    (void)unused;
    struct grey_arena *arena = arena_new();
    struct mixed *one = grey_arena_new_object(arena, &mixed_type);
    one->number = 7;
    uint64_t *array = grey_arena_new_array(arena, &word_type, 99);
    array[98] = 1;
    assert_int_equal(one->number, 7);
    grey_arena_free(arena);
}

static void smoke_large(void **unused)
{
    (void)unused;
    struct grey_arena *arena = arena_new();
    for (int i = 0; i < 640; i++) {
        char *p = grey_arena_alloc_leaf(arena, 1 << 20, 0);
        assert_non_null(p);
        assert_true(p[0] == 0 && p[(1 << 20) - 1] == 0);
        p[0] = 1;
    }
    assert_true(heap_figures().arena_chunks_active >= 80);
    grey_arena_free(arena);
}

/* ---- clone (UA-36) ------------------------------------------------------------------------------------- */

static char static_data[64] = "static";

static void copies(void **unused)
{
    (void)unused;
    struct grey_arena *arena = arena_new();
    char *string = grey_arena_alloc_leaf(arena, 100, 0);
    strcpy(string, "a string in an arena");
    char *copy = grey_arena_clone(string, &byte_type, 100);
    assert_false(grey_in_arena(copy));
    assert_ptr_equal(grey_base(copy), copy);
    assert_string_equal(copy, string);
    assert_string_equal(grey_arena_clone(string + 2, &byte_type, 50), "string in an arena");

    struct mixed *slice = grey_arena_new_array(arena, &mixed_type, 10);
    void *leaf = heap_marked_leaf(64, 3);
    for (uint64_t i = 0; i < 10; i++) {
        slice[i].number = i;
        grey_store(&slice[i].pointer, leaf);
        grey_store(&slice[i].other, (void *)&slice[0]);
    }
    struct mixed *part = grey_arena_clone(&slice[4], &mixed_type, 3);
    assert_false(grey_in_arena(part));
    for (uint64_t i = 0; i < 3; i++) {
        assert_int_equal(part[i].number, 4 + i);
        assert_ptr_equal(part[i].pointer, leaf);
        assert_ptr_equal(part[i].other, slice); /* shallow */
    }
    assert_ptr_equal(grey_arena_clone(part, &mixed_type, 3), part);
    assert_ptr_equal(grey_arena_clone(static_data, &byte_type, 6), static_data);
    assert_null(grey_arena_clone(NULL, &byte_type, 6));
    assert_ptr_equal(grey_arena_clone(slice, &mixed_type, 0), zero_address());
    REFUSED(grey_arena_clone(slice, NULL, 1), EINVAL);
    REFUSED(grey_arena_clone(string, &byte_type, CHUNK), EINVAL);
    REFUSED(grey_arena_clone(string, &mixed_type, SIZE_MAX / 2), EOVERFLOW);
    for (uint64_t i = 0; i < 10; i++)
        grey_store(&slice[i].pointer, NULL);
    grey_arena_free(arena);
    heap_reuse_free_memory();
    assert_true(heap_leaf_is_intact(part[0].pointer, 3));
    assert_string_equal(copy, "a string in an arena");
}

/* ---- reset, the next arena, other threads -------------------------------------------------------------- */

static void reset(void **unused)
{
    (void)unused;
    struct grey_arena *arena = arena_new();
    for (int round = 0; round < 5; round++) {
        uint64_t before = heap_figures().arenas;
        for (int i = 0; i < 20; i++) {
            char *p = grey_arena_alloc_leaf(arena, 1 << 20, 0);
            assert_non_null(p);
            assert_true(OS_ASAN || i != 0 || is_zero(p, 1 << 20));
            memset(p, round + 1, 1 << 20);
        }
        grey_arena_reset(arena);
        grey_arena_reset(arena); /* there is nothing to do */
        assert_int_equal(heap_figures().arenas, before);
        assert_int_equal(heap_figures().arena_chunks_active, 0);
    }
    assert_non_null(grey_arena_new_object(arena, &mixed_type));
    grey_arena_free(arena);
}

/* UA-12, UA-22, UA-28: the chunk that was not full goes to the next arena, the last one first, with all that
 * is in it. */
static void next_goes_on_behind(void **unused)
{
    (void)unused;
    if (OS_ASAN || os_debug.arenastrict)
        skip(); /* UA-29 */
    struct grey_arena *first = arena_new(), *second = arena_new();
    uint64_t *one = grey_arena_new_object(first, &word_type),
             *two = grey_arena_new_object(second, &word_type);
    *one = 1, *two = 2;
    grey_arena_free(first);
    grey_arena_free(second);
    assert_true(heap_figures().arena_chunks_reusable >= 2);
    assert_true(grey_in_arena(one) && grey_in_arena(two));
    struct grey_arena *third = arena_new(), *fourth = arena_new();
    assert_ptr_equal(grey_arena_new_object(third, &word_type), two - 1);
    assert_ptr_equal(grey_arena_new_object(fourth, &word_type), one - 1);
    assert_int_equal(*one, 1);
    assert_int_equal(*two, 2);
    grey_arena_free(third);
    grey_arena_free(fourth);
}

static void strict(void)
{
    grey_set_percent(-1); /* no cycle is on at the free */
    struct grey_arena *arena = arena_new();
    uint64_t *p = grey_arena_new_object(arena, &word_type);
    grey_arena_free(arena);
    struct grey_stats figures = heap_figures();
    CHILD_CHECK(figures.arena_chunks_reusable == 0);
    CHILD_CHECK(figures.arena_chunks_quarantined == 1);
    CHILD_CHECK(grey_in_arena(p));
}

GREY_ROOT(struct grey_arena *, shared);
GREY_ROOT(struct mixed *, list);

static void add_to_list(void *number)
{
    for (int i = 0; i < 30000; i++) {
        struct mixed *node = grey_arena_new_object(shared, &mixed_type);
        CHILD_CHECK(node != NULL);
        node->number = (uint64_t)(uintptr_t)number;
        grey_store(&node->pointer, (void *)list);
        grey_store(&node->other, (void *)heap_marked_leaf(16, node->number));
        grey_store(&list, node);
    }
}

/* UA-32: any thread, one after the other. */
static void from_thread_to_thread(void **unused)
{
    (void)unused;
    grey_store(&shared, arena_new());
    for (uintptr_t i = 0; i < 10; i++)
        apart(add_to_list, (void *)i);
    size_t n = 0;
    for (struct mixed *node = list; node != NULL; node = node->pointer, n++) {
        assert_int_equal(node->number, 9 - n / 30000);
        assert_true(heap_leaf_is_intact(node->other, node->number));
    }
    assert_int_equal(n, 300000);
    grey_store(&list, NULL);
    grey_arena_free(shared);
    grey_store(&shared, NULL);
}

/* ---- misuse -------------------------------------------------------------------------------------------- */

static void free_twice(void)
{
    struct grey_arena *arena = arena_new();
    grey_arena_free(arena);
    grey_arena_free(arena);
}
static void use_after_free(void)
{
    struct grey_arena *arena = arena_new();
    grey_arena_free(arena);
    grey_arena_new_object(arena, &mixed_type);
}
static void leaf_after_free(void)
{
    struct grey_arena *arena = arena_new();
    grey_arena_free(arena);
    grey_arena_alloc_leaf(arena, 1, 0);
}
static void reset_after_free(void)
{
    struct grey_arena *arena = arena_new();
    grey_arena_free(arena);
    grey_arena_reset(arena);
}

GREY_ROOT(struct grey_arena *, of_handler);
static void on_alarm(int signal)
{
    (void)signal;
    if (of_handler != NULL)
        grey_arena_new_object(of_handler, &mixed_type);
}

/* Two at once, by a handler that comes again and again until it comes in the middle of a call. */
static void in_a_handler(void)
{
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 200}, {0, 200}};
    grey_store(&of_handler, arena_new());
    CHILD_CHECK(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0);
    for (time_t end = time(NULL) + 60; time(NULL) < end;)
        for (int i = 0; i < 100000; i++)
            grey_arena_new_object(of_handler, &mixed_type);
}

static void misuse(void **unused)
{
    (void)unused;
    child_dies("free_twice", NULL, "arena freed twice: it was made at /");
    assert_non_null(strstr(child_run("free_twice", NULL)->message, "arena_test+0x"));
    child_dies("use_after_free", NULL, "use of freed arena");
    child_dies("leaf_after_free", NULL, "use of freed arena");
    child_dies("reset_after_free", NULL, "use of freed arena");
    child_dies("in_a_handler", NULL, "signal handler");
}

static void arenastrict(void **unused)
{
    (void)unused;
    static const char *const environment[] = {"GREY_DEBUG=arenastrict=1", NULL};
    child_passes("strict", environment);
}

int main(int argc, char **argv)
{
    static const struct child_case cases[] = {
        {"free_twice", free_twice},           {"use_after_free", use_after_free},
        {"leaf_after_free", leaf_after_free}, {"reset_after_free", reset_after_free},
        {"in_a_handler", in_a_handler},       {"strict", strict},
    };
    CHILD_MAIN(argc, argv, cases);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_kinds),
        cmocka_unit_test(nothing_takes_no_space),
        cmocka_unit_test(from_both_ends),
        cmocka_unit_test(alignments),
        cmocka_unit_test(refusals),
        cmocka_unit_test(smoke),
        cmocka_unit_test(smoke_large),
        cmocka_unit_test(copies),
        cmocka_unit_test(reset),
        cmocka_unit_test(next_goes_on_behind),
        cmocka_unit_test(from_thread_to_thread),
        cmocka_unit_test(misuse),
        cmocka_unit_test(arenastrict),
    };
    return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
