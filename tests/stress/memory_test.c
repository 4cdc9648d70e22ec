/* tests/stress/memory_test.c -- objects of all sizes and kinds, under endless cycles (AL-1 .. AL-23, SC).
 *
 * A table of objects from one byte to several MiB, of every kind, each filled so that any other use of its
 * memory shows; replaced and resized at random.  Large arrays hold pointers at random places, so they are
 * scanned in pieces.  Then a steady workload, which must not need more memory the longer it runs; and, in
 * builds with hooks, mappings that are refused in between: an allocation may fail then, with ENOMEM and no
 * other effect.
 */
#include "support_stress.h"

#include "os/os.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WORKERS = 3, OBJECTS = 48, PARTS = 3 };
enum kind { LEAF, UNTYPED, POINTERS, STRUCTS, KINDS };

struct item { /* an array of these: not every word is a pointer */
    uint64_t before;
    struct node *to;
    uint32_t after[4];
};
GREY_TYPE(item_type, struct item, to);
struct pointer {
    struct node *to;
};
GREY_TYPE(pointer_type, struct pointer, to);

/* One object, and what is known of it.  The list below it is stored at `at`, by its kind. */
struct entry {
    enum kind kind;
    size_t size, count;
    uint64_t fill;
    size_t at;
    uint64_t serial;
};
struct worker {
    uint64_t random, deadline, refused, much;
    void **objects; /* OBJECTS of them, a registered root */
    struct entry entries[OBJECTS];
    bool refuse;
};

/* Small ones most often: every magnitude is as likely. */
static size_t random_size(struct worker *w)
{
    unsigned bits = (unsigned)stress_below(&w->random, 22);
    return (1 + stress_below(&w->random, (uint64_t)1 << bits)) * (stress_below(&w->random, 64) == 0 ? 2 : 1);
}

static struct node **slot_of(void *object, const struct entry *e)
{
    switch (e->kind) {
    case UNTYPED:
        return (struct node **)object + e->at;
    case POINTERS:
        return &((struct pointer *)object)[e->at].to;
    case STRUCTS:
        return &((struct item *)object)[e->at].to;
    default:
        return NULL;
    }
}

static void fill_bytes(unsigned char *p, size_t size, uint64_t fill)
{
    for (size_t i = 0; i < size; i += 64) /* a byte a cache line, and the last */
        p[i] = (unsigned char)(fill + i / 64);
    p[size - 1] = (unsigned char)fill;
}

static void check_bytes(const unsigned char *p, size_t size, uint64_t fill)
{
    STRESS_CHECK(p[size - 1] == (unsigned char)fill, "leaf %p of %zu bytes was changed", (const void *)p,
                 size);
    for (size_t i = 0; i + 1 < size; i += 64)
        STRESS_CHECK(p[i] == (unsigned char)(fill + i / 64), "leaf %p of %zu bytes was changed",
                     (const void *)p, size);
}

static void check_object(const struct worker *w, int i)
{
    void *object = w->objects[i];
    const struct entry *e = &w->entries[i];
    if (object == NULL)
        return;
    STRESS_CHECK(grey_base(object) == object && grey_size(object) >= e->size,
                 "object %p of %zu bytes is none", object, e->size);
    if (e->kind == LEAF) {
        check_bytes(object, e->size, e->fill);
        return;
    }
    struct node **slot = slot_of(object, e);
    if (e->count == 0)
        return;
    STRESS_CHECK(*slot != NULL && (*slot)->serial == e->serial, "object %p of %zu bytes lost its list",
                 object, e->size);
    STRESS_CHECK(list_check(*slot) == 5, "a list became shorter");
    if (e->kind == STRUCTS)
        STRESS_CHECK(((struct item *)object)[e->at].before == e->fill, "words beside a pointer were changed");
}

static void *allocate(struct entry *e)
{
    switch (e->kind) {
    case LEAF:
        e->count = 0;
        return grey_alloc_leaf(e->size);
    case UNTYPED:
        e->count = e->size / sizeof(void *);
        return grey_alloc(e->size);
    case POINTERS:
        e->count = e->size / sizeof(struct pointer) + 1;
        e->size = e->count * sizeof(struct pointer);
        return grey_new_array(&pointer_type, e->count);
    default:
        e->count = e->size / sizeof(struct item) + 1;
        e->size = e->count * sizeof(struct item);
        return grey_new_array(&item_type, e->count);
    }
}

static void put_list(struct worker *w, void *object, struct entry *e)
{
    if (e->count == 0)
        return;
    e->at = stress_below(&w->random, e->count);
    struct node *list = list_new(&w->random, 5, 1);
    e->serial = list->serial;
    if (e->kind == STRUCTS)
        ((struct item *)object)[e->at].before = e->fill;
    grey_store(slot_of(object, e), list);
}

#ifdef GREY_HOOKS
/* From every hook that is passed, so that the retry after a cycle (AL-14) is refused too. */
static void refuse_again(enum os_hook point, const void *what)
{
    (void)point, (void)what;
    os_fail_mapping(1, ENOMEM);
}
static void refuse_soon(struct worker *w)
{
    if (!w->refuse)
        return;
    os_fail_mapping(1 + (unsigned)stress_below(&w->random, 3), ENOMEM);
    atomic_store(&os_hook_function, stress_below(&w->random, 2) != 0 ? refuse_again : NULL);
}
static void refuse_no_more(struct worker *w)
{
    if (!w->refuse)
        return;
    atomic_store(&os_hook_function, NULL);
    os_fail_mapping(1, 0);
}
#else
static void refuse_soon(struct worker *w) { (void)w; }
static void refuse_no_more(struct worker *w) { (void)w; }
#endif

static void replace(struct worker *w, int i)
{
    struct entry e = {.kind = (enum kind)stress_below(&w->random, KINDS), .size = random_size(w)};
    e.fill = stress_random(&w->random) | (uint64_t)1 << 63;
    refuse_soon(w);
    void *object = allocate(&e);
    int error = errno;
    refuse_no_more(w);
    if (object == NULL) {
        STRESS_CHECK(w->refuse && error == ENOMEM, "no %zu bytes: error %d", e.size, error);
        w->refused++;
        return;
    }
    if (e.kind == LEAF)
        fill_bytes(object, e.size, e.fill);
    else
        STRESS_CHECK(*slot_of(object, &e) == NULL, "object %p of %zu bytes is not zeroed", object, e.size);
    put_list(w, object, &e);
    w->entries[i] = e;
    grey_store(&w->objects[i], object);
}

/* Leaves and untyped ones: the contents go along (AL-19 .. AL-23). */
static void resize(struct worker *w, int i)
{
    struct entry *e = &w->entries[i];
    if (w->objects[i] == NULL || (e->kind != LEAF && e->kind != UNTYPED))
        return;
    size_t size = random_size(w);
    if (e->kind == UNTYPED && (size < (e->at + 1) * sizeof(void *) || e->count == 0))
        return;
    refuse_soon(w);
    unsigned char *object = grey_realloc(w->objects[i], size);
    refuse_no_more(w);
    if (object == NULL) {
        STRESS_CHECK(w->refuse, "no %zu bytes", size);
        w->refused++;
        return;
    }
    if (e->kind == LEAF) {
        size_t kept = size < e->size ? size : e->size;
        for (size_t at = 0; at + 1 < kept; at += 64)
            STRESS_CHECK(object[at] == (unsigned char)(e->fill + at / 64), "byte %zu did not go along", at);
        fill_bytes(object, size, e->fill);
    }
    e->size = size;
    grey_store(&w->objects[i], (void *)object);
}

/* So large that the heap must grow for it, each time more. */
static void ask_for_much(struct worker *w)
{
    if (!w->refuse || w->much == 100 || stress_below(&w->random, 8) != 0)
        return;
    size_t size = (size_t)(256 + 16 * w->much++) << 20;
    refuse_soon(w);
    void *object = grey_alloc_leaf(size);
    int error = errno;
    refuse_no_more(w);
    STRESS_CHECK(object != NULL || error == ENOMEM, "no %zu bytes: error %d", size, error);
    w->refused += object == NULL;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    w->objects = calloc(OBJECTS, sizeof(*w->objects));
    STRESS_CHECK(w->objects != NULL && grey_root_add(w->objects, OBJECTS * sizeof(*w->objects)) == 0,
                 "no root");
    /* On a busy machine on to the first that is refused. */
    while (stress_now() < w->deadline || (w->refuse && w->refused == 0 && w->much < 100)) {
        int i = (int)stress_below(&w->random, OBJECTS);
        check_object(w, i);
        if (stress_below(&w->random, 3) == 0)
            resize(w, i);
        else
            replace(w, i);
        ask_for_much(w);
        check_object(w, i);
    }
    for (int i = 0; i < OBJECTS; i++)
        check_object(w, i);
    STRESS_CHECK(grey_root_remove(w->objects, OBJECTS * sizeof(*w->objects)) == 0, "no such root");
    free(w->objects);
    return NULL;
}

static uint64_t run_workers(int n, bool refuse)
{
    static struct worker workers[WORKERS];
    pthread_t threads[WORKERS];
    uint64_t deadline = stress_deadline(PARTS), refused = 0;
    memset(workers, 0, sizeof(workers));
    stress_cycles_start();
    for (int i = 0; i < n; i++) {
        workers[i].random = stress_seed() + (uint64_t)i * 7919;
        workers[i].deadline = deadline;
        workers[i].refuse = refuse;
        assert_int_equal(grey_thread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < n; i++) {
        assert_int_equal(grey_thread_join(threads[i], NULL), 0);
        refused += workers[i].refused;
    }
    assert_true(stress_cycles_stop() > 0);
    refuse_no_more(&workers[0]); /* a hook may have been under way when it was taken away */
    assert_int_equal(grey_verify(2), 0);
    return refused;
}

static void test_sizes(void **state)
{
    (void)state;
    assert_int_equal(run_workers(WORKERS, false), 0);
}

static void test_refused(void **state)
{
    (void)state;
#ifndef GREY_HOOKS
    skip();
#endif
    const char *debug = getenv("GREY_DEBUG");
    if (debug != NULL && strstr(debug, "checkmark=1") != NULL)
        skip(); /* the check itself needs memory, and rather dies than goes on unchecked */
    uint64_t refused = run_workers(1, true);
    fprintf(stderr, "%llu allocations were refused\n", (unsigned long long)refused);
    assert_true(refused > 0);
}

/* ---- a steady workload --------------------------------------------------------------------------------- */

static size_t resident(void)
{
    size_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file != NULL && fscanf(file, "%*s %zu", &pages) != 1)
        pages = 0;
    if (file != NULL)
        fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

GREY_ROOT(struct node *[256], window);

static void churn(uint64_t *random, uint64_t until)
{
    while (stress_now() < until) {
        uint64_t i = stress_below(random, 256);
        list_check(window[i]);
        grey_store(&window[i], list_new(random, 40, 1));
        size_t size = 1 + stress_below(random, 20000);
        fill_bytes(grey_alloc_leaf(size), size, size);
    }
}

/* What is left when all that can be given back was (SC-7): how far the heap grew between cycles depends on
 * when the collector got a processor, this must not. */
static void settle(struct grey_stats *stats, size_t *pages)
{
    grey_collect();
    grey_trim();
    grey_stats_read(stats);
    *pages =
        OS_ASAN || OS_TSAN ? stats->mapped - stats->released : resident(); /* a sanitizer's shadow stays */
}

static void test_steady(void **state)
{
    (void)state;
    uint64_t random = stress_seed(), begin = stress_now(), length = stress_deadline(PARTS) - begin;
    struct grey_stats before = GREY_STATS_INIT, after = GREY_STATS_INIT;
    size_t resident_before, resident_after;
    churn(&random, begin + length / 3);
    settle(&before, &resident_before);
    churn(&random, begin + length);
    settle(&after, &resident_after);
    fprintf(stderr, "live %llu -> %llu bytes, resident %zu -> %zu\n", (unsigned long long)before.heap_live,
            (unsigned long long)after.heap_live, resident_before, resident_after);
    assert_true(after.heap_live <= before.heap_live * 3 / 2 + (4 << 20));
    assert_true(resident_after <= resident_before * 3 / 2 + (32 << 20));
}

int main(void)
{
    stress_seed();
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_steady), cmocka_unit_test(test_sizes),
                                       cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
