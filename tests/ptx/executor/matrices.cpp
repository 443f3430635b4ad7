// ldmatrix and mma.sync: the layouts of the PTX ISA, and two models of what a tensor core's sum rounds to.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "lanes.h"

namespace px {
namespace {

// Matrix k of x: rows' addresses come from lanes 8 k .. 8 k + 7. A lane gets of row lane / 4 the elements 2 (lane % 4)
// and the next; transposed, of rows 2 (lane % 4) and the next the element lane / 4.
void ldmatrix(Warp& w, const Instruction& in, u32 m) {
  must_be_whole(w, in, m);
  const int count = in.extra[0];
  u32 out[4][lanes];
  for (int k = 0; k < count; ++k) {
    const u8* row[8];
    u32 at[lanes];
    static const u8 nothing[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                   0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    u32 used = 0;
    for (int r = 0; r < 8; ++r) {
      const int lane = 8 * k + r;
      u64 a = address_of(w, in.slot[4], in.extra[2], in.number[0], lane);
      row[r] = nothing;
      if (a % 16 != 0) {
        fault("misaligned ldmatrix", &w, &in, lane, a);
        continue;
      }
      if (shared_touch(w, in, lane, u32(a), 16, reading)) row[r] = w.m->memory.data() + a;
      at[r] = u32(a);
      used |= 1u << r;
    }
    count_shared(in, at, used, 16);
    if (k > 0) --in.shared_requests;
    for (int lane = 0; lane < lanes; ++lane) {
      u16 low, high;
      if (in.extra[1]) {
        std::memcpy(&low, row[lane % 4 * 2] + lane / 4 * 2, 2);
        std::memcpy(&high, row[lane % 4 * 2 + 1] + lane / 4 * 2, 2);
      } else {
        std::memcpy(&low, row[lane / 4] + lane % 4 * 4, 2);
        std::memcpy(&high, row[lane / 4] + lane % 4 * 4 + 2, 2);
      }
      out[k][lane] = u32(low) | u32(high) << 16;
    }
  }
  for (int k = 0; k < count; ++k)
    for (int lane = 0; lane < lanes; ++lane)
      if (m >> lane & 1) lanes_of<u32>(w, in.slot[k])[lane] = out[k][lane];
}

// One element of d = a b + c. Model 1 aligns all summands to the largest exponent and truncates what lies 24 bits below
// it.
f32 dot(const f32* a, const f32* b, int terms, f32 c) {
  if (settings.mma_model == 0) {
    long double sum = c;
    for (int k = 0; k < terms; ++k) sum += (long double)(a[k]) * b[k];
    return f32(sum);
  }
  f64 parts[17];
  int n = 0, top = -100000;
  for (int k = 0; k < terms; ++k) parts[n++] = f64(a[k]) * b[k];
  parts[n++] = c;
  for (int k = 0; k < n; ++k) {
    if (!std::isfinite(parts[k])) {
      f64 s = 0;
      for (int j = 0; j < n; ++j) s += parts[j];
      return f32(s);
    }
    if (parts[k] != 0) top = std::max(top, std::ilogb(parts[k]));
  }
  if (top == -100000) return 0;
  const f64 unit = std::ldexp(1.0, top - 24);
  f64 sum = 0;
  for (int k = 0; k < n; ++k) sum += std::trunc(parts[k] / unit) * unit;
  if (sum == 0) return 0;
  const f64 last = std::ldexp(1.0, std::max(std::ilogb(sum) - 23, -149));
  return f32(std::trunc(sum / last) * last);
}

// Rows g = lane / 4 and g + 8, columns 2 t and 2 t + 1 with t = lane % 4, for every shape with n = 8 and f32 sums.
template <int terms, class AtA, class AtB>
void mma(Warp& w, const Instruction& in, u32 m, const AtA& a_of, const AtB& b_of, int c_first) {
  must_be_whole(w, in, m);
  f32 a[16][terms], b[8][terms], d[4][lanes];
  a_of(a);
  b_of(b);
  for (int lane = 0; lane < lanes; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int e = 0; e < 4; ++e) {
      d[e][lane] = dot(a[g + e / 2 * 8], b[2 * t + e % 2], terms, lanes_of<f32>(w, in.slot[c_first + e])[lane]);
    }
  }
  for (int e = 0; e < 4; ++e)
    for (int lane = 0; lane < lanes; ++lane)
      if (m >> lane & 1) lanes_of<f32>(w, in.slot[e])[lane] = d[e][lane];
}

f32 tf32_operand(Warp& w, const Instruction& in, int lane, u32 bits) {
  if (bits & 0x1fffu) fault("mma operand is no tf32", &w, &in, lane, bits);
  return float_of(bits & 0xffffe000u);
}
void mma_tf32_k8(Warp& w, const Instruction& in, u32 m) {
  mma<8>(
      w, in, m,
      [&](f32(&a)[16][8]) {
        for (int lane = 0; lane < lanes; ++lane)
          for (int e = 0; e < 4; ++e)
            a[lane / 4 + e % 2 * 8][lane % 4 + e / 2 * 4] =
                tf32_operand(w, in, lane, lanes_of<u32>(w, in.slot[4 + e])[lane]);
      },
      [&](f32(&b)[8][8]) {
        for (int lane = 0; lane < lanes; ++lane)
          for (int e = 0; e < 2; ++e)
            b[lane / 4][lane % 4 + e * 4] = tf32_operand(w, in, lane, lanes_of<u32>(w, in.slot[8 + e])[lane]);
      },
      10);
}
void mma_bf16_k16(Warp& w, const Instruction& in, u32 m) {
  const auto pair = [](f32* to, u32 bits) {
    to[0] = float_of(bits << 16);
    to[1] = float_of(bits & 0xffff0000u);
  };
  mma<16>(
      w, in, m,
      [&](f32(&a)[16][16]) {
        for (int lane = 0; lane < lanes; ++lane)
          for (int e = 0; e < 4; ++e)
            pair(&a[lane / 4 + e % 2 * 8][lane % 4 * 2 + e / 2 * 8], lanes_of<u32>(w, in.slot[4 + e])[lane]);
      },
      [&](f32(&b)[8][16]) {
        for (int lane = 0; lane < lanes; ++lane)
          for (int e = 0; e < 2; ++e) pair(&b[lane / 4][lane % 4 * 2 + e * 8], lanes_of<u32>(w, in.slot[8 + e])[lane]);
      },
      10);
}

}  // namespace

void add_matrices(Table& t) {
  t["ldmatrix"] = ldmatrix;
  t["mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"] = mma_tf32_k8;
  t["mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"] = mma_bf16_k16;
}

}  // namespace px
