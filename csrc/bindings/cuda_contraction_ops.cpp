// The convolutions on CUDA: parameters, the choice of a kernel, an output and partial sums from torch's allocator, and the
// launches on torch's current stream.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <optional>
#include <string>
#include <tuple>
#include <type_traits>

#include "../cuda/schedule.h"
#include "on_device.h"

namespace ebp::cuda {

namespace {

using torch::headeronly::ScalarType;

Precision precision_of(const Operand& x, const std::string& name) {
  for (const Precision p : {Precision::fp32, Precision::tf32, Precision::bf16}) {
    if (name == name_of(p)) {
      EBP_REQUIRE(p == Precision::fp32 || x.tensor.scalar_type() == ScalarType::Float, "ebp_cuda::", x.op, ": precision='",
                  name, "' is one of float32 tensors, got ", x.name, " of ",
                  torch::headeronly::toString(x.tensor.scalar_type()));
      return p;
    }
  }
  refuse("ebp_cuda::", x.op, ": precision must be fp32, tf32 or bf16, got '", name, "'");
}

Strides strides_of(const Tensor& t) { return {t.stride(0), t.stride(1), t.stride(2), t.stride(3)}; }

// Of one kind, with every element at the same place. Strides of axes of length 1 say nothing.
bool lies_as(const Tensor& a, const Tensor& b) {
  bool same = shape_of(a) == shape_of(b) && a.scalar_type() == b.scalar_type() && a.device() == b.device();
  for (int64_t axis = 0; same && axis < a.dim(); ++axis) same = a.size(axis) == 1 || a.stride(axis) == b.stride(axis);
  return same;
}

// The factor of a result, shared by the columns of an image; or none.
struct Gate {
  const std::optional<Tensor>& tensor;
  Rows rows{};

  Gate(const char* op, const std::optional<Tensor>& tensor, const Tensor& result) : tensor(tensor) {
    if (tensor.has_value()) rows = rows_of({op, "the result", result}, {op, "gate", *tensor});
  }
};

Tensor rounded_to(const Operand& x, Precision precision) {
  Tensor y = empty_as(x.tensor);
  on_device(x, y, [&](auto zero, void* stream) -> const char* {
    using T = decltype(zero);
    if constexpr (!std::is_same_v<T, float>) return "tf32 and bf16 are of float32";
    else return launch_round(y.numel(), data<T>(x.tensor), precision, mutable_data<T>(y), stream);
  });
  return y;
}

// Whether the factors must be rounded beforehand: the kernel that will run multiplies what it is given.
bool takes_rounded(const Schedule& schedule, Precision wanted) {
  return wanted != Precision::fp32 && schedule.method != Method::mma;
}

// The tiled kernels, or nothing where none of them can.
bool contract(const Contraction& d, const Schedule& schedule, const Tensor& source, const Tensor& w,
              const std::optional<Tensor>& addend, const Gate& gate, Tensor& to, void* stream, const char** error) {
  if (schedule.method == Method::naive) return false;
  const int64_t needed = partial_total(d, schedule, 1);
  Tensor partial = empty_as(to, {needed, 1, 1, 1});
  const bool gated = gate.tensor.has_value();
  *error = launch_contraction(d, schedule, data<float>(source), data<float>(w),
                              addend.has_value() ? data<float>(*addend) : nullptr,
                              gated ? data<float>(*gate.tensor) : nullptr, gated ? strides_of(*gate.tensor) : Strides{},
                              int(gate.rows.columns), mutable_data<float>(to),
                              needed > 0 ? mutable_data<float>(partial) : nullptr, stream);
  return true;
}

}  // namespace

Tensor rounded(const Tensor& x, const std::string& precision) {
  const Operand operand{"rounded", "x", x};
  const Precision wanted = precision_of(operand, precision);
  EBP_REQUIRE(wanted != Precision::fp32, "ebp_cuda::rounded: precision must be tf32 or bf16");
  return rounded_to(operand, wanted);
}

Tensor conv2d_normalizer(const Tensor& x, const Tensor& w_plus, const Ints& stride, const Ints& padding,
                         const Ints& dilation, int64_t groups, const std::string& precision) {
  const Operand operand{"conv2d_normalizer", "x", x};
  const Precision wanted = precision_of(operand, precision);
  Conv2d d =
      conv_of(operand, {"conv2d_normalizer", "w_plus", w_plus}, plane_of(operand), {stride, padding, dilation, groups});
  EBP_REQUIRE(x.size(1) == d.in_channels, "ebp_cuda::conv2d_normalizer: x has ", x.size(1), " channels, w_plus wants ",
              d.in_channels);
  Tensor z = empty_as(x, {d.batch, d.out_channels, d.h.out, d.w.out});
  set_strides(d, x, z);
  on_device(operand, z, [&](auto zero, void* stream) -> const char* {
    using T = decltype(zero);
    if constexpr (std::is_same_v<T, float>) {
      const Contraction up = contraction_up(d, strides_of(w_plus));
      const Schedule how = schedule_of(up, wanted, false, current_arch(), data<T>(x), data<T>(w_plus), nullptr);
      if (takes_rounded(how, wanted)) {
        const Operand w{operand.op, "w_plus", w_plus};
        z = conv2d_normalizer(rounded_to(operand, wanted), rounded_to(w, wanted), stride, padding, dilation, groups, "fp32");
        return nullptr;
      }
      const char* error = nullptr;
      if (contract(up, how, x, w_plus, std::nullopt, {operand.op, std::nullopt, z}, z, stream, &error)) return error;
    }
    const Tensor dense = torch::stable::contiguous(w_plus);
    return launch_conv_normalizer(d, data<T>(x), data<T>(dense), mutable_data<T>(z), stream);
  });
  return z;
}

Tensor conv2d_sweep(const Tensor& r, const Tensor& w_plus, const Ints& in_size, const Ints& stride, const Ints& padding,
                    const Ints& dilation, int64_t groups, const std::optional<Tensor>& gate,
                    const std::string& precision, const std::optional<Tensor>& addend) {
  const Operand operand{"conv2d_sweep", "r", r};
  const Precision wanted = precision_of(operand, precision);
  Conv2d d = conv_of(operand, {"conv2d_sweep", "w_plus", w_plus}, in_size, {stride, padding, dilation, groups});
  EBP_REQUIRE(r.dim() == 4 && r.size(1) == d.out_channels && r.size(2) == d.h.out && r.size(3) == d.w.out,
              "ebp_cuda::conv2d_sweep: r must be [N, ", d.out_channels, ", ", d.h.out, ", ", d.w.out, "]");
  Tensor below = empty_as(r, {d.batch, d.in_channels, d.h.in, d.w.in});
  const Gate factor(operand.op, gate, below);
  EBP_REQUIRE(!addend.has_value() || lies_as(*addend, below),
              "ebp_cuda::conv2d_sweep: addend must be a tensor beside r that lies as the result");
  set_strides(d, below, r);
  on_device(operand, below, [&](auto zero, void* stream) -> const char* {
    using T = decltype(zero);
    const char* error = nullptr;
    if constexpr (std::is_same_v<T, float>) {
      const Contraction down = contraction_down(d, strides_of(w_plus));
      const Schedule how = schedule_of(down, wanted, true, current_arch(), data<T>(r), data<T>(w_plus), nullptr);
      if (takes_rounded(how, wanted)) {  // fp32 holds r whole, which two summands would
        const Tensor w = rounded_to({operand.op, "w_plus", w_plus}, wanted);
        below = conv2d_sweep(r, w, in_size, stride, padding, dilation, groups, gate, "fp32", addend);
        return nullptr;
      }
      if (contract(down, how, r, w_plus, addend, factor, below, stream, &error)) return error;
    }
    const Tensor dense = torch::stable::contiguous(w_plus);
    Tensor t = gate.has_value() || addend.has_value() ? empty_as(below) : below;
    error = launch_conv_sweep(d, data<T>(r), data<T>(dense), mutable_data<T>(t), stream);
    if (error == nullptr && addend.has_value()) {
      Tensor sum = gate.has_value() ? empty_as(below) : below;
      error = launch_add(t.numel(), data<T>(*addend), data<T>(t), mutable_data<T>(sum), stream);
      t = sum;
    }
    if (error != nullptr || !gate.has_value()) return error;
    return launch_gate(factor.rows, data<T>(t), data<T>(*gate), mutable_data<T>(below), stream);
  });
  return below;
}

std::tuple<Tensor, Tensor> conv2d_excitation(const Tensor& x, const Tensor& w, const Tensor& w_plus,
                                             const std::optional<Tensor>& bias, const Ints& stride, const Ints& padding,
                                             const Ints& dilation, int64_t groups, bool relu, bool as_gate) {
  const Operand operand{"conv2d_excitation", "x", x};
  const ConvShape shape{stride, padding, dilation, groups};
  Conv2d d = conv_of(operand, {operand.op, "w", w}, plane_of(operand), shape);
  conv_of(operand, {operand.op, "w_plus", w_plus}, plane_of(operand), shape);
  EBP_REQUIRE(x.scalar_type() == ScalarType::Float, "ebp_cuda::conv2d_excitation: x must be float32 on CUDA, got ",
              torch::headeronly::toString(x.scalar_type()));
  EBP_REQUIRE(x.size(1) == d.in_channels, "ebp_cuda::conv2d_excitation: x has ", x.size(1), " channels, w wants ",
              d.in_channels);
  EBP_REQUIRE(shape_of(w) == shape_of(w_plus) && w.strides().equals(w_plus.strides()),
              "ebp_cuda::conv2d_excitation: w and w_plus must have one shape and one memory format");
  EBP_REQUIRE(!bias.has_value() || (bias->is_contiguous() && shape_of(*bias) == Ints{d.out_channels} &&
                                    bias->scalar_type() == ScalarType::Float && bias->device() == x.device()),
              "ebp_cuda::conv2d_excitation: bias must be float32 [", d.out_channels, "] beside x");
  Tensor y = empty_as(x, {d.batch, d.out_channels, d.h.out, d.w.out}), side = empty_as(y);
  set_strides(d, x, y);
  on_device(operand, y, [&](auto, void* stream) {
    const Contraction up = contraction_up(d, strides_of(w));
    const Schedule how = schedule_of(up, Precision::fp32, false, current_arch(), data<float>(x), data<float>(w),
                                     data<float>(w_plus));
    if (how.method == Method::naive) return simt_refuses(up);
    const int64_t needed = partial_total(up, how, 2);
    Tensor partial = empty_as(y, {needed, 1, 1, 1});
    return launch_excitation(up, how, data<float>(x), data<float>(w), data<float>(w_plus),
                             bias.has_value() ? data<float>(*bias) : nullptr, relu, as_gate, mutable_data<float>(y),
                             mutable_data<float>(side), needed > 0 ? mutable_data<float>(partial) : nullptr, stream);
  });
  return {y, side};
}

STABLE_TORCH_LIBRARY_IMPL(ebp_cuda, EBP_CUDA_KEY, m) {
  m.impl("rounded", TORCH_BOX(&rounded));
  m.impl("conv2d_normalizer", TORCH_BOX(&conv2d_normalizer));
  m.impl("conv2d_sweep", TORCH_BOX(&conv2d_sweep));
  m.impl("conv2d_excitation", TORCH_BOX(&conv2d_excitation));
}

}  // namespace ebp::cuda
