// Which of the admitted kernels computes which class of contraction: the project's table, read by schedule_of. A class
// is a matter of the problem's shape and never of the device, so that the bits of our sums are the same everywhere. The
// rows are guesses so far; tools/gpu_tune.py times all schedules on a GPU and prints the rows that its times speak for.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "launchers.h"

namespace ebp {

// W x, W^T r, or W x and W+ x at once.
enum class Way { up, down, pair };

// A class of contractions, and what computes it.
struct Choice {
  Way way;
  Precision factors;  // of the kernel's products; all but fp32 are for tensor cores
  int rows;           // the class: at least so many pixels of the target,
  int tiles, steps;   // in at least so many tiles of 128 x 64, with at least so many steps of 16 terms each
  bool large;         // tiles of 128 x 64, or of 64 x 64
  int blocks;         // wanted in all: where there are fewer tiles, the terms are split among more blocks
};

// Rows of a table: of those that fit, the first one holds.
struct Choices {
  const Choice* rows;
  int count;
};

// Blocks that fill 132 processors with 2 resident ones, and with 3. A constant of the table and not of the device at
// hand.
constexpr int twofold = 264, threefold = 396;

constexpr Choice project_rows[] = {
    {Way::up, Precision::fp32, 128, 128, 0, true, threefold},   {Way::up, Precision::fp32, 0, 0, 0, false, twofold},
    {Way::down, Precision::fp32, 128, 128, 0, true, threefold}, {Way::down, Precision::fp32, 0, 0, 0, false, twofold},
    {Way::pair, Precision::fp32, 0, 0, 0, false, threefold},    {Way::up, Precision::tf32, 0, 0, 0, true, threefold},
    {Way::down, Precision::tf32, 0, 0, 0, true, threefold},     {Way::up, Precision::bf16, 0, 0, 0, true, threefold},
    {Way::down, Precision::bf16, 0, 0, 0, true, threefold},     {Way::up, Precision::tf32x3, 0, 0, 0, true, threefold},
};

constexpr Choices project_choices{project_rows, sizeof project_rows / sizeof *project_rows};

// What a class is a matter of.
struct Shape {
  int64_t rows, tiles, steps;
};

// The row for a problem, or nullptr where none fits.
constexpr const Choice* choice_for(const Choices& from, Way way, Precision factors, const Shape& shape) {
  for (int i = 0; i < from.count; ++i) {
    const Choice& row = from.rows[i];
    const bool fits = shape.rows >= row.rows && shape.tiles >= row.tiles && shape.steps >= row.steps;
    if (row.way == way && row.factors == factors && fits) return &row;
  }
  return nullptr;
}

// What is wrong with a table, or nullptr.
constexpr const char* choices_refused(const Choices& from) {
  for (int i = 0; i < from.count; ++i) {
    const Choice& row = from.rows[i];
    if (row.rows < 0 || row.tiles < 0 || row.steps < 0 || row.blocks < 1)
      return "a row asks for less than no tiles, or for no blocks";
    if (row.factors != Precision::fp32 && !row.large) return "tensor cores have tiles of 128 x 64 only";
    if (row.way == Way::pair && (row.large || row.factors != Precision::fp32)) {
      return "two sums at once are computed in fp32, by tiles of 64 x 64 only";
    }
  }
  for (const Precision factors : all_precisions) {
    for (const Way way : {Way::up, Way::down}) {
      if (way == Way::down && factors == Precision::tf32x3) continue;
      if (choice_for(from, way, factors, {}) == nullptr) return "no row takes the smallest problems of a way";
    }
  }
  return choice_for(from, Way::pair, Precision::fp32, {}) ? nullptr : "no row takes the smallest problems of a pair";
}
static_assert(choices_refused(project_choices) == nullptr);

}  // namespace ebp
