// Window operations: one thread per output element, gathering.
#pragma once

#include "../core/windows.h"
#include "launch.h"

namespace ebp {

// Where an element of [batch * planes, rows, cols, inner] lies.
struct Place {
  int64_t plane, inner;
  int row, col;
};

EBP_HD Place place_of(int64_t element, int rows, int cols, int64_t inner) {
  const int64_t pixel = element / inner, line = pixel / cols;
  return {line / rows, element % inner, int(line % rows), int(pixel % cols)};
}

EBP_HD int64_t output_total(const Pool2d& d) { return d.batch * d.planes * output_plane(d); }
EBP_HD int64_t input_total(const Pool2d& d) { return d.batch * d.planes * input_plane(d); }

template <class T, class W>
__global__ void max_pool_kernel(Pool2d d, const T* x, T* y, W* winner) {
  const int64_t to = thread_element();
  if (to >= output_total(d)) return;
  const Place at = place_of(to, d.h.out, d.w.out, d.inner);
  int code;
  y[to] = max_in_window<T>(d, x + at.plane * input_plane(d) + at.inner, taps_of(d.h, at.row), taps_of(d.w, at.col),
                           int(W(-1)), &code);
  winner[to] = W(code);
}

template <class T, class W>
__global__ void max_route_kernel(Pool2d d, const T* p, const W* winner, T* below) {
  const int64_t to = thread_element();
  if (to >= input_total(d)) return;
  const Place at = place_of(to, d.h.in, d.w.in, d.inner);
  p += at.plane * output_plane(d) + at.inner;
  winner += winner_plane(d, at.plane) * output_plane(d) + at.inner;
  T sum = T(0);
  for_routes(d, at.row, at.col, cover_of(d.h, at.row), cover_of(d.w, at.col),
             [&](int64_t from, int tap) { sum += routed(p[from], int(winner[from]), tap); });
  below[to] = sum;
}

template <class T>
__global__ void window_sum_kernel(Pool2d d, Divisor kind, const T* x, T* y) {
  const int64_t to = thread_element();
  if (to >= output_total(d)) return;
  const Place at = place_of(to, d.h.out, d.w.out, d.inner);
  const T sum = sum_in_window<T>(d, x + at.plane * input_plane(d) + at.inner, taps_of(d.h, at.row), taps_of(d.w, at.col));
  y[to] = kind == Divisor::none ? sum : sum / T(divisor_of(d, kind, at.row, at.col));
}

template <class T>
__global__ void window_spread_kernel(Pool2d d, const T* r, T* below) {
  const int64_t to = thread_element();
  if (to >= input_total(d)) return;
  const Place at = place_of(to, d.h.in, d.w.in, d.inner);
  below[to] = sum_over_cover<T>(d, r + at.plane * output_plane(d) + at.inner, cover_of(d.h, at.row), cover_of(d.w, at.col));
}

}  // namespace ebp
