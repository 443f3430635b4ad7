// What becomes of the sums of a contraction (struct Epilogue), and how the partial sums of a split-k are added up.
//
// Tiled kernels bring their sums to shared memory, rows of 64 columns. From there a thread takes four neighboring
// columns of one row after another: so one loop serves all kernels, a row's address and divisions are worked out once,
// and what is read and written in device memory is contiguous.
#pragma once

#include "launch_args.h"
#include "vec.cuh"

namespace ebp {

// Where a pixel's channel lies in the target (and in what is laid out as it is), and in the gate.
struct Place {
  int64_t to, gate;
};

__device__ __forceinline__ Place place_of(const Contraction& d, const Epilogue& e, const Divider& columns,
                                          const Pixel& p, int channel) {
  const int64_t to = at(d.target, p.image, channel, p.h, p.w);
  return {to, e.gate == nullptr ? 0 : at(e.gate_at, p.image / columns, channel, p.h, p.w)};
}

// One sum.
template <int count>
__device__ __forceinline__ void finish(const Epilogue& e, const Place& place, int channel, const Vec<count> (&sum)[1]) {
  Vec<count> result = sum[0];
  if (e.bias != nullptr) {
#pragma unroll
    for (int i = 0; i < count; ++i) result.at[i] += e.bias[channel + i];
  }
  if (e.addend != nullptr) {
    const Vec<count> addend = vec_at<count>(e.addend + place.to);
    result += addend;
  }
  if (e.gate != nullptr) {
    const Vec<count> gate = vec_at<count>(e.gate + place.gate);
#pragma unroll
    for (int i = 0; i < count; ++i) result.at[i] *= gate.at[i];
  }
  vec_at<count>(e.to + place.to) = result;
}

// Two sums.
template <int count>
__device__ __forceinline__ void finish(const Epilogue& e, const Place& place, int channel, const Vec<count> (&sum)[2]) {
  Vec<count> y = sum[0], side = sum[1];
#pragma unroll
  for (int i = 0; i < count; ++i) {
    if (e.bias != nullptr) y.at[i] += e.bias[channel + i];
    if (e.relu && y.at[i] < 0.0f) y.at[i] = 0.0f;
    if (e.side_is_gate) side.at[i] = divide_or_zero(y.at[i], side.at[i]);
  }
  vec_at<count>(e.to + place.to) = y;
  vec_at<count>(e.side + place.to) = side;
}

// Where a split's partial sums of a pixel lie: channels fastest, whatever the layout of the target.
EBP_HD int64_t partial_index(const Contraction& d, const Pixel& p, int channel) {
  return ((int64_t(p.image) * d.h.target + p.h) * d.w.target + p.w) * (d.groups * d.targets) + channel;
}

// The i-th of four neighbors, of every sum.
template <int sums>
__device__ __forceinline__ void single_out(Vec<1> (&one)[sums], const Vec<4> (&four)[sums], int i) {
#pragma unroll
  for (int s = 0; s < sums; ++s) one[s].at[0] = four[s].at[i];
}

// Writes four neighboring columns of a pixel, `left` of which there are, to the target.
template <int sums>
__device__ __forceinline__ void finish_quad(const Contraction& d, const TileArgs& args, const Pixel& pixel, int channel,
                                            int left, const Vec<4> (&sum)[sums]) {
  const Epilogue& e = args.epilogue;
  const Place first = place_of(d, e, args.by.columns, pixel, channel);
  if (e.wide) return finish(e, first, channel, sum);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i >= left) return;
    Vec<1> one[sums];
    single_out(one, sum, i);
    finish(e, {first.to + i * d.target.c, first.gate + i * e.gate_at.c}, channel + i, one);
  }
}

// The same, to a split's partial sums.
template <int sums>
__device__ __forceinline__ void store_partial(const Contraction& d, const TileArgs& args, int split_part,
                                              const Pixel& pixel, int channel, int left, const Vec<4> (&sum)[sums]) {
  const int64_t total = target_total(d);
  float* to = args.split.partial + split_part * sums * total + partial_index(d, pixel, channel);
#pragma unroll
  for (int s = 0; s < sums; ++s, to += total) {
    if (args.epilogue.wide) {
      vec_at<4>(to) = sum[s];
      continue;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i < left) to[i] = sum[s].at[i];
    }
  }
}

// Sums of rows x columns in shared memory. The padding keeps rows that are written together in different banks.
template <int sums_, int rows_, int columns_, int padding>
struct SumTile {
  static constexpr int sums = sums_, rows = rows_, columns = columns_;
  alignas(16) float at[sums][rows][columns + padding];
};

// Writes a tile's sums, whose first row is the part's row `first_row`.
template <int threads, class Sums>
__device__ __forceinline__ void store_sums(const Contraction& d, const TileArgs& args, const BlockTile& tile,
                                           const Sums& from, int first_row) {
  constexpr int quads = Sums::columns / 4;
  const int column = int(threadIdx.x) % quads * 4, left = d.targets - tile.first_column - column;
  const int channel = tile.part.group * d.targets + tile.first_column + column;
  const int rows = left > 0 ? smaller(Sums::rows, tile.part.rows - first_row) : 0;
#pragma unroll 1
  for (int row = int(threadIdx.x) / quads; row < rows; row += threads / quads) {
    const Pixel pixel = pixel_of(d, args.by, tile.part, first_row + row);
    Vec<4> sum[Sums::sums];
#pragma unroll
    for (int s = 0; s < Sums::sums; ++s) sum[s] = vec_at<4>(&from.at[s][row][column]);
    if (args.split.count > 1)
      store_partial(d, args, tile.split_part, pixel, channel, left, sum);
    else
      finish_quad(d, args, pixel, channel, left, sum);
  }
}

// One thread per element of the target: adds the partial sums in the order of the terms, then finishes.
template <int sums>
__global__ void split_epilogue_kernel(Contraction d, TileArgs args) {
  const int64_t i = thread_element(), total = target_total(d);
  if (i >= total) return;
  const int channels = d.groups * d.targets, channel = int(i % channels);
  const int64_t pixel = i / channels, line = pixel / d.w.target;
  const Pixel p{int(line / d.h.target), int(line % d.h.target), int(pixel % d.w.target), 0, 0};
  Vec<1> sum[sums] = {};
  for (int part = 0; part < args.split.count; ++part) {
#pragma unroll
    for (int s = 0; s < sums; ++s) sum[s].at[0] += args.split.partial[int64_t(part * sums + s) * total + i];
  }
  finish(args.epilogue, place_of(d, args.epilogue, args.by.columns, p, channel), channel, sum);
}

// The same for four neighboring channels a thread, where the epilogue is wide and 32 bits count the target's elements.
struct TargetQuads {
  int total;
  Divider channels, w, h;  // quads of a pixel, columns and rows of the target
};

template <int sums>
__global__ void split_epilogue_quads_kernel(Contraction d, TileArgs args, TargetQuads quads) {
  const int quad = thread_quad();
  if (quad >= quads.total) return;
  const Division pixel = divide(quad, quads.channels), line = divide(pixel.quotient, quads.w);
  const Division image = divide(line.quotient, quads.h);
  const Pixel p{image.quotient, image.remainder, line.remainder, 0, 0};
  const int channel = 4 * pixel.remainder;
  const float* from = args.split.partial + 4 * quad;
  Quad sum[sums] = {};
  for (int part = 0; part < args.split.count; ++part) {
#pragma unroll
    for (int s = 0; s < sums; ++s, from += target_total(d)) {
      const Quad more = vec_at<4>(from);
      sum[s] += more;
    }
  }
  finish(args.epilogue, place_of(d, args.epilogue, args.by.columns, p, channel), channel, sum);
}

}  // namespace ebp
