#pragma once

#include "vector.h"

// --- Picks: sorted by expert, within an expert in token order -----------------------------------------------------

// Returns 1, and writes nothing, where an id is none of an expert; else 0.
EXPORT int sort_picks(int, i64 T, i64 K, i64 E, const i64* ids_TK, i64* order_P, i64* place_TK, int32_t* ends_E) {
    const i64 P = T * K;
    if (any_outside(P, ids_TK, E)) return 1;
    std::vector<i64> next_E(E + 1, 0);
    for (i64 p = 0; p < P; p++) next_E[ids_TK[p] + 1]++;
    for (i64 e = 0; e < E; e++) ends_E[e] = (int32_t)(next_E[e + 1] += next_E[e]);
    for (i64 p = 0; p < P; p++) {
        const i64 place = next_E[ids_TK[p]]++;
        order_P[place] = p;
        place_TK[p] = place;
    }
    return 0;
}

// x_PD[place of (t, k)] = x_TD[t]
EXPORT void dispatch(int threads, i64 T, i64 K, i64 D, const float* x_TD, const i64* place_TK, float* x_PD) {
    PARALLEL
    for (i64 t = 0; t < T; t++)
        for (i64 k = 0; k < K; k++) std::memcpy(x_PD + place_TK[t * K + k] * D, x_TD + t * D, D * sizeof(float));
}

// y_TD[t] = sum over k of w_TK[t, k] y_PD[place of (t, k)]; without weights they are 1
EXPORT void combine(int threads, i64 T, i64 K, i64 D, const float* y_PD, const float* w_TK, const i64* place_TK,
                    float* y_TD) {
    PARALLEL
    for (i64 t = 0; t < T; t++) {
        float* y = y_TD + t * D;
        for (i64 k = 0; k < K; k++) {
            const float *row = y_PD + place_TK[t * K + k] * D, w = w_TK ? w_TK[t * K + k] : 1.0f;
            vectors(D, [&](i64 d, i64 n) {
                const vec term = get(row + d, n) * w;
                put(y + d, k ? get(y + d, n) + term : term, n);
            });
        }
    }
}

// dy_PD[place] = w_TK dy_TD[t], dw_TK = dy_TD[t] . y_PD[place]
EXPORT void combine_backward(int threads, i64 T, i64 K, i64 D, const float* y_PD, const float* w_TK,
                             const i64* place_TK, const float* dy_TD, float* dy_PD, float* dw_TK) {
    PARALLEL
    for (i64 t = 0; t < T; t++) {
        const float* dy = dy_TD + t * D;
        for (i64 k = 0; k < K; k++) {
            const float *row = y_PD + place_TK[t * K + k] * D, w = w_TK[t * K + k];
            float* out = dy_PD + place_TK[t * K + k] * D;
            vec products = {};
            vectors(D, [&](i64 d, i64 n) {
                const vec grad = get(dy + d, n);
                products += grad * get(row + d, n);
                put(out + d, grad * w, n);
            });
            dw_TK[t * K + k] = sum(products);
        }
    }
}

