// Reading the operands of a contraction: the source under a row at a term, the weight of a term and a column, four
// neighbours at a time.
#pragma once

#include "launch.h"
#include "launchers.h"

namespace ebp {

struct Operands {
  const float* source;
  const float* weight[2];
};

__device__ __forceinline__ float4 load4(const float* from) { return *reinterpret_cast<const float4*>(from); }
__device__ __forceinline__ void store4(float* to, const float4& v) { *reinterpret_cast<float4*>(to) = v; }

// The source pixel under the first tap of a row, and the group's first channel there. A row behind the last has an h
// from which no tap reaches the source.
struct SourceRow {
  const float* image;
  int h, w;
};

__device__ __forceinline__ SourceRow source_row(const Contraction& d, const Part& part, const float* source, int row) {
  if (row >= part.rows) return {source, -(1 << 30), 0};
  const Pixel p = pixel_of(d, part, row);
  const float* image = source + p.image * d.source.n + int64_t(part.group) * d.sources * d.source.c;
  return {image, p.i * d.h.scale + part.h.base, p.j * d.w.scale + part.w.base};
}

// What a row meets at a term; null outside of the source.
__device__ __forceinline__ const float* source_at(const Contraction& d, const Part& part, const SourceRow& row,
                                                  const Term& term) {
  const int h = row.h + term.i * part.h.step, w = row.w + term.j * part.w.step;
  const bool inside = within(part, term) && unsigned(h) < unsigned(d.h.source) && unsigned(w) < unsigned(d.w.source);
  return inside ? row.image + (h * int(d.source.h) + w * int(d.source.w) + term.channel * int(d.source.c)) : nullptr;
}

// Offset in its group of the weight of a term and a column.
__device__ __forceinline__ int weight_at(const Contraction& d, const Part& part, const Term& term, int column) {
  return column * int(d.weight.n) + term.channel * int(d.weight.c) +
         (part.h.first + term.i * d.h.spacing) * int(d.weight.h) + (part.w.first + term.j * d.w.spacing) * int(d.weight.w);
}

// Four neighbouring terms of a row, from `term` on.
template <Loads loads>
__device__ __forceinline__ float4 fetch_source(const Contraction& d, const Part& part, const SourceRow& row, Term term) {
  if constexpr (loads != Loads::single) {
    const float* from = source_at(d, part, row, term);
    return from == nullptr ? make_float4(0, 0, 0, 0) : load4(from);
  } else {
    float v[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float* from = source_at(d, part, row, term);
      v[e] = from == nullptr ? 0.0f : *from;
      advance(d, part, term, 1);
    }
    return make_float4(v[0], v[1], v[2], v[3]);
  }
}

// Four neighbouring weights: terms of one column, or (along_columns) columns of one term.
template <Loads loads>
__device__ __forceinline__ float4 fetch_weight(const Contraction& d, const Part& part, const float* weight, Term term,
                                               int column) {
  if constexpr (loads != Loads::single) {
    const bool inside = within(part, term) && column < d.targets;
    return inside ? load4(weight + weight_at(d, part, term, column)) : make_float4(0, 0, 0, 0);
  } else {
    float v[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const bool inside = within(part, term) && column < d.targets;
      v[e] = inside ? weight[weight_at(d, part, term, column)] : 0.0f;
      advance(d, part, term, 1);
    }
    return make_float4(v[0], v[1], v[2], v[3]);
  }
}

}  // namespace ebp
