// The table of choices in force, with C names so that a measurement can read and replace it. Seven numbers a row: way
// and factors in the order of their enumerations, rows, tiles, steps, large, blocks.
#include "choices.h"

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

namespace ebp {
namespace {

constexpr int row_length = 7;

struct Table {
  std::vector<Choice> rows;
  Choices choices{};
};

std::atomic<const Choices*> in_force{&project_choices};

// Tables that were in force stay, because a call may be reading one.
void keep(std::unique_ptr<Table> table) {
  static std::mutex guard;
  static std::vector<std::unique_ptr<Table>> kept;
  const std::lock_guard<std::mutex> lock(guard);
  in_force = &table->choices;
  kept.push_back(std::move(table));
}

const char* read_rows(const int* from, int count, Table& to) {
  for (int i = 0; i < count; ++i) {
    const int* n = from + i * row_length;
    if (n[0] < 0 || n[0] > int(Way::pair) || n[1] < 0 || n[1] > int(Precision::tf32x3)) return "no such way or factors";
    to.rows.push_back({Way(n[0]), Precision(n[1]), n[2], n[3], n[4], n[5] != 0, n[6]});
  }
  to.choices = {to.rows.data(), count};
  return choices_refused(to.choices);
}

}  // namespace

const Choices& choices_in_force() { return *in_force; }

}  // namespace ebp

#define EBP_EXPORT extern "C" __attribute__((visibility("default")))

// Puts a table of `count` rows in force; returns nullptr or what is wrong with it.
EBP_EXPORT const char* ebp_cuda_replace_choices(const int* rows, int count) {
  auto table = std::make_unique<ebp::Table>();
  const char* reason = ebp::read_rows(rows, count, *table);
  if (reason == nullptr) ebp::keep(std::move(table));
  return reason;
}

// How many rows are in force; as many as there is room for are written.
EBP_EXPORT int ebp_cuda_choices(int* to, int room) {
  const ebp::Choices& all = ebp::choices_in_force();
  for (int i = 0; i < all.count && i < room; ++i) {
    const ebp::Choice& row = all.rows[i];
    const int numbers[ebp::row_length] = {int(row.way), int(row.factors), row.rows,  row.tiles,
                                          row.steps,    row.large,        row.blocks};
    for (const int n : numbers) *to++ = n;
  }
  return all.count;
}
