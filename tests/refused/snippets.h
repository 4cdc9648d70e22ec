/* tests/refused/snippets.h -- one right use and many wrong ones of each macro of grey.h, chosen by CASE.
 *
 * check.sh compiles this as C11 and as C++17: CASE 0 must compile, each other must not.  A snippet has one
 * fault, and beside it the right form, so that a refusal means the fault was seen.  Cases above 100 are C++.
 */
#include "grey.h"

struct other {
    int number;
};
struct node {
    struct node *left, *right;
    const struct node *constant;
    struct other *other;
    void *any;
    uintptr_t word;
    char small;
    struct node *children[4];
    int numbers[4];
};
GREY_TYPE(node_type, struct node, left, right, GREY_ARRAY(children, 4));
GREY_TYPE_LEAF(other_type, struct other);
GREY_ROOT(struct node *, root);
extern struct node *object, *value;
extern const struct node *constant_value;
extern struct other *other_value;
extern long number;

#if CASE == 30
GREY_TYPE(bad_type, struct node, left, small); /* one byte wide */
#elif CASE == 31
GREY_TYPE(bad_type, struct node, missing);
#elif CASE == 32
GREY_TYPE(bad_type, struct node, GREY_ARRAY(numbers, 4)); /* elements of 4 bytes */
#elif CASE == 33
GREY_TYPE(bad_type, struct node);              /* no field: that is GREY_TYPE_LEAF */
#elif CASE == 34
GREY_TYPE(bad_type, struct node, children); /* an array without GREY_ARRAY */
#endif

void snippet(void);
void snippet(void)
{
    struct node *expected = 0;
    (void)node_type, (void)other_type, (void)expected;
#if CASE == 0
    grey_store(&object->left, value);
    grey_store(&object->left, 0);
    grey_store(&object->left, NULL);
    grey_store(&object->constant, value);
    grey_store(&object->constant, constant_value);
    grey_store(&object->any, value);
    grey_store(&object->word, (uintptr_t)number);
    grey_store(&root, value);
    (void)grey_exchange(&object->left, value);
    (void)grey_compare_exchange(&object->left, &expected, value);
#ifndef __cplusplus
    grey_store(&object->left, grey_alloc(16)); /* from void *: C's rule */
    grey_store(&object->left, grey_exchange(&value->left, NULL));
#endif
#elif CASE == 1
    grey_store(&object->left, other_value);
#elif CASE == 2
    grey_store(&object->left, number);
#elif CASE == 3
    grey_store(&object->left, constant_value); /* would lose const */
#elif CASE == 4
    grey_store(object->left, value);        /* not an address */
#elif CASE == 5
    grey_store(&object->left, *value);
#elif CASE == 6
    grey_store(&object->other, value);
#elif CASE == 7
    grey_store(object->any, value); /* void: no slot */
#elif CASE == 8
    grey_store(&object->left, &value->left);
#elif CASE == 9
    grey_store(&object->left, 1.0);
#elif CASE == 10
    (void)grey_exchange(&object->left, other_value);
#elif CASE == 11
    (void)grey_exchange(&object->left, number);
#elif CASE == 12
    (void)grey_exchange(&object->left, constant_value);
#elif CASE == 20
    (void)grey_compare_exchange(&object->left, &expected, other_value);
#elif CASE == 21
    (void)grey_compare_exchange(&object->left, &expected, number);
#elif CASE == 22
    (void)grey_compare_exchange(&object->left, expected, value); /* a value, not its address */
#elif CASE == 23
    (void)grey_compare_exchange(&object->left, &other_value, value);
#elif CASE == 40
    (void)grey_new(node_type); /* a type, not its address */
#elif CASE == 41
    node_type.size = 1; /* const */
#elif CASE == 101
    grey_store(&object->left, grey_alloc(16)); /* void * converts to nothing in C++ */
#endif
}
