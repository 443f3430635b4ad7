#include <climits>

#include "contraction_simt.cuh"
#include "depthwise.cuh"

namespace ebp {
namespace {

using Large = SimtTile<128, 64, 8, 8>;
using Small = SimtTile<64, 64, 4, 4>;
using Pair = SimtTile<64, 64, 8, 4>;  // for two sums

template <class Tile, int sums, Loads loads>
const char* launch_simt(const Contraction& d, const TileArgs& args, void* stream) {
  constexpr std::size_t bytes = sizeof(SimtStages<Tile, sums>);
  static_assert(Tile::depth == tile_depth && bytes <= 48 * 1024, "two blocks a processor of 100 KB");
  static_assert(sizeof(SimtSumTile<Tile, sums>) <= bytes, "sums take the place of the stages");
  const dim3 blocks = grid_of(d, Tile::rows, Tile::columns, args.split.count);
  return launch(contraction_simt_kernel<Tile, sums, loads>, {blocks, Tile::threads, bytes}, stream, d, args);
}

template <int sums>
const char* launch_tiles(const Contraction& d, const Schedule& schedule, const TileArgs& args, void* stream) {
  const bool terms = schedule.loads == Loads::along_terms;
  if constexpr (sums == 2) {
    if (schedule.loads == Loads::along_columns) return "two sums need weights that lie along the terms";
    return terms ? launch_simt<Pair, 2, Loads::along_terms>(d, args, stream)
                 : launch_simt<Pair, 2, Loads::single>(d, args, stream);
  } else if (schedule.loads == Loads::single) {
    return launch_simt<Small, 1, Loads::single>(d, args, stream);
  } else if (schedule.large) {
    return terms ? launch_simt<Large, 1, Loads::along_terms>(d, args, stream)
                 : launch_simt<Large, 1, Loads::along_columns>(d, args, stream);
  } else {
    return terms ? launch_simt<Small, 1, Loads::along_terms>(d, args, stream)
                 : launch_simt<Small, 1, Loads::along_columns>(d, args, stream);
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
const char* run(const Contraction& d, const Schedule& schedule, const LaunchArgs& asked, void* stream) {
  if (target_total(d) <= 0) return "contraction: the result is empty";
  TileArgs args{asked.from, asked.epilogue, {1, 1, asked.partial}, row_dividers(d, asked.epilogue)};
  Strides& gate_at = args.epilogue.gate_at;
  gate_at = without_unit_axes(gate_at, d.batch, d.groups * d.targets, d.h.target, d.w.target);
  if (schedule.method == Method::depthwise) {
    if (const char* reason = depthwise_refuses(d)) return reason;
    return launch_elements(depthwise_kernel<sums>, {target_total(d), ""}, stream, d, args);
  }
  if (const char* reason = simt_refuses(d)) return reason;
  args.epilogue.wide = can_be_wide(d, args.epilogue, asked.partial);
  if (schedule.loads != Loads::single) {
    const char* reason = quads_refused(d, schedule.loads, asked.from.source, asked.from.weight);
    if (reason != nullptr) return reason;
  }
  if (schedule.method == Method::mma && sums == 2) return "tensor cores compute one sum";
  args.split.count = schedule.splits;
  args.split.chunks = larger(1, ceil_div(ceil_div(most_terms(d), tile_depth), schedule.splits));
  const bool mma = schedule.method == Method::mma;
  const char* error = mma ? launch_mma(d, schedule, args, stream) : launch_tiles<sums>(d, schedule, args, stream);
  if (error != nullptr || schedule.splits == 1) return error;
  const int64_t total = target_total(d);
  if (!args.epilogue.wide || total > INT_MAX) {
    return launch_elements(split_epilogue_kernel<sums>, {total, ""}, stream, d, args);
  }
  const TargetQuads quads{int(total / 4), divider_of(d.groups * d.targets / 4), divider_of(d.w.target),
                          divider_of(d.h.target)};
  return launch_elements(split_epilogue_quads_kernel<sums>, {quads.total, ""}, stream, d, args, quads);
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
