#include "contraction_simt.cuh"
#include "depthwise.cuh"

namespace ebp {
namespace {

using Large = SimtTile<128, 64, 8, 8>;
using LargePair = SimtTile<128, 64, 8, 4>;
using Small = SimtTile<64, 64, 4, 4>;

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
  if (schedule.loads == Loads::single) return launch_simt<Small, sums, Loads::single>(d, job);
  if constexpr (sums == 2) {
    if (!terms) return "two sums need weights that lie along the terms";
    return schedule.large ? launch_simt<LargePair, 2, Loads::along_terms>(d, job)
                          : launch_simt<Small, 2, Loads::along_terms>(d, job);
  } else {
    if (schedule.large) {
      return terms ? launch_simt<Large, 1, Loads::along_terms>(d, job) : launch_simt<Large, 1, Loads::along_columns>(d, job);
    }
    return terms ? launch_simt<Small, 1, Loads::along_terms>(d, job) : launch_simt<Small, 1, Loads::along_columns>(d, job);
  }
}

template <int sums>
const char* run(const Contraction& d, const Schedule& schedule, Job job, float* partial) {
  if (schedule.method == Method::depthwise) {
    if (const char* reason = depthwise_refuses(d)) return reason;
    return launch_elements(depthwise_kernel<sums>, target_total(d), job.stream, d, job.from, job.ending);
  }
  if (const char* reason = simt_refuses(d)) return reason;
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
                               const float* gate, const Strides& gate_at, int columns, float* to, float* partial,
                               void* stream) {
  const Ending ending{to, gate, gate_at, columns, nullptr, nullptr, false, false};
  return run<1>(d, schedule, {{source, {weight, nullptr}}, ending, {}, stream}, partial);
}

const char* launch_excitation(const Contraction& d, const Schedule& schedule, const float* source, const float* weight,
                              const float* weight_plus, const float* bias, bool relu, bool side_is_gate, float* to,
                              float* side, float* partial, void* stream) {
  const Ending ending{to, nullptr, {}, 1, bias, side, relu, side_is_gate};
  return run<2>(d, schedule, {{source, {weight, weight_plus}}, ending, {}, stream}, partial);
}

}  // namespace ebp
