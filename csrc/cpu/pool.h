// Window operations on the CPU: a row of pixels at a time, whole vectors of channels where the layout has them.
#pragma once

#include "kernels.h"
#include "vector.h"

namespace ebp {
namespace EBP_ISA {

// Calls body(plane, row) for each of the rows [begin, end) of planes that have `rows` rows.
template <class Body>
EBP_HD void for_rows(int rows, int64_t begin, int64_t end, const Body& body) {
  for (int64_t at = begin; at < end; ++at) body(at / rows, int(at % rows));
}

template <class T, class W>
void max_pool_rows(const Pool2d& d, const T* x, T* y, W* winner, int64_t begin, int64_t end) {
  const int none = W(-1);
  for_rows(d.h.out, begin, end, [&](int64_t plane, int oh) {
    const T* from = x + plane * input_plane(d);
    const Taps rows = taps_of(d.h, oh);
    for (int ow = 0; ow < d.w.out; ++ow) {
      const Taps cols = taps_of(d.w, ow);
      const int64_t to = plane * output_plane(d) + (int64_t(oh) * d.w.out + ow) * d.inner;
      for_channels<T>(d.inner, [&](auto zero, int64_t c) {
        using V = decltype(zero);
        typename Codes<V>::type code;
        store<T>(max_in_window<V>(d, from + c, rows, cols, none, &code), y + to + c);
        Codes<V>::store(code, winner + to + c);
      });
    }
  });
}

template <class T>
void max_pool(const Pool2d& d, const T* x, T* y, void* winner, bool wide, int64_t begin, int64_t end) {
  if (wide) {
    max_pool_rows(d, x, y, static_cast<std::int32_t*>(winner), begin, end);
  } else {
    max_pool_rows(d, x, y, static_cast<std::uint8_t*>(winner), begin, end);
  }
}

template <class T>
void window_sum(const Pool2d& d, Divisor kind, const T* x, T* y, int64_t begin, int64_t end) {
  for_rows(d.h.out, begin, end, [&](int64_t plane, int oh) {
    const T* from = x + plane * input_plane(d);
    const Taps rows = taps_of(d.h, oh);
    for (int ow = 0; ow < d.w.out; ++ow) {
      const Taps cols = taps_of(d.w, ow);
      const T divisor = kind == Divisor::none ? T(1) : T(divisor_of(d, kind, oh, ow));
      T* to = y + plane * output_plane(d) + (int64_t(oh) * d.w.out + ow) * d.inner;
      for_channels<T>(d.inner, [&](auto zero, int64_t c) {
        store<T>(sum_in_window<decltype(zero)>(d, from + c, rows, cols) / divisor, to + c);
      });
    }
  });
}

// Calls body(plane, row, col, rows, cols, offset of the pixel in `below`) for every pixel of input rows [begin, end).
template <class Body>
EBP_HD void for_covered_pixels(const Pool2d& d, int64_t begin, int64_t end, const Body& body) {
  for_rows(d.h.in, begin, end, [&](int64_t plane, int row) {
    const Cover rows = cover_of(d.h, row);
    for (int col = 0; col < d.w.in; ++col) {
      body(plane, row, col, rows, cover_of(d.w, col), plane * input_plane(d) + (int64_t(row) * d.w.in + col) * d.inner);
    }
  });
}

// A plane of its own (inner == 1) has no neighbouring channels to fill a vector with, so each output hands its
// relevance to its winner. One thread has the plane, and visits its outputs in the order in which an input would gather
// them: the sums are those of a gather to the last bit.
template <class T, class W>
EBP_HD void max_route_plane(const Pool2d& d, const T* p, const W* winner, T* below) {
  for (int64_t i = 0; i < input_plane(d); ++i) below[i] = T(0);
  for (int oh = 0; oh < d.h.out; ++oh) {
    for (int ow = 0; ow < d.w.out; ++ow, ++p, ++winner) {
      const int code = int(*winner), tap = code / d.w.kernel;
      const int row = oh * d.h.stride - d.h.padding + tap * d.h.dilation;
      const int col = ow * d.w.stride - d.w.padding + (code - tap * d.w.kernel) * d.w.dilation;
      const bool real = unsigned(code) < unsigned(d.h.kernel * d.w.kernel);
      if (real && unsigned(row) < unsigned(d.h.in) && unsigned(col) < unsigned(d.w.in)) {
        below[int64_t(row) * d.w.in + col] += *p;
      }
    }
  }
}

// A plain loop for the compiler: GCC's vector conversion would widen the codes one by one.
template <class T, class W>
EBP_HD void add_routed(int64_t inner, const T* __restrict p, const W* __restrict winner, int tap, T* __restrict below) {
  for (int64_t c = 0; c < inner; ++c) below[c] += routed(p[c], int(winner[c]), tap);
}

// Where channels are neighbours each pixel gathers: an output at a time, all channels of it.
template <class T, class W>
void max_route_rows(const Pool2d& d, const T* p, const W* winner, T* below, int64_t begin, int64_t end) {
  for_covered_pixels(d, begin, end, [&](int64_t plane, int row, int col, Cover rows, Cover cols, int64_t to) {
    const T* upper = p + plane * output_plane(d);
    const W* codes = winner + winner_plane(d, plane) * output_plane(d);
    for (int64_t c = 0; c < d.inner; ++c) below[to + c] = T(0);
    for_routes(d, row, col, rows, cols,
               [&](int64_t from, int tap) { add_routed(d.inner, upper + from, codes + from, tap, below + to); });
  });
}

template <class T, class W>
void max_route_units(const Pool2d& d, const T* p, const W* winner, T* below, int64_t begin, int64_t end) {
  if (route_by_rows(d)) return max_route_rows(d, p, winner, below, begin, end);
  for (int64_t plane = begin; plane < end; ++plane) {
    max_route_plane(d, p + plane * output_plane(d), winner + winner_plane(d, plane) * output_plane(d),
                    below + plane * input_plane(d));
  }
}

template <class T>
void max_route(const Pool2d& d, const T* p, const void* winner, bool wide, T* below, int64_t begin, int64_t end) {
  if (wide) {
    max_route_units(d, p, static_cast<const std::int32_t*>(winner), below, begin, end);
  } else {
    max_route_units(d, p, static_cast<const std::uint8_t*>(winner), below, begin, end);
  }
}

template <class T>
void window_spread(const Pool2d& d, const T* r, T* below, int64_t begin, int64_t end) {
  for_covered_pixels(d, begin, end, [&](int64_t plane, int, int, Cover rows, Cover cols, int64_t to) {
    const T* from = r + plane * output_plane(d);
    for_channels<T>(d.inner, [&](auto zero, int64_t c) {
      store<T>(sum_over_cover<decltype(zero)>(d, from + c, rows, cols), below + to + c);
    });
  });
}

}  // namespace EBP_ISA
}  // namespace ebp
