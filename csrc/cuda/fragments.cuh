// What the lanes of a warp hold of the operands of one mma: rows x terms of the source, terms x 8 columns of the weights,
// read from fp32 tiles in shared memory and rounded on the way. The layouts are the PTX ISA's; lane = 4 g + t:
//
//                   source a[0]       a[1]          a[2]            a[3]            weight b[0]        b[1]
//   tf32 m16n8k8    (g, t)            (g + 8, t)    (g, t + 4)      (g + 8, t + 4)  (t, g)             (t + 4, g)
//   bf16 m16n8k16   (g, 2t .. 2t+1)   (g + 8, ..)   (g, 2t+8 ..)    (g + 8, ..)     (2t .. 2t+1, g)    (2t+8 .., g)
//
// Going down, the source is signed (R, or gate times S) and the result is a small difference of its sums. There it is
// split into two summands, high + low, that together lose hardly anything of it. x and W+ are rounded, in the same way
// wherever they are used, so that a normalizer belongs to its sweep.
#pragma once

#include "ptx.cuh"

namespace ebp {

using SourceFragment = std::uint32_t[4];
using WeightFragment = std::uint32_t[2];

__device__ __forceinline__ int lane_group() { return int(threadIdx.x) % 32 / 4; }
__device__ __forceinline__ int lane_in_group() { return int(threadIdx.x) % 4; }

struct Tf32 {
  static constexpr int terms = 8;

  // `from` is the first row's first term, rows lie `stride` apart.
  __device__ static __forceinline__ void load(SourceFragment& high, SourceFragment* low, const float* from, int stride) {
    const int lane = int(threadIdx.x) % 32;
    ldmatrix_x4(high, from + lane % 16 * stride + lane / 16 * 4);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float v = __uint_as_float(high[e]);
      high[e] = tf32_rna(v);
      if (low != nullptr) (*low)[e] = tf32_rna(v - __uint_as_float(high[e]));
    }
  }

  // weight(term, column) is an element of the tile.
  template <class Weight>
  __device__ static __forceinline__ void load(WeightFragment& to, const Weight& weight) {
#pragma unroll
    for (int e = 0; e < 2; ++e) to[e] = tf32_rna(weight(lane_in_group() + 4 * e, lane_group()));
  }

  __device__ static __forceinline__ void multiply(float (&sum)[4], const SourceFragment& a, const WeightFragment& b) {
    mma_tf32_m16n8k8(sum, a, b);
  }
};

struct Bf16 {
  static constexpr int terms = 16;

  __device__ static __forceinline__ void load(SourceFragment& high, SourceFragment* low, const float* from, int stride) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float* pair = from + (lane_group() + e % 2 * 8) * stride + lane_in_group() * 2 + e / 2 * 8;
      const float2 v = *reinterpret_cast<const float2*>(pair);
      high[e] = bf16x2_rn(v.x, v.y);
      if (low != nullptr) {
        const float x = __uint_as_float(high[e] << 16), y = __uint_as_float(high[e] & 0xffff0000u);
        (*low)[e] = bf16x2_rn(v.x - x, v.y - y);
      }
    }
  }

  template <class Weight>
  __device__ static __forceinline__ void load(WeightFragment& to, const Weight& weight) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int term = lane_in_group() * 2 + 8 * e;
      to[e] = bf16x2_rn(weight(term, lane_group()), weight(term + 1, lane_group()));
    }
  }

  __device__ static __forceinline__ void multiply(float (&sum)[4], const SourceFragment& a, const WeightFragment& b) {
    mma_bf16_m16n8k16(sum, a, b);
  }
};

}  // namespace ebp
