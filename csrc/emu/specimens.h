// Small kernels that test the emulator itself: right ones whose result is known, and wrong ones that it must refuse.
#pragma once

#include <cstdint>
#include <string>

namespace emu {

// y[i] = x[n - 1 - i] within each block of `threads`, through shared memory.
const char* launch_reverse(const float* x, float* y, int blocks, int threads, void* stream);
// y[i] = sum over the warp of i, by __shfl_xor_sync, __shfl_down_sync, __shfl_up_sync and __shfl_sync in turn
// (kind 0..3); the last broadcasts lane 5.
const char* launch_warp_sums(const float* x, float* y, int threads, int kind, void* stream);
// ballot, any and all of x[i] > 0 over the warp: y[3 * i ..].
const char* launch_votes(const float* x, unsigned* y, int threads, void* stream);
// c[m][n] = a[m][k] b[k][n] by 16 x 16 tiles in shared memory.
const char* launch_matmul(const float* a, const float* b, float* c, int m, int n, int k, void* stream);
// One instruction on the registers of 32 lanes: a[32][4], b[32][2], c and d [32][4].
const char* launch_mma_tf32(const std::uint32_t* a, const std::uint32_t* b, const float* c, float* d, void* stream);
const char* launch_mma_bf16(const std::uint32_t* a, const std::uint32_t* b, const float* c, float* d, void* stream);
// ldmatrix of `count` (2 or 4) 8x8 matrices x [count * 8][8] into registers y [32][count].
const char* launch_ldmatrix(const std::uint16_t* x, std::uint32_t* y, int count, bool transposed, void* stream);
// x[4 * threads] to y in two groups of copies, every third replaced by zeros; `step` leaves out what makes it right:
// 0 nothing, 1 the wait, 2 the barrier, 3 waits for the first group only.
const char* launch_async_copy(const float* x, float* y, int threads, int step, void* stream);
// A kernel with the named mistake, on x[n] and y[n], n = 64 threads.
const char* launch_mistake(const std::string& name, const float* x, float* y, void* stream);

}  // namespace emu
