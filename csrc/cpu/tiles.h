// Products of float32 matrices by tiles of bfloat16: a float32 is the sum of three bfloat16, exactly, and six of the
// nine products of such parts hold all but the last bit of theirs. Sums are float32.
//
// Where the compiler is told of AMX these are its instructions, 16 rows of 32 numbers against 32 rows of 16 at a time;
// elsewhere a plain model of them, which tests run.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AMX_BF16__)
#include <immintrin.h>
#endif

#include "../core/rules.h"
#include "tile_convolution.h"

namespace ebp {
namespace EBP_ISA {

using std::int64_t;
using Bfloat16 = std::uint16_t;

constexpr int tile_rows = 16;                         // of outputs: pixels of the left factor, channels of the right
constexpr int tile_depth = tile_block;                // numbers of each row that one instruction multiplies
constexpr int tile_numbers = tile_rows * tile_depth;  // of a tile of parts, 1 KiB

#if defined(__AMX_BF16__)

// While it lives, this thread's tile registers are ours; what they were set to before comes back, for oneDNN remembers
// how it left them.
class TileRegisters {
 public:
  TileRegisters() {
    struct alignas(64) {
      std::uint8_t palette = 1, start = 0, reserved[14] = {};
      std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } ours;
    _tile_storeconfig(before_);
    _tile_loadconfig(&ours);
  }
  ~TileRegisters() { _tile_loadconfig(before_); }
  TileRegisters(const TileRegisters&) = delete;
  TileRegisters& operator=(const TileRegisters&) = delete;

 private:
  alignas(64) char before_[64];
};

// Sums of Pixels x Channels tiles, 16 x 16 each. Registers 0 to 3 hold the sums, 4 and 5 tiles of the left factor, 6
// and 7 of the right.
template <int Pixels, int Channels>
struct TileSums {
  EBP_HD void clear() {
    _tile_zero(0);
    if constexpr (Channels == 2) _tile_zero(1);
    if constexpr (Pixels == 2) _tile_zero(2);
    if constexpr (Pixels == 2 && Channels == 2) _tile_zero(3);
  }
  // from [16 * Pixels][16 * Channels], rows that lie `row` floats apart
  EBP_HD void load(const float* from, int64_t row) {
    _tile_loadd(0, from, row * 4);
    if constexpr (Channels == 2) _tile_loadd(1, from + 16, row * 4);
    if constexpr (Pixels == 2) _tile_loadd(2, from + 16 * row, row * 4);
    if constexpr (Pixels == 2 && Channels == 2) _tile_loadd(3, from + 16 * row + 16, row * 4);
  }
  EBP_HD void load_left(const Bfloat16* left) {
    _tile_loadd(4, left, 64);
    if constexpr (Pixels == 2) _tile_loadd(5, left + tile_numbers, 64);
  }
  EBP_HD void load_right(const Bfloat16* right) {
    _tile_loadd(6, right, 64);
    if constexpr (Channels == 2) _tile_loadd(7, right + tile_numbers, 64);
  }
  EBP_HD void multiply() {
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (Channels == 2) _tile_dpbf16ps(1, 4, 7);
    if constexpr (Pixels == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (Pixels == 2 && Channels == 2) _tile_dpbf16ps(3, 5, 7);
  }
  EBP_HD void store(float* to, int64_t row) {
    _tile_stored(0, to, row * 4);
    if constexpr (Channels == 2) _tile_stored(1, to + 16, row * 4);
    if constexpr (Pixels == 2) _tile_stored(2, to + 16 * row, row * 4);
    if constexpr (Pixels == 2 && Channels == 2) _tile_stored(3, to + 16 * row + 16, row * 4);
  }
};

#else

struct TileRegisters {
  TileRegisters() {}
};

template <int Pixels, int Channels>
struct TileSums {
  float sums[Pixels * tile_rows][Channels * tile_rows];
  const Bfloat16 *left, *right;

  EBP_HD static float number(Bfloat16 part) {
    const std::uint32_t bits = std::uint32_t(part) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  EBP_HD void clear() { std::memset(sums, 0, sizeof sums); }
  EBP_HD void load(const float* from, int64_t row) {
    for (int i = 0; i < Pixels * tile_rows; ++i) std::memcpy(sums[i], from + i * row, sizeof sums[i]);
  }
  EBP_HD void store(float* to, int64_t row) {
    for (int i = 0; i < Pixels * tile_rows; ++i) std::memcpy(to + i * row, sums[i], sizeof sums[i]);
  }
  EBP_HD void load_left(const Bfloat16* from) { left = from; }
  EBP_HD void load_right(const Bfloat16* from) { right = from; }
  // As the instruction sums: even and odd numbers of a row on their own, then both to what was there.
  EBP_HD void multiply() {
    for (int pixel = 0; pixel < Pixels * tile_rows; ++pixel) {
      for (int channel = 0; channel < Channels * tile_rows; ++channel) {
        const Bfloat16 *a = left + pixel * tile_depth, *b = right + channel / tile_rows * tile_numbers;
        float even = 0, odd = 0;
        for (int k = 0; k < tile_depth; k += 2) {
          const Bfloat16* pair = b + k * tile_rows + channel % tile_rows * 2;
          even += number(a[k]) * number(pair[0]);
          odd += number(a[k + 1]) * number(pair[1]);
        }
        sums[pixel][channel] += even + odd;
      }
    }
  }
};

#endif

// sums += left * right, 32 deep: the parts of left lie `distance` apart, those of right follow one another. Every part
// is loaded once, but for the first of left, which multiplies the smallest and the largest of right.
template <class Sums>
EBP_HD void multiply_parts(Sums& sums, const Bfloat16* left, int64_t distance, const Bfloat16* right) {
  constexpr int next = 2 * tile_numbers;
  sums.load_left(left);
  sums.load_right(right + 2 * next);
  sums.multiply();
  sums.load_right(right + next);
  sums.multiply();
  sums.load_left(left + distance);
  sums.multiply();
  sums.load_right(right);
  sums.multiply();
  sums.load_left(left + 2 * distance);
  sums.multiply();
  sums.load_left(left);
  sums.multiply();
}

typedef float Floats __attribute__((vector_size(64)));
typedef std::uint32_t Bits __attribute__((vector_size(64)));
typedef Bfloat16 Halves __attribute__((vector_size(64)));

// The upper halves of the words of a, and of b.
EBP_HD Halves upper_halves(Floats a, Floats b) {
  return __builtin_shufflevector(reinterpret_cast<Halves>(a), reinterpret_cast<Halves>(b), 1, 3, 5, 7, 9, 11, 13, 15,
                                 17, 19, 21, 23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59,
                                 61, 63);
}

// What is left of numbers whose upper halves are taken away.
EBP_HD Floats below_upper_half(Floats numbers) {
  return numbers - reinterpret_cast<Floats>(reinterpret_cast<Bits>(numbers) & 0xffff0000u);
}

// 32 floats as the three bfloat16 that each is the sum of; the part i of them to to + i * distance. Cut off and not
// rounded, so that nothing overflows and a NaN stays one.
EBP_HD void split_floats(Floats a, Floats b, Bfloat16* to, int64_t distance) {
  for (int part = 0; part < parts; ++part) {
    const Halves upper = upper_halves(a, b);
    __builtin_memcpy(to + part * distance, &upper, sizeof upper);
    a = below_upper_half(a);
    b = below_upper_half(b);
  }
}

// 16 floats, zeros behind the first `count` of them.
EBP_HD Floats load_floats(const float* from, int count) {
  Floats numbers{};
  if (count >= tile_rows) {
    __builtin_memcpy(&numbers, from, sizeof numbers);
  } else {
    for (int i = 0; i < count; ++i) numbers[i] = from[i];
  }
  return numbers;
}

EBP_HD void store_floats(Floats numbers, float* to, int count) {
  if (count >= tile_rows) {
    __builtin_memcpy(to, &numbers, sizeof numbers);
  } else {
    for (int i = 0; i < count; ++i) to[i] = numbers[i];
  }
}

}  // namespace EBP_ISA
}  // namespace ebp
