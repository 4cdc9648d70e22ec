/* list.c -- the linked list: every link is a grey_store, loads are plain C. */
#include "list.h"

#include <grey.h>

GREY_TYPE(node_type, struct list_node, before, after, value);
GREY_TYPE(list_type, struct list, first, last);

struct list *list_new(void) { return grey_new(&list_type); }

bool list_push(struct list *list, enum list_end end, struct bytes *value)
{
    struct list_node *node = grey_new(&node_type);

    if (node == NULL)
        return false;
    grey_store(&node->value, value);
    if (list->first == NULL) {
        grey_store(&list->first, node);
        grey_store(&list->last, node);
    } else if (end == LIST_FIRST) {
        grey_store(&node->after, list->first);
        grey_store(&list->first->before, node);
        grey_store(&list->first, node);
    } else {
        grey_store(&node->before, list->last);
        grey_store(&list->last->after, node);
        grey_store(&list->last, node);
    }
    list->length++;
    return true;
}

struct bytes *list_pop(struct list *list, enum list_end end)
{
    struct list_node *node = end == LIST_FIRST ? list->first : list->last;

    if (node == NULL)
        return NULL;
    /* The node goes out of the list whole: a node that kept its links would keep its former
     * neighbours alive for anyone who still held it. */
    if (list->first == list->last) {
        grey_store(&list->first, NULL);
        grey_store(&list->last, NULL);
    } else if (end == LIST_FIRST) {
        grey_store(&list->first, node->after);
        grey_store(&list->first->before, NULL);
        grey_store(&node->after, NULL);
    } else {
        grey_store(&list->last, node->before);
        grey_store(&list->last->after, NULL);
        grey_store(&node->before, NULL);
    }
    list->length--;
    return node->value;
}

struct list_node *list_at(const struct list *list, size_t index)
{
    struct list_node *node;

    if (index >= list->length)
        return NULL;
    if (index < list->length / 2) {
        for (node = list->first; index > 0; index--)
            node = node->after;
    } else {
        for (node = list->last, index = list->length - 1 - index; index > 0; index--)
            node = node->before;
    }
    return node;
}
