// share, gate and the element-wise maximum's winner on the CPU.
#pragma once

#include "vector.h"

namespace ebp {
namespace EBP_ISA {

// Cuts [begin, end) of the flat tensor at row ends: body(flat offset, offset in the shared tensor, count).
template <class Body>
EBP_HD void for_row_parts(const Rows& d, int64_t begin, int64_t end, const Body& body) {
  while (begin < end) {
    const int64_t row_end = (begin / d.row + 1) * d.row;
    const int64_t count = (row_end < end ? row_end : end) - begin;
    body(begin, shared_index(d, begin), count);
    begin += count;
  }
}

template <class T>
void share(const Rows& d, const T* p, const T* z, T* r, int64_t begin, int64_t end) {
  for_row_parts(d, begin, end, [&](int64_t at, int64_t shared, int64_t count) {
    for (int64_t i = 0; i < count; ++i) r[at + i] = ebp::share(p[at + i], z[shared + i]);
  });
}

template <class T>
void gate(const Rows& d, const T* s, const T* x, T* y, int64_t begin, int64_t end) {
  for_row_parts(d, begin, end, [&](int64_t at, int64_t shared, int64_t count) {
    for (int64_t i = 0; i < count; ++i) y[at + i] = s[at + i] * x[shared + i];
  });
}

// A block at a time, so that the best values so far stay at hand while one input after the other is compared.
template <class T>
void max_winner(int count, const T* const* xs, std::uint8_t* winner, int64_t begin, int64_t end) {
  constexpr int64_t block = 256;
  T best[block];
  for (; begin < end; begin += block) {
    const int64_t length = end - begin < block ? end - begin : block;
    const T *a = xs[0] + begin, *b = xs[count > 1 ? 1 : 0] + begin;
    std::uint8_t* const codes = winner + begin;
    for (int64_t i = 0; i < length; ++i) {
      codes[i] = count > 1 ? std::uint8_t(winner_of_first_two(a[i], b[i])) : 0;
      best[i] = codes[i] == 0 ? a[i] : b[i];
    }
    for (int input = 2; input < count; ++input) {
      const T* x = xs[input] + begin;
      for (int64_t i = 0; i < length; ++i) {
        const bool wins = later_input_wins(x[i], best[i]);
        best[i] = wins ? x[i] : best[i];
        codes[i] = wins ? std::uint8_t(input) : codes[i];
      }
    }
  }
}

}  // namespace EBP_ISA
}  // namespace ebp
