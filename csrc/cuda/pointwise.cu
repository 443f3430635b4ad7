#include "pointwise.cuh"

namespace ebp {

template <class T>
const char* launch_share(const Rows& d, const T* p, const T* z, T* r, void* stream) {
  return launch_elements(share_kernel<T>, {d.total, "share: r is empty"}, stream, d, p, z, r);
}

template <class T>
const char* launch_gate(const Rows& d, const T* s, const T* x, T* y, void* stream) {
  return launch_elements(gate_kernel<T>, {d.total, "gate: y is empty"}, stream, d, s, x, y);
}

const char* launch_round(int64_t total, const float* x, Precision precision, float* y, void* stream) {
  const Threads threads{total, "round: y is empty"};
  switch (precision) {
    case Precision::tf32: return launch_elements(round_kernel<Precision::tf32>, threads, stream, total, x, y);
    case Precision::bf16: return launch_elements(round_kernel<Precision::bf16>, threads, stream, total, x, y);
    default: return "round: wanted tf32 or bf16";
  }
}

template <class T>
const char* launch_add(int64_t total, const T* a, const T* b, T* sum, void* stream) {
  return launch_elements(add_kernel<T>, {total, "add: the sum is empty"}, stream, total, a, b, sum);
}

template <class T>
const char* launch_max_winner(int64_t total, const Pointers<T>& xs, std::uint8_t* winner, void* stream) {
  return launch_elements(max_winner_kernel<T>, {total, "max_winner: winner is empty"}, stream, total, xs, winner);
}

#define EBP_INSTANTIATE(T)                                                                     \
  template const char* launch_share<T>(const Rows&, const T*, const T*, T*, void*);            \
  template const char* launch_gate<T>(const Rows&, const T*, const T*, T*, void*);             \
  template const char* launch_add<T>(int64_t, const T*, const T*, T*, void*);                  \
  template const char* launch_max_winner<T>(int64_t, const Pointers<T>&, std::uint8_t*, void*);
EBP_INSTANTIATE(float)
EBP_INSTANTIATE(double)

}  // namespace ebp
