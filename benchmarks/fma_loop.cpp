// A loop of fused multiply-adds on registers alone: what the arithmetic units of one core do when nothing has to be
// fetched. WIDTH: floats in a vector.

typedef float Vector __attribute__((vector_size(4 * WIDTH)));

// Independent, so that no addition waits for the one before it: a unit takes 4 or 5 cycles, and a core has two of them.
constexpr int CHAINS = 12;

extern "C" float multiply_adds(long rounds, float factor, float term) {
    Vector sums[CHAINS] = {};
    const Vector factors = Vector{} + factor, terms = Vector{} + term;
    for (long round = 0; round < rounds; ++round)
        for (int chain = 0; chain < CHAINS; ++chain) sums[chain] = sums[chain] * factors + terms;
    float total = 0;
    for (int chain = 0; chain < CHAINS; ++chain)
        for (int i = 0; i < WIDTH; ++i) total += sums[chain][i];
    return total;  // so that nothing above can be left out
}
