/* Sixteen numbers at a time, as AVX512 has them: the few operations that the encoder is written with. */
#ifndef VECTORS_H
#define VECTORS_H
#include <immintrin.h>
#include <math.h>
#include <stdint.h>

#define LANES 16

typedef __m512 floats;
typedef __m512i ints;
typedef __m128i bytes;

#define INLINE static inline __attribute__((always_inline))

INLINE floats load(const float *from) { return _mm512_loadu_ps(from); }
INLINE void store(float *to, floats value) { _mm512_storeu_ps(to, value); }
INLINE floats all(float value) { return _mm512_set1_ps(value); }
INLINE floats add(floats a, floats b) { return _mm512_add_ps(a, b); }
INLINE floats sub(floats a, floats b) { return _mm512_sub_ps(a, b); }
INLINE floats mul(floats a, floats b) { return _mm512_mul_ps(a, b); }
INLINE floats divide(floats a, floats b) { return _mm512_div_ps(a, b); }
INLINE floats mul_add(floats a, floats b, floats c) { return _mm512_fmadd_ps(a, b, c); }
INLINE floats least(floats a, floats b) { return _mm512_min_ps(a, b); }
INLINE floats greatest(floats a, floats b) { return _mm512_max_ps(a, b); }
INLINE floats size(floats a) { return _mm512_abs_ps(a); }
INLINE float sum(floats a) { return _mm512_reduce_add_ps(a); }
INLINE float highest(floats a) { return _mm512_reduce_max_ps(a); }

INLINE ints load_ints(const int32_t *from) { return _mm512_loadu_si512(from); }
INLINE void store_ints(int32_t *to, ints value) { _mm512_storeu_si512(to, value); }
INLINE floats as_floats(ints a) { return _mm512_cvtepi32_ps(a); }

/* The nearest whole numbers, ties to even, as 0 to 255; what is no number becomes 0. */
INLINE bytes as_unsigned(floats a) {
  return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(least(greatest(a, all(0)), all(255))));
}
/* The same as -128 to 127. */
INLINE bytes as_signed(floats a) {
  return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(least(greatest(a, all(-128)), all(127))));
}
INLINE void store_bytes(bytes *to, bytes value) { _mm_storeu_si128(to, value); }
INLINE floats from_signed(const int8_t *from) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const bytes *)from)));
}
INLINE ints widened(bytes a) { return _mm512_cvtepi8_epi32(a); }

/* The lanes of the numbers `begin`, `begin` + 1, ... that come before `end`. */
INLINE __mmask16 before(int end, int begin) {
  return end - begin >= LANES ? 0xffff : (__mmask16)((1u << (end - begin)) - 1);
}
INLINE floats only(__mmask16 lanes, floats a) { return _mm512_maskz_mov_ps(lanes, a); }

/* e to the power of x <= 0, within 2e-7 of it. */
INLINE floats exponential(floats x) {
  floats whole = _mm512_roundscale_ps(mul(x, all(1.44269504f)), 0);
  /* The logarithm of 2 in two parts, so that the rest is exact. */
  floats rest = mul_add(whole, all(-0.693145751953125f), x);
  rest = mul_add(whole, all(-1.42860677e-06f), rest);
  floats value = all(1.3888889e-3f);
  value = mul_add(value, rest, all(8.3333333e-3f));
  value = mul_add(value, rest, all(4.1666667e-2f));
  value = mul_add(value, rest, all(1.6666667e-1f));
  value = mul_add(value, rest, all(0.5f));
  value = mul_add(value, rest, all(1.0f));
  value = mul_add(value, rest, all(1.0f));
  return _mm512_scalef_ps(value, whole);
}

/* x times the share of the normal distribution below x, within 4e-5: a polynomial in x squared, fitted here.
 * A step of what follows is a thousand times as large. */
INLINE floats gelu(floats x) {
  floats most = all(4.3f), inside = greatest(least(x, most), all(-4.3f)), square = mul(inside, inside);
  floats share = all(4.19739631e-11f);
  share = mul_add(share, square, all(-4.24895873e-09f));
  share = mul_add(share, square, all(1.90222715e-07f));
  share = mul_add(share, square, all(-5.00614658e-06f));
  share = mul_add(share, square, all(8.71174322e-05f));
  share = mul_add(share, square, all(-0.00107138497f));
  share = mul_add(share, square, all(0.00969514377f));
  share = mul_add(share, square, all(-0.0661555871f));
  share = mul_add(share, square, all(0.398802075f));
  return mul(x, mul_add(share, inside, all(0.5f)));
}

/* Write 16 rows of 16 numbers as columns: the i-th numbers of all rows to `to + i * stride`. */
INLINE void store_transposed(ints rows[LANES], int32_t *to, int stride) {
  ints pairs[LANES];
  for (int i = 0; i < LANES; i += 2) {
    pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < LANES; i += 4) {
    rows[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
    rows[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
    rows[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
    rows[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
  }
  for (int i = 0; i < 4; i++) {
    ints even = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0x88);
    ints odd = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0xdd);
    ints more_even = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0x88);
    ints more_odd = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0xdd);
    store_ints(to + i * stride, _mm512_shuffle_i32x4(even, more_even, 0x88));
    store_ints(to + (i + 4) * stride, _mm512_shuffle_i32x4(odd, more_odd, 0x88));
    store_ints(to + (i + 8) * stride, _mm512_shuffle_i32x4(even, more_even, 0xdd));
    store_ints(to + (i + 12) * stride, _mm512_shuffle_i32x4(odd, more_odd, 0xdd));
  }
}
#endif
