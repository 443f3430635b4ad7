// How the tensor cores' number formats round, on bits; modeled after the PTX ISA's cvt.
#pragma once

#include <cstdint>
#include <cstring>

namespace emu {

inline std::uint32_t bits_of(float v) {
  std::uint32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  return bits;
}

inline float float_of(std::uint32_t bits) {
  float v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}

inline bool is_nan(std::uint32_t bits) { return (bits & 0x7fffffffu) > 0x7f800000u; }

// tf32 is a float whose last 13 bits of the significand are 0.
constexpr std::uint32_t tf32_lost = 0x1fffu;

// cvt.rna: to nearest, halves away from zero. Beyond the largest finite number comes infinity.
inline std::uint32_t tf32_nearest(float v) {
  const std::uint32_t bits = bits_of(v);
  if (is_nan(bits)) return 0x7fffffffu & ~tf32_lost;
  if ((bits & 0x7fffffffu) == 0x7f800000u) return bits;
  return (bits + (tf32_lost + 1) / 2) & ~tf32_lost;
}

// What a matrix instruction makes of an operand that nobody rounded, on the GPUs of today: it drops the bits.
inline std::uint32_t tf32_truncated(float v) { return bits_of(v) & ~tf32_lost; }

// cvt.rn.bf16: to nearest, halves to even.
inline std::uint16_t bf16_nearest(float v) {
  const std::uint32_t bits = bits_of(v);
  if (is_nan(bits)) return 0x7fffu;
  return std::uint16_t((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

inline float float_of_bf16(std::uint16_t v) { return float_of(std::uint32_t(v) << 16); }

}  // namespace emu
