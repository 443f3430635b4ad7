// Windows over one axis: which inputs an output sees, and which outputs see an input. Integers only.
#pragma once

#include "rules.h"

namespace ebp {

// One spatial axis of a convolution or pooling. `padding` is the padding before the first element.
struct Axis {
  int in, out, kernel, stride, padding, dilation;
};

// The window of one output: it starts at `start` (may be negative) and its taps [first, end) lie inside the image.
struct Taps {
  int start, first, end;
};

EBP_HD int smaller(int a, int b) { return a < b ? a : b; }
EBP_HD int larger(int a, int b) { return a > b ? a : b; }
EBP_HD int ceil_div(int a, int b) { return (a + b - 1) / b; }  // for a >= 0
// ... and where b is mostly 1: an integer division takes a GPU some twenty instructions.
EBP_HD int ceil_div_often_by_one(int a, int b) { return b == 1 ? a : ceil_div(a, b); }

EBP_HD Taps taps_of(const Axis& a, int output) {
  const int start = output * a.stride - a.padding;
  const int first = start < 0 ? ceil_div_often_by_one(-start, a.dilation) : 0;
  if (start + (a.kernel - 1) * a.dilation < a.in) return {start, smaller(first, a.kernel), a.kernel};
  const int end = start < a.in ? ceil_div_often_by_one(a.in - start, a.dilation) : 0;
  return {start, first, larger(first, end)};
}

// Number of elements of an undilated window after clipping it to the image with `padding` on both sides: the
// divisor of Caffe's average pooling, and of torch's with count_include_pad.
EBP_HD int padded_length(const Axis& a, int output) {
  const int start = output * a.stride - a.padding;
  return smaller(start + a.kernel, a.in + a.padding) - start;
}

// Outputs [first, end) whose window spans an input; with dilation some of them step over it (see tap_at).
struct Cover {
  int first, end;
};

// `stride` is a.stride, or what divides by it.
template <class Stride>
EBP_HD Cover cover_of(const Axis& a, int input, const Stride& stride) {
  const int low = input + a.padding - (a.kernel - 1) * a.dilation;
  if (a.stride == 1) return {larger(low, 0), smaller(a.out, input + a.padding + 1)};  // spares two divisions
  return {low > 0 ? (low + a.stride - 1) / stride : 0, smaller(a.out, (input + a.padding) / stride + 1)};
}
EBP_HD Cover cover_of(const Axis& a, int input) { return cover_of(a, input, a.stride); }

// The tap by which `output` sees `input`, or -1. The output must be one of cover_of(input).
EBP_HD int tap_at(const Axis& a, int output, int input) {
  const int offset = input + a.padding - output * a.stride;
  if (a.dilation == 1) return offset;
  return offset % a.dilation == 0 ? offset / a.dilation : -1;
}

}  // namespace ebp
