#include "async_copy.h"

#include <cstdint>
#include <cstring>

#include "memory.h"
#include "simt.h"

namespace emu {

void AsyncCopies::begin(void* shared, const void* from, std::size_t bytes) {
  if (reinterpret_cast<std::uintptr_t>(shared) % bytes || reinterpret_cast<std::uintptr_t>(from) % bytes) {
    fail("cp.async of " + std::to_string(bytes) + " bytes: source or target is not aligned to as much");
  }
  Copy copy{shared, bytes, {}};
  if (from != nullptr) {
    check_access(from, bytes, Access::read);
    std::memcpy(copy.content.data(), from, bytes);
  }
  begin_flight(shared, bytes);
  std::memset(shared, 0xff, bytes);
  open_.push_back(copy);
}

void AsyncCopies::commit() {
  groups_.push_back(open_);
  open_.clear();
}

void AsyncCopies::wait(int pending) {
  while (groups_.size() > std::size_t(pending)) {
    for (const Copy& copy : groups_.front()) {
      end_flight(copy.to, copy.bytes);
      std::memcpy(copy.to, copy.content.data(), copy.bytes);
    }
    groups_.erase(groups_.begin());
  }
}

void AsyncCopies::clear() {
  open_.clear();
  groups_.clear();
}

}  // namespace emu
