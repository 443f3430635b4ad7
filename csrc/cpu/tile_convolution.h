// What a convolution by tiles needs to know, and how its work is cut. The kernel is in tile_convolution.cpp.
#pragma once

#include "../core/params.h"

namespace ebp {

constexpr int tile_block = 32;  // channels, or pixels, that a block of tiles spans
constexpr int parts = 3;        // bfloat16 that a float32 is the sum of

EBP_HD int blocks_of(int channels) { return (channels + tile_block - 1) / tile_block; }

// Rows of Distances are images, runs are pixels.
struct TileSource {
  const float *x, *gate;        // gate may be null
  const std::uint16_t* weight;  // ebp_cuda/ops/tiles.py says how it lies
  const std::uint16_t* plus;    // the weights of the normalizer, or null
  int channels;
  Distances x_at, gate_at;
};

// A convolution of stride 1, channels_last: y [images, h.out, w.out, out_channels] = bias + addend + the sum of W (x *
// gate) over the sources. `columns` images of an x share one of its gate.
struct TileConvolution {
  int64_t images, columns;
  int out_channels;
  Axis h, w;
  const TileSource* sources;
  int count, blocks;           // of sources; of channels in all of them
  const float *bias, *addend;  // may be null
  Distances addend_at;
  float* y;
  float* side;         // of a source with a normalizer z = W+ x: z, or the gate y / z
  bool relu, as_gate;  // y goes through a ReLU
};

EBP_HD int padding_after(const Axis& a) { return a.out + a.kernel - 1 - a.in - a.padding; }
// Pixels of a row with the padding that it shares with the next one.
EBP_HD int padded_width(const Axis& a) { return a.in + larger(a.padding, padding_after(a)); }

// The work in strips of rows times groups of output channels; a strip lies in the scratch memory of its thread.
struct TileCut {
  int64_t strips;
  int groups;
};

EBP_HD int64_t total_rows(const TileConvolution& d) { return d.images * d.h.out; }

// Padded pixels of `segments` runs of rows, `rows` rows of outputs in all: the rows that the kernel reaches above and
// below each run, plus one block of pixels and one kernel width of slack each, which the last block may read.
EBP_HD int64_t segment_pixels(const TileConvolution& d, int64_t rows, int64_t segments) {
  return (rows + segments * (d.h.kernel - 1)) * padded_width(d.w) + segments * (tile_block + d.w.kernel + d.w.padding);
}
// Pixels that a strip takes at most. Each image in it is a segment, unless the kernel is one row high.
EBP_HD int64_t strip_pixels(const TileConvolution& d, int64_t rows) {
  return segment_pixels(d, rows, d.h.kernel == 1 ? 1 : rows / d.h.out + 2);
}
EBP_HD int64_t pixel_bytes(const TileConvolution& d) { return int64_t(d.blocks) * tile_block * parts * 2; }

// Numbers of a weight that belong to a block of channels below and one above.
EBP_HD int64_t weight_block(const TileConvolution& d) {
  return int64_t(d.h.kernel) * d.w.kernel * parts * tile_block * tile_block;
}

// Units [begin, end) of cut.strips * cut.groups. scratch: strip_pixels of the longest strip * pixel_bytes, 64-aligned.
using TileKernel = void (*)(const TileConvolution&, const TileCut&, void* scratch, int64_t begin, int64_t end);

// The one for this machine: by AMX, or by a plain model of it, which is slow.
TileKernel tile_kernel();

}  // namespace ebp
