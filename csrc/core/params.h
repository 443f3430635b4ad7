// What a kernel needs to know of its tensors. Plain numbers, nothing of torch.
//
// Batches of relevance carry K columns per image, image-major: row n * K + k belongs to image n. Activations,
// normalizers and winners have one row per image.
#pragma once

#include <cstdint>

#include "geometry.h"

namespace ebp {

using std::int64_t;

// Strides of the rows of a tensor, and of the runs of neighboring elements that a row consists of.
struct Distances {
  int64_t row, run;
};

// A tensor of `total` elements in rows of `row` elements, beside one of which each row serves `columns` rows of the
// first. Both may have gaps, as a slice of channels has: a row consists of runs of `run` elements.
struct Rows {
  int64_t total, row, columns, run;
  Distances column, shared;
};

// Where element `index` of the first tensor lies, and the element of the shared one that it meets.
EBP_HD int64_t column_index(const Rows& d, int64_t index) {
  const int64_t row = index / d.row, rest = index - row * d.row, run = rest / d.run;
  return row * d.column.row + run * d.column.run + (rest - run * d.run);
}
EBP_HD int64_t shared_index(const Rows& d, int64_t index) {
  const int64_t row = index / d.row, rest = index - row * d.row, run = rest / d.run;
  return row / d.columns * d.shared.row + run * d.shared.run + (rest - run * d.run);
}

// Pooling over [batch * planes, H, W, inner]. NCHW: planes = C, inner = 1. channels_last: planes = 1, inner = C.
struct Pool2d {
  int64_t batch, planes, inner;
  Axis h, w;
  int64_t columns;  // rows of relevance per row of winners
};

EBP_HD int64_t input_plane(const Pool2d& d) { return int64_t(d.h.in) * d.w.in * d.inner; }
EBP_HD int64_t output_plane(const Pool2d& d) { return int64_t(d.h.out) * d.w.out * d.inner; }

// The plane of winners that belongs to a plane of relevance.
EBP_HD int64_t winner_plane(const Pool2d& d, int64_t plane) {
  return plane / d.planes / d.columns * d.planes + plane % d.planes;
}

// What a window sum is divided by.
enum class Divisor { none, inside, padded };

// Local response normalization over [outer, channels, inner].
struct Lrn {
  int64_t outer, channels, inner;
  int size;
  double alpha_over_size, beta, k;
};

// First channel of the window of `channel`, and the one behind its last.
EBP_HD int64_t lrn_first(const Lrn& d, int64_t channel) {
  const int64_t first = channel - (d.size - 1) / 2;
  return first > 0 ? first : 0;
}
EBP_HD int64_t lrn_end(const Lrn& d, int64_t channel) {
  const int64_t end = channel + d.size - (d.size - 1) / 2;
  return end < d.channels ? end : d.channels;
}

// Element strides of a 4-D tensor.
struct Strides {
  int64_t n, c, h, w;
};

EBP_HD int64_t at(const Strides& s, int64_t n, int64_t c, int64_t h, int64_t w) {
  return n * s.n + c * s.c + h * s.h + w * s.w;
}

// A convolution between an upper tensor [batch, out_channels, h.out, w.out] and a lower one
// [batch, in_channels, h.in, w.in]; weights [out_channels, in_channels / groups, h.kernel, w.kernel], contiguous.
struct Conv2d {
  int batch, in_channels, out_channels, groups;
  Axis h, w;
  Strides lower, upper;
};

}  // namespace ebp
