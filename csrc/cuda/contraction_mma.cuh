// The contraction on tensor cores.
//
//                      columns (64)
//                   +---------+---------+  weight      A block of four warps computes 128 x 64 of the target, 16 terms a
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
// Pipeline: three stages of shared memory. While step k is multiplied, the copies (cp.async) of step k + 1 are under way
// or done, and those of step k + 2 begin, into the stage that step k - 1 has left. One barrier a step suffices: behind it
// everyone's copies of step k have landed, and everyone has finished reading step k - 1.
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

// The strides keep the lanes that read one tf32 fragment in different banks.
template <Loads loads>
struct MmaStage {
  static constexpr bool by_column = loads == Loads::along_columns;
  static constexpr int stride = MmaTile::depth + 4;
  static constexpr int lines = by_column ? MmaTile::depth : MmaTile::columns;
  static constexpr int weight_stride = by_column ? MmaTile::columns + 8 : stride;

  alignas(16) float source[MmaTile::rows][stride];
  alignas(16) float weight[lines][weight_stride];

  __device__ __forceinline__ float weight_of(int term, int column) const {
    return by_column ? weight[term][column] : weight[column][term];
  }
};
template <Loads loads>
struct MmaStages {
  MmaStage<loads> at[MmaTile::stages];
};

template <Loads loads>
class Copier {
  using Read = Reader<MmaTile::rows, MmaTile::columns, MmaTile::depth, MmaTile::threads, loads>;

 public:
  __device__ __forceinline__ Copier(const Contraction& d, const Part& part, const Operands& from, int first_row,
                                    int first_column, int first_term)
      : reader_(d, part, from.source, first_row, first_column, first_term),
        source_(from.source),
        weight_(from.weight[0] + part.group * d.weight_group) {}

  // Begins to copy the next tile.
  __device__ __forceinline__ void copy(MmaStage<loads>& to) {
#pragma unroll
    for (int i = 0; i < Read::row_count; ++i) {
      const float* from = reader_.source_quad(i);
      cp_async_16(&to.source[Read::line(i)][Read::quad()], from == nullptr ? source_ : from, from != nullptr);
    }
#pragma unroll
    for (int i = 0; i < Read::column_count; ++i) {
      const float* from = reader_.weight_quad(weight_, i);
      float* place = Read::by_column ? &to.weight[Read::weight_line()][Read::column(i)]
                                     : &to.weight[Read::column(i)][Read::quad()];
      cp_async_16(place, from == nullptr ? weight_ : from, from != nullptr);
    }
    reader_.advance();
  }

 private:
  Read reader_;
  const float *source_, *weight_;
};

using MmaSums = float[MmaTile::warp_rows / 16][MmaTile::warp_columns / 8][4];

// Adds a tile's products to the sums of the warp at (row, column). A split source is high + low; the products of low come
// first, being small.
template <class Format, bool split, Loads loads>
__device__ __forceinline__ void multiply(const MmaStage<loads>& from, int row, int column, MmaSums& sum) {
#pragma unroll
  for (int term = 0; term < MmaTile::depth; term += Format::terms) {
    WeightFragment b[MmaTile::warp_columns / 8];
#pragma unroll
    for (int j = 0; j < MmaTile::warp_columns / 8; ++j) {
      Format::load(b[j], [&](int t, int c) { return from.weight_of(term + t, column + 8 * j + c); });
    }
#pragma unroll
    for (int i = 0; i < MmaTile::warp_rows / 16; ++i) {
      SourceFragment high, low;
      Format::load(high, split ? &low : nullptr, &from.source[row + 16 * i][term], MmaStage<loads>::stride);
#pragma unroll
      for (int j = 0; j < MmaTile::warp_columns / 8; ++j) {
        if constexpr (split) Format::multiply(sum[i][j], low, b[j]);
        Format::multiply(sum[i][j], high, b[j]);
      }
    }
  }
}

template <class Format, bool split_source, Loads loads>
__global__ void __launch_bounds__(MmaTile::threads, 3)
    contraction_mma_kernel(Contraction d, Operands from, Epilogue epilogue, Split split) {
  const int z = int(blockIdx.z), split_part = z / (phases(d) * d.groups);
  const Part part = part_of(d, z / phases(d) % d.groups, z % phases(d));
  const int first_row = int(blockIdx.x) * MmaTile::rows, first_column = int(blockIdx.y) * MmaTile::columns;
  if (first_row >= part.rows) return;  // the grid is as long as the phase with the most rows
  auto& stages = shared_memory<MmaStages<loads>>();
  const int begin = split_part * split.chunks;
  const int chunks = smaller((part.terms + MmaTile::depth - 1) / MmaTile::depth - begin, split.chunks);
  const int warp = int(threadIdx.x) / 32;
  const int row = warp / 2 * MmaTile::warp_rows, column = warp % 2 * MmaTile::warp_columns;
  MmaSums sum = {};
  Copier<loads> copier(d, part, from, first_row, first_column, begin * MmaTile::depth);
  for (int ahead = 0; ahead < MmaTile::stages - 1; ++ahead) {
    if (ahead < chunks) copier.copy(stages.at[ahead]);
    cp_async_commit();  // a group per tile, empty behind the last, so that the wait below counts tiles
  }
  for (int chunk = 0; chunk < chunks; ++chunk) {
    cp_async_wait<MmaTile::stages - 2>();
    __syncthreads();
    const int next = chunk + MmaTile::stages - 1;
    if (next < chunks) copier.copy(stages.at[next % MmaTile::stages]);
    cp_async_commit();
    multiply<Format, split_source>(stages.at[chunk % MmaTile::stages], row, column, sum);
  }
#pragma unroll
  for (int i = 0; i < MmaTile::warp_rows / 8; ++i) {
    const int r = first_row + row + 8 * i + lane_group();
    if (r >= part.rows) continue;
    const Pixel pixel = pixel_of(d, part, r);
#pragma unroll
    for (int j = 0; j < MmaTile::warp_columns / 8; ++j) {
      const Vec<2> run[1] = {{{sum[i / 2][j][i % 2 * 2], sum[i / 2][j][i % 2 * 2 + 1]}}};
      store_sums(d, epilogue, split, split_part, part.group, pixel, first_column + column + 8 * j + lane_in_group() * 2, run);
    }
  }
}

}  // namespace ebp
