// Window operations, gathering: one thread per output element, or (quads) one per four neighboring channels.
#pragma once

#include "../core/division.h"
#include "launch.h"
#include "vec.cuh"

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
  const T sum =
      sum_in_window<T>(d, x + at.plane * input_plane(d) + at.inner, taps_of(d.h, at.row), taps_of(d.w, at.col));
  y[to] = kind == Divisor::none ? sum : sum / T(divisor_of(d, kind, at.row, at.col));
}

template <class T>
__global__ void window_spread_kernel(Pool2d d, const T* r, T* below) {
  const int64_t to = thread_element();
  if (to >= input_total(d)) return;
  const Place at = place_of(to, d.h.in, d.w.in, d.inner);
  below[to] =
      sum_over_cover<T>(d, r + at.plane * output_plane(d) + at.inner, cover_of(d.h, at.row), cover_of(d.w, at.col));
}

// The same four for float32, channels_last, without dilation: a thread has four neighboring channels, its offsets are
// of 32 bits, and it divides by multiplying.
struct PoolQuads {
  Pool2d pool;
  int total;                  // quads of the tensor that has a thread for each
  Divider quads, cols, rows;  // quads of a pixel; the tensor's columns and rows
  Divider columns;            // of relevance per image of winners
  Divider stride_h, stride_w;
};

// The pool, with what the compiler cannot know: without it loops would hold the divisions by a dilation.
EBP_HD Pool2d undilated(const PoolQuads& d) {
  Pool2d pool = d.pool;
  pool.h.dilation = pool.w.dilation = 1;
  return pool;
}

// Offsets of a thread's quad, in its tensor and of its first channel in a pixel, and its pixel.
struct QuadPlace {
  int element, channel, image, row, col;
};

EBP_HD QuadPlace place_of(const PoolQuads& d, int quad) {
  const Division pixel = divide(quad, d.quads), line = divide(pixel.quotient, d.cols),
                 image = divide(line.quotient, d.rows);
  return {4 * quad, 4 * pixel.remainder, image.quotient, image.remainder, line.remainder};
}

// The place of a channel in the plane of an image.
EBP_HD int input_offset(const PoolQuads& d, const QuadPlace& at) {
  return at.image * int(input_plane(d.pool)) + at.channel;
}
EBP_HD int output_offset(const PoolQuads& d, const QuadPlace& at) {
  return at.image * int(output_plane(d.pool)) + at.channel;
}

template <class W>
__global__ void max_pool_quads_kernel(PoolQuads d, const float* x, float* y, W* winner) {
  const int quad = thread_quad();
  if (quad >= d.total) return;
  const QuadPlace at = place_of(d, quad);
  const Pool2d pool = undilated(d);
  const Taps rows = taps_of(pool.h, at.row), cols = taps_of(pool.w, at.col);
  Vec<4, int> code;
  vec_at<4>(y + at.element) = max_in_window<Quad>(pool, x + input_offset(d, at), rows, cols, int(W(-1)), &code);
  Codes<Quad>::store(code, winner + at.element);
}

template <class W>
__global__ void max_route_quads_kernel(PoolQuads d, const float* p, const W* winner, float* below) {
  const int quad = thread_quad();
  if (quad >= d.total) return;
  const QuadPlace at = place_of(d, quad);
  p += output_offset(d, at);
  winner += at.image / d.columns * int(output_plane(d.pool)) + at.channel;
  const Pool2d pool = undilated(d);
  Quad sum{};
  for_routes(pool, at.row, at.col, cover_of(pool.h, at.row, d.stride_h), cover_of(pool.w, at.col, d.stride_w),
             [&](int64_t from, int tap) {
               const Quad v = vec_at<4>(p + from);
               const Vec<4, W> codes = vec_at<4>(winner + from);
#pragma unroll
               for (int i = 0; i < 4; ++i) sum.at[i] += routed(v.at[i], int(codes.at[i]), tap);
             });
  vec_at<4>(below + at.element) = sum;
}

template <class T>
__global__ void window_sum_quads_kernel(PoolQuads d, Divisor kind, const T* x, T* y) {
  const int quad = thread_quad();
  if (quad >= d.total) return;
  const QuadPlace at = place_of(d, quad);
  const Pool2d pool = undilated(d);
  const Taps rows = taps_of(pool.h, at.row), cols = taps_of(pool.w, at.col);
  Vec<4, T> sum = sum_in_window<Vec<4, T>>(pool, x + input_offset(d, at), rows, cols);
  if (kind != Divisor::none) sum = sum / T(divisor_of(pool, kind, at.row, at.col));
  vec_at<4>(y + at.element) = sum;
}

template <class T>
__global__ void window_spread_quads_kernel(PoolQuads d, const T* r, T* below) {
  const int quad = thread_quad();
  if (quad >= d.total) return;
  const QuadPlace at = place_of(d, quad);
  const Pool2d pool = undilated(d);
  const Cover rows = cover_of(pool.h, at.row, d.stride_h), cols = cover_of(pool.w, at.col, d.stride_w);
  vec_at<4>(below + at.element) = sum_over_cover<Vec<4, T>>(pool, r + output_offset(d, at), rows, cols);
}

}  // namespace ebp
