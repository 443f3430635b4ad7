// The fake driver: the version that it says it runs, from EBP_FAKE_DRIVER (12040 for CUDA 12.4), and no device.
#include <cstdlib>

extern "C" int cuDriverGetVersion(int* version) {
  const char* said = std::getenv("EBP_FAKE_DRIVER");
  if (said == nullptr) return 3;  // not initialized
  *version = std::atoi(said);
  return 0;
}
