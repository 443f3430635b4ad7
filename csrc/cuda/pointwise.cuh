// share, gate, rounding, sums and the element-wise maximum's winner: one thread per element, or (quads) one per four.
#pragma once

#include "../core/division.h"
#include "launch.h"
#include "launchers.h"
#include "vec.cuh"

namespace ebp {

template <class T>
__global__ void share_kernel(Rows d, const T* p, const T* z, T* r) {
  const int64_t i = thread_element();
  if (i < d.total) r[i] = divide_or_zero(p[column_index(d, i)], z[shared_index(d, i)]);
}

template <class T>
__global__ void gate_kernel(Rows d, const T* s, const T* x, T* y) {
  const int64_t i = thread_element();
  if (i < d.total) y[i] = s[column_index(d, i)] * x[shared_index(d, i)];
}

// Rows that consist of whole, aligned quads of float32; all numbers count quads, and offsets are of 32 bits.
struct RowQuads {
  int total;
  Divider row, run, columns;
  struct {
    int row, run;
  } column, shared;
};

// Where a quad lies in the first tensor, and the one of the shared tensor that it meets. Without gaps a row is one run,
// and the first tensor's offset the quad's own number.
struct QuadPair {
  int column, shared;
};

template <bool gaps>
EBP_HD QuadPair pair_of(const RowQuads& d, int quad) {
  const Division row = divide(quad, d.row);
  const int image = row.quotient / d.columns;
  if (!gaps) return {quad, image * d.shared.row + row.remainder};
  const Division run = divide(row.remainder, d.run);
  return {row.quotient * d.column.row + run.quotient * d.column.run + run.remainder,
          image * d.shared.row + run.quotient * d.shared.run + run.remainder};
}

// The formulas of two elements, for combine_quads_kernel.
struct Share {
  EBP_HD float operator()(float p, float z) const { return divide_or_zero(p, z); }
};
struct Gate {
  EBP_HD float operator()(float s, float x) const { return s * x; }
};

template <class Formula, bool gaps>
__global__ void combine_quads_kernel(RowQuads d, const Quad* a, const Quad* b, Quad* result) {
  const int quad = thread_quad();
  if (quad >= d.total) return;
  const QuadPair at = pair_of<gaps>(d, quad);
  const Quad left = a[at.column], right = b[at.shared];
  result[quad] = each<4, float>([&](int i) { return Formula()(left.at[i], right.at[i]); });
}

// The nearest tf32, ties away from zero, or the nearest bf16, ties to even: what fragments.cuh makes of an operand,
// here for kernels that multiply in fp32 and for the factors of a result.
template <Precision precision>
__device__ __forceinline__ float rounded(float v) {
  if (v != v) return v;
  const std::uint32_t bits = __float_as_uint(v);
  // Half a unit of the last bit that stays, then a cut. For ties to even it is a little less where that bit is 0.
  if (precision == Precision::bf16) return __uint_as_float((bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u);
  return __uint_as_float((bits + 0x1000u) & 0xffffe000u);
}

template <Precision precision>
__global__ void round_kernel(int64_t total, const float* x, float* y) {
  const int64_t i = thread_element();
  if (i < total) y[i] = rounded<precision>(x[i]);
}

template <Precision precision>
__global__ void round_quads_kernel(int total, const Quad* x, Quad* y) {
  const int quad = thread_quad();
  if (quad >= total) return;
  const Quad v = x[quad];
  y[quad] = each<4, float>([&](int i) { return rounded<precision>(v.at[i]); });
}

template <class T>
__global__ void add_kernel(int64_t total, const T* a, const T* b, T* sum) {
  const int64_t i = thread_element();
  if (i < total) sum[i] = a[i] + b[i];
}

template <class T>
__global__ void add_quads_kernel(int total, const Vec<4, T>* a, const Vec<4, T>* b, Vec<4, T>* sum) {
  const int quad = thread_quad();
  if (quad >= total) return;
  const Vec<4, T> left = a[quad], right = b[quad];
  sum[quad] = left + right;
}

template <class T>
__global__ void max_winner_kernel(int64_t total, Pointers<T> xs, std::uint8_t* winner) {
  const int64_t i = thread_element();
  if (i >= total) return;
  int code = xs.count > 1 ? winner_of_first_two(xs.at[0][i], xs.at[1][i]) : 0;
  T best = code == 0 ? xs.at[0][i] : xs.at[1][i];
#pragma unroll
  for (int input = 2; input < max_winner_inputs; ++input) {
    if (input < xs.count && later_input_wins(xs.at[input][i], best)) {
      best = xs.at[input][i];
      code = input;
    }
  }
  winner[i] = std::uint8_t(code);
}

}  // namespace ebp
