// A convolution up (z = W+ x) or down (W+^T r), grouped, strided, dilated or fully connected, as one matrix product.
// Integers only.
//
//                 columns: channels of the target in one group
//                 +---------------+
//      terms:     |    weights    |   terms = taps x source channels of the group, the channels fastest
//      taps x     +---------------+
//      channels
//     +--------+  +---------------+
//     | source |  |    target     |   rows = pixels of the target: image, row, column; the column fastest
//     +--------+  +---------------+
//
// Down a strided convolution only some taps meet a pixel, namely the same ones for all pixels whose position is the
// same modulo the stride: a phase. Every phase is a product of its own, so that no term is spent on zeros.
#pragma once

#include <numeric>

#include "division.h"
#include "params.h"

namespace ebp {

// One spatial axis: by a tap, target position q reads source position (q * scale + offset + tap * step) / divisor,
// where that is a whole number inside the source.
//
// Up, that is the convolution itself: q * stride - padding + tap * dilation. Down, the same equation is solved for the
// output: q = input reads output (q + padding - tap * dilation) / stride.
struct AxisMap {
  int source, target, taps, scale, offset, step, divisor;
  int spacing;  // between the taps that one position meets
};

inline AxisMap axis_map_up(const Axis& a) { return {a.in, a.out, a.kernel, a.stride, -a.padding, a.dilation, 1, 1}; }
inline AxisMap axis_map_down(const Axis& a) {
  // tap * dilation keeps its remainder modulo the stride when the tap grows by stride / gcd, and not before
  return {a.out, a.in, a.kernel, 1, a.padding, -a.dilation, a.stride, a.stride / std::gcd(a.stride, a.dilation)};
}

// The positions of one phase along one axis: position i of `count` is phase + divisor * i, and its tap t of `taps` is
// tap first + t * spacing of the weights, which meets the source at i * scale + base + t * step.
struct TapLine {
  int count, taps, first, base, step;
};

EBP_HD TapLine tap_line_of(const AxisMap& a, int phase) {
  if (a.divisor == 1) return {a.target, a.taps, 0, a.offset, a.step};  // the same, without the divisions
  const int count = phase < a.target ? (a.target - phase + a.divisor - 1) / a.divisor : 0;
  // The first tap whose source position is whole. With a dilation that shares a factor with the stride there may be
  // none.
  int first = 0;
  while (first < a.spacing && (phase + a.offset + first * a.step) % a.divisor != 0) ++first;
  const bool met = first < a.spacing && first < a.taps;
  const int taps = met ? (a.taps - first + a.spacing - 1) / a.spacing : 0;
  return {count, taps, first, (phase + a.offset + first * a.step) / a.divisor, a.spacing * a.step / a.divisor};
}

// Weights: element strides per target channel (n), source channel (c) and tap (h, w), and per group.
struct Contraction {
  int batch, groups, sources, targets;  // channels per group
  AxisMap h, w;
  Strides source, target, weight;
  int64_t weight_group;
};

// The stride of an axis of length 1 can be any number, and becomes 0: no test of alignment stumbles over it.
inline Strides without_unit_axes(const Strides& s, int64_t n, int64_t c, int64_t h, int64_t w) {
  return {n > 1 ? s.n : 0, c > 1 ? s.c : 0, h > 1 ? s.h : 0, w > 1 ? s.w : 0};
}

// `weight` are the strides of the tensor [out_channels, in_channels / groups, h.kernel, w.kernel].
inline Contraction contraction_up(const Conv2d& d, const Strides& weight) {
  const int below = d.in_channels / d.groups, above = d.out_channels / d.groups;
  return {d.batch,
          d.groups,
          below,
          above,
          axis_map_up(d.h),
          axis_map_up(d.w),
          without_unit_axes(d.lower, d.batch, d.in_channels, d.h.in, d.w.in),
          without_unit_axes(d.upper, d.batch, d.out_channels, d.h.out, d.w.out),
          without_unit_axes(weight, above, below, d.h.kernel, d.w.kernel),
          above * weight.n};
}
inline Contraction contraction_down(const Conv2d& d, const Strides& weight) {
  const int below = d.in_channels / d.groups, above = d.out_channels / d.groups;
  const Strides turned{weight.c, weight.n, weight.h, weight.w};
  return {d.batch,
          d.groups,
          above,
          below,
          axis_map_down(d.h),
          axis_map_down(d.w),
          without_unit_axes(d.upper, d.batch, d.out_channels, d.h.out, d.w.out),
          without_unit_axes(d.lower, d.batch, d.in_channels, d.h.in, d.w.in),
          without_unit_axes(turned, below, above, d.h.kernel, d.w.kernel),
          above * weight.n};
}

EBP_HD int phases(const Contraction& d) { return d.h.divisor * d.w.divisor; }
EBP_HD int64_t target_total(const Contraction& d) {
  return int64_t(d.batch) * d.groups * d.targets * d.h.target * d.w.target;
}

// One group and phase of a contraction.
struct Part {
  int group, phase_h, phase_w, rows, terms;
  TapLine h, w;
};

EBP_HD Part part_of(const Contraction& d, int group, int phase) {
  const int phase_h = phase / d.w.divisor, phase_w = phase % d.w.divisor;
  const TapLine h = tap_line_of(d.h, phase_h), w = tap_line_of(d.w, phase_w);
  return {group, phase_h, phase_w, d.batch * h.count * w.count, h.taps * w.taps * d.sources, h, w};
}

// Divisions by TapLine::count. It has two values: the larger one in the phases before `first_fewer`.
struct CountDividers {
  Divider more, fewer;
  int first_fewer;
};

inline CountDividers count_dividers(const AxisMap& a) {
  const int rest = a.target % a.divisor;
  return {divider_of(larger(ceil_div(a.target, a.divisor), 1)), divider_of(larger(a.target / a.divisor, 1)),
          rest == 0 ? a.divisor : rest};
}
EBP_HD Divider divider_for(const CountDividers& a, int phase) { return phase < a.first_fewer ? a.more : a.fewer; }

// A row of a part: the pixel that it stands for, and the indices of that along the part's two lines.
struct Pixel {
  int image, h, w, i, j;
};

// h and w divide by the counts of the part's lines.
EBP_HD Pixel pixel_of(const Contraction& d, const Part& part, const Divider& h, const Divider& w, int row) {
  const Division line = divide(row, w), image = divide(line.quotient, h);
  const int i = image.remainder, j = line.remainder;
  return {image.quotient, part.phase_h + d.h.divisor * i, part.phase_w + d.w.divisor * j, i, j};
}

// A term of a part's sums: a tap by its indices along the two lines, and a channel of the source.
struct Term {
  int i, j, channel;
};

EBP_HD Term term_of(const Contraction& d, const Part& part, int index) {
  // A phase that no tap meets has w.taps = 0, and no term: i = h.taps says so (see within)
  const int tap = index < d.sources ? 0 : index / d.sources;
  const int i = part.w.taps == 0 ? part.h.taps : tap < part.w.taps ? 0 : tap / part.w.taps;
  return {i, tap - i * part.w.taps, index - tap * d.sources};
}
// The term `by` places on. A loop instead of divisions: `by` is 16 at most, and few layers have fewer channels.
EBP_HD void advance(const Contraction& d, const Part& part, Term& term, int by) {
  term.channel += by;
  while (term.channel >= d.sources) {
    term.channel -= d.sources;
    if (++term.j == part.w.taps) {
      term.j = 0;
      ++term.i;
    }
  }
}
// Whether a term is one of the part's. Those behind the last one, which only fill up a tile, have run over in i.
EBP_HD bool within(const Part& part, const Term& term) { return term.i < part.h.taps; }

}  // namespace ebp
