/* gather.c -- an arena a command, if it has much to gather; see gather.h. */
#include "gather.h"

#include <grey.h>

enum { SHORT_REPLY = 1024 };

struct gathered {
    const struct bytes *value;
};
GREY_TYPE(gathered_type, struct gathered, value);

bool gather_begin(struct gather *gather, struct call *call, size_t n)
{
    gather->call = call;
    if (n > SHORT_REPLY) {
        gather->arena = grey_arena_new();
        gather->values =
            gather->arena != NULL ? grey_arena_new_array(gather->arena, &gathered_type, n) : NULL;
        if (gather->values == NULL) {
            command_out_of_memory(call);
            return false;
        }
    }
    reply_array(call->out, n);
    return true;
}

void gather_add(struct gather *gather, const struct bytes *value)
{
    if (gather->arena == NULL)
        reply_bytes(gather->call->out, value);
    else
        grey_store(&gather->values[gather->n++].value, value);
}

void gather_end(struct gather *gather)
{
    for (size_t i = 0; i < gather->n; i++)
        reply_bytes(gather->call->out, gather->values[i].value);
    /* The chunk is not full: when its arena is freed it goes to the next one and is still read.  What is left
     * in it would keep the values until it is full. */
    grey_clear(gather->values, gather->n * sizeof *gather->values);
    grey_arena_free(gather->arena);
}
