#include "ptx_model.h"

#include <cmath>
#include <cstring>

#include "block.h"
#include "memory.h"

namespace emu {

namespace {

AsyncCopies& copies() { return current_block()->self().copies; }

void check_warp_is_whole(const Site& site) {
  const int threads = int(blockDim.x * blockDim.y * blockDim.z);
  if (threads % warp_lanes != 0 && current_block()->self().number >= threads / warp_lanes * warp_lanes) {
    fail(std::string("calls ") + site.call + " in a warp of fewer than 32 threads");
  }
}

struct MatrixLoad {
  std::uint32_t* registers;
  int count;
  bool transposed;
  const unsigned char* row;
};

std::uint16_t element(const unsigned char* row, int column) {
  std::uint16_t v;
  std::memcpy(&v, row + 2 * column, sizeof v);
  return v;
}

// Lane l gets of each matrix the two neighbors (l / 4, 2 (l % 4)), or of the transposed one.
void load_together(void* const* lanes) {
  const auto of = [&](int lane) { return static_cast<const MatrixLoad*>(lanes[lane]); };
  for (int lane = 0; lane < warp_lanes; ++lane) {
    for (int m = 0; m < of(lane)->count; ++m) {
      std::uint32_t pair = 0;
      for (int half = 0; half < 2; ++half) {
        const int row = lane / 4, column = lane % 4 * 2 + half;
        const std::uint16_t v =
            of(lane)->transposed ? element(of(8 * m + column)->row, row) : element(of(8 * m + row)->row, column);
        pair |= std::uint32_t(v) << (16 * half);
      }
      of(lane)->registers[m] = pair;
    }
  }
}

struct Multiply {
  float* d;
  const std::uint32_t *a, *b;
};

// The sum of a group of exact products and an accumulator as tensor cores form it: all terms are cut to a common
// exponent with one bit beyond float's 24, and so is the sum: after the measurements of an A100 by Fasi et al., 2021.
float accumulate(float c, const double* products, int count) {
  double largest = std::fabs(double(c));
  for (int i = 0; i < count; ++i) largest = std::fmax(largest, std::fabs(products[i]));
  if (largest == 0 || !std::isfinite(largest)) {
    double sum = c;
    for (int i = 0; i < count; ++i) sum += products[i];
    return float(sum);
  }
  const int exponent = std::ilogb(largest) - 24;
  const auto cut = [&](double v) { return std::trunc(std::ldexp(v, -exponent)); };
  double sum = cut(c);
  for (int i = 0; i < count; ++i) sum += cut(products[i]);
  const double value = std::ldexp(sum, exponent);
  const float nearest = float(value);
  return std::fabs(double(nearest)) > std::fabs(value) ? std::nextafter(nearest, 0.0f) : nearest;
}

// d[16][8] += a[16][depth] b[depth][8], `group` products at a time.
template <int depth>
void multiply(const float (&a)[16][depth], const float (&b)[depth][8], void* const* lanes, int group) {
  for (int lane = 0; lane < warp_lanes; ++lane) {
    float* d = static_cast<const Multiply*>(lanes[lane])->d;
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      double products[depth];
      for (int k = 0; k < depth; ++k) products[k] = double(a[row][k]) * b[k][column];
      for (int k = 0; k < depth; k += group) d[i] = accumulate(d[i], products + k, group);
    }
  }
}

float tf32_operand(std::uint32_t bits) {
  if (bits & tf32_lost) fail("multiplies with an operand that was not rounded to tf32");
  return float_of(bits);
}

void multiply_tf32_together(void* const* lanes) {
  float a[16][8], b[8][8];
  for (int lane = 0; lane < warp_lanes; ++lane) {
    const auto* m = static_cast<const Multiply*>(lanes[lane]);
    const int row = lane / 4, column = lane % 4;
    for (int i = 0; i < 4; ++i) a[row + i % 2 * 8][column + i / 2 * 4] = tf32_operand(m->a[i]);
    for (int i = 0; i < 2; ++i) b[column + i * 4][row] = tf32_operand(m->b[i]);
  }
  multiply(a, b, lanes, 4);
}

void multiply_bf16_together(void* const* lanes) {
  float a[16][16], b[16][8];
  const auto half = [](std::uint32_t pair, int i) { return float_of_bf16(std::uint16_t(pair >> (16 * i))); };
  for (int lane = 0; lane < warp_lanes; ++lane) {
    const auto* m = static_cast<const Multiply*>(lanes[lane]);
    const int row = lane / 4, column = lane % 4 * 2;
    for (int i = 0; i < 8; ++i) a[row + i / 2 % 2 * 8][column + i % 2 + i / 4 * 8] = half(m->a[i / 2], i % 2);
    for (int i = 0; i < 4; ++i) b[column + i % 2 + i / 2 * 8][row] = half(m->b[i / 2], i % 2);
  }
  multiply(a, b, lanes, 8);
}

}  // namespace

void async_copy(void* shared, const void* from, std::size_t bytes) { copies().begin(shared, from, bytes); }
void async_commit() { copies().commit(); }
void async_wait(int pending) { copies().wait(pending); }

void load_matrices(std::uint32_t* registers, int count, bool transposed, const void* row, const Site& site) {
  check_warp_is_whole(site);
  if (lane() < 8 * count) {
    if (reinterpret_cast<std::uintptr_t>(row) % 16) fail("ldmatrix: a row is not aligned to 16 bytes");
    check_access(row, 16, Access::read);
  }
  MatrixLoad mine{registers, count, transposed, static_cast<const unsigned char*>(row)};
  warp_meeting(full_mask, site, &mine, &load_together);
}

void multiply_tf32(float* d, const std::uint32_t* a, const std::uint32_t* b, const Site& site) {
  check_warp_is_whole(site);
  Multiply mine{d, a, b};
  warp_meeting(full_mask, site, &mine, &multiply_tf32_together);
}

void multiply_bf16(float* d, const std::uint32_t* a, const std::uint32_t* b, const Site& site) {
  check_warp_is_whole(site);
  Multiply mine{d, a, b};
  warp_meeting(full_mask, site, &mine, &multiply_bf16_together);
}

}  // namespace emu
