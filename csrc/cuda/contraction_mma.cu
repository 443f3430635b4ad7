#include "contraction_mma.cuh"

namespace ebp {
namespace {

template <class Format, bool split_source, Loads loads>
const char* launch_format(const Contraction& d, const Job& job) {
  static_assert(MmaTile::depth == tile_depth && sizeof(MmaStages<loads>) <= 48 * 1024, "two blocks a processor of 100 KB");
  const Grid grid{grid_of(d, MmaTile::rows, MmaTile::columns, job.split.count), MmaTile::threads, sizeof(MmaStages<loads>)};
  const auto kernel = contraction_mma_kernel<Format, split_source, loads>;
  return launch(kernel, grid, job.stream, d, job.from, job.ending, job.split);
}

// The two that there are: weights [O, I / groups, kh, kw] lie along the terms going up, along the columns going down, and
// it is going down that the source is split.
template <class Format>
const char* launch_loads(const Contraction& d, const Schedule& schedule, const Job& job) {
  return schedule.split_source ? launch_format<Format, true, Loads::along_columns>(d, job)
                               : launch_format<Format, false, Loads::along_terms>(d, job);
}

}  // namespace

const char* launch_mma(const Contraction& d, const Schedule& schedule, const Job& job) {
  const char* reason = mma_refuses(d, schedule.precision, schedule.split_source, current_arch(), schedule.loads,
                                   job.from.source, job.from.weight);
  if (reason != nullptr) return reason;
  return schedule.precision == Precision::tf32 ? launch_loads<Tf32>(d, schedule, job)
                                               : launch_loads<Bf16>(d, schedule, job);
}

}  // namespace ebp
