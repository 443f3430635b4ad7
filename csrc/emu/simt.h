// The emulator as kernels see it, through the CUDA names that cuda_runtime.h gives to it.
//
// The threads of a block are fibers on one OS thread, blocks run one after another. A thread runs until it waits for
// others, so whatever order of threads a kernel silently relies on, one of the three orders breaks it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <stdexcept>
#include <string>

#include "vectors.h"

namespace emu {

// What a kernel did that it must not do. The message names kernel, block, thread and what was done.
class Fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

enum class Order { forward, reversed, shuffled };

// Order of threads and blocks of the launches to come; `seed` is for shuffled.
void set_order(Order order, std::uint64_t seed);

struct Launch {
  std::string kernel;
  dim3 blocks, threads;
  std::size_t shared_bytes, shared_limit;
};

// Runs a whole grid, one call of `thread` per thread. Throws Fault.
void run(const Launch& launch, const std::function<void()>& thread);

// A fault outside of kernels, where nothing can be thrown; the caller of the launcher asks for it afterwards.
void note_host_fault(const std::string& what);
// What was noted since the last call, or "".
std::string take_host_fault();

// Names of all kernels launched so far.
std::set<std::string> launched();

// "conv_sweep_kernel<float>" for the address of a kernel.
std::string kernel_name(const void* kernel);

constexpr int warp_lanes = 32;
constexpr unsigned full_mask = 0xffffffffu;

// A call at which threads wait for each other.
struct Site {
  const char* call;
  const char* file;
  int line;
};

// Parameters that say where a function was called.
#define EMU_SITE() const char *file = __builtin_FILE(), int line = __builtin_LINE()

// The following are called by threads only.

// Ends the launch with a Fault.
[[noreturn]] void fail(const std::string& what);
int lane();
void* dynamic_shared(std::size_t bytes, std::size_t alignment);
void block_barrier(const Site& site);
// Waits for all lanes of the mask; the last to come calls together(lanes), lanes[i] being what lane i passed as `mine`,
// or null where i is not in the mask.
void warp_meeting(unsigned mask, const Site& site, void* mine, void (*together)(void* const* lanes));
// The same, and orders the memory accesses of the lanes.
void warp_barrier(unsigned mask, const Site& site);

}  // namespace emu

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
