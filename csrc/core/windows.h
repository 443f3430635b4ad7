// What one output of a pooling operation reads: the loops over a window, once for CPU, CUDA and emulator.
//
// V is the element type T itself or, on the CPU, a vector of neighboring channels. Pointers are to the first
// channel of interest in a plane; `d.inner` is the distance between neighboring pixels.
#pragma once

#include "params.h"

namespace ebp {

template <class V, class T>
EBP_HD V load(const T* from) {
  if constexpr (sizeof(V) == sizeof(T)) {
    return *from;
  } else {
    V v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
  }
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
  const int64_t step = d.w.dilation * d.inner;
  const auto tap = [&](int i) { return x + (int64_t(rows.start + i * d.h.dilation) * d.w.in + cols.start) * d.inner; };
  V best = load<V>(tap(rows.first) + cols.first * step);
  Code code = Code{} + (rows.first * d.w.kernel + cols.first);
  for (int i = rows.first; i < rows.end; ++i) {
    for (int j = cols.first; j < cols.end; ++j) {
      const V v = load<V>(tap(i) + j * step);
      const auto better = wins(v, best);
      best = better ? v : best;
      code = better ? Code{} + (i * d.w.kernel + j) : code;
    }
  }
  *winner = code;
  return best;
}

// The outputs that input (row, col) may win: body(offset in the output plane, tap at which the output sees the input).
template <class Body>
EBP_HD void for_routes(const Pool2d& d, int row, int col, Cover rows, Cover cols, const Body& body) {
  for (int oh = rows.first; oh < rows.end; ++oh) {
    const int i = tap_at(d.h, oh, row);
    if (i < 0) continue;
    for (int ow = cols.first; ow < cols.end; ++ow) {
      const int j = tap_at(d.w, ow, col);
      if (j >= 0) body((int64_t(oh) * d.w.out + ow) * d.inner, i * d.w.kernel + j);
    }
  }
}

// Sum over the part of a window that lies inside the image.
template <class V, class T>
EBP_HD V sum_in_window(const Pool2d& d, const T* x, Taps rows, Taps cols) {
  V sum = V{};
  for (int i = rows.first; i < rows.end; ++i) {
    const T* from = x + (int64_t(rows.start + i) * d.w.in + cols.start) * d.inner;
    for (int j = cols.first; j < cols.end; ++j) sum += load<V>(from + j * d.inner);
  }
  return sum;
}

// Sum over the outputs whose window holds an input: the adjoint of sum_in_window.
template <class V, class T>
EBP_HD V sum_over_cover(const Pool2d& d, const T* r, Cover rows, Cover cols) {
  V sum = V{};
  for (int oh = rows.first; oh < rows.end; ++oh) {
    const T* from = r + int64_t(oh) * d.w.out * d.inner;
    for (int ow = cols.first; ow < cols.end; ++ow) sum += load<V>(from + ow * d.inner);
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
