// From tensors to parameters: every check that stands before a kernel, for the CPU and the CUDA bindings alike.
//
// Tensors must be dense in one of two formats: contiguous, or 4-D channels_last. The Python face (ebp_cuda/ops/)
// brings others into one of them and refuses bad shapes with the names a user knows; what is checked here holds for
// callers of torch.ops.ebp_cuda.* too. A refusal is a std::runtime_error, in Python a RuntimeError.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <sstream>
#include <stdexcept>
#include <utility>
#include <vector>

#include "../core/params.h"

namespace ebp {

using torch::stable::Tensor;
using Ints = std::vector<int64_t>;

template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

// A macro so that the message is put together only when it is needed: a check costs less than the op it guards.
#define EBP_REQUIRE(holds, ...)               \
  do {                                        \
    if (!(holds)) ::ebp::refuse(__VA_ARGS__); \
  } while (false)

// A named argument of an op, for messages.
struct Operand {
  const char* op;
  const char* name;
  const Tensor& tensor;
};

// Planes of 1 x 1 lie alike in both formats and count as channels_last; a single channel does not.
bool is_channels_last(const Tensor& t);

// A new tensor of `like`'s memory format, dtype (or `dtype`) and device (or `device`).
Tensor empty_as(const Tensor& like);
Tensor empty_as(const Tensor& like, const Ints& shape);
Tensor empty_as(const Tensor& like, const Ints& shape, torch::headeronly::ScalarType dtype);
Tensor empty_as(const Tensor& like, const Ints& shape, torch::headeronly::ScalarType dtype,
                torch::stable::Device device);

// Whether the windows of a pool need int32 winner codes (uint8 holds 0..254, and 255 for none).
bool wide_winners(const Ints& kernel);
torch::headeronly::ScalarType winner_type(const Ints& kernel);

Rows rows_of(const Operand& column, const Operand& shared);
void check_alike(const char* op, const std::vector<Tensor>& xs);
Lrn lrn_of(const Operand& x, int64_t size, double alpha, double beta, double k);

struct Windows {
  const Ints &kernel, &stride, &padding, &dilation;
};

// `plane` is x (going up) or p (going down); in and out are the planes' sizes below and above.
Pool2d pool_of(const Operand& plane, const Ints& in, const Ints& out, const Windows& windows);
// The same with the winner that routes p: sets columns, checks shape and dtype.
Pool2d route_of(const Operand& p, const Operand& winner, const Ints& in, const Windows& windows);

Ints shape_of(const Tensor& t);
// [H, W] of a 4-D operand.
Ints plane_of(const Operand& x);
// [batch, channels, size[0], size[1]] with the batch and channels of t.
Ints resized(const Tensor& t, const Ints& size);

// A convolution. `source` is x or r, `in` the size of the lower plane, padding (top, left, bottom, right).
struct ConvShape {
  const Ints &stride, &padding, &dilation;
  int64_t groups;
};
Conv2d conv_of(const Operand& source, const Operand& w_plus, const Ints& in, const ConvShape& shape);
// Notes where the elements of the two tensors lie.
void set_strides(Conv2d& d, const Tensor& lower, const Tensor& upper);

// float or double, whichever x is; calls body(T{}).
template <class Body>
void for_dtype(const Operand& x, const Body& body) {
  switch (x.tensor.scalar_type()) {
    case torch::headeronly::ScalarType::Float:
      return body(float{});
    case torch::headeronly::ScalarType::Double:
      return body(double{});
    default:
      refuse("ebp_cuda::", x.op, ": ", x.name, " must be float32 or float64, got ",
             torch::headeronly::toString(x.tensor.scalar_type()));
  }
}

template <class T>
const T* data(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <class T>
T* mutable_data(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

}  // namespace ebp
