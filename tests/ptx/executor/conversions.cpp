// Comparisons and conversions.
#include <cmath>

#include "lanes.h"

namespace px {

void add_comparisons(Table& t) {
#define CMP(name, T, L, e) \
  t[name] = [](Warp& w, const Instruction& in, u32 m) { compare<T, L>(w, in, m, [](T a, T b) { return bool(e); }); };
#define CMPI(s, T, L)                                                                           \
  CMP("setp.eq." s, T, L, a == b)                                                               \
  CMP("setp.ne." s, T, L, a != b)                                                               \
  CMP("setp.lt." s, T, L, a < b) CMP("setp.le." s, T, L, a <= b) CMP("setp.gt." s, T, L, a > b) \
      CMP("setp.ge." s, T, L, a >= b)
  CMPI("s16", s16, u32)
  CMPI("u16", u16, u32)
  CMPI("s32", s32, s32)
  CMPI("u32", u32, u32)
  CMPI("s64", s64, s64)
  CMPI("u64", u64, u64)
  CMP("setp.eq.b16", u16, u32, a == b)
  CMP("setp.ne.b16", u16, u32, a != b)
  CMP("setp.eq.b32", u32, u32, a == b)
  CMP("setp.ne.b32", u32, u32, a != b)
  CMP("setp.eq.b64", u64, u64, a == b)
  CMP("setp.ne.b64", u64, u64, a != b)
#define CMPF(s, T)                                                                                                   \
  CMP("setp.eq." s, T, T, a == b)                                                                                    \
  CMP("setp.ne." s, T, T, a<b || a> b)                                                                               \
  CMP("setp.lt." s, T, T, a < b) CMP("setp.le." s, T, T, a <= b) CMP("setp.gt." s, T, T, a > b)                      \
      CMP("setp.ge." s, T, T, a >= b) CMP("setp.equ." s, T, T, !(a < b || a > b)) CMP("setp.neu." s, T, T, a != b)   \
          CMP("setp.ltu." s, T, T, !(a >= b)) CMP("setp.leu." s, T, T, !(a > b)) CMP("setp.gtu." s, T, T, !(a <= b)) \
              CMP("setp.geu." s, T, T, !(a < b)) CMP("setp.num." s, T, T, a == a && b == b)                          \
                  CMP("setp.nan." s, T, T, a != a || b != b)
  CMPF("f32", f32)
  CMPF("f64", f64)
}

// "cvt.s64.s32>8<4": into a register whose lanes are held in 8 bytes, from one in 4.
void add_conversions(Table& t) {
  UN("cvt.s64.s32>8<4", u64, u32, u64(s64(s32(a))))
  UN("cvt.s64.s32>8<8", u64, u64, u64(s64(s32(u32(a)))))
  UN("cvt.u32.u64>4<8", u32, u64, u32(a))
  UN("cvt.u64.u32>8<4", u64, u32, u64(a))
  UN("cvt.u64.u32>8<8", u64, u64, u64(u32(a)))
  UN("cvt.u16.u32>4<4", u32, u32, a & 0xffffu)
  UN("cvt.u32.u16>4<4", u32, u32, a & 0xffffu)
  UN("cvt.s32.s16>4<4", u32, u32, u32(s32(s16(a))))
  UN("cvt.u64.u16>8<4", u64, u32, u64(a & 0xffffu))
  UN("cvt.rmi.f32.f32>4<4", f32, f32, std::floor(a))
  UN("cvt.rzi.f32.f32>4<4", f32, f32, std::trunc(a))
  UN("cvt.rni.f32.f32>4<4", f32, f32, std::nearbyint(a))
  UN("cvt.rzi.f64.f64>8<8", f64, f64, std::trunc(a))
  UN("cvt.rn.f32.f64>4<8", f32, f64, f32(a))
  UN("cvt.f64.f32>8<4", f64, f32, f64(a))
  UN("cvt.rn.f32.s32>4<4", f32, s32, f32(a))
  UN("cvt.rn.f32.u32>4<4", f32, u32, f32(a))
  UN("cvt.rn.f64.s32>8<4", f64, s32, f64(a))
  UN("cvt.rn.f64.u32>8<4", f64, u32, f64(a))
  UN("cvt.rzi.s32.f32>4<4", s32, f32, (saturating<s32, f64>(std::trunc(f64(a)))))
  UN("cvt.rna.tf32.f32", u32, f32, tf32_nearest_away(a))
  t["cvt.rn.bf16x2.f32"] = [](Warp& w, const Instruction& in, u32 m) {
    map2<u32, f32, f32>(w, in, m,
                        [](f32 high, f32 low) { return bf16_nearest_even(high) << 16 | bf16_nearest_even(low); });
  };
  UN("cvta.to.global", u64, u64, a)
  UN("cvta.global", u64, u64, a)
  UN("cvta.to.shared", u64, u64, a - shared_window)
  UN("cvta.shared", u64, u64, a + shared_window)
  UN("cvta.to.param", u64, u64, a)
}

}  // namespace px
