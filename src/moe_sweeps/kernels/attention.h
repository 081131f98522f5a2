#pragma once

#include "vector.h"

// --- Rotary positions and causal attention of one head at a time ---------------------------------------------------

namespace {

const int ROWS = W == 16 ? 8 : 4;  // query positions that are worked on together; as many as the registers allow

// One head's tensors, rotated, padded with zeros to whole vectors: memory that one thread reuses for all its heads.
struct Head {
    i64 S, C, keys, width;  // keys = S and width = C, rounded up
    std::vector<float> memory;
    float *q_SC, *k_SC, *v_SC, *k_CS, *v_CS, *p_RS, *ds_RS, *dq_SC, *dk_SC, *dv_SC, *dy_SC;

    Head(i64 S, i64 C, bool backward)
        : S(S), C(C), keys(round_up(S, W)), width(round_up(C, W)),
          memory((backward ? 9 : 4) * keys * width + 2 * ROWS * keys) {
        float* next = memory.data();
        auto take = [&](i64 n) { return std::exchange(next, next + n); };
        for (float** t : {&q_SC, &k_SC, &v_SC, &k_CS}) *t = take(keys * width);
        for (float** t : {&p_RS, &ds_RS}) *t = take(ROWS * keys);
        if (backward)
            for (float** t : {&v_CS, &dq_SC, &dk_SC, &dv_SC, &dy_SC}) *t = take(keys * width);
    }
};

// Calls f(place, V) for n floats, two vectors at a time and at last one; V is a constant.
template <typename F>
inline void pairs(i64 n, F f) {
    i64 d = 0;
    for (; d + W < n; d += 2 * W) f(d, std::integral_constant<int, 2>{});
    if (d < n) f(d, std::integral_constant<int, 1>{});
}

// out[c] = scale (x_c cos - x_{c+C/2} sin), out[c + C/2] = scale (x_{c+C/2} cos + x_c sin); sign -1 rotates back.
inline void rotate(i64 C, const float* x, const float* cos, const float* sin, float sign, float scale, float* out) {
    const i64 half = C / 2;
    vectors(half, [&](i64 c, i64 n) {
        const vec a = get(x + c, n), b = get(x + half + c, n);
        const vec cosine = get(cos + c, n) * scale, sine = get(sin + c, n) * (scale * sign);
        put(out + c, a * cosine - b * sine, n);
        put(out + half + c, b * cosine + a * sine, n);
    });
}

void transpose(const Head& h, const float* x_SC, float* x_CS) {
    transpose(h.S, h.C, x_SC, h.width, x_CS, h.keys);
}

// Reads one head of qkv (S rows, 3D apart): queries scaled by 1/sqrt(C), queries and keys rotated.
void read_head(Head& h, const float* qkv, i64 D, const float* cos_SC, const float* sin_SC) {
    const float scale = 1.0f / std::sqrt((float)h.C);
    for (i64 s = 0; s < h.S; s++) {
        const float *row = qkv + s * 3 * D, *cos = cos_SC + s * h.C, *sin = sin_SC + s * h.C;
        rotate(h.C, row, cos, sin, 1, scale, h.q_SC + s * h.width);
        rotate(h.C, row + D, cos, sin, 1, 1, h.k_SC + s * h.width);
        std::memcpy(h.v_SC + s * h.width, row + 2 * D, h.C * sizeof(float));
    }
    transpose(h, h.k_SC, h.k_CS);
}

// out[r, j] = sum over c of a_SC[row + r, c] b_CS[c, j] for ROWS rows and the keys below `end`, rounded up.
inline void scores(const Head& h, const float* a_SC, i64 row, const float* b_CS, i64 end, float* out_RS) {
    pairs(end, [&](i64 j, auto V) {
        vec sums[ROWS][V] = {};
        for (i64 c = 0; c < h.C; c++)
            for (int v = 0; v < V; v++) {
                const vec b = load(b_CS + c * h.keys + j + v * W);
                for (int r = 0; r < ROWS; r++) sums[r][v] += a_SC[(row + r) * h.width + c] * b;
            }
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < V; v++) store(out_RS + r * h.keys + j + v * W, sums[r][v]);
    });
}

// out[r, c] = sum over j < end of a_RS[r, j] b_SC[j, c] for ROWS rows, `stride` apart.
inline void weigh(const Head& h, const float* a_RS, const float* b_SC, i64 end, float* out, i64 stride) {
    pairs(h.width, [&](i64 c, auto V) {
        vec sums[ROWS][V] = {};
        for (i64 j = 0; j < end; j++)
            for (int v = 0; v < V; v++) {
                const vec b = load(b_SC + j * h.width + c + v * W);
                for (int r = 0; r < ROWS; r++) sums[r][v] += a_RS[r * h.keys + j] * b;
            }
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < V; v++) store(out + r * stride + c + v * W, sums[r][v]);
    });
}

// out_SC[j, c] += sum over the ROWS rows of a_RS[r, j] b_SC[row + r, c], for j < end.
inline void spread(const Head& h, const float* a_RS, const float* b_SC, i64 row, i64 end, float* out_SC) {
    pairs(h.width, [&](i64 c, auto V) {
        vec b[ROWS][V];
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < V; v++) b[r][v] = load(b_SC + (row + r) * h.width + c + v * W);
        for (i64 j = 0; j < end; j++)
            for (int v = 0; v < V; v++) {
                float* out = out_SC + j * h.width + c + v * W;
                vec sums = load(out);
                for (int r = 0; r < ROWS; r++) sums += a_RS[r * h.keys + j] * b[r][v];
                store(out, sums);
            }
    });
}

// Scores of one row become e^(score - highest), 0 above the diagonal and up to `end`; returns 1/sum and sets lse.
inline float softmax_row(float* p, i64 visible, i64 end, float& lse) {
    const i64 whole = round_up(visible, W);
    std::fill(p + visible, p + whole, -INFINITY);
    vec highest = all(-INFINITY), sums = {};
    for (i64 j = 0; j < whole; j += W) highest = maximum(highest, load(p + j));
    const float top = maximum(highest);
    for (i64 j = 0; j < whole; j += W) {
        const vec e = exp(load(p + j) - top);
        sums += e;
        store(p + j, e);
    }
    std::fill(p + std::min(whole, end), p + end, 0.0f);
    const float total = sum(sums);
    lse = top + std::log(total);
    return 1.0f / total;
}

// Probabilities p and gradients ds = p (dy v - delta) of one row, from scores and dy v; 0 above the diagonal.
inline void probabilities(float* p, float* ds, i64 visible, i64 end, float lse, float delta) {
    const i64 whole = round_up(visible, W);
    for (i64 j = 0; j < whole; j += W) {
        const vec e = exp(load(p + j) - lse);
        store(p + j, e);
        store(ds + j, e * (load(ds + j) - delta));
    }
    std::fill(p + visible, p + std::max(whole, end), 0.0f);
    std::fill(ds + visible, ds + std::max(whole, end), 0.0f);
}

// Of the 8 vectors of AVX2 the sum is taken one by one, as its first version did: its bits stay.
inline float product(i64 n, const float* a, const float* b) {
    float total = 0;
    if constexpr (W > 8) {
        vec sums = {};
        vectors(n, [&](i64 i, i64 m) { sums += get(a + i, m) * get(b + i, m); });
        total = sum(sums);
    } else {
        for (i64 i = 0; i < n; i++) total += a[i] * b[i];
    }
    return total;
}

void head_forward(Head& h, float* y, i64 D, float* lse_S, float* out_RC) {
    for (i64 row = 0; row < h.S; row += ROWS) {
        const i64 rows = std::min((i64)ROWS, h.S - row), end = row + rows;
        scores(h, h.q_SC, row, h.k_CS, end, h.p_RS);
        float inverse[ROWS];
        for (i64 r = 0; r < rows; r++)
            inverse[r] = softmax_row(h.p_RS + r * h.keys, row + r + 1, end, lse_S[row + r]);
        weigh(h, h.p_RS, h.v_SC, end, out_RC, h.width);
        for (i64 r = 0; r < rows; r++) {
            const float* out = out_RC + r * h.width;
            vectors(h.C, [&](i64 c, i64 n) { put(y + (row + r) * D + c, get(out + c, n) * inverse[r], n); });
        }
    }
}

// With p the probabilities and delta_i = dy_i . y_i: dv = p^T dy, ds = p (dy v^T - delta), dq = ds k, dk = ds^T q.
void head_backward(Head& h, const float* y, const float* dy, i64 D, const float* lse_S) {
    for (i64 row = 0; row < h.S; row += ROWS) {
        const i64 rows = std::min((i64)ROWS, h.S - row), end = row + rows;
        scores(h, h.q_SC, row, h.k_CS, end, h.p_RS);
        scores(h, h.dy_SC, row, h.v_CS, end, h.ds_RS);
        for (i64 r = 0; r < ROWS; r++) {
            const i64 visible = r < rows ? row + r + 1 : 0, place = (row + r) * D;
            const float delta = visible ? product(h.C, dy + place, y + place) : 0;
            probabilities(h.p_RS + r * h.keys, h.ds_RS + r * h.keys, visible, end, visible ? lse_S[row + r] : 0, delta);
        }
        weigh(h, h.ds_RS, h.k_SC, end, h.dq_SC + row * h.width, h.width);
        spread(h, h.ds_RS, h.q_SC, row, end, h.dk_SC);
        spread(h, h.p_RS, h.dy_SC, row, end, h.dv_SC);
    }
}

}  // namespace

EXPORT void attention(int threads, i64 B, i64 S, i64 N, i64 C, const float* qkv_TQ, const float* cos_SC,
                      const float* sin_SC, float* y_TD, float* lse_BNS) {
    const i64 D = N * C;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Head h(S, C, false);
        std::vector<float> out_RC(ROWS * h.width);
#pragma omp for schedule(static)
        for (i64 head = 0; head < B * N; head++) {
            const i64 first = head / N * S, column = head % N * C;
            read_head(h, qkv_TQ + first * 3 * D + column, D, cos_SC, sin_SC);
            head_forward(h, y_TD + first * D + column, D, lse_BNS + head * S, out_RC.data());
        }
    }
}

EXPORT void attention_backward(int threads, i64 B, i64 S, i64 N, i64 C, const float* qkv_TQ, const float* cos_SC,
                               const float* sin_SC, const float* y_TD, const float* lse_BNS, const float* dy_TD,
                               float* dqkv_TQ) {
    const i64 D = N * C;
    const float scale = 1.0f / std::sqrt((float)C);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Head h(S, C, true);
#pragma omp for schedule(static)
        for (i64 head = 0; head < B * N; head++) {
            const i64 first = head / N * S, column = head % N * C;
            const float *y = y_TD + first * D + column, *dy = dy_TD + first * D + column;
            read_head(h, qkv_TQ + first * 3 * D + column, D, cos_SC, sin_SC);
            transpose(h, h.v_SC, h.v_CS);
            for (i64 s = 0; s < S; s++) std::memcpy(h.dy_SC + s * h.width, dy + s * D, C * sizeof(float));
            std::fill(h.dk_SC, h.dk_SC + h.keys * h.width, 0.0f);
            std::fill(h.dv_SC, h.dv_SC + h.keys * h.width, 0.0f);
            head_backward(h, y, dy, D, lse_BNS + head * S);
            for (i64 s = 0; s < S; s++) {
                const float *cos = cos_SC + s * C, *sin = sin_SC + s * C;
                float* out = dqkv_TQ + (first + s) * 3 * D + column;
                rotate(C, h.dq_SC + s * h.width, cos, sin, -1, scale, out);
                rotate(C, h.dk_SC + s * h.width, cos, sin, -1, 1, out + D);
                std::memcpy(out + 2 * D, h.dv_SC + s * h.width, C * sizeof(float));
            }
        }
    }
}
