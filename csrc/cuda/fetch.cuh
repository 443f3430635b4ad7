// Reading the operands of a contraction: the source under a row at a term, the weight of a term and a column, four
// neighbors at a time.
#pragma once

#include "launch_args.h"

namespace ebp {

__device__ __forceinline__ float4 load4(const float* from) { return *reinterpret_cast<const float4*>(from); }
__device__ __forceinline__ float4 load4_or_zero(const float* from) {
  return from == nullptr ? make_float4(0, 0, 0, 0) : load4(from);
}
__device__ __forceinline__ void store4(float* to, const float4& v) { *reinterpret_cast<float4*>(to) = v; }

// The source pixel under the first tap of a row, and the group's first channel there. A row behind the last gets an h so
// far outside that no tap reaches the source: source_at needs no second test for it.
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
  // as unsigned, a negative position is a large one: one comparison tests both borders
  const bool inside = within(part, term) && unsigned(h) < unsigned(d.h.source) && unsigned(w) < unsigned(d.w.source);
  // simt_refuses keeps an image below 2^31 elements, so that offsets within it may be 32-bit
  return inside ? row.image + (h * int(d.source.h) + w * int(d.source.w) + term.channel * int(d.source.c)) : nullptr;
}

// The weight of a term and a column, in the group that `weight` begins with; null where there is none.
__device__ __forceinline__ const float* weight_at(const Contraction& d, const Part& part, const float* weight,
                                                  const Term& term, int column) {
  if (!within(part, term) || column >= d.targets) return nullptr;
  const int h = part.h.first + term.i * d.h.spacing, w = part.w.first + term.j * d.w.spacing;
  return weight + (column * int(d.weight.n) + term.channel * int(d.weight.c) + h * int(d.weight.h) + w * int(d.weight.w));
}

// What one thread reads of tile after tile of the terms: quads of four neighbors. It takes the same four terms of every
// tile, from rows and columns that lie `step` apart; of weights that lie along the columns, four columns of one term.
//
//     source, and weights along the terms      weights along the columns
//              depth = 4 quads of terms                 columns
//            +----+----+----+----+                 +----+----+-- ...
//     row 0  | t0 | t1 | t2 | t3 |          term 0 | t0 | t1 |        per_term threads for a term, each
//     row 1  | t4 | t5 | t6 | t7 |          term 1 | .. |             a quad, then the next ones of the row
//     ...    row step: again t0 ..          ...
template <int rows, int columns, int depth, int threads, Loads loads>
class Reader {
 public:
  static constexpr bool by_column = loads == Loads::along_columns;
  static constexpr int quads = depth / 4, step = threads / quads, per_term = threads / depth;
  static constexpr int row_count = rows / step;
  static constexpr int column_count = by_column ? columns / (4 * per_term) : columns / step;
  static_assert(rows % step == 0 && columns % step == 0 && columns % (4 * per_term) == 0);

  __device__ __forceinline__ Reader(const Contraction& d, const Part& part, const float* source, int first_row,
                                    int first_column, int first_term)
      : d_(d), part_(part), term_(term_of(d, part, first_term + quad())), first_column_(first_column) {
#pragma unroll
    for (int i = 0; i < row_count; ++i) row_[i] = source_row(d, part, source, first_row + line(i));
    if constexpr (by_column) weight_term_ = term_of(d, part, first_term + weight_line());
  }

  // Where the quads lie in a tile.
  __device__ static __forceinline__ int quad() { return int(threadIdx.x) % quads * 4; }
  __device__ static __forceinline__ int line(int i) { return int(threadIdx.x) / quads + i * step; }
  __device__ static __forceinline__ int weight_line() { return int(threadIdx.x) / per_term; }
  __device__ static __forceinline__ int column(int i) {
    return by_column ? int(threadIdx.x) % per_term * 4 + i * 4 * per_term : line(i);
  }

  // The i-th quad of the source, and of a group's weights; null outside of them.
  __device__ __forceinline__ const float* source_quad(int i) const { return source_at(d_, part_, row_[i], term_); }
  __device__ __forceinline__ const float* weight_quad(const float* weight, int i) const {
    const Term& term = by_column ? weight_term_ : term_;
    return weight_at(d_, part_, weight, term, first_column_ + column(i));
  }

  // Their values. `single` reads element by element.
  __device__ __forceinline__ float4 source(int i) const {
    if constexpr (loads != Loads::single) return load4_or_zero(source_quad(i));
    return each([&](const Term& term) { return source_at(d_, part_, row_[i], term); });
  }
  __device__ __forceinline__ float4 weight(const float* weight, int i) const {
    if constexpr (loads != Loads::single) return load4_or_zero(weight_quad(weight, i));
    return each([&](const Term& term) { return weight_at(d_, part_, weight, term, first_column_ + column(i)); });
  }

  // On to the next tile.
  __device__ __forceinline__ void advance() {
    ebp::advance(d_, part_, term_, depth);
    if constexpr (by_column) ebp::advance(d_, part_, weight_term_, depth);
  }

 private:
  template <class At>
  __device__ __forceinline__ float4 each(const At& at) const {
    float v[4];
    Term term = term_;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float* from = at(term);
      v[e] = from == nullptr ? 0.0f : *from;
      ebp::advance(d_, part_, term, 1);
    }
    return make_float4(v[0], v[1], v[2], v[3]);
  }

  const Contraction& d_;
  const Part& part_;
  SourceRow row_[row_count];
  Term term_, weight_term_{};
  int first_column_;
};

}  // namespace ebp
