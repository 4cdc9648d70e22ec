/* documents.h -- what outlives requests: JSON trees by name, in the heap.
 *
 * Trees never change.  A reader takes the pointer under the lock and reads the tree after it, however soon it
 * is replaced or removed: the pointer on its stack keeps it.
 */
#ifndef REQUESTS_DOCUMENTS_H
#define REQUESTS_DOCUMENTS_H

#include "json.h"

enum { MOST_DOCUMENTS = 10 * 1000 };

/* Clones the tree and keeps the copy under this name.  0, *created: there was none of the name; ENOSPC there
 * are MOST_DOCUMENTS; ENOMEM. */
int documents_put(const char *name, const struct json *json, bool *created);

/* NULL: there is none. */
const struct json *documents_get(const char *name);

/* False: there was none. */
bool documents_remove(const char *name);

size_t documents_count(void);

#endif
