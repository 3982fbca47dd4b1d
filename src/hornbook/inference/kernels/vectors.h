/* Vectors of as many float32 as a register holds, and how weights of other types become such. */

#ifndef VECTORS_H
#define VECTORS_H

#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define UNROLL _Pragma("GCC unroll 8")
#define INLINE static inline __attribute__((always_inline))
#define LINE_BYTES 64       /* what memory delivers at once */
#define PREFETCH_BYTES 1024 /* how far ahead of what is read memory is asked */

#if defined(__AVX512F__) && defined(__AVX512BW__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));

INLINE floats load_float32(const float *from)
{
    floats values;
    memcpy(&values, from, sizeof values);
    return values;
}

INLINE floats load_bfloat16(const uint16_t *from) /* A bfloat16 is the upper half of a float32. */
{
#if LANES == 16
    return (floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)from)), 16);
#elif LANES == 8
    return (floats)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)from)), 16);
#else
    halves values;
    memcpy(&values, from, sizeof values);
    return (floats)(__builtin_convertvector(values, words) << 16);
#endif
}

INLINE float one_float32(const float *from) { return *from; }

INLINE float one_bfloat16(const uint16_t *from)
{
    uint32_t word = (uint32_t)*from << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

INLINE void keep_float32(float *to, float value) { *to = value; }

INLINE void keep_bfloat16(uint16_t *to, float value) /* To the nearest; of two as near, the even one. */
{
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    *to = (uint16_t)((word + 0x7fff + (word >> 16 & 1)) >> 16);
}

INLINE float total_floats(floats sum) /* Pair by pair: one after the other, each addition would wait for the last. */
{
#if LANES == 16
    return _mm512_reduce_add_ps((__m512)sum);
#else
    UNROLL for (int half = LANES / 2; half > 0; half /= 2)
        UNROLL for (int lane = 0; lane < half; lane++) sum[lane] += sum[lane + half];
    return sum[0];
#endif
}

#endif
