// The linear contraction, naive: the normalizer z = W+ x and its adjoint W+^T r. One thread per output element, sums
// in the order channel, row, column. These stay as the oracle of the fast ones.
#pragma once

#include "launch.h"

namespace ebp {

// The element of a [batch, channels, rows, cols] tensor that a flat thread number stands for; neighboring threads
// take neighboring addresses, whichever axis that is.
struct Element {
  int n, c, h, w;
};

EBP_HD Element element_of(int64_t i, int channels, int rows, int cols, bool channels_last) {
  const int64_t inner = channels_last ? channels : cols, middle = channels_last ? cols : rows;
  const int fast = int(i % inner), mid = int(i / inner % middle);
  const int64_t rest = i / inner / middle;
  if (channels_last) return {int(rest / rows), fast, int(rest % rows), mid};
  return {int(rest / channels), int(rest % channels), mid, fast};
}

template <class T>
__global__ void conv_normalizer_kernel(Conv2d d, const T* x, const T* w_plus, T* z) {
  const int64_t i = thread_element();
  if (i >= int64_t(d.batch) * d.out_channels * d.h.out * d.w.out) return;
  const Element e = element_of(i, d.out_channels, d.h.out, d.w.out, d.upper.c == 1);
  const int per_group = d.in_channels / d.groups, first = e.c / (d.out_channels / d.groups) * per_group;
  const Taps rows = taps_of(d.h, e.h), cols = taps_of(d.w, e.w);
  T sum = T(0);
  for (int c = 0; c < per_group; ++c) {
    const T* weights = w_plus + (int64_t(e.c) * per_group + c) * d.h.kernel * d.w.kernel;
    for (int row = rows.first; row < rows.end; ++row) {
      for (int col = cols.first; col < cols.end; ++col) {
        const int ih = rows.start + row * d.h.dilation, iw = cols.start + col * d.w.dilation;
        sum += weights[row * d.w.kernel + col] * x[at(d.lower, e.n, first + c, ih, iw)];
      }
    }
  }
  z[at(d.upper, e.n, e.c, e.h, e.w)] = sum;
}

template <class T>
__global__ void conv_sweep_kernel(Conv2d d, const T* r, const T* w_plus, T* below) {
  const int64_t i = thread_element();
  if (i >= int64_t(d.batch) * d.in_channels * d.h.in * d.w.in) return;
  const Element e = element_of(i, d.in_channels, d.h.in, d.w.in, d.lower.c == 1);
  const int per_group = d.in_channels / d.groups, outs = d.out_channels / d.groups;
  const int group = e.c / per_group, channel = e.c % per_group;
  const Cover rows = cover_of(d.h, e.h), cols = cover_of(d.w, e.w);
  T sum = T(0);
  for (int o = group * outs; o < (group + 1) * outs; ++o) {
    const T* weights = w_plus + (int64_t(o) * per_group + channel) * d.h.kernel * d.w.kernel;
    for (int oh = rows.first; oh < rows.end; ++oh) {
      const int row = tap_at(d.h, oh, e.h);
      for (int ow = cols.first; ow < cols.end; ++ow) {
        const int col = tap_at(d.w, ow, e.w);
        if (row >= 0 && col >= 0) sum += weights[row * d.w.kernel + col] * r[at(d.upper, e.n, o, oh, ow)];
      }
    }
  }
  below[at(d.lower, e.n, e.c, e.h, e.w)] = sum;
}

}  // namespace ebp
