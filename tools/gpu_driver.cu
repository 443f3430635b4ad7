// Launches every kernel of csrc/cuda without torch: checked against a plain loop, watched by compute-sanitizer, or
// timed.
//
//   gpu_driver check     every admitted schedule of a few convolutions, and the other kernels once; exit code 1 if
//   wrong gpu_driver time      reads layers from stdin, one a line, and times every admitted schedule of each:
//                        name batch below above height width kernel stride padding way (up, down or pair)
//
// Prints a line per result and flushes it, so that whatever ends the process early hides nothing before it. Built with
// -DEBP_EMULATOR against csrc/emu it runs on a CPU, where the times mean nothing.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "cuda/candidates.h"
#include "cuda/launch.h"
#include "cuda/launchers.h"

namespace {

using namespace ebp;

// Device memory that is freed with its owner.
#ifdef EBP_EMULATOR
void* allocate(std::size_t bytes) { return std::aligned_alloc(256, (bytes + 255) / 256 * 256); }
void release(void* p) { std::free(p); }
void copy(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
const char* wait() { return nullptr; }
#else
void* allocate(std::size_t bytes) {
  void* p = nullptr;
  if (cudaMalloc(&p, bytes) != cudaSuccess) std::printf("no memory for %zu bytes\n", bytes), std::exit(3);
  return p;
}
void release(void* p) { cudaFree(p); }
void copy(void* to, const void* from, std::size_t bytes) { cudaMemcpy(to, from, bytes, cudaMemcpyDefault); }
const char* wait() {
  const cudaError_t error = cudaDeviceSynchronize();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}
#endif

template <class T>
class Array {
 public:
  explicit Array(std::size_t size)
      : size_(size), data_(static_cast<T*>(allocate(std::max<std::size_t>(size, 1) * sizeof(T)))) {}
  explicit Array(const std::vector<T>& values) : Array(values.size(), values) {}
  // The values over and over.
  Array(std::size_t size, const std::vector<T>& values) : Array(size) {
    std::size_t done = std::min(size, values.size());
    copy(data_, values.data(), done * sizeof(T));
    while (done < size) {
      const std::size_t more = std::min(done, size - done);
      copy(data_ + done, data_, more * sizeof(T));
      done += more;
    }
  }
  Array(const Array&) = delete;
  ~Array() { release(data_); }
  T* at() const { return data_; }
  std::vector<T> read() const {
    std::vector<T> values(size_);
    copy(values.data(), data_, size_ * sizeof(T));
    return values;
  }

 private:
  std::size_t size_;
  T* data_;
};

// A convolution of square planes and kernels, channels_last, in the way of one of the ops.
struct Layer {
  std::string name;
  int batch, below, above, height, width, kernel, stride, padding;
  std::string way;

  bool down() const { return way == "down"; }
  bool pair() const { return way == "pair"; }
  Axis axis(int size) const { return {size, (size + 2 * padding - kernel) / stride + 1, kernel, stride, padding, 1}; }
  Conv2d conv() const {
    const Axis h = axis(height), w = axis(width);
    const auto last = [](int64_t c, int64_t rows, int64_t columns) {
      return Strides{rows * columns * c, 1, columns * c, c};
    };
    return {batch, below, above, 1, h, w, last(below, height, width), last(above, h.out, w.out)};
  }
  Strides weights() const { return {int64_t(kernel) * kernel * below, 1, int64_t(kernel) * below, below}; }
  std::size_t weight() const { return std::size_t(above) * kernel * kernel * below; }
  std::size_t source() const { return down() ? upper() : lower(); }
  std::size_t lower() const { return std::size_t(batch) * height * width * below; }
  std::size_t upper() const { return std::size_t(batch) * axis(height).out * axis(width).out * above; }
};

std::vector<float> random_values(std::size_t size, float low, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> draw(low, 1.0f);
  std::vector<float> values(size);
  for (float& v : values) v = draw(random);
  return values;
}

// W x, or W^T r, and the same of absolute values, by the definition.
std::vector<double> plain(const Layer& l, const std::vector<float>& from, const std::vector<float>& weight,
                          bool absolute) {
  const Conv2d d = l.conv();
  std::vector<double> to(l.down() ? l.lower() : l.upper());
  for (int n = 0; n < l.batch; ++n)
    for (int y = 0; y < d.h.out; ++y)
      for (int x = 0; x < d.w.out; ++x)
        for (int i = 0; i < l.kernel; ++i)
          for (int j = 0; j < l.kernel; ++j) {
            const int a = y * l.stride - l.padding + i, b = x * l.stride - l.padding + j;
            if (a < 0 || a >= l.height || b < 0 || b >= l.width) continue;
            const std::size_t low = ((std::size_t(n) * l.height + a) * l.width + b) * l.below;
            const std::size_t high = ((std::size_t(n) * d.h.out + y) * d.w.out + x) * l.above;
            for (int o = 0; o < l.above; ++o)
              for (int c = 0; c < l.below; ++c) {
                double w = weight[((std::size_t(o) * l.kernel + i) * l.kernel + j) * l.below + c];
                double v = l.down() ? from[high + o] : from[low + c];
                if (absolute) w = std::fabs(w), v = std::fabs(v);
                to[l.down() ? low + c : high + o] += w * v;
              }
          }
  return to;
}

std::string name_of(const Schedule& s) {
  const char* const methods[] = {"naive", "simt", "depthwise", "mma"};
  const char* const loads[] = {"single", "terms", "columns"};
  std::ostringstream text;
  text << methods[int(s.method)] << ' ' << loads[int(s.loads)] << ' ' << (s.large ? "large" : "small") << ' '
       << s.splits << ' ' << ebp::name_of(s.precision);
  return text.str();
}

// One layer's tensors on the device, and its launches.
class Case {
 public:
  // No more than `most` values are drawn; larger tensors repeat them.
  explicit Case(const Layer& l, std::size_t most = SIZE_MAX)
      : layer(l),
        from(random_values(std::min(most, l.source()), l.down() ? -1.0f : 0.0f, 1)),
        weight(random_values(std::min(most, l.weight()), l.pair() ? -1.0f : 0.0f, 2)),
        source_(l.source(), from),
        weight_(l.weight(), weight),
        plus_(l.weight(), positive(weight)),
        to_(l.down() ? l.lower() : l.upper()),
        side_(l.upper()),
        problem_(l.down() ? contraction_down(l.conv(), l.weights()) : contraction_up(l.conv(), l.weights())) {}

  template <class Visit>
  void each_schedule(const int* splits, std::size_t count, Visit visit) const {
    const float* plus = layer.pair() ? plus_.at() : nullptr;
    each_candidate(problem_, layer.down(), arch(), source_.at(), weight_.at(), plus, splits, count, visit);
  }
  Schedule chosen(Precision precision) const {
    const float* plus = layer.pair() ? plus_.at() : nullptr;
    return schedule_of(problem_, precision, layer.down(), arch(), source_.at(), weight_.at(), plus);
  }
  // What the table of choices asks for: tiles of 128 and of 64 rows, and their steps.
  std::string shape_class() const {
    std::ostringstream text;
    text << tiles_of(problem_, 128, 64) << ' ' << tiles_of(problem_, 64, 64) << ' ' << steps_of(problem_);
    return text.str();
  }
  std::size_t partial(const Schedule& s) const { return std::size_t(partial_total(problem_, s, layer.pair() ? 2 : 1)); }
  const char* launch(const Schedule& s, float* partial) const {
    LaunchArgs args;
    args.from = {source_.at(), {weight_.at(), layer.pair() ? plus_.at() : nullptr}};
    args.epilogue.to = to_.at();
    args.epilogue.side = layer.pair() ? side_.at() : nullptr;
    args.partial = partial;
    return layer.pair() ? launch_excitation(problem_, s, args, nullptr)
                        : launch_contraction(problem_, s, args, nullptr);
  }
  std::vector<float> result() const { return to_.read(); }
  std::vector<float> side() const { return side_.read(); }
  static std::vector<float> positive(std::vector<float> values) {
    for (float& v : values) v = std::max(v, 0.0f);
    return values;
  }

  const Layer layer;
  const std::vector<float> from, weight;

 private:
  static int arch() {
#ifdef EBP_EMULATOR
    return 90;
#else
    return current_arch();
#endif
  }
  Array<float> source_, weight_, plus_, to_, side_;
  Contraction problem_;
};

double error_of(const std::vector<float>& result, const std::vector<double>& expected,
                const std::vector<double>& size) {
  double worst = 0;
  for (std::size_t i = 0; i < result.size(); ++i) {
    const double error = std::fabs(result[i] - expected[i]) / std::max(size[i], 1e-30);
    worst = error > worst || std::isnan(error) ? error : worst;
  }
  return worst;
}

int failures = 0;
void tell(const std::string& what, double error, double limit, const char* trouble) {
  const bool wrong = trouble != nullptr || !(error <= limit);
  failures += wrong;
  std::printf("%-60s %s error %.1e of %.0e %s\n", what.c_str(), wrong ? "WRONG" : "right", error, limit,
              trouble ? trouble : "");
  std::fflush(stdout);
}

void check(const Layer& l) {
  const Case c(l);
  const std::vector<double> expected = plain(l, c.from, c.weight, false), size = plain(l, c.from, c.weight, true);
  const std::vector<double> side = l.pair() ? plain(l, c.from, Case::positive(c.weight), false) : std::vector<double>();
  const int splits[] = {1, 2};
  c.each_schedule(splits, 2, [&](const Schedule& s) {
    Array<float> partial(c.partial(s));
    const char* trouble = c.launch(s, partial.at());
    if (const char* late = wait()) trouble = late;
    const double limit = s.precision == Precision::fp32 ? 1e-5 : s.precision == Precision::tf32 ? 2e-3 : 2e-2;
    double error = trouble ? 0 : error_of(c.result(), expected, size);
    if (!trouble && l.pair()) error = std::max(error, error_of(c.side(), side, side));
    tell(l.name + " " + l.way + ": " + name_of(s), error, limit, trouble);
  });
}

// The kernels that are no contractions, once each, on planes with ragged edges; their results are the ops' to check.
void launch_the_others() {
  const int n = 2, c = 20, size = 9, out = 4;
  const std::size_t total = std::size_t(n) * c * size * size, pooled = std::size_t(n) * c * out * out;
  const Array<float> x(random_values(total, 0.0f, 3)), z(random_values(total, 0.1f, 4)), y(total),
      p(random_values(pooled, 0.0f, 5)), q(pooled);
  const Array<std::uint8_t> winner(total);
  const Axis axis{size, out, 3, 2, 0, 1};
  const Pool2d pool{n, 1, c, axis, axis, 1};
  const Rows rows{int64_t(total),
                  int64_t(total) / n,
                  1,
                  int64_t(total) / n,
                  {int64_t(total) / n, int64_t(total) / n},
                  {int64_t(total) / n, int64_t(total) / n}};
  Pointers<float> inputs{};
  inputs.at[0] = x.at(), inputs.at[1] = z.at(), inputs.count = 2;
  const auto ran = [&](const char* name, const char* trouble) {
    const char* late = wait();
    tell(name, 0, 0, trouble ? trouble : late);
  };
  ran("share", launch_share<float>(rows, x.at(), z.at(), y.at(), nullptr));
  ran("gate", launch_gate<float>(rows, x.at(), z.at(), y.at(), nullptr));
  ran("add", launch_add<float>(int64_t(total), x.at(), z.at(), y.at(), nullptr));
  ran("round to tf32", launch_round(int64_t(total), x.at(), Precision::tf32, y.at(), nullptr));
  ran("round to bf16", launch_round(int64_t(total), x.at(), Precision::bf16, y.at(), nullptr));
  ran("max_winner", launch_max_winner<float>(int64_t(total), inputs, winner.at(), nullptr));
  ran("max_pool", launch_max_pool<float>(pool, x.at(), q.at(), winner.at(), false, nullptr));
  ran("max_route", launch_max_route<float>(pool, p.at(), winner.at(), false, y.at(), nullptr));
  ran("window_sum", launch_window_sum<float>(pool, Divisor::none, x.at(), q.at(), nullptr));
  ran("window_spread", launch_window_spread<float>(pool, p.at(), y.at(), nullptr));
  ran("lrn", launch_lrn<float>({n * size * size, c, 1, 5, 1e-4 / 5, 0.75, 1.0}, x.at(), y.at(), nullptr));
}

int check_all() {
  for (const char* way : {"up", "down", "pair"}) {
    check({"1x1 64->132", 1, 64, 132, 9, 8, 1, 1, 0, way});
    check({"3x3 20->68", 1, 20, 68, 9, 8, 3, 1, 1, way});
    check({"3x3/2 4->64", 2, 4, 64, 8, 9, 3, 2, 1, way});
    check({"3x3 17->5", 1, 17, 5, 6, 7, 3, 1, 1, way});
  }
  launch_the_others();
  std::printf("%d wrong\n", failures);
  return failures != 0;
}

// Microseconds of a launch: the median of several, each of its own.
double microseconds(const Case& c, const Schedule& s, float* partial, int repeats) {
  std::vector<double> times;
  for (int i = 0; i <= repeats; ++i) {
#ifdef EBP_EMULATOR
    const auto start = std::chrono::steady_clock::now();
    c.launch(s, partial);
    const double time = std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
#else
    static cudaEvent_t first =
                           [] {
                             cudaEvent_t e;
                             cudaEventCreate(&e);
                             return e;
                           }(),
                       last = [] {
                         cudaEvent_t e;
                         cudaEventCreate(&e);
                         return e;
                       }();
    cudaEventRecord(first);
    c.launch(s, partial);
    cudaEventRecord(last);
    cudaEventSynchronize(last);
    float milliseconds = 0;
    cudaEventElapsedTime(&milliseconds, first, last);
    const double time = 1e3 * milliseconds;
#endif
    if (i > 0) times.push_back(time);  // the first warms up
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

constexpr std::size_t drawn_when_timed = 1 << 20;

int time_all(int repeats) {
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    Layer l;
    words >> l.name >> l.batch >> l.below >> l.above >> l.height >> l.width >> l.kernel >> l.stride >> l.padding >>
        l.way;
    if (!words) continue;
    const Case c(l, drawn_when_timed);
    std::printf("%s class %s %s\n", l.name.c_str(), l.way.c_str(), c.shape_class().c_str());
    const int splits[] = {1, 2, 4, 8, 16, 32};
    const Precision all[] = {Precision::fp32, Precision::tf32, Precision::bf16};
    for (const Precision precision : all) {
      if (!l.pair() || precision == Precision::fp32) {
        std::printf("%s chosen %s: %s\n", l.name.c_str(), ebp::name_of(precision),
                    name_of(c.chosen(precision)).c_str());
      }
    }
    c.each_schedule(splits, 6, [&](const Schedule& s) {
      Array<float> partial(c.partial(s));
      std::printf("%s time %.2f us: %s\n", l.name.c_str(), microseconds(c, s, partial.at(), repeats),
                  name_of(s).c_str());
      std::fflush(stdout);
    });
    if (const char* trouble = wait()) return std::printf("%s: %s\n", l.name.c_str(), trouble), 1;
  }
  return 0;
}

}  // namespace

int main(int count, char** words) {
  const std::string mode = count > 1 ? words[1] : "";
  if (mode == "check") return check_all();
  if (mode == "time") return time_all(count > 2 ? std::atoi(words[2]) : 5);
  std::fprintf(stderr, "gpu_driver check | time [REPEATS]\n");
  return 2;
}
