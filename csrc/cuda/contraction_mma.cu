#include "contraction_mma.cuh"

namespace ebp {
namespace {

template <class Format, bool split_source, Loads loads>
const char* launch_format(const Contraction& d, const LaunchArgs& args, const Split& split, void* stream) {
  static_assert(MmaTile::depth == tile_depth && sizeof(MmaStages<loads>) <= 48 * 1024, "two blocks a processor of 100 KB");
  const Grid grid{grid_of(d, MmaTile::rows, MmaTile::columns, split.count), MmaTile::threads, sizeof(MmaStages<loads>)};
  return launch(contraction_mma_kernel<Format, split_source, loads>, grid, stream, d, args.from, args.epilogue, split);
}

// The two combinations that occur: weights [O, I / groups, kh, kw] lie along the terms going up and along the columns
// going down, and only going down the source is split.
template <class Format>
const char* launch_loads(const Contraction& d, const Schedule& schedule, const LaunchArgs& args, const Split& split,
                         void* stream) {
  return schedule.split_source ? launch_format<Format, true, Loads::along_columns>(d, args, split, stream)
                               : launch_format<Format, false, Loads::along_terms>(d, args, split, stream);
}

}  // namespace

const char* launch_mma(const Contraction& d, const Schedule& schedule, const LaunchArgs& args, const Split& split,
                       void* stream) {
  const char* reason = mma_refuses(d, schedule.precision, schedule.split_source, current_arch(), schedule.loads,
                                   args.from.source, args.from.weight);
  if (reason != nullptr) return reason;
  return schedule.precision == Precision::tf32 ? launch_loads<Tf32>(d, schedule, args, split, stream)
                                               : launch_loads<Bf16>(d, schedule, args, split, stream);
}

}  // namespace ebp
