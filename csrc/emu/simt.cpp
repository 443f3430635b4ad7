#include "simt.h"

#include <cxxabi.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <numeric>
#include <random>
#include <utility>

#include "block.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emu {

namespace {

constexpr unsigned most_threads = 1024;

struct ThreadOrder {
  Order order = Order::forward;
  std::mt19937_64 random;

  std::vector<int> of(int count) {
    std::vector<int> numbers(static_cast<std::size_t>(count));
    std::iota(numbers.begin(), numbers.end(), 0);
    if (order == Order::reversed) std::reverse(numbers.begin(), numbers.end());
    if (order == Order::shuffled) std::shuffle(numbers.begin(), numbers.end(), random);
    return numbers;
  }
};

ThreadOrder thread_order;
std::string host_fault;
std::set<std::string> names;

std::vector<std::unique_ptr<Thread>>& threads(int count) {
  static std::vector<std::unique_ptr<Thread>> all;
  while (all.size() < std::size_t(count)) all.push_back(std::make_unique<Thread>());
  return all;
}

void check(const Launch& launch) {
  const dim3 &b = launch.blocks, &t = launch.threads;
  const auto refuse = [&](const std::string& why) { throw Fault(launch.kernel + ": " + why); };
  const std::uint64_t per_block = std::uint64_t(t.x) * t.y * t.z;
  if (b.x == 0 || b.y == 0 || b.z == 0 || per_block == 0) refuse("an empty grid or block");
  if (b.y > 65535 || b.z > 65535) refuse("a grid of more than 65535 blocks along y or z");
  if (per_block > most_threads || t.z > 64) refuse("a block of " + std::to_string(per_block) + " threads");
  const std::size_t limit = std::min(launch.shared_limit, most_shared_bytes);
  if (launch.shared_bytes > limit) {
    refuse(std::to_string(launch.shared_bytes) + " bytes of shared memory, the limit is " + std::to_string(limit));
  }
}

// "void ebp::f<(ebp::P)0, float>(int)" -> "f<(ebp::P)0, float>"
std::string without_types(const std::string& name) {
  std::size_t begin = 0, end = 0;
  for (int depth = 0; end < name.size() && (depth > 0 || name[end] != '('); ++end) {
    if (name[end] == '<') ++depth;
    if (name[end] == '>') --depth;
    if (depth == 0 && (name[end] == ' ' || name[end] == ':')) begin = end + 1;
  }
  return name.substr(begin, end - begin);
}

Block& block() {
  if (current_block() == nullptr) throw Fault("a function for CUDA threads was called outside of a kernel");
  return *current_block();
}

}  // namespace

void set_order(Order order, std::uint64_t seed) {
  thread_order.order = order;
  thread_order.random.seed(seed);
}

void run(const Launch& launch, const std::function<void()>& thread) {
  check(launch);
  names.insert(launch.kernel);
  blockDim = launch.threads;
  gridDim = launch.blocks;
  const int count = int(launch.threads.x * launch.threads.y * launch.threads.z);
  Block block(launch, thread, threads(count));
  first_block_of_launch = next_block();
  const std::uint64_t blocks = std::uint64_t(launch.blocks.x) * launch.blocks.y * launch.blocks.z;
  for (const int i : thread_order.of(int(blocks))) {
    const auto at = unsigned(i);
    block.run({at % launch.blocks.x, at / launch.blocks.x % launch.blocks.y, at / launch.blocks.x / launch.blocks.y},
              thread_order.of(count));
  }
}

std::string kernel_name(const void* kernel) {
  Dl_info info{};
  if (dladdr(kernel, &info) == 0 || info.dli_sname == nullptr) return "a kernel";
  char* demangled = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, nullptr);
  std::string name = demangled != nullptr ? demangled : info.dli_sname;
  std::free(demangled);
  return without_types(name);
}

std::size_t& shared_limit_of(const void* kernel) {
  static std::map<const void*, std::size_t> limits;
  return limits.try_emplace(kernel, 48 * 1024).first->second;
}

std::set<std::string> launched() { return names; }

void note_host_fault(const std::string& what) { host_fault = what; }

std::string take_host_fault() { return std::exchange(host_fault, ""); }

void fail(const std::string& what) { block().fail(what); }

int lane() { return block().self().lane(); }

void* dynamic_shared(std::size_t bytes, std::size_t alignment) {
  if (bytes > block().launch().shared_bytes || alignment > 128) {
    fail("wants " + std::to_string(bytes) + " bytes of shared memory at a multiple of " + std::to_string(alignment) +
         ", launched with " + std::to_string(block().launch().shared_bytes) + " bytes at a multiple of 128");
  }
  return block().shared();
}

void block_barrier(const Site& site) { block().wait_for_block(site); }

void warp_meeting(unsigned mask, const Site& site, void* mine, void (*together)(void* const* lanes)) {
  block().meet(mask, site, mine, together);
}

void warp_barrier(unsigned mask, const Site& site) {
  block().meet(mask, site, nullptr, [](void* const*) { block().order_warp(); });
}

}  // namespace emu
