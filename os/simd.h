/* os/simd.h -- which vector instructions kernels may use.
 *
 * A kernel is a loop over plain words that exists in several versions: a portable one, which is always
 * compiled and is what the others are tested against, and faster ones for some processors, each a function
 * with a target attribute of its own.  The library is compiled for the oldest x86-64; which version runs is
 * settled once, at start, by the room that has the kernel (mark/filter.c, sweep/words.c).
 */
#ifndef GREY_OS_SIMD_H
#define GREY_OS_SIMD_H

#include "os/os.h"

/* Each has all that those before it have.  GREY_DEBUG=simd counts the same way. */
enum os_simd { OS_SIMD_PORTABLE, OS_SIMD_AVX2, OS_SIMD_AVX512 };

/* Whether a build has vector kernels at all: sanitizers could neither be kept out of intrinsics (TR-16) nor
 * would they understand them. */
#if defined(__x86_64__) && !OS_TSAN && !OS_ASAN
#define OS_SIMD_KERNELS 1
#else
#define OS_SIMD_KERNELS 0
#endif
#define OS_SIMD_FOR_AVX2 __attribute__((target("avx2,popcnt")))
#define OS_SIMD_FOR_AVX512 __attribute__((target("avx512f,avx2,popcnt")))

enum os_simd os_simd_supported(void); /* by this processor, this kernel and this build */
enum os_simd os_simd(void);           /* the same, or what GREY_DEBUG=simd allows if that is less */

#endif
