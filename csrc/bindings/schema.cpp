// Every op that exists. All are functional: new tensors (or text) out, nothing written in place.
//
// p and its like have N * K rows (image-major) where x, z and winner have N; see ebp_cuda/ops/ for the meaning.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(ebp_cuda, m) {
  m.def("share(Tensor p, Tensor z) -> Tensor");
  m.def("gate(Tensor s, Tensor x) -> Tensor");
  m.def("rounded(Tensor x, str precision) -> Tensor");
  m.def("max_winner(Tensor[] xs) -> Tensor");
  m.def(
      "max_pool2d(Tensor x, int[2] kernel, int[2] stride, int[2] padding, int[2] dilation, int[2] out_size) "
      "-> (Tensor y, Tensor winner)");
  m.def(
      "max_pool2d_route(Tensor p, Tensor winner, int[2] in_size, int[2] kernel, int[2] stride, int[2] padding, "
      "int[2] dilation) -> Tensor");
  m.def("window_sum(Tensor x, int[2] kernel, int[2] stride, int[2] padding, int[2] out_size) -> Tensor");
  m.def("window_spread(Tensor r, int[2] in_size, int[2] kernel, int[2] stride, int[2] padding) -> Tensor");
  m.def(
      "avg_pool2d(Tensor x, int[2] kernel, int[2] stride, int[2] padding, int[2] out_size, bool count_include_pad) "
      "-> Tensor");
  m.def("lrn(Tensor x, int size, float alpha, float beta, float k) -> Tensor");
  m.def(
      "conv2d_normalizer(Tensor x, Tensor w_plus, int[2] stride, int[4] padding, int[2] dilation, int groups, "
      "str precision='fp32') -> Tensor");
  m.def(
      "conv2d_sweep(Tensor r, Tensor w_plus, int[2] in_size, int[2] stride, int[4] padding, int[2] dilation, "
      "int groups, Tensor? gate=None, str precision='fp32', Tensor? addend=None) -> Tensor");
  m.def(
      "conv2d_excitation(Tensor x, Tensor w, Tensor w_plus, Tensor? bias, int[2] stride, int[4] padding, int[2] "
      "dilation, "
      "int groups, bool relu, bool as_gate) -> (Tensor y, Tensor side)");
  m.def(
      "conv2d_forward(Tensor x, Tensor w, Tensor? bias, int[2] stride, int[4] padding, int[2] dilation, int groups) "
      "-> Tensor");
  m.def(
      "contraction_kernel(Tensor source, Tensor weight, int[2] stride, int[4] padding, int[2] dilation, int groups, "
      "int[2]? in_size, bool two_sums, str precision, int arch) -> (str text, int[] launch)");
  m.def(
      "tile_convolution(Tensor[] xs, Tensor[] weights, Tensor? bias, int out_channels, int[2] kernel, int[2] padding, "
      "int[2] out_size, Tensor[] gates, Tensor? addend) -> Tensor");
  m.def(
      "tile_excitation(Tensor x, Tensor weight, Tensor weight_plus, Tensor? bias, int out_channels, int[2] kernel, "
      "int[2] padding, int[2] out_size, bool relu, bool as_gate) -> (Tensor y, Tensor side)");
}
