// The contraction where every group has one channel below and one above: tiles would be empty, so one thread per
// element sums its taps, in the order row, column.
#pragma once

#include "epilogue.cuh"
#include "fetch.cuh"

namespace ebp {

template <int sums>
__global__ void depthwise_kernel(Contraction d, TileArgs args) {
  const int64_t i = thread_element();
  if (i >= target_total(d)) return;
  const int channel = int(i % d.groups), w = int(i / d.groups % d.w.target);
  const int64_t line = i / d.groups / d.w.target;
  const Pixel pixel{int(line / d.h.target), int(line % d.h.target), w, 0, 0};
  const TapLine rows = tap_line_of(d.h, pixel.h % d.h.divisor), columns = tap_line_of(d.w, w % d.w.divisor);
  const int first_h = pixel.h / d.h.divisor * d.h.scale + rows.base,
            first_w = w / d.w.divisor * d.w.scale + columns.base;
  Vec<1> sum[sums] = {};
  for (int a = 0; a < rows.taps; ++a) {
    for (int b = 0; b < columns.taps; ++b) {
      const int sh = first_h + a * rows.step, sw = first_w + b * columns.step;
      if (unsigned(sh) >= unsigned(d.h.source) || unsigned(sw) >= unsigned(d.w.source)) continue;
      const float v = args.from.source[at(d.source, pixel.image, channel, sh, sw)];
      const int64_t weight = channel * d.weight_group + (rows.first + a * d.h.spacing) * d.weight.h +
                             (columns.first + b * d.w.spacing) * d.weight.w;
#pragma unroll
      for (int s = 0; s < sums; ++s) sum[s].at[0] = fmaf(args.from.weight[s][weight], v, sum[s].at[0]);
    }
  }
  finish(args.epilogue, place_of(d, args.epilogue, args.by.columns, pixel, channel), channel, sum);
}

}  // namespace ebp
