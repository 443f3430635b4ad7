// The emulator's side of csrc/cuda/ptx.cuh: the same functions without assembly. Which lane holds which element of a
// matrix is the PTX ISA's ("Matrix fragments for mma.m16n8k8 / m16n8k16", "ldmatrix").
#pragma once

#include <cstdint>

#include "rounding.h"
#include "simt.h"

namespace emu {

void async_copy(void* shared, const void* from, std::size_t bytes);
void async_commit();
void async_wait(int pending);
// `count` 8x8 matrices of 16-bit elements; row i of matrix m is at the address that lane 8 * m + i passes.
void load_matrices(std::uint32_t* registers, int count, bool transposed, const void* row, const Site& site);
void multiply_tf32(float* d, const std::uint32_t* a, const std::uint32_t* b, const Site& site);
void multiply_bf16(float* d, const std::uint32_t* a, const std::uint32_t* b, const Site& site);

}  // namespace emu

namespace ebp {

inline void cp_async_16(void* shared, const void* global, bool valid) {
  emu::async_copy(shared, valid ? global : nullptr, 16);
}
inline void cp_async_8(void* shared, const void* global, bool valid) {
  emu::async_copy(shared, valid ? global : nullptr, 8);
}
inline void cp_async_4(void* shared, const void* global, bool valid) {
  emu::async_copy(shared, valid ? global : nullptr, 4);
}
inline void cp_async_commit() { emu::async_commit(); }
template <int pending>
inline void cp_async_wait() {
  emu::async_wait(pending);
}

inline void ldmatrix_x4(std::uint32_t (&r)[4], const void* row, EMU_SITE()) {
  emu::load_matrices(r, 4, false, row, {"ldmatrix_x4", file, line});
}
inline void ldmatrix_x2(std::uint32_t (&r)[2], const void* row, EMU_SITE()) {
  emu::load_matrices(r, 2, false, row, {"ldmatrix_x2", file, line});
}
inline void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* row, EMU_SITE()) {
  emu::load_matrices(r, 4, true, row, {"ldmatrix_x4_trans", file, line});
}
inline void ldmatrix_x2_trans(std::uint32_t (&r)[2], const void* row, EMU_SITE()) {
  emu::load_matrices(r, 2, true, row, {"ldmatrix_x2_trans", file, line});
}

// d += a b
inline void mma_tf32_m16n8k8(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], EMU_SITE()) {
  emu::multiply_tf32(d, a, b, {"mma_tf32_m16n8k8", file, line});
}
inline void mma_bf16_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], EMU_SITE()) {
  emu::multiply_bf16(d, a, b, {"mma_bf16_m16n8k16", file, line});
}

inline void keep_in_register(int&) {}

inline std::uint32_t tf32_rna(float v) { return emu::tf32_nearest(v); }
inline std::uint32_t bf16x2_rn(float low, float high) {
  return std::uint32_t(emu::bf16_nearest(high)) << 16 | emu::bf16_nearest(low);
}

}  // namespace ebp
