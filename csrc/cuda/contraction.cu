#include "contraction_simt.cuh"
#include "depthwise.cuh"

namespace ebp {
namespace {

using Large = SimtTile<128, 64, 8, 8>;
using Small = SimtTile<64, 64, 4, 4>;
using Pair = SimtTile<64, 64, 8, 4>;  // for two sums

template <class Tile, int sums, Loads loads>
const char* launch_simt(const Contraction& d, const LaunchArgs& args, const Split& split, void* stream) {
  static_assert(Tile::depth == tile_depth && sizeof(SimtStages<Tile, sums>) <= 48 * 1024, "two blocks a processor of 100 KB");
  const dim3 blocks = grid_of(d, Tile::rows, Tile::columns, split.count);
  const Grid grid{blocks, Tile::threads, sizeof(SimtStages<Tile, sums>)};
  return launch(contraction_simt_kernel<Tile, sums, loads>, grid, stream, d, args.from, args.epilogue, split);
}

template <int sums>
const char* launch_tiles(const Contraction& d, const Schedule& schedule, const LaunchArgs& args, const Split& split,
                         void* stream) {
  const bool terms = schedule.loads == Loads::along_terms;
  if constexpr (sums == 2) {
    if (schedule.loads == Loads::along_columns) return "two sums need weights that lie along the terms";
    return terms ? launch_simt<Pair, 2, Loads::along_terms>(d, args, split, stream)
                 : launch_simt<Pair, 2, Loads::single>(d, args, split, stream);
  } else if (schedule.loads == Loads::single) {
    return launch_simt<Small, 1, Loads::single>(d, args, split, stream);
  } else if (schedule.large) {
    return terms ? launch_simt<Large, 1, Loads::along_terms>(d, args, split, stream)
                 : launch_simt<Large, 1, Loads::along_columns>(d, args, split, stream);
  } else {
    return terms ? launch_simt<Small, 1, Loads::along_terms>(d, args, split, stream)
                 : launch_simt<Small, 1, Loads::along_columns>(d, args, split, stream);
  }
}

bool can_be_wide(const Contraction& d, const Epilogue& e, const float* partial) {
  const auto quads = [&](const Strides& s) { return s.c == 1 && s.n % 4 == 0 && s.h % 4 == 0 && s.w % 4 == 0; };
  const auto aligned = [](const float* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  const bool gate = e.gate == nullptr || (quads(e.gate_at) && aligned(e.gate));
  return d.targets % 4 == 0 && quads(d.target) && gate && aligned(e.to) && aligned(e.addend) && aligned(e.side) &&
         aligned(partial);
}

template <int sums>
const char* run(const Contraction& d, const Schedule& schedule, LaunchArgs args, void* stream) {
  Epilogue& epilogue = args.epilogue;
  if (target_total(d) <= 0) return "contraction: the result is empty";
  epilogue.gate_at =
      without_unit_axes(epilogue.gate_at, d.batch, d.groups * d.targets, d.h.target, d.w.target);
  if (schedule.method == Method::depthwise) {
    if (const char* reason = depthwise_refuses(d)) return reason;
    return launch_elements(depthwise_kernel<sums>, {target_total(d), ""}, stream, d, args.from, epilogue);
  }
  if (const char* reason = simt_refuses(d)) return reason;
  epilogue.wide = can_be_wide(d, epilogue, args.partial);
  if (schedule.loads != Loads::single) {
    const char* reason = quads_refused(d, schedule.loads, args.from.source, args.from.weight);
    if (reason != nullptr) return reason;
  }
  if (schedule.method == Method::mma && sums == 2) return "tensor cores compute one sum";
  const int chunks = ceil_div(most_terms(d), tile_depth);
  const Split split{schedule.splits, larger(1, ceil_div(chunks, schedule.splits)), args.partial};
  const bool mma = schedule.method == Method::mma;
  const char* error = mma ? launch_mma(d, schedule, args, split, stream) : launch_tiles<sums>(d, schedule, args, split, stream);
  if (error != nullptr || schedule.splits == 1) return error;
  return launch_elements(split_epilogue_kernel<sums>, {target_total(d), ""}, stream, d, epilogue, split);
}

}  // namespace

int current_arch() {
  int device = 0, major = 0, minor = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  return 10 * major + minor;
}

const char* launch_contraction(const Contraction& d, const Schedule& schedule, const LaunchArgs& args, void* stream) {
  return run<1>(d, schedule, args, stream);
}

const char* launch_excitation(const Contraction& d, const Schedule& schedule, const LaunchArgs& args, void* stream) {
  return run<2>(d, schedule, args, stream);
}

}  // namespace ebp
