#include "contraction_mma.cuh"

namespace ebp {
namespace {

template <class Format, bool split_source, Loads loads>
const char* launch_format(const Contraction& d, const TileArgs& args, void* stream) {
  constexpr std::size_t bytes = sizeof(MmaStages<loads>);
  static_assert(MmaTile::depth == tile_depth && bytes <= 48 * 1024, "two blocks a processor of 100 KB");
  static_assert(sizeof(MmaSumTile) <= bytes, "sums take the place of the stages");
  const dim3 blocks = grid_of(d, MmaTile::rows, MmaTile::columns, args.split.count);
  return launch(contraction_mma_kernel<Format, split_source, loads>, {blocks, MmaTile::threads, bytes}, stream, d,
                args);
}

// The two combinations that occur: weights [O, I / groups, kh, kw] lie along the terms going up and along the columns
// going down, and only going down the source is split.
template <class Format>
const char* launch_loads(const Contraction& d, const Schedule& schedule, const TileArgs& args, void* stream) {
  return schedule.split_source ? launch_format<Format, true, Loads::along_columns>(d, args, stream)
                               : launch_format<Format, false, Loads::along_terms>(d, args, stream);
}

}  // namespace

const char* launch_mma(const Contraction& d, const Schedule& schedule, const TileArgs& args, void* stream) {
  const char* reason = mma_refuses(d, schedule.precision, schedule.split_source, current_arch(), schedule.loads,
                                   args.from.source, args.from.weight);
  if (reason != nullptr) return reason;
  switch (schedule.precision) {
    case Precision::tf32:
      return launch_loads<Tf32>(d, schedule, args, stream);
    case Precision::bf16:
      return launch_loads<Bf16>(d, schedule, args, stream);
    case Precision::tf32x3:
      return launch_format<Tf32x3, true, Loads::along_terms>(d, args, stream);
    case Precision::fp32:
      break;
  }
  return "tensor cores multiply no fp32";
}

}  // namespace ebp
