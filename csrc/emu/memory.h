// The memory of the emulated device: buffers apart from each other, and one block's shared memory. Every access of a
// kernel is checked: bounds, bytes that nobody wrote, and two threads meeting at one byte with no barrier between.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace emu {

// Where a thread stands in the order of things. Blocks are numbered through all launches; `epoch` counts block
// barriers, `tick` warp barriers. Block 0 is nobody.
struct Moment {
  std::uint32_t block = 0, epoch = 0, tick = 0;
  std::int16_t thread = 0, warp = 0;
};

enum class Access { read, write };

// What is known of some bytes. Where several threads read them, the last read has thread -1 (warp -1 for several
// warps).
struct History {
  Moment write, read;
  std::uint32_t in_flight = 0;  // the block in which an asynchronous copy to it has begun and not landed
};

// The history of a range of memory, in pieces as small as any access has needed so far.
class Shadow {
 public:
  explicit Shadow(std::size_t bytes) : pieces_((bytes + piece_ - 1) / piece_) {}
  // What is wrong with an access, or null. What happened before block `since` is ordered before the access; bytes that
  // were written before block `written_since` count as never written.
  const char* access(std::size_t offset, std::size_t bytes, Access kind, const Moment& now, std::uint32_t since,
                     std::uint32_t written_since);
  void set_in_flight(std::size_t offset, std::size_t bytes, std::uint32_t block);

 private:
  void cut_for(std::size_t offset, std::size_t bytes);

  std::size_t piece_ = 16;  // bytes
  std::vector<History> pieces_;
};

// A copy of an argument on the emulated device.
class Buffer {
 public:
  // content == nullptr: bytes 0xff, which is NaN in every floating-point format, and unwritten as far as checks go.
  Buffer(std::string name, std::size_t bytes, const void* content, bool writable);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  unsigned char* data() const { return data_; }
  std::size_t size() const { return size_; }
  const std::string& name() const { return name_; }
  bool writable() const { return writable_; }
  Shadow* shadow() const { return shadow_.get(); }
  bool poisoned() const { return poisoned_; }

 private:
  std::string name_;
  unsigned char* data_;
  std::size_t size_;
  bool writable_, poisoned_;
  std::unique_ptr<Shadow> shadow_;  // of what may be written
};

// Buffers to come start this many bytes behind a 256-byte boundary.
void set_misalignment(std::size_t bytes);

// What a block may have at most on any GPU that we build for (sm_90, sm_100).
constexpr std::size_t most_shared_bytes = 227 * 1024;

// The shared memory of the block that runs, poisoned with 0xff.
unsigned char* begin_shared(std::size_t bytes);

// Every access of a thread comes here, also those to the emulator's and the host's own memory, which pass.
void check_access(const void* address, std::size_t bytes, Access kind);
// Marks shared memory as the target of an asynchronous copy, a write that may happen at any time until it lands.
void begin_flight(const void* shared, std::size_t bytes);
void end_flight(const void* shared, std::size_t bytes);

// Kept by the scheduler: the running thread's moment (null outside of kernels), and the first block of the launch.
extern const Moment* now;
extern std::uint32_t first_block_of_launch;

}  // namespace emu
