#pragma once

#include "vector.h"

// --- SwiGLU: y = silu(gate) up ------------------------------------------------------------------------------------

EXPORT void swiglu(int threads, i64 P, i64 F, const float* h_PH, float* y_PF) {
    PARALLEL
    for (i64 p = 0; p < P; p++) {
        const float *gate = h_PH + p * 2 * F, *up = gate + F;
        float* y = y_PF + p * F;
        vectors(F, [&](i64 f, i64 n) {
            const vec g = get(gate + f, n);
            put(y + f, g * sigmoid(g) * get(up + f, n), n);
        });
    }
}

// Also writes y again where `y_PF` is given.
EXPORT void swiglu_backward(int threads, i64 P, i64 F, const float* h_PH, const float* dy_PF, float* dh_PH,
                            float* y_PF) {
    PARALLEL
    for (i64 p = 0; p < P; p++) {
        const float *gate = h_PH + p * 2 * F, *up = gate + F, *dy = dy_PF + p * F;
        float *dgate = dh_PH + p * 2 * F, *dup = dgate + F, *y = y_PF ? y_PF + p * F : nullptr;
        vectors(F, [&](i64 f, i64 n) {
            const vec g = get(gate + f, n), u = get(up + f, n), grad = get(dy + f, n), s = sigmoid(g), gs = g * s;
            put(dup + f, grad * gs, n);
            put(dgate + f, grad * u * (s + gs * (1.0f - s)), n);
            if (y) put(y + f, gs * u, n);
        });
    }
}

