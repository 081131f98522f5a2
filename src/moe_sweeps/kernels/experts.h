#pragma once

#include "vector.h"

// --- Experts ------------------------------------------------------------------------------------------------------
//
// An expert works on CHUNK tokens at a time, in panels of two vectors: a panel holds one value of each of its tokens
// for each row of an activation (row r of token t is at r * PANEL + t). So a panel is the vectors of a matrix product
// whose other factor, a weight matrix, is read as it lies, whichever way it is to be transposed, and what passes
// between two products stays in the cache. Tokens that fill up the last panel are zeros.

namespace {

const i64 PANEL = 2 * W, CHUNK = 128;

// The first n floats of out = (add ? out : 0) + x. Apart from the loops, which it would make spill their sums.
__attribute__((noinline)) void add_part(float* out, vec x, i64 n, bool add) {
    if (n <= 0) return;
    n = std::min(n, (i64)W);
    put(out, add ? get(out, n) + x : x, n);
}

// c[i, 0..W V) = (add ? c : 0) + sum over k < K of a[i, k] b[k, 0..W V), the sums in registers. `a` comes in blocks of
// `block` values of k, which lie `a_block` apart; each row of b is a panel's. A c of one vector that is a panel's row
// gets zeros for the other.
template <int ROWS, int V>
inline void tile(i64 K, i64 block, const float* a, i64 a_block, i64 a_row, i64 a_k, const float* b, float* c, i64 c_row,
                 i64 columns, bool add) {
    vec sums[ROWS][V] = {};
    for (i64 left = K; left > 0; left -= block, a += a_block) {
        const float* next = a;
        for (i64 k = 0; k < std::min(block, left); k++, b += PANEL, next += a_k) {
            vec row[V];
            for (int v = 0; v < V; v++) row[v] = load(b + v * W);
#pragma GCC unroll 28
            for (int i = 0; i < ROWS; i++) {
                const float x = next[i * a_row];
#pragma GCC unroll 2
                for (int v = 0; v < V; v++) sums[i][v] += x * row[v];
            }
        }
    }
#pragma GCC unroll 28
    for (int i = 0; i < ROWS; i++) {
        float* out = c + i * c_row;
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++) {
            const vec found = v < V ? sums[i][v < V ? v : 0] : vec{};
            if (columns == PANEL) store(out + v * W, add ? load(out + v * W) + found : found);
            else add_part(out + v * W, found, columns - v * W, add);
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

// As many rows of a product as fit into the registers with V vectors of columns: AVX-512 has 32, others 16.
template <int V>
constexpr int TILE = (W == 16 ? 28 : 12) / V;

// The tile with so many rows.
template <int V, int ROWS = TILE<V>, typename... Arguments>
inline void tile_of(i64 rows, Arguments... arguments) {
    if constexpr (ROWS > 1)
        if (rows < ROWS) return tile_of<V, ROWS - 1>(rows, arguments...);
    tile<ROWS, V>(arguments...);
}

// Panels c (M rows) = A (M, K) times panels b (K rows) of n tokens, where A[i, k] is at a[i * a_row + k * a_k]. Of a
// last panel with at most W tokens only that half is computed.
inline void times_panels(i64 n, i64 M, i64 K, const float* a, i64 a_row, i64 a_k, const float* b, float* c,
                         float* packed_KW, Ahead ahead) {
    const i64 halves = (n + W - 1) / W, panels = halves / 2, T = TILE<2>;
    for (i64 i = 0; i < M && panels; i += T) {
        const i64 rows = std::min(T, M - i);
        const float* block = a + i * a_row;
        ahead.ask(i / T, (M + T - 1) / T);
        i64 step = a_k;
        if (a_k != 1 && panels > 3) {  // read with a stride once, not once for each panel; a_row is 1
            const i64 end = (K - 1) * a_k + M - i;  // what follows the block's rows is read, too, but not beyond A
            for (i64 k = 0; k < K; k++) put(packed_KW + k * W, get(block + k * a_k, std::min((i64)W, end - k * a_k)), W);
            block = packed_KW, step = W;
        }
        for (i64 p = 0; p < panels; p++)
            tile_of<2>(rows, K, K, block, (i64)0, a_row, step, b + p * K * PANEL, c + (p * M + i) * PANEL, PANEL, PANEL,
                       false);
    }
    for (i64 i = 0; i < M && halves % 2; i += TILE<1>)
        tile_of<1>(std::min((i64)TILE<1>, M - i), K, K, a + i * a_row, (i64)0, a_row, a_k, b + panels * K * PANEL,
                   c + (panels * M + i) * PANEL, PANEL, PANEL, false);
}

// c (M, N) = (add ? c : 0) + sum over n tokens of panels a (M rows) and columns b: for each PANEL of N, so many values
// of each token.
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
    for (i64 p = 0; p < panels; p++)
        transpose(std::min(PANEL, n - p * PANEL), D, rows_nD + p * PANEL * D, D, out + p * D * PANEL, PANEL);
}
inline void from_panels(i64 n, i64 D, const float* in, float* rows_nD) {
    for (i64 p = 0; p * PANEL < n; p++)
        transpose(D, std::min(PANEL, n - p * PANEL), in + p * D * PANEL, PANEL, rows_nD + p * PANEL * D, D);
}

// Rows of tokens (n, D) into columns: for each PANEL of D, so many values of each token.
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
            transpose(std::min(PANEL, F - f), PANEL, in + (p * F + f) * PANEL, PANEL, column, PANEL);
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

// y_PD = the experts' outputs for x_PD. h keeps what the gates and ups gave, in (P / PANEL + E) panels, which is the
// most that there can be; those that are not needed are zeros.
EXPORT void experts(int threads, i64 E, i64 D, i64 F, const int32_t* ends_E, const float* x_PD, const float* up_EHD,
                    const float* down_EDF, float* h, float* y_PD) {
    const std::vector<i64> first = first_panels(E, ends_E);
    const i64 unused = ends_E[E - 1] / PANEL + E - first[E];
    std::memset(h + first[E] * PANEL * 2 * F, 0, unused * PANEL * 2 * F * sizeof(float));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        std::vector<float> x(CHUNK * D), a(CHUNK * F), y(CHUNK * D), packed(W * std::max(D, F));
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
        std::vector<float> x_columns(CHUNK * D_), a_columns(CHUNK * F_), packed(W * std::max(D, H));
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

