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

// A plane of its own (inner == 1) has no neighboring channels to fill a vector with, so each output hands its
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

// Along one axis, from one output that sees an input to the next: how many outputs on, and how many taps back.
struct RouteStep {
  int outputs, taps;
};

EBP_HD RouteStep route_step(const Axis& a) {
  int outputs = 1;
  while (outputs < a.out && outputs * a.stride % a.dilation != 0) ++outputs;
  return {outputs, outputs * a.stride / a.dilation};
}

// The outputs of one axis that see an input, `count` of them from `first` on, which sees it at `tap`.
struct AxisRoutes {
  int first, count, tap;
};

EBP_HD AxisRoutes axis_routes(const Axis& a, RouteStep step, int input) {
  Cover cover = cover_of(a, input);
  while (cover.first < cover.end && tap_at(a, cover.first, input) < 0) ++cover.first;
  if (cover.first >= cover.end) return {0, 0, 0};
  return {cover.first, ceil_div(cover.end - cover.first, step.outputs), tap_at(a, cover.first, input)};
}

// What the pixels of one row gather: from `rows` lines of outputs, in memory `row_step` apart and `row_taps` in their
// taps, and in each from outputs `col_step` and `col_taps` apart. Neighboring columns lie a plane apart.
struct RowGather {
  int rows, row_taps, col_taps;
  int64_t row_step, col_step, upper_plane, lower_plane;
};

// A pixel's sums for neighboring channels of neighboring columns stay in registers until all outputs are visited, in
// the order of for_routes. The columns share the winners' codes, and so the comparisons.
template <int columns, int vectors, class V, class T, class W>
EBP_HD void gather_routes(const RowGather& g, int cols, int tap, const T* p, const W* winner, T* below) {
  constexpr int lanes = sizeof(V) / sizeof(T);
  V sum[columns * vectors];
  unrolled<columns * vectors>([&](int i) EBP_INLINE { sum[i] = V{}; });
  for (int row = 0; row < g.rows; ++row, tap -= g.row_taps, p += g.row_step, winner += g.row_step) {
    const T* from = p;
    const W* codes = winner;
    for (int col = 0; col < cols; ++col, from += g.col_step, codes += g.col_step) {
      unrolled<vectors>([&](int v) EBP_INLINE {
        const auto won = won_by<V, T>(codes + v * lanes, tap - col * g.col_taps);
        unrolled<columns>([&](int k) EBP_INLINE {
          V& own = sum[k * vectors + v];
          own = add_where(won, own, load<V>(from + k * g.upper_plane + v * lanes));
        });
      });
    }
  }
  unrolled<columns * vectors>(
      [&](int i) EBP_INLINE { store<T>(sum[i], below + i / vectors * g.lower_plane + i % vectors * lanes); });
}

// All channels of a pixel: in blocks of vectors, then in smaller ones, at last one by one.
template <int columns, int vectors, class T, class W>
EBP_HD void gather_channels(const RowGather& g, int cols, int tap, int64_t left, const T* p, const W* winner,
                            T* below) {
  constexpr int block = vectors * Vector<T>::lanes;
  for (; left >= block; left -= block, p += block, winner += block, below += block) {
    gather_routes<columns, vectors, typename Vector<T>::type>(g, cols, tap, p, winner, below);
  }
  if constexpr (vectors > 1) {
    gather_channels<columns, vectors / 2>(g, cols, tap, left, p, winner, below);
  } else {
    for (; left > 0; --left) gather_routes<columns, 1, T>(g, cols, tap, p++, winner++, below++);
  }
}

// Row `row` of the pixels of `columns` neighboring planes that share their winners.
template <int columns, class T, class W>
EBP_HD void max_route_row(const Pool2d& d, RouteStep down, RouteStep along, int row, const T* p, const W* winner,
                          T* below) {
  constexpr int vectors = 8 / columns;
  const AxisRoutes rows = axis_routes(d.h, down, row);
  const int64_t line = d.w.out * d.inner;
  const RowGather g{rows.count,      down.taps * d.w.kernel, along.taps, down.outputs * line, along.outputs * d.inner,
                    output_plane(d), input_plane(d)};
  below += row * d.w.in * d.inner;
  for (int col = 0; col < d.w.in; ++col, below += d.inner) {
    const AxisRoutes cols = axis_routes(d.w, along, col);
    const int64_t from = rows.first * line + cols.first * d.inner;
    const int tap = rows.tap * d.w.kernel + cols.tap;
    gather_channels<columns, vectors>(g, cols.count, tap, d.inner, p + from, winner + from, below);
  }
}

// Where channels are neighbors each pixel gathers, two columns of an image at a time.
template <class T, class W>
void max_route_rows(const Pool2d& d, const T* p, const W* winner, T* below, int64_t begin, int64_t end) {
  const RouteStep down = route_step(d.h), along = route_step(d.w);
  const int64_t rows = d.h.in;
  while (begin < end) {
    const int64_t plane = begin / rows, first = begin - plane * rows;
    const bool two = first == 0 && begin + 2 * rows <= end && winner_plane(d, plane) == winner_plane(d, plane + 1);
    const T* upper = p + plane * output_plane(d);
    const W* codes = winner + winner_plane(d, plane) * output_plane(d);
    T* lower = below + plane * input_plane(d);
    const int64_t last = rows < first + end - begin ? rows : first + end - begin;
    for (int row = int(first); row < last; ++row) {
      if (two) {
        max_route_row<2>(d, down, along, row, upper, codes, lower);
      } else {
        max_route_row<1>(d, down, along, row, upper, codes, lower);
      }
    }
    begin += two ? 2 * rows : last - first;
  }
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
