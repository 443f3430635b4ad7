// The contraction on ordinary fp32 units.
//
//                        columns (64)                  A block computes rows x columns of the target, 16 terms a step.
//                   +--------------------+  weight     A thread holds a row_run x column_run tile of sums in registers,
//        depth (16) | term-major, shared |             in runs of four neighbors, the runs spread over the tile:
//                   +--------------------+
//   source              columns 4 j ..                     thread (i, j) of `across` columns of threads:
//  +-------+        +----+----+-- ... ---+                 rows    4 i + 0 .. 3, then + row_step
//  | term- | rows   |0,0 |0,1 |          |                 columns 4 j + 0 .. 3, then + column_step
//  | major,| 4 i .. +----+----+          |
//  | shared|        |1,0 |    |          |             so the threads of a warp read shared memory side by side.
//  +-------+        +----+---------------+
//
// Pipeline: the quads of step k + 1 travel from global memory to registers while step k is multiplied, and are then
// stored to the other of two stages. The only barrier of a step stands between a store and the first read of it.
//
// Best for channels_last: the terms of a tap are neighbors, and so are the columns of the result, and one test of the
// borders serves four channels. Other layouts are read element by element.
#pragma once

#include "epilogue.cuh"
#include "fetch.cuh"
#include "shared.cuh"

namespace ebp {

// A tile of `depth` terms. Every thread sums row_run x column_run elements, in runs of 4.
template <int rows_, int columns_, int row_run_, int column_run_>
struct SimtTile {
  static constexpr int rows = rows_, columns = columns_, depth = 16, row_run = row_run_, column_run = column_run_;
  static constexpr int across = columns / column_run, threads = rows / row_run * across;
  static constexpr int blocks = threads == 128 ? 3 : 2;  // on a processor at a time: at least 384 threads
  static constexpr int row_step = rows / row_run * 4, column_step = across * 4;  // between runs of a thread
  static_assert(row_run % 4 == 0 && column_run % 4 == 0);
};

// Rows are padded by a quad: the quads of store_turned, four rows apart, then begin in different banks.
template <class Tile, int sums>
struct alignas(16) SimtStage {
  float source[Tile::depth][Tile::rows + 4];
  float weight[sums][Tile::depth][Tile::columns + 4];
};
template <class Tile, int sums>
struct SimtStages {
  SimtStage<Tile, sums> at[2];
};

// A quad of terms of one row becomes four rows of one column: products read operands term by term.
template <int columns, int stride>
__device__ __forceinline__ void store_turned(float (&to)[columns][stride], int term, int line, const float4& v) {
  to[term][line] = v.x;
  to[term + 1][line] = v.y;
  to[term + 2][line] = v.z;
  to[term + 3][line] = v.w;
}

// Brings tile after tile of the terms to a stage: fetch into registers, then (after the multiplication) store.
template <class Tile, int sums, Loads loads>
class Fetcher {
  using Read = Reader<Tile::rows, Tile::columns, Tile::depth, Tile::threads, loads>;

 public:
  __device__ __forceinline__ Fetcher(const Contraction& d, const TileArgs& args, const BlockTile& tile)
      : reader_(d, args, tile) {
#pragma unroll
    for (int s = 0; s < sums; ++s) weights_[s] = args.from.weight[s] + tile.part.group * d.weight_group;
  }

  __device__ __forceinline__ void fetch() {
    reader_.find();
#pragma unroll
    for (int i = 0; i < Read::row_count; ++i) source_[i] = reader_.source(i);
#pragma unroll
    for (int i = 0; i < Read::column_count; ++i) {
#pragma unroll
      for (int s = 0; s < sums; ++s) weight_[s][i] = reader_.weight(weights_[s], i);
    }
    reader_.advance();
  }

  __device__ __forceinline__ void store(SimtStage<Tile, sums>& to) const {
#pragma unroll
    for (int i = 0; i < Read::row_count; ++i) store_turned(to.source, Read::quad(), Read::line(i), source_[i]);
#pragma unroll
    for (int s = 0; s < sums; ++s) {
#pragma unroll
      for (int i = 0; i < Read::column_count; ++i) {
        if constexpr (Read::by_column)
          store4(&to.weight[s][Read::weight_line()][Read::column(i)], weight_[s][i]);
        else
          store_turned(to.weight[s], Read::quad(), Read::column(i), weight_[s][i]);
      }
    }
  }

 private:
  Read reader_;
  const float* weights_[sums];
  float4 source_[Read::row_count], weight_[sums][Read::column_count];
};

// Runs of four, `step` apart.
template <int step, int count>
__device__ __forceinline__ void load_runs(float (&to)[count], const float* from) {
#pragma unroll
  for (int i = 0; i < count; i += 4) {
    const float4 v = load4(from + i / 4 * step);
    to[i] = v.x;
    to[i + 1] = v.y;
    to[i + 2] = v.z;
    to[i + 3] = v.w;
  }
}

template <class Tile, int sums>
using Sums = float[sums][Tile::row_run][Tile::column_run];

template <class Tile, int sums>
__device__ __forceinline__ void multiply(const SimtStage<Tile, sums>& from, int row, int column,
                                         Sums<Tile, sums>& sum) {
#pragma unroll
  for (int term = 0; term < Tile::depth; ++term) {
    float a[Tile::row_run], b[Tile::column_run];
    load_runs<Tile::row_step>(a, &from.source[term][row]);
#pragma unroll
    for (int s = 0; s < sums; ++s) {
      load_runs<Tile::column_step>(b, &from.weight[s][term][column]);
#pragma unroll
      for (int i = 0; i < Tile::row_run; ++i) {
#pragma unroll
        for (int j = 0; j < Tile::column_run; ++j) {
          sum[s][i][j] = fmaf(a[i], b[j], sum[s][i][j]);
        }
      }
    }
  }
}

// How many blocks a processor holds at least. With two sums nvcc wants one register more for 10.0 and 12.0 than three
// blocks leave to a thread, and would spill it; two blocks leave enough.
template <class Tile, int sums>
constexpr int resident_blocks() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
  return sums > 1 ? 2 : Tile::blocks;
#else
  return Tile::blocks;
#endif
}

// One run of rows of every thread, a quarter of a warp's rows side by side.
template <class Tile, int sums>
using SimtSumTile = SumTile<sums, Tile::row_step, Tile::columns, 4>;

// Brings the run of rows 4 * run .. + 3 of a thread's sums to shared memory.
template <class Tile, int sums>
__device__ __forceinline__ void bring(SimtSumTile<Tile, sums>& to, int row, int column, int run,
                                      const Sums<Tile, sums>& sum) {
#pragma unroll
  for (int s = 0; s < sums; ++s) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < Tile::column_run; j += 4) {
        const float* v = &sum[s][4 * run + i][j];
        vec_at<4>(&to.at[s][row + i][column + j / 4 * Tile::column_step]) = {v[0], v[1], v[2], v[3]};
      }
    }
  }
}

template <class Tile, int sums, Loads loads>
__global__ void __launch_bounds__(Tile::threads, resident_blocks<Tile, sums>())
    contraction_simt_kernel(Contraction d, TileArgs args) {
  const BlockTile tile = block_tile(d, args, Tile::rows, Tile::columns);
  if (tile.first_row >= tile.part.rows) return;  // the grid is as long as the phase with the most rows
  auto& stages = shared_memory<SimtStages<Tile, sums>>();
  const int row = int(threadIdx.x) / Tile::across * 4, column = int(threadIdx.x) % Tile::across * 4;
  Sums<Tile, sums> sum = {};
  Fetcher<Tile, sums, loads> fetcher(d, args, tile);
  if (tile.chunks > 0) {
    fetcher.fetch();
    fetcher.store(stages.at[0]);
  }
  for (int chunk = 0; chunk < tile.chunks; ++chunk) {
    __syncthreads();
    const bool more = chunk + 1 < tile.chunks;
    if (more) fetcher.fetch();
    multiply<Tile, sums>(stages.at[chunk % 2], row, column, sum);
    if (more) fetcher.store(stages.at[(chunk + 1) % 2]);
  }
  auto& part_of_sums = shared_memory<SimtSumTile<Tile, sums>>();
#pragma unroll
  for (int run = 0; run < Tile::row_run / 4; ++run) {
    __syncthreads();  // the sums take the place of the stages, or of those before
    bring<Tile, sums>(part_of_sums, row, column, run, sum);
    __syncthreads();
    store_sums<Tile::threads>(d, args, tile, part_of_sums, tile.first_row + run * Tile::row_step);
  }
}

}  // namespace ebp
