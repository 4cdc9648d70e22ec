/* os/simd.c -- what this processor can do.
 *
 * The compiler's run-time library asks CPUID, and XGETBV whether the operating system keeps the wide
 * registers; a program that is run by an emulator which hides AVX-512, Valgrind say, gets what there is.
 */
#include "os/simd.h"

#include "os/options.h"

enum os_simd os_simd_supported(void)
{
#if OS_SIMD_KERNELS
    __builtin_cpu_init(); /* this may be the constructor of another object, before the library's own */
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("popcnt"))
        return OS_SIMD_PORTABLE;
    return __builtin_cpu_supports("avx512f") ? OS_SIMD_AVX512 : OS_SIMD_AVX2;
#else
    return OS_SIMD_PORTABLE;
#endif
}

enum os_simd os_simd(void)
{
    enum os_simd supported = os_simd_supported(), allowed = (enum os_simd)os_debug.simd;
    return allowed < supported ? allowed : supported;
}
