#include "launchers.h"
#include "pool.cuh"

namespace ebp {

template <class T>
const char* launch_max_pool(const Pool2d& d, const T* x, T* y, void* winner, bool wide, void* stream) {
  const Threads threads{output_total(d), "max_pool: y is empty"};
  if (wide) {
    auto* codes = static_cast<std::int32_t*>(winner);
    return launch_elements(max_pool_kernel<T, std::int32_t>, threads, stream, d, x, y, codes);
  }
  auto* codes = static_cast<std::uint8_t*>(winner);
  return launch_elements(max_pool_kernel<T, std::uint8_t>, threads, stream, d, x, y, codes);
}

template <class T>
const char* launch_max_route(const Pool2d& d, const T* p, const void* winner, bool wide, T* below, void* stream) {
  const Threads threads{input_total(d), "max_route: below is empty"};
  if (wide) {
    const auto* codes = static_cast<const std::int32_t*>(winner);
    return launch_elements(max_route_kernel<T, std::int32_t>, threads, stream, d, p, codes, below);
  }
  const auto* codes = static_cast<const std::uint8_t*>(winner);
  return launch_elements(max_route_kernel<T, std::uint8_t>, threads, stream, d, p, codes, below);
}

template <class T>
const char* launch_window_sum(const Pool2d& d, Divisor kind, const T* x, T* y, void* stream) {
  return launch_elements(window_sum_kernel<T>, {output_total(d), "window_sum: y is empty"}, stream, d, kind, x, y);
}

template <class T>
const char* launch_window_spread(const Pool2d& d, const T* r, T* below, void* stream) {
  return launch_elements(window_spread_kernel<T>, {input_total(d), "window_spread: below is empty"}, stream, d, r, below);
}

#define EBP_INSTANTIATE(T)                                                                         \
  template const char* launch_max_pool<T>(const Pool2d&, const T*, T*, void*, bool, void*);        \
  template const char* launch_max_route<T>(const Pool2d&, const T*, const void*, bool, T*, void*); \
  template const char* launch_window_sum<T>(const Pool2d&, Divisor, const T*, T*, void*);          \
  template const char* launch_window_spread<T>(const Pool2d&, const T*, T*, void*);
EBP_INSTANTIATE(float)
EBP_INSTANTIATE(double)

}  // namespace ebp
