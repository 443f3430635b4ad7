// Which kernel a contraction would run on, and why no faster one, and what it would launch, for whoever asks without a GPU.
// Plain numbers in, text or numbers out, so that ctypes can call it.
#include <string>

#include "../cuda/schedule.h"

namespace ebp {
namespace {

std::string name_of(const Schedule& how) {
  switch (how.method) {
    case Method::mma:
      return "mma";
    case Method::depthwise:
      return "depthwise";
    case Method::simt:
      return how.loads == Loads::single ? "simt, element by element" : how.large ? "simt, large tiles" : "simt, small tiles";
    default:
      return "naive";
  }
}

std::string line(const char* kernel, const char* reason) {
  return reason == nullptr ? "" : std::string("\n") + kernel + ": " + reason;
}

struct Question {
  Precision precision;
  bool down, two;  // going down; two sums
  int arch;
  int64_t off_source, off_weight;  // bytes behind a multiple of 16
};

// The schedule of a contraction whose operands lie so far behind a multiple of 16 bytes, and what it was chosen by.
struct Answer {
  const float *source, *weights[2];
  Schedule how;
};

Answer answer_to(const Contraction& d, const Question& q) {
  alignas(16) static const char memory[32] = {};
  const auto at = [](int64_t off) { return reinterpret_cast<const float*>(memory + off % 16); };
  const float *source = at(q.off_source), *weight = at(q.off_weight), *plus = q.two ? weight : nullptr;
  return {source, {weight, plus}, schedule_of(d, q.precision, q.down, q.arch, source, weight, plus)};
}

std::string explain(const Contraction& d, const Question& q) {
  const auto [source, weights, how] = answer_to(d, q);
  if (how.method == Method::mma || how.method == Method::depthwise) return name_of(how);
  const Loads loads = loads_of(d, source, weights);
  const char* quads = loads != Loads::single ? nullptr
                                             : quads_refused(d, q.down ? Loads::along_columns : Loads::along_terms, source, weights);
  const char* mma = q.two ? "two sums are computed at once" : mma_refuses(d, q.precision, q.down, q.arch, loads, source, weights);
  std::string text = name_of(how) + line("mma", mma) + line("depthwise", depthwise_refuses(d)) + line("simt", simt_refuses(d));
  return text + line("four neighbours at a time", quads);
}

// What a tiled kernel launches: rows and columns of a tile, parts of the terms, blocks that have work, and the steps of
// tile_depth terms that all blocks take together.
void count_launch(const Contraction& d, const Schedule& how, std::int64_t* to) {
  const int rows = how.large ? 128 : 64, columns = 64;
  std::int64_t steps = 0;
  for (int phase = 0; phase < phases(d); ++phase) {
    const Part part = part_of(d, 0, phase);
    steps += std::int64_t((part.rows + rows - 1) / rows) * ((part.terms + tile_depth - 1) / tile_depth);
  }
  to[0] = rows;
  to[1] = columns;
  to[2] = how.splits;
  to[3] = tiles_of(d, rows, columns) * how.splits;
  to[4] = steps * d.groups * ((d.targets + columns - 1) / columns);
}

struct Asked {
  Contraction problem;
  Question question;
};

Asked read(const std::int64_t* n) {
  const auto axis = [&](int i) {
    return Axis{int(n[i]), int(n[i + 1]), int(n[i + 2]), int(n[i + 3]), int(n[i + 4]), int(n[i + 5])};
  };
  const auto strides = [&](int i) { return Strides{n[i], n[i + 1], n[i + 2], n[i + 3]}; };
  const Conv2d d{int(n[0]), int(n[1]), int(n[2]), int(n[3]), axis(4), axis(10), strides(16), strides(20)};
  const bool down = n[28] != 0;
  const Contraction problem = down ? contraction_down(d, strides(24)) : contraction_up(d, strides(24));
  return {problem, {Precision(int(n[30])), down, n[29] != 0, int(n[31]), n[32], n[33]}};
}

}  // namespace
}  // namespace ebp

// n: batch, channels below and above, groups; per axis in, out, kernel, stride, padding, dilation; strides of the lower, the
// upper tensor and the weights; going_down, two sums, precision (0 fp32, 1 tf32, 2 bf16), compute capability, and how many bytes
// source and weights lie behind a multiple of 16. launch: five numbers out, see count_launch; 0 where no tiled kernel runs.
extern "C" __attribute__((visibility("default"))) const char* ebp_cuda_contraction_kernel(const std::int64_t* n,
                                                                                          std::int64_t* launch) {
  using namespace ebp;
  const Asked asked = read(n);
  const Schedule how = answer_to(asked.problem, asked.question).how;
  for (int i = 0; i < 5; ++i) launch[i] = 0;
  if (how.method == Method::simt || how.method == Method::mma) count_launch(asked.problem, how, launch);
  static thread_local std::string text;
  text = explain(asked.problem, asked.question);
  return text.c_str();
}
