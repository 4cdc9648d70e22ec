/* reply.h -- writes RESP2 replies into an output buffer. */
#ifndef CACHED_REPLY_H
#define CACHED_REPLY_H

#include "buffer.h"
#include "bytes.h"

void reply_status(struct buffer *out, const char *status);
void reply_error(struct buffer *out, const char *error); /* with its code: "ERR ..." */
void reply_integer(struct buffer *out, int64_t value);
void reply_bulk(struct buffer *out, struct slice value);
void reply_bytes(struct buffer *out, const struct bytes *value); /* NULL: nil */
void reply_nil(struct buffer *out);
void reply_nil_array(struct buffer *out);
void reply_array(struct buffer *out, size_t n); /* n replies follow */

#endif
