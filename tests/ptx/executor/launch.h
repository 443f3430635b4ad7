// What the fake CUDA runtime asks of the machine.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace px {
struct Dim {
  unsigned x, y, z;
};
// nullptr, or why the launch is refused (what a driver would refuse).
const char* launch(const std::string& kernel, Dim grid, Dim block, std::size_t dynamic_shared, bool more_shared_allowed,
                   void** arguments);
int arch();
}  // namespace px
