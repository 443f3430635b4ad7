#include "operands.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <climits>
#include <string>

namespace ebp {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;

namespace {

template <class List>
std::string text(const List& list) {
  std::ostringstream out;
  out << '[';
  for (std::size_t i = 0; i < list.size(); ++i) out << (i ? ", " : "") << list[i];
  out << ']';
  return out.str();
}

std::string prefix(const Operand& x) { return std::string("ebp_cuda::") + x.op + ": " + x.name; }

// On the CPU or CUDA (or of no memory, for contraction_kernel), and indexable with 32 bits where a kernel does so.
void check_reachable(const Operand& x) {
  const bool meta = x.tensor.device().type() == torch::headeronly::DeviceType::Meta;
  EBP_REQUIRE(x.tensor.is_cpu() || x.tensor.is_cuda() || meta, prefix(x), " must be on the CPU or a CUDA device");
  EBP_REQUIRE(x.tensor.numel() <= INT_MAX, prefix(x), " has ", x.tensor.numel(),
              " elements; at most 2^31 - 1 can be indexed");
}

// ... and without gaps, in one of the two formats.
void check_dense(const Operand& x) {
  check_reachable(x);
  const Tensor& t = x.tensor;
  EBP_REQUIRE(t.is_contiguous() || is_channels_last(t), prefix(x), " must be contiguous or channels_last, got shape ",
              text(t.sizes()), " with strides ", text(t.strides()));
}

void check_together(const Operand& a, const Operand& b, bool same_dtype) {
  EBP_REQUIRE(a.tensor.device() == b.tensor.device(), prefix(a), " and ", b.name, " must be on one device");
  EBP_REQUIRE(!same_dtype || a.tensor.scalar_type() == b.tensor.scalar_type(), prefix(a), " and ", b.name,
              " must have one dtype, got ", torch::headeronly::toString(a.tensor.scalar_type()), " and ",
              torch::headeronly::toString(b.tensor.scalar_type()));
}

// Whether t lies in memory as a tensor of this format does. Strides of axes of length 1 may be any number.
bool has_format(const Tensor& t, bool channels_last) {
  if (!channels_last) return t.is_contiguous();
  if (t.dim() != 4) return false;
  const auto size = t.sizes();
  const auto stride = t.strides();
  int64_t expected = 1;
  for (const int axis : {1, 3, 2, 0}) {
    if (size[axis] != 1 && stride[axis] != expected) return false;
    expected *= size[axis];
  }
  return true;
}

// Columns per image: how often `shared`'s batch goes into that of `column`.
int64_t columns_of(const Operand& column, const Operand& shared) {
  EBP_REQUIRE(column.tensor.dim() >= 1 && shared.tensor.dim() >= 1, prefix(column), " needs a batch axis");
  const int64_t rows = column.tensor.size(0), images = shared.tensor.size(0);
  EBP_REQUIRE(images > 0 ? rows % images == 0 : rows == 0, prefix(column), " has ", rows,
              " rows, which is no multiple of the ", images, " rows of ", shared.name);
  return images > 0 ? rows / images : 1;
}

void check_rest_of_shape(const Operand& a, const Operand& b) {
  const Ints left = shape_of(a.tensor), right = shape_of(b.tensor);
  const bool same = left.size() == right.size() && std::equal(left.begin() + 1, left.end(), right.begin() + 1);
  EBP_REQUIRE(same, prefix(a), " of shape ", text(left), " does not fit ", b.name, " of shape ", text(right),
              ": only the first axis may differ");
}

void check_format(const Operand& a, const Operand& b) {
  EBP_REQUIRE(has_format(b.tensor, is_channels_last(a.tensor)), prefix(a), " and ", b.name,
              " must have one memory format");
}

// A slice of the channels of a channels_last tensor: pixels lie further apart than their channels need.
bool is_channel_slice(const Tensor& t) {
  if (t.dim() != 4 || t.size(1) <= 1 || t.stride(1) != 1) return false;
  const bool single = t.size(2) == 1 && t.size(3) == 1;
  return single || (t.stride(3) >= t.size(1) && t.stride(2) == t.stride(3) * t.size(3));
}

Distances distances_of(const Operand& x, int64_t row, int64_t run) {
  const Tensor& t = x.tensor;
  if (is_channels_last(t)) return {row, run};
  EBP_REQUIRE(is_channel_slice(t), prefix(x),
              " must be contiguous, channels_last, or a slice of the channels of such a ",
              "tensor, like its partner; got shape ", text(t.sizes()), " with strides ", text(t.strides()));
  return {t.stride(0), t.stride(3)};
}

int64_t checked(const Operand& x, const char* what, const Ints& values, std::size_t axis, int64_t least) {
  EBP_REQUIRE(values.size() == 2, prefix(x), ": ", what, " needs 2 entries, got ", text(values));
  EBP_REQUIRE(values[axis] >= least && values[axis] <= INT_MAX / 4, prefix(x), ": ", what, " must be at least ", least,
              ", got ", text(values));
  return values[axis];
}

Axis axis_of(const Operand& x, const Ints& in, const Ints& out, const Windows& windows, std::size_t axis) {
  const int64_t kernel = checked(x, "kernel", windows.kernel, axis, 1);
  const int64_t stride = checked(x, "stride", windows.stride, axis, 1);
  const int64_t padding = checked(x, "padding", windows.padding, axis, 0);
  const int64_t dilation = checked(x, "dilation", windows.dilation, axis, 1);
  const int64_t below = checked(x, "in_size", in, axis, 0);
  const int64_t above = checked(x, "out_size", out, axis, 0);
  const int64_t largest = below + padding + above * stride + kernel * dilation;
  EBP_REQUIRE(largest <= INT_MAX, prefix(x), ": kernel, stride, padding or dilation is out of range for planes of ",
              below);
  return {int(below), int(above), int(kernel), int(stride), int(padding), int(dilation)};
}

}  // namespace

bool is_channels_last(const Tensor& t) { return t.dim() == 4 && t.size(1) > 1 && has_format(t, true); }

Ints shape_of(const Tensor& t) {
  const auto sizes = t.sizes();
  return Ints(sizes.begin(), sizes.end());
}

Tensor empty_as(const Tensor& like) { return empty_as(like, shape_of(like)); }

Tensor empty_as(const Tensor& like, const Ints& shape) { return empty_as(like, shape, like.scalar_type()); }

Tensor empty_as(const Tensor& like, const Ints& shape, ScalarType dtype) {
  return empty_as(like, shape, dtype, like.device());
}

Tensor empty_as(const Tensor& like, const Ints& shape, ScalarType dtype, torch::stable::Device device) {
  const auto format =
      is_channels_last(like) || is_channel_slice(like) ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
  return torch::stable::empty(shape, dtype, std::nullopt, device, std::nullopt, format);
}

bool wide_winners(const Ints& kernel) { return kernel[0] * kernel[1] > 255; }

ScalarType winner_type(const Ints& kernel) { return wide_winners(kernel) ? ScalarType::Int : ScalarType::Byte; }

Ints plane_of(const Operand& x) {
  EBP_REQUIRE(x.tensor.dim() == 4, prefix(x), " must be [N, C, H, W], got shape ", text(x.tensor.sizes()));
  return {x.tensor.size(2), x.tensor.size(3)};
}

Ints resized(const Tensor& t, const Ints& size) { return {t.size(0), t.size(1), size[0], size[1]}; }

Rows rows_of(const Operand& column, const Operand& shared) {
  check_reachable(column);
  check_reachable(shared);
  check_together(column, shared, true);
  const int64_t columns = std::max<int64_t>(columns_of(column, shared), 1);
  check_rest_of_shape(column, shared);
  const int64_t total = column.tensor.numel(), row = total > 0 ? total / column.tensor.size(0) : 1;
  const bool plain = column.tensor.is_contiguous() && shared.tensor.is_contiguous();
  if (plain || (is_channels_last(column.tensor) && is_channels_last(shared.tensor))) {
    return {total, row, columns, row, {row, row}, {row, row}};
  }
  const int64_t run = column.tensor.dim() == 4 && total > 0 ? column.tensor.size(1) : 1;
  return {total, row, columns, run, distances_of(column, row, run), distances_of(shared, row, run)};
}

void check_alike(const char* op, const std::vector<Tensor>& xs) {
  EBP_REQUIRE(!xs.empty() && xs.size() <= 255, "ebp_cuda::", op, ": xs must hold 1 to 255 tensors, got ", xs.size());
  const Operand first{op, "xs[0]", xs[0]};
  check_dense(first);
  for (const Tensor& x : xs) {
    const Operand other{op, "xs", x};
    check_dense(other);
    check_together(other, first, true);
    EBP_REQUIRE(shape_of(x) == shape_of(xs[0]), prefix(other), " must have one shape, got ", text(xs[0].sizes()),
                " and ", text(x.sizes()));
    EBP_REQUIRE(has_format(x, is_channels_last(xs[0])), prefix(other), " must have one memory format");
  }
}

Lrn lrn_of(const Operand& x, int64_t size, double alpha, double beta, double k) {
  check_dense(x);
  EBP_REQUIRE(x.tensor.dim() >= 2, prefix(x), " needs a batch and a channel axis, got shape ", text(x.tensor.sizes()));
  EBP_REQUIRE(size >= 1 && size <= INT_MAX / 4, prefix(x), ": size must be at least 1, got ", size);
  const int64_t batch = x.tensor.size(0), channels = x.tensor.size(1);
  const int64_t pixels = x.tensor.numel() > 0 ? x.tensor.numel() / (batch * channels) : 0;
  const bool last = is_channels_last(x.tensor);
  return {last ? batch * pixels : batch, channels, last ? 1 : pixels, int(size), alpha / double(size), beta, k};
}

Pool2d pool_of(const Operand& plane, const Ints& in, const Ints& out, const Windows& windows) {
  check_dense(plane);
  const Tensor& t = plane.tensor;
  const Axis h = axis_of(plane, in, out, windows, 0), w = axis_of(plane, in, out, windows, 1);
  const int64_t channels = t.size(1), pixels = std::max(in[0] * in[1], out[0] * out[1]);
  EBP_REQUIRE(pixels <= INT_MAX && t.size(0) * channels * pixels <= INT_MAX, prefix(plane), ": ", t.size(0), " x ",
              channels, " planes of ", pixels, " pixels exceed 2^31 - 1 elements");
  const bool last = is_channels_last(t);
  return {t.size(0), last ? 1 : channels, last ? channels : 1, h, w, 1};
}

Pool2d route_of(const Operand& p, const Operand& winner, const Ints& in, const Windows& windows) {
  Pool2d d = pool_of(p, in, plane_of(p), windows);
  check_dense(winner);
  check_together(p, winner, false);
  const ScalarType wanted = winner_type(windows.kernel);
  EBP_REQUIRE(winner.tensor.scalar_type() == wanted, prefix(winner), " must be ", torch::headeronly::toString(wanted),
              " for this kernel, got ", torch::headeronly::toString(winner.tensor.scalar_type()));
  d.columns = std::max<int64_t>(columns_of(p, winner), 1);
  check_rest_of_shape(p, winner);
  check_format(p, winner);
  return d;
}

Conv2d conv_of(const Operand& source, const Operand& w_plus, const Ints& in, const ConvShape& shape) {
  check_dense(source);
  check_dense(w_plus);
  check_together(source, w_plus, true);
  const Tensor& w = w_plus.tensor;
  EBP_REQUIRE(w.dim() == 4, prefix(w_plus), " must be [O, I / groups, kh, kw], got shape ", text(w.sizes()));
  EBP_REQUIRE(shape.padding.size() == 4, prefix(source), ": padding must be (top, left, bottom, right), got ",
              text(shape.padding));
  EBP_REQUIRE(shape.groups >= 1 && w.size(0) % shape.groups == 0, prefix(w_plus), " has ", w.size(0),
              " rows, which is no multiple of groups = ", shape.groups);
  const Ints kernel{w.size(2), w.size(3)}, before{shape.padding[0], shape.padding[1]};
  const Windows windows{kernel, shape.stride, before, shape.dilation};
  Axis axes[2];
  for (std::size_t axis = 0; axis < 2; ++axis) {
    axes[axis] = axis_of(source, in, {0, 0}, windows, axis);
    const int64_t after = checked(source, "padding", {shape.padding[2], shape.padding[3]}, axis, 0);
    const int64_t span = in[axis] + before[axis] + after - (kernel[axis] - 1) * shape.dilation[axis] - 1;
    EBP_REQUIRE(span >= 0, prefix(source), ": the kernel ", text(kernel), " does not fit into planes of ", text(in));
    axes[axis].out = int(span / shape.stride[axis] + 1);
  }
  const int64_t batch = source.tensor.size(0), lower = w.size(1) * shape.groups;
  const int64_t pixels = std::max(in[0] * in[1], int64_t(axes[0].out) * axes[1].out);
  EBP_REQUIRE(pixels <= INT_MAX && batch * std::max(lower, w.size(0)) * pixels <= INT_MAX, prefix(source),
              ": the convolution's tensors exceed 2^31 - 1 elements");
  return {int(batch), int(lower), int(w.size(0)), int(shape.groups), axes[0], axes[1], {}, {}};
}

void set_strides(Conv2d& d, const Tensor& lower, const Tensor& upper) {
  d.lower = {lower.stride(0), lower.stride(1), lower.stride(2), lower.stride(3)};
  d.upper = {upper.stride(0), upper.stride(1), upper.stride(2), upper.stride(3)};
}

}  // namespace ebp
