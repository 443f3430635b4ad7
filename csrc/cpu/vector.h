// A register's worth of neighboring elements, by GCC and Clang vector extensions. Compiled once per instruction set.
#pragma once

#include <type_traits>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "../core/windows.h"

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

#define EBP_INLINE __attribute__((always_inline))  // for a lambda

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

// The byte that holds a channel's code where all codes of a vector, four at most, lie in each of its 32-bit words.
template <class T>
struct OwnBytes {
  std::uint8_t mask[EBP_VECTOR_BYTES] = {};
  constexpr OwnBytes() {
    for (unsigned word = 0; word < EBP_VECTOR_BYTES / 4; ++word) mask[word * 4 + word * 4 / sizeof(T)] = 255;
  }
};

// Which of the neighboring channels with these winners `tap` has won; for add_where. Codes of a byte are compared as
// bytes where that is possible: GCC's vector conversion would widen them one by one.
template <class V, class T, class W>
EBP_HD auto won_by(const W* winner, int tap) {
  using Lanes = typename Vector<T>::codes;
  if constexpr (sizeof(V) == sizeof(T)) {
    return int(*winner) == tap;
  } else if constexpr (sizeof(W) > 1) {
    return __builtin_convertvector(load<typename Vector<T>::wide>(winner), Lanes) == tap;
#if defined(__AVX512F__)
  } else if constexpr (sizeof(T) == 4) {
    return _mm_cmpeq_epi8_mask(load<__m128i>(winner), _mm_set1_epi8(char(tap)));
  } else {
    return __mmask8(_mm_cmpeq_epi8_mask(_mm_set1_epi64x(load<long long>(winner)), _mm_set1_epi8(char(tap))));
#else
#if defined(__AVX2__)
  } else if constexpr (sizeof(T) == 4) {
    return Lanes(_mm256_cvtepu8_epi32(_mm_set1_epi64x(load<long long>(winner)))) == tap;
#endif
  } else {
    using Words = typename Vector<float>::codes;
    static constexpr OwnBytes<T> own;
    const Words mask = load<Words>(own.mask), wanted = (Words{} + std::int32_t(tap * 0x01010101u)) & mask;
    std::int32_t codes = 0;
    __builtin_memcpy(&codes, winner, Vector<T>::lanes);
    return Lanes(((Words{} + codes) & mask) == wanted);
#endif
  }
}

// sum + p where a tap has won, as routed() has it.
template <class Mask, class V>
EBP_HD V add_where(Mask won, V sum, V p) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<Mask, __mmask16>) {
    return _mm512_mask_add_ps(sum, won, sum, p);
  } else if constexpr (std::is_same_v<Mask, __mmask8>) {
    return _mm512_mask_add_pd(sum, won, sum, p);
  } else
#endif
      if constexpr (std::is_same_v<Mask, bool>) {
    return sum + (won ? p : V{});
  } else {
    return sum + V(Mask(p) & won);
  }
}

// Calls body(0) ... body(count - 1) one after the other, no loop: what an array holds can then stay in registers.
template <int count, class Body>
EBP_HD void unrolled(const Body& body) {
  if constexpr (count > 0) {
    unrolled<count - 1>(body);
    body(count - 1);
  }
}

// Calls body(V{}, c) for channel c and its neighbors: whole vectors first, then one by one.
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
