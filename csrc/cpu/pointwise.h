// share, gate and the element-wise maximum's winner on the CPU.
#pragma once

#include "vector.h"

namespace ebp {
namespace EBP_ISA {

// Cuts [begin, end) of the result at the ends of runs: body(offset, offset in the column tensor, in the shared one,
// count).
template <class Body>
EBP_HD void for_runs(const Rows& d, int64_t begin, int64_t end, const Body& body) {
  int64_t row = begin / d.row, at = begin - row * d.row;
  int64_t run = at / d.run;
  at -= run * d.run;
  while (begin < end) {
    const int64_t count = d.run - at < end - begin ? d.run - at : end - begin;
    body(begin, row * d.column.row + run * d.column.run + at, row / d.columns * d.shared.row + run * d.shared.run + at,
         count);
    begin += count;
    at = 0;
    if (++run * d.run == d.row) ++row, run = 0;
  }
}

// Asks for what lies `ahead` elements behind a run. Hardware foresees no reads with gaps between them.
template <class T>
EBP_HD void prefetch_run(const T* run, int64_t ahead, int64_t count) {
  constexpr int64_t line = 64 / sizeof(T);
  for (int64_t i = 0; i < count; i += line) __builtin_prefetch(run + ahead + i);
}

// result = formula(column, shared), element by element.
template <class T, class Formula>
EBP_HD void combine(const Rows& d, const T* column, const T* shared, T* result, int64_t begin, int64_t end,
                    const Formula& formula) {
  constexpr int64_t enough = 2048 / sizeof(T);
  const int64_t ahead = (enough + d.run - 1) / d.run * d.column.run;
  for_runs(d, begin, end, [&](int64_t to, int64_t from, int64_t with, int64_t count) {
    if (d.column.run > d.run) prefetch_run(column + from, ahead, count);
    const T *a = column + from, *b = shared + with;
    T* __restrict c = result + to;
    for (int64_t i = 0; i < count; ++i) c[i] = formula(a[i], b[i]);
  });
}

template <class T>
void share(const Rows& d, const T* p, const T* z, T* r, int64_t begin, int64_t end) {
  combine(d, p, z, r, begin, end, [](T a, T b) { return divide_or_zero(a, b); });
}

template <class T>
void gate(const Rows& d, const T* s, const T* x, T* y, int64_t begin, int64_t end) {
  combine(d, s, x, y, begin, end, [](T a, T b) { return a * b; });
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
