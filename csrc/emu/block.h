// One block: its threads as fibers, the barriers at which they wait, and who may go on.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "async_copy.h"
#include "fiber.h"
#include "memory.h"
#include "simt.h"

namespace emu {

struct Thread {
  enum class State { ready, at_block_barrier, in_warp_meeting, ended };

  Fiber fiber;
  uint3 index{};
  int number = 0;
  State state = State::ended;
  Site site{};  // where it waits
  AsyncCopies copies;

  int warp() const { return number / warp_lanes; }
  int lane() const { return number % warp_lanes; }
};

// Lanes of a warp that have come to a call which they make together.
struct Meeting {
  int warp;
  unsigned mask, arrived;
  Site site;
  void* lanes[warp_lanes];
};

class Block {
 public:
  // `threads` outlives the block and is long enough.
  Block(const Launch& launch, const std::function<void()>& body, std::vector<std::unique_ptr<Thread>>& threads);

  // Runs the block to its end, its threads in this order wherever none waits for another. Throws Fault.
  void run(const uint3& index, const std::vector<int>& order);

  // For the thread that runs.
  Thread& self() { return *threads_[std::size_t(running_)]; }
  const Launch& launch() const { return launch_; }
  unsigned char* shared() { return shared_; }
  void wait_for_block(const Site& site);
  void meet(unsigned mask, const Site& site, void* mine, void (*together)(void* const*));
  void order_warp();
  [[noreturn]] void fail(const std::string& what);

 private:
  void begin(const uint3& index);
  void resume(int number);
  void release_block_barrier();
  unsigned existing_lanes(int warp) const;
  Meeting& join(unsigned mask, const Site& site);
  void release(const Meeting& meeting);
  std::string whereabouts() const;

  const Launch& launch_;
  const std::function<void()>& body_;
  std::vector<std::unique_ptr<Thread>>& threads_;
  int count_, live_ = 0, running_ = -1;
  uint3 index_{};
  Moment moment_{};
  std::vector<std::uint32_t> ticks_;  // warp barriers that each warp has passed
  std::vector<Meeting> meetings_;
  unsigned char* shared_ = nullptr;
  std::string fault_;
};

// The block that runs, or null.
Block* current_block();

// The number of the block that begins next.
std::uint32_t next_block();

}  // namespace emu
