// What the lanes of a warp hold of the operands of one mma: rows x terms of the source, terms x 8 columns of the
// weights, read from fp32 tiles in shared memory and rounded on the way. The layouts are the PTX ISA's; lane = 4 g + t:
//
//                   source a[0]       a[1]          a[2]            a[3]            weight b[0]        b[1]
//   tf32 m16n8k8    (g, t)            (g + 8, t)    (g, t + 4)      (g + 8, t + 4)  (t, g)             (t + 4, g)
//   bf16 m16n8k16   (g, 2t .. 2t+1)   (g + 8, ..)   (g, 2t+8 ..)    (g + 8, ..)     (2t .. 2t+1, g)    (2t+8 .., g)
//
// Going down, the source is signed (R, or gate times S) and the result is a small difference of its sums. There it is
// split into two summands, high + low, that together lose hardly anything of it. x and W+ are rounded, in the same way
// wherever they are used, so that a normalizer belongs to its sweep. In the forward (Tf32x3) both factors are split.
#pragma once

#include "ptx.cuh"
#include "vec.cuh"

namespace ebp {

using SourceFragment = std::uint32_t[4];
using WeightFragment = std::uint32_t[2];

__device__ __forceinline__ int lane_group() { return int(threadIdx.x) % 32 / 4; }
__device__ __forceinline__ int lane_in_group() { return int(threadIdx.x) % 4; }

// How a tile's stage lies in shared memory. Source: [row][16 terms]. Weights: [column][16 terms], or by column
// [term][64 columns]. Lanes that read together would meet the same banks, so within a row (line) neighbors change
// places: quads of terms by the row's number, groups of 8 columns by the term's number.
constexpr int stage_depth = 16, stage_columns = 64;

__device__ __forceinline__ int term_place(int row, int term) { return term ^ ((row & 2) << 2 | (row & 4)); }
__device__ __forceinline__ int column_place(int term, int column) {
  return column ^ ((term >> 1 ^ (term & 1) << 1) & 3) << 3;
}

// Where a lane's elements lie in a stage, worked out once: in the loop only constants are added. `source[m]` and
// `weight[m]` stand for what differs between lanes; what each m is for, and the constants, the formats below know.
struct LanePlaces {
  int source[2], weight[4];
};

// The formats. places<by_column>(row, column) are a lane's places in the part of the tile that begins there;
// load<split>(high, low, stage, places, i, step) reads the fragment of rows 16 i of the source at term `terms * step`,
// and load<by_column>(high, low, stage, places, j, step) that of columns 8 j of the weights, low where they are split.
struct Tf32 {
  static constexpr int terms = 8;
  static constexpr bool splits_weight = false;

  template <bool by_column>
  __device__ static __forceinline__ LanePlaces places(int row, int column) {
    const int lane = int(threadIdx.x) % 32, g = lane_group(), t = lane_in_group();
    LanePlaces at;
#pragma unroll
    for (int m = 0; m < 2; ++m)
      at.source[m] = (row + lane % 16) * stage_depth + term_place(lane % 16, lane / 16 * 4 + 8 * m);
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      at.weight[m] = by_column ? t * stage_columns + column_place(t, column + 8 * m) + g
                               : (column + g) * stage_depth + term_place(g, t + 4 * m);
    }
    return at;
  }

  template <bool split>
  __device__ static __forceinline__ void load(SourceFragment& high, SourceFragment& low, const float* stage,
                                              const LanePlaces& at, int i, int step) {
    ldmatrix_x4(high, stage + at.source[step] + 16 * i * stage_depth);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float v = __uint_as_float(high[e]);
      if constexpr (split)
        split_in_two(v, high[e], low[e]);
      else
        high[e] = tf32_rna(v);
    }
  }

  // Rounded as tf32_rna does, but for a NaN, which may become a zero here: the rest, NaN too, brings it along. The rest
  // has a sign of its own, so that cutting it off (at most its last bit) shifts no sum to one side.
  __device__ static __forceinline__ void split_in_two(float v, std::uint32_t& high, std::uint32_t& low) {
    high = (__float_as_uint(v) + 0x1000u) & 0xffffe000u;
    low = __float_as_uint(v - __uint_as_float(high)) & 0xffffe000u;
  }

  template <bool by_column>
  __device__ static __forceinline__ void load(WeightFragment& high, WeightFragment&, const float* stage,
                                              const LanePlaces& at, int j, int step) {
#pragma unroll
    for (int e = 0; e < 2; ++e) high[e] = tf32_rna(*weight_at<by_column>(stage, at, j, step, e));
  }

  template <bool by_column>
  __device__ static __forceinline__ const float* weight_at(const float* stage, const LanePlaces& at, int j, int step,
                                                           int e) {
    // By column, 4 terms on the other half of the groups of columns change places.
    return by_column ? stage + at.weight[j ^ 2 * e] + (8 * step + 4 * e) * stage_columns
                     : stage + at.weight[2 * step + e] + 8 * j * stage_depth;
  }

  __device__ static __forceinline__ void multiply(float (&sum)[4], const SourceFragment& a, const WeightFragment& b) {
    mma_tf32_m16n8k8(sum, a, b);
  }
};

struct Tf32x3 : Tf32 {
  static constexpr bool splits_weight = true;

  using Tf32::load;
  template <bool by_column>
  __device__ static __forceinline__ void load(WeightFragment& high, WeightFragment& low, const float* stage,
                                              const LanePlaces& at, int j, int step) {
#pragma unroll
    for (int e = 0; e < 2; ++e) split_in_two(*weight_at<by_column>(stage, at, j, step, e), high[e], low[e]);
  }
};

struct Bf16 {
  static constexpr int terms = 16;
  static constexpr bool splits_weight = false;

  template <bool by_column>
  __device__ static __forceinline__ LanePlaces places(int row, int column) {
    const int g = lane_group(), t = 2 * lane_in_group();
    LanePlaces at;
#pragma unroll
    for (int m = 0; m < 2; ++m) at.source[m] = (row + g) * stage_depth + term_place(g, t + 8 * m);
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      at.weight[m] = by_column ? t * stage_columns + column_place(t, column + 8 * m) + g
                               : (column + g) * stage_depth + term_place(g, t + 8 * (m % 2));
    }
    return at;
  }

  template <bool split>
  __device__ static __forceinline__ void load(SourceFragment& high, SourceFragment& low, const float* stage,
                                              const LanePlaces& at, int i, int) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const Vec<2> v = vec_at<2>(stage + at.source[e / 2] + (16 * i + e % 2 * 8) * stage_depth);
      high[e] = bf16x2_rn(v.at[0], v.at[1]);
      if constexpr (split) {
        const float x = __uint_as_float(high[e] << 16), y = __uint_as_float(high[e] & 0xffff0000u);
        low[e] = bf16x2_rn(v.at[0] - x, v.at[1] - y);
      }
    }
  }

  template <bool by_column>
  __device__ static __forceinline__ void load(WeightFragment& to, WeightFragment&, const float* stage,
                                              const LanePlaces& at, int j, int) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      if constexpr (by_column) {  // of neighboring terms, the halves of the groups of columns have changed places
        const float* from = stage + 8 * e * stage_columns;
        to[e] = bf16x2_rn(from[at.weight[j]], from[at.weight[j ^ 2] + stage_columns]);
      } else {
        const Vec<2> v = vec_at<2>(stage + at.weight[e] + 8 * j * stage_depth);
        to[e] = bf16x2_rn(v.at[0], v.at[1]);
      }
    }
  }

  __device__ static __forceinline__ void multiply(float (&sum)[4], const SourceFragment& a, const WeightFragment& b) {
    mma_bf16_m16n8k16(sum, a, b);
  }
};

}  // namespace ebp
