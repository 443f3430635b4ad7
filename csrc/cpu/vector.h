// A register's worth of neighbouring elements, by GCC and Clang vector extensions. Compiled once per instruction set.
#pragma once

#include <type_traits>

#include "../windows.h"

#ifndef EBP_ISA
#error "EBP_ISA names the namespace of this instruction set"
#endif
#if defined(__AVX512F__)
#define EBP_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define EBP_VECTOR_BYTES 32
#else
#define EBP_VECTOR_BYTES 16
#endif

namespace ebp {
namespace EBP_ISA {

template <class T>
struct Vector;
template <>
struct Vector<float> {
  static constexpr int lanes = EBP_VECTOR_BYTES / 4;
  typedef float type __attribute__((vector_size(EBP_VECTOR_BYTES)));
  typedef std::int32_t codes __attribute__((vector_size(EBP_VECTOR_BYTES)));
  typedef std::int32_t wide __attribute__((vector_size(EBP_VECTOR_BYTES)));
  typedef std::uint8_t narrow __attribute__((vector_size(EBP_VECTOR_BYTES / 4)));
};
template <>
struct Vector<double> {
  static constexpr int lanes = EBP_VECTOR_BYTES / 8;
  typedef double type __attribute__((vector_size(EBP_VECTOR_BYTES)));
  typedef std::int64_t codes __attribute__((vector_size(EBP_VECTOR_BYTES)));
  typedef std::int32_t wide __attribute__((vector_size(EBP_VECTOR_BYTES / 2)));
  typedef std::uint8_t narrow __attribute__((vector_size(EBP_VECTOR_BYTES / 8)));
};

template <class T>
struct VectorCodes {
  using type = typename Vector<T>::codes;
  template <class W>
  using Packed = std::conditional_t<sizeof(W) == 1, typename Vector<T>::narrow, typename Vector<T>::wide>;
  template <class W>
  static EBP_HD void store(type code, W* to) {
    const Packed<W> packed = __builtin_convertvector(code, Packed<W>);
    __builtin_memcpy(to, &packed, sizeof packed);
  }
};

template <class T, class V>
EBP_HD void store(const V& v, T* to) {
  __builtin_memcpy(to, &v, sizeof v);
}

// Calls body(V{}, c) for channel c and its neighbours: whole vectors first, then one by one.
template <class T, class Body>
EBP_HD void for_channels(int64_t inner, const Body& body) {
  using V = typename Vector<T>::type;
  int64_t c = 0;
  for (; c + Vector<T>::lanes <= inner; c += Vector<T>::lanes) body(V{}, c);
  for (; c < inner; ++c) body(T{}, c);
}

}  // namespace EBP_ISA

template <>
struct Codes<EBP_ISA::Vector<float>::type> : EBP_ISA::VectorCodes<float> {};
template <>
struct Codes<EBP_ISA::Vector<double>::type> : EBP_ISA::VectorCodes<double> {};

}  // namespace ebp
