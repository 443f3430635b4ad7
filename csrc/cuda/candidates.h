// Every way in which a contraction can be computed: for tests that try them all, and for measurements that compare
// them.
#pragma once

#include <cstddef>

#include "schedule.h"

namespace ebp {

// Calls `visit` with every schedule that the predicates admit, in each of `count` numbers of splits, for one sum, or
// for two where there is a weight_plus. `going_down`, the source is signed.
template <class Visit>
void each_candidate(const Contraction& d, bool going_down, int arch, const float* source, const float* weight,
                    const float* weight_plus, const int* splits, std::size_t count, Visit visit) {
  if (depthwise_refuses(d) == nullptr) visit(Schedule{Method::depthwise, Loads::single, false, 1});
  if (simt_refuses(d) != nullptr) return;
  const float* const weights[2] = {weight, weight_plus};
  const bool one_sum = weight_plus == nullptr;
  const Loads loads = loads_of(d, source, weights);
  for (std::size_t i = 0; i < count; ++i) {
    visit(Schedule{Method::simt, Loads::single, false, splits[i]});
    if (loads == Loads::single || (!one_sum && loads != Loads::along_terms)) continue;
    visit(Schedule{Method::simt, loads, false, splits[i]});
    if (!one_sum) continue;
    visit(Schedule{Method::simt, loads, true, splits[i]});
    for (const Precision precision : {Precision::tf32, Precision::bf16, Precision::tf32x3}) {
      if (mma_refuses(d, precision, going_down, arch, loads, source, weights) != nullptr) continue;
      visit(Schedule{Method::mma, loads, true, splits[i], precision, going_down});
    }
  }
}

}  // namespace ebp
