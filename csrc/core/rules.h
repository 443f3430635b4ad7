// The one-element formulas of the method, for host, device and emulator alike.
//
// T is float or double; where a comment says so, also a GCC vector of them: the CPU kernels instantiate the
// same expression on whole registers. Nothing here knows a shape or a layout.
#pragma once

#if defined(__CUDACC_RTC__)  // compiled at run time (ebp_cuda/jit.py), where there are no standard headers
#define FLT_MAX 3.402823466e+38f
#define FLT_MIN 1.175494351e-38f
#define DBL_MIN 2.2250738585072014e-308
namespace std {
using ::pow;
using ::sqrt;
}  // namespace std
#else
#include <cfloat>
#include <cmath>
#endif

#if defined(__CUDACC__)
#define EBP_HD __host__ __device__ __forceinline__
#else
#define EBP_HD inline __attribute__((always_inline))
#endif

namespace ebp {

// The smallest normal number of a type; of a vector's elements, where a vector is given.
EBP_HD constexpr float smallest_normal(float) { return FLT_MIN; }
EBP_HD constexpr double smallest_normal(double) { return DBL_MIN; }
template <class V>
EBP_HD auto smallest_normal(const V& vector) -> decltype(smallest_normal(vector[0])) {
  return smallest_normal(vector[0]);
}

// The ratio r = p / z: what every input passes down per unit of its weighted activation (paper, eq. 4).
// A normalizer z below the smallest normal number counts as 0: it has nothing to share among, so r is 0 there, without
// an epsilon. p / z would overflow, and tile units read such numbers as 0. A NaN passes on. Vectors too.
template <class T>
EBP_HD T divide_or_zero(T p, T z) {
  const auto least = smallest_normal(z);
  return (z < least) & (z > -least) ? T{} : p / z;
}

// The name by which rules compiled at run time know it (ebp_cuda/jit.py).
template <class T>
EBP_HD T share(T p, T z) {
  return divide_or_zero(p, z);
}

// Whether v takes the place of the best value so far. Strictly greater, so the first of equals wins in the order
// of the visit; a NaN takes over and is never beaten, so it propagates. Vectors too.
template <class V>
EBP_HD auto wins(V v, V best) {
  return (v > best) | (v != v);
}

// What an input gets of the relevance p of an output: all of it where its position `tap` is the winner's. Vectors too.
template <class V, class Code>
EBP_HD V routed(V p, Code winner, int tap) {
  return winner == tap ? p : V{};
}

// What an output holds whose window lies wholly outside the image (Caffe's initial value, in float64 as well).
template <class T>
EBP_HD constexpr T empty_maximum() {
  return T(-FLT_MAX);
}

// Element-wise maximum of several inputs: of the first two, a tie goes to the second.
template <class T>
EBP_HD int winner_of_first_two(T a, T b) {
  return a > b ? 0 : 1;
}

// ... and each later input must be strictly greater than the winner so far.
template <class T>
EBP_HD bool later_input_wins(T v, T best) {
  return v > best;
}

// Powers of the local response normalization that need no pow.
enum class LrnPower { three_quarters, half, one, any };

EBP_HD LrnPower lrn_power(double beta) {
  return beta == 0.75  ? LrnPower::three_quarters
         : beta == 0.5 ? LrnPower::half
         : beta == 1.0 ? LrnPower::one
                       : LrnPower::any;
}

// y = x / (k + alpha / size * sum of squares) ^ beta. The square roots stay within 2 ulp of pow.
template <LrnPower power, class T>
EBP_HD T lrn(T x, T square_sum, T alpha_over_size, T beta, T k) {
  using std::pow;
  using std::sqrt;
  const T scale = k + alpha_over_size * square_sum;
  if constexpr (power == LrnPower::three_quarters) {
    const T root = sqrt(scale);
    return x / (root * sqrt(root));
  } else if constexpr (power == LrnPower::half) {
    return x / sqrt(scale);
  } else if constexpr (power == LrnPower::one) {
    return x / scale;
  } else {
    return x * pow(scale, -beta);
  }
}

}  // namespace ebp
