#include <cuda_runtime.h>

#include <map>

#include "../cuda/launch.h"
#include "../cuda/shared.cuh"
#include "memory.h"
#include "ptx_model.h"
#include "specimens.h"

namespace emu {

using ebp::shared_memory;

namespace {

constexpr int threads = 64;

struct Line {
  float at[threads];
};

using Kernel = void(const float* x, float* y, int i);

__global__ void barrier_after_an_end(const float*, float*, int i) {
  if (i >= 40) return;
  __syncthreads();
}

__global__ void two_barriers(const float*, float*, int i) {
  if (i < 8) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void barrier_and_warp(const float*, float* y, int i) {
  if (i < 32) __syncthreads();
  if (i >= 32 && i < 40) y[i] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}

__global__ void read_too_early(const float* x, float* y, int i) {
  Line& line = shared_memory<Line>();
  line.at[i] = x[i];
  y[i] = line.at[(i + 33) % threads];
}

__global__ void overwrite_too_early(const float* x, float* y, int i) {
  Line& line = shared_memory<Line>();
  line.at[i] = x[i];
  __syncthreads();
  y[i] = line.at[threads - 1 - i];
  line.at[i] = 0;
}

__global__ void warp_order_across_warps(const float* x, float* y, int i) {
  Line& line = shared_memory<Line>();
  line.at[i] = x[i];
  __syncwarp();
  y[i] = line.at[threads - 1 - i];
}

__global__ void unwritten_shared(const float*, float* y, int i) { y[i] = shared_memory<Line>().at[i]; }
__global__ void shared_out_of_bounds(const float*, float*, int i) { (&shared_memory<Line>().at[0])[i + 1] = 0; }
__global__ void shared_too_small(const float*, float*, int) { shared_memory<Line[2]>()[1].at[0] = 0; }
__global__ void read_out_of_bounds(const float* x, float* y, int i) { y[i] = x[i + 1]; }
__global__ void read_before(const float* x, float* y, int i) { y[i] = x[i - 1]; }
__global__ void read_far_away(const float* x, float* y, int i) { y[i] = x[i + (1 << 20)]; }
__global__ void write_out_of_bounds(const float*, float* y, int i) { y[2 * i] = 0; }
__global__ void write_an_input(const float* x, float*, int i) { const_cast<float*>(x)[i] = 0; }
__global__ void read_unwritten(const float*, float* y, int i) { y[i] += 1; }
__global__ void two_writers(const float*, float* y, int i) { y[i / 2] = 1; }
__global__ void wide_access_out_of_bounds(const float* x, float* y, int i) {
  if (i == 0) *reinterpret_cast<float2*>(y) = *reinterpret_cast<const float2*>(x + threads);
}
__global__ void misaligned(const float* x, float* y, int i) {
  if (i == 0) y[0] = reinterpret_cast<const float4*>(x + 1)->x;
}

__global__ void absent_lane(const float*, float* y, int i) {
  if (i < 8) y[i] = __shfl_sync(0xffu, 1.0f, i + 4);
}
__global__ void mask_without_itself(const float*, float* y, int i) { y[i] = __shfl_sync(0xffu, 1.0f, 0); }
__global__ void two_warp_calls(const float*, float* y, int i) {
  if (i % 2) {
    y[i] = __shfl_xor_sync(0xffffffffu, 1.0f, 2);
  } else {
    y[i] = __shfl_xor_sync(0xffffffffu, 2.0f, 2);
  }
}

__global__ void unrounded_operand(const float* x, float* y, int i) {
  const std::uint32_t a[4] = {__float_as_uint(x[i]), 0, 0, 0}, b[2] = {0, 0};
  float d[4] = {0, 0, 0, 0};
  ebp::mma_tf32_m16n8k8(d, a, b);
  y[i] = d[0];
}

__global__ void misaligned_row(const float* x, float* y, int i) {
  Line& line = shared_memory<Line>();
  line.at[i] = x[i];
  __syncthreads();
  std::uint32_t r[2];
  ebp::ldmatrix_x2(r, &line.at[i % 16 + 1]);
  y[i] = float(r[0]);
}

__global__ void local_array(const float* x, float* y, int i) {
  float some[4] = {x[0], x[1], x[2], x[3]};
  y[i] = some[i];
}
__global__ void shift(const float*, float* y, int i) { y[i] = float(1 << (i + 1)); }
__global__ void overflow(const float*, float* y, int i) { y[i] = float(i * 100000000); }
__global__ void division(const float*, float* y, int i) { y[i] = float(100 / i); }

const std::map<std::string, Kernel*> mistakes{
    {"barrier_after_an_end", barrier_after_an_end},
    {"two_barriers", two_barriers},
    {"barrier_and_warp", barrier_and_warp},
    {"read_too_early", read_too_early},
    {"overwrite_too_early", overwrite_too_early},
    {"warp_order_across_warps", warp_order_across_warps},
    {"unwritten_shared", unwritten_shared},
    {"shared_out_of_bounds", shared_out_of_bounds},
    {"shared_too_small", shared_too_small},
    {"too_much_shared", unwritten_shared},
    {"read_out_of_bounds", read_out_of_bounds},
    {"read_before", read_before},
    {"read_far_away", read_far_away},
    {"write_out_of_bounds", write_out_of_bounds},
    {"write_an_input", write_an_input},
    {"read_unwritten", read_unwritten},
    {"two_writers", two_writers},
    {"wide_access_out_of_bounds", wide_access_out_of_bounds},
    {"misaligned", misaligned},
    {"absent_lane", absent_lane},
    {"mask_without_itself", mask_without_itself},
    {"two_warp_calls", two_warp_calls},
    {"unrounded_operand", unrounded_operand},
    {"misaligned_row", misaligned_row},
    {"local_array", local_array},
    {"shift", shift},
    {"overflow", overflow},
    {"division", division},
};

}  // namespace

__global__ void mistake_kernel(Kernel* body, const float* x, float* y) { body(x, y, int(threadIdx.x)); }

const char* launch_mistake(const std::string& name, const float* x, float* y, void* stream) {
  const auto found = mistakes.find(name);
  if (found == mistakes.end()) return "there is no mistake of this name";
  const std::size_t shared_bytes = name == "too_much_shared" ? most_shared_bytes + 1 : sizeof(Line);
  return ebp::launch(mistake_kernel, {1, threads, shared_bytes}, stream, found->second, x, y);
}

}  // namespace emu
