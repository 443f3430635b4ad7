// Warp shuffles and votes.
#pragma once

#include "simt.h"

namespace emu {

template <class T>
struct Shuffled {
  T value;
  int from;  // the lane whose value is wanted
  T result;
};

template <class T>
T shuffle(unsigned mask, T value, int from, const Site& site) {
  Shuffled<T> mine{value, from, value};
  warp_meeting(mask, site, &mine, [](void* const* lanes) {
    for (int i = 0; i < warp_lanes; ++i) {
      if (lanes[i] == nullptr) continue;
      auto* to = static_cast<Shuffled<T>*>(lanes[i]);
      const auto* source = static_cast<const Shuffled<T>*>(lanes[to->from]);
      if (source == nullptr) {
        fail("lane " + std::to_string(i) + " shuffles from lane " + std::to_string(to->from) + ", which takes no part");
      }
      to->result = source->value;
    }
  });
  return mine.result;
}

// Lane `from` where it lies in this lane's segment of `width` lanes, else this lane.
inline int in_segment(int from, int width) { return from / width == lane() / width && from >= 0 ? from : lane(); }

struct Vote {
  bool holds;
  unsigned ballot;
};

inline unsigned vote(unsigned mask, bool holds, const Site& site) {
  Vote mine{holds, 0};
  warp_meeting(mask, site, &mine, [](void* const* lanes) {
    unsigned ballot = 0;
    for (int i = 0; i < warp_lanes; ++i) {
      if (lanes[i] != nullptr && static_cast<Vote*>(lanes[i])->holds) ballot |= 1u << i;
    }
    for (int i = 0; i < warp_lanes; ++i) {
      if (lanes[i] != nullptr) static_cast<Vote*>(lanes[i])->ballot = ballot;
    }
  });
  return mine.ballot;
}

}  // namespace emu

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMU_SITE()) {
  const int from = emu::lane() / width * width + (source & (width - 1));
  return emu::shuffle(mask, value, from, {"__shfl_sync", file, line});
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, EMU_SITE()) {
  const int from = emu::lane() ^ bits;
  return emu::shuffle(mask, value, from / width > emu::lane() / width ? emu::lane() : from,
                      {"__shfl_xor_sync", file, line});
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMU_SITE()) {
  const int from = emu::in_segment(emu::lane() - int(delta), width);
  return emu::shuffle(mask, value, from, {"__shfl_up_sync", file, line});
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMU_SITE()) {
  const int from = emu::in_segment(emu::lane() + int(delta), width);
  return emu::shuffle(mask, value, from, {"__shfl_down_sync", file, line});
}

inline unsigned __ballot_sync(unsigned mask, bool holds, EMU_SITE()) {
  return emu::vote(mask, holds, {"__ballot_sync", file, line});
}
inline int __any_sync(unsigned mask, bool holds, EMU_SITE()) {
  return emu::vote(mask, holds, {"__any_sync", file, line}) != 0;
}
inline int __all_sync(unsigned mask, bool holds, EMU_SITE()) {
  return emu::vote(mask, !holds, {"__all_sync", file, line}) == 0;
}
