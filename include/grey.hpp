/* grey.hpp -- a C++17 field that cannot forget the store barrier.
 *
 *     struct node {
 *         grey::field<node> left, right;
 *         long key;
 *     };
 *     GREY_TYPE(node_type, node, left, right);
 *
 *     node *n = grey::make<node>(node_type);
 *     n->left = other;            // grey_store
 *     node *l = n->left;          // a plain load
 *     n->left->key = 1;
 *
 * A field is one word and may stand wherever a T * could: in heap objects, in GREY_ROOT variables, in
 * memory given to grey_root_add.  On a stack use a plain T *: it needs no barrier.
 *
 * Heap objects are not constructed and never destroyed: grey hands out zeroed memory, which is what an
 * empty field looks like.  Therefore a field's constructors and destructor are trivial but for those that
 * store, and classes with other constructors must be built by placement new.  Copying an object that has
 * fields copies field by field through the barrier; std::memcpy over one does not (use grey_move).
 */
#ifndef GREY_HPP
#define GREY_HPP

#include "grey.h"

#include <cstddef>
#include <type_traits>

namespace grey
{

template <typename T> class field
{
  public:
    field() = default; /* as the memory is: zeroed in a new heap object */
    field(T *value) { grey_store(&slot_, value); }
    field(std::nullptr_t) { store(nullptr); }
    field(const field &other) { store(other.load()); }

    field &operator=(T *value)
    {
        store(value);
        return *this;
    }
    field &operator=(std::nullptr_t)
    {
        store(nullptr);
        return *this;
    }
    field &operator=(const field &other)
    {
        store(other.load());
        return *this;
    }

    /* Release; loads are acquire, so what another thread stored through a field is seen whole. */
    void store(T *value) { grey_store(&slot_, value); }
    T *load() const { return __atomic_load_n(&slot_, __ATOMIC_ACQUIRE); }

    operator T *() const { return load(); }
    T *operator->() const { return load(); }

    /* Returns the old value; acq_rel. */
    T *exchange(T *value) { return grey_exchange(&slot_, value); }
    /* True: stored.  False: expected has become the field's value.  Strong; acq_rel, acquire. */
    bool compare_exchange(T *&expected, T *desired)
    {
        return grey_compare_exchange(&slot_, &expected, desired);
    }

  private:
    T *slot_;
};

static_assert(sizeof(field<int>) == sizeof(void *), "a field is one word");
static_assert(std::is_standard_layout<field<int>>::value, "offsetof must work");
static_assert(std::is_trivially_default_constructible<field<int>>::value, "zeroed memory is an empty field");
static_assert(std::is_trivially_destructible<field<int>>::value, "heap objects are never destroyed");

/* grey_new and grey_new_array with the type that they give; nullptr with errno as those. */
template <typename T> T *make(const grey_type &type) { return static_cast<T *>(grey_new(&type)); }
template <typename T> T *make_array(const grey_type &type, std::size_t count)
{
    return static_cast<T *>(grey_new_array(&type, count));
}

} // namespace grey

#endif
