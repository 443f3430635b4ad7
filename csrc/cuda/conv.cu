#include "conv.cuh"
#include "launchers.h"

namespace ebp {

template <class T>
const char* launch_conv_normalizer(const Conv2d& d, const T* x, const T* w_plus, T* z, void* stream) {
  const int64_t total = int64_t(d.batch) * d.out_channels * d.h.out * d.w.out;
  return launch_elements(conv_normalizer_kernel<T>, {total, "conv_normalizer: z is empty"}, stream, d, x, w_plus, z);
}

template <class T>
const char* launch_conv_sweep(const Conv2d& d, const T* r, const T* w_plus, T* below, void* stream) {
  const int64_t total = int64_t(d.batch) * d.in_channels * d.h.in * d.w.in;
  return launch_elements(conv_sweep_kernel<T>, {total, "conv_sweep: below is empty"}, stream, d, r, w_plus, below);
}

#define EBP_INSTANTIATE(T)                                                                      \
  template const char* launch_conv_normalizer<T>(const Conv2d&, const T*, const T*, T*, void*); \
  template const char* launch_conv_sweep<T>(const Conv2d&, const T*, const T*, T*, void*);
EBP_INSTANTIATE(float)
EBP_INSTANTIATE(double)

}  // namespace ebp
