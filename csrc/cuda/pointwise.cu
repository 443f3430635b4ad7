#include "pointwise.cuh"

namespace ebp {

template <class T>
const char* launch_share(const Rows& d, const T* p, const T* z, T* r, void* stream) {
  share_kernel<<<blocks_for(d.total), threads_per_block, 0, as_stream(stream)>>>(d, p, z, r);
  return launch_error();
}

template <class T>
const char* launch_gate(const Rows& d, const T* s, const T* x, T* y, void* stream) {
  gate_kernel<<<blocks_for(d.total), threads_per_block, 0, as_stream(stream)>>>(d, s, x, y);
  return launch_error();
}

template <class T>
const char* launch_max_winner(int64_t total, const Pointers<T>& xs, std::uint8_t* winner, void* stream) {
  max_winner_kernel<<<blocks_for(total), threads_per_block, 0, as_stream(stream)>>>(total, xs, winner);
  return launch_error();
}

#define EBP_INSTANTIATE(T)                                                                     \
  template const char* launch_share<T>(const Rows&, const T*, const T*, T*, void*);            \
  template const char* launch_gate<T>(const Rows&, const T*, const T*, T*, void*);             \
  template const char* launch_max_winner<T>(int64_t, const Pointers<T>&, std::uint8_t*, void*);
EBP_INSTANTIATE(float)
EBP_INSTANTIATE(double)

}  // namespace ebp
