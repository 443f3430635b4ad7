#include <cuda_runtime.h>

#include "../cuda/launch.h"
#include "../cuda/shared.cuh"
#include "ptx_model.h"
#include "specimens.h"

namespace emu {

using ebp::Grid;
using ebp::launch;
using ebp::shared_memory;

struct Line {
  float at[1024];
};

__global__ void reverse_kernel(const float* x, float* y) {
  Line& line = shared_memory<Line>();
  const unsigned first = blockIdx.x * blockDim.x;
  line.at[threadIdx.x] = x[first + threadIdx.x];
  __syncthreads();
  y[first + threadIdx.x] = line.at[blockDim.x - 1 - threadIdx.x];
}

const char* launch_reverse(const float* x, float* y, int blocks, int threads, void* stream) {
  return launch(reverse_kernel, Grid{unsigned(blocks), unsigned(threads), sizeof(Line)}, stream, x, y);
}

__global__ void warp_sums_kernel(const float* x, float* y, int kind) {
  float sum = x[threadIdx.x];
  for (int step = 16; step > 0 && kind < 3; step /= 2) {
    if (kind == 0) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (kind == 1) sum += __shfl_down_sync(0xffffffffu, sum, unsigned(step));
    if (kind == 2) sum += __shfl_up_sync(0xffffffffu, sum, unsigned(step));
  }
  y[threadIdx.x] = kind == 3 ? __shfl_sync(0xffffffffu, sum, 5) : sum;
}

const char* launch_warp_sums(const float* x, float* y, int threads, int kind, void* stream) {
  return launch(warp_sums_kernel, Grid{1, unsigned(threads)}, stream, x, y, kind);
}

__global__ void votes_kernel(const float* x, unsigned* y) {
  const bool positive = x[threadIdx.x] > 0;
  y[3 * threadIdx.x] = __ballot_sync(0xffffffffu, positive);
  y[3 * threadIdx.x + 1] = unsigned(__any_sync(0xffffffffu, positive));
  y[3 * threadIdx.x + 2] = unsigned(__all_sync(0xffffffffu, positive));
}

const char* launch_votes(const float* x, unsigned* y, int threads, void* stream) {
  return launch(votes_kernel, Grid{1, unsigned(threads)}, stream, x, y);
}

struct Tiles {
  float a[16][16], b[16][16];
};

__global__ void matmul_kernel(const float* a, const float* b, float* c, int m, int n, int k) {
  Tiles& tiles = shared_memory<Tiles>();
  const int row = int(blockIdx.y) * 16 + int(threadIdx.y), column = int(blockIdx.x) * 16 + int(threadIdx.x);
  float sum = 0;
  for (int first = 0; first < k; first += 16) {
    const int across = first + int(threadIdx.x), down = first + int(threadIdx.y);
    tiles.a[threadIdx.y][threadIdx.x] = row < m && across < k ? a[row * k + across] : 0;
    tiles.b[threadIdx.y][threadIdx.x] = column < n && down < k ? b[down * n + column] : 0;
    __syncthreads();
    for (int i = 0; i < 16; ++i) sum += tiles.a[threadIdx.y][i] * tiles.b[i][threadIdx.x];
    __syncthreads();
  }
  if (row < m && column < n) c[row * n + column] = sum;
}

const char* launch_matmul(const float* a, const float* b, float* c, int m, int n, int k, void* stream) {
  const dim3 blocks(unsigned(n + 15) / 16, unsigned(m + 15) / 16);
  return launch(matmul_kernel, Grid{blocks, dim3(16, 16), sizeof(Tiles)}, stream, a, b, c, m, n, k);
}

template <bool bf16>
__global__ void mma_kernel(const std::uint32_t* a, const std::uint32_t* b, const float* c, float* d) {
  const unsigned lane = threadIdx.x;
  std::uint32_t left[4], right[2];
  float sum[4];
  for (unsigned i = 0; i < 4; ++i) left[i] = a[4 * lane + i];
  for (unsigned i = 0; i < 2; ++i) right[i] = b[2 * lane + i];
  for (unsigned i = 0; i < 4; ++i) sum[i] = c[4 * lane + i];
  if constexpr (bf16) {
    ebp::mma_bf16_m16n8k16(sum, left, right);
  } else {
    ebp::mma_tf32_m16n8k8(sum, left, right);
  }
  for (unsigned i = 0; i < 4; ++i) d[4 * lane + i] = sum[i];
}

const char* launch_mma_tf32(const std::uint32_t* a, const std::uint32_t* b, const float* c, float* d, void* stream) {
  return launch(mma_kernel<false>, Grid{1, 32}, stream, a, b, c, d);
}

const char* launch_mma_bf16(const std::uint32_t* a, const std::uint32_t* b, const float* c, float* d, void* stream) {
  return launch(mma_kernel<true>, Grid{1, 32}, stream, a, b, c, d);
}

struct Matrices {
  std::uint16_t row[32][8];
};

__global__ void ldmatrix_kernel(const std::uint16_t* x, std::uint32_t* y, int count, bool transposed) {
  Matrices& matrices = shared_memory<Matrices>();
  const int lane = int(threadIdx.x);
  for (int i = 0; i < 8; ++i) matrices.row[lane][i] = lane < 8 * count ? x[8 * lane + i] : 0;
  __syncwarp();
  std::uint32_t two[2], four[4];
  const void* row = matrices.row[lane];
  if (count == 2) transposed ? ebp::ldmatrix_x2_trans(two, row) : ebp::ldmatrix_x2(two, row);
  if (count == 4) transposed ? ebp::ldmatrix_x4_trans(four, row) : ebp::ldmatrix_x4(four, row);
  for (int i = 0; i < count; ++i) y[count * lane + i] = count == 2 ? two[i] : four[i];
}

const char* launch_ldmatrix(const std::uint16_t* x, std::uint32_t* y, int count, bool transposed, void* stream) {
  return launch(ldmatrix_kernel, Grid{1, 32, sizeof(Matrices)}, stream, x, y, count, transposed);
}

struct Halves {
  alignas(16) float at[2][1024];
};

__global__ void async_copy_kernel(const float* x, float* y, int step) {
  Halves& halves = shared_memory<Halves>();
  const unsigned i = threadIdx.x, n = 2 * blockDim.x;
  for (unsigned half = 0; half < 2; ++half) {
    if (i < n / 4) ebp::cp_async_16(&halves.at[half][4 * i], &x[half * n + 4 * i], i % 3 != 2);
    ebp::cp_async_commit();
  }
  if (step == 0 || step == 2) ebp::cp_async_wait<0>();
  if (step == 3) ebp::cp_async_wait<1>();
  if (step != 2) __syncthreads();
  for (unsigned half = 0; half < 2; ++half) {
    for (unsigned j = i; j < n; j += blockDim.x) y[half * n + j] = halves.at[half][n - 1 - j];
  }
}

const char* launch_async_copy(const float* x, float* y, int threads, int step, void* stream) {
  return launch(async_copy_kernel, Grid{1, unsigned(threads), sizeof(Halves)}, stream, x, y, step);
}

}  // namespace emu
