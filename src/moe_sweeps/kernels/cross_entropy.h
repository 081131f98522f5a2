#pragma once

#include "vector.h"

// --- Cross-entropy: logits become share * (softmax - one-hot) in place ---------------------------------------------

// Returns 1, and writes nothing, where a target is no column; else 0.
EXPORT int cross_entropy(int threads, i64 R, i64 V, float share, float* logits_RV, const i64* targets_R, float* loss_R,
                         bool* correct_R) {
    if (any_outside(R, targets_R, V)) return 1;
    PARALLEL
    for (i64 r = 0; r < R; r++) {
        float* z = logits_RV + r * V;
        vec highest = all(-INFINITY);
        vectors(V, [&](i64 v, i64 n) { highest = maximum(highest, get(z + v, n, -INFINITY)); });
        const float top = maximum(highest), target = z[targets_R[r]];
        vec sums = {};
        vectors(V, [&](i64 v, i64 n) {
            const vec e = exp(get(z + v, n, -INFINITY) - top);
            sums += e;
            put(z + v, e, n);
        });
        const float total = sum(sums), scale = share / total;
        vectors(V, [&](i64 v, i64 n) { put(z + v, get(z + v, n) * scale, n); });
        z[targets_R[r]] -= share;
        loss_R[r] = std::log(total) + (top - target);
        correct_R[r] = target == top;
    }
    return 0;
}

