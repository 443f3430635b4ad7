// What becomes of the sums of a contraction (struct Epilogue), and how the partial sums of a split-k are added up.
#pragma once

#include "launch_args.h"

namespace ebp {

// Neighboring channels of a pixel, read and written by one instruction.
template <int count>
struct alignas(4 * count) Vec {
  float at[count];
};
template <int count>
__device__ __forceinline__ Vec<count>& vec_at(float* p) {
  return *reinterpret_cast<Vec<count>*>(p);
}
template <int count>
__device__ __forceinline__ const Vec<count>& vec_at(const float* p) {
  return *reinterpret_cast<const Vec<count>*>(p);
}

// One sum.
template <int count>
__device__ __forceinline__ void finish(const Contraction& d, const Epilogue& e, const Pixel& p, int channel,
                                       const Vec<count> (&sum)[1]) {
  Vec<count> result = sum[0];
  const int64_t to = at(d.target, p.image, channel, p.h, p.w);
  if (e.addend != nullptr) {
    const Vec<count> addend = vec_at<count>(e.addend + to);
#pragma unroll
    for (int i = 0; i < count; ++i) result.at[i] += addend.at[i];
  }
  if (e.gate != nullptr) {
    const Vec<count> gate = vec_at<count>(e.gate + at(e.gate_at, p.image / e.columns, channel, p.h, p.w));
#pragma unroll
    for (int i = 0; i < count; ++i) result.at[i] *= gate.at[i];
  }
  vec_at<count>(e.to + to) = result;
}

// Two sums.
template <int count>
__device__ __forceinline__ void finish(const Contraction& d, const Epilogue& e, const Pixel& p, int channel,
                                       const Vec<count> (&sum)[2]) {
  Vec<count> y = sum[0], side = sum[1];
#pragma unroll
  for (int i = 0; i < count; ++i) {
    if (e.bias != nullptr) y.at[i] += e.bias[channel + i];
    if (e.relu && y.at[i] < 0.0f) y.at[i] = 0.0f;
    if (e.side_is_gate) side.at[i] = divide_or_zero(y.at[i], side.at[i]);
  }
  const int64_t to = at(d.target, p.image, channel, p.h, p.w);
  vec_at<count>(e.to + to) = y;
  vec_at<count>(e.side + to) = side;
}

// Where a split's partial sums of a pixel lie: channels fastest, whatever the layout of the target.
EBP_HD int64_t partial_index(const Contraction& d, const Pixel& p, int channel) {
  return ((int64_t(p.image) * d.h.target + p.h) * d.w.target + p.w) * (d.groups * d.targets) + channel;
}

// Writes a thread's sums of neighboring channels: to the target, or to its split's partial sums. `column` is the first
// channel's place in the group.
template <int sums, int count>
__device__ __forceinline__ void store_sums(const Contraction& d, const Epilogue& e, const Split& split, int split_part,
                                           int group, const Pixel& p, int column, const Vec<count> (&sum)[sums]) {
  if constexpr (count > 1) {
    if (!e.wide) {
#pragma unroll
      for (int i = 0; i < count; ++i) {
        Vec<1> one[sums];
#pragma unroll
        for (int s = 0; s < sums; ++s) one[s].at[0] = sum[s].at[i];
        store_sums(d, e, split, split_part, group, p, column + i, one);
      }
      return;
    }
  }
  if (column >= d.targets) return;
  const int channel = group * d.targets + column;
  if (split.count == 1) return finish(d, e, p, channel, sum);
  const int64_t total = target_total(d), index = partial_index(d, p, channel);
#pragma unroll
  for (int s = 0; s < sums; ++s) vec_at<count>(split.partial + (split_part * sums + s) * total + index) = sum[s];
}

// One thread per element of the target: adds the partial sums in the order of the terms, then finishes.
template <int sums>
__global__ void split_epilogue_kernel(Contraction d, Epilogue e, Split split) {
  const int64_t i = thread_element(), total = target_total(d);
  if (i >= total) return;
  const int channels = d.groups * d.targets, channel = int(i % channels);
  const int64_t pixel = i / channels, line = pixel / d.w.target;
  const Pixel p{int(line / d.h.target), int(line % d.h.target), int(pixel % d.w.target), 0, 0};
  Vec<1> sum[sums] = {};
  for (int part = 0; part < split.count; ++part) {
#pragma unroll
    for (int s = 0; s < sums; ++s) sum[s].at[0] += split.partial[int64_t(part * sums + s) * total + i];
  }
  finish(d, e, p, channel, sum);
}

}  // namespace ebp
