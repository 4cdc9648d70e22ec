/* cache.h -- the cache that cache.c and burst.c measure, and its clients.
 *
 * Keys and values of 16 to 512 bytes, a hash table in 1,024 parts with a lock and an LRU list each, every
 * entry, key and value an object of its own; 2 million entries are about 1.3 GB.  Clients, as many
 * threads as processors, look keys up (three of four operations; a miss puts the key) and put new values (one
 * of four); one and a quarter times as many keys as entries, half of the operations to a tenth of them.  When
 * a part is full its oldest entry goes.
 *
 * Every look-up compares the key, copies the value, and checks that the copy belongs to the key.
 */
#ifndef BENCH_CACHE_H
#define BENCH_CACHE_H

#include "peer.h"

#include <sched.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { PARTS = 1024, BATCH = 16, LEAST = 16, MOST = 512, WORDS = MOST / 8 };

struct entry {
    struct entry *chain, *newer, *older;
    uint64_t *key, *value; /* leaf objects; every word of both is the key's number */
    uint64_t hash;
    uint32_t key_words, value_words;
};
PEER_TYPE(entry_type, struct entry, chain, newer, older, key, value);

struct bucket {
    struct entry *first;
};
PEER_TYPE(bucket_type, struct bucket, first);

struct part {
    struct bucket *buckets;
    struct entry *newest, *oldest;
    size_t entries;
};
PEER_TYPE(part_type, struct part, buckets, newest, oldest);

PEER_ROOT(struct part *, parts);
static pthread_mutex_t locks[PARTS];
static size_t part_buckets, part_most; /* a power of two; entries of a part */
static uint64_t keys, hot_keys;

struct client {
    uint64_t seed, operations, hits, looks;
    uint64_t start, end, first; /* when; of the schedule, ns; first: the number of the first key to fill in */
    unsigned extra;             /* objects made and dropped for each one that is made to stay */
    double period;              /* ns between arrivals */
    uint64_t copy[WORDS], key[WORDS];
    struct bench_histogram latency;
};

/* ---- the cache ----------------------------------------------------------------------------------------- */

static uint64_t hash_of(uint64_t number) { return bench_random(&number); }

static uint32_t random_words(uint64_t random)
{
    return LEAST / 8 + (uint32_t)(((random >> 32) * (WORDS - LEAST / 8 + 1)) >> 32);
}

/* The key's words, in the client's own memory, as if they had come from a socket. */
static uint32_t key_make(struct client *client, uint64_t number)
{
    uint32_t words = random_words(hash_of(number) * 0x9e3779b97f4a7c15u);
    for (uint32_t i = 0; i < words; i++)
        client->key[i] = number;
    return words;
}

static uint64_t *words_make(const uint64_t *from, uint64_t words)
{
    uint64_t *made = peer_alloc_leaf(words * sizeof(uint64_t));
    memcpy(made, from, words * sizeof(uint64_t));
    return made;
}

/* A burst: so many objects more of a size, made, filled and dropped. */
static void make_extra(struct client *client, uint64_t words)
{
    for (unsigned i = 0; i < client->extra; i++)
        peer_free(words_make(client->copy, words));
}

static struct bucket *bucket_of(const struct part *part, uint64_t hash)
{
    return &part->buckets[(hash / PARTS) & (part_buckets - 1)];
}

static struct entry *find(const struct part *part, uint64_t hash, const uint64_t *key, uint32_t words)
{
    struct entry *entry = bucket_of(part, hash)->first;
    while (entry != NULL && (entry->hash != hash || entry->key_words != words ||
                             memcmp(entry->key, key, words * sizeof(uint64_t)) != 0))
        entry = entry->chain;
    return entry;
}

static void list_remove(struct part *part, struct entry *entry)
{
    if (entry->newer != NULL)
        peer_store(&entry->newer->older, entry->older);
    else
        peer_store(&part->newest, entry->older);
    if (entry->older != NULL)
        peer_store(&entry->older->newer, entry->newer);
    else
        peer_store(&part->oldest, entry->newer);
}

static void list_add(struct part *part, struct entry *entry)
{
    peer_store(&entry->newer, (struct entry *)NULL);
    peer_store(&entry->older, part->newest);
    if (part->newest != NULL)
        peer_store(&part->newest->newer, entry);
    else
        peer_store(&part->oldest, entry);
    peer_store(&part->newest, entry);
}

static void touch(struct part *part, struct entry *entry)
{
    if (part->newest == entry)
        return;
    list_remove(part, entry);
    list_add(part, entry);
}

static void entry_free(struct entry *entry)
{
    peer_free(entry->key);
    peer_free(entry->value);
    peer_free(entry);
}

/* Adds the entry; what has to go for it is returned, taken out. */
static struct entry *insert(struct part *part, struct entry *entry)
{
    struct bucket *bucket = bucket_of(part, entry->hash);
    peer_store(&entry->chain, bucket->first);
    peer_store(&bucket->first, entry);
    list_add(part, entry);
    if (++part->entries <= part_most)
        return NULL;
    struct entry *oldest = part->oldest;
    struct entry **link = &bucket_of(part, oldest->hash)->first;
    while (*link != oldest)
        link = &(*link)->chain;
    peer_store(link, oldest->chain);
    list_remove(part, oldest);
    part->entries--;
    return oldest;
}

/* ---- operations ---------------------------------------------------------------------------------------- */

/* Under the part's lock: gives the key a new value if it is there, and returns the old one. */
static uint64_t *replace(struct part *part, uint64_t hash, const struct client *client, uint32_t words,
                         uint64_t *value, uint32_t value_words)
{
    struct entry *entry = find(part, hash, client->key, words);
    if (entry == NULL)
        return NULL;
    uint64_t *old = entry->value;
    peer_store(&entry->value, value);
    entry->value_words = value_words;
    touch(part, entry);
    return old;
}

/* Objects are made outside the lock, where the allocator may take its time. */
static void put(struct client *client, uint64_t number)
{
    uint64_t hash = hash_of(number), value_words = random_words(bench_random(&client->seed));
    uint32_t index = (uint32_t)(hash % PARTS), words = key_make(client, number);
    uint64_t *value = peer_alloc_leaf(value_words * sizeof(uint64_t));
    for (uint64_t i = 0; i < value_words; i++)
        value[i] = number;
    make_extra(client, value_words);
    pthread_mutex_lock(&locks[index]);
    uint64_t *old = replace(&parts[index], hash, client, words, value, (uint32_t)value_words);
    pthread_mutex_unlock(&locks[index]);
    if (old != NULL) {
        peer_free(old);
        return;
    }
    struct entry *entry = peer_new(&entry_type), *gone = NULL;
    make_extra(client, sizeof(*entry) / sizeof(uint64_t));
    make_extra(client, words);
    entry->hash = hash;
    entry->key_words = words;
    entry->value_words = (uint32_t)value_words;
    peer_store(&entry->key, words_make(client->key, words));
    peer_store(&entry->value, value);
    pthread_mutex_lock(&locks[index]);
    old = replace(&parts[index], hash, client, words, value, (uint32_t)value_words);
    if (old == NULL)
        gone = insert(&parts[index], entry);
    pthread_mutex_unlock(&locks[index]);
    if (old != NULL) { /* somebody else has put this key meanwhile: of our objects only the value is in use */
        peer_free(old);
        peer_free(entry->key);
        peer_free(entry);
    } else if (gone != NULL)
        entry_free(gone);
}

static bool look(struct client *client, uint64_t number)
{
    uint64_t hash = hash_of(number);
    uint32_t index = (uint32_t)(hash % PARTS), words = key_make(client, number), value_words = 0;
    struct part *part = &parts[index];
    pthread_mutex_lock(&locks[index]);
    struct entry *entry = find(part, hash, client->key, words);
    if (entry != NULL) {
        value_words = entry->value_words;
        memcpy(client->copy, entry->value, value_words * sizeof(uint64_t));
        touch(part, entry);
    }
    pthread_mutex_unlock(&locks[index]);
    if (entry == NULL)
        return false;
    BENCH_CHECK(value_words >= LEAST / 8 && value_words <= WORDS);
    BENCH_CHECK(client->copy[0] == number && client->copy[value_words - 1] == number);
    return true;
}

static void operate(struct client *client)
{
    uint64_t random = bench_random(&client->seed);
    uint64_t among = (random & 4) != 0 ? hot_keys : keys;
    uint64_t number = bench_below(&client->seed, (uint32_t)among);
    client->operations++;
    if ((random & 3) == 0) {
        put(client, number);
        return;
    }
    client->looks++;
    if (look(client, number))
        client->hits++;
    else
        put(client, number);
}

/* ---- clients ------------------------------------------------------------------------------------------- */

static void *fill(void *arg)
{
    struct client *client = arg;
    for (uint64_t i = 0; i < client->operations; i++)
        put(client, client->first + i);
    return NULL;
}

static int sleep_until(void *arg)
{
    uint64_t due = *(uint64_t *)arg;
    struct timespec time = {(time_t)(due / 1000000000), (long)(due % 1000000000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) != 0)
        continue; /* a signal */
    return 0;
}

/* ---- a program of them --------------------------------------------------------------------------------- */

static struct client *clients;
static unsigned threads;
static uint64_t duration; /* of a section, ns */

static void cache_make(size_t entries)
{
    part_most = entries / PARTS;
    for (part_buckets = 1; part_buckets < part_most;)
        part_buckets *= 2;
    peer_store(&parts, (struct part *)peer_new_array(&part_type, PARTS));
    for (size_t i = 0; i < PARTS; i++) {
        pthread_mutex_init(&locks[i], NULL);
        peer_store(&parts[i].buckets, (struct bucket *)peer_new_array(&bucket_type, part_buckets));
    }
}

static void fill_all(uint64_t entries)
{
    for (unsigned i = 0; i < threads; i++) {
        clients[i].first = entries * i / threads;
        clients[i].operations = entries * (i + 1) / threads - clients[i].first;
    }
    peer_run(threads, fill, clients, sizeof clients[0]);
}

/* Options, clients, a full cache; how many entries and seconds a section if not said.  The name of its
 * size. */
static const char *cache_start(const struct bench_options *options, size_t usual, uint64_t seconds)
{
    static char name[64];
    threads = options->threads != 0 ? options->threads : (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    size_t entries = options->entries != 0 ? options->entries : options->quick ? 20000 : usual;
    BENCH_CHECK(threads <= PEER_THREADS && entries >= 2 * PARTS && entries < 1u << 31);
    duration = options->seconds != 0 ? options->seconds * 1000000000ull
               : options->quick      ? 100000000u
                                     : seconds * 1000000000u;
    keys = entries + entries / 4;
    hot_keys = keys / 10;
    prctl(PR_SET_TIMERSLACK, 1ul); /* wake up when due, not up to 50 us later */
    peer_start(options->workers);
    clients = peer_checked(calloc(threads, sizeof *clients));
    for (unsigned i = 0; i < threads; i++)
        clients[i].seed = options->seed + i;
    cache_make(entries);
    fill_all(entries);
    snprintf(name, sizeof name, "entries=%zu,threads=%u", entries, threads);
    return name;
}

static void *closed_loop(void *arg)
{
    struct client *client = arg;
    while (bench_now() < client->end)
        for (int i = 0; i < BATCH; i++)
            operate(client);
    return NULL;
}

/* How many operations a second it can do: one after the other. */
static double closed(const char *workload, const char *name)
{
    struct bench_section section;
    bench_begin(&section);
    for (unsigned i = 0; i < threads; i++) {
        clients[i].operations = 0;
        clients[i].end = bench_now() + duration;
    }
    peer_run(threads, closed_loop, clients, sizeof clients[0]);
    bench_end(&section);
    uint64_t operations = 0, hits = 0, looks = 0;
    for (unsigned i = 0; i < threads; i++) {
        operations += clients[i].operations;
        hits += clients[i].hits;
        looks += clients[i].looks;
    }
    BENCH_CHECK(2 * hits > looks); /* else it isn't the cache that is measured */
    double rate = (double)operations / ((double)section.wall_ns / 1e9);
    struct bench_result result = {workload, PEER_NAME, "capacity", "k/s", BENCH_HIGHER, rate / 1e3};
    bench_print(&result, &section, "%s,load=closed", name);
    return rate;
}

static void print_latency(const char *workload, const struct bench_histogram *latency,
                          const struct bench_section *section, const char *name)
{
    static const struct {
        const char *name;
        double fraction;
    } some[] = {{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999}, {"max", 1}};
    struct bench_result result = {workload, PEER_NAME, "", "us", BENCH_LOWER, 0};
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++) {
        result.metric = some[i].name;
        result.value = bench_percentile(latency, some[i].fraction) / 1e3;
        bench_print(&result, section, "%s", name);
    }
    bench_print_percentiles(workload, PEER_NAME, "latency", name, latency);
}

#endif
