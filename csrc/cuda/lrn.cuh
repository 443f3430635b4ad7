// Local response normalization: one thread per element, the window's squares summed from the first channel to the last.
#pragma once

#include "launch.h"

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

}  // namespace ebp
