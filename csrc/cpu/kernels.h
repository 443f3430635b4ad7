// The CPU kernels as the bindings see them: one table of functions per element type and instruction set.
//
// Every function does the part [begin, end) of its work, so that any threading can drive it; the unit is named
// beside each. The parts write disjoint outputs and no result depends on how the work was cut.
#pragma once

#include "../core/params.h"

namespace ebp {

template <class T>
struct CpuKernels {
  // elements of r
  void (*share)(const Rows&, const T* p, const T* z, T* r, int64_t begin, int64_t end);
  void (*gate)(const Rows&, const T* s, const T* x, T* y, int64_t begin, int64_t end);
  void (*max_winner)(int count, const T* const* xs, std::uint8_t* winner, int64_t begin, int64_t end);
  // rows of y: batch * planes * h.out; `wide` winners are int32, the others uint8
  void (*max_pool)(const Pool2d&, const T* x, T* y, void* winner, bool wide, int64_t begin, int64_t end);
  void (*window_sum)(const Pool2d&, Divisor, const T* x, T* y, int64_t begin, int64_t end);
  // rows of the result, or whole planes of it: see route_units
  void (*max_route)(const Pool2d&, const T* p, const void* winner, bool wide, T* below, int64_t begin, int64_t end);
  // rows of the result: batch * planes * h.in
  void (*window_spread)(const Pool2d&, const T* r, T* below, int64_t begin, int64_t end);
  // outer * strips, see lrn_strips: a pixel, or a run of neighboring pixels
  void (*lrn)(const Lrn&, const T* x, T* y, int64_t begin, int64_t end);
};

// Routing gathers row by row where neighboring channels fill a vector, and scatters plane by plane where not.
EBP_HD bool route_by_rows(const Pool2d& d) { return d.inner > 1; }
EBP_HD int64_t route_units(const Pool2d& d) { return d.batch * d.planes * (route_by_rows(d) ? d.h.in : 1); }

// Elements of `inner` that one unit of lrn work spans.
constexpr int64_t lrn_strip_length = 128;
EBP_HD int64_t lrn_strips(const Lrn& d) { return (d.inner + lrn_strip_length - 1) / lrn_strip_length; }

// The table for this machine's instruction set (EBP_CPU_ISA=default|avx2|avx512 asks for a lesser one than amx).
template <class T>
const CpuKernels<T>& cpu_kernels();

// Its name: "default", "avx2", "avx512", or "amx" where tiles of bfloat16 are multiplied too.
const char* cpu_isa();

}  // namespace ebp
