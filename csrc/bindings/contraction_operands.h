// From tensors to a contraction: shared by the convolutions on CUDA and by the question which kernel would run them.
#pragma once

#include <string>

#include "../cuda/schedule.h"
#include "operands.h"

namespace ebp {

inline Strides strides_of(const Tensor& t) { return {t.stride(0), t.stride(1), t.stride(2), t.stride(3)}; }

// `forward`: whether it may be tf32x3, which the forward alone is computed in.
inline Precision precision_of(const Operand& x, const std::string& name, bool forward = false) {
  for (const Precision p : all_precisions) {
    if (name != name_of(p) || (p == Precision::tf32x3 && !forward)) continue;
    EBP_REQUIRE(p == Precision::fp32 || x.tensor.scalar_type() == torch::headeronly::ScalarType::Float,
                "ebp_cuda::", x.op, ": precision='", name, "' is one of float32 tensors, got ", x.name, " of ",
                torch::headeronly::toString(x.tensor.scalar_type()));
    return p;
  }
  refuse("ebp_cuda::", x.op, ": precision must be fp32, tf32 or bf16, got '", name, "'");
}

// The contraction of a convolution whose strides are noted in d.
inline Contraction contraction_of(const Conv2d& d, const Tensor& weight, bool down) {
  return down ? contraction_down(d, strides_of(weight)) : contraction_up(d, strides_of(weight));
}

}  // namespace ebp
