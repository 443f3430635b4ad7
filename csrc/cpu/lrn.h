// Local response normalization on the CPU. The window's squares are summed afresh for every channel, from the first to
// the last: a running sum would drift in float32.
#pragma once

#include "kernels.h"
#include "vector.h"

namespace ebp {
namespace EBP_ISA {

// y of `count` elements whose sums of squares are known.
template <LrnPower power, class T>
EBP_HD void lrn_run(const Lrn& d, const T* x, const T* square_sums, T* y, int64_t count) {
  const T alpha_over_size = T(d.alpha_over_size), beta = T(d.beta), k = T(d.k);
  for (int64_t i = 0; i < count; ++i) y[i] = ebp::lrn<power>(x[i], square_sums[i], alpha_over_size, beta, k);
}

// One pixel whose channels are neighbors (inner == 1). `squares` has size zeros on either side of the channels.
template <LrnPower power, class T>
EBP_HD void lrn_pixel(const Lrn& d, const T* x, T* y, T* squares, T* sums) {
  T* const middle = squares + d.size;
  for (int64_t c = 0; c < d.channels; ++c) middle[c] = x[c] * x[c];
  const T* const first = middle - (d.size - 1) / 2;
  for (int64_t c = 0; c < d.channels; ++c) sums[c] = first[c];
  for (int tap = 1; tap < d.size; ++tap) {
    for (int64_t c = 0; c < d.channels; ++c) sums[c] += first[tap + c];
  }
  lrn_run<power>(d, x, sums, y, d.channels);
}

// A strip of `count` neighboring pixels whose channels are planes apart.
template <LrnPower power, class T>
EBP_HD void lrn_strip(const Lrn& d, const T* x, T* y, T* sums, int64_t count) {
  for (int64_t c = 0; c < d.channels; ++c) {
    for (int64_t i = 0; i < count; ++i) sums[i] = T(0);
    for (int64_t other = lrn_first(d, c); other < lrn_end(d, c); ++other) {
      const T* from = x + other * d.inner;
      for (int64_t i = 0; i < count; ++i) sums[i] += from[i] * from[i];
    }
    lrn_run<power>(d, x + c * d.inner, sums, y + c * d.inner, count);
  }
}

template <LrnPower power, class T>
void lrn_units(const Lrn& d, const T* x, T* y, T* scratch, int64_t begin, int64_t end) {
  const int64_t strips = lrn_strips(d);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t at = unit / strips * d.channels * d.inner + unit % strips * lrn_strip_length;
    const int64_t left = d.inner - unit % strips * lrn_strip_length;
    if (d.inner == 1) {
      lrn_pixel<power>(d, x + at, y + at, scratch, scratch + d.channels + 2 * d.size);
    } else {
      lrn_strip<power>(d, x + at, y + at, scratch, left < lrn_strip_length ? left : lrn_strip_length);
    }
  }
}

template <class T>
void lrn(const Lrn& d, const T* x, T* y, int64_t begin, int64_t end) {
  T* const scratch = new T[2 * (d.channels + d.size) + lrn_strip_length]();
  switch (lrn_power(d.beta)) {
    case LrnPower::three_quarters:
      lrn_units<LrnPower::three_quarters>(d, x, y, scratch, begin, end);
      break;
    case LrnPower::half:
      lrn_units<LrnPower::half>(d, x, y, scratch, begin, end);
      break;
    case LrnPower::one:
      lrn_units<LrnPower::one>(d, x, y, scratch, begin, end);
      break;
    case LrnPower::any:
      lrn_units<LrnPower::any>(d, x, y, scratch, begin, end);
      break;
  }
  delete[] scratch;
}

}  // namespace EBP_ISA
}  // namespace ebp
