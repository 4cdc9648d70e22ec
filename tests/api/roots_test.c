/* tests/api/roots_test.c -- registered memory: counted, overlapping, added and removed at any time, and
 * variables of shared objects that come and go.
 *
 * Requirements: UM-10, UM-11, UM-12, ER-2, ER-6.  A root is judged by what lives: leafs that are held from it
 * alone are intact after everything free was handed out again, and gone once it is removed.  Adding in each
 * phase of a cycle needs hooks: tests/hooks/roots_phase_test.c.
 */
#include "support_child.h"
#include "support_heap.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LEAFS = 500, LEAF = 64 };

/* Memory that grey knows nothing of. */
static void **unmanaged;
static struct grey_stats when_kept; /* the figures when assert_kept had last seen that all is alive */

static int get_memory(void **unused)
{
    (void)unused;
    unmanaged = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    grey_set_percent(-1);
    return unmanaged == MAP_FAILED ? -1 : grey_thread_attach();
}

__attribute__((noinline)) static void fill(void **words, int n)
{
    for (int i = 0; i < n; i++)
        grey_store(&words[i], heap_marked_leaf(LEAF, (uint64_t)i));
}

__attribute__((noinline)) static void assert_kept(void **words, int n)
{
    heap_collect_twice();
    heap_reuse_free_memory();
    for (int i = 0; i < n; i++)
        if (!heap_leaf_is_intact(words[i], (uint64_t)i))
            fail_msg("leaf %d of %d was not kept", i, n);
    when_kept = heap_figures();
}

/* Nothing else dies: automatic cycles are off, and what assert_kept made is gone when it returns. */
__attribute__((noinline)) static void assert_dropped(uint64_t n) { heap_assert_freed(&when_kept, n); }

static void refusals(void **unused)
{
    (void)unused;
    static char data[64] __attribute__((aligned(8)));
    struct grey_stats before = heap_figures_at_rest();
    assert_int_equal(grey_root_add(NULL, 0), EINVAL);
    assert_int_equal(grey_root_add(NULL, 64), EINVAL);
    assert_int_equal(grey_root_add(data, 0), EINVAL);
    assert_int_equal(grey_root_add(data, 7), EINVAL);
    assert_int_equal(grey_root_add(data + 1, 14), EINVAL); /* words 8 to 16 need 15 */
    assert_int_equal(grey_root_add(data + 1, 8), EINVAL);
    assert_int_equal(grey_root_add(data, SIZE_MAX), EINVAL);
    assert_int_equal(grey_root_add(data, SIZE_MAX - (uintptr_t)data + 1), EINVAL);
    assert_int_equal(grey_root_add((void *)(UINTPTR_MAX - 2), 2), EINVAL);
    assert_int_equal(grey_root_add((void *)(UINTPTR_MAX - 6), 6), EINVAL);
    assert_int_equal(grey_root_remove(NULL, 8), EINVAL);
    assert_int_equal(grey_root_remove(data, 0), EINVAL);
    assert_int_equal(grey_root_remove(data, 8), ENOENT);
    assert_int_equal(grey_root_add(data, 64), 0);
    /* not the exact range */
    assert_int_equal(grey_root_remove(data, 56), ENOENT);
    assert_int_equal(grey_root_remove(data + 8, 56), ENOENT);
    assert_int_equal(grey_root_remove(data + 8, 64), ENOENT);
    assert_int_equal(grey_root_remove(data, 64), 0);
    assert_int_equal(grey_root_remove(data, 64), ENOENT);
    struct grey_stats after = heap_figures_at_rest();
    assert_int_equal(before.allocated_objects, after.allocated_objects);
    assert_int_equal(before.threads, after.threads);
}

static void keeps_until_removed(void **unused)
{
    (void)unused;
    assert_int_equal(grey_root_add(unmanaged, LEAFS * sizeof(void *)), 0);
    fill(unmanaged, LEAFS);
    assert_kept(unmanaged, LEAFS);
    assert_int_equal(grey_root_remove(unmanaged, LEAFS * sizeof(void *)), 0);
    assert_dropped(LEAFS);
}

/* Rounded inward: words that are wholly inside. */
static void odd_ends(void **unused)
{
    (void)unused;
    char *start = (char *)unmanaged + 3;
    size_t size = 5 + LEAFS * sizeof(void *) + 7; /* LEAFS words from unmanaged + 1 on, and seven bytes */
    assert_int_equal(grey_root_add(start, size), 0);
    fill(unmanaged + 1, LEAFS);
    assert_kept(unmanaged + 1, LEAFS);
    assert_int_equal(grey_root_remove(start, size), 0);
    assert_dropped(LEAFS);
}

static void counted(void **unused)
{
    (void)unused;
    size_t size = LEAFS * sizeof(void *);
    for (int i = 0; i < 3; i++)
        assert_int_equal(grey_root_add(unmanaged, size), 0);
    fill(unmanaged, LEAFS);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(grey_root_remove(unmanaged, size), 0);
        assert_kept(unmanaged, LEAFS);
    }
    assert_int_equal(grey_root_remove(unmanaged, size), 0);
    assert_int_equal(grey_root_remove(unmanaged, size), ENOENT);
    assert_dropped(LEAFS);
}

static void overlapping(void **unused)
{
    (void)unused;
    size_t half = LEAFS / 2 * sizeof(void *), size = 2 * half;
    assert_int_equal(grey_root_add(unmanaged, size), 0);
    assert_int_equal(grey_root_add((char *)unmanaged + half, size), 0); /* second half, and beyond */
    assert_int_equal(grey_root_add(unmanaged, half), 0);
    fill(unmanaged, LEAFS);
    assert_int_equal(grey_root_remove(unmanaged, size), 0);
    assert_kept(unmanaged, LEAFS); /* each half by another range */
    assert_int_equal(grey_root_remove(unmanaged, half), 0);
    assert_dropped(LEAFS / 2);
    when_kept = heap_figures();
    for (int i = LEAFS / 2; i < LEAFS; i++)
        assert_true(heap_leaf_is_intact(unmanaged[i], (uint64_t)i));
    assert_int_equal(grey_root_remove((char *)unmanaged + half, size), 0);
    assert_dropped(LEAFS / 2);
}

static void very_many(void **unused)
{
    (void)unused;
    enum { N = 5000 };
    for (int i = 0; i < N; i++)
        assert_int_equal(grey_root_add(&unmanaged[i], sizeof(void *)), 0);
    fill(unmanaged, N);
    assert_kept(unmanaged, N);
    for (int i = 0; i < N; i++)
        assert_int_equal(grey_root_remove(&unmanaged[i], sizeof(void *)), 0);
    assert_dropped(N);
}

/* Over UM-11's piece of 256 KiB. */
static void large(void **unused)
{
    (void)unused;
    enum { WORDS = (1 << 20) / sizeof(void *) };
    assert_int_equal(grey_root_add(unmanaged, 1 << 20), 0);
    fill(unmanaged + WORDS - LEAFS, LEAFS);
    grey_store(&unmanaged[0], heap_marked_leaf(LEAF, 0));
    grey_store(&unmanaged[(256 << 10) / sizeof(void *) - 1], heap_marked_leaf(LEAF, 1));
    grey_store(&unmanaged[(256 << 10) / sizeof(void *)], heap_marked_leaf(LEAF, 2));
    assert_kept(unmanaged + WORDS - LEAFS, LEAFS);
    assert_true(heap_leaf_is_intact(unmanaged[0], 0));
    assert_true(heap_leaf_is_intact(unmanaged[(256 << 10) / sizeof(void *) - 1], 1));
    assert_true(heap_leaf_is_intact(unmanaged[(256 << 10) / sizeof(void *)], 2));
    assert_int_equal(grey_root_remove(unmanaged, 1 << 20), 0);
    assert_dropped(LEAFS);
}

/* ---- removed while scanned ----------------------------------------------------------------------------- */

static atomic_bool stop;

static void *collect_all_the_time(void *unused)
{
    (void)unused;
    while (!atomic_load(&stop))
        grey_collect();
    return NULL;
}

/* After remove has returned nobody reads the range: it is unmapped at once. */
static void removed_while_scanned(void **unused)
{
    (void)unused;
    enum { SIZE = 2 << 20 };
    pthread_t collecting;
    atomic_store(&stop, false);
    assert_int_equal(grey_thread_create(&collecting, NULL, collect_all_the_time, NULL), 0);
    for (int i = 0; i < 100; i++) {
        char *range =
            mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        assert_true(range != MAP_FAILED);
        assert_int_equal(grey_root_add(range, SIZE), 0);
        grey_store((void **)(void *)(range + i * 8), grey_alloc_leaf(16));
        if (i % 3 == 0)
            usleep(200 + i * 7);
        assert_int_equal(grey_root_remove(range, SIZE), 0);
        assert_int_equal(munmap(range, SIZE), 0);
    }
    atomic_store(&stop, true);
    assert_int_equal(grey_thread_join(collecting, NULL), 0);
}

/* ---- GREY_ROOT ----------------------------------------------------------------------------------------- */

GREY_ROOT(void *, one_word);
GREY_ROOT(
    struct { void *words[LEAFS]; }, many_words);

static void declared(void **unused)
{
    (void)unused;
    grey_store(&one_word, heap_marked_leaf(LEAF, 7));
    fill(many_words.words, LEAFS);
    assert_kept(many_words.words, LEAFS);
    assert_true(heap_leaf_is_intact(one_word, 7));
    grey_clear(&many_words, sizeof(many_words));
    assert_dropped(LEAFS);
}

static const char plugin_source[] = "#include \"grey.h\"\n"
                                    "GREY_ROOT(struct { void *words[500]; }, plugin_words);\n"
                                    "void **plugin_root(void);\n"
                                    "void **plugin_root(void) { return plugin_words.words; }\n";

/* The plug-in uses the library of the program, so the program has to show it its names. */
static void *open_plugin(const char *directory)
{
    char source[200], object[200], command[900];
    snprintf(source, sizeof(source), "%s/plugin.c", directory);
    snprintf(object, sizeof(object), "%s/plugin.so", directory);
    if (access(object, R_OK) != 0) {
        FILE *file = fopen(source, "w");
        assert_non_null(file);
        fputs(plugin_source, file);
        fclose(file);
        const char *header = strstr(__FILE__, "tests/api/");
        assert_non_null(header);
        snprintf(command, sizeof(command), "cc -shared -fPIC -I%.*sinclude -o %s %s",
                 (int)(header - __FILE__), __FILE__, object, source);
        assert_int_equal(system(command), 0);
    }
    return dlopen(object, RTLD_NOW | RTLD_LOCAL);
}

/* UM-12: registered when the object is loaded, gone when it is closed, again when it comes back. */
static void declared_in_a_plugin(void **unused)
{
    (void)unused;
    char directory[] = "/tmp/grey-roots-XXXXXX";
    assert_non_null(mkdtemp(directory));
    for (int i = 0; i < 5; i++) {
        void *plugin = open_plugin(directory);
        if (plugin == NULL)
            fail_msg("%s", dlerror());
        void **(*root)(void);
        *(void **)&root = dlsym(plugin, "plugin_root");
        assert_non_null(root);
        fill(root(), LEAFS);
        assert_kept(root(), LEAFS);
        if (i == 2)
            grey_collect_start(); /* closed while a cycle runs */
        assert_int_equal(dlclose(plugin), 0);
        assert_null(dlopen(strcat(strcpy((char[200]){0}, directory), "/plugin.so"), RTLD_NOW | RTLD_NOLOAD));
        assert_dropped(LEAFS);
    }
    unlink(strcat(strcpy((char[200]){0}, directory), "/plugin.so"));
    unlink(strcat(strcpy((char[200]){0}, directory), "/plugin.c"));
    rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refusals),    cmocka_unit_test(keeps_until_removed),
        cmocka_unit_test(odd_ends),    cmocka_unit_test(counted),
        cmocka_unit_test(overlapping), cmocka_unit_test(very_many),
        cmocka_unit_test(large),       cmocka_unit_test(removed_while_scanned),
        cmocka_unit_test(declared),    cmocka_unit_test(declared_in_a_plugin),
    };
    return cmocka_run_group_tests_name("roots", tests, get_memory, NULL);
}
