/* output.h -- what a connection has yet to send: text, and large values that are sent from where they are.
 *
 * Short things are copied into a buffer.  A value of at least settings_zero_copy() bytes is not: the output
 * remembers the value and the place in the text where it belongs, and the socket gets both as one vector.
 * That is safe because values never change, and they stay where they are, in the heap or in a mapped file,
 * as long as the output points to them.
 *
 * An output is malloc memory, where the collector doesn't look.  The one pointer in it is therefore a root of
 * its own, from output_open to output_close.
 */
#ifndef CACHED_OUTPUT_H
#define CACHED_OUTPUT_H

#include "buffer.h"
#include "bytes.h"

#include <uv.h>

/* How many values go into one vector; beyond them, values are copied. */
enum { OUTPUT_SPLICES = 128, OUTPUT_VECTOR = 2 * OUTPUT_SPLICES + 1 };

struct splices; /* in the Grey heap */

struct output {
    struct buffer text;
    struct splices *splices; /* a root; NULL until the first is needed */
    unsigned n_splices;
    size_t spliced; /* bytes */
};

/* Of a zeroed output; it stays at its address until it is closed.  0 or ENOMEM. */
int output_open(struct output *output);
void output_close(struct output *output);

void output_append(struct output *output, const void *bytes, size_t n);
/* The value's bytes, copied or not. */
void output_value(struct output *output, const struct bytes *value);

static inline size_t output_size(const struct output *output) { return output->text.size + output->spliced; }

/* All but the first skip bytes, as at most OUTPUT_VECTOR pieces; returns their number.  They are valid until
 * the output changes. */
unsigned output_vector(const struct output *output, size_t skip, uv_buf_t *vector);

/* Empties it, and lets go of the values. */
void output_reset(struct output *output);

/* Bytes of values that were not copied, since the start. */
uint64_t output_all_spliced(void);

#endif
