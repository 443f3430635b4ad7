// Neighboring channels of one pixel in one thread, read and written by one instruction.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "../core/windows.h"

namespace ebp {

template <int count, class T = float>
struct alignas(sizeof(T) * count) Vec {
  T at[count];
};
using Quad = Vec<4>;

template <int count, class T>
EBP_HD Vec<count, T>& vec_at(T* p) {
  return *reinterpret_cast<Vec<count, T>*>(p);
}
template <int count, class T>
EBP_HD const Vec<count, T>& vec_at(const T* p) {
  return *reinterpret_cast<const Vec<count, T>*>(p);
}

inline bool aligned_to(const void* p, int bytes) { return reinterpret_cast<std::uintptr_t>(p) % unsigned(bytes) == 0; }

// A vector of formula(0), formula(1), ...
template <int count, class T, class Formula>
EBP_HD Vec<count, T> each(const Formula& formula) {
  Vec<count, T> all;
#pragma unroll
  for (int i = 0; i < count; ++i) all.at[i] = formula(i);
  return all;
}

// What the formulas of rules.h and the loops of windows.h ask of a vector.
template <int count, class T>
EBP_HD Vec<count, T> operator+(const Vec<count, T>& a, const Vec<count, T>& b) {
  return each<count, T>([&](int i) { return a.at[i] + b.at[i]; });
}
template <int count, class T>
EBP_HD Vec<count, T>& operator+=(Vec<count, T>& a, const Vec<count, T>& b) {
  return a = a + b;
}
template <int count, class T>
EBP_HD Vec<count, T> operator+(const Vec<count, T>& a, T b) {
  return each<count, T>([&](int i) { return a.at[i] + b; });
}
template <int count, class T>
EBP_HD Vec<count, T> operator/(const Vec<count, T>& a, T b) {
  return each<count, T>([&](int i) { return a.at[i] / b; });
}
template <int count, class T>
EBP_HD Vec<count, bool> operator>(const Vec<count, T>& a, const Vec<count, T>& b) {
  return each<count, bool>([&](int i) { return a.at[i] > b.at[i]; });
}
template <int count, class T>
EBP_HD Vec<count, bool> operator!=(const Vec<count, T>& a, const Vec<count, T>& b) {
  return each<count, bool>([&](int i) { return a.at[i] != b.at[i]; });
}
template <int count>
EBP_HD Vec<count, bool> operator|(const Vec<count, bool>& a, const Vec<count, bool>& b) {
  return each<count, bool>([&](int i) { return a.at[i] || b.at[i]; });
}
template <int count, class T>
EBP_HD Vec<count, T> select(const Vec<count, bool>& mask, const Vec<count, T>& a, const Vec<count, T>& b) {
  return each<count, T>([&](int i) { return mask.at[i] ? a.at[i] : b.at[i]; });
}

template <int count, class T>
constexpr bool loads_aligned<Vec<count, T>> = true;

template <int count>
struct Codes<Vec<count>> {
  using type = Vec<count, int>;
  template <class W>
  static EBP_HD void store(const type& code, W* to) {
    vec_at<count>(to) = each<count, W>([&](int i) { return W(code.at[i]); });
  }
};

}  // namespace ebp
