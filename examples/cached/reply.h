/* reply.h -- writes RESP2 replies to an output. */
#ifndef CACHED_REPLY_H
#define CACHED_REPLY_H

#include "output.h"

void reply_status(struct output *out, const char *status);
void reply_error(struct output *out, const char *error); /* with its code: "ERR ..." */
void reply_integer(struct output *out, int64_t value);
void reply_bulk(struct output *out, struct slice value);
void reply_bytes(struct output *out, const struct bytes *value); /* NULL: nil; large: not copied */
void reply_nil(struct output *out);
void reply_nil_array(struct output *out);
void reply_array(struct output *out, size_t n); /* n replies follow */

#endif
