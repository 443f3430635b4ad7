// Which kernel computes a contraction, and why not another one. A predicate returns nullptr where its kernel may be
// asked, else what stands against it.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "choices.h"
#include "launchers.h"

namespace ebp {

constexpr int most_splits = 32, tile_depth = 16;

inline const char* depthwise_refuses(const Contraction& d) {
  return d.sources == 1 && d.targets == 1 ? nullptr : "more than one channel in a group: a tile can be filled";
}

// The most rows and terms of any phase.
inline int most_rows(const Contraction& d) {
  int most = 0;
  for (int phase = 0; phase < phases(d); ++phase) most = larger(most, part_of(d, 0, phase).rows);
  return most;
}
inline int most_terms(const Contraction& d) {
  int most = 0;
  for (int phase = 0; phase < phases(d); ++phase) most = larger(most, part_of(d, 0, phase).terms);
  return most;
}

inline const char* simt_refuses(const Contraction& d) {
  if (int64_t(d.batch) * d.h.target * d.w.target > INT32_MAX) return "more than 2^31 - 1 pixels";
  if (int64_t(d.groups) * phases(d) * most_splits > 65535) return "more groups and phases of strides than a grid holds";
  if ((d.targets + 63) / 64 > 65535) return "more channels than a grid holds";
  const int64_t weights =
      d.targets * d.weight.n + d.sources * d.weight.c + d.h.taps * d.weight.h + d.w.taps * d.weight.w;
  const auto reach = [](const AxisMap& a) { return a.source + int64_t(a.taps) * (a.step < 0 ? -a.step : a.step); };
  const int64_t image = reach(d.h) * d.source.h + reach(d.w) * d.source.w + d.sources * d.source.c;
  if (weights > INT32_MAX || image > INT32_MAX) return "an image or a group of weights of more than 2^31 - 1 elements";
  return nullptr;
}

// Whether quads of neighbors can be read, `along` the terms or the columns of the weights.
inline const char* quads_refused(const Contraction& d, Loads along, const float* source,
                                 const float* const (&weight)[2]) {
  const auto fours = [](int64_t a, int64_t b, int64_t c) { return a % 4 == 0 && b % 4 == 0 && c % 4 == 0; };
  const auto aligned = [](const float* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  if (d.sources % 4 != 0) return "the channels of a group are no multiple of 4";
  if (d.source.c != 1 || !fours(d.source.n, d.source.h, d.source.w)) return "the source is not channels_last";
  if (!aligned(source) || !aligned(weight[0]) || !aligned(weight[1])) return "a tensor does not begin at 16 bytes";
  const bool terms = along == Loads::along_terms;
  if ((terms ? d.weight.c : d.weight.n) != 1) return "the weights are not channels_last";
  if (!terms && d.targets % 4 != 0) return "the channels of a group are no multiple of 4";
  const bool whole = fours(terms ? d.weight.n : d.weight.c, d.weight.h, d.weight.w) && d.weight_group % 4 == 0;
  return whole ? nullptr : "the weights' rows do not begin at 16 bytes";
}

// Of the target: what a block computes.
struct TileSize {
  int rows, columns;
};
inline TileSize tile_of(const Schedule& how) { return {how.large ? 128 : 64, 64}; }

inline int64_t tiles_of(const Contraction& d, int rows, int columns) {
  int64_t total = 0;
  for (int phase = 0; phase < phases(d); ++phase) {
    total += (part_of(d, 0, phase).rows + rows - 1) / rows;
  }
  return total * d.groups * ((d.targets + columns - 1) / columns);
}

// The steps of tile_depth terms that a tile takes, at most.
inline int64_t steps_of(const Contraction& d) { return (int64_t(most_terms(d)) + tile_depth - 1) / tile_depth; }

// Splits the terms where the tiles alone are too few blocks.
inline int splits_of(const Contraction& d, int64_t tiles, int blocks) {
  const int64_t wanted = tiles > 0 ? blocks / tiles : 1;
  const int64_t most = steps_of(d) / 4 < most_splits ? steps_of(d) / 4 : most_splits;
  const int64_t splits = wanted < most ? wanted : most;
  return splits > 1 ? int(splits) : 1;
}

inline Loads loads_of(const Contraction& d, const float* source, const float* const (&weight)[2]) {
  for (const Loads along : {Loads::along_terms, Loads::along_columns}) {
    if (quads_refused(d, along, source, weight) == nullptr) return along;
  }
  return Loads::single;
}

inline const char* mma_refuses(const Contraction& d, Precision precision, bool split_source, int arch, Loads loads,
                               const float* source, const float* const (&weight)[2]) {
  if (precision == Precision::fp32) return "fp32 was asked for";
  if (precision == Precision::tf32x3 && split_source) return "three products of split factors are for the way up";
  if (arch < 80) return "tensor cores for tf32 and bf16, and asynchronous copies, need compute capability 8.0";
  if (const char* reason = simt_refuses(d)) return reason;
  if (loads == Loads::single) return "tensor cores are fed four neighbors at a time";
  const Loads built = split_source ? Loads::along_columns : Loads::along_terms;
  if (loads != built) return "the weights lie the other way round: along terms going up, along columns going down";
  return quads_refused(d, loads, source, weight);
}

// The row of the table for a problem that tiled kernels take.
inline const Choice& choice_of(const Contraction& d, Way way, Precision factors, const Choices& from) {
  const Choice* row = choice_for(from, way, factors, {most_rows(d), tiles_of(d, 128, 64), steps_of(d)});
  return row == nullptr ? project_rows[0] : *row;  // no table is in force that has none: choices_refused
}

// The preferred way to compute sums of one weight, or of two. `going_down`, the source is signed. Depends on the
// problem and on the table alone, so that sums have the same bits on every device.
inline Schedule schedule_of(const Contraction& d, Precision precision, bool going_down, int arch, const float* source,
                            const float* weight, const float* weight_plus, const Choices& from = project_choices) {
  if (depthwise_refuses(d) == nullptr) return {Method::depthwise, Loads::single, false, 1};
  if (simt_refuses(d) != nullptr) return {Method::naive, Loads::single, false, 1};
  const float* const weights[2] = {weight, weight_plus};
  const Loads loads = loads_of(d, source, weights);
  const Way way = weight_plus != nullptr ? Way::pair : going_down ? Way::down : Way::up;
  const bool mma = way != Way::pair && !mma_refuses(d, precision, going_down, arch, loads, source, weights);
  const Choice& row = choice_of(d, way, mma ? precision : Precision::fp32, from);
  const bool large = row.large && loads != Loads::single;
  const int splits = splits_of(d, tiles_of(d, large ? 128 : 64, 64), row.blocks);
  if (mma) return {Method::mma, loads, large, splits, precision, going_down};
  return {Method::simt, loads, large, splits};
}

inline int64_t partial_total(const Contraction& d, const Schedule& schedule, int sums) {
  return schedule.splits > 1 ? schedule.splits * sums * target_total(d) : 0;
}

}  // namespace ebp
