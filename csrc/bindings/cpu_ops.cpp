// The CPU side of the ops: parameters, an output, and the kernel's work spread over torch's threads.
// conv2d_normalizer and conv2d_sweep have theirs in ebp_cuda/ops/, over ATen's convolution.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <tuple>

#include "../cpu/kernels.h"
#include "operands.h"

namespace ebp::cpu {

constexpr int64_t elements_per_task = 16384;

// Runs part(begin, end) over `units` of about `weight` elements each.
template <class Part>
void spread(int64_t units, int64_t weight, const Part& part) {
  if (units <= 0) return;
  const int64_t grain = std::max<int64_t>(1, elements_per_task / std::max<int64_t>(1, weight));
  torch::stable::parallel_for(0, units, grain, part);
}

int64_t window_weight(const Pool2d& d) { return int64_t(d.h.kernel) * d.w.kernel; }

Tensor share(const Tensor& p, const Tensor& z) {
  const Operand operand{"share", "p", p};
  const Rows d = rows_of(operand, {"share", "z", z});
  Tensor r = empty_as(p);
  for_dtype(operand, [&](auto zero) {
    using T = decltype(zero);
    spread(d.total, 1, [&](int64_t begin, int64_t end) {
      cpu_kernels<T>().share(d, data<T>(p), data<T>(z), mutable_data<T>(r), begin, end);
    });
  });
  return r;
}

Tensor gate(const Tensor& s, const Tensor& x) {
  const Operand operand{"gate", "s", s};
  const Rows d = rows_of(operand, {"gate", "x", x});
  Tensor y = empty_as(s);
  for_dtype(operand, [&](auto zero) {
    using T = decltype(zero);
    spread(d.total, 1, [&](int64_t begin, int64_t end) {
      cpu_kernels<T>().gate(d, data<T>(s), data<T>(x), mutable_data<T>(y), begin, end);
    });
  });
  return y;
}

Tensor max_winner(const std::vector<Tensor>& xs) {
  check_alike("max_winner", xs);
  Tensor winner = empty_as(xs[0], shape_of(xs[0]), torch::headeronly::ScalarType::Byte);
  for_dtype({"max_winner", "xs", xs[0]}, [&](auto zero) {
    using T = decltype(zero);
    std::vector<const T*> from;
    for (const Tensor& x : xs) from.push_back(data<T>(x));
    spread(xs[0].numel(), 1, [&](int64_t begin, int64_t end) {
      cpu_kernels<T>().max_winner(int(from.size()), from.data(), mutable_data<std::uint8_t>(winner), begin, end);
    });
  });
  return winner;
}

std::tuple<Tensor, Tensor> max_pool2d(const Tensor& x, const Ints& kernel, const Ints& stride, const Ints& padding,
                                      const Ints& dilation, const Ints& out_size) {
  const Operand operand{"max_pool2d", "x", x};
  const Pool2d d = pool_of(operand, plane_of(operand), out_size, {kernel, stride, padding, dilation});
  const bool wide = wide_winners(kernel);
  Tensor y = empty_as(x, resized(x, out_size));
  Tensor winner = empty_as(x, resized(x, out_size), winner_type(kernel));
  for_dtype(operand, [&](auto zero) {
    using T = decltype(zero);
    spread(d.batch * d.planes * d.h.out, d.w.out * d.inner * window_weight(d), [&](int64_t begin, int64_t end) {
      cpu_kernels<T>().max_pool(d, data<T>(x), mutable_data<T>(y), winner.mutable_data_ptr(), wide, begin, end);
    });
  });
  return {y, winner};
}

Tensor max_pool2d_route(const Tensor& p, const Tensor& winner, const Ints& in_size, const Ints& kernel,
                        const Ints& stride, const Ints& padding, const Ints& dilation) {
  const Operand operand{"max_pool2d_route", "p", p};
  const Pool2d d =
      route_of(operand, {"max_pool2d_route", "winner", winner}, in_size, {kernel, stride, padding, dilation});
  Tensor below = empty_as(p, resized(p, in_size));
  for_dtype(operand, [&](auto zero) {
    using T = decltype(zero);
    const int64_t rows = route_by_rows(d) ? 1 : d.h.in;
    spread(route_units(d), rows * d.w.in * d.inner * window_weight(d), [&](int64_t begin, int64_t end) {
      cpu_kernels<T>().max_route(d, data<T>(p), winner.const_data_ptr(), wide_winners(kernel), mutable_data<T>(below),
                                 begin, end);
    });
  });
  return below;
}

Tensor window_average(const char* op, Divisor divisor, const Tensor& x, const Ints& kernel, const Ints& stride,
                      const Ints& padding, const Ints& out_size) {
  const Operand operand{op, "x", x};
  const Pool2d d = pool_of(operand, plane_of(operand), out_size, {kernel, stride, padding, {1, 1}});
  Tensor y = empty_as(x, resized(x, out_size));
  for_dtype(operand, [&](auto zero) {
    using T = decltype(zero);
    spread(d.batch * d.planes * d.h.out, d.w.out * d.inner * window_weight(d), [&](int64_t begin, int64_t end) {
      cpu_kernels<T>().window_sum(d, divisor, data<T>(x), mutable_data<T>(y), begin, end);
    });
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
  for_dtype(operand, [&](auto zero) {
    using T = decltype(zero);
    spread(d.batch * d.planes * d.h.in, d.w.in * d.inner * window_weight(d), [&](int64_t begin, int64_t end) {
      cpu_kernels<T>().window_spread(d, data<T>(r), mutable_data<T>(below), begin, end);
    });
  });
  return below;
}

Tensor lrn(const Tensor& x, int64_t size, double alpha, double beta, double k) {
  const Operand operand{"lrn", "x", x};
  const Lrn d = lrn_of(operand, size, alpha, beta, k);
  Tensor y = empty_as(x);
  for_dtype(operand, [&](auto zero) {
    using T = decltype(zero);
    spread(d.outer * lrn_strips(d), d.channels * std::min(d.inner, lrn_strip_length) * 4,
           [&](int64_t begin, int64_t end) { cpu_kernels<T>().lrn(d, data<T>(x), mutable_data<T>(y), begin, end); });
  });
  return y;
}

STABLE_TORCH_LIBRARY_IMPL(ebp_cuda, CPU, m) {
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

}  // namespace ebp::cpu
