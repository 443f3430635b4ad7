#include "launchers.h"
#include "pool.cuh"

namespace ebp {

template <class T>
const char* launch_max_pool(const Pool2d& d, const T* x, T* y, void* winner, bool wide, void* stream) {
  const unsigned blocks = blocks_for(output_total(d));
  if (wide) {
    max_pool_kernel<<<blocks, threads_per_block, 0, as_stream(stream)>>>(d, x, y, static_cast<std::int32_t*>(winner));
  } else {
    max_pool_kernel<<<blocks, threads_per_block, 0, as_stream(stream)>>>(d, x, y, static_cast<std::uint8_t*>(winner));
  }
  return launch_error();
}

template <class T>
const char* launch_max_route(const Pool2d& d, const T* p, const void* winner, bool wide, T* below, void* stream) {
  const unsigned blocks = blocks_for(input_total(d));
  const auto* wide_codes = static_cast<const std::int32_t*>(winner);
  const auto* codes = static_cast<const std::uint8_t*>(winner);
  if (wide) {
    max_route_kernel<<<blocks, threads_per_block, 0, as_stream(stream)>>>(d, p, wide_codes, below);
  } else {
    max_route_kernel<<<blocks, threads_per_block, 0, as_stream(stream)>>>(d, p, codes, below);
  }
  return launch_error();
}

template <class T>
const char* launch_window_sum(const Pool2d& d, Divisor kind, const T* x, T* y, void* stream) {
  window_sum_kernel<<<blocks_for(output_total(d)), threads_per_block, 0, as_stream(stream)>>>(d, kind, x, y);
  return launch_error();
}

template <class T>
const char* launch_window_spread(const Pool2d& d, const T* r, T* below, void* stream) {
  window_spread_kernel<<<blocks_for(input_total(d)), threads_per_block, 0, as_stream(stream)>>>(d, r, below);
  return launch_error();
}

#define EBP_INSTANTIATE(T)                                                                         \
  template const char* launch_max_pool<T>(const Pool2d&, const T*, T*, void*, bool, void*);        \
  template const char* launch_max_route<T>(const Pool2d&, const T*, const void*, bool, T*, void*); \
  template const char* launch_window_sum<T>(const Pool2d&, Divisor, const T*, T*, void*);          \
  template const char* launch_window_spread<T>(const Pool2d&, const T*, T*, void*);
EBP_INSTANTIATE(float)
EBP_INSTANTIATE(double)

}  // namespace ebp
