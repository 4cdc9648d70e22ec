/* table_file.c -- writes the file, walks a segment, checks a record. */
#include "table_file.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { MOST_BYTES = 4096 };

/* splitmix64: each step a bijection of the state, so different numbers have different keys. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

uint64_t next_random(uint64_t *state) { return mix(*state += 0x9e3779b97f4a7c15); }

uint64_t table_file_key(uint64_t seed, uint64_t number) { return mix(seed + number * 0x9e3779b97f4a7c15); }

static size_t record_room(size_t size) { return sizeof(struct record) + ((size + 7) & ~(size_t)7); }

/* Word by word; the bytes behind the last are zero in the file. */
static uint32_t checksum_of(const struct record *record)
{
    uint64_t sum = record->key ^ record->size, word;

    for (size_t i = 0; i < record->size; i += sizeof word) {
        memcpy(&word, record->bytes + i, sizeof word);
        sum = (sum ^ word) * 0x9ddfea08eb382d69;
        sum ^= sum >> 32;
    }
    return (uint32_t)sum;
}

bool record_is_intact(const struct record *record)
{
    return record->size <= MOST_BYTES && record->checksum == checksum_of(record);
}

const struct record *segment_next(const struct segment *segment, const struct record *record)
{
    const char *start = (const char *)segment;
    const char *next =
        record == NULL ? start + sizeof *segment : (const char *)record + record_room(record->size);

    return next < start + segment->end ? (const struct record *)next : NULL;
}

/* Adds records until one doesn't fit; returns how many. */
static uint32_t fill_segment(struct segment *segment, uint64_t seed, uint64_t first, uint64_t *random)
{
    uint32_t n = 0;

    segment->end = sizeof *segment;
    for (;; n++) {
        /* Many short ones and a few long ones. */
        uint64_t draw = next_random(random);
        size_t size = 1 + draw % (draw >> 60 == 0 ? MOST_BYTES : MOST_BYTES / 4);
        if (segment->end + record_room(size) > SEGMENT_SIZE)
            return n;
        struct record *record = (struct record *)((char *)segment + segment->end);
        record->key = table_file_key(seed, first + n);
        record->size = (uint32_t)size;
        for (size_t i = 0; i < size; i++)
            record->bytes[i] = (unsigned char)(i % 8 == 0 ? draw = next_random(random) : (draw >>= 8));
        record->checksum = checksum_of(record);
        segment->end += (uint32_t)record_room(size);
    }
}

int table_file_write(int file, size_t n_segments, uint64_t seed, size_t *n_records)
{
    static union {
        struct segment segment;
        char bytes[SEGMENT_SIZE];
    } buffer;
    uint64_t random = ~seed;

    *n_records = 0;
    for (size_t i = 0; i < n_segments; i++) {
        memset(&buffer, 0, sizeof buffer);
        buffer.segment.number = i;
        buffer.segment.n_records = fill_segment(&buffer.segment, seed, *n_records, &random);
        *n_records += buffer.segment.n_records;
        ssize_t written = pwrite(file, &buffer, sizeof buffer, (off_t)(i * sizeof buffer));
        if (written != (ssize_t)sizeof buffer)
            return written < 0 ? errno : ENOSPC;
    }
    return 0;
}
