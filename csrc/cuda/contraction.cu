#include "contraction_simt.cuh"
#include "depthwise.cuh"

namespace ebp {
namespace {

using Large = SimtTile<128, 64, 8, 8>;
using Small = SimtTile<64, 64, 4, 4>;
using Pair = SimtTile<64, 64, 8, 4>;  // for two sums

template <class Tile, int sums, Loads loads>
const char* launch_simt(const Contraction& d, const Job& job) {
  static_assert(Tile::depth == tile_depth && sizeof(SimtStages<Tile, sums>) <= 48 * 1024, "two blocks a processor of 100 KB");
  const dim3 blocks = grid_of(d, Tile::rows, Tile::columns, job.split.count);
  const Grid grid{blocks, Tile::threads, sizeof(SimtStages<Tile, sums>)};
  return launch(contraction_simt_kernel<Tile, sums, loads>, grid, job.stream, d, job.from, job.ending, job.split);
}

template <int sums>
const char* launch_tiles(const Contraction& d, const Schedule& schedule, const Job& job) {
  const bool terms = schedule.loads == Loads::along_terms;
  if constexpr (sums == 2) {
    if (schedule.loads == Loads::along_columns) return "two sums need weights that lie along the terms";
    return terms ? launch_simt<Pair, 2, Loads::along_terms>(d, job) : launch_simt<Pair, 2, Loads::single>(d, job);
  } else if (schedule.loads == Loads::single) {
    return launch_simt<Small, 1, Loads::single>(d, job);
  } else {
    if (schedule.large) {
      return terms ? launch_simt<Large, 1, Loads::along_terms>(d, job) : launch_simt<Large, 1, Loads::along_columns>(d, job);
    }
    return terms ? launch_simt<Small, 1, Loads::along_terms>(d, job) : launch_simt<Small, 1, Loads::along_columns>(d, job);
  }
}

bool can_be_wide(const Contraction& d, const Ending& e, const float* partial) {
  const auto quads = [&](const Strides& s) { return s.c == 1 && s.n % 4 == 0 && s.h % 4 == 0 && s.w % 4 == 0; };
  const auto aligned = [](const float* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  const bool gate = e.gate == nullptr || (quads(e.gate_at) && aligned(e.gate));
  return d.targets % 4 == 0 && quads(d.target) && gate && aligned(e.to) && aligned(e.addend) && aligned(e.side) &&
         aligned(partial);
}

template <int sums>
const char* run(const Contraction& d, const Schedule& schedule, Job job, float* partial) {
  if (schedule.method == Method::depthwise) {
    if (const char* reason = depthwise_refuses(d)) return reason;
    return launch_elements(depthwise_kernel<sums>, target_total(d), job.stream, d, job.from, job.ending);
  }
  if (const char* reason = simt_refuses(d)) return reason;
  job.ending.wide = can_be_wide(d, job.ending, partial);
  if (schedule.loads != Loads::single) {
    const char* reason = quads_refused(d, schedule.loads, job.from.source, job.from.weight);
    if (reason != nullptr) return reason;
  }
  const int chunks = (most_terms(d) + tile_depth - 1) / tile_depth;
  job.split = {schedule.splits, larger(1, (chunks + schedule.splits - 1) / schedule.splits), partial};
  if (schedule.method == Method::mma && sums == 2) return "tensor cores compute one sum";
  const bool mma = schedule.method == Method::mma;
  const char* error = mma ? launch_mma(d, schedule, job) : launch_tiles<sums>(d, schedule, job);
  if (error != nullptr || schedule.splits == 1) return error;
  return launch_elements(split_end_kernel<sums>, target_total(d), job.stream, d, job.ending, job.split);
}

}  // namespace

int current_arch() {
  int device = 0, major = 0, minor = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  return 10 * major + minor;
}

const char* launch_contraction(const Contraction& d, const Schedule& schedule, const float* source, const float* weight,
                               const float* addend, const float* gate, const Strides& gate_at, int columns, float* to,
                               float* partial, void* stream) {
  const Strides gates = telling(gate_at, d.batch, d.groups * d.targets, d.h.target, d.w.target);
  const Ending ending{to, addend, gate, gates, columns, nullptr, nullptr, false, false, false};
  return run<1>(d, schedule, {{source, {weight, nullptr}}, ending, {}, stream}, partial);
}

const char* launch_excitation(const Contraction& d, const Schedule& schedule, const float* source, const float* weight,
                              const float* weight_plus, const float* bias, bool relu, bool side_is_gate, float* to,
                              float* side, float* partial, void* stream) {
  const Ending ending{to, nullptr, nullptr, {}, 1, bias, side, relu, side_is_gate, false};
  return run<2>(d, schedule, {{source, {weight, weight_plus}}, ending, {}, stream}, partial);
}

}  // namespace ebp
