// What the contraction kernels and their launches need beside launchers.h.
#pragma once

#include "launch.h"
#include "launchers.h"
#include "schedule.h"

namespace ebp {

// Split-k: `count` blocks share the terms of a tile, `chunks` steps each. Their sums go to
// `partial` [count, number of sums, target_total], which a second kernel adds up, unless count is 1.
struct Split {
  int count, chunks;
  float* partial;
};

// Divisions that every row of a tile needs: by the rows and columns of its phase, and by Epilogue::columns.
struct RowDividers {
  CountDividers h, w;
  Divider columns;
};

inline RowDividers row_dividers(const Contraction& d, const Epilogue& e) {
  return {count_dividers(d.h), count_dividers(d.w), divider_of(e.columns)};
}

// What a launcher works out for a kernel.
struct TileArgs {
  Operands from;
  Epilogue epilogue;
  Split split;
  RowDividers by;
};

// Blocks for tiles of rows x columns, for every phase, group and part of the terms.
inline dim3 grid_of(const Contraction& d, int rows, int columns, int splits) {
  return {unsigned((most_rows(d) + rows - 1) / rows), unsigned((d.targets + columns - 1) / columns),
          unsigned(phases(d) * d.groups * splits)};
}

// What a block computes.
struct BlockTile {
  Part part;
  int split_part, first_row, first_column, first_chunk, chunks;
};

__device__ __forceinline__ BlockTile block_tile(const Contraction& d, const TileArgs& args, int rows, int columns) {
  const int parts = phases(d) * d.groups;
  int split_part = int(blockIdx.z), part_number = 0;
  if (parts > 1) {
    split_part = int(blockIdx.z) / parts;
    part_number = int(blockIdx.z) - split_part * parts;
  }
  const int group = part_number / phases(d);
  BlockTile tile{part_of(d, group, part_number - group * phases(d)), split_part, 0, 0, 0, 0};
  tile.first_row = int(blockIdx.x) * rows;
  tile.first_column = int(blockIdx.y) * columns;
  tile.first_chunk = split_part * args.split.chunks;
  tile.chunks = smaller(ceil_div(tile.part.terms, tile_depth) - tile.first_chunk, args.split.chunks);
  return tile;
}

__device__ __forceinline__ Pixel pixel_of(const Contraction& d, const RowDividers& by, const Part& part, int row) {
  return pixel_of(d, part, divider_for(by.h, part.phase_h), divider_for(by.w, part.phase_w), row);
}

// Method::mma, for one sum. It leaves partial sums where the split's count is above 1.
const char* launch_mma(const Contraction&, const Schedule&, const TileArgs&, void* stream);

}  // namespace ebp
