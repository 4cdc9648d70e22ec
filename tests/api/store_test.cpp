/* tests/api/store_test.cpp -- grey.h from C++17, and grey.hpp.
 *
 * Requirements: BA-8, BA-11, BA-12 from C++, MK-22, and the promise of include/grey.hpp that a field behaves
 * like a pointer and keeps what it holds.
 */
#include "grey.hpp"

extern "C" {
#include "support_child.h"
#include "support_heap.h"
}

#include <cstdint>
#include <thread>
#include <type_traits>

namespace
{

struct node {
    node *left, *right;
    const node *constant;
    void *any;
    std::uint64_t key;
};
GREY_TYPE(node_type, node, left, right, constant, any);

struct derived : node {
};

struct smart {
    grey::field<smart> next, other;
    grey::field<smart> more[3];
    std::uint64_t key;
};
GREY_TYPE(smart_type, smart, next, other, GREY_ARRAY(more, 3));
GREY_TYPE_LEAF(key_type, std::uint64_t);
GREY_ROOT(grey::field<smart>, smart_root);
GREY_ROOT(node *, plain_root);

void macros(void **)
{
    node *n = static_cast<node *>(grey_new(&node_type)), *a = static_cast<node *>(grey_new(&node_type));
    derived *d = static_cast<derived *>(grey_new(&node_type));
    assert_non_null(n);
    grey_store(&n->left, a);
    assert_ptr_equal(n->left, a);
    grey_store(&n->left, nullptr);
    assert_null(n->left);
    grey_store(&n->left, d); /* to its base, as C++ converts */
    assert_ptr_equal(n->left, d);
    grey_store(&n->constant, a);
    grey_store(&n->any, a);
    assert_ptr_equal(grey_exchange(&n->left, a), d);
    node *expected = nullptr;
    assert_false(grey_compare_exchange(&n->left, &expected, d));
    assert_ptr_equal(expected, a);
    assert_true(grey_compare_exchange(&n->left, &expected, d));
    assert_ptr_equal(n->left, d);
    grey_store(&plain_root, n);
    grey_move(&n->left, &n->right, sizeof(node *));
    assert_null(n->left);
    grey_clear(&n->left, 2 * sizeof(node *));
    grey_touch(n);
    grey_pass(n);
    grey_keep_alive(n);
    grey_stats stats = GREY_STATS_INIT;
    assert_int_equal(grey_stats_read(&stats), 0);
    grey_options options = GREY_OPTIONS_INIT;
    assert_int_equal(grey_init(&options), EBUSY);
    assert_string_equal(grey_version(), GREY_VERSION);
}

void field_is_like_a_pointer(void **)
{
    smart *s = grey::make<smart>(smart_type), *a = grey::make<smart>(smart_type);
    assert_non_null(s);
    assert_true(s->next == nullptr);
    assert_true(!s->next);
    s->next = a;
    assert_true(s->next == a && s->next != s && s->next);
    smart *loaded = s->next;
    assert_ptr_equal(loaded, a);
    s->next->key = 17;
    assert_int_equal(a->key, 17);
    assert_int_equal((*s->next).key, 17);
    s->other = s->next; /* field to field */
    assert_true(s->other == a);
    s->next = nullptr;
    assert_true(s->next == nullptr && s->other == a);
    assert_ptr_equal(s->other.exchange(s), a);
    assert_true(s->other == s);
    smart *expected = a;
    assert_false(s->other.compare_exchange(expected, a));
    assert_ptr_equal(expected, s);
    assert_true(s->other.compare_exchange(expected, a));
    assert_true(s->other == a);
    s->more[2] = a;
    *a = *s; /* field by field, through the barrier */
    assert_true(a->more[2] == a && a->other == a);
    s->next = (s->other = nullptr);
    assert_true(s->next == nullptr);
    smart_root = s;
    assert_true(smart_root == s);
    smart_root = nullptr;
    assert_null(grey::make_array<smart>(smart_type, SIZE_MAX));
    assert_int_equal(errno, EOVERFLOW);
    std::uint64_t *keys = grey::make_array<std::uint64_t>(key_type, 100);
    assert_int_equal(keys[99], 0);
}

const int list_length = 20000;

__attribute__((noinline)) void build_list()
{
    for (int i = 0; i < list_length; i++) {
        smart *s = grey::make<smart>(smart_type);
        assert_non_null(s);
        s->key = static_cast<std::uint64_t>(i);
        s->next = smart_root;
        smart_root = s;
    }
}

/* What hangs on fields lives, through cycles that another thread keeps going. */
void fields_keep_objects(void **)
{
    bool stop = false;
    std::thread collecting([&stop] {
        while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
            grey_collect();
    });
    for (int round = 0; round < 5; round++) {
        smart_root = nullptr;
        build_list();
        heap_reuse_free_memory();
        int i = list_length;
        for (smart *s = smart_root; s != nullptr; s = s->next)
            assert_int_equal(s->key, --i);
        assert_int_equal(i, 0);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
    grey_blocking_call(
        [](void *thread) {
            static_cast<std::thread *>(thread)->join();
            return 0;
        },
        &collecting);
    heap_collect_twice();
    struct grey_stats before = heap_figures();
    smart_root = nullptr;
    heap_assert_freed(&before, list_length);
}

} // namespace

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(macros),
        cmocka_unit_test(field_is_like_a_pointer),
        cmocka_unit_test(fields_keep_objects),
    };
    return cmocka_run_group_tests_name("store, C++", tests, nullptr, nullptr);
}
