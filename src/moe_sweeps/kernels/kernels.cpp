// What a training step does between its matrix products, in float32 on CPU, each in one pass over memory.
//
// Plain C++ with GCC's vector extensions, which clang has, too: no intrinsics, no headers of torch, so that it compiles
// in a few seconds. -DWIDTH says how many floats a vector has. Every result depends on the inputs and on WIDTH alone,
// not on the number of threads.
//
// Axes: B sequences, S positions, T = B*S tokens, D width, N heads, C head size, E experts, K picks per token, P = T*K
// picks sorted by expert, F hidden size of one expert, H = 2F, V vocabulary, R tokens of a block, Q = 3D.

#include "vector.h"

#define EXPORT extern "C" __attribute__((visibility("default")))
#define PARALLEL _Pragma("omp parallel for num_threads(threads) if (threads > 1) schedule(static)")

#include "norm.h"

#include "swiglu.h"

#include "experts.h"

#include "picks.h"

#include "cross_entropy.h"

#include "attention.h"
