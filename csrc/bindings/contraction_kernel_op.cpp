// contraction_kernel: which kernel a convolution would run on, why on no faster one, and what it would launch. Asked
// without a GPU, of tensors of any device: shapes, strides, dtype and offset are read, values are not.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <string>
#include <tuple>

#include "choices.h"
#include "contraction_operands.h"

namespace ebp {
namespace {

const char* name_of(const Schedule& how) {
  switch (how.method) {
    case Method::mma:
      return "mma";
    case Method::depthwise:
      return "depthwise";
    case Method::naive:
      return "naive";
    case Method::simt:
      break;
  }
  if (how.loads == Loads::single) return "simt, element by element";
  return how.large ? "simt, large tiles" : "simt, small tiles";
}

std::string line(const char* kernel, const char* reason) {
  return reason == nullptr ? "" : std::string("\n") + kernel + ": " + reason;
}

// What the schedule depends on beside the contraction.
struct Request {
  Precision precision;
  bool down, two_sums;
  int arch;
  const float *source, *weight;
};

// The schedule, and against every other kernel a line.
std::string explain(const Contraction& d, const Schedule& how, const Request& r) {
  const float* const weights[2] = {r.weight, r.two_sums ? r.weight : nullptr};
  std::string text = name_of(how);
  if (how.method == Method::mma || how.method == Method::depthwise) return text;
  const Loads loads = loads_of(d, r.source, weights), usual = r.down ? Loads::along_columns : Loads::along_terms;
  const char* mma = r.two_sums ? "two sums are computed at once"
                               : mma_refuses(d, r.precision, r.down, r.arch, loads, r.source, weights);
  text += line("mma", mma) + line("depthwise", depthwise_refuses(d)) + line("simt", simt_refuses(d));
  if (loads == Loads::single) text += line("four neighbors at a time", quads_refused(d, usual, r.source, weights));
  return text;
}

// What a tiled kernel launches: rows and columns of a tile, parts of the terms, blocks that have work, and the steps of
// tile_depth terms that all blocks take together. Nothing where no tiled kernel runs.
Ints launch_counts(const Contraction& d, const Schedule& how) {
  if (how.method != Method::simt && how.method != Method::mma) return {};
  const TileSize tile = tile_of(how);
  int64_t steps = 0;
  for (int phase = 0; phase < phases(d); ++phase) {
    const Part part = part_of(d, 0, phase);
    steps += int64_t(ceil_div(part.rows, tile.rows)) * ceil_div(part.terms, tile_depth);
  }
  steps *= int64_t(d.groups) * ceil_div(d.targets, tile.columns);
  return {tile.rows, tile.columns, how.splits, tiles_of(d, tile.rows, tile.columns) * how.splits, steps};
}

// An address that lies as far behind a multiple of 16 bytes as the tensor's first element does in its storage.
const float* address_like(const Tensor& t) {
  alignas(16) static const char memory[16 + sizeof(float)] = {};
  return reinterpret_cast<const float*>(memory + t.storage_offset() * int64_t(sizeof(float)) % 16);
}

// A tensor of the same format and no memory.
Tensor shape_as(const Tensor& like, const Ints& shape) {
  return empty_as(like, shape, like.scalar_type(), torch::stable::Device(torch::headeronly::DeviceType::Meta));
}

}  // namespace

std::tuple<std::string, Ints> contraction_kernel(const Tensor& source, const Tensor& weight, const Ints& stride,
                                                 const Ints& padding, const Ints& dilation, int64_t groups,
                                                 const std::optional<Ints>& in_size, bool two_sums,
                                                 const std::string& precision, int64_t arch) {
  const Operand operand{"contraction_kernel", "source", source};
  const Precision rounding = precision_of(operand, precision, !in_size.has_value() && !two_sums);
  const bool down = in_size.has_value();
  const Ints size = down ? *in_size : plane_of(operand);
  Conv2d d = conv_of(operand, {operand.op, "weight", weight}, size, {stride, padding, dilation, groups});
  if (source.scalar_type() == torch::headeronly::ScalarType::Double) return {"naive\nsimt: float64 was asked for", {}};
  const Tensor other = down ? shape_as(source, {d.batch, d.in_channels, d.h.in, d.w.in})
                            : shape_as(source, {d.batch, d.out_channels, d.h.out, d.w.out});
  set_strides(d, down ? other : source, down ? source : other);
  const Contraction problem = contraction_of(d, weight, down);
  const Request request{rounding, down, two_sums, int(arch), address_like(source), address_like(weight)};
  const Schedule how = schedule_of(problem, rounding, down, request.arch, request.source, request.weight,
                                   two_sums ? request.weight : nullptr, choices_in_force());
  return {explain(problem, how, request), launch_counts(problem, how)};
}

// A key of every device at once.
STABLE_TORCH_LIBRARY_IMPL(ebp_cuda, CompositeExplicitAutograd, m) {
  m.impl("contraction_kernel", TORCH_BOX(&contraction_kernel));
}

}  // namespace ebp
