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

template <class T>
void max_winner(int count, const T* const* xs, std::uint8_t* winner, int64_t begin, int64_t end) {
  for (int64_t at = begin; at < end; ++at) {
    int best = count > 1 ? winner_of_first_two(xs[0][at], xs[1][at]) : 0;
    for (int i = 2; i < count; ++i) {
      if (later_input_wins(xs[i][at], xs[best][at])) best = i;
    }
    winner[at] = std::uint8_t(best);
  }
}

}  // namespace EBP_ISA
}  // namespace ebp
