// The CUDA side of the ops but the convolutions (cuda_contraction_ops.cpp): parameters, an output from torch's
// allocator, and one launch on torch's current stream.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "../cuda/launchers.h"
#include "on_device.h"

namespace ebp::cuda {

Tensor share(const Tensor& p, const Tensor& z) {
  const Operand operand{"share", "p", p};
  const Rows d = rows_of(operand, {"share", "z", z});
  Tensor r = empty_as(p);
  on_device(operand, r, [&](auto zero, void* stream) {
    using T = decltype(zero);
    return launch_share(d, data<T>(p), data<T>(z), mutable_data<T>(r), stream);
  });
  return r;
}

Tensor gate(const Tensor& s, const Tensor& x) {
  const Operand operand{"gate", "s", s};
  const Rows d = rows_of(operand, {"gate", "x", x});
  Tensor y = empty_as(s);
  on_device(operand, y, [&](auto zero, void* stream) {
    using T = decltype(zero);
    return launch_gate(d, data<T>(s), data<T>(x), mutable_data<T>(y), stream);
  });
  return y;
}

Tensor max_winner(const std::vector<Tensor>& xs) {
  check_alike("max_winner", xs);
  EBP_REQUIRE(xs.size() <= max_winner_inputs, "ebp_cuda::max_winner: xs may hold ", max_winner_inputs,
              " tensors on CUDA, got ", xs.size());
  Tensor winner = empty_as(xs[0], shape_of(xs[0]), torch::headeronly::ScalarType::Byte);
  on_device({"max_winner", "xs", xs[0]}, winner, [&](auto zero, void* stream) {
    using T = decltype(zero);
    Pointers<T> from{};
    for (const Tensor& x : xs) from.at[from.count++] = data<T>(x);
    return launch_max_winner(winner.numel(), from, mutable_data<std::uint8_t>(winner), stream);
  });
  return winner;
}

std::tuple<Tensor, Tensor> max_pool2d(const Tensor& x, const Ints& kernel, const Ints& stride, const Ints& padding,
                                      const Ints& dilation, const Ints& out_size) {
  const Operand operand{"max_pool2d", "x", x};
  const Pool2d d = pool_of(operand, plane_of(operand), out_size, {kernel, stride, padding, dilation});
  Tensor y = empty_as(x, resized(x, out_size));
  Tensor winner = empty_as(x, resized(x, out_size), winner_type(kernel));
  on_device(operand, y, [&](auto zero, void* stream) {
    using T = decltype(zero);
    return launch_max_pool(d, data<T>(x), mutable_data<T>(y), winner.mutable_data_ptr(), wide_winners(kernel), stream);
  });
  return {y, winner};
}

Tensor max_pool2d_route(const Tensor& p, const Tensor& winner, const Ints& in_size, const Ints& kernel,
                        const Ints& stride, const Ints& padding, const Ints& dilation) {
  const Operand operand{"max_pool2d_route", "p", p};
  const Pool2d d =
      route_of(operand, {"max_pool2d_route", "winner", winner}, in_size, {kernel, stride, padding, dilation});
  Tensor below = empty_as(p, resized(p, in_size));
  on_device(operand, below, [&](auto zero, void* stream) {
    using T = decltype(zero);
    return launch_max_route(d, data<T>(p), winner.const_data_ptr(), wide_winners(kernel), mutable_data<T>(below),
                            stream);
  });
  return below;
}

Tensor window_average(const char* op, Divisor divisor, const Tensor& x, const Ints& kernel, const Ints& stride,
                      const Ints& padding, const Ints& out_size) {
  const Operand operand{op, "x", x};
  const Pool2d d = pool_of(operand, plane_of(operand), out_size, {kernel, stride, padding, {1, 1}});
  Tensor y = empty_as(x, resized(x, out_size));
  on_device(operand, y, [&](auto zero, void* stream) {
    using T = decltype(zero);
    return launch_window_sum(d, divisor, data<T>(x), mutable_data<T>(y), stream);
  });
  return y;
}

Tensor window_sum(const Tensor& x, const Ints& kernel, const Ints& stride, const Ints& padding, const Ints& out_size) {
  return window_average("window_sum", Divisor::none, x, kernel, stride, padding, out_size);
}

Tensor avg_pool2d(const Tensor& x, const Ints& kernel, const Ints& stride, const Ints& padding, const Ints& out_size,
                  bool count_include_pad) {
  const Divisor divisor = count_include_pad ? Divisor::padded : Divisor::inside;
  return window_average("avg_pool2d", divisor, x, kernel, stride, padding, out_size);
}

Tensor window_spread(const Tensor& r, const Ints& in_size, const Ints& kernel, const Ints& stride,
                     const Ints& padding) {
  const Operand operand{"window_spread", "r", r};
  const Pool2d d = pool_of(operand, in_size, plane_of(operand), {kernel, stride, padding, {1, 1}});
  Tensor below = empty_as(r, resized(r, in_size));
  on_device(operand, below, [&](auto zero, void* stream) {
    using T = decltype(zero);
    return launch_window_spread(d, data<T>(r), mutable_data<T>(below), stream);
  });
  return below;
}

Tensor lrn(const Tensor& x, int64_t size, double alpha, double beta, double k) {
  const Operand operand{"lrn", "x", x};
  const Lrn d = lrn_of(operand, size, alpha, beta, k);
  Tensor y = empty_as(x);
  on_device(operand, y, [&](auto zero, void* stream) {
    using T = decltype(zero);
    return launch_lrn(d, data<T>(x), mutable_data<T>(y), stream);
  });
  return y;
}

STABLE_TORCH_LIBRARY_IMPL(ebp_cuda, EBP_CUDA_KEY, m) {
  m.impl("share", TORCH_BOX(&share));
  m.impl("gate", TORCH_BOX(&gate));
  m.impl("max_winner", TORCH_BOX(&max_winner));
  m.impl("max_pool2d", TORCH_BOX(&max_pool2d));
  m.impl("max_pool2d_route", TORCH_BOX(&max_pool2d_route));
  m.impl("window_sum", TORCH_BOX(&window_sum));
  m.impl("window_spread", TORCH_BOX(&window_spread));
  m.impl("avg_pool2d", TORCH_BOX(&avg_pool2d));
  m.impl("lrn", TORCH_BOX(&lrn));
}

}  // namespace ebp::cuda
