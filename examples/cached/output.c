/* output.c -- copying or pinning; see output.h. */
#include "output.h"

#include "settings.h"

#include <stdatomic.h>
#include <stdlib.h>

static atomic_uint_fast64_t all_spliced; /* relaxed: a figure */

static void unpin(struct output *output)
{
    if (output->n_splices != 0)
        grey_unpin(grey_held(output->pinner));
    output->n_splices = 0;
    output->spliced = 0;
}

void output_close(struct output *output)
{
    unpin(output);
    grey_drop(output->pinner);
    free(output->splices);
    buffer_free(&output->text);
}

void output_append(struct output *output, const void *bytes, size_t n)
{
    buffer_append(&output->text, bytes, n);
}

/* What an output needs to splice its first value. */
static bool prepare(struct output *output)
{
    if (output->splices == NULL)
        output->splices = malloc(OUTPUT_SPLICES * sizeof *output->splices);
    if (output->pinner == 0) {
        struct grey_pinner *pinner = grey_pinner_new();
        output->pinner = pinner != NULL ? grey_hold(pinner) : 0;
    }
    return output->splices != NULL && output->pinner != 0;
}

/* Remembers the value; false: it has to be copied. */
static bool splice(struct output *output, const struct bytes *value)
{
    size_t least = settings_zero_copy();

    if (least == 0 || value->size < least || output->n_splices == OUTPUT_SPLICES || !prepare(output) ||
        grey_pin(grey_held(output->pinner), value) != 0)
        return false;
    output->splices[output->n_splices++] = (struct splice){value, output->text.size};
    output->spliced += value->size;
    atomic_fetch_add_explicit(&all_spliced, value->size, memory_order_relaxed);
    return true;
}

void output_value(struct output *output, const struct bytes *value)
{
    if (!splice(output, value))
        output_append(output, value->at, value->size);
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
        const struct splice *splice = &output->splices[i];
        n = add_piece(vector, n, output->text.at + text, splice->at - text, &skip);
        n = add_piece(vector, n, splice->value->at, splice->value->size, &skip);
        text = splice->at;
    }
    return add_piece(vector, n, output->text.at + text, output->text.size - text, &skip);
}

void output_reset(struct output *output)
{
    unpin(output);
    buffer_reset(&output->text);
}

uint64_t output_all_spliced(void) { return atomic_load_explicit(&all_spliced, memory_order_relaxed); }
