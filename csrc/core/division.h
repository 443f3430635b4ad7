// Division by a number that is known before a kernel starts. Integers only.
#pragma once

#include <cstdint>

#include "rules.h"

namespace ebp {

// n / divisor as a multiplication and a shift, for 0 <= n < 2^31 (Granlund and Montgomery, 1994): with
// 2^(shift - 1) < divisor <= 2^shift the multiplier, 2^(31 + shift) / divisor rounded up, fits into 32 bits, and what
// it is too large by adds less than 1 / divisor to the quotient.
struct Divider {
  int divisor;
  std::uint32_t multiplier;
  int shift;
};

inline Divider divider_of(int divisor) {
  int shift = 0;
  while ((std::int64_t{1} << shift) < divisor) ++shift;
  const std::uint64_t scale = std::uint64_t{1} << (31 + shift);
  return {divisor, std::uint32_t((scale + std::uint64_t(divisor) - 1) / std::uint64_t(divisor)), shift};
}

EBP_HD int operator/(int n, const Divider& d) {
  return int(std::uint32_t(std::uint64_t(2 * std::uint32_t(n)) * d.multiplier >> 32) >> d.shift);
}

// A quotient and its remainder.
struct Division {
  int quotient, remainder;
};
EBP_HD Division divide(int n, const Divider& d) {
  const int quotient = n / d;
  return {quotient, n - quotient * d.divisor};
}

}  // namespace ebp
