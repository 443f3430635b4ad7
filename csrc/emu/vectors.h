// CUDA's small vector types, for the emulator.
#pragma once

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

#define EMU_PAIR(T, name)              \
  struct alignas(2 * sizeof(T)) name { \
    T x, y;                            \
  };                                   \
  inline name make_##name(T x, T y) { return {x, y}; }
#define EMU_QUAD(T, name)              \
  struct alignas(4 * sizeof(T)) name { \
    T x, y, z, w;                      \
  };                                   \
  inline name make_##name(T x, T y, T z, T w) { return {x, y, z, w}; }

EMU_PAIR(float, float2)
EMU_PAIR(double, double2)
EMU_PAIR(int, int2)
EMU_PAIR(unsigned, uint2)
EMU_QUAD(float, float4)
EMU_QUAD(int, int4)
EMU_QUAD(unsigned, uint4)
EMU_QUAD(unsigned char, uchar4)

#undef EMU_PAIR
#undef EMU_QUAD
