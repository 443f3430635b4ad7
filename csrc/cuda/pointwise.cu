#include <climits>
#include <initializer_list>
#include <type_traits>

#include "pointwise.cuh"

namespace ebp {
namespace {

// Whether rows and their runs follow one another without gaps.
bool is_dense(const Rows& d, const Distances& at) { return at.row == d.row && (d.run == d.row || at.run == d.run); }

// Whether rows consist of quads that can be counted in 32 bits.
bool has_quads(const Rows& d) {
  const int64_t rows = d.total / d.row, last_run = d.row / d.run - 1;
  const auto fours = [](const Distances& at) { return at.row % 4 == 0 && at.run % 4 == 0; };
  const auto span = [&](const Distances& at, int64_t count) { return count * at.row + last_run * at.run + d.run; };
  return d.row % 4 == 0 && d.run % 4 == 0 && fours(d.column) && fours(d.shared) && d.columns <= INT_MAX &&
         d.row <= INT_MAX && span(d.column, rows) <= INT_MAX && span(d.shared, rows / d.columns) <= INT_MAX;
}

// Whether tensors without rows do.
bool flat_quads(int64_t total, std::initializer_list<const void*> pointers) {
  for (const void* p : pointers) {
    if (!aligned_to(p, sizeof(Quad))) return false;
  }
  return total % 4 == 0 && total <= INT_MAX;
}

RowQuads quads_of(const Rows& d) {
  const auto quads = [](int64_t elements) { return int(elements / 4); };
  return {quads(d.total),
          divider_of(quads(d.row)),
          divider_of(quads(d.run)),
          divider_of(int(d.columns)),
          {quads(d.column.row), quads(d.column.run)},
          {quads(d.shared.row), quads(d.shared.run)}};
}

// result = formula(a, b), four elements a thread where that can be, else by `kernel`.
template <class Formula, class T>
const char* combine(void (*kernel)(Rows, const T*, const T*, T*), const Rows& d, const T* a, const T* b, T* result,
                    const char* if_empty, void* stream) {
  if (d.total <= 0) return if_empty;
  if constexpr (std::is_same_v<T, float>) {
    if (flat_quads(d.total, {a, b, result}) && has_quads(d)) {
      const RowQuads quads = quads_of(d);
      const bool gaps = !is_dense(d, d.column) || !is_dense(d, d.shared);
      const auto fast = gaps ? combine_quads_kernel<Formula, true> : combine_quads_kernel<Formula, false>;
      const auto *left = reinterpret_cast<const Quad*>(a), *right = reinterpret_cast<const Quad*>(b);
      return launch_elements(fast, {quads.total, if_empty}, stream, quads, left, right,
                             reinterpret_cast<Quad*>(result));
    }
  }
  return launch_elements(kernel, {d.total, if_empty}, stream, d, a, b, result);
}

template <Precision precision>
const char* round_to(int64_t total, const float* x, float* y, void* stream) {
  const char* if_empty = "round: y is empty";
  if (!flat_quads(total, {x, y})) {
    return launch_elements(round_kernel<precision>, {total, if_empty}, stream, total, x, y);
  }
  const auto* from = reinterpret_cast<const Quad*>(x);
  return launch_elements(round_quads_kernel<precision>, {total / 4, if_empty}, stream, int(total / 4), from,
                         reinterpret_cast<Quad*>(y));
}

}  // namespace

template <class T>
const char* launch_share(const Rows& d, const T* p, const T* z, T* r, void* stream) {
  return combine<Share>(share_kernel<T>, d, p, z, r, "share: r is empty", stream);
}

template <class T>
const char* launch_gate(const Rows& d, const T* s, const T* x, T* y, void* stream) {
  return combine<Gate>(gate_kernel<T>, d, s, x, y, "gate: y is empty", stream);
}

const char* launch_round(int64_t total, const float* x, Precision precision, float* y, void* stream) {
  switch (precision) {
    case Precision::tf32:
      return round_to<Precision::tf32>(total, x, y, stream);
    case Precision::bf16:
      return round_to<Precision::bf16>(total, x, y, stream);
    default:
      return "round: wanted tf32 or bf16";
  }
}

template <class T>
const char* launch_add(int64_t total, const T* a, const T* b, T* sum, void* stream) {
  const Threads threads{total, "add: the sum is empty"};
  if constexpr (std::is_same_v<T, float>) {
    if (total > 0 && flat_quads(total, {a, b, sum})) {
      const auto *left = reinterpret_cast<const Quad*>(a), *right = reinterpret_cast<const Quad*>(b);
      return launch_elements(add_quads_kernel<T>, {total / 4, ""}, stream, int(total / 4), left, right,
                             reinterpret_cast<Quad*>(sum));
    }
  }
  return launch_elements(add_kernel<T>, threads, stream, total, a, b, sum);
}

template <class T>
const char* launch_max_winner(int64_t total, const Pointers<T>& xs, std::uint8_t* winner, void* stream) {
  return launch_elements(max_winner_kernel<T>, {total, "max_winner: winner is empty"}, stream, total, xs, winner);
}

#define EBP_INSTANTIATE(T)                                                          \
  template const char* launch_share<T>(const Rows&, const T*, const T*, T*, void*); \
  template const char* launch_gate<T>(const Rows&, const T*, const T*, T*, void*);  \
  template const char* launch_add<T>(int64_t, const T*, const T*, T*, void*);       \
  template const char* launch_max_winner<T>(int64_t, const Pointers<T>&, std::uint8_t*, void*);
EBP_INSTANTIATE(float)
EBP_INSTANTIATE(double)

}  // namespace ebp
