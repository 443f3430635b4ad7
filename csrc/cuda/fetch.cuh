// Reading the operands of a contraction: the source under a row at a term, the weight of a term and a column, four
// neighbors at a time.
#pragma once

#include "launch_args.h"

namespace ebp {

__device__ __forceinline__ float4 load4(const float* from) { return *reinterpret_cast<const float4*>(from); }
__device__ __forceinline__ void store4(float* to, const float4& v) { *reinterpret_cast<float4*>(to) = v; }

// Neighbors in memory, or none: then zeros take their place, and the address must not be read.
struct Neighbors {
  const float* at;
  bool exist;
};
__device__ __forceinline__ float4 load4_or_zero(const Neighbors& from) {
  float4 v = make_float4(0, 0, 0, 0);
  if (from.exist) v = load4(from.at);
  return v;
}

// The source pixel under the first tap of a row, and where the group's first channel of it lies, or would lie if it
// were inside. A row behind the last gets an h so far outside that no tap reaches the source: no second test is needed
// for it.
struct SourceRow {
  const float* first;
  int h, w;
};

__device__ __forceinline__ SourceRow source_row(const Contraction& d, const TileArgs& args, const Part& part, int row) {
  const float* source = args.from.source;
  if (row >= part.rows) return {source, -(1 << 30), 0};
  const Pixel p = pixel_of(d, args.by, part, row);
  const int h = p.i * d.h.scale + part.h.base, w = p.j * d.w.scale + part.w.base;
  return {source + at(d.source, p.image, int64_t(part.group) * d.sources, h, w), h, w};
}

// What all rows and columns share at a term: how far its tap is from the first one, in pixels of the source, and how
// far its operands lie from the first tap's and first channel's in memory: 32 bits suffice where simt_refuses does not
// refuse. A term behind the part's last reaches nothing.
struct TermStep {
  bool within;
  int h, w, source, weight;
};

__device__ __forceinline__ TermStep step_to(const Contraction& d, const Part& part, const Term& term) {
  const int h = term.i * part.h.step, w = term.j * part.w.step;
  const int weight_h = part.h.first + term.i * d.h.spacing, weight_w = part.w.first + term.j * d.w.spacing;
  const auto offset = [&](const Strides& s, int h, int w) {
    return term.channel * int(s.c) + h * int(s.h) + w * int(s.w);
  };
  return {within(part, term), h, w, offset(d.source, h, w), offset(d.weight, weight_h, weight_w)};
}

__device__ __forceinline__ Neighbors source_at(const Contraction& d, const SourceRow& row, const TermStep& step) {
  // as unsigned, a negative position is a large one: one comparison tests both borders
  const bool inside =
      unsigned(row.h + step.h) < unsigned(d.h.source) && unsigned(row.w + step.w) < unsigned(d.w.source);
  return {row.first + step.source, step.within && inside};
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

  __device__ __forceinline__ Reader(const Contraction& d, const TileArgs& args, const BlockTile& tile)
      : d_(d), part_(tile.part), first_column_(tile.first_column) {
    term_ = term_of(d, part_, tile.first_chunk * depth + quad());
    if constexpr (by_column) weight_term_ = term_of(d, part_, tile.first_chunk * depth + weight_line());
#pragma unroll
    for (int i = 0; i < row_count; ++i) row_[i] = source_row(d, args, part_, tile.first_row + line(i));
  }

  // Where the quads lie in a tile.
  __device__ static __forceinline__ int quad() { return int(threadIdx.x) % quads * 4; }
  __device__ static __forceinline__ int line(int i) { return int(threadIdx.x) / quads + i * step; }
  __device__ static __forceinline__ int weight_line() { return int(threadIdx.x) / per_term; }
  __device__ static __forceinline__ int column(int i) {
    return by_column ? int(threadIdx.x) % per_term * 4 + i * 4 * per_term : line(i);
  }

  // To be called before a tile is read. What it finds is not kept from tile to tile, where it would take registers.
  __device__ __forceinline__ void find() {
    if constexpr (loads != Loads::single) source_step_ = step_to(d_, part_, term_);
    if constexpr (by_column) weight_step_ = step_to(d_, part_, weight_term_);
  }

  // The i-th quad of the source, and of a group's weights.
  __device__ __forceinline__ Neighbors source_quad(int i) const { return source_at(d_, row_[i], source_step_); }
  __device__ __forceinline__ Neighbors weight_quad(const float* weight, int i) const {
    return weight_at(weight, i, by_column ? weight_step_ : source_step_);
  }

  // Their values. `single` reads element by element.
  __device__ __forceinline__ float4 source(int i) const {
    if constexpr (loads != Loads::single) return load4_or_zero(source_quad(i));
    return each_term([&](const TermStep& step) { return source_at(d_, row_[i], step); });
  }
  __device__ __forceinline__ float4 weight(const float* weight, int i) const {
    if constexpr (loads != Loads::single) return load4_or_zero(weight_quad(weight, i));
    return each_term([&](const TermStep& step) { return weight_at(weight, i, step); });
  }

  // On to the next tile.
  __device__ __forceinline__ void advance() {
    ebp::advance(d_, part_, term_, depth);
    if constexpr (by_column) ebp::advance(d_, part_, weight_term_, depth);
  }

 private:
  __device__ __forceinline__ Neighbors weight_at(const float* weight, int i, const TermStep& step) const {
    const int at = first_column_ + column(i);
    return {weight + (at * int(d_.weight.n) + step.weight), step.within && at < d_.targets};
  }

  template <class At>
  __device__ __forceinline__ float4 each_term(const At& at) const {
    float v[4];
    Term term = term_;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const Neighbors from = at(step_to(d_, part_, term));
      v[e] = 0;
      if (from.exist) v[e] = *from.at;
      ebp::advance(d_, part_, term, 1);
    }
    return make_float4(v[0], v[1], v[2], v[3]);
  }

  const Contraction& d_;
  const Part& part_;
  SourceRow row_[row_count];
  Term term_, weight_term_{};
  TermStep source_step_{}, weight_step_{};
  int first_column_;
};

}  // namespace ebp
