// The project's launchers with C names, structs by pointer, for ctypes. A schedule is opaque to Python: it gets those
// that the project admits, and asks what they are.
#include "cuda/launchers.h"

#include <algorithm>
#include <cstdio>
#include <vector>

#include "cuda/candidates.h"

using namespace ebp;

#define BOTH(MACRO) MACRO(float, f32) MACRO(double, f64)

extern "C" {
#define POINTWISE(T, S)                                                                                                \
  const char* share_##S(const Rows* d, const T* p, const T* z, T* r) { return launch_share<T>(*d, p, z, r, nullptr); } \
  const char* gate_##S(const Rows* d, const T* s, const T* x, T* y) { return launch_gate<T>(*d, s, x, y, nullptr); }   \
  const char* add_##S(int64_t n, const T* a, const T* b, T* y) { return launch_add<T>(n, a, b, y, nullptr); }          \
  const char* max_winner_##S(int64_t n, const T* const* xs, int count, std::uint8_t* winner) {                         \
    Pointers<T> p{};                                                                                                   \
    for (int i = 0; i < count; ++i) p.at[i] = xs[i];                                                                   \
    p.count = count;                                                                                                   \
    return launch_max_winner<T>(n, p, winner, nullptr);                                                                \
  }                                                                                                                    \
  const char* max_pool_##S(const Pool2d* d, const T* x, T* y, void* w, int wide) {                                     \
    return launch_max_pool<T>(*d, x, y, w, wide != 0, nullptr);                                                        \
  }                                                                                                                    \
  const char* max_route_##S(const Pool2d* d, const T* p, const void* w, int wide, T* below) {                          \
    return launch_max_route<T>(*d, p, w, wide != 0, below, nullptr);                                                   \
  }                                                                                                                    \
  const char* window_sum_##S(const Pool2d* d, int kind, const T* x, T* y) {                                            \
    return launch_window_sum<T>(*d, Divisor(kind), x, y, nullptr);                                                     \
  }                                                                                                                    \
  const char* window_spread_##S(const Pool2d* d, const T* r, T* below) {                                               \
    return launch_window_spread<T>(*d, r, below, nullptr);                                                             \
  }                                                                                                                    \
  const char* lrn_##S(const Lrn* d, const T* x, T* y) { return launch_lrn<T>(*d, x, y, nullptr); }                     \
  const char* conv_normalizer_##S(const Conv2d* d, const T* x, const T* w, T* z) {                                     \
    return launch_conv_normalizer<T>(*d, x, w, z, nullptr);                                                            \
  }                                                                                                                    \
  const char* conv_sweep_##S(const Conv2d* d, const T* r, const T* w, T* below) {                                      \
    return launch_conv_sweep<T>(*d, r, w, below, nullptr);                                                             \
  }
BOTH(POINTWISE)

const char* round_f32(int64_t n, const float* x, int precision, float* y) {
  return launch_round(n, x, Precision(precision), y, nullptr);
}

void contraction_of(const Conv2d* d, const Strides* weight, int down, Contraction* to) {
  *to = down ? contraction_down(*d, *weight) : contraction_up(*d, *weight);
}

// The schedules that the project admits, and those that it would choose, each once; returns how many there are.
int schedules_of(const Contraction* d, int down, int arch, const float* source, const float* weight, const float* plus,
                 const int* splits, int count, Schedule* to, int room) {
  std::vector<Schedule> all;
  const auto add = [&](const Schedule& s) {
    for (const Schedule& other : all) {
      if (s.method == other.method && s.loads == other.loads && s.large == other.large && s.splits == other.splits &&
          s.precision == other.precision) {
        return;
      }
    }
    if (int(all.size()) < room) all.push_back(s);
  };
  for (const Precision precision : all_precisions) {
    if (plus != nullptr && precision != Precision::fp32) continue;
    const Schedule chosen = schedule_of(*d, precision, down != 0, arch, source, weight, plus);
    if (chosen.method != Method::naive) add(chosen);
  }
  each_candidate(*d, down != 0, arch, source, weight, plus, splits, std::size_t(count), add);
  std::copy(all.begin(), all.end(), to);
  return int(all.size());
}
// Whether tensor cores multiply, what factors are rounded to, and whether the source is split into two summands.
void schedule_facts(const Schedule* s, int* to) {
  to[0] = s->method == Method::mma;
  to[1] = int(s->precision);
  to[2] = s->split_source;
}
void schedule_name(const Schedule* s, char* to, int size) {
  const char* const methods[] = {"naive", "simt", "depthwise", "mma"};
  const char* const loads[] = {"single", "terms", "columns"};
  std::snprintf(to, std::size_t(size), "%s/%s/%s/splits%d/%s", methods[int(s->method)], loads[int(s->loads)],
                s->large ? "large" : "small", s->splits, name_of(s->precision));
}
int64_t partial_of(const Contraction* d, const Schedule* s, int sums) { return partial_total(*d, *s, sums); }

const char* contraction(const Contraction* d, const Schedule* s, const float* source, const float* weight,
                        const float* bias, const float* addend, const float* gate, const Strides* gate_at, int columns, float* to,
                        float* partial) {
  LaunchArgs args;
  args.from = {source, {weight, nullptr}};
  args.epilogue.to = to;
  args.epilogue.bias = bias;
  args.epilogue.addend = addend;
  args.epilogue.gate = gate;
  args.epilogue.gate_at = *gate_at;
  args.epilogue.columns = columns;
  args.partial = partial;
  return launch_contraction(*d, *s, args, nullptr);
}
const char* excitation(const Contraction* d, const Schedule* s, const float* source, const float* weight,
                       const float* plus, const float* bias, int relu, int side_is_gate, float* to, float* side,
                       float* partial) {
  LaunchArgs args;
  args.from = {source, {weight, plus}};
  args.epilogue.to = to;
  args.epilogue.bias = bias;
  args.epilogue.side = side;
  args.epilogue.relu = relu != 0;
  args.epilogue.side_is_gate = side_is_gate != 0;
  args.partial = partial;
  return launch_excitation(*d, *s, args, nullptr);
}

// Sizes of the structs: mirrors in Python are checked, opaque ones get room.
void sizes_of(int* to) {
  const std::size_t all[] = {sizeof(Axis), sizeof(Rows),   sizeof(Strides),     sizeof(Pool2d),
                             sizeof(Lrn),  sizeof(Conv2d), sizeof(Contraction), sizeof(Schedule)};
  for (const std::size_t size : all) *to++ = int(size);
}
}
