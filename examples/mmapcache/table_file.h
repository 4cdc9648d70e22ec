/* table_file.h -- the data file: segments of one size, each a header and records of different lengths.
 *
 * A record is used where it lies, in a mapping of its segment; there is no other form of it in memory.
 */
#ifndef MMAPCACHE_TABLE_FILE_H
#define MMAPCACHE_TABLE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SEGMENT_SIZE = 128 * 1024 };

struct segment {
    uint64_t number;
    uint32_t n_records;
    uint32_t end; /* of the last record, in bytes from here */
};

struct record {
    uint64_t key;
    uint32_t size;     /* of bytes */
    uint32_t checksum; /* of key, size and bytes */
    unsigned char bytes[];
};

/* Fills an empty file with pseudo-random records; 0 or an errno value. */
int table_file_write(int file, size_t n_segments, uint64_t seed, size_t *n_records);

/* The key of the record of this number, counted over the whole file. */
uint64_t table_file_key(uint64_t seed, uint64_t number);

/* Walks a segment: NULL is before the first record and behind the last. */
const struct record *segment_next(const struct segment *segment, const struct record *record);

bool record_is_intact(const struct record *record);

uint64_t next_random(uint64_t *state);

#endif
