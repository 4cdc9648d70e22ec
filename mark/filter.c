/* mark/filter.c -- the conservative filter: of a block of words, those that lie in the heap or within the
 * bounds of what lies outside it.
 *
 * In large untyped blocks and arrays of pointers most words are often no pointers, and which are can't be
 * predicted: a branch a word costs a misprediction for each run of pointers, 2.5 GB/s at 10 % of them.  So
 * candidates are packed into a buffer without a branch, and the mark loop takes them from there:
 *
 *     portable  each word is stored; the position moves on if it was a candidate
 *     AVX2      4 words a step, packed by a permutation from a table of 16
 *     AVX-512   8 words a step, packed by VPCOMPRESSQ, into a register and then stored: into memory the same
 *               instruction takes some 100 cycles on Zen 4
 *
 * A store of a whole vector at out[count] stays within out, since no more words were kept than were looked
 * at.  Each kernel exists once more without bounds outside the heap, which most programs don't have: 20 to
 * 30 % faster in the cache.
 *
 * Figures, GB/s of one processor (Zen 4), 16 KiB in the cache / 256 MiB, the same for any share of
 * pointers: portable 12 / 11, AVX2 35 / 20, AVX-512 45 / 23; a loop with a branch 4 to 9, and 2.5 at 10 %.
 * Tried: passing over 16 or 32 words without a candidate doubles the speed where there are none at all, and
 * halves AVX2's at 10 %; unrolling by hand does nothing.  bench/scan.c measures it, and what a collection
 * gains.
 *
 * The program stores to the words meanwhile.  Each is loaded once and whole, and what was compared is what
 * is kept: loads are volatile, so that the compiler makes exactly one, and every vector is aligned to its
 * size (what is before the first and behind the last goes word by word, so no byte outside the block is
 * read: it may end where memory does).  An aligned vector lies in one cache line.  Intel and AMD promise
 * for processors with AVX that aligned loads of 16 bytes are atomic (see sweep/words.c); of wider ones
 * nothing is written down, but they are made of aligned parts of at least that size, and no processor is
 * known to tear an aligned word.  Nothing is ordered by these loads: that is the handshakes' part
 * (docs/protocol.md).
 */
#include "mark/filter.h"

#define INLINE static inline __attribute__((always_inline))

INLINE bool is_candidate(const struct filter_bounds *bounds, bool outside, uintptr_t word)
{
    bool in_heap = word - bounds->base < bounds->extent;
    return outside ? in_heap | (word - bounds->outside.low < bounds->outside.length) : in_heap;
}

INLINE size_t one_by_one(const struct filter_bounds *bounds, bool outside, const volatile uintptr_t *at,
                         size_t n, uintptr_t *out)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        uintptr_t word = at[i];
        out[count] = word;
        count += is_candidate(bounds, outside, word);
    }
    return count;
}

static OS_UNSANITIZED size_t portable(const struct filter_bounds *bounds, const uintptr_t *at, size_t n,
                                      uintptr_t *out)
{
    if (bounds->outside.length == 0)
        return one_by_one(bounds, false, at, n, out);
    return one_by_one(bounds, true, at, n, out);
}

#if OS_SIMD_KERNELS
#include <immintrin.h>

/* Words from `at` to the next multiple of `alignment` bytes, at most n. */
INLINE size_t words_before(const uintptr_t *at, size_t alignment, size_t n)
{
    size_t words = (-(uintptr_t)at & (alignment - 1)) / sizeof(uintptr_t);
    return words < n ? words : n;
}

/* ---- AVX2 ------------------------------------------------------------------------------------------- */

typedef long long vector4 __attribute__((vector_size(32), may_alias));

/* Which halves of words come to the front, by the set of words that are kept. */
static const uint8_t packing[16][8] = {
    {0, 1, 2, 3, 4, 5, 6, 7}, {0, 1, 2, 3, 4, 5, 6, 7}, {2, 3, 0, 1, 4, 5, 6, 7}, {0, 1, 2, 3, 4, 5, 6, 7},
    {4, 5, 0, 1, 2, 3, 6, 7}, {0, 1, 4, 5, 2, 3, 6, 7}, {2, 3, 4, 5, 0, 1, 6, 7}, {0, 1, 2, 3, 4, 5, 6, 7},
    {6, 7, 0, 1, 2, 3, 4, 5}, {0, 1, 6, 7, 2, 3, 4, 5}, {2, 3, 6, 7, 0, 1, 4, 5}, {0, 1, 2, 3, 6, 7, 4, 5},
    {4, 5, 6, 7, 0, 1, 2, 3}, {0, 1, 4, 5, 6, 7, 2, 3}, {2, 3, 4, 5, 6, 7, 0, 1}, {0, 1, 2, 3, 4, 5, 6, 7},
};

/* There is only a signed comparison: both sides are moved by half the range, the same up and down. */
struct bounds4 {
    __m256i base, extent, low, length;
};
OS_SIMD_FOR_AVX2 INLINE __m256i moved4(uintptr_t word)
{
    uintptr_t moved = word ^ (uintptr_t)1 << 63;
    return _mm256_set1_epi64x((long long)moved);
}

OS_SIMD_FOR_AVX2 INLINE __m256i candidates4(const struct bounds4 *bounds, bool outside, __m256i words)
{
    __m256i in_heap = _mm256_cmpgt_epi64(bounds->extent, _mm256_sub_epi64(words, bounds->base));
    if (!outside)
        return in_heap;
    return _mm256_or_si256(in_heap, _mm256_cmpgt_epi64(bounds->length, _mm256_sub_epi64(words, bounds->low)));
}

OS_SIMD_FOR_AVX2 INLINE size_t by_fours(const struct filter_bounds *bounds, bool outside, const uintptr_t *at,
                                        size_t n, uintptr_t *out)
{
    const struct bounds4 bounds4 = {
        moved4(bounds->base),
        moved4(bounds->extent),
        moved4(bounds->outside.low),
        moved4(bounds->outside.length),
    };
    size_t before = words_before(at, sizeof(vector4), n);
    size_t count = one_by_one(bounds, outside, at, before, out);
    at += before;
    n -= before;
    for (; n >= 4; n -= 4, at += 4) {
        __m256i words = (__m256i) * (const volatile vector4 *)at;
        __m256i keep = candidates4(&bounds4, outside, words);
        unsigned set = (unsigned)_mm256_movemask_pd(_mm256_castsi256_pd(keep));
        __m256i order = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)packing[set]));
        _mm256_storeu_si256((__m256i *)(out + count), _mm256_permutevar8x32_epi32(words, order));
        count += (size_t)__builtin_popcount(set);
    }
    return count + one_by_one(bounds, outside, at, n, out + count);
}

OS_SIMD_FOR_AVX2 static size_t avx2(const struct filter_bounds *bounds, const uintptr_t *at, size_t n,
                                    uintptr_t *out)
{
    if (bounds->outside.length == 0)
        return by_fours(bounds, false, at, n, out);
    return by_fours(bounds, true, at, n, out);
}

/* ---- AVX-512 ---------------------------------------------------------------------------------------- */

typedef long long vector8 __attribute__((vector_size(64), may_alias));

struct bounds8 {
    __m512i base, extent, low, length;
};

OS_SIMD_FOR_AVX512 INLINE unsigned candidates8(const struct bounds8 *bounds, bool outside, __m512i words)
{
    unsigned set = _mm512_cmplt_epu64_mask(_mm512_sub_epi64(words, bounds->base), bounds->extent);
    if (outside)
        set |= _mm512_cmplt_epu64_mask(_mm512_sub_epi64(words, bounds->low), bounds->length);
    return set;
}

OS_SIMD_FOR_AVX512 INLINE size_t by_eights(const struct filter_bounds *bounds, bool outside,
                                           const uintptr_t *at, size_t n, uintptr_t *out)
{
    const struct bounds8 bounds8 = {
        _mm512_set1_epi64((long long)bounds->base),
        _mm512_set1_epi64((long long)bounds->extent),
        _mm512_set1_epi64((long long)bounds->outside.low),
        _mm512_set1_epi64((long long)bounds->outside.length),
    };
    size_t before = words_before(at, sizeof(vector8), n);
    size_t count = one_by_one(bounds, outside, at, before, out);
    at += before;
    n -= before;
    for (; n >= 8; n -= 8, at += 8) {
        __m512i words = (__m512i) * (const volatile vector8 *)at;
        unsigned set = candidates8(&bounds8, outside, words);
        _mm512_storeu_si512(out + count, _mm512_maskz_compress_epi64((__mmask8)set, words));
        count += (size_t)__builtin_popcount(set);
    }
    return count + one_by_one(bounds, outside, at, n, out + count);
}

OS_SIMD_FOR_AVX512 static size_t avx512(const struct filter_bounds *bounds, const uintptr_t *at, size_t n,
                                        uintptr_t *out)
{
    if (bounds->outside.length == 0)
        return by_eights(bounds, false, at, n, out);
    return by_eights(bounds, true, at, n, out);
}
#endif

/* ---- the choice ------------------------------------------------------------------------------------- */

filter_function *filter_words = portable;

filter_function *filter_kernel(enum os_simd simd)
{
#if OS_SIMD_KERNELS
    if (simd == OS_SIMD_AVX512)
        return avx512;
    if (simd == OS_SIMD_AVX2)
        return avx2;
#endif
    (void)simd;
    return portable;
}

void filter_init(void) { filter_words = filter_kernel(os_simd()); }
