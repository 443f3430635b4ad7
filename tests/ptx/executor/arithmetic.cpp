// Integer and float arithmetic, logic, moves, packing.
#include <cmath>
#include <cstdlib>

#include "lanes.h"

namespace px {
namespace {

template <class T>
T divided(Warp& w, const Instruction& in, T a, T b, bool remainder) {
  if (b == 0) {
    fault("division by zero", &w, &in, 0, 0);
    return T(-1);
  }
  if constexpr (std::is_signed_v<T>) {
    if (b == T(-1)) return remainder ? T(0) : T(0 - std::make_unsigned_t<T>(a));
  }
  return remainder ? T(a % b) : T(a / b);
}
template <class T, bool remainder>
void divide(Warp& w, const Instruction& in, u32 m) {
  T* d = lanes_of<T>(w, in.slot[0]);
  const T* a = lanes_of<T>(w, in.slot[1]);
  const T* b = lanes_of<T>(w, in.slot[2]);
  for (int i = 0; i < lanes; ++i)
    if (m >> i & 1) d[i] = divided(w, in, a[i], b[i], remainder);
}
// A predicate instruction.
template <class F>
void on_predicates(Warp& w, const Instruction& in, u32 m, F f) {
  u32& d = predicate(w, in.slot[0]);
  d = (d & ~m) | (f() & m);
}
template <class T>
void select(Warp& w, const Instruction& in, u32 m) {
  const u32 p = predicate(w, in.slot[3]);
  T* d = lanes_of<T>(w, in.slot[0]);
  const T* a = lanes_of<T>(w, in.slot[1]);
  const T* b = lanes_of<T>(w, in.slot[2]);
  for (int i = 0; i < lanes; ++i)
    if (m >> i & 1) d[i] = p >> i & 1 ? a[i] : b[i];
}

}  // namespace

void add_arithmetic(Table& t) {
#define INTS(U, S, us, ss, bs)                                                                                       \
  BIN("add." ss, U, a + b)                                                                                           \
  BIN("add." us, U, a + b)                                                                                           \
  BIN("sub." ss, U, a - b) BIN("sub." us, U, a - b) BIN("mul.lo." ss, U, a* b) BIN("mul.lo." us, U, a* b)            \
      TRI("mad.lo." ss, U, a* b + c) TRI("mad.lo." us, U, a* b + c) BIN("and." bs, U, a& b) BIN("or." bs, U, a | b)  \
          BIN("xor." bs, U, a ^ b) UN("not." bs, U, U, ~a) UN("neg." ss, U, U, 0 - a)                                \
              UN("abs." ss, S, S, a < 0 ? S(0 - U(a)) : a) BIN("min." ss, S, a < b ? a : b)                          \
                  BIN("max." ss, S, a > b ? a : b) BIN("min." us, U, a < b ? a : b) BIN("max." us, U, a > b ? a : b) \
                      t["div." ss] = divide<S, false>;                                                               \
  t["div." us] = divide<U, false>;                                                                                   \
  t["rem." ss] = divide<S, true>;                                                                                    \
  t["rem." us] = divide<U, true>;                                                                                    \
  t["selp." ss] = t["selp." us] = t["selp." bs] = select<U>;                                                         \
  t["shl." bs] = [](Warp& w, const Instruction& in, u32 m) {                                                         \
    map2<U, U, u32>(w, in, m, [](U a, u32 b) -> U { return b < 8 * sizeof(U) ? a << b : 0; });                       \
  };                                                                                                                 \
  t["shr." us] = t["shr." bs] = [](Warp& w, const Instruction& in, u32 m) {                                          \
    map2<U, U, u32>(w, in, m, [](U a, u32 b) -> U { return b < 8 * sizeof(U) ? a >> b : 0; });                       \
  };                                                                                                                 \
  t["shr." ss] = [](Warp& w, const Instruction& in, u32 m) {                                                         \
    map2<S, S, u32>(w, in, m, [](S a, u32 b) -> S { return a >> (b < 8 * sizeof(U) ? b : 8 * sizeof(U) - 1); });     \
  };
  INTS(u32, s32, "u32", "s32", "b32")
  INTS(u64, s64, "u64", "s64", "b64")
  BIN("and.b16", u32, a & b)
  BIN("or.b16", u32, a | b)
  BIN("add.s16", u32, (a + b) & 0xffffu)
  t["selp.b16"] = t["selp.u16"] = t["selp.s16"] = select<u32>;
  BIN("mul.hi.u32", u32, u32(u64(a) * b >> 32))
  BIN("mul.hi.s32", s32, s32(s64(a) * b >> 32))
  BIN("mul.hi.u64", u64, u64((unsigned __int128)(a)*b >> 64))
  BIN("mul.hi.s64", s64, s64((__int128)(a)*b >> 64))
  t["mul.wide.s32"] = [](Warp& w, const Instruction& in, u32 m) {
    if (in.slot[0] == in.slot[1] || in.slot[0] == in.slot[2]) std::abort();
    map2<s64, s32, s32>(w, in, m, [](s32 a, s32 b) { return s64(a) * b; });
  };
  t["mul.wide.u32"] = [](Warp& w, const Instruction& in, u32 m) {
    map2<u64, u32, u32>(w, in, m, [](u32 a, u32 b) { return u64(a) * b; });
  };
  t["mul.wide.u16"] = [](Warp& w, const Instruction& in, u32 m) {
    map2<u32, u32, u32>(w, in, m, [](u32 a, u32 b) { return (a & 0xffffu) * (b & 0xffffu); });
  };
  t["prmt.b32"] = [](Warp& w, const Instruction& in, u32 m) {
    map3<u32, u32, u32, u32>(w, in, m, [](u32 a, u32 b, u32 c) -> u32 {
      const u64 bytes = u64(b) << 32 | a;
      u32 picked = 0;
      for (int i = 0; i < 4; ++i) {
        const u32 which = c >> (4 * i), byte = u32(bytes >> (8 * (which & 7))) & 0xffu;
        picked |= ((which & 8) == 0 ? byte : (byte & 0x80) != 0 ? 0xffu : 0u) << (8 * i);
      }
      return picked;
    });
  };
  t["mad.wide.s32"] = [](Warp& w, const Instruction& in, u32 m) {
    map3<s64, s32, s32, s64>(w, in, m, [](s32 a, s32 b, s64 c) { return s64(u64(s64(a) * b) + u64(c)); });
  };
  t["mad.wide.u32"] = [](Warp& w, const Instruction& in, u32 m) {
    map3<u64, u32, u32, u64>(w, in, m, [](u32 a, u32 b, u64 c) { return u64(a) * b + c; });
  };
  t["bfe.u32"] = [](Warp& w, const Instruction& in, u32 m) {
    map3<u32, u32, u32, u32>(w, in, m, [](u32 a, u32 b, u32 c) -> u32 {
      const u32 at = b & 255, size = c & 255;
      if (size == 0 || at > 31) return 0;
      return (a >> at) & (size >= 32 ? all : (1u << size) - 1);
    });
  };
  UN("popc.b32", u32, u32, u32(__builtin_popcount(a)))
  UN("clz.b32", u32, u32, a ? u32(__builtin_clz(a)) : 32u)
  UN("mov.b32", u32, u32, a)
  UN("mov.b64", u64, u64, a)
  t["mov.pred"] = [](Warp& w, const Instruction& in, u32 m) {
    on_predicates(w, in, m, [&] { return predicate(w, in.slot[1]); });
  };
  t["and.pred"] = [](Warp& w, const Instruction& in, u32 m) {
    on_predicates(w, in, m, [&] { return predicate(w, in.slot[1]) & predicate(w, in.slot[2]); });
  };
  t["or.pred"] = [](Warp& w, const Instruction& in, u32 m) {
    on_predicates(w, in, m, [&] { return predicate(w, in.slot[1]) | predicate(w, in.slot[2]); });
  };
  t["xor.pred"] = [](Warp& w, const Instruction& in, u32 m) {
    on_predicates(w, in, m, [&] { return predicate(w, in.slot[1]) ^ predicate(w, in.slot[2]); });
  };
  t["not.pred"] = [](Warp& w, const Instruction& in, u32 m) {
    on_predicates(w, in, m, [&] { return ~predicate(w, in.slot[1]); });
  };
  t["pack.8.2"] = [](Warp& w, const Instruction& in, u32 m) {
    map2<u64, u32, u32>(w, in, m, [](u32 a, u32 b) { return u64(a) | u64(b) << 32; });
  };
  t["pack.4.2"] = [](Warp& w, const Instruction& in, u32 m) {
    map2<u32, u32, u32>(w, in, m, [](u32 a, u32 b) { return (a & 0xffffu) | b << 16; });
  };
  t["unpack.8.2"] = [](Warp& w, const Instruction& in, u32 m) {
    const u64* a = lanes_of<u64>(w, in.slot[2]);
    for (int i = 0; i < lanes; ++i) {
      if (!(m >> i & 1)) continue;
      const u64 v = a[i];
      if (in.slot[0] != none) lanes_of<u32>(w, in.slot[0])[i] = u32(v);
      if (in.slot[1] != none) lanes_of<u32>(w, in.slot[1])[i] = u32(v >> 32);
    }
  };
#define FLOATS(T, s, FMA)                                                                               \
  BIN("add." s, T, a + b)                                                                               \
  BIN("add.rn." s, T, a + b)                                                                            \
  BIN("sub." s, T, a - b) BIN("sub.rn." s, T, a - b) BIN("mul." s, T, a* b) BIN("mul.rn." s, T, a* b)   \
      BIN("div.rn." s, T, a / b) TRI("fma.rn." s, T, FMA(a, b, c)) UN("sqrt.rn." s, T, T, std::sqrt(a)) \
          UN("rcp.rn." s, T, T, T(1) / a)
  FLOATS(f32, "f32", __builtin_fmaf)
  FLOATS(f64, "f64", __builtin_fma)
  UN("neg.f32", u32, u32, a ^ 0x80000000u)
  UN("abs.f32", u32, u32, a & 0x7fffffffu)
  UN("neg.f64", u64, u64, a ^ (1ull << 63))
  UN("abs.f64", u64, u64, a & ~(1ull << 63))
  BIN("max.f32", f32, a != a ? b : b != b ? a : a > b ? a : b)
  BIN("min.f32", f32, a != a ? b : b != b ? a : a < b ? a : b)
  t["selp.f32"] = select<u32>;
  t["selp.f64"] = select<u64>;
  UN("rcp.approx.ftz.f32", f32, f32, f32(1) / (std::fabs(a) < 1.17549435e-38f ? std::copysign(0.0f, a) : a))
  UN("rcp.approx.ftz.f64", f64, f64,
     double_of(bits_of(1.0 / double_of(bits_of(a) & 0xffffffff00000000ull)) & 0xffffffff00000000ull))
}

}  // namespace px
