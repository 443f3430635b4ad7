// The convolutions on CUDA: parameters, the choice of a kernel, an output and partial sums from torch's allocator, and
// the launches on torch's current stream.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <optional>
#include <string>
#include <tuple>
#include <type_traits>

#include "choices.h"
#include "contraction_operands.h"
#include "on_device.h"

namespace ebp::cuda {

namespace {

using torch::headeronly::ScalarType;

// Of one kind, with every element at the same place. Strides of axes of length 1 may be any number.
bool same_layout(const Tensor& a, const Tensor& b) {
  bool same = shape_of(a) == shape_of(b) && a.scalar_type() == b.scalar_type() && a.device() == b.device();
  for (int64_t axis = 0; same && axis < a.dim(); ++axis) same = a.size(axis) == 1 || a.stride(axis) == b.stride(axis);
  return same;
}

const float* floats_or_null(const std::optional<Tensor>& t) { return t.has_value() ? data<float>(*t) : nullptr; }

Tensor rounded_to(const Operand& x, Precision precision) {
  Tensor y = empty_as(x.tensor);
  on_device(x, y, [&](auto zero, void* stream) -> const char* {
    using T = decltype(zero);
    if constexpr (!std::is_same_v<T, float>)
      return "tf32 and bf16 are of float32";
    else
      return launch_round(y.numel(), data<T>(x.tensor), precision, mutable_data<T>(y), stream);
  });
  return y;
}

// What is added to a result, and the factor that the columns of an image share; either may be missing.
struct Finish {
  const std::optional<Tensor>&addend, &gate;
  Rows gate_rows{};

  Finish(const char* op, const std::optional<Tensor>& addend, const std::optional<Tensor>& gate, const Tensor& result)
      : addend(addend), gate(gate) {
    EBP_REQUIRE(!addend.has_value() || same_layout(*addend, result), "ebp_cuda::", op,
                ": addend must be a tensor beside r that lies as the result");
    if (gate.has_value()) gate_rows = rows_of({op, "the result", result}, {op, "gate", *gate});
  }
};

// A float32 convolution and the kernel for it. The kernel may want other tensors than were given: rounded ones.
struct Plan {
  Contraction problem;
  Schedule schedule;
  Tensor source, weight;
};

Plan plan_of(const Operand& source, const Operand& weight, const Conv2d& d, bool down, Precision precision) {
  const Contraction problem = contraction_of(d, weight.tensor, down);
  const float *from = data<float>(source.tensor), *weights = data<float>(weight.tensor);
  const Schedule schedule =
      schedule_of(problem, precision, down, current_arch(), from, weights, nullptr, choices_in_force());
  if (precision == Precision::fp32 || precision == Precision::tf32x3 || schedule.method == Method::mma) {
    return {problem, schedule, source.tensor, weight.tensor};
  }
  // Without tensor cores the operands are rounded beforehand. Going down r is not: fp32 holds it whole, as tensor cores
  // do by two summands.
  const Tensor x = down ? source.tensor : rounded_to(source, precision), w = rounded_to(weight, precision);
  return plan_of({source.op, source.name, x}, {weight.op, weight.name, w}, d, down, Precision::fp32);
}

// By the tiled or the depthwise kernels.
const char* contract(const Plan& plan, const Finish& finish, const float* bias, Tensor& to, void* stream) {
  const int64_t needed = partial_total(plan.problem, plan.schedule, 1);
  Tensor partial = empty_as(to, {needed, 1, 1, 1});
  LaunchArgs args;
  args.from.source = data<float>(plan.source);
  args.from.weight[0] = data<float>(plan.weight);
  args.epilogue.to = mutable_data<float>(to);
  args.epilogue.bias = bias;
  args.epilogue.addend = floats_or_null(finish.addend);
  if (finish.gate.has_value()) {
    args.epilogue.gate = data<float>(*finish.gate);
    args.epilogue.gate_at = strides_of(*finish.gate);
    args.epilogue.columns = int(finish.gate_rows.columns);
  }
  args.partial = needed > 0 ? mutable_data<float>(partial) : nullptr;
  return launch_contraction(plan.problem, plan.schedule, args, stream);
}

// The naive kernel down, and the addend and the gate after it, each by a kernel of its own.
template <class T>
const char* sweep_naively(const Conv2d& d, const Tensor& r, const Tensor& w, const Finish& finish, Tensor& to,
                          void* stream) {
  const Tensor dense = torch::stable::contiguous(w);
  const bool adds = finish.addend.has_value(), gates = finish.gate.has_value();
  Tensor swept = adds || gates ? empty_as(to) : to;
  const char* error = launch_conv_sweep(d, data<T>(r), data<T>(dense), mutable_data<T>(swept), stream);
  if (error == nullptr && adds) {
    Tensor sum = gates ? empty_as(to) : to;
    error = launch_add(to.numel(), data<T>(*finish.addend), data<T>(swept), mutable_data<T>(sum), stream);
    swept = sum;
  }
  if (error != nullptr || !gates) return error;
  return launch_gate(finish.gate_rows, data<T>(swept), data<T>(*finish.gate), mutable_data<T>(to), stream);
}

void check_channels(const Operand& x, const Conv2d& d, const char* weight) {
  EBP_REQUIRE(x.tensor.size(1) == d.in_channels, "ebp_cuda::", x.op, ": x has ", x.tensor.size(1), " channels, ",
              weight, " wants ", d.in_channels);
}

// Of the forward, which CUDA computes in float32 only.
void check_bias(const Operand& x, const Conv2d& d, const std::optional<Tensor>& bias) {
  EBP_REQUIRE(x.tensor.scalar_type() == ScalarType::Float, "ebp_cuda::", x.op, ": x must be float32 on CUDA, got ",
              torch::headeronly::toString(x.tensor.scalar_type()));
  EBP_REQUIRE(!bias.has_value() || (bias->is_contiguous() && shape_of(*bias) == Ints{d.out_channels} &&
                                    bias->scalar_type() == ScalarType::Float && bias->device() == x.tensor.device()),
              "ebp_cuda::", x.op, ": bias must be float32 [", d.out_channels, "] beside x");
}

}  // namespace

Tensor rounded(const Tensor& x, const std::string& precision) {
  const Operand operand{"rounded", "x", x};
  const Precision to = precision_of(operand, precision);
  EBP_REQUIRE(to == Precision::tf32 || to == Precision::bf16, "ebp_cuda::rounded: precision must be tf32 or bf16");
  return rounded_to(operand, to);
}

Tensor conv2d_normalizer(const Tensor& x, const Tensor& w_plus, const Ints& stride, const Ints& padding,
                         const Ints& dilation, int64_t groups, const std::string& precision) {
  const Operand operand{"conv2d_normalizer", "x", x}, weight{"conv2d_normalizer", "w_plus", w_plus};
  const Precision rounding = precision_of(operand, precision);
  Conv2d d = conv_of(operand, weight, plane_of(operand), {stride, padding, dilation, groups});
  check_channels(operand, d, "w_plus");
  Tensor z = empty_as(x, {d.batch, d.out_channels, d.h.out, d.w.out});
  set_strides(d, x, z);
  on_device(operand, z, [&](auto zero, void* stream) -> const char* {
    using T = decltype(zero);
    Tensor source = x, w = w_plus;
    if constexpr (std::is_same_v<T, float>) {
      const Plan plan = plan_of(operand, weight, d, false, rounding);
      const std::optional<Tensor> none;
      if (plan.schedule.method != Method::naive) return contract(plan, {operand.op, none, none, z}, nullptr, z, stream);
      source = plan.source, w = plan.weight;
    }
    const Tensor dense = torch::stable::contiguous(w);
    return launch_conv_normalizer(d, data<T>(source), data<T>(dense), mutable_data<T>(z), stream);
  });
  return z;
}

Tensor conv2d_sweep(const Tensor& r, const Tensor& w_plus, const Ints& in_size, const Ints& stride, const Ints& padding,
                    const Ints& dilation, int64_t groups, const std::optional<Tensor>& gate,
                    const std::string& precision, const std::optional<Tensor>& addend) {
  const Operand operand{"conv2d_sweep", "r", r}, weight{"conv2d_sweep", "w_plus", w_plus};
  const Precision rounding = precision_of(operand, precision);
  Conv2d d = conv_of(operand, weight, in_size, {stride, padding, dilation, groups});
  EBP_REQUIRE(r.dim() == 4 && r.size(1) == d.out_channels && r.size(2) == d.h.out && r.size(3) == d.w.out,
              "ebp_cuda::conv2d_sweep: r must be [N, ", d.out_channels, ", ", d.h.out, ", ", d.w.out, "]");
  Tensor below = empty_as(r, {d.batch, d.in_channels, d.h.in, d.w.in});
  const Finish finish(operand.op, addend, gate, below);
  set_strides(d, below, r);
  on_device(operand, below, [&](auto zero, void* stream) -> const char* {
    using T = decltype(zero);
    Tensor w = w_plus;
    if constexpr (std::is_same_v<T, float>) {
      const Plan plan = plan_of(operand, weight, d, true, rounding);
      if (plan.schedule.method != Method::naive) return contract(plan, finish, nullptr, below, stream);
      w = plan.weight;
    }
    return sweep_naively<T>(d, r, w, finish, below, stream);
  });
  return below;
}

Tensor conv2d_forward(const Tensor& x, const Tensor& w, const std::optional<Tensor>& bias, const Ints& stride,
                      const Ints& padding, const Ints& dilation, int64_t groups) {
  const Operand operand{"conv2d_forward", "x", x}, weight{"conv2d_forward", "w", w};
  Conv2d d = conv_of(operand, weight, plane_of(operand), {stride, padding, dilation, groups});
  check_channels(operand, d, "w");
  check_bias(operand, d, bias);
  Tensor y = empty_as(x, {d.batch, d.out_channels, d.h.out, d.w.out});
  set_strides(d, x, y);
  on_device(operand, y, [&](auto, void* stream) -> const char* {
    const Plan plan = plan_of(operand, weight, d, false, Precision::tf32x3);
    if (plan.schedule.method == Method::naive) return simt_refuses(plan.problem);
    const std::optional<Tensor> none;
    return contract(plan, {operand.op, none, none, y}, floats_or_null(bias), y, stream);
  });
  return y;
}

std::tuple<Tensor, Tensor> conv2d_excitation(const Tensor& x, const Tensor& w, const Tensor& w_plus,
                                             const std::optional<Tensor>& bias, const Ints& stride, const Ints& padding,
                                             const Ints& dilation, int64_t groups, bool relu, bool as_gate) {
  const Operand operand{"conv2d_excitation", "x", x};
  const ConvShape shape{stride, padding, dilation, groups};
  Conv2d d = conv_of(operand, {operand.op, "w", w}, plane_of(operand), shape);
  conv_of(operand, {operand.op, "w_plus", w_plus}, plane_of(operand), shape);
  check_channels(operand, d, "w");
  EBP_REQUIRE(shape_of(w) == shape_of(w_plus) && w.strides().equals(w_plus.strides()),
              "ebp_cuda::conv2d_excitation: w and w_plus must have one shape and one memory format");
  check_bias(operand, d, bias);
  Tensor y = empty_as(x, {d.batch, d.out_channels, d.h.out, d.w.out}), side = empty_as(y);
  set_strides(d, x, y);
  on_device(operand, y, [&](auto, void* stream) {
    const Contraction up = contraction_of(d, w, false);
    LaunchArgs args;
    args.from = {data<float>(x), {data<float>(w), data<float>(w_plus)}};
    const Schedule how = schedule_of(up, Precision::fp32, false, current_arch(), args.from.source, args.from.weight[0],
                                     args.from.weight[1], choices_in_force());
    if (how.method == Method::naive) return simt_refuses(up);
    const int64_t needed = partial_total(up, how, 2);
    Tensor partial = empty_as(y, {needed, 1, 1, 1});
    args.epilogue.to = mutable_data<float>(y);
    args.epilogue.side = mutable_data<float>(side);
    args.epilogue.bias = floats_or_null(bias);
    args.epilogue.relu = relu;
    args.epilogue.side_is_gate = as_gate;
    args.partial = needed > 0 ? mutable_data<float>(partial) : nullptr;
    return launch_excitation(up, how, args, stream);
  });
  return {y, side};
}

STABLE_TORCH_LIBRARY_IMPL(ebp_cuda, EBP_CUDA_KEY, m) {
  m.impl("rounded", TORCH_BOX(&rounded));
  m.impl("conv2d_normalizer", TORCH_BOX(&conv2d_normalizer));
  m.impl("conv2d_sweep", TORCH_BOX(&conv2d_sweep));
  m.impl("conv2d_excitation", TORCH_BOX(&conv2d_excitation));
  m.impl("conv2d_forward", TORCH_BOX(&conv2d_forward));
}

}  // namespace ebp::cuda
