/* bytes.c -- copies in the heap or in an extent, comparisons, numbers, and the hash (SipHash-1-3). */
#include "bytes.h"

#include "extents.h"

#include <grey.h>
#include <strings.h>

static uint64_t seed[2]; /* written once, before the threads start */

struct bytes *bytes_new(struct slice from)
{
    if (from.size > PTRDIFF_MAX - sizeof(struct bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    struct bytes *bytes = extent_new(sizeof *bytes + from.size);
    if (bytes == NULL)
        bytes = grey_alloc_leaf(sizeof *bytes + from.size);
    if (bytes != NULL) {
        bytes->size = from.size;
        memcpy(bytes->at, from.at, from.size);
    }
    return bytes;
}

bool slice_is(struct slice s, const char *word)
{
    return strlen(word) == s.size && strncasecmp(s.at, word, s.size) == 0;
}

bool slice_integer(struct slice s, int64_t *value)
{
    bool negative = s.size > 0 && s.at[0] == '-';
    size_t i = negative ? 1 : 0;
    uint64_t limit = negative ? (uint64_t)INT64_MAX + 1 : INT64_MAX;
    uint64_t n = 0;

    if (i == s.size || s.size > 20 || (s.at[i] == '0' && s.size > 1))
        return false;
    for (; i < s.size; i++) {
        unsigned digit = (unsigned)(unsigned char)s.at[i] - '0';
        if (digit > 9 || n > (limit - digit) / 10)
            return false;
        n = n * 10 + digit;
    }
    *value = negative ? (int64_t)(0 - n) : (int64_t)n;
    return true;
}

bool slice_size(struct slice s, size_t *size)
{
    static const struct {
        const char *suffix;
        unsigned shift;
    } units[] = {{"kb", 10}, {"mb", 20}, {"gb", 30}, {"b", 0}, {"", 0}};

    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        size_t length = strlen(units[i].suffix);
        if (s.size <= length || strncasecmp(s.at + s.size - length, units[i].suffix, length) != 0)
            continue;
        int64_t n;
        if (!slice_integer((struct slice){s.at, s.size - length}, &n) || n < 0 ||
            (uint64_t)n > (uint64_t)INT64_MAX >> units[i].shift)
            return false;
        *size = (size_t)n << units[i].shift;
        return true;
    }
    return false;
}

void slice_hash_seed(uint64_t k0, uint64_t k1)
{
    seed[0] = k0;
    seed[1] = k1;
}

static inline uint64_t rotate(uint64_t x, int by) { return x << by | x >> (64 - by); }

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1], v[1] = rotate(v[1], 13) ^ v[0], v[0] = rotate(v[0], 32);
    v[2] += v[3], v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = rotate(v[1], 17) ^ v[2], v[2] = rotate(v[2], 32);
}

uint64_t slice_hash(struct slice s)
{
    uint64_t v[4] = {seed[0] ^ 0x736f6d6570736575, seed[1] ^ 0x646f72616e646f6d, seed[0] ^ 0x6c7967656e657261,
                     seed[1] ^ 0x7465646279746573};
    uint64_t word;
    size_t i = 0;

    for (; i + 8 <= s.size; i += 8) {
        memcpy(&word, s.at + i, 8);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    word = 0;
    if (i < s.size)
        memcpy(&word, s.at + i, s.size - i);
    word |= (uint64_t)s.size << 56;
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
    v[2] ^= 0xff;
    for (int round = 0; round < 3; round++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
