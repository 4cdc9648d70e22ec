/* wrong.c -- barriers with one fault each.  check.py must refuse every one, for the reason in its name;
 * else it would not notice when the real one broke.
 */
#include "grey.h"

struct node {
    struct node *left, *right;
};
extern void codegen_log(void);

void wrong_order(struct node *node, struct node *value);
void wrong_value(struct node *node, struct node *value);
void wrong_lock(struct node *node, struct node *value);
void wrong_fence(struct node *node, struct node *value);
void wrong_call(struct node *node, struct node *value);
void wrong_untested(struct node *node, struct node *value);

static inline uint32_t phase(void) { return __atomic_load_n(&grey_phase_, __ATOMIC_RELAXED); }

/* The phase is tested, then the value is stored. */
void wrong_order(struct node *node, struct node *value)
{
    if (phase() != 0)
        grey_shade_(value);
    __asm__ volatile("" : : : "memory");
    __atomic_store_n(&node->left, value, __ATOMIC_RELEASE);
}

/* Between the store and the test the value is in no register: it is read back from the slot. */
void wrong_value(struct node *node, struct node *value)
{
    __atomic_store_n(&node->left, value, __ATOMIC_RELEASE);
    __asm__ volatile("xorl %k0, %k0" : "+r"(value) : : "memory");
    if (phase() != 0)
        grey_shade_(__atomic_load_n(&node->left, __ATOMIC_RELAXED));
}

/* An exchange locks the bus although it doesn't say so. */
void wrong_lock(struct node *node, struct node *value)
{
    __atomic_store_n(&node->left, value, __ATOMIC_SEQ_CST);
    grey_after_store_(value);
}

void wrong_fence(struct node *node, struct node *value)
{
    __atomic_store_n(&node->left, value, __ATOMIC_RELEASE);
    __asm__ volatile("mfence" : : : "memory");
    grey_after_store_(value);
}

void wrong_call(struct node *node, struct node *value)
{
    __atomic_store_n(&node->left, value, __ATOMIC_RELEASE);
    codegen_log();
    grey_after_store_(value);
}

/* Stores and never tests. */
void wrong_untested(struct node *node, struct node *value)
{
    __atomic_store_n(&node->left, value, __ATOMIC_RELEASE);
}
