// Local response normalization: one thread per element, or (quads) one per four neighboring channels. The window's
// squares are summed from the first channel to the last.
#pragma once

#include "../core/division.h"
#include "launch.h"
#include "vec.cuh"

namespace ebp {

template <LrnPower power, class T>
__global__ void lrn_kernel(Lrn d, const T* x, T* y) {
  const int64_t i = thread_element();
  if (i >= d.outer * d.channels * d.inner) return;
  const int64_t channel = i / d.inner % d.channels;
  T sum = T(0);
  for (int64_t c = lrn_first(d, channel); c < lrn_end(d, channel); ++c) {
    const T v = x[i + (c - channel) * d.inner];
    sum += v * v;
  }
  y[i] = lrn<power>(x[i], sum, T(d.alpha_over_size), T(d.beta), T(d.k));
}

// float32, channels_last: a window that reaches no further than the quads on both sides.
struct LrnQuads {
  int total;
  Divider channels;  // in quads
  float alpha_over_size, beta, k;
};

constexpr int lrn_quads_size = 5;  // of the window: AlexNet's and GoogLeNet's

template <LrnPower power>
__global__ void lrn_quads_kernel(LrnQuads d, const Quad* x, Quad* y) {
  constexpr int before = (lrn_quads_size - 1) / 2;
  const int quad = thread_quad();
  if (quad >= d.total) return;
  const int channel = divide(quad, d.channels).remainder;
  // Beyond the first and the last channel lie zeros, which add nothing to a sum of squares.
  const Quad near[3] = {channel > 0 ? x[quad - 1] : Quad{}, x[quad],
                        channel + 1 < d.channels.divisor ? x[quad + 1] : Quad{}};
  y[quad] = each<4, float>([&](int i) {
    float sum = 0;
#pragma unroll
    for (int tap = 0; tap < lrn_quads_size; ++tap) {
      const int at = 4 + i - before + tap;
      const float v = near[at / 4].at[at % 4];
      sum += v * v;
    }
    return lrn<power>(near[1].at[i], sum, d.alpha_over_size, d.beta, d.k);
  });
}

}  // namespace ebp
