// cp.async: copies from global to shared memory that land only when their thread waits for them.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

namespace emu {

class AsyncCopies {
 public:
  static constexpr std::size_t most_bytes = 16;

  // `from` may be null for zeros. The source is read now: a kernel never writes what it copies from.
  void begin(void* shared, const void* from, std::size_t bytes);
  void commit();
  // Lands all committed groups but the last `pending`.
  void wait(int pending);
  void clear();

 private:
  struct Copy {
    void* to;
    std::size_t bytes;
    std::array<unsigned char, most_bytes> content;
  };
  std::vector<Copy> open_;
  std::vector<std::vector<Copy>> groups_;
};

}  // namespace emu
