// What one output of a pooling operation reads: the loops over a window, once for CPU, CUDA and emulator.
//
// V is the element type T itself or, on the CPU, a vector of neighboring channels. Pointers are to the first
// channel of interest in a plane; `d.inner` is the distance between neighboring pixels.
#pragma once

#include "params.h"

// Windows are 2 or 3 wide: to nvcc, a loop unrolled by 4 that never runs whole.
#if defined(__CUDACC__)
#define EBP_ROLLED _Pragma("unroll 1")
#else
#define EBP_ROLLED
#endif

namespace ebp {

// Whether neighboring channels that are read as a V always lie at a multiple of its size.
template <class V>
constexpr bool loads_aligned = false;

template <class V, class T>
EBP_HD V load(const T* from) {
  if constexpr (sizeof(V) == sizeof(T)) {
    return *from;
  } else if constexpr (loads_aligned<V>) {
    return *reinterpret_cast<const V*>(from);
  } else {
    V v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
  }
}

// a where the mask holds, else b. Overloaded where V is no type of the compiler's own.
template <class Mask, class V>
EBP_HD V select(const Mask& mask, const V& a, const V& b) {
  return mask ? a : b;
}

// Winner codes beside a V: type holds one integer per element. The CPU specializes it for vectors.
template <class V>
struct Codes {
  using type = int;
  template <class W>
  static EBP_HD void store(type code, W* to) {
    *to = W(code);
  }
};

// Maximum of a window and the row-major offset of its winner in the unclipped window; `none` for an empty window.
template <class V, class T>
EBP_HD V max_in_window(const Pool2d& d, const T* x, Taps rows, Taps cols, int none, typename Codes<V>::type* winner) {
  using Code = typename Codes<V>::type;
  if (rows.first == rows.end || cols.first == cols.end) {
    *winner = Code{} + none;
    return V{} + empty_maximum<T>();
  }
  // The pointers step from tap to tap: a GPU multiplies 64-bit numbers slowly.
  const int64_t step = d.w.dilation * d.inner, row_step = int64_t(d.h.dilation) * d.w.in * d.inner;
  const int64_t first =
      int64_t(rows.start + rows.first * d.h.dilation) * d.w.in + cols.start + cols.first * d.w.dilation;
  const T* row = x + first * d.inner;
  V best = load<V>(row);
  Code code = Code{} + (rows.first * d.w.kernel + cols.first);
  for (int i = rows.first; i < rows.end; ++i, row += row_step) {
    const T* from = row;
    EBP_ROLLED
    for (int j = cols.first; j < cols.end; ++j, from += step) {
      const V v = load<V>(from);
      const auto better = wins(v, best);
      best = select(better, v, best);
      code = select(better, Code{} + (i * d.w.kernel + j), code);
    }
  }
  *winner = code;
  return best;
}

// The outputs that input (row, col) may win: body(offset in the output plane, tap at which the output sees the input).
template <class Body>
EBP_HD void for_routes(const Pool2d& d, int row, int col, Cover rows, Cover cols, const Body& body) {
  int64_t line = (int64_t(rows.first) * d.w.out + cols.first) * d.inner;
  for (int oh = rows.first; oh < rows.end; ++oh, line += d.w.out * d.inner) {
    const int i = tap_at(d.h, oh, row);
    if (d.h.dilation != 1 && i < 0) continue;
    int64_t from = line;
    EBP_ROLLED
    for (int ow = cols.first; ow < cols.end; ++ow, from += d.inner) {
      const int j = tap_at(d.w, ow, col);
      if (d.w.dilation == 1 || j >= 0) body(from, i * d.w.kernel + j);
    }
  }
}

// Sum over the part of a window that lies inside the image.
template <class V, class T>
EBP_HD V sum_in_window(const Pool2d& d, const T* x, Taps rows, Taps cols) {
  V sum = V{};
  for (int i = rows.first; i < rows.end; ++i) {
    const T* from = x + (int64_t(rows.start + i) * d.w.in + cols.start + cols.first) * d.inner;
    EBP_ROLLED
    for (int j = cols.first; j < cols.end; ++j, from += d.inner) sum += load<V>(from);
  }
  return sum;
}

// Sum over the outputs whose window holds an input: the adjoint of sum_in_window.
template <class V, class T>
EBP_HD V sum_over_cover(const Pool2d& d, const T* r, Cover rows, Cover cols) {
  V sum = V{};
  for (int oh = rows.first; oh < rows.end; ++oh) {
    const T* from = r + (int64_t(oh) * d.w.out + cols.first) * d.inner;
    EBP_ROLLED
    for (int ow = cols.first; ow < cols.end; ++ow, from += d.inner) sum += load<V>(from);
  }
  return sum;
}

// What the sum of the window of output (oh, ow) is divided by.
EBP_HD int divisor_of(const Pool2d& d, Divisor kind, int oh, int ow) {
  if (kind == Divisor::padded) return padded_length(d.h, oh) * padded_length(d.w, ow);
  const Taps rows = taps_of(d.h, oh), cols = taps_of(d.w, ow);
  return (rows.end - rows.first) * (cols.end - cols.first);
}

}  // namespace ebp
