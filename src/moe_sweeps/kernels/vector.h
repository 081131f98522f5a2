// Vectors of WIDTH floats: loads, stores, sums, the exponential function, and transposed blocks.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#ifndef WIDTH
#define WIDTH 8
#endif

#if WIDTH == 16 && defined(__AVX512F__)
#include <immintrin.h>
#endif

typedef float vec __attribute__((vector_size(4 * WIDTH)));
typedef int32_t ints __attribute__((vector_size(4 * WIDTH)));
typedef float vec_unaligned __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int64_t i64;

namespace {

const int W = WIDTH;

inline vec load(const float* p) { return *(const vec_unaligned*)p; }
inline void store(float* p, vec x) { *(vec_unaligned*)p = x; }
inline vec all(float x) {
    vec same;
    for (int i = 0; i < W; i++) same[i] = x;
    return same;
}

// The last, incomplete vector of a row: what is missing reads as `fill`, and is not written.
#if WIDTH == 16 && defined(__AVX512F__)
// Through memory, as below, a load waits for the stores before it: half of attention's time with heads of 16.
inline __mmask16 first_of(i64 n) { return (__mmask16)((1u << n) - 1); }
inline vec load_part(const float* p, i64 n, float fill = 0) {
    return (vec)_mm512_mask_loadu_ps(_mm512_set1_ps(fill), first_of(n), p);
}
inline void store_part(float* p, vec x, i64 n) { _mm512_mask_storeu_ps(p, first_of(n), (__m512)x); }
#else
inline vec load_part(const float* p, i64 n, float fill = 0) {
    float buffer[W];
    for (int i = 0; i < W; i++) buffer[i] = fill;
    std::memcpy(buffer, p, n * sizeof(float));
    return load(buffer);
}
inline void store_part(float* p, vec x, i64 n) { std::memcpy(p, &x, n * sizeof(float)); }
#endif

// The upper half of the first 2 HALF values comes to lie on the lower one.
template <int HALF>
inline vec upper(vec x) {
#ifdef __clang__
    vec moved;
    for (int i = 0; i < W; i++) moved[i] = x[(i + HALF) % W];
    return moved;
#else
    ints from;
    for (int i = 0; i < W; i++) from[i] = (i + HALF) % W;
    return __builtin_shuffle(x, from);
#endif
}

// Halves are added until one value is left.
template <int HALF = W / 2>
inline float sum(vec x) {
    x += upper<HALF>(x);
    if constexpr (HALF > 1) return sum<HALF / 2>(x);
    else return x[0];
}
inline vec maximum(vec a, vec b) { return ((a > b) | (a != a)) ? a : b; }  // a NaN stays
template <int HALF = W / 2>
inline float maximum(vec x) {
    x = maximum(x, upper<HALF>(x));
    if constexpr (HALF > 1) return maximum<HALF / 2>(x);
    else return x[0];
}

// e^x to 2 units in the last place; 0 below -87.3, about 2^127 above 88; NaN stays NaN.
// x = n ln 2 + r with |r| <= ln 2 / 2, and a polynomial in r (Cephes, S. L. Moshier).
inline vec exp(vec x) {
    const vec lowest = all(-87.33654f), highest = all(88.02969f);
    const ints underflow = x < lowest;
    x = x < lowest ? lowest : x;
    x = x > highest ? highest : x;
    const vec shift = all(12582912.0f);  // adding 1.5 * 2^23 rounds to an integer
    vec n = (x * 1.44269504088896341f + shift) - shift;
    vec r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    vec y = all(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    const ints power = (__builtin_convertvector(n, ints) + 127) << 23;
    y = y * (vec)power;
    return underflow ? vec{} : y;
}

inline vec sigmoid(vec x) { return 1.0f / (1.0f + exp(-x)); }

// Whether one of n indices is not in 0..end-1.
inline bool any_outside(i64 n, const i64* indices, i64 end) {
    return std::any_of(indices, indices + n, [=](i64 i) { return i < 0 || i >= end; });
}

inline i64 round_up(i64 n, i64 to) { return (n + to - 1) / to * to; }

// Calls f(place, floats) for every vector of a row of n floats; the last one may be incomplete.
template <typename F>
inline void vectors(i64 n, F f) {
    i64 d = 0;
    for (; d + W <= n; d += W) f(d, (i64)W);
    if (d < n) f(d, n - d);
}
inline vec get(const float* p, i64 n, float fill = 0) { return n == W ? load(p) : load_part(p, n, fill); }
inline void put(float* p, vec x, i64 n) {
    if (n == W) store(p, x);
    else store_part(p, x, n);
}

// One round of a transposition: of the two rows, blocks of DISTANCE values beside each other are exchanged.
template <int DISTANCE>
inline void exchange(vec& a, vec& b) {
    ints first, second;
    for (int i = 0; i < W; i++) {
        first[i] = i & DISTANCE ? W + i - DISTANCE : i;
        second[i] = i & DISTANCE ? W + i : i + DISTANCE;
    }
#ifdef __clang__
    vec x, y;
    for (int i = 0; i < W; i++) {
        x[i] = first[i] < W ? a[first[i]] : b[first[i] - W];
        y[i] = second[i] < W ? a[second[i]] : b[second[i] - W];
    }
#else
    const vec x = __builtin_shuffle(a, b, first), y = __builtin_shuffle(a, b, second);
#endif
    a = x, b = y;
}
template <int DISTANCE>
inline void exchange_all(vec* rows) {
#pragma GCC unroll 16
    for (int i = 0; i < W; i++)
        if (!(i & DISTANCE)) exchange<DISTANCE>(rows[i], rows[i + DISTANCE]);
    if constexpr (DISTANCE > 1) exchange_all<DISTANCE / 2>(rows);
}

// out[j, i] = in[i, j] for i < n and j < m, where rows lie `from` and `to` apart. Whole blocks of W by W in registers.
inline void transpose(i64 n, i64 m, const float* in, i64 from, float* out, i64 to) {
    const i64 n_whole = n / W * W, m_whole = m / W * W;
    for (i64 i = 0; i < n_whole; i += W)
        for (i64 j = 0; j < m_whole; j += W) {
            vec rows[W];
#pragma GCC unroll 16
            for (int r = 0; r < W; r++) rows[r] = load(in + (i + r) * from + j);
            exchange_all<W / 2>(rows);
#pragma GCC unroll 16
            for (int r = 0; r < W; r++) store(out + (j + r) * to + i, rows[r]);
        }
    for (i64 j = 0; j < m; j++)
        for (i64 i = j < m_whole ? n_whole : 0; i < n; i++) out[j * to + i] = in[i * from + j];
}

}  // namespace
