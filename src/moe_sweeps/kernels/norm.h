#pragma once

#include "vector.h"

// --- RMSNorm: y = x / sqrt(mean(x^2) + eps) * w -------------------------------------------------------------------

EXPORT void rms_norm(int threads, i64 T, i64 D, float eps, const float* x_TD, const float* w_D, float* y_TD,
                     float* scale_T) {
    PARALLEL
    for (i64 t = 0; t < T; t++) {
        const float* x = x_TD + t * D;
        float* y = y_TD + t * D;
        vec squares = {};
        vectors(D, [&](i64 d, i64 n) {
            const vec v = get(x + d, n);
            squares += v * v;
        });
        const float scale = 1.0f / std::sqrt(sum(squares) / (float)D + eps);
        scale_T[t] = scale;
        vectors(D, [&](i64 d, i64 n) { put(y + d, get(x + d, n) * scale * get(w_D + d, n), n); });
    }
}

// dx = s (w dy) - x s^3 / D sum(w dy x), dw = sum over t of dy x s. Rows are summed in blocks of 128, then the blocks
// in order, so that dw does not depend on the number of threads.
EXPORT void rms_norm_backward(int threads, i64 T, i64 D, const float* x_TD, const float* w_D, const float* scale_T,
                              const float* dy_TD, float* dx_TD, float* dw_D) {
    const i64 rows = 128, blocks = (T + rows - 1) / rows;
    std::vector<float> sums_BD(blocks * D, 0.0f);
    PARALLEL
    for (i64 b = 0; b < blocks; b++) {
        float* sums = sums_BD.data() + b * D;
        for (i64 t = b * rows; t < std::min(T, (b + 1) * rows); t++) {
            const float *x = x_TD + t * D, *dy = dy_TD + t * D;
            float* dx = dx_TD + t * D;
            const float s = scale_T[t];
            vec products = {};
            vectors(D, [&](i64 d, i64 n) {
                const vec xd = get(x + d, n) * get(dy + d, n);
                products += xd * get(w_D + d, n);
                put(sums + d, get(sums + d, n) + xd * s, n);
            });
            const float along = sum(products) * s * s * s / (float)D;
            vectors(D, [&](i64 d, i64 n) {
                put(dx + d, get(dy + d, n) * get(w_D + d, n) * s - get(x + d, n) * along, n);
            });
        }
    }
    std::memset(dw_D, 0, D * sizeof(float));
    for (i64 b = 0; b < blocks; b++)
        for (i64 d = 0; d < D; d++) dw_D[d] += sums_BD[b * D + d];
}

