// What a training step does between its matrix products, in float32 on CPU, each in one pass over memory.
//
// Plain C++ with GCC's vector extensions, which clang has, too: no intrinsics, no headers of torch, so that it compiles
// in a few seconds. Every result depends on the inputs alone, not on the number of threads.
//
// Axes: B sequences, S positions, T = B*S tokens, D width, N heads, C head size, E experts, K picks per token, P = T*K
// picks sorted by expert, F hidden size of one expert, H = 2F, V vocabulary, R tokens of a block, Q = 3D.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

typedef float v8 __attribute__((vector_size(32)));
typedef int32_t i8 __attribute__((vector_size(32)));
typedef float v8_unaligned __attribute__((vector_size(32), aligned(4), may_alias));
typedef int64_t i64;

namespace {

const int W = 8;  // floats in a vector

inline v8 load(const float* p) { return *(const v8_unaligned*)p; }
inline void store(float* p, v8 x) { *(v8_unaligned*)p = x; }
inline v8 all(float x) { return v8{x, x, x, x, x, x, x, x}; }

// The last, incomplete vector of a row: what is missing reads as `fill`, and is not written.
inline v8 load_part(const float* p, i64 n, float fill = 0) {
    float buffer[W] = {fill, fill, fill, fill, fill, fill, fill, fill};
    std::memcpy(buffer, p, n * sizeof(float));
    return load(buffer);
}
inline void store_part(float* p, v8 x, i64 n) { std::memcpy(p, &x, n * sizeof(float)); }

inline float sum(v8 x) { return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7])); }
inline v8 maximum(v8 a, v8 b) { return ((a > b) | (a != a)) ? a : b; }  // a NaN stays
inline float maximum(v8 x) {
    float found = x[0];
    for (int i = 1; i < W; i++) found = (x[i] > found || x[i] != x[i]) ? x[i] : found;
    return found;
}

// e^x to 2 units in the last place; 0 below -87.3, about 2^127 above 88; NaN stays NaN.
// x = n ln 2 + r with |r| <= ln 2 / 2, and a polynomial in r (Cephes, S. L. Moshier).
inline v8 exp(v8 x) {
    const v8 lowest = all(-87.33654f), highest = all(88.02969f);
    const i8 underflow = x < lowest;
    x = x < lowest ? lowest : x;
    x = x > highest ? highest : x;
    const v8 shift = all(12582912.0f);  // adding 1.5 * 2^23 rounds to an integer
    v8 n = (x * 1.44269504088896341f + shift) - shift;
    v8 r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    v8 y = all(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    const i8 power = (__builtin_convertvector(n, i8) + 127) << 23;
    y = y * (v8)power;
    return underflow ? v8{} : y;
}

inline v8 sigmoid(v8 x) { return 1.0f / (1.0f + exp(-x)); }

inline i64 round_up(i64 n, i64 to) { return (n + to - 1) / to * to; }

// Calls f(place, floats) for every vector of a row of n floats; the last one may be incomplete.
template <typename F>
inline void vectors(i64 n, F f) {
    i64 d = 0;
    for (; d + W <= n; d += W) f(d, (i64)W);
    if (d < n) f(d, n - d);
}
inline v8 get(const float* p, i64 n, float fill = 0) { return n == W ? load(p) : load_part(p, n, fill); }
inline void put(float* p, v8 x, i64 n) {
    if (n == W) store(p, x);
    else store_part(p, x, n);
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))
#define PARALLEL _Pragma("omp parallel for num_threads(threads) if (threads > 1) schedule(static)")

// --- RMSNorm: y = x / sqrt(mean(x^2) + eps) * w -------------------------------------------------------------------

EXPORT void rms_norm(int threads, i64 T, i64 D, float eps, const float* x_TD, const float* w_D, float* y_TD,
                     float* scale_T) {
    PARALLEL
    for (i64 t = 0; t < T; t++) {
        const float* x = x_TD + t * D;
        float* y = y_TD + t * D;
        v8 squares = {};
        vectors(D, [&](i64 d, i64 n) {
            const v8 v = get(x + d, n);
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
            v8 products = {};
            vectors(D, [&](i64 d, i64 n) {
                const v8 xd = get(x + d, n) * get(dy + d, n);
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

// --- SwiGLU: y = silu(gate) up ------------------------------------------------------------------------------------

EXPORT void swiglu(int threads, i64 P, i64 F, const float* h_PH, float* y_PF) {
    PARALLEL
    for (i64 p = 0; p < P; p++) {
        const float *gate = h_PH + p * 2 * F, *up = gate + F;
        float* y = y_PF + p * F;
        vectors(F, [&](i64 f, i64 n) {
            const v8 g = get(gate + f, n);
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
            const v8 g = get(gate + f, n), u = get(up + f, n), grad = get(dy + f, n), s = sigmoid(g), gs = g * s;
            put(dup + f, grad * gs, n);
            put(dgate + f, grad * u * (s + gs * (1.0f - s)), n);
            if (y) put(y + f, gs * u, n);
        });
    }
}

// --- Experts ------------------------------------------------------------------------------------------------------
//
// An expert works on CHUNK tokens at a time, in panels of 16: a panel holds 16 values, one for each token, for each row
// of an activation (row r of token t is at r * 16 + t). So a panel is the vectors of a matrix product whose other
// factor, a weight matrix, is read as it lies, whichever way it is to be transposed, and what passes between two
// products stays in the cache. Tokens that fill up the last panel are zeros.

namespace {

const i64 PANEL = 2 * W, CHUNK = 128;

// c[i, 0..8 V) = (add ? c : 0) + sum over k < K of a[i, k] b[k, 0..8 V), the sums in registers. `a` comes in blocks of
// `block` values of k, which lie `a_block` apart; each row of b is a panel's. A c of one vector that is a panel's row
// gets zeros for the other.
template <int ROWS, int V>
inline void tile(i64 K, i64 block, const float* a, i64 a_block, i64 a_row, i64 a_k, const float* b, float* c, i64 c_row,
                 i64 columns, bool add) {
    v8 sums[ROWS][V] = {};
    for (i64 left = K; left > 0; left -= block, a += a_block) {
        const float* next = a;
        for (i64 k = 0; k < std::min(block, left); k++, b += PANEL, next += a_k) {
            v8 row[V];
            for (int v = 0; v < V; v++) row[v] = load(b + v * W);
#pragma GCC unroll 12
            for (int i = 0; i < ROWS; i++) {
                const float x = next[i * a_row];
#pragma GCC unroll 2
                for (int v = 0; v < V; v++) sums[i][v] += x * row[v];
            }
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < ROWS; i++) {
        float* out = c + i * c_row;
        for (i64 v = 0; v < 2 && v * W < columns; v++) {
            const i64 n = std::min((i64)W, columns - v * W);
            const v8 found = v < V ? sums[i][v] : v8{};
            put(out + v * W, add ? get(out + v * W, n) + found : found, n);
        }
    }
}

// Weights that are wanted soon. A product asks for them little by little, so that they are read while it computes:
// with many experts they come from memory, which takes as long as the arithmetic on so few tokens.
struct Ahead {
    const float* weights;
    i64 floats;

    // Asks for the part that falls to tile `i` of `tiles`. Inlined by force: GCC drops calls that do no more.
    __attribute__((always_inline)) inline void ask(i64 i, i64 tiles) const {
        const i64 line = 16, share = round_up(floats, tiles * line) / tiles;
        for (i64 k = i * share; k < std::min(floats, (i + 1) * share); k += line) __builtin_prefetch(weights + k);
    }
};

// As many rows of a product as fit into the registers with V vectors of columns.
template <int V>
constexpr int TILE = 12 / V;

// The tile with so many rows.
template <int V, int ROWS = TILE<V>, typename... Arguments>
inline void tile_of(i64 rows, Arguments... arguments) {
    if constexpr (ROWS > 1)
        if (rows < ROWS) return tile_of<V, ROWS - 1>(rows, arguments...);
    tile<ROWS, V>(arguments...);
}

// Panels c (M rows) = A (M, K) times panels b (K rows) of n tokens, where A[i, k] is at a[i * a_row + k * a_k]. Of a
// last panel with at most 8 tokens only that half is computed.
inline void times_panels(i64 n, i64 M, i64 K, const float* a, i64 a_row, i64 a_k, const float* b, float* c,
                         float* packed_KT, Ahead ahead) {
    const i64 halves = (n + W - 1) / W, panels = halves / 2, T = TILE<2>;
    for (i64 i = 0; i < M && panels; i += T) {
        const i64 rows = std::min(T, M - i);
        const float* block = a + i * a_row;
        ahead.ask(i / T, (M + T - 1) / T);
        i64 row = a_row, step = a_k;
        if (a_k != 1 && panels > 3) {  // read with a stride once, not once for each panel
            for (i64 k = 0; k < K; k++)
                for (i64 r = 0; r < rows; r++) packed_KT[k * T + r] = block[r * a_row + k * a_k];
            block = packed_KT, row = 1, step = T;
        }
        for (i64 p = 0; p < panels; p++)
            tile_of<2>(rows, K, K, block, (i64)0, row, step, b + p * K * PANEL, c + (p * M + i) * PANEL, PANEL, PANEL,
                       false);
    }
    for (i64 i = 0; i < M && halves % 2; i += TILE<1>)
        tile_of<1>(std::min((i64)TILE<1>, M - i), K, K, a + i * a_row, (i64)0, a_row, a_k, b + panels * K * PANEL,
                   c + (panels * M + i) * PANEL, PANEL, PANEL, false);
}

// c (M, N) = (add ? c : 0) + sum over n tokens of panels a (M rows) and columns b: for each 16 of N, 16 values a token.
inline void outer_products(i64 n, i64 M, i64 N, const float* a, const float* b, float* c, bool add, Ahead ahead) {
    const i64 tokens = round_up(n, PANEL), T = TILE<2>, rows = (M + T - 1) / T, columns = (N + PANEL - 1) / PANEL;
    for (i64 j = 0; j < columns; j++)
        for (i64 i = 0; i < rows; i++) {
            ahead.ask(j * rows + i, rows * columns);
            tile_of<2>(std::min(T, M - i * T), n, PANEL, a + i * T * PANEL, M * PANEL, PANEL, (i64)1,
                       b + j * PANEL * tokens, c + i * T * N + j * PANEL, N, std::min(PANEL, N - j * PANEL), add);
        }
}

// Rows of tokens (n, D) into panels, and back.
inline void to_panels(i64 n, i64 panels, i64 D, const float* rows_nD, float* out) {
    if (n % PANEL) std::memset(out + (panels - 1) * D * PANEL, 0, D * PANEL * sizeof(float));
    for (i64 p = 0; p < panels; p++) {
        const i64 tokens = std::min(PANEL, n - p * PANEL);
        for (i64 d = 0; d < D; d++)
            for (i64 t = 0; t < tokens; t++) out[(p * D + d) * PANEL + t] = rows_nD[(p * PANEL + t) * D + d];
    }
}
inline void from_panels(i64 n, i64 D, const float* in, float* rows_nD) {
    for (i64 p = 0; p * PANEL < n; p++)
        for (i64 t = 0; t < std::min(PANEL, n - p * PANEL); t++)
            for (i64 d = 0; d < D; d++) rows_nD[(p * PANEL + t) * D + d] = in[(p * D + d) * PANEL + t];
}

// Rows of tokens (n, D) into columns: for each 16 of D, 16 values of each token.
inline void to_columns(i64 n, i64 panels, i64 D, const float* rows_nD, float* out) {
    const i64 tokens = panels * PANEL;
    for (i64 d = 0; d < D; d += PANEL) {
        const i64 width = std::min(PANEL, D - d);
        float* column = out + d * tokens;
        std::memset(column + n * PANEL, 0, (tokens - n) * PANEL * sizeof(float));
        for (i64 t = 0; t < n; t++) {
            if (width < PANEL) std::memset(column + t * PANEL, 0, PANEL * sizeof(float));
            std::memcpy(column + t * PANEL, rows_nD + t * D + d, width * sizeof(float));
        }
    }
}
inline void panels_to_columns(i64 panels, i64 F, const float* in, float* out) {
    for (i64 f = 0; f < F; f += PANEL)
        for (i64 p = 0; p < panels; p++) {
            float* column = out + (f * panels + p * PANEL) * PANEL;
            const i64 width = std::min(PANEL, F - f);
            for (i64 t = 0; t < PANEL; t++)
                for (i64 i = 0; i < width; i++) column[t * PANEL + i] = in[(p * F + f + i) * PANEL + t];
        }
}

// Where each expert's panels begin, and how many there are in all.
std::vector<i64> first_panels(i64 E, const int32_t* ends_E) {
    std::vector<i64> first(E + 1, 0);
    for (i64 e = 0, start = 0; e < E; start = ends_E[e++])
        first[e + 1] = first[e] + round_up(ends_E[e] - start, PANEL) / PANEL;
    return first;
}

inline i64 start_of(i64 e, const int32_t* ends_E) { return e ? ends_E[e - 1] : 0; }

}  // namespace

// y_PD = the experts' outputs for x_PD. h keeps what the gates and ups gave, in panels: at most (P / 16 + E) of them.
EXPORT void experts(int threads, i64 E, i64 D, i64 F, const int32_t* ends_E, const float* x_PD, const float* up_EHD,
                    const float* down_EDF, float* h, float* y_PD) {
    const std::vector<i64> first = first_panels(E, ends_E);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        std::vector<float> x(CHUNK * D), a(CHUNK * F), y(CHUNK * D), packed(TILE<2> * std::max(D, F));
#pragma omp for schedule(dynamic)
        for (i64 e = 0; e < E; e++) {
            const float *up = up_EHD + e * 2 * F * D, *down = down_EDF + e * D * F;
            float* next_h = h + first[e] * PANEL * 2 * F;
            for (i64 p = start_of(e, ends_E); p < ends_E[e]; p += CHUNK) {
                const i64 n = std::min(CHUNK, ends_E[e] - p), panels = round_up(n, PANEL) / PANEL;
                to_panels(n, panels, D, x_PD + p * D, x.data());
                times_panels(n, 2 * F, D, up, D, 1, x.data(), next_h, packed.data(), {up + 2 * TILE<2> * D, 2 * F * D});
                swiglu(1, panels, F * PANEL, next_h, a.data());
                times_panels(n, D, F, down, F, 1, a.data(), y.data(), packed.data(), {down + 2 * TILE<2> * F, D * F});
                from_panels(n, D, y.data(), y_PD + p * D);
                next_h += panels * PANEL * 2 * F;
            }
        }
    }
}

EXPORT void experts_backward(int threads, i64 E, i64 D, i64 F, const int32_t* ends_E, const float* x_PD,
                             const float* up_EHD, const float* down_EDF, const float* h, const float* dy_PD,
                             float* dx_PD, float* dup_EHD, float* ddown_EDF) {
    const std::vector<i64> first = first_panels(E, ends_E);
    const i64 H = 2 * F, D_ = round_up(D, PANEL), F_ = round_up(F, PANEL);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        std::vector<float> dy(CHUNK * D), da(CHUNK * F), a(CHUNK * F), dh(CHUNK * H), dx(CHUNK * D);
        std::vector<float> x_columns(CHUNK * D_), a_columns(CHUNK * F_), packed(TILE<2> * std::max(D, H));
#pragma omp for schedule(dynamic)
        for (i64 e = 0; e < E; e++) {
            const float *up = up_EHD + e * H * D, *down = down_EDF + e * D * F, *next_h = h + first[e] * PANEL * H;
            float *dup = dup_EHD + e * H * D, *ddown = ddown_EDF + e * D * F;
            const i64 start = start_of(e, ends_E);
            if (start == ends_E[e]) {
                std::memset(dup, 0, H * D * sizeof(float));
                std::memset(ddown, 0, D * F * sizeof(float));
            }
            for (i64 p = start; p < ends_E[e]; p += CHUNK) {
                const i64 n = std::min(CHUNK, ends_E[e] - p), panels = round_up(n, PANEL) / PANEL;
                to_panels(n, panels, D, dy_PD + p * D, dy.data());
                times_panels(n, F, D, down, 1, F, dy.data(), da.data(), packed.data(), {});
                swiglu_backward(1, panels, F * PANEL, next_h, da.data(), dh.data(), a.data());
                panels_to_columns(panels, F, a.data(), a_columns.data());
                outer_products(n, D, F, dy.data(), a_columns.data(), ddown, p > start, {up, p > start ? 0 : H * D});
                to_columns(n, panels, D, x_PD + p * D, x_columns.data());
                outer_products(n, H, D, dh.data(), x_columns.data(), dup, p > start,
                               {down + D * F, p > start || e + 1 == E ? 0 : D * F});
                times_panels(n, D, H, up, 1, D, dh.data(), dx.data(), packed.data(), {});
                from_panels(n, D, dx.data(), dx_PD + p * D);
                next_h += panels * PANEL * H;
            }
        }
    }
}

// --- Picks: sorted by expert, within an expert in token order -----------------------------------------------------

EXPORT void sort_picks(i64 T, i64 K, i64 E, const i64* ids_TK, i64* order_P, i64* place_TK, int32_t* ends_E) {
    const i64 P = T * K;
    std::vector<i64> next_E(E + 1, 0);
    for (i64 p = 0; p < P; p++) next_E[ids_TK[p] + 1]++;
    for (i64 e = 0; e < E; e++) ends_E[e] = (int32_t)(next_E[e + 1] += next_E[e]);
    for (i64 p = 0; p < P; p++) {
        const i64 place = next_E[ids_TK[p]]++;
        order_P[place] = p;
        place_TK[p] = place;
    }
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
                const v8 term = get(row + d, n) * w;
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
            v8 products = {};
            vectors(D, [&](i64 d, i64 n) {
                const v8 grad = get(dy + d, n);
                products += grad * get(row + d, n);
                put(out + d, grad * w, n);
            });
            dw_TK[t * K + k] = sum(products);
        }
    }
}

// --- Cross-entropy: logits become share * (softmax - one-hot) in place ---------------------------------------------

EXPORT void cross_entropy(int threads, i64 R, i64 V, float share, float* logits_RV, const i64* targets_R, float* loss_R,
                          bool* correct_R) {
    PARALLEL
    for (i64 r = 0; r < R; r++) {
        float* z = logits_RV + r * V;
        v8 highest = all(-INFINITY);
        vectors(V, [&](i64 v, i64 n) { highest = maximum(highest, get(z + v, n, -INFINITY)); });
        const float top = maximum(highest), target = z[targets_R[r]];
        v8 sums = {};
        vectors(V, [&](i64 v, i64 n) {
            const v8 e = exp(get(z + v, n, -INFINITY) - top);
            sums += e;
            put(z + v, e, n);
        });
        const float total = sum(sums), scale = share / total;
        vectors(V, [&](i64 v, i64 n) { put(z + v, get(z + v, n) * scale, n); });
        z[targets_R[r]] -= share;
        loss_R[r] = std::log(total) + (top - target);
        correct_R[r] = target == top;
    }
}

// --- Rotary positions and causal attention of one head at a time ---------------------------------------------------

namespace {

const int ROWS = 4;           // query positions that are worked on together
const int COLUMNS = 2 * W;    // keys, or components of a head, that are

// One head's tensors, rotated, padded with zeros to whole vectors: memory that one thread reuses for all its heads.
struct Head {
    i64 S, C, keys, width;  // keys = S and width = C, rounded up
    std::vector<float> memory;
    float *q_SC, *k_SC, *v_SC, *k_CS, *v_CS, *p_RS, *ds_RS, *dq_SC, *dk_SC, *dv_SC, *dy_SC;

    Head(i64 S, i64 C, bool backward)
        : S(S), C(C), keys(round_up(S, COLUMNS)), width(round_up(C, COLUMNS)),
          memory((backward ? 9 : 4) * keys * width + 2 * ROWS * keys) {
        float* next = memory.data();
        auto take = [&](i64 n) { return std::exchange(next, next + n); };
        for (float** t : {&q_SC, &k_SC, &v_SC, &k_CS}) *t = take(keys * width);
        for (float** t : {&p_RS, &ds_RS}) *t = take(ROWS * keys);
        if (backward)
            for (float** t : {&v_CS, &dq_SC, &dk_SC, &dv_SC, &dy_SC}) *t = take(keys * width);
    }
};

// out[c] = scale (x_c cos - x_{c+C/2} sin), out[c + C/2] = scale (x_{c+C/2} cos + x_c sin); sign -1 rotates back.
inline void rotate(i64 C, const float* x, const float* cos, const float* sin, float sign, float scale, float* out) {
    const i64 half = C / 2;
    vectors(half, [&](i64 c, i64 n) {
        const v8 a = get(x + c, n), b = get(x + half + c, n);
        const v8 cosine = get(cos + c, n) * scale, sine = get(sin + c, n) * (scale * sign);
        put(out + c, a * cosine - b * sine, n);
        put(out + half + c, b * cosine + a * sine, n);
    });
}

void transpose(const Head& h, const float* x_SC, float* x_CS) {
    for (i64 s = 0; s < h.S; s++)
        for (i64 c = 0; c < h.C; c++) x_CS[c * h.keys + s] = x_SC[s * h.width + c];
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
    for (i64 j = 0; j < end; j += COLUMNS) {
        v8 sums[ROWS][2] = {};
        for (i64 c = 0; c < h.C; c++) {
            const v8 b0 = load(b_CS + c * h.keys + j), b1 = load(b_CS + c * h.keys + j + W);
            for (int r = 0; r < ROWS; r++) {
                const float a = a_SC[(row + r) * h.width + c];
                sums[r][0] += a * b0;
                sums[r][1] += a * b1;
            }
        }
        for (int r = 0; r < ROWS; r++) {
            store(out_RS + r * h.keys + j, sums[r][0]);
            store(out_RS + r * h.keys + j + W, sums[r][1]);
        }
    }
}

// out[r, c] = sum over j < end of a_RS[r, j] b_SC[j, c] for ROWS rows, `stride` apart.
inline void weigh(const Head& h, const float* a_RS, const float* b_SC, i64 end, float* out, i64 stride) {
    for (i64 c = 0; c < h.width; c += COLUMNS) {
        v8 sums[ROWS][2] = {};
        for (i64 j = 0; j < end; j++) {
            const v8 b0 = load(b_SC + j * h.width + c), b1 = load(b_SC + j * h.width + c + W);
            for (int r = 0; r < ROWS; r++) {
                const float a = a_RS[r * h.keys + j];
                sums[r][0] += a * b0;
                sums[r][1] += a * b1;
            }
        }
        for (int r = 0; r < ROWS; r++) {
            store(out + r * stride + c, sums[r][0]);
            store(out + r * stride + c + W, sums[r][1]);
        }
    }
}

// out_SC[j, c] += sum over the ROWS rows of a_RS[r, j] b_SC[row + r, c], for j < end.
inline void spread(const Head& h, const float* a_RS, const float* b_SC, i64 row, i64 end, float* out_SC) {
    for (i64 c = 0; c < h.width; c += COLUMNS) {
        v8 b[ROWS][2];
        for (int r = 0; r < ROWS; r++) {
            b[r][0] = load(b_SC + (row + r) * h.width + c);
            b[r][1] = load(b_SC + (row + r) * h.width + c + W);
        }
        for (i64 j = 0; j < end; j++) {
            float* out = out_SC + j * h.width + c;
            v8 o0 = load(out), o1 = load(out + W);
            for (int r = 0; r < ROWS; r++) {
                const float a = a_RS[r * h.keys + j];
                o0 += a * b[r][0];
                o1 += a * b[r][1];
            }
            store(out, o0);
            store(out + W, o1);
        }
    }
}

// Scores of one row become e^(score - highest), 0 above the diagonal and up to `end`; returns 1/sum and sets lse.
inline float softmax_row(float* p, i64 visible, i64 end, float& lse) {
    v8 highest = all(-INFINITY), sums = {};
    vectors(visible, [&](i64 j, i64 n) { highest = maximum(highest, get(p + j, n, -INFINITY)); });
    const float top = maximum(highest);
    vectors(visible, [&](i64 j, i64 n) {
        const v8 e = exp(get(p + j, n, -INFINITY) - top);
        sums += e;
        put(p + j, e, n);
    });
    std::fill(p + visible, p + end, 0.0f);
    const float total = sum(sums);
    lse = top + std::log(total);
    return 1.0f / total;
}

void head_forward(Head& h, float* y, i64 D, float* lse_S, float* out_RC) {
    for (i64 row = 0; row < h.S; row += ROWS) {
        const i64 rows = std::min((i64)ROWS, h.S - row), end = row + rows;
        scores(h, h.q_SC, row, h.k_CS, end, h.p_RS);
        float inverse[ROWS];
        for (i64 r = 0; r < rows; r++)
            inverse[r] = softmax_row(h.p_RS + r * h.keys, row + r + 1, end, lse_S[row + r]);
        weigh(h, h.p_RS, h.v_SC, end, out_RC, h.width);
        for (i64 r = 0; r < rows; r++)
            for (i64 c = 0; c < h.C; c++) y[(row + r) * D + c] = out_RC[r * h.width + c] * inverse[r];
    }
}

// With p the probabilities and delta_i = dy_i . y_i: dv = p^T dy, ds = p (dy v^T - delta), dq = ds k, dk = ds^T q.
void head_backward(Head& h, const float* y, const float* dy, i64 D, const float* lse_S) {
    for (i64 row = 0; row < h.S; row += ROWS) {
        const i64 rows = std::min((i64)ROWS, h.S - row), end = row + rows;
        scores(h, h.q_SC, row, h.k_CS, end, h.p_RS);
        scores(h, h.dy_SC, row, h.v_CS, end, h.ds_RS);
        for (i64 r = 0; r < ROWS; r++) {
            float *p = h.p_RS + r * h.keys, *ds = h.ds_RS + r * h.keys;
            const i64 visible = r < rows ? row + r + 1 : 0;
            float delta = 0;
            if (visible)
                for (i64 c = 0; c < h.C; c++) delta += dy[(row + r) * D + c] * y[(row + r) * D + c];
            vectors(visible, [&](i64 j, i64 n) {
                const v8 e = exp(get(p + j, n) - lse_S[row + r]);
                put(p + j, e, n);
                put(ds + j, e * (get(ds + j, n) - delta), n);
            });
            std::fill(p + visible, p + end, 0.0f);
            std::fill(ds + visible, ds + end, 0.0f);
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
