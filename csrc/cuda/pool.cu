#include <climits>
#include <initializer_list>
#include <type_traits>

#include "launchers.h"
#include "pool.cuh"

namespace ebp {
namespace {

// Whether the kernels of four channels a thread can be asked: channels_last in whole, aligned quads, offsets of 32
// bits, and no dilation.
bool takes_quads(const Pool2d& d, std::initializer_list<const void*> floats, const void* bytes = nullptr) {
  if (d.planes != 1 || d.inner % 4 != 0 || d.h.dilation != 1 || d.w.dilation != 1) return false;
  if (input_total(d) > INT_MAX || output_total(d) > INT_MAX || d.columns > INT_MAX) return false;
  for (const void* p : floats) {
    if (!aligned_to(p, sizeof(Quad))) return false;
  }
  return aligned_to(bytes, 4);
}

// A thread for every quad of planes of `rows` x `cols` pixels.
PoolQuads quads_of(const Pool2d& d, int rows, int cols) {
  const int quads = int(d.inner / 4), total = int(d.batch) * rows * cols * quads;
  return {d,
          total,
          divider_of(quads),
          divider_of(cols),
          divider_of(rows),
          divider_of(int(d.columns)),
          divider_of(d.h.stride),
          divider_of(d.w.stride)};
}
PoolQuads input_quads(const Pool2d& d) { return quads_of(d, d.h.in, d.w.in); }
PoolQuads output_quads(const Pool2d& d) { return quads_of(d, d.h.out, d.w.out); }

template <class... Parameters, class... Arguments>
const char* launch_quads(void (*kernel)(Parameters...), const PoolQuads& d, void* stream,
                         const Arguments&... arguments) {
  return launch_elements(kernel, {d.total, ""}, stream, d, arguments...);
}

}  // namespace

template <class T>
const char* launch_max_pool(const Pool2d& d, const T* x, T* y, void* winner, bool wide, void* stream) {
  const Threads threads{output_total(d), "max_pool: y is empty"};
  if (threads.total <= 0) return threads.if_empty;
  auto* codes = static_cast<std::uint8_t*>(winner);
  if constexpr (std::is_same_v<T, float>) {
    if (!wide && takes_quads(d, {x, y}, winner)) {
      return launch_quads(max_pool_quads_kernel<std::uint8_t>, output_quads(d), stream, x, y, codes);
    }
  }
  if (wide) {
    return launch_elements(max_pool_kernel<T, std::int32_t>, threads, stream, d, x, y,
                           static_cast<std::int32_t*>(winner));
  }
  return launch_elements(max_pool_kernel<T, std::uint8_t>, threads, stream, d, x, y, codes);
}

template <class T>
const char* launch_max_route(const Pool2d& d, const T* p, const void* winner, bool wide, T* below, void* stream) {
  const Threads threads{input_total(d), "max_route: below is empty"};
  if (threads.total <= 0) return threads.if_empty;
  const auto* codes = static_cast<const std::uint8_t*>(winner);
  if constexpr (std::is_same_v<T, float>) {
    if (!wide && takes_quads(d, {p, below}, winner)) {
      return launch_quads(max_route_quads_kernel<std::uint8_t>, input_quads(d), stream, p, codes, below);
    }
  }
  if (wide) {
    const auto* wide_codes = static_cast<const std::int32_t*>(winner);
    return launch_elements(max_route_kernel<T, std::int32_t>, threads, stream, d, p, wide_codes, below);
  }
  return launch_elements(max_route_kernel<T, std::uint8_t>, threads, stream, d, p, codes, below);
}

template <class T>
const char* launch_window_sum(const Pool2d& d, Divisor kind, const T* x, T* y, void* stream) {
  const Threads threads{output_total(d), "window_sum: y is empty"};
  if (threads.total <= 0) return threads.if_empty;
  if constexpr (std::is_same_v<T, float>) {
    if (takes_quads(d, {x, y})) return launch_quads(window_sum_quads_kernel<T>, output_quads(d), stream, kind, x, y);
  }
  return launch_elements(window_sum_kernel<T>, threads, stream, d, kind, x, y);
}

template <class T>
const char* launch_window_spread(const Pool2d& d, const T* r, T* below, void* stream) {
  const Threads threads{input_total(d), "window_spread: below is empty"};
  if (threads.total <= 0) return threads.if_empty;
  if constexpr (std::is_same_v<T, float>) {
    if (takes_quads(d, {r, below}))
      return launch_quads(window_spread_quads_kernel<T>, input_quads(d), stream, r, below);
  }
  return launch_elements(window_spread_kernel<T>, threads, stream, d, r, below);
}

#define EBP_INSTANTIATE(T)                                                                         \
  template const char* launch_max_pool<T>(const Pool2d&, const T*, T*, void*, bool, void*);        \
  template const char* launch_max_route<T>(const Pool2d&, const T*, const void*, bool, T*, void*); \
  template const char* launch_window_sum<T>(const Pool2d&, Divisor, const T*, T*, void*);          \
  template const char* launch_window_spread<T>(const Pool2d&, const T*, T*, void*);
EBP_INSTANTIATE(float)
EBP_INSTANTIATE(double)

}  // namespace ebp
