#include "block.h"

#include <algorithm>
#include <cstring>
#include <map>

namespace emu {

namespace {

Block* running_block = nullptr;
std::uint32_t blocks_begun = 0, epochs_begun = 0;

std::string text(const Site& site) {
  const char* name = std::strrchr(site.file, '/');
  return std::string(site.call) + " (" + (name != nullptr ? name + 1 : site.file) + ":" + std::to_string(site.line) +
         ")";
}

bool same(const Site& a, const Site& b) {
  return a.line == b.line && std::strcmp(a.file, b.file) == 0 && std::strcmp(a.call, b.call) == 0;
}

// No exception may leave a fiber.
void run_body(void* body) {
  try {
    (*static_cast<const std::function<void()>*>(body))();
  } catch (const std::exception& error) {
    fail(std::string("threw: ") + error.what());
  }
}

std::string text(const uint3& i) {
  return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

}  // namespace

Block* current_block() { return running_block; }

std::uint32_t next_block() { return blocks_begun + 1; }

Block::Block(const Launch& launch, const std::function<void()>& body, std::vector<std::unique_ptr<Thread>>& threads)
    : launch_(launch), body_(body), threads_(threads) {
  count_ = int(launch.threads.x * launch.threads.y * launch.threads.z);
}

void Block::begin(const uint3& index) {
  index_ = index;
  live_ = count_;
  meetings_.clear();
  ticks_.assign(std::size_t(count_ / warp_lanes + 1), 0);
  moment_ = {++blocks_begun, ++epochs_begun, 0, 0, 0};
  shared_ = begin_shared(launch_.shared_bytes);
  blockIdx = index;
  for (int i = 0; i < count_; ++i) {
    Thread& t = *threads_[std::size_t(i)];
    t.number = i;
    t.index = {unsigned(i) % launch_.threads.x, unsigned(i) / launch_.threads.x % launch_.threads.y,
               unsigned(i) / launch_.threads.x / launch_.threads.y};
    t.state = Thread::State::ready;
    t.copies.clear();
    t.fiber.start(&run_body, const_cast<std::function<void()>*>(&body_));
  }
}

void Block::run(const uint3& index, const std::vector<int>& order) {
  begin(index);
  running_block = this;
  while (live_ > 0 && fault_.empty()) {
    bool progress = false;
    for (const int number : order) {
      if (threads_[std::size_t(number)]->state != Thread::State::ready) continue;
      progress = true;
      resume(number);
      if (!fault_.empty()) break;
    }
    if (!progress) release_block_barrier();
  }
  running_block = nullptr;
  now = nullptr;
  if (fault_.empty()) return;
  for (int i = 0; i < count_; ++i) threads_[std::size_t(i)]->fiber.abandon();
  throw Fault(fault_);
}

void Block::resume(int number) {
  Thread& t = *threads_[std::size_t(number)];
  running_ = number;
  threadIdx = t.index;
  moment_.thread = std::int16_t(number);
  moment_.warp = std::int16_t(t.warp());
  moment_.tick = ticks_[std::size_t(t.warp())];
  now = &moment_;
  t.fiber.resume();
  now = nullptr;
  if (!t.fiber.ended()) return;
  t.state = Thread::State::ended;
  --live_;
}

// Called when nobody can go on. All threads of the block, none of them ended, must wait at one barrier.
void Block::release_block_barrier() {
  const Site& site = threads_[0]->site;
  const bool all = std::all_of(threads_.begin(), threads_.begin() + count_, [&](const auto& t) {
    return t->state == Thread::State::at_block_barrier && same(t->site, site);
  });
  if (!all) {
    fault_ =
        launch_.kernel + ": block " + text(index_) + ": threads wait for others that do not come: " + whereabouts();
    return;
  }
  moment_.epoch = ++epochs_begun;
  for (int i = 0; i < count_; ++i) threads_[std::size_t(i)]->state = Thread::State::ready;
}

std::string Block::whereabouts() const {
  std::map<std::string, std::vector<int>> places;
  for (int i = 0; i < count_; ++i) {
    const Thread& t = *threads_[std::size_t(i)];
    places[t.state == Thread::State::ended ? "the end of the kernel" : text(t.site)].push_back(i);
  }
  std::string all;
  for (const auto& [place, numbers] : places) {
    all += (all.empty() ? "" : "; ") + std::to_string(numbers.size()) + " at " + place + ", the first is thread " +
           std::to_string(numbers.front());
  }
  return all;
}

void Block::wait_for_block(const Site& site) {
  Thread& t = self();
  t.site = site;
  t.state = Thread::State::at_block_barrier;
  t.fiber.pause();
}

unsigned Block::existing_lanes(int warp) const {
  const int lanes = std::min(count_ - warp * warp_lanes, warp_lanes);
  return lanes == warp_lanes ? full_mask : (1u << lanes) - 1;
}

// The meeting of this call, begun by the first of its lanes.
Meeting& Block::join(unsigned mask, const Site& site) {
  const Thread& t = self();
  for (Meeting& m : meetings_) {
    if (m.warp != t.warp() || (m.mask & mask) == 0) continue;
    if (m.mask == mask && same(m.site, site)) return m;
    fail("comes to " + text(site) + " where other lanes of its mask wait at " + text(m.site));
  }
  meetings_.push_back({t.warp(), mask, 0, site, {}});
  return meetings_.back();
}

void Block::meet(unsigned mask, const Site& site, void* mine, void (*together)(void* const*)) {
  Thread& t = self();
  if ((mask >> t.lane() & 1u) == 0) fail("calls " + text(site) + " with a mask that leaves it out");
  Meeting& meeting = join(mask & existing_lanes(t.warp()), site);
  meeting.arrived |= 1u << t.lane();
  meeting.lanes[t.lane()] = mine;
  if (meeting.arrived != meeting.mask) {
    t.site = site;
    t.state = Thread::State::in_warp_meeting;
    t.fiber.pause();
    return;
  }
  const Meeting complete = meeting;
  meetings_.erase(meetings_.begin() + (&meeting - meetings_.data()));
  together(complete.lanes);
  release(complete);
}

void Block::release(const Meeting& meeting) {
  for (int lane = 0; lane < warp_lanes; ++lane) {
    if (meeting.mask >> lane & 1u) {
      threads_[std::size_t(meeting.warp * warp_lanes + lane)]->state = Thread::State::ready;
    }
  }
}

void Block::order_warp() {
  std::uint32_t& tick = ticks_[std::size_t(self().warp())];
  moment_.tick = ++tick;
}

void Block::fail(const std::string& what) {
  fault_ = launch_.kernel + ": block " + text(index_) + ", thread " + text(self().index) + ": " + what;
  self().fiber.pause();
  __builtin_unreachable();
}

}  // namespace emu
