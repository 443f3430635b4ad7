// The CUDA kernels as the bindings see them: plain functions, one per op, that launch on a stream and return at once.
// Pointers are to device memory. They return nullptr, or what CUDA says went wrong. `T` is float or double.
#pragma once

#include "../params.h"

namespace ebp {

constexpr int max_winner_inputs = 8;

// Device pointers of up to max_winner_inputs tensors, by value so that they travel with the launch.
template <class T>
struct Pointers {
  const T* at[max_winner_inputs];
  int count;
};

template <class T>
const char* launch_share(const Rows&, const T* p, const T* z, T* r, void* stream);
template <class T>
const char* launch_gate(const Rows&, const T* s, const T* x, T* y, void* stream);
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

}  // namespace ebp
