/* tests/unit/index_model.h -- the range index beside a sorted array that is too simple to be wrong.
 *
 * Shared by the unit test, which draws its operations, and by the fuzzer, which makes them of its input.
 * Each operation is done on both and the answers are compared; a difference ends the process, which both
 * take for a failure.
 */
#ifndef GREY_TESTS_INDEX_MODEL_H
#define GREY_TESTS_INDEX_MODEL_H

#include "foreign/index.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MODEL_MOST = 20000 };
struct model {
    size_t count;
    struct index_range range[MODEL_MOST];
};

#define MODEL_CHECK(x)                                                                                       \
    do {                                                                                                     \
        if (!(x)) {                                                                                          \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);                                          \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

/* The number of the first range whose end is above p. */
static inline size_t model_next(const struct model *model, uintptr_t p)
{
    size_t low = 0, high = model->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (model->range[middle].end > p)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static inline bool model_same(const struct index_range *a, const struct index_range *b)
{
    return a->start == b->start && a->end == b->end && a->value == b->value;
}

/* Returns what index_insert did, which is what it should have done, or ENOMEM. */
static inline int model_insert(struct model *model, struct index *index, uintptr_t start, uintptr_t end,
                               uint32_t value)
{
    size_t i = model_next(model, start);
    bool overlaps = i < model->count && model->range[i].start < end;
    if (model->count == MODEL_MOST)
        return ENOMEM;
    int result = index_insert(index, start, end, value);
    MODEL_CHECK((result == EEXIST) == overlaps);
    if (result != 0)
        return result;
    memmove(&model->range[i + 1], &model->range[i], (model->count - i) * sizeof(struct index_range));
    model->range[i] = (struct index_range){start, end, value};
    MODEL_CHECK(index->count == ++model->count);
    return 0;
}

static inline bool model_remove(struct model *model, struct index *index, uintptr_t start)
{
    size_t i = start != UINTPTR_MAX ? model_next(model, start) : model->count;
    bool there = i < model->count && model->range[i].start == start;
    MODEL_CHECK(index_remove(index, start) == there);
    if (there) {
        model->count--;
        memmove(&model->range[i], &model->range[i + 1], (model->count - i) * sizeof(struct index_range));
    }
    MODEL_CHECK(index->count == model->count);
    return there;
}

static inline void model_look(const struct model *model, const struct index *index, uintptr_t p)
{
    struct index_range range;
    size_t i = model_next(model, p);
    bool next = i < model->count, in = next && model->range[i].start <= p;
    MODEL_CHECK(index_find(index, p, &range) == in);
    MODEL_CHECK(!in || model_same(&range, &model->range[i]));
    MODEL_CHECK(index_next(index, p, &range) == next);
    MODEL_CHECK(!next || model_same(&range, &model->range[i]));
}

/* The bytes at and beside a range's ends. */
static inline void model_look_around(const struct model *model, const struct index *index, size_t i)
{
    const struct index_range *range = &model->range[i];
    model_look(model, index, range->start - 1);
    model_look(model, index, range->start);
    model_look(model, index, range->start + (range->end - range->start) / 2);
    model_look(model, index, range->end - 1);
    model_look(model, index, range->end);
}

static inline void model_look_everywhere(const struct model *model, const struct index *index)
{
    uintptr_t low, high;
    bool some = index_bounds(index, &low, &high);
    index_check(index);
    MODEL_CHECK(some == (model->count != 0));
    MODEL_CHECK(!some || (low == model->range[0].start && high == model->range[model->count - 1].end));
    for (size_t i = 0; i < model->count; i++)
        model_look_around(model, index, i);
    model_look(model, index, 0);
    model_look(model, index, UINTPTR_MAX);
}

#endif
