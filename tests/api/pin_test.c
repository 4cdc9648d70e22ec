/* tests/api/pin_test.c -- grey_pinner_new, grey_pin, grey_unpin, grey_is_pinned, grey_pin_count.
 *
 * Requirements: PN-1 .. PN-11, PN-19.  Objects are made by threads that exist only for that
 * (support_death.h), so what is dead is certain; a pinned object is known by its bits turned round, which
 * keep nothing.  Lost pinners are in pin_lost_test.c; interleavings with the steps of a cycle in
 * tests/hooks/pin_phase_test.c.
 */
#include "support_child.h"
#include "support_death.h"
#include "support_foreign.h"
#include "support_heap.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { N = 100 };

struct cell {
    void *next;
    uintptr_t number;
};
GREY_TYPE(cell_type, struct cell, next);

GREY_ROOT(struct grey_pinner *[N], pinner);
GREY_ROOT(struct cell *[N], kept);
static uintptr_t hidden[N], hidden_next[N];
static int static_object = 3;
static const char static_text[] = "a text";

static struct cell *cell_new(uintptr_t number)
{
    struct cell *cell = grey_new(&cell_type);
    CHILD_CHECK(cell != NULL);
    cell->number = number;
    CHILD_CHECK(grey_cleanup_add(cell, count_death, (void *)number, NULL) == 0);
    return cell;
}
static void pin(int of, const void *p) { CHILD_CHECK(grey_pin(pinner[of], p) == 0); }
static void new_pinners(void *n)
{
    for (uintptr_t i = 0; i < (uintptr_t)n; i++) {
        grey_store(&pinner[i], grey_pinner_new());
        CHILD_CHECK(pinner[i] != NULL);
    }
}
static void unpin_one(void *i) { grey_unpin(pinner[(uintptr_t)i]); }
static void forget(void)
{
    for (int i = 0; i < N; i++) {
        if (pinner[i] != NULL)
            apart(unpin_one, (void *)(uintptr_t)i);
        grey_store(&pinner[i], NULL);
        grey_store(&kept[i], NULL);
    }
    death_settle();
    deaths_reset();
    assert_int_equal(heap_figures().pins, 0);
}

/* ---- life -------------------------------------------------------------------------------------------- */

static void pin_and_forget(void *unused)
{
    (void)unused;
    struct cell *cell = cell_new(0);
    grey_store(&cell->next, cell_new(1));
    hidden[0] = HIDE(cell);
    hidden_next[0] = HIDE(cell->next);
    pin(0, cell);
}
static void check_pinned(void *unused)
{
    (void)unused;
    struct cell *cell = SHOW(hidden[0]);
    CHILD_CHECK(grey_is_pinned(cell) && grey_is_pinned((char *)cell + 15) && grey_pin_count(cell) == 1);
    CHILD_CHECK(cell->number == 0 && cell->next == SHOW(hidden_next[0]));
    CHILD_CHECK(!grey_is_pinned(cell->next) && grey_pin_count(cell->next) == 0);
}
static void check_not_pinned(void *unused)
{
    (void)unused;
    CHILD_CHECK(!grey_is_pinned(SHOW(hidden[0])) && grey_pin_count(SHOW(hidden[0])) == 0);
}

/* PN-2, PN-3: it lives with all that it leads to, which isn't pinned; and no longer. */
static void keeps_alive_and_releases(void **unused)
{
    (void)unused;
    apart(new_pinners, (void *)1);
    apart(pin_and_forget, NULL);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(death_cycle(), 0);
        heap_reuse_free_memory();
        apart(check_pinned, NULL);
    }
    assert_int_equal(heap_figures().pins, 1);
    apart(unpin_one, NULL);
    apart(check_not_pinned, NULL);
    assert_int_equal(heap_figures().pins, 0);
    assert_int_equal(death_settle(), 2);
    apart(check_not_pinned, NULL);
    forget();
}

static void pin_interior(void *unused)
{
    (void)unused;
    char *large = grey_alloc(1 << 20);
    CHILD_CHECK(large != NULL && grey_cleanup_add(large, count_death, NULL, NULL) == 0);
    memset(large, 'x', 1 << 20);
    hidden[0] = HIDE(large);
    pin(0, large + 777777);
    CHILD_CHECK(grey_is_pinned(large) && grey_pin_count(large + (1 << 20) - 1) == 1);
    struct cell *cell = cell_new(1);
    hidden[1] = HIDE(cell);
    pin(0, &cell->number);
}
static void check_interior(void *unused)
{
    (void)unused;
    char *large = SHOW(hidden[0]);
    for (size_t i = 0; i < 1 << 20; i += 1000)
        CHILD_CHECK(large[i] == 'x');
    CHILD_CHECK(((struct cell *)SHOW(hidden[1]))->number == 1);
}

/* PN-4: any pointer into it. */
static void interior_pointers(void **unused)
{
    (void)unused;
    apart(new_pinners, (void *)1);
    apart(pin_interior, NULL);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(death_cycle(), 0);
        heap_reuse_free_memory();
        apart(check_interior, NULL);
    }
    apart(unpin_one, NULL);
    assert_int_equal(death_settle(), 2);
    forget();
}

static void pin_cells_with_parts(void *unused)
{
    (void)unused;
    struct cell *outer = cell_new(0), *other = cell_new(2);
    grey_store(&outer->next, cell_new(1)); /* the outer one is pinned */
    grey_store(&other->next, cell_new(3)); /* what it leads to is */
    pin(0, outer);
    pin(0, other->next);
    CHILD_CHECK(!grey_is_pinned(outer->next) && !grey_is_pinned(other));
    grey_store(&outer->next, NULL);
}

/* Interface, PN-3: the cell and not its referent, and the reverse. */
static void only_what_is_pinned(void **unused)
{
    (void)unused;
    apart(new_pinners, (void *)1);
    apart(pin_cells_with_parts, NULL);
    assert_int_equal(death_settle(), 2);
    assert_int_equal(deaths_of(1, 3), 2);
    apart(unpin_one, NULL);
    assert_int_equal(death_settle(), 2);
    forget();
}

/* ---- counting ---------------------------------------------------------------------------------------- */

static void pin_a_hundred_times(void *unused)
{
    (void)unused;
    struct cell *cell = cell_new(0);
    hidden[0] = HIDE(cell);
    for (size_t i = 1; i <= 100; i++) {
        pin(0, (char *)cell + i % 16);
        CHILD_CHECK(grey_pin_count(cell) == i);
    }
}

/* MultiplePinsSame, PN-8. */
static void many_pins_of_one(void **unused)
{
    (void)unused;
    apart(new_pinners, (void *)1);
    apart(pin_a_hundred_times, NULL);
    assert_int_equal(heap_figures().pins, 100);
    assert_int_equal(death_settle(), 0);
    apart(unpin_one, NULL);
    apart(check_not_pinned, NULL);
    assert_int_equal(heap_figures().pins, 0);
    assert_int_equal(death_settle(), 1);
    forget();
}

static void pin_by_two(void *unused)
{
    (void)unused;
    struct cell *cell = cell_new(0);
    hidden[0] = HIDE(cell);
    pin(0, cell);
    CHILD_CHECK(grey_pin_count(cell) == 1);
    pin(1, cell);
    CHILD_CHECK(grey_pin_count(cell) == 2);
}
static void check_count(void *count)
{
    CHILD_CHECK(grey_pin_count(SHOW(hidden[0])) == (size_t)count);
    CHILD_CHECK(grey_is_pinned(SHOW(hidden[0])) == (count != NULL));
}

/* TwoPinner, PN-8. */
static void two_pinners(void **unused)
{
    (void)unused;
    for (uintptr_t first = 0; first < 2; first++) {
        apart(new_pinners, (void *)2);
        apart(pin_by_two, NULL);
        assert_int_equal(death_settle(), 0);
        apart(check_count, (void *)2);
        apart(unpin_one, (void *)first);
        apart(check_count, (void *)1);
        assert_int_equal(death_settle(), 0);
        apart(check_count, (void *)1);
        apart(unpin_one, (void *)(1 - first));
        apart(check_count, NULL);
        assert_int_equal(death_settle(), 1);
    }
    forget();
}

static void pin_bytes(void *unused)
{
    (void)unused;
    for (int i = 0; i < 64; i++) {
        unsigned char *byte = grey_alloc_leaf(1);
        *byte = (unsigned char)i;
        hidden[i] = HIDE(byte);
        pin(0, byte);
        pin(0, byte);
    }
}
static void check_bytes(void *pins)
{
    for (int i = 0; i < 64; i++) {
        CHILD_CHECK(pins == NULL || *(unsigned char *)SHOW(hidden[i]) == i);
        CHILD_CHECK(grey_pin_count(SHOW(hidden[i])) == (size_t)pins);
    }
}

/* PinTinyObj. */
static void tiny_objects(void **unused)
{
    (void)unused;
    apart(new_pinners, (void *)1);
    apart(pin_bytes, NULL);
    heap_reuse_free_memory();
    apart(check_bytes, (void *)2);
    apart(unpin_one, NULL);
    apart(check_bytes, NULL);
    forget();
}

static void pin_large_set(void *times)
{
    struct cell *cell = cell_new(0);
    hidden[0] = HIDE(cell);
    for (size_t i = 0; i < (size_t)times; i++) {
        struct cell *each = cell_new(i + 1);
        pin(0, each);
        if (i % 3 == 0)
            pin(0, cell);
    }
}

/* PN-1, PN-10: a pinner is empty again after unpin, and can be used again, whatever it had. */
static void reuse(void **unused)
{
    (void)unused;
    static const size_t times[] = {1, 4, 5, 6, 10, 11, 1000, 5000, 2};
    apart(new_pinners, (void *)1);
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        apart(pin_large_set, (void *)times[i]);
        assert_int_equal(heap_figures().pins, times[i] + (times[i] + 2) / 3);
        assert_int_equal(death_cycle(), 0);
        assert_int_equal(death_cycle(), 0);
        apart(unpin_one, NULL);
        assert_int_equal(death_settle(), times[i] + 1);
        assert_int_equal(deaths_of(0, times[i] + 1), times[i] + 1);
        deaths_reset();
    }
    forget();
}

/* ---- what is not an object --------------------------------------------------------------------------- */

static void pin_what_never_dies(void *unused)
{
    (void)unused;
    int local = 5;
    void *of_libc = malloc(40);
    const void *const all[] = {&static_object,     "a constant",         &local,      of_libc,
                               grey_alloc_leaf(0), (const void *)&errno, static_text, (void *)1};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        CHILD_CHECK(grey_is_pinned(all[i]) && grey_pin_count(all[i]) == 0);
        pin(0, all[i]);
        CHILD_CHECK(grey_is_pinned(all[i]) && grey_pin_count(all[i]) == 0);
    }
    CHILD_CHECK(heap_figures().pins == 0);
    grey_unpin(pinner[0]);
    free(of_libc);
}

/* PinGlobalPtr, PinZerosizeObj, ConstStringData, PN-5. */
static void what_never_dies(void **unused)
{
    (void)unused;
    apart(new_pinners, (void *)1);
    apart(pin_what_never_dies, NULL);
    forget();
}

static void call_with_nothing(void *unused)
{
    (void)unused;
    struct grey_stats before = heap_figures();
    CHILD_CHECK(grey_pin(NULL, &static_object) == EINVAL);
    CHILD_CHECK(grey_pin(NULL, NULL) == EINVAL);
    CHILD_CHECK(grey_pin(pinner[0], NULL) == EINVAL);
    CHILD_CHECK(!grey_is_pinned(NULL) && grey_pin_count(NULL) == 0);
    for (int i = 0; i < 3; i++) {
        grey_unpin(NULL);
        grey_unpin(pinner[0]); /* EmptyUnpin, PN-9 */
    }
    CHILD_CHECK(heap_figures().pins == before.pins);
}

/* PN-4, PN-9. */
static void nothing_to_do(void **unused)
{
    (void)unused;
    apart(new_pinners, (void *)1);
    apart(call_with_nothing, NULL);
    forget();
}

static void pin_a_pinner(void *unused)
{
    (void)unused;
    struct cell *cell = cell_new(0);
    pin(1, cell);
    pin(0, pinner[1]); /* a heap object like others (PN-1) */
    hidden[1] = HIDE(pinner[1]);
    grey_store(&pinner[1], NULL);
}
static void take_back_the_pinner(void *unused)
{
    (void)unused;
    grey_store(&pinner[1], SHOW(hidden[1]));
    CHILD_CHECK(grey_is_pinned(pinner[1]));
    grey_unpin(pinner[0]);
    CHILD_CHECK(!grey_is_pinned(pinner[1]));
}

static void a_pinner_can_be_pinned(void **unused)
{
    (void)unused;
    apart(new_pinners, (void *)2);
    apart(pin_a_pinner, NULL);
    assert_int_equal(death_settle(), 0); /* it is no lost one */
    assert_int_equal(heap_figures().pins, 2);
    apart(take_back_the_pinner, NULL);
    apart(unpin_one, (void *)1);
    assert_int_equal(death_settle(), 1);
    forget();
}

static void pin_in_an_arena(void *unused)
{
    (void)unused;
    struct grey_arena *arena = grey_arena_new();
    char *object = grey_arena_alloc_leaf(arena, 100, 0);
    CHILD_CHECK(object != NULL);
    for (int i = 0; i < 2; i++) {
        CHILD_CHECK(grey_pin(pinner[0], object) == ENOTSUP);
        CHILD_CHECK(grey_pin(pinner[0], object + 99) == ENOTSUP);
        CHILD_CHECK(!grey_is_pinned(object) && grey_pin_count(object) == 0);
        if (i == 0)
            grey_arena_free(arena);
    }
    CHILD_CHECK(heap_figures().pins == 0);
}
/* PN-7. */
static void arenas_have_no_pins(void **unused)
{
    (void)unused;
    apart(new_pinners, (void *)1);
    apart(pin_in_an_arena, NULL);
    forget();
}

/* ---- foreign regions (PN-6) -------------------------------------------------------------------------- */

static struct region region[2];
static void add_and_pin(void)
{
    region_new(&region[0], 5000, 0);
    char *start = region_start(&region[0]);
    CHILD_CHECK(!grey_is_pinned(start) && grey_pin_count(start) == 0);
    CHILD_CHECK(grey_pin(pinner[0], start + 4999) == 0 && grey_pin(pinner[0], start) == 0);
    CHILD_CHECK(grey_pin(pinner[1], start + 7) == 0);
    CHILD_CHECK(grey_is_pinned(start) && grey_pin_count(start + 10) == 3);
}
static void check_region_count(void *count)
{
    char *start = region_start(&region[0]);
    CHILD_CHECK(grey_pin_count(start) == (size_t)count && grey_is_pinned(start) == (count != NULL));
}

static void a_region_is_kept(void **unused)
{
    (void)unused;
    apart(new_pinners, (void *)2);
    region_thread(add_and_pin);
    death_settle();
    region_assert_lives(&region[0]);
    apart(check_region_count, (void *)3);
    apart(unpin_one, NULL);
    apart(check_region_count, (void *)1);
    death_settle();
    region_assert_lives(&region[0]);
    apart(unpin_one, (void *)1);
    apart(check_region_count, NULL);
    death_settle();
    assert_int_equal(atomic_load(&region[0].died), 1);
    forget();
}

static void release_and_add_again(void)
{
    CHILD_CHECK(grey_foreign_release(region[0].handle));
    char *start = region_start(&region[0]);
    CHILD_CHECK(grey_is_pinned(start) && grey_pin_count(start) == 0); /* unknown memory now */
    region_add(&region[1], start, 5000, 0);
    CHILD_CHECK(grey_pin_count(start) == 0 && !grey_is_pinned(start));
}

/* Release goes ahead, and the pins are empty: what is registered there later isn't kept by them. */
static void release_empties_pins(void **unused)
{
    (void)unused;
    memset(region, 0, sizeof(region));
    apart(new_pinners, (void *)2);
    region_thread(add_and_pin);
    region_thread(release_and_add_again);
    death_settle();
    assert_int_equal(atomic_load(&region[0].died), 0);
    assert_int_equal(atomic_load(&region[1].died), 1);
    apart(unpin_one, NULL);
    apart(unpin_one, (void *)1);
    forget();
}

/* ---- threads (PN-19) --------------------------------------------------------------------------------- */

enum { THREADS = 8, ROUNDS = 300 };
static _Atomic unsigned pinning;
static void pin_with_others(void *unused)
{
    (void)unused;
    struct grey_pinner *mine = grey_pinner_new();
    for (int i = 0; i < ROUNDS; i++) {
        for (int k = 0; k < 12; k++)
            CHILD_CHECK(grey_pin(mine, kept[k % 4]) == 0);
        atomic_fetch_add(&pinning, 1);
        for (int k = 0; k < 4; k++)
            CHILD_CHECK(grey_is_pinned(kept[k]) && grey_pin_count(kept[k]) >= 3);
        atomic_fetch_sub(&pinning, 1);
        CHILD_CHECK(!grey_is_pinned(kept[4]) && grey_pin_count(kept[4]) == 0); /* of the same span */
        CHILD_CHECK(grey_is_pinned(kept[5]) && grey_pin_count(kept[5]) == 1);
        grey_unpin(mine);
    }
}
static void *pinning_thread(void *unused) /* attached by its first call */
{
    pin_with_others(unused);
    return NULL;
}
static void make_shared(void *unused)
{
    (void)unused;
    for (uintptr_t i = 0; i < 6; i++)
        grey_store(&kept[i], cell_new(i));
    pin(0, kept[5]);
}

static void check_shared(void *unused)
{
    (void)unused;
    for (int i = 0; i < 6; i++)
        CHILD_CHECK(grey_is_pinned(kept[i]) == (i == 5));
}

static void many_threads(void **unused)
{
    (void)unused;
    apart(new_pinners, (void *)1);
    apart(make_shared, NULL);
    pthread_t thread[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, pinning_thread, NULL), 0);
    for (int i = 0; i < 20; i++)
        assert_int_equal(death_cycle(), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(grey_thread_join(thread[i], NULL), 0);
    assert_int_equal(heap_figures().pins, 1);
    apart(check_shared, NULL);
    forget();
}

/* Random objects by random pinners, against a model.  Another thread each time: any may, one at a time. */
enum { OBJECTS = 40, PINNERS = 12, STEPS = 400 };
static size_t model[PINNERS][OBJECTS];
static unsigned seed;
static void random_step(void *unused)
{
    (void)unused;
    for (int n = 0; n < 20; n++) {
        int of = rand_r(&seed) % PINNERS, object = rand_r(&seed) % OBJECTS;
        if (rand_r(&seed) % 12 == 0) {
            grey_unpin(pinner[of]);
            memset(model[of], 0, sizeof(model[of]));
        } else {
            pin(of, (char *)SHOW(hidden[object]) + rand_r(&seed) % 16);
            model[of][object]++;
        }
    }
    for (int object = 0; object < OBJECTS; object++) {
        size_t count = 0;
        for (int of = 0; of < PINNERS; of++)
            count += model[of][object];
        CHILD_CHECK(grey_pin_count(SHOW(hidden[object])) == count);
        CHILD_CHECK(grey_is_pinned(SHOW(hidden[object])) == (count != 0));
    }
}
static void make_objects(void *unused)
{
    (void)unused;
    for (uintptr_t i = 0; i < OBJECTS; i++) {
        grey_store(&kept[i], i % 5 != 0 ? (void *)cell_new(i) : grey_alloc(i % 10 != 0 ? 3000 : 50000));
        hidden[i] = HIDE(kept[i]);
    }
}

static void random_pins(void **unused)
{
    (void)unused;
    seed = (unsigned)time(NULL);
    printf("seed %u\n", seed);
    memset(model, 0, sizeof(model));
    apart(new_pinners, (void *)PINNERS);
    apart(make_objects, NULL);
    for (int i = 0; i < STEPS; i++) {
        apart(random_step, NULL);
        if (i % 20 == 0)
            assert_int_equal(death_cycle(), 0);
    }
    size_t sum = 0;
    for (int of = 0; of < PINNERS; of++)
        for (int object = 0; object < OBJECTS; object++)
            sum += model[of][object];
    assert_int_equal(heap_figures().pins, sum);
    forget();
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_alive_and_releases),
        cmocka_unit_test(interior_pointers),
        cmocka_unit_test(only_what_is_pinned),
        cmocka_unit_test(many_pins_of_one),
        cmocka_unit_test(two_pinners),
        cmocka_unit_test(tiny_objects),
        cmocka_unit_test(reuse),
        cmocka_unit_test(what_never_dies),
        cmocka_unit_test(nothing_to_do),
        cmocka_unit_test(a_pinner_can_be_pinned),
        cmocka_unit_test(arenas_have_no_pins),
        cmocka_unit_test(a_region_is_kept),
        cmocka_unit_test(release_empties_pins),
        cmocka_unit_test(many_threads),
        cmocka_unit_test(random_pins),
    };
    return cmocka_run_group_tests(tests, death_init, NULL);
}
