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
  int tiles, steps;   // the class: at least so many tiles of 128 x 64, with at least so many steps of 16 terms each
  bool large;         // tiles of 128 x 64, or of 64 x 64
  int blocks;         // wanted in all: where there are fewer tiles, the terms are split among more blocks
};

// Rows of a table: of those that fit, the first one holds.
struct Choices {
  const Choice* rows;
  int count;
};

constexpr Choice project_rows[] = {
    {Way::up, Precision::fp32, 128, 0, true, 256},   {Way::up, Precision::fp32, 0, 0, false, 256},
    {Way::down, Precision::fp32, 128, 0, true, 256}, {Way::down, Precision::fp32, 0, 0, false, 256},
    {Way::pair, Precision::fp32, 0, 0, false, 256},  {Way::up, Precision::tf32, 0, 0, true, 256},
    {Way::down, Precision::tf32, 0, 0, true, 256},   {Way::up, Precision::bf16, 0, 0, true, 256},
    {Way::down, Precision::bf16, 0, 0, true, 256},
};

constexpr Choices project_choices{project_rows, sizeof project_rows / sizeof *project_rows};

// The row for a problem, or nullptr where none fits.
constexpr const Choice* choice_for(const Choices& from, Way way, Precision factors, int64_t tiles, int64_t steps) {
  for (int i = 0; i < from.count; ++i) {
    const Choice& row = from.rows[i];
    if (row.way == way && row.factors == factors && tiles >= row.tiles && steps >= row.steps) return &row;
  }
  return nullptr;
}

// What is wrong with a table, or nullptr.
constexpr const char* choices_refused(const Choices& from) {
  for (int i = 0; i < from.count; ++i) {
    const Choice& row = from.rows[i];
    if (row.tiles < 0 || row.steps < 0 || row.blocks < 1) return "a row asks for less than no tiles, or for no blocks";
    if (row.factors != Precision::fp32 && !row.large) return "tensor cores have tiles of 128 x 64 only";
    if (row.way == Way::pair && (row.large || row.factors != Precision::fp32)) {
      return "two sums at once are computed in fp32, by tiles of 64 x 64 only";
    }
  }
  for (const Precision factors : {Precision::fp32, Precision::tf32, Precision::bf16}) {
    for (const Way way : {Way::up, Way::down}) {
      if (choice_for(from, way, factors, 0, 0) == nullptr) return "no row takes the smallest problems of a way";
    }
  }
  return choice_for(from, Way::pair, Precision::fp32, 0, 0) ? nullptr : "no row takes the smallest problems of a pair";
}
static_assert(choices_refused(project_choices) == nullptr);

}  // namespace ebp
