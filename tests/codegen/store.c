/* store.c -- the inline parts as a program would use them; check.py reads the machine code.
 *
 * Names say what is expected: store_* must store, then test the phase, with the value in a register in
 * between (docs/protocol.md, 2.2); alloc_* must have a way through without a call (AL-5).
 */
#include "grey.h"

struct node {
    struct node *left, *right;
};
GREY_TYPE(node_type, struct node, left, right);
extern struct node *codegen_make(void);

void store_argument(struct node *node, struct node *value);
void store_loaded(struct node *node);
void store_result(struct node *node);
void store_global(struct node *value);
struct node *store_array(struct node **slots, size_t i, struct node *value);
void *alloc_untyped(void);
void *alloc_leaf(void);
void *alloc_typed(void);

GREY_ROOT(struct node *, codegen_root);

void store_argument(struct node *node, struct node *value) { grey_store(&node->left, value); }

void store_loaded(struct node *node) { grey_store(&node->left, node->right); }

void store_result(struct node *node) { grey_store(&node->right, codegen_make()); }

void store_global(struct node *value) { grey_store(&codegen_root, value); }

struct node *store_array(struct node **slots, size_t i, struct node *value)
{
    grey_store(&slots[i], value);
    return slots[i + 1];
}

void *alloc_untyped(void) { return grey_alloc(48); }

void *alloc_leaf(void) { return grey_alloc_leaf(48); }

void *alloc_typed(void) { return grey_new(&node_type); }
