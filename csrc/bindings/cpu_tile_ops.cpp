// The binding of the convolution by tiles: checks, how the work is cut, scratch memory, threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <tuple>

#include "../cpu/tile_convolution.h"
#include "operands.h"

namespace ebp::cpu {

namespace {

using torch::headeronly::ScalarType;
using Optional = std::optional<Tensor>;

constexpr const char* op = "ebp_cuda::tile_*: ";  // of both ops, in messages
constexpr int64_t strip_bytes = 1 << 20;  // beside it the weights of a block of channels fit a core's second cache

// A thread's memory for strips; it stays, for clearing new pages would cost more than a small convolution.
void* scratch(int64_t bytes) {
  constexpr std::size_t line = 64;
  thread_local std::unique_ptr<char[]> memory;
  thread_local int64_t size = 0;
  if (size < bytes) {
    memory.reset(new char[bytes + line]);
    size = bytes;
  }
  void* start = memory.get();
  std::size_t space = size + line;
  return std::align(line, size, start, space);
}

// As many strips as the cache asks for, rounded up so that every thread gets as much. Where there are too few, threads
// share a strip, each for its channels: a wide kernel's weights are more to read than its pixels.
TileCut cut_for(const TileConvolution& d, int64_t threads) {
  const int64_t rows = total_rows(d), bytes = strip_pixels(d, rows) * pixel_bytes(d);
  const int64_t strips = (bytes + strip_bytes - 1) / strip_bytes, blocks = blocks_of(d.out_channels);
  const bool wide = int64_t(d.h.kernel) * d.w.kernel > 1;
  if (wide && strips < threads && (blocks % threads == 0 || blocks >= 4 * threads)) return {strips, int(threads)};
  return {std::min((strips + threads - 1) / threads * threads, rows), 1};
}

Axis axis_of(const Tensor& x, const Ints& kernel, const Ints& padding, const Ints& out_size, int i) {
  EBP_REQUIRE(kernel.size() == 2 && padding.size() == 2 && out_size.size() == 2, op,
              "kernel, padding and out_size need 2 entries each");
  const Axis axis{int(x.size(2 + i)), int(out_size[i]), int(kernel[i]), 1, int(padding[i]), 1};
  const bool fits = kernel[i] >= 1 && kernel[i] <= 255 && padding[i] >= 0 && padding[i] < kernel[i] &&
                    out_size[i] >= 1 && out_size[i] <= x.size(2 + i) + padding[i] && padding_after(axis) < kernel[i];
  EBP_REQUIRE(fits, op, "a kernel of ", kernel[i], " with padding ", padding[i], " gives no ", out_size[i],
              " outputs of ", x.size(2 + i), " inputs");
  return axis;
}

// [N, C, H, W] with neighboring channels and pixels at even distances: channels_last, or a slice of its channels.
Distances distances_of(const char* name, const Tensor& t, const Ints& shape) {
  EBP_REQUIRE(t.is_cpu() && t.scalar_type() == ScalarType::Float && shape_of(t) == shape, op, name,
              " is of another shape or type than x and the weight ask for");
  const int64_t rows = t.size(2), cols = t.size(3);
  const int64_t run = cols > 1 ? t.stride(3) : rows > 1 ? t.stride(2) : t.size(1);
  const bool even = (t.size(1) == 1 || t.stride(1) == 1) && (rows == 1 || t.stride(2) == run * cols);
  EBP_REQUIRE(even, op, name, " must be channels_last or a slice of channels of such a tensor");
  return {t.stride(0), run};
}

const std::uint16_t* tiles_of(const TileConvolution& d, int channels, const Tensor& weight) {
  const int64_t numbers = blocks_of(channels) * blocks_of(d.out_channels) * weight_block(d);
  EBP_REQUIRE(weight.is_cpu() && weight.is_contiguous() && weight.scalar_type() == ScalarType::BFloat16 &&
                  weight.numel() == numbers,
              op, "a weight is not laid out for these channels and this kernel");
  return data<std::uint16_t>(weight);
}

TileSource source_of(const TileConvolution& d, const Tensor& x, const Tensor& weight, const Tensor* gate) {
  EBP_REQUIRE(x.dim() == 4 && x.size(1) >= 1, op, "x must be [N, C, H, W]");
  TileSource source{};
  const int64_t channels = x.size(1);
  source.channels = int(channels);
  source.x = data<float>(x);
  source.x_at = distances_of("x", x, {d.images, channels, d.h.in, d.w.in});
  if (gate != nullptr) {
    source.gate = data<float>(*gate);
    source.gate_at = distances_of("gate", *gate, {d.images / d.columns, channels, d.h.in, d.w.in});
  }
  source.weight = tiles_of(d, source.channels, weight);
  return source;
}

// Rows of x for each row of the gates.
int64_t columns_of(const Tensor& x, const std::vector<Tensor>& gates) {
  if (gates.empty() || x.size(0) == 0) return 1;
  const int64_t images = gates[0].dim() == 4 ? gates[0].size(0) : 0;
  EBP_REQUIRE(images > 0 && x.size(0) % images == 0, op, "x has ", x.size(0),
              " rows, which is no multiple of the gate's");
  return x.size(0) / images;
}

// What does not depend on the sources.
TileConvolution convolution_of(const Tensor& x, const Optional& bias, int64_t out_channels, const Ints& kernel,
                               const Ints& padding, const Ints& out_size) {
  EBP_REQUIRE(x.dim() == 4 && out_channels >= 1, op, "x must be [N, C, H, W]");
  TileConvolution d{};
  d.images = x.size(0), d.columns = 1, d.out_channels = int(out_channels);
  d.h = axis_of(x, kernel, padding, out_size, 0);
  d.w = axis_of(x, kernel, padding, out_size, 1);
  EBP_REQUIRE(!bias || (bias->is_cpu() && bias->is_contiguous() && bias->scalar_type() == ScalarType::Float &&
                        bias->numel() == out_channels),
              op, "bias must hold ", out_channels, " float32");
  if (bias) d.bias = data<float>(*bias);
  return d;
}

Ints shape_above(const TileConvolution& d) { return {d.images, d.out_channels, d.h.out, d.w.out}; }

Tensor empty_above(const TileConvolution& d, const Tensor& x) {
  return torch::stable::empty(shape_above(d), ScalarType::Float, std::nullopt, x.device(), std::nullopt,
                              torch::headeronly::MemoryFormat::ChannelsLast);
}

void run(TileConvolution& d, const std::vector<TileSource>& sources) {
  d.sources = sources.data(), d.count = int(sources.size());
  for (const TileSource& source : sources) d.blocks += blocks_of(source.channels);
  if (d.images == 0) return;
  const TileCut cut = cut_for(d, torch::stable::get_num_threads());
  const int64_t bytes = strip_pixels(d, (total_rows(d) + cut.strips - 1) / cut.strips) * pixel_bytes(d);
  torch::stable::parallel_for(0, cut.strips * cut.groups, 1,
                              [&](int64_t begin, int64_t end) { tile_kernel()(d, cut, scratch(bytes), begin, end); });
}

}  // namespace

Tensor tile_convolution(const std::vector<Tensor>& xs, const std::vector<Tensor>& weights, const Optional& bias,
                        int64_t out_channels, const Ints& kernel, const Ints& padding, const Ints& out_size,
                        const std::vector<Tensor>& gates, const Optional& addend) {
  EBP_REQUIRE(!xs.empty() && xs.size() == weights.size() && (gates.empty() || gates.size() == xs.size()), op,
              "wanted as many weights as xs, and as many gates or none");
  TileConvolution d = convolution_of(xs[0], bias, out_channels, kernel, padding, out_size);
  d.columns = columns_of(xs[0], gates);
  std::vector<TileSource> sources;
  for (std::size_t i = 0; i < xs.size(); ++i) {
    sources.push_back(source_of(d, xs[i], weights[i], gates.empty() ? nullptr : &gates[i]));
  }
  if (addend) d.addend = data<float>(*addend), d.addend_at = distances_of("addend", *addend, shape_above(d));
  Tensor y = empty_above(d, xs[0]);
  d.y = mutable_data<float>(y);
  run(d, sources);
  return y;
}

std::tuple<Tensor, Tensor> tile_excitation(const Tensor& x, const Tensor& weight, const Tensor& weight_plus,
                                           const Optional& bias, int64_t out_channels, const Ints& kernel,
                                           const Ints& padding, const Ints& out_size, bool relu, bool as_gate) {
  TileConvolution d = convolution_of(x, bias, out_channels, kernel, padding, out_size);
  TileSource source = source_of(d, x, weight, nullptr);
  source.plus = tiles_of(d, source.channels, weight_plus);
  Tensor y = empty_above(d, x), side = empty_above(d, x);
  d.y = mutable_data<float>(y), d.side = mutable_data<float>(side);
  d.relu = relu, d.as_gate = as_gate;
  run(d, {source});
  return {y, side};
}

STABLE_TORCH_LIBRARY_IMPL(ebp_cuda, CPU, m) {
  m.impl("tile_convolution", TORCH_BOX(&tile_convolution));
  m.impl("tile_excitation", TORCH_BOX(&tile_excitation));
}

}  // namespace ebp::cpu
