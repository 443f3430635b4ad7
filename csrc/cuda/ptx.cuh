// The instructions that CUDA C++ has no names for: asynchronous copies and tensor cores, sm_80 and up. Compiled for
// less, a kernel of these stops the launch; schedule.h never asks for one there.
#pragma once

#if defined(EBP_EMULATOR)
#include "../emu/ptx_model.h"
#else

#include <cuda_runtime.h>

#include <cstdint>

namespace ebp {

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define EBP_PTX(...) asm volatile(__VA_ARGS__)
#else
#define EBP_PTX(...) __trap()
#endif

__device__ __forceinline__ unsigned shared_address(const void* p) { return unsigned(__cvta_generic_to_shared(p)); }

// 16 bytes to shared memory past the registers, or zeros where not `valid`.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, bool valid) {
  EBP_PTX("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
          "r"(valid ? 16 : 0) : "memory");
}
__device__ __forceinline__ void cp_async_commit() { EBP_PTX("cp.async.commit_group;" :: : "memory"); }
// Waits for all committed copies of this thread but those of the last `pending` groups.
template <int pending>
__device__ __forceinline__ void cp_async_wait() {
  EBP_PTX("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// Four 8x8 matrices of 16-bit elements (or 8x4 of 32 bits); lane 8 m + i passes row i of matrix m.
__device__ __forceinline__ void ldmatrix_x4(std::uint32_t (&r)[4], const void* row) {
  EBP_PTX("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]),
          "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

// d += a b
__device__ __forceinline__ void mma_tf32_m16n8k8(float (&d)[4], const std::uint32_t (&a)[4],
                                                 const std::uint32_t (&b)[2]) {
  EBP_PTX(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};" : "+f"(d[0]),
      "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_bf16_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4],
                                                  const std::uint32_t (&b)[2]) {
  EBP_PTX(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};" : "+f"(d[0]),
      "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The bits of v rounded to the nearest tf32, ties away from zero; the 13 bits that tf32 lacks are 0.
__device__ __forceinline__ std::uint32_t tf32_rna(float v) {
  std::uint32_t bits = 0;
  EBP_PTX("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(v));
  return bits & 0xffffe000u;
}

// Keeps the compiler from working a value out at every use of it, which it does to save the register.
__device__ __forceinline__ void keep_in_register(int& value) { asm volatile("" : "+r"(value)); }

// Two bf16 next to each other, rounded to nearest, ties to even.
__device__ __forceinline__ std::uint32_t bf16x2_rn(float low, float high) {
  std::uint32_t bits = 0;
  EBP_PTX("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}

#undef EBP_PTX

}  // namespace ebp

#endif
