/* output.h -- what a connection has yet to send: text, and large values that are sent from where they are.
 *
 * Short things are copied into a buffer.  A value of at least settings_zero_copy() bytes is not: the output
 * remembers the value and the place in the text where it belongs, and the socket gets both as one vector.
 * That is safe because values never change, and because each is pinned from then until the write is done.
 *
 * An output is malloc memory, and so is what libuv keeps while it writes: the collector looks at neither. 
 * The pins hold the values, in the heap or in a mapped file alike.  They are the output's pinner's, a heap
 * object that is held by its handle, which is a number and may lie anywhere.
 */
#ifndef CACHED_OUTPUT_H
#define CACHED_OUTPUT_H

#include "buffer.h"
#include "bytes.h"

#include <grey.h>
#include <uv.h>

/* How many values go into one vector; beyond them, values are copied. */
enum { OUTPUT_SPLICES = 128, OUTPUT_VECTOR = 2 * OUTPUT_SPLICES + 1 };

struct splice {
    const struct bytes *value; /* pinned */
    size_t at;                 /* where in the text */
};

/* Zeroed, it is empty. */
struct output {
    struct buffer text;
    grey_handle pinner;     /* 0 until it is needed first */
    struct splice *splices; /* OUTPUT_SPLICES of them; NULL until then */
    unsigned n_splices;
    size_t spliced; /* bytes */
};

void output_close(struct output *output);

void output_append(struct output *output, const void *bytes, size_t n);
/* The value's bytes, copied or not. */
void output_value(struct output *output, const struct bytes *value);

static inline size_t output_size(const struct output *output) { return output->text.size + output->spliced; }

/* All but the first skip bytes, as at most OUTPUT_VECTOR pieces; returns their number.  They are valid until
 * the output changes. */
unsigned output_vector(const struct output *output, size_t skip, uv_buf_t *vector);

/* Empties it, and unpins the values. */
void output_reset(struct output *output);

/* Bytes of values that were not copied, since the start. */
uint64_t output_all_spliced(void);

#endif
