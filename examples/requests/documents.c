/* documents.c -- a table of chains under one lock, reachable from one root. */
#include "documents.h"

#include <string.h>

enum { CHAINS = 1024 };

struct document {
    const char *name;
    const struct json *json;
    struct document *next;
};
GREY_TYPE(document_type, struct document, name, json, next);

struct table {
    struct document *chains[CHAINS];
};
GREY_ROOT(struct table, table);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static size_t n_documents;

/* FNV-1a.  Names that collide make their own chain long, and there are at most MOST_DOCUMENTS. */
static size_t chain_of(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325;

    for (const unsigned char *c = (const unsigned char *)name; *c != 0; c++)
        hash = (hash ^ *c) * 0x100000001b3;
    return (hash ^ hash >> 32) % CHAINS;
}

/* The slot that points to it, or the one at the end of its chain. */
static struct document **find(const char *name)
{
    struct document **slot = &table.chains[chain_of(name)];

    while (*slot != NULL && strcmp((*slot)->name, name) != 0)
        slot = &(*slot)->next;
    return slot;
}

int documents_put(const char *name, const struct json *json, bool *created)
{
    /* All that may take long is done before the lock is taken. */
    const struct json *copy = json_clone(json);
    struct document *document = grey_new(&document_type);
    char *own_name = grey_strdup(name);

    if (copy == NULL || document == NULL || own_name == NULL)
        return ENOMEM;
    grey_store(&document->name, (const char *)own_name);
    grey_store(&document->json, copy);
    pthread_mutex_lock(&lock);
    struct document **slot = find(name);
    int error = 0;
    *created = *slot == NULL;
    if (!*created) {
        grey_store(&(*slot)->json, copy); /* the old tree is garbage, unless it is being read */
    } else if (n_documents == MOST_DOCUMENTS) {
        error = ENOSPC;
    } else {
        grey_store(slot, document);
        n_documents++;
    }
    pthread_mutex_unlock(&lock);
    return error;
}

const struct json *documents_get(const char *name)
{
    pthread_mutex_lock(&lock);
    struct document *document = *find(name);
    const struct json *json = document != NULL ? document->json : NULL;
    pthread_mutex_unlock(&lock);
    return json;
}

bool documents_remove(const char *name)
{
    pthread_mutex_lock(&lock);
    struct document **slot = find(name);
    bool found = *slot != NULL;
    if (found) {
        grey_store(slot, (*slot)->next);
        n_documents--;
    }
    pthread_mutex_unlock(&lock);
    return found;
}

size_t documents_count(void)
{
    pthread_mutex_lock(&lock);
    size_t n = n_documents;
    pthread_mutex_unlock(&lock);
    return n;
}
