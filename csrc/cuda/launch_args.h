// What the contraction kernels and their launches need beside launchers.h.
#pragma once

#include "launch.h"
#include "launchers.h"
#include "schedule.h"

namespace ebp {

// Split-k: `count` blocks share the terms of a tile, `chunks` steps each. Their sums go to
// `partial` [count, number of sums, target_total], which a second kernel adds up, unless count is 1.
struct Split {
  int count, chunks;
  float* partial;
};

// Blocks for tiles of rows x columns, for every phase, group and part of the terms.
inline dim3 grid_of(const Contraction& d, int rows, int columns, int splits) {
  return {unsigned((most_rows(d) + rows - 1) / rows), unsigned((d.targets + columns - 1) / columns),
          unsigned(phases(d) * d.groups * splits)};
}

// Method::mma, for one sum. It leaves partial sums where split.count > 1.
const char* launch_mma(const Contraction&, const Schedule&, const LaunchArgs&, const Split&, void* stream);

}  // namespace ebp
