// What becomes of the sums of a contraction, and how sums over parts of the terms are put together.
#pragma once

#include "job.h"

namespace ebp {

__device__ __forceinline__ void finish(const Contraction& d, const Ending& e, const Pixel& p, int channel,
                                       const float (&sum)[1]) {
  const float gate = e.gate == nullptr ? 1.0f : e.gate[at(e.gate_at, p.image / e.columns, channel, p.h, p.w)];
  e.to[at(d.target, p.image, channel, p.h, p.w)] = sum[0] * gate;
}

__device__ __forceinline__ void finish(const Contraction& d, const Ending& e, const Pixel& p, int channel,
                                       const float (&sum)[2]) {
  const float v = e.bias == nullptr ? sum[0] : sum[0] + e.bias[channel];
  const float y = e.relu && v < 0.0f ? 0.0f : v;
  const int64_t to = at(d.target, p.image, channel, p.h, p.w);
  e.to[to] = y;
  e.side[to] = e.side_is_gate ? share(y, sum[1]) : sum[1];
}

// Element of a split's partial sums, channels next to each other.
EBP_HD int64_t partial_index(const Contraction& d, const Pixel& p, int channel) {
  return ((int64_t(p.image) * d.h.target + p.h) * d.w.target + p.w) * (d.groups * d.targets) + channel;
}

template <int sums>
__device__ __forceinline__ void keep(const Contraction& d, const Ending& e, const Split& split, int part,
                                     const Pixel& p, int channel, const float (&sum)[sums]) {
  if (split.count == 1) return finish(d, e, p, channel, sum);
  const int64_t total = target_total(d), index = partial_index(d, p, channel);
#pragma unroll
  for (int s = 0; s < sums; ++s) split.partial[(part * sums + s) * total + index] = sum[s];
}

// One thread per element of the target: the partial sums in the order of the terms, then the ending.
template <int sums>
__global__ void split_end_kernel(Contraction d, Ending e, Split split) {
  const int64_t i = thread_element(), total = target_total(d);
  if (i >= total) return;
  const int channels = d.groups * d.targets, channel = int(i % channels);
  const int64_t pixel = i / channels, line = pixel / d.w.target;
  const Pixel p{int(line / d.h.target), int(line % d.h.target), int(pixel % d.w.target), 0, 0};
  float sum[sums] = {};
  for (int part = 0; part < split.count; ++part) {
#pragma unroll
    for (int s = 0; s < sums; ++s) sum[s] += split.partial[int64_t(part * sums + s) * total + i];
  }
  finish(d, e, p, channel, sum);
}

}  // namespace ebp
