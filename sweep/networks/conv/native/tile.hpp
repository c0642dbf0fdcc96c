// A tile: one number of each of LANES runs. Nothing ever crosses lanes, so a run's bits depend on neither its slot nor
// its neighbours, and they are the same however many lanes there are.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#if defined(__AVX2__)
#include <immintrin.h>
#endif
#ifndef LANES
#define LANES 16
#endif
#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

namespace native {

constexpr int L = LANES;
typedef float V __attribute__((vector_size(4 * LANES), may_alias));
typedef int32_t I __attribute__((vector_size(4 * LANES), may_alias));
typedef uint32_t U __attribute__((vector_size(4 * LANES), may_alias));
typedef uint8_t B __attribute__((vector_size(LANES), may_alias));

template <int N> struct Int { static constexpr int v = N; };
template <class F, int... N> INLINE void each(F&& f, std::integer_sequence<int, N...>) { (f(Int<N>{}), ...); }
// Calls f with 0 … N - 1, each a constant: the registers of a block are an array that is gone after compilation.
template <int N, class F> INLINE void unroll(F&& f) { each(f, std::make_integer_sequence<int, N>{}); }

static INLINE V splat(float x) { return x - V{}; }

// Compiled without contraction, so this is the only place where a product and a sum are rounded together.
static INLINE V fma(V a, V b, V c) {
#if defined(__AVX512F__) && LANES == 16
  return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__) && LANES == 8
  return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  for (int i = 0; i < L; i++) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return c;
#endif
}

static INLINE V root(V x) {
#if defined(__AVX512F__) && LANES == 16
  return (V)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX__) && LANES == 8
  return (V)_mm256_sqrt_ps((__m256)x);
#else
  for (int i = 0; i < L; i++) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

// GCC converts bytes one by one.
static INLINE V widened(const uint8_t* bytes) {
#if defined(__AVX512F__) && LANES == 16
  return (V)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)bytes)));
#elif defined(__AVX2__) && LANES == 8
  return (V)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)bytes)));
#else
  V x;
  for (int i = 0; i < L; i++) x[i] = float(bytes[i]);
  return x;
#endif
}

static INLINE V choose(I mask, V yes, V no) { return (V)(((I)yes & mask) | ((I)no & ~mask)); }
static INLINE V kept(I mask, V x) { return (V)((I)x & mask); }

enum Activation { IDENTITY, RELU, LEAKY };
constexpr float SLOPE = 0.01f;  // PyTorch's default

// Calls f with an activation as a constant: a branch a block, and none a number.
template <class F> INLINE void of_kind(int activation, F&& f) {
  if (activation == RELU) f(Int<RELU>{});
  else if (activation == LEAKY) f(Int<LEAKY>{});
  else f(Int<IDENTITY>{});
}

// A NaN stays one.
template <int KIND> static INLINE V activated(V x) {
  if (KIND == RELU) return kept(~(I)(x < V{}), x);
  return KIND == LEAKY ? choose((I)(x > V{}), x, x * SLOPE) : x;
}

// The gradient before an activation, of the one behind it and of what it put out.
template <int KIND> static INLINE V masked(V gradient, V y) {
  if (KIND == RELU) return kept(~(I)(y <= V{}), gradient);
  return KIND == LEAKY ? choose((I)(y > V{}), gradient, gradient * SLOPE) : gradient;
}

// exp(x) for x <= 0, after Cephes' expf, to a unit of the last place; a NaN stays one. Below -87.3 it is that of -87.3.
static INLINE V exponential(V x) {
  x = choose((I)(x < -87.3f), splat(-87.3f), x);
  I k = __builtin_convertvector(x * 1.44269504088896341f - 0.5f, I);
  V n = __builtin_convertvector(k, V);
  x = fma(n, splat(-0.693359375f), x);
  x = fma(n, splat(2.12194440e-4f), x);
  V y = splat(1.9875691500e-4f);
  y = fma(y, x, splat(1.3981999507e-3f));
  y = fma(y, x, splat(8.3334519073e-3f));
  y = fma(y, x, splat(4.1665795894e-2f));
  y = fma(y, x, splat(1.6666665459e-1f));
  y = fma(y, x, splat(5.0000001201e-1f));
  return (fma(y, x * x, x) + 1.0f) * (V)((k + 127) << 23);
}

// log(x) for x >= 1, after Cephes' logf, to a unit of the last place; infinity and NaN stay what they are.
static INLINE V logarithm(V x) {
  I bits = (I)x, e = (bits >> 23) - 126;
  V m = (V)((bits & 0x7FFFFF) | 0x3F000000);
  I small = (I)(m < 0.707106781186547524f);
  e += small;
  m = m + kept(small, m) - 1.0f;
  V z = m * m, y = splat(7.0376836292e-2f);
  y = fma(y, m, splat(-1.1514610310e-1f));
  y = fma(y, m, splat(1.1676998740e-1f));
  y = fma(y, m, splat(-1.2420140846e-1f));
  y = fma(y, m, splat(1.4249322787e-1f));
  y = fma(y, m, splat(-1.6668057665e-1f));
  y = fma(y, m, splat(2.0000714765e-1f));
  y = fma(y, m, splat(-2.4999993993e-1f));
  y = fma(y, m, splat(3.3333331174e-1f));
  y = y * m * z;
  V f = __builtin_convertvector(e, V);
  y = fma(f, splat(-2.12194440e-4f), y);
  y = fma(z, splat(-0.5f), y);
  return choose((I)(x < INFINITY), fma(f, splat(0.693359375f), m + y), x);
}

}  // namespace native
