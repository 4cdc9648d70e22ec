/* sweep/words.c -- the kernel of sweeping: a page's eight mark words become its allocation words and are
 * cleared, and their bits are counted.
 *
 * The span's flag is held, and marking is over: nobody else writes to the words.  Others read: who looks for
 * an object reads allocation words (acquire), and sees a word as it was before or after.  So allocation
 * words are stored whole, with release order, and not after the marks are cleared.
 *
 * The vector kernel stores a mark and its allocation word at once, 16 bytes, aligned, by VMOVDQA: on
 * processors with AVX that is atomic, as Intel (SDM volume 3, "Guaranteed Atomic Operations") and AMD (APM
 * volume 2, 7.3.2) promise; and every store of x86 to ordinary memory is a release store, as far as the
 * processor goes.  As far as the compiler goes the stores are volatile, which keeps their order among
 * themselves, behind a release fence, which costs no instruction.  Loads and comparisons are 32 bytes
 * wide: nobody stores meanwhile.  AVX-512 gains nothing as long as the stores are of 16 bytes, and of
 * wider ones nobody promises anything.
 *
 * Figures, ns a page (Zen 4), portable / AVX2: empty, in the cache, 7.4 / 1.2; 64-byte cells, half of them
 * dead, 12.4 / 3.7; 1 KiB cells, out of the cache, where the branches are mispredicted, 35 / 5.6.
 * bench/scan.c measures it.
 */
#include "sweep/words.h"

static uint32_t portable(struct page_bits *page, uint32_t pages)
{
    uint32_t live = 0;
    for (; pages != 0; pages--, page++) {
        for (struct bits *bits = page->word; bits < page->word + 8; bits++) {
            uint64_t mark = atomic_load_explicit(&bits->mark, memory_order_relaxed);
            uint64_t alloc = atomic_load_explicit(&bits->alloc, memory_order_relaxed);
            if (UNLIKELY(mark & ~alloc))
                return SWEEP_WRONG;
            if (mark != alloc) /* release: pairs with heap_cell_allocated */
                atomic_store_explicit(&bits->alloc, mark, memory_order_release);
            if (mark == 0)
                continue;
            atomic_store_explicit(&bits->mark, 0, memory_order_relaxed);
            live += (uint32_t)os_popcount(mark);
        }
    }
    return live;
}

#if OS_SIMD_KERNELS
#include <immintrin.h>

typedef long long pair __attribute__((vector_size(16), may_alias));

OS_SIMD_FOR_AVX2 static inline void store_halves(volatile pair *bits, __m256i both)
{
    __m128i low = _mm256_castsi256_si128(both), high = _mm256_extracti128_si256(both, 1);
    /* In a register first: clang would store by VEXTRACTI128 itself, of which nothing is promised. */
    __asm__("" : "+x"(high));
    bits[0] = (pair)low;
    bits[1] = (pair)high;
}

OS_SIMD_FOR_AVX2 static uint32_t avx2(struct page_bits *page, uint32_t pages)
{
    const __m256i marks = _mm256_set_epi64x(0, -1, 0, -1);
    uint32_t live = 0;
    atomic_thread_fence(memory_order_release); /* pairs with heap_cell_allocated */
    for (; pages != 0; pages--, page++) {
        for (int w = 0; w < 8; w += 2) {
            struct bits *bits = &page->word[w];
            __m256i both = _mm256_load_si256((const __m256i *)bits);
            if (_mm256_testz_si256(both, both))
                continue;
            /* Each half is moved up by a word: 0, and the mark in the place of the allocation. */
            __m256i alloc = _mm256_srli_si256(both, 8), mark = _mm256_and_si256(both, marks);
            if (UNLIKELY(!_mm256_testc_si256(alloc, mark)))
                return SWEEP_WRONG;
            for (int i = 0; i < 2; i++)
                live +=
                    (uint32_t)__builtin_popcountll(atomic_load_explicit(&bits[i].mark, memory_order_relaxed));
            store_halves((volatile pair *)bits, _mm256_slli_si256(both, 8));
        }
    }
    return live;
}
#endif

/* ---- the choice ------------------------------------------------------------------------------------- */

sweep_function *sweep_words = portable;

sweep_function *sweep_kernel(enum os_simd simd)
{
#if OS_SIMD_KERNELS
    _Static_assert(offsetof(struct bits, mark) == 0 && offsetof(struct bits, alloc) == 8 &&
                       sizeof(struct page_bits) == 128,
                   "the kernel's halves");
    if (simd >= OS_SIMD_AVX2)
        return avx2;
#endif
    (void)simd;
    return portable;
}

void sweep_words_init(void) { sweep_words = sweep_kernel(os_simd()); }
