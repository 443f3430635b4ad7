// The contraction on tensor cores.
//
//                      columns (64)
//                   +---------+---------+  weight      A block of four warps computes 128 x 64 of the target, 16 terms
//                   a
//        depth (16) |         |         |  (shared)    step; a warp computes 64 x 32 of that in instructions of 16 x 8:
//                   +---------+---------+
//   source          32        32                           4 x 4 instructions a warp, `sum` is 64 registers a thread
//  +-------+      +---------+---------+
//  |       |  64  | warp 0  | warp 1  |                One instruction's sums (lane = 4 g + t, see fragments.cuh):
//  |(shared)      |         |         |
//  |       |      +---------+---------+                    columns 2 t, 2 t + 1
//  |       |  64  | warp 2  | warp 3  |                    row g      sum[0], sum[1]
//  |       |      |         |         |                    row g + 8  sum[2], sum[3]
//  +-------+      +---------+---------+
//
// Pipeline: three stages of shared memory. While step k is multiplied, the copies (cp.async) of step k + 1 are under
// way or done, and those of step k + 2 begin, into the stage that step k - 1 has left. One barrier a step suffices:
// behind it everyone's copies of step k have landed, and everyone has finished reading step k - 1.
#pragma once

#include "epilogue.cuh"
#include "fetch.cuh"
#include "fragments.cuh"
#include "shared.cuh"

namespace ebp {

struct MmaTile {
  static constexpr int rows = 128, columns = 64, depth = 16, threads = 128, stages = 3;
  static constexpr int warp_rows = 64, warp_columns = 32;
};

// Laid out as fragments.cuh says.
template <Loads loads>
struct MmaStage {
  static constexpr bool by_column = loads == Loads::along_columns;
  static_assert(MmaTile::depth == stage_depth && MmaTile::columns == stage_columns);

  alignas(16) float source[MmaTile::rows][stage_depth];
  alignas(16) float weight[by_column ? stage_depth : stage_columns][by_column ? stage_columns : stage_depth];
};
template <Loads loads>
struct MmaStages {
  MmaStage<loads> at[MmaTile::stages];
};

template <Loads loads>
class Copier {
  using Read = Reader<MmaTile::rows, MmaTile::columns, MmaTile::depth, MmaTile::threads, loads>;

 public:
  __device__ __forceinline__ Copier(const Contraction& d, const TileArgs& args, const BlockTile& tile)
      : reader_(d, args, tile), weight_(args.from.weight[0] + tile.part.group * d.weight_group) {}

  // Begins to copy the next tile.
  __device__ __forceinline__ void copy(MmaStage<loads>& to) {
    reader_.find();
#pragma unroll
    for (int i = 0; i < Read::row_count; ++i) {
      const Neighbors from = reader_.source_quad(i);
      cp_async_16(&to.source[Read::line(i)][term_place(Read::line(i), Read::quad())], from.at, from.exist);
    }
#pragma unroll
    for (int i = 0; i < Read::column_count; ++i) {
      const Neighbors from = reader_.weight_quad(weight_, i);
      const int line = Read::by_column ? Read::weight_line() : Read::column(i);
      const int place = Read::by_column ? column_place(line, Read::column(i)) : term_place(line, Read::quad());
      cp_async_16(&to.weight[line][place], from.at, from.exist);
    }
    reader_.advance();
  }

 private:
  Read reader_;
  const float* weight_;
};

using MmaSums = float[MmaTile::warp_rows / 16][MmaTile::warp_columns / 8][4];

// Adds a tile's products to a warp's sums. A split factor is high + low; the products of low come first, being small.
template <class Format, bool split, Loads loads>
__device__ __forceinline__ void multiply(const MmaStage<loads>& from, const LanePlaces& places, MmaSums& sum) {
  const float *source = from.source[0], *weight = from.weight[0];
#pragma unroll
  for (int step = 0; step < MmaTile::depth / Format::terms; ++step) {
    WeightFragment b[MmaTile::warp_columns / 8], low_b[MmaTile::warp_columns / 8];
#pragma unroll
    for (int j = 0; j < MmaTile::warp_columns / 8; ++j) {
      Format::template load<MmaStage<loads>::by_column>(b[j], low_b[j], weight, places, j, step);
    }
#pragma unroll
    for (int i = 0; i < MmaTile::warp_rows / 16; ++i) {
      SourceFragment high, low;
      Format::template load<split>(high, low, source, places, i, step);
#pragma unroll
      for (int j = 0; j < MmaTile::warp_columns / 8; ++j) {
        if constexpr (split) Format::multiply(sum[i][j], low, b[j]);
        if constexpr (Format::splits_weight) Format::multiply(sum[i][j], high, low_b[j]);
        Format::multiply(sum[i][j], high, b[j]);
      }
    }
  }
}

// Brings a warp's sums to shared memory.
template <class Sums>
__device__ __forceinline__ void bring(Sums& to, int row, int column, const MmaSums& sum) {
#pragma unroll
  for (int i = 0; i < MmaTile::warp_rows / 8; ++i) {
#pragma unroll
    for (int j = 0; j < MmaTile::warp_columns / 8; ++j) {
      const float* pair = &sum[i / 2][j][i % 2 * 2];
      vec_at<2>(&to.at[0][row + 8 * i + lane_group()][column + 8 * j + lane_in_group() * 2]) = {pair[0], pair[1]};
    }
  }
}

using MmaSumTile = SumTile<1, MmaTile::rows, MmaTile::columns, 8>;

// Blocks of a processor that registers are left for. On 12.0 nvcc keeps more of a split weight than 168 registers hold.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
template <class Format>
constexpr int resident_blocks = Format::splits_weight ? 2 : 3;
#else
template <class Format>
constexpr int resident_blocks = 3;
#endif

template <class Format, bool split_source, Loads loads>
__global__ void __launch_bounds__(MmaTile::threads, resident_blocks<Format>)
    contraction_mma_kernel(Contraction d, TileArgs args) {
  const BlockTile tile = block_tile(d, args, MmaTile::rows, MmaTile::columns);
  if (tile.first_row >= tile.part.rows) return;  // the grid is as long as the phase with the most rows
  auto& stages = shared_memory<MmaStages<loads>>();
  const int warp = int(threadIdx.x) / 32;
  const int row = warp / 2 * MmaTile::warp_rows, column = warp % 2 * MmaTile::warp_columns;
  LanePlaces places = Format::template places<MmaStage<loads>::by_column>(row, column);
#pragma unroll
  for (int m = 0; m < 4; ++m) keep_in_register(places.weight[m]);
#pragma unroll
  for (int m = 0; m < 2; ++m) keep_in_register(places.source[m]);
  MmaSums sum = {};
  Copier<loads> copier(d, args, tile);
  for (int ahead = 0; ahead < MmaTile::stages - 1; ++ahead) {
    if (ahead < tile.chunks) copier.copy(stages.at[ahead]);
    cp_async_commit();  // a group per tile, empty behind the last, so that the wait below counts tiles
  }
  int stage = 0, next_stage = MmaTile::stages - 1;
  for (int chunk = 0; chunk < tile.chunks; ++chunk) {
    cp_async_wait<MmaTile::stages - 2>();
    __syncthreads();
    if (chunk + MmaTile::stages - 1 < tile.chunks) copier.copy(stages.at[next_stage]);
    cp_async_commit();
    multiply<Format, split_source>(stages.at[stage], places, sum);
    next_stage = stage;
    stage = stage + 1 < MmaTile::stages ? stage + 1 : 0;
  }
  __syncthreads();  // the sums take the place of the stages
  auto& sums = shared_memory<MmaSumTile>();
  bring(sums, row, column, sum);
  __syncthreads();
  store_sums<MmaTile::threads>(d, args, tile, sums, tile.first_row);
}

}  // namespace ebp
