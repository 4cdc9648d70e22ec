/* output.c -- copying or remembering; see output.h. */
#include "output.h"

#include "settings.h"

#include <grey.h>
#include <stdatomic.h>

struct splices {
    const struct bytes *values[OUTPUT_SPLICES];
    size_t at[OUTPUT_SPLICES]; /* where in the text */
};
GREY_TYPE(splices_type, struct splices, GREY_ARRAY(values, OUTPUT_SPLICES));

static atomic_uint_fast64_t all_spliced; /* relaxed: a figure */

int output_open(struct output *output) { return grey_root_add(&output->splices, sizeof output->splices); }

void output_close(struct output *output)
{
    grey_root_remove(&output->splices, sizeof output->splices);
    buffer_free(&output->text);
}

void output_append(struct output *output, const void *bytes, size_t n)
{
    buffer_append(&output->text, bytes, n);
}

static bool may_splice(struct output *output, size_t size)
{
    size_t least = settings_zero_copy();

    if (least == 0 || size < least || output->n_splices == OUTPUT_SPLICES)
        return false;
    if (output->splices == NULL)
        grey_store(&output->splices, (struct splices *)grey_new(&splices_type));
    return output->splices != NULL;
}

void output_value(struct output *output, const struct bytes *value)
{
    if (!may_splice(output, value->size)) {
        output_append(output, value->at, value->size);
        return;
    }
    grey_store(&output->splices->values[output->n_splices], value);
    output->splices->at[output->n_splices++] = output->text.size;
    output->spliced += value->size;
    atomic_fetch_add_explicit(&all_spliced, value->size, memory_order_relaxed);
}

/* Adds a piece, less what is still to be skipped of it. */
static unsigned add_piece(uv_buf_t *vector, unsigned n, const char *at, size_t size, size_t *skip)
{
    size_t skipped = *skip < size ? *skip : size;

    *skip -= skipped;
    if (skipped == size)
        return n;
    vector[n] = (uv_buf_t){.base = (char *)at + skipped, .len = size - skipped};
    return n + 1;
}

unsigned output_vector(const struct output *output, size_t skip, uv_buf_t *vector)
{
    size_t text = 0;
    unsigned n = 0;

    for (unsigned i = 0; i < output->n_splices; i++) {
        const struct bytes *value = output->splices->values[i];
        n = add_piece(vector, n, output->text.at + text, output->splices->at[i] - text, &skip);
        n = add_piece(vector, n, value->at, value->size, &skip);
        text = output->splices->at[i];
    }
    return add_piece(vector, n, output->text.at + text, output->text.size - text, &skip);
}

void output_reset(struct output *output)
{
    if (output->n_splices != 0)
        grey_clear(output->splices->values, output->n_splices * sizeof output->splices->values[0]);
    output->n_splices = 0;
    output->spliced = 0;
    buffer_reset(&output->text);
}

uint64_t output_all_spliced(void) { return atomic_load_explicit(&all_spliced, memory_order_relaxed); }
