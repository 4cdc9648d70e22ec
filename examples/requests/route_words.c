/* route_words.c -- /words: the words of a text and how often they are in it, most frequent first.
 *
 * The text is the parameter text, or the body of a POST.  Words, table and list live in the request's memory.
 */
#include "json.h"
#include "routes.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

struct word {
    const char *text;
    size_t size, count;
    struct word *next; /* of the same chain */
};
GREY_TYPE(word_type, struct word, text, next);

/* An array of pointers to words. */
struct word_slot {
    struct word *word;
};
GREY_TYPE(word_slot_type, struct word_slot, word);
GREY_TYPE_LEAF(sorted_type, struct word_slot);

struct words {
    struct word_slot *chains;
    size_t n_chains; /* a power of two */
    size_t n, total;
};

/* Bytes beyond ASCII are letters: UTF-8. */
static bool is_letter(unsigned char c) { return isalnum(c) || c == '_' || c >= 0x80; }

static uint64_t hash_of(const char *text, size_t size)
{
    uint64_t hash = 0xcbf29ce484222325;

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3;
    return hash ^ hash >> 32;
}

static void link_word(struct word_slot *chains, size_t n_chains, struct word *word)
{
    struct word_slot *chain = &chains[hash_of(word->text, word->size) & (n_chains - 1)];

    grey_store(&word->next, chain->word);
    grey_store(&chain->word, word);
}

/* The old table stays behind in the arena. */
static bool grow(struct memory *memory, struct words *words)
{
    size_t n_chains = words->n_chains != 0 ? words->n_chains * 2 : 64;
    struct word_slot *chains = memory_array(memory, &word_slot_type, n_chains);

    if (chains == NULL)
        return false;
    for (size_t i = 0; i < words->n_chains; i++) {
        for (struct word *word = words->chains[i].word, *next; word != NULL; word = next) {
            next = word->next;
            link_word(chains, n_chains, word);
        }
    }
    words->chains = chains;
    words->n_chains = n_chains;
    return true;
}

/* text is lower case already, and stays where it is. */
static bool count_word(struct memory *memory, struct words *words, const char *text, size_t size)
{
    words->total++;
    if (words->n >= words->n_chains && !grow(memory, words))
        return false;
    struct word *word = words->chains[hash_of(text, size) & (words->n_chains - 1)].word;
    while (word != NULL && (word->size != size || memcmp(word->text, text, size) != 0))
        word = word->next;
    if (word == NULL) {
        word = memory_new(memory, &word_type);
        if (word == NULL)
            return false;
        grey_store(&word->text, text);
        word->size = size;
        link_word(words->chains, words->n_chains, word);
        words->n++;
    }
    word->count++;
    return true;
}

static bool count_words(struct request *request, struct words *words, const char *text, size_t size)
{
    char *lower = memory_copy(request->memory, text, size);

    if (lower == NULL)
        return false;
    for (size_t i = 0; i < size;) {
        size_t from = i;
        while (i < size && is_letter((unsigned char)lower[i])) {
            lower[i] = (char)tolower((unsigned char)lower[i]);
            i++;
        }
        if (i > from && !count_word(request->memory, words, lower + from, i - from))
            return false;
        i += i == from;
    }
    return true;
}

static int compare(const void *left, const void *right)
{
    const struct word *a = ((const struct word_slot *)left)->word,
                      *b = ((const struct word_slot *)right)->word;

    if (a->count != b->count)
        return a->count > b->count ? -1 : 1;
    int order = memcmp(a->text, b->text, a->size < b->size ? a->size : b->size);
    return order != 0 ? order : (a->size > b->size) - (a->size < b->size);
}

/* In an order that only depends on the words.  qsort knows nothing of barriers, so the list is a leaf, where
 * the collector doesn't look: each word is held by its chain. */
static struct word_slot *sort_words(struct request *request, const struct words *words)
{
    struct word_slot *sorted = memory_array(request->memory, &sorted_type, words->n);
    size_t n = 0;

    if (sorted == NULL)
        return NULL;
    for (size_t i = 0; i < words->n_chains; i++)
        for (struct word *word = words->chains[i].word; word != NULL; word = word->next)
            sorted[n++].word = word;
    qsort(sorted, n, sizeof *sorted, compare);
    return sorted;
}

void route_words(struct request *request, const char *rest)
{
    const char *text = request_parameter(request, "text");
    struct words words = {.chains = NULL};

    (void)rest;
    size_t size = text != NULL ? strlen(text) : request->body_size;
    bool counted = count_words(request, &words, text != NULL ? text : request->body, size);
    struct word_slot *sorted = counted ? sort_words(request, &words) : NULL;
    if (sorted == NULL) {
        request->response->failed = true;
        return;
    }
    grey_store(&request->response->type, (const char *)"application/json");
    response_print(request, "{\"total\":%zu,\"different\":%zu,\"words\":{", words.total, words.n);
    for (size_t i = 0; i < words.n; i++) {
        if (i > 0)
            response_append(request, ",", 1);
        json_write_string(request, sorted[i].word->text, sorted[i].word->size);
        response_print(request, ":%zu", sorted[i].word->count);
    }
    grey_keep_alive(words.chains); /* the list alone, a leaf, keeps no word */
    response_append(request, "}}\n", 3);
}
