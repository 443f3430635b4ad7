// The CUDA kernels as the bindings see them: plain functions, one per op, that launch on a stream and return at once.
// Pointers are to device memory. They return nullptr, or what went wrong: what CUDA says, or that a tensor is empty,
// for which there is nothing to launch. `T` is float or double.
#pragma once

#include "../core/contraction.h"

namespace ebp {

constexpr int max_winner_inputs = 8;

// Device pointers of up to max_winner_inputs tensors, by value so that they travel with the launch.
template <class T>
struct Pointers {
  const T* at[max_winner_inputs];
  int count;
};

// What the factors of a sum are rounded to; all sums are fp32. tf32x3: both factors are split into two tf32 summands,
// and three of their four products are summed up, which keeps 21 of fp32's 24 bits; for W x going up.
enum class Precision { fp32, tf32, bf16, tf32x3 };

constexpr Precision all_precisions[] = {Precision::fp32, Precision::tf32, Precision::bf16, Precision::tf32x3};

inline const char* name_of(Precision p) {
  const char* const names[] = {"fp32", "tf32", "bf16", "tf32x3"};
  return names[int(p)];
}

template <class T>
const char* launch_share(const Rows&, const T* p, const T* z, T* r, void* stream);
template <class T>
const char* launch_gate(const Rows&, const T* s, const T* x, T* y, void* stream);
// y = x rounded to tf32 or bf16, as the kernels for tensor cores round their factors.
const char* launch_round(int64_t total, const float* x, Precision, float* y, void* stream);
// sum = a + b
template <class T>
const char* launch_add(int64_t total, const T* a, const T* b, T* sum, void* stream);
template <class T>
const char* launch_max_winner(int64_t total, const Pointers<T>& xs, std::uint8_t* winner, void* stream);
template <class T>
const char* launch_max_pool(const Pool2d&, const T* x, T* y, void* winner, bool wide, void* stream);
template <class T>
const char* launch_max_route(const Pool2d&, const T* p, const void* winner, bool wide, T* below, void* stream);
template <class T>
const char* launch_window_sum(const Pool2d&, Divisor, const T* x, T* y, void* stream);
template <class T>
const char* launch_window_spread(const Pool2d&, const T* r, T* below, void* stream);
template <class T>
const char* launch_lrn(const Lrn&, const T* x, T* y, void* stream);
template <class T>
const char* launch_conv_normalizer(const Conv2d&, const T* x, const T* w_plus, T* z, void* stream);
template <class T>
const char* launch_conv_sweep(const Conv2d&, const T* r, const T* w_plus, T* below, void* stream);

// How neighboring operands of a contraction lie: `single` makes no assumption; the others are read four at a time, the
// weights along the terms or along the columns.
enum class Loads { single, along_terms, along_columns };

// In the order of preference, the last first. naive is launch_conv_normalizer and launch_conv_sweep.
enum class Method { naive, simt, depthwise, mma };

// The current device's compute capability, such as 90.
int current_arch();

// How a contraction is computed; see schedule.h for who may be asked for what.
struct Schedule {
  Method method;
  Loads loads;
  bool large;  // tiles; says nothing where there are two sums
  int splits;  // parts of the terms that blocks of their own sum up
  // For mma: what the factors are rounded to, and whether the source is split into two such summands first.
  Precision precision = Precision::fp32;
  bool split_source = false;
};

struct Operands {
  const float* source = nullptr;
  const float* weight[2] = {};  // W, and W+ where two sums are formed
};

// What becomes of the sums before they are written. Pointers may be null but for `to`, and for `side` of two sums.
//   one sum:   to = (sum + bias + addend) * gate[image / columns]
//   two sums:  to = relu(sum + bias), side = the second sum z, or the gate to / z
struct Epilogue {
  float* to = nullptr;
  const float* addend = nullptr;  // in the layout of `to`
  const float* gate = nullptr;    // one image of it for `columns` images of `to`
  Strides gate_at{};
  int columns = 1;
  const float* bias = nullptr;  // one number per channel
  float* side = nullptr;        // in the layout of `to`
  bool relu = false, side_is_gate = false;
  bool wide =
      false;  // set by the launcher: four channels at a time, in whole and aligned quads, can be read and written
};

struct LaunchArgs {
  Operands from;
  Epilogue epilogue;
  float* partial = nullptr;  // partial_total(d, schedule, number of sums) elements
};

// One sum: to = W source, or W+ source, or W+^T source.
const char* launch_contraction(const Contraction&, const Schedule&, const LaunchArgs&, void* stream);
// Two sums, going up: to = W source, side = W+ source.
const char* launch_excitation(const Contraction&, const Schedule&, const LaunchArgs&, void* stream);

}  // namespace ebp
