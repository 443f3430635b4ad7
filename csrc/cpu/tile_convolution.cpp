// Convolution of float32 by tiles of bfloat16 parts, as an implicit matrix product: pixels times output channels. The
// build compiles this file for AMX and without; dispatch.cpp picks.
//
// A unit of work is a strip of output rows times a group of output channels. Its thread splits the strip's input into
// parts once, padding included, and keeps it in scratch memory, three times (once per part) as
//
//     block of 32 channels:   pixel 0   pixel 1   pixel 2  ...          a row of the image, its padding, the next row
//     ...
//                            [32 bf16] [32 bf16] [32 bf16]
//                             <------ 16 pixels: a tile ------>         wherever it begins: a tap (i, j) of the kernel
//                                                                       is an offset of i * width + j pixels
//
// A block of outputs is 32 pixels x 32 channels: four tiles of sums, which stay in registers (sum_block) while blocks
// of channels, taps and parts go by, in one order however the work was cut. Where the block's pixels are neighbors in y
// they are summed there (convolve_direct), else by way of a copy that leaves out the padding (convolve_gathered).
#include "tiles.h"

namespace ebp {
namespace EBP_ISA {
namespace {

// Neighboring rows of one image, or of several where the kernel is one row high. Rows are numbered through the batch.
struct Segment {
  int64_t first, end;  // rows of the output
  int64_t pixel;       // where it begins in the strip
};

struct Strip {
  const TileConvolution& d;
  Bfloat16* pixels;  // [part][block of channels][pixel][32]
  int64_t first, end, length;

  EBP_HD int64_t part() const { return d.blocks * length * tile_block; }
  EBP_HD Bfloat16* at(int block, int64_t pixel) const { return pixels + (block * length + pixel) * tile_block; }

  // Calls body(segment) for each.
  template <class Body>
  EBP_HD void for_segments(const Body& body) const {
    const bool alone = d.h.kernel == 1;
    int64_t pixel = 0;
    for (int64_t row = first; row < end;) {
      const int64_t next = alone ? end : row / d.h.out * d.h.out + d.h.out;
      const Segment segment{row, next < end ? next : end, pixel};
      body(segment);
      pixel += segment_pixels(d, segment.end - segment.first, 1);
      row = segment.end;
    }
  }
};

EBP_HD void clear_pixels(const Strip& strip, int64_t pixel, int64_t count) {
  for (int part = 0; part < parts; ++part) {
    for (int block = 0; block < strip.d.blocks; ++block) {
      __builtin_memset(strip.at(block, pixel) + part * strip.part(), 0, count * tile_block * sizeof(Bfloat16));
    }
  }
}

EBP_HD void split_pixel(const Strip& strip, const float* x, const float* gate, int channels, int block, int64_t pixel) {
  const int64_t distance = strip.part();
  Bfloat16* to = strip.at(block, pixel);
  for (; channels > 0; channels -= tile_block, to += strip.length * tile_block, x += tile_block) {
    Floats low = load_floats(x, channels), high = load_floats(x + tile_rows, channels - tile_rows);
    if (gate != nullptr) {
      low *= load_floats(gate, channels);
      high *= load_floats(gate + tile_rows, channels - tile_rows);
      gate += tile_block;
    }
    split_floats(low, high, to, distance);
  }
}

// A row of an image.
void split_row(const Strip& strip, int64_t image, int64_t row, int64_t pixel) {
  const TileConvolution& d = strip.d;
  int block = 0;
  for (const TileSource* source = d.sources; source < d.sources + d.count; ++source) {
    const float* x = source->x + image * source->x_at.row + row * d.w.in * source->x_at.run;
    const float* gate = source->gate;
    if (gate != nullptr) gate += image / d.columns * source->gate_at.row + row * d.w.in * source->gate_at.run;
    for (int col = 0; col < d.w.in; ++col, x += source->x_at.run) {
      split_pixel(strip, x, gate, source->channels, block, pixel + col);
      if (gate != nullptr) gate += source->gate_at.run;
    }
    block += blocks_of(source->channels);
  }
}

// Every row of the input that the segment's outputs see, rows of zeros above and below the image.
void split_segment(const Strip& strip, const Segment& segment) {
  const TileConvolution& d = strip.d;
  const int64_t rows = segment.end - segment.first + d.h.kernel - 1, width = padded_width(d.w);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t image = d.h.kernel == 1 ? (segment.first + i) / d.h.out : segment.first / d.h.out;
    const int64_t row = segment.first + i - image * d.h.out - d.h.padding, pixel = segment.pixel + i * width;
    if (row < 0 || row >= d.h.in) {
      clear_pixels(strip, pixel, width);
      continue;
    }
    clear_pixels(strip, pixel, d.w.padding);
    clear_pixels(strip, pixel + d.w.padding + d.w.in, width - d.w.padding - d.w.in);
    split_row(strip, image, row, pixel + d.w.padding);
  }
  clear_pixels(strip, segment.pixel + rows * width, d.w.padding);
}

using Weight = const Bfloat16* TileSource::*;

// The sums of 16 * Pixels pixels and 16 * Channels channels, from what they start at on (nothing: 0). Pixels lie `row`
// floats apart in sums, and `initial_row` in initial.
template <int Pixels, int Channels>
void sum_block(const Strip& strip, int64_t pixel, int out_block, Weight which, const float* initial,
               int64_t initial_row, float* sums, int64_t row) {
  const TileConvolution& d = strip.d;
  const int64_t width = padded_width(d.w), distance = strip.part();
  TileSums<Pixels, Channels> tiles;
  initial == nullptr ? tiles.clear() : tiles.load(initial, initial_row);
  const Bfloat16* from = strip.at(0, pixel);
  for (const TileSource* source = d.sources; source < d.sources + d.count; ++source) {
    const int blocks = blocks_of(source->channels);
    const Bfloat16* weight = source->*which + out_block * blocks * weight_block(d);
    for (int block = 0; block < blocks; ++block, from += strip.length * tile_block) {
      const Bfloat16* line = from;
      for (int i = 0; i < d.h.kernel; ++i, line += width * tile_block) {
        for (int j = 0; j < d.w.kernel; ++j, weight += parts * 2 * tile_numbers) {
          multiply_parts(tiles, line + j * tile_block, distance, weight);
        }
      }
    }
  }
  tiles.store(sums, row);
}

// Calls body(offset in the block, row and column of the output) for the pixels [from, end) of a segment that are
// outputs.
template <class Body>
EBP_HD void for_outputs(const TileConvolution& d, const Segment& segment, int64_t from, int64_t end, const Body& body) {
  const int64_t width = padded_width(d.w);
  int64_t row = segment.first + from / width, col = from % width;
  for (int64_t pixel = from; pixel < end; ++pixel) {
    if (col < d.w.out) body((pixel - from) * tile_block, row, col);
    if (++col == width) ++row, col = 0;
  }
}

// A block of outputs in memory of its own: for pixels that are no neighbors in y, and for all that happens to sums.
struct Gathered {
  const TileConvolution& d;
  int channel, count;  // of the channels of y
  alignas(64) float sums[tile_block * tile_block], normalizer[tile_block * tile_block];

  bool starts_at_zero() const { return d.bias == nullptr && d.addend == nullptr; }

  // bias + addend
  void start(const Segment& segment, int64_t from, int64_t end) {
    for_outputs(d, segment, from, end, [&](int64_t to, int64_t row, int64_t col) {
      const int64_t image = row / d.h.out, pixel = (row - image * d.h.out) * d.w.out + col;
      for (int c = 0; c < count; c += tile_rows) {
        Floats sum{};
        if (d.bias != nullptr) sum = load_floats(d.bias + channel + c, count - c);
        if (d.addend != nullptr) {
          sum += load_floats(d.addend + image * d.addend_at.row + pixel * d.addend_at.run + channel + c, count - c);
        }
        store_floats(sum, sums + to + c, tile_rows);
      }
    });
  }
  // The ReLU, and the gate in place of the normalizer.
  void finish() {
    for (int i = 0; i < tile_block * tile_block; i += tile_rows) {
      Floats y = load_floats(sums + i, tile_rows);
      if (d.relu) store_floats(y = y < 0 ? Floats{} : y, sums + i, tile_rows);
      if (d.as_gate) store_floats(share(y, load_floats(normalizer + i, tile_rows)), normalizer + i, tile_rows);
    }
  }
  void write(const Segment& segment, int64_t from, int64_t end, const float* block, float* to) {
    for_outputs(d, segment, from, end, [&](int64_t at, int64_t row, int64_t col) {
      float* pixel = to + (row * d.w.out + col) * d.out_channels + channel;
      for (int c = 0; c < count; c += tile_rows) {
        store_floats(load_floats(block + at + c, tile_rows), pixel + c, count - c);
      }
    });
  }
};

// Whether blocks of a strip's pixels can be summed in y itself: neighbors in the strip are neighbors in y (no padded
// columns between rows), nothing happens to the sums afterwards (no normalizer), and they begin at one thing only.
bool sums_in_place(const TileConvolution& d) {
  if (padded_width(d.w) != d.w.out || d.side != nullptr || (d.bias != nullptr && d.addend != nullptr)) return false;
  return d.addend == nullptr || d.images == 1 || d.addend_at.row == d.addend_at.run * d.h.out * d.w.out;
}

// A block of 32 pixels from `from` on and 32 channels, summed in y.
void convolve_direct(const Strip& strip, const Segment& segment, int out_block, int64_t from) {
  const TileConvolution& d = strip.d;
  const int channel = out_block * tile_block;
  const int64_t first = segment.first * d.w.out + from;
  const float* initial = nullptr;
  if (d.bias != nullptr) initial = d.bias + channel;
  if (d.addend != nullptr) initial = d.addend + first * d.addend_at.run + channel;
  const int64_t initial_row = d.bias != nullptr ? 0 : d.addend_at.run;  // a stride of 0: every pixel begins at the bias
  float* y = d.y + first * d.out_channels + channel;
  sum_block<2, 2>(strip, segment.pixel + from, out_block, &TileSource::weight, initial, initial_row, y, d.out_channels);
}

// Pixels [from, end) of a segment, at most a block, by way of `gathered`.
void convolve_gathered(const Strip& strip, const Segment& segment, int out_block, int64_t from, int64_t end,
                       Gathered& gathered) {
  const TileConvolution& d = strip.d;
  const int64_t pixel = segment.pixel + from;
  const float* initial = gathered.starts_at_zero() ? nullptr : gathered.sums;
  if (initial != nullptr) gathered.start(segment, from, end);
  const bool few = end - from <= tile_rows, narrow = gathered.count <= tile_rows;  // one tile instead of two, each way
  const auto sum = few ? (narrow ? sum_block<1, 1> : sum_block<1, 2>) : (narrow ? sum_block<2, 1> : sum_block<2, 2>);
  sum(strip, pixel, out_block, &TileSource::weight, initial, tile_block, gathered.sums, tile_block);
  if (d.side != nullptr) {
    sum(strip, pixel, out_block, &TileSource::plus, nullptr, 0, gathered.normalizer, tile_block);
    gathered.finish();
    gathered.write(segment, from, end, gathered.normalizer, d.side);
  }
  gathered.write(segment, from, end, gathered.sums, d.y);
}

void convolve_segment(const Strip& strip, const Segment& segment, int out_block) {
  const TileConvolution& d = strip.d;
  const int channel = out_block * tile_block, count = smaller(tile_block, d.out_channels - channel);
  const int64_t pixels = (segment.end - segment.first - 1) * padded_width(d.w) + d.w.out;
  const bool direct = sums_in_place(d) && count == tile_block;
  Gathered gathered{d, channel, count, {}, {}};
  for (int64_t from = 0; from < pixels; from += tile_block) {
    const int64_t end = from + tile_block < pixels ? from + tile_block : pixels;
    if (direct && end - from == tile_block) {
      convolve_direct(strip, segment, out_block, from);
    } else {
      convolve_gathered(strip, segment, out_block, from, end, gathered);
    }
  }
}

void convolve(const TileConvolution& d, const TileCut& cut, void* scratch, int64_t begin, int64_t end) {
  const TileRegisters registers;
  const int out_blocks = blocks_of(d.out_channels);
  int64_t held = -1;  // the strip that the scratch memory holds
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t number = unit / cut.groups, group = unit - number * cut.groups, rows = total_rows(d);
    Strip strip{d, static_cast<Bfloat16*>(scratch), rows * number / cut.strips, rows * (number + 1) / cut.strips, 0};
    strip.length = strip_pixels(d, strip.end - strip.first);
    if (number != held) strip.for_segments([&](const Segment& segment) { split_segment(strip, segment); });
    held = number;
    const int last = int(out_blocks * (group + 1) / cut.groups);
    for (int block = int(out_blocks * group / cut.groups); block < last; ++block) {
      strip.for_segments([&](const Segment& segment) { convolve_segment(strip, segment, block); });
    }
  }
}

}  // namespace

extern const TileKernel tile_kernel = convolve;

}  // namespace EBP_ISA
}  // namespace ebp
