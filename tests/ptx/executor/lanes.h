// Instructions that do the same for every lane, and the conversions between numbers and their bits.
#pragma once

#include <cstring>
#include <limits>

#include "machine.h"

namespace px {

template <class D, class A, class F>
inline void map1(Warp& w, const Instruction& in, u32 m, F f) {
  D* d = lanes_of<D>(w, in.slot[0]);
  const A* a = lanes_of<A>(w, in.slot[1]);
  if (m == all) {
#pragma GCC ivdep
    for (int i = 0; i < lanes; ++i) d[i] = f(a[i]);
  } else {
    for (int i = 0; i < lanes; ++i)
      if (m >> i & 1) d[i] = f(a[i]);
  }
}
template <class D, class A, class B, class F>
inline void map2(Warp& w, const Instruction& in, u32 m, F f) {
  D* d = lanes_of<D>(w, in.slot[0]);
  const A* a = lanes_of<A>(w, in.slot[1]);
  const B* b = lanes_of<B>(w, in.slot[2]);
  if (m == all) {
#pragma GCC ivdep
    for (int i = 0; i < lanes; ++i) d[i] = f(a[i], b[i]);
  } else {
    for (int i = 0; i < lanes; ++i)
      if (m >> i & 1) d[i] = f(a[i], b[i]);
  }
}
template <class D, class A, class B, class C, class F>
inline void map3(Warp& w, const Instruction& in, u32 m, F f) {
  D* d = lanes_of<D>(w, in.slot[0]);
  const A* a = lanes_of<A>(w, in.slot[1]);
  const B* b = lanes_of<B>(w, in.slot[2]);
  const C* c = lanes_of<C>(w, in.slot[3]);
  if (m == all) {
#pragma GCC ivdep
    for (int i = 0; i < lanes; ++i) d[i] = f(a[i], b[i], c[i]);
  } else {
    for (int i = 0; i < lanes; ++i)
      if (m >> i & 1) d[i] = f(a[i], b[i], c[i]);
  }
}
template <class T, class L, class F>  // T: what is compared; L: how a lane is held
inline void compare(Warp& w, const Instruction& in, u32 m, F f) {
  const L* a = lanes_of<L>(w, in.slot[2]);
  const L* b = lanes_of<L>(w, in.slot[3]);
  u32 bits = 0;
  for (int i = 0; i < lanes; ++i) bits |= u32(f(T(a[i]), T(b[i]))) << i;
  u32 other = 0;
  if (in.extra[0]) {
    other = predicate(w, in.slot[4]);
    if (in.extra[1]) other = ~other;
  }
  const auto joined = [&](u32 v) {
    return in.extra[0] == 1 ? v & other : in.extra[0] == 2 ? v | other : in.extra[0] == 3 ? v ^ other : v;
  };
  const u32 first = joined(bits), second = joined(~bits);
  u32& p = predicate(w, in.slot[0]);
  p = (p & ~m) | (first & m);
  if (in.slot[1] != none) {
    u32& q = predicate(w, in.slot[1]);
    q = (q & ~m) | (second & m);
  }
}

inline u32 bits_of(f32 v) {
  u32 b;
  std::memcpy(&b, &v, 4);
  return b;
}
inline f32 float_of(u32 b) {
  f32 v;
  std::memcpy(&v, &b, 4);
  return v;
}
inline u64 bits_of(f64 v) {
  u64 b;
  std::memcpy(&b, &v, 8);
  return b;
}
inline f64 double_of(u64 b) {
  f64 v;
  std::memcpy(&v, &b, 8);
  return v;
}

inline u32 tf32_nearest_away(f32 v) {
  const u32 b = bits_of(v);
  if ((b & 0x7fffffffu) > 0x7f800000u) return 0x7fffffffu;
  if ((b & 0x7f800000u) == 0x7f800000u) return b;
  return ((b + 0x1000u) & 0xffffe000u) | settings.tf32_junk;
}
inline u32 bf16_nearest_even(f32 v) {
  const u32 b = bits_of(v);
  if ((b & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
  return (b + 0x7fffu + (b >> 16 & 1)) >> 16;
}
template <class To, class From>
inline To saturating(From v) {  // float to integer, already rounded
  if (v != v) return 0;
  if (v <= From(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
  if (v >= From(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
  return To(v);
}

// Entries of the table `t`: of one, two and three operands; `e` computes from a, b, c.
#define UN(name, D, A, e) \
  t[name] = [](Warp& w, const Instruction& in, u32 m) { map1<D, A>(w, in, m, [](A a) -> D { return e; }); };
#define BIN(name, T, e) \
  t[name] = [](Warp& w, const Instruction& in, u32 m) { map2<T, T, T>(w, in, m, [](T a, T b) -> T { return e; }); };
#define TRI(name, T, e)                                               \
  t[name] = [](Warp& w, const Instruction& in, u32 m) {               \
    map3<T, T, T, T>(w, in, m, [](T a, T b, T c) -> T { return e; }); \
  };

}  // namespace px
