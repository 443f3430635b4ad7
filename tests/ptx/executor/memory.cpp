// Memory: buffers of the device, shared memory with its race check, loads, stores and asynchronous copies.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "machine.h"

namespace px {

std::vector<Buffer> buffers;

namespace {

// The buffer that holds [address, address + size), or null.
Buffer* buffer_at(u64 address, u64 size) {
  static std::size_t last = 0;
  if (last < buffers.size() && address >= buffers[last].low && address + size <= buffers[last].high)
    return &buffers[last];
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    if (address >= buffers[i].low && address + size <= buffers[i].high) {
      last = i;
      return &buffers[i];
    }
  }
  return nullptr;
}

void* global_at(Warp& w, const Instruction& in, int lane, u64 address, u32 size, bool write) {
  Buffer* b = buffer_at(address, size);
  if (b == nullptr) {
    fault(write ? "out-of-bounds write" : "out-of-bounds read", &w, &in, lane, address);
    return nullptr;
  }
  if (write && !b->writable) {
    fault("write to an input", &w, &in, lane, address);
    return nullptr;
  }
  if (b->writable) {
    u8* s = b->state.data() + (address - b->low);
    for (u32 i = 0; i < size; ++i) {
      if (write) {
        if (s[i] & 2) {
          fault("written twice by a launch", &w, &in, lane, address);
          break;
        }
        s[i] = 3;
      } else if (!(s[i] & 1)) {
        fault("uninitialized global read", &w, &in, lane, address);
        break;
      } else if (s[i] & 2) {
        fault("read of what the launch writes", &w, &in, lane, address);
        break;
      }
    }
  }
  return reinterpret_cast<void*>(address);
}

}  // namespace

bool shared_touch(Warp& w, const Instruction& in, int lane, u32 at, u32 size, Access how) {
  Machine& m = *w.m;
  if (at < m.shared_low || u64(at) + size > m.shared_high) {
    fault("shared out of bounds", &w, &in, lane, at);
    return false;
  }
  const u32 t = u32(w.first + lane) + 1;
  for (u32 word = at / 4; word <= (at + size - 1) / 4; ++word) {
    Word& s = m.words[word];
    u8 bytes = 0;
    for (u32 b = 0; b < 4; ++b) bytes |= u8((word * 4 + b >= at && word * 4 + b < at + size) << b);
    if (how == landing) {
      --s.pending;
    } else if (s.pending) {
      fault("touched before cp.async landed", &w, &in, lane, at);
    }
    if (how == reading) {
      if ((s.valid & bytes) != bytes) fault("uninitialized shared read", &w, &in, lane, at);
      if (s.write_epoch == m.epoch && s.write_thread != t) fault("shared race", &w, &in, lane, at);
      if (s.read_epoch == m.epoch && s.read_thread != t)
        s.read_thread = many;
      else
        s.read_epoch = m.epoch, s.read_thread = t;
      continue;
    }
    if (s.write_epoch == m.epoch && s.write_thread != t) fault("shared race", &w, &in, lane, at);
    if (s.read_epoch == m.epoch && s.read_thread != t) fault("shared race", &w, &in, lane, at);
    s.write_epoch = m.epoch;
    s.write_thread = t;
    if (how == issuing)
      ++s.pending;
    else
      s.valid |= bytes;
  }
  return true;
}

namespace {

// Sectors of 32 bytes that a request touches, against the fewest that hold the bytes asked for.
void count_global(const Instruction& in, const u64* address, u32 m, u32 size) {
  u64 sector[lanes * 2], start[lanes];
  int n = 0, k = 0;
  for (int i = 0; i < lanes; ++i) {
    if (!(m >> i & 1)) continue;
    start[k++] = address[i];
    for (u64 s = address[i] / 32; s <= (address[i] + size - 1) / 32; ++s) sector[n++] = s;
  }
  if (k == 0) return;
  std::sort(sector, sector + n);
  std::sort(start, start + k);
  const u64 touched = std::unique(sector, sector + n) - sector, distinct = std::unique(start, start + k) - start;
  ++in.requests;
  in.sectors += touched;
  in.sectors_ideal += (distinct * size + 31) / 32;
}

}  // namespace

void count_shared(const Instruction& in, const u32* address, u32 m, u32 size) {
  const int group = size <= 4 ? 32 : size == 8 ? 16 : 8;
  bool any = false;
  for (int first = 0; first < lanes; first += group) {
    u32 words[lanes * 4];
    int n = 0;
    for (int i = first; i < first + group; ++i) {
      if (!(m >> i & 1)) continue;
      for (u32 b = 0; b < std::max(size, 4u); b += 4) words[n++] = (address[i] + b) / 4;
    }
    if (n == 0) continue;
    any = true;
    std::sort(words, words + n);
    n = int(std::unique(words, words + n) - words);
    int bank[32] = {}, most = 0;
    for (int i = 0; i < n; ++i) most = std::max(most, ++bank[words[i] % 32]);
    in.waves += u64(most);
    ++in.waves_ideal;
  }
  in.shared_requests += any;
}

u64 address_of(Warp& w, s32 slot, s32 width, s64 offset, int lane) {
  return width == 8 ? lanes_of<u64>(w, slot)[lane] + u64(offset) : u64(u32(lanes_of<u32>(w, slot)[lane] + u32(offset)));
}

namespace {

// x: element size, elements, signed, bytes of a lane's register, space, width of the address, width of the register
template <bool store>
void access(Warp& w, const Instruction& in, u32 m) {
  const u32 size = u32(in.extra[0]), vector = u32(in.extra[1]), total = size * vector;
  u64 global_address[lanes];
  u32 shared_address[lanes], in_global = 0, in_shared = 0;
  for (int i = 0; i < lanes; ++i) {
    if (!(m >> i & 1)) continue;
    u64 a = address_of(w, in.slot[4], in.extra[5], in.number[0], i);
    int space = in.extra[4];
    if (space == generic) {
      space = global;
      if (a >= shared_window && a < shared_window + (1u << 24)) space = shared_, a -= shared_window;
    }
    if (a % total != 0) {
      fault(space == shared_  ? "misaligned shared"
            : space == global ? "misaligned global"
                              : "misaligned",
            &w, &in, i, a);
      continue;
    }
    u8* memory = nullptr;
    if (space == global) {
      global_address[i] = a;
      in_global |= 1u << i;
      memory = static_cast<u8*>(global_at(w, in, i, a, total, store));
    } else if (space == shared_) {
      shared_address[i] = u32(a);
      in_shared |= 1u << i;
      if (shared_touch(w, in, i, u32(a), total, store ? writing : reading)) memory = w.m->memory.data() + a;
    } else if (space == param && !store) {
      if (a + total <= w.m->params.size())
        memory = w.m->params.data() + a;
      else
        fault("param out of bounds", &w, &in, i, a);
    } else {
      fault("unsupported space", &w, &in, i, a);
    }
    for (u32 e = 0; e < vector; ++e) {
      u64 v = 0;
      const bool wide = in.extra[3] == 8;
      if constexpr (store) {
        v = wide ? lanes_of<u64>(w, in.slot[e])[i] : lanes_of<u32>(w, in.slot[e])[i];
        if (memory != nullptr) std::memcpy(memory + e * size, &v, size);
      } else {
        if (memory != nullptr)
          std::memcpy(&v, memory + e * size, size);
        else
          v = 0x7fc0dead7fc0deadull;
        if (in.extra[2] && size < 8) v = u64(s64(v << (64 - 8 * size)) >> (64 - 8 * size));
        if (wide)
          lanes_of<u64>(w, in.slot[e])[i] = v;
        else
          lanes_of<u32>(w, in.slot[e])[i] = in.extra[6] == 2 ? u32(v) & 0xffffu : u32(v);
      }
    }
  }
  if (in_global) count_global(in, global_address, in_global, total);
  if (in_shared) count_shared(in, shared_address, in_shared, total);
}

void cp_async(Warp& w, const Instruction& in, u32 m) {
  const u32 size = u32(in.extra[0]);
  u64 from[lanes];
  u32 to[lanes], read = 0, wrote = 0;
  for (int i = 0; i < lanes; ++i) {
    if (!(m >> i & 1)) continue;
    u64 place = address_of(w, in.slot[0], in.extra[1], in.number[0], i);
    const u64 source = address_of(w, in.slot[1], in.extra[2], in.number[1], i);
    const u32 bytes = lanes_of<u32>(w, in.slot[2])[i];
    if (place % size != 0) {
      fault("misaligned cp.async to shared", &w, &in, i, place);
      continue;
    }
    if (source % size != 0) {
      fault("misaligned cp.async from global", &w, &in, i, source);
      continue;
    }
    if (bytes > size) {
      fault("cp.async source size", &w, &in, i, bytes);
      continue;
    }
    Copy copy{u32(place), size, {}};
    if (bytes > 0) {
      const void* memory = global_at(w, in, i, source, bytes, false);
      if (memory != nullptr) std::memcpy(copy.data, memory, bytes);
      from[i] = source;
      read |= 1u << i;
    }
    if (!shared_touch(w, in, i, copy.to, size, issuing)) continue;
    to[i] = copy.to;
    wrote |= 1u << i;
    w.async[std::size_t(i)].open.push_back(copy);
  }
  if (read) count_global(in, from, read, size);
  if (wrote) count_shared(in, to, wrote, size);
}
void cp_commit(Warp& w, const Instruction&, u32 m) {
  for (int i = 0; i < lanes; ++i) {
    if (!(m >> i & 1)) continue;
    Async& a = w.async[std::size_t(i)];
    a.groups.push_back(std::move(a.open));
    a.open.clear();
  }
}
void land(Warp& w, const Instruction& in, int lane, const std::vector<Copy>& group) {
  for (const Copy& c : group) {
    if (shared_touch(w, in, lane, c.to, c.size, landing)) std::memcpy(w.m->memory.data() + c.to, c.data, c.size);
  }
}
void cp_wait(Warp& w, const Instruction& in, u32 m) {
  for (int i = 0; i < lanes; ++i) {
    if (!(m >> i & 1)) continue;
    Async& a = w.async[std::size_t(i)];
    while (s64(a.groups.size()) > in.number[0]) {
      land(w, in, i, a.groups.front());
      a.groups.erase(a.groups.begin());
    }
  }
}
void cp_wait_all(Warp& w, const Instruction& in, u32 m) {
  cp_commit(w, in, m);
  Instruction zero = in;
  zero.number[0] = 0;
  cp_wait(w, zero, m);
}

}  // namespace

void must_be_whole(Warp& w, const Instruction& in, u32 m) {
  if (m != all) fault("warp instruction with missing lanes", &w, &in, 0, m);
}

void add_memory(Table& t) {
  t["ld"] = access<false>;
  t["st"] = access<true>;
  t["cp.async"] = cp_async;
  t["cp.async.commit_group"] = cp_commit;
  t["cp.async.wait_group"] = cp_wait;
  t["cp.async.wait_all"] = cp_wait_all;
}

}  // namespace px
