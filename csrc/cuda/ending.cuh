// What becomes of the sums of a contraction, and how sums over parts of the terms are put together.
#pragma once

#include "job.h"

namespace ebp {

// Neighbouring channels of a pixel, which are read and written at once.
template <int count>
struct alignas(4 * count) Run {
  float at[count];
};
template <int count>
__device__ __forceinline__ Run<count>& run_at(float* p) {
  return *reinterpret_cast<Run<count>*>(p);
}
template <int count>
__device__ __forceinline__ const Run<count>& run_at(const float* p) {
  return *reinterpret_cast<const Run<count>*>(p);
}

template <int count>
__device__ __forceinline__ void finish(const Contraction& d, const Ending& e, const Pixel& p, int channel,
                                       const Run<count> (&sum)[1]) {
  Run<count> result = sum[0];
  const int64_t to = at(d.target, p.image, channel, p.h, p.w);
  if (e.addend != nullptr) {
    const Run<count> addend = run_at<count>(e.addend + to);
#pragma unroll
    for (int i = 0; i < count; ++i) result.at[i] += addend.at[i];
  }
  if (e.gate != nullptr) {
    const Run<count> gate = run_at<count>(e.gate + at(e.gate_at, p.image / e.columns, channel, p.h, p.w));
#pragma unroll
    for (int i = 0; i < count; ++i) result.at[i] *= gate.at[i];
  }
  run_at<count>(e.to + to) = result;
}

template <int count>
__device__ __forceinline__ void finish(const Contraction& d, const Ending& e, const Pixel& p, int channel,
                                       const Run<count> (&sum)[2]) {
  Run<count> y = sum[0], side = sum[1];
#pragma unroll
  for (int i = 0; i < count; ++i) {
    if (e.bias != nullptr) y.at[i] += e.bias[channel + i];
    if (e.relu && y.at[i] < 0.0f) y.at[i] = 0.0f;
    if (e.side_is_gate) side.at[i] = share(y.at[i], side.at[i]);
  }
  const int64_t to = at(d.target, p.image, channel, p.h, p.w);
  run_at<count>(e.to + to) = y;
  run_at<count>(e.side + to) = side;
}

// Element of a split's partial sums, channels next to each other.
EBP_HD int64_t partial_index(const Contraction& d, const Pixel& p, int channel) {
  return ((int64_t(p.image) * d.h.target + p.h) * d.w.target + p.w) * (d.groups * d.targets) + channel;
}

// Brings a thread's sums where they belong. `column` is the first one's in the group of the part.
template <int sums, int count>
__device__ __forceinline__ void keep(const Contraction& d, const Ending& e, const Split& split, int split_part, int group,
                                     const Pixel& p, int column, const Run<count> (&sum)[sums]) {
  if constexpr (count > 1) {
    if (!e.wide) {
#pragma unroll
      for (int i = 0; i < count; ++i) {
        Run<1> one[sums];
#pragma unroll
        for (int s = 0; s < sums; ++s) one[s].at[0] = sum[s].at[i];
        keep(d, e, split, split_part, group, p, column + i, one);
      }
      return;
    }
  }
  if (column >= d.targets) return;
  const int channel = group * d.targets + column;
  if (split.count == 1) return finish(d, e, p, channel, sum);
  const int64_t total = target_total(d), index = partial_index(d, p, channel);
#pragma unroll
  for (int s = 0; s < sums; ++s) run_at<count>(split.partial + (split_part * sums + s) * total + index) = sum[s];
}

// One thread per element of the target: the partial sums in the order of the terms, then the ending.
template <int sums>
__global__ void split_end_kernel(Contraction d, Ending e, Split split) {
  const int64_t i = thread_element(), total = target_total(d);
  if (i >= total) return;
  const int channels = d.groups * d.targets, channel = int(i % channels);
  const int64_t pixel = i / channels, line = pixel / d.w.target;
  const Pixel p{int(line / d.h.target), int(line % d.h.target), int(pixel % d.w.target), 0, 0};
  Run<1> sum[sums] = {};
  for (int part = 0; part < split.count; ++part) {
#pragma unroll
    for (int s = 0; s < sums; ++s) sum[s].at[0] += split.partial[int64_t(part * sums + s) * total + i];
  }
  finish(d, e, p, channel, sum);
}

}  // namespace ebp
