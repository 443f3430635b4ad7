// What a contraction's kernels and their launches need beside the contraction itself.
#pragma once

#include "launch.h"
#include "launchers.h"
#include "schedule.h"

namespace ebp {

struct Operands {
  const float* source;
  const float* weight[2];
};

// One sum (W+): to = sum, plus the addend where there is one, times the gate where there is one, which the K columns of an
// image share.
// Two sums (W, W+): to = sum + bias, through a ReLU where `relu`; side = z, or y / z where `side_is_gate`.
struct Ending {
  float* to;
  const float* addend;  // lies as `to`
  const float* gate;
  Strides gate_at;
  int columns;
  const float* bias;
  float* side;  // lies as `to`
  bool relu, side_is_gate;
  bool wide;  // four neighbouring channels at a time: whole quads, aligned, in all that is read and written
};

// The parts of the terms that blocks of their own sum up: `count` parts of `chunks` tiles each. Their sums go to
// `partial` [count, number of sums, target_total], unless there is one part only.
struct Split {
  int count, chunks;
  float* partial;
};

struct Job {
  Operands from;
  Ending ending;
  Split split;
  void* stream;
};

// Blocks for tiles of rows x columns, for every phase, group and part of the terms.
inline dim3 grid_of(const Contraction& d, int rows, int columns, int splits) {
  return {unsigned((most_rows(d) + rows - 1) / rows), unsigned((d.targets + columns - 1) / columns),
          unsigned(phases(d) * d.groups * splits)};
}

// Method::mma, for one sum.
const char* launch_mma(const Contraction&, const Schedule&, const Job&);

}  // namespace ebp
