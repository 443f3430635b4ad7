// Which kernel a contraction would run on, and why no faster one, for whoever asks without a GPU. Plain numbers in, text
// out, so that ctypes can call it.
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

std::string explain(const Contraction& d, const Question& q) {
  alignas(16) static const char memory[32] = {};
  const auto at = [](int64_t off) { return reinterpret_cast<const float*>(memory + off % 16); };
  const float *source = at(q.off_source), *weight = at(q.off_weight);
  const float* const weights[2] = {weight, q.two ? weight : nullptr};
  const Schedule how = schedule_of(d, q.precision, q.down, q.arch, source, weights[0], weights[1]);
  if (how.method == Method::mma || how.method == Method::depthwise) return name_of(how);
  const Loads loads = loads_of(d, source, weights);
  const char* quads = loads != Loads::single ? nullptr
                                             : quads_refused(d, q.down ? Loads::along_columns : Loads::along_terms, source, weights);
  const char* mma = q.two ? "two sums are computed at once" : mma_refuses(d, q.precision, q.down, q.arch, loads, source, weights);
  std::string text = name_of(how) + line("mma", mma) + line("depthwise", depthwise_refuses(d)) + line("simt", simt_refuses(d));
  return text + line("four neighbours at a time", quads);
}

}  // namespace
}  // namespace ebp

// n: batch, channels below and above, groups; per axis in, out, kernel, stride, padding, dilation; strides of the lower, the
// upper tensor and the weights; going_down, two sums, precision (0 fp32, 1 tf32, 2 bf16), compute capability, and how many bytes
// source and weights lie behind a multiple of 16.
extern "C" __attribute__((visibility("default"))) const char* ebp_cuda_contraction_kernel(const std::int64_t* n) {
  using namespace ebp;
  const auto axis = [&](int i) {
    return Axis{int(n[i]), int(n[i + 1]), int(n[i + 2]), int(n[i + 3]), int(n[i + 4]), int(n[i + 5])};
  };
  const auto strides = [&](int i) { return Strides{n[i], n[i + 1], n[i + 2], n[i + 3]}; };
  const Conv2d d{int(n[0]), int(n[1]), int(n[2]), int(n[3]), axis(4), axis(10), strides(16), strides(20)};
  const bool down = n[28] != 0;
  const Contraction problem = down ? contraction_down(d, strides(24)) : contraction_up(d, strides(24));
  static thread_local std::string text;
  text = explain(problem, {Precision(int(n[30])), down, n[29] != 0, int(n[31]), n[32], n[33]});
  return text.c_str();
}
