// Runs warps to their barriers, blocks in the chosen order, and whole launches.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>

#include "machine.h"

namespace px {

Settings settings;
std::map<std::string, Program> programs;
std::vector<std::string> launched;
std::map<std::string, u64> fault_counts;
std::vector<std::string> fault_texts;

void fault(const char* kind, const Warp* w, const Instruction* in, int lane, u64 address) {
  if (fault_counts[kind]++ >= 3 || fault_texts.size() >= 60) return;
  char line[700];
  if (w != nullptr) {
    const Dim b = w->m->block_id;
    std::snprintf(line, sizeof line, "%s: %s block (%u,%u,%u) thread %d address 0x%llx: %s", kind,
                  w->m->p->name.c_str(), b.x, b.y, b.z, w->first + lane, (unsigned long long)address,
                  in ? in->text.c_str() : "");
  } else {
    std::snprintf(line, sizeof line, "%s", kind);
  }
  fault_texts.push_back(line);
}

namespace {

// Runs a warp to its next barrier or to its end.
void run_warp(Warp& w) {
  const std::vector<Instruction>& code = w.m->p->code;
  const s32 end = s32(code.size());
  u64 steps = 0;
  while (!w.stack.empty()) {
    Entry& e = w.stack.back();
    e.mask &= w.alive;
    if (e.mask == 0 || e.pc == e.rpc || e.pc >= end) {
      w.stack.pop_back();
      continue;
    }
    const Instruction& in = code[std::size_t(e.pc)];
    if (++steps > 400000000ull) {
      fault("endless loop", &w, &in, 0, 0);
      w.stack.clear();
      w.alive = 0;
      return;
    }
    u32 m = e.mask;
    if (in.guard >= 0) m &= in.guard & 1 ? ~predicate(w, in.guard >> 1) : predicate(w, in.guard >> 1);
    ++in.count;
    in.active += u64(__builtin_popcount(m));
    switch (in.kind) {
      case plain:
        if (m) in.fn(w, in, m);
        ++e.pc;
        break;
      case branch: {
        const u32 stay = e.mask & ~m;
        if (stay == 0)
          e.pc = in.target;
        else if (m == 0)
          ++e.pc;
        else {
          const Entry was = e;
          w.stack.pop_back();
          if (in.reconv != was.rpc) w.stack.push_back({in.reconv, was.rpc, was.mask});
          w.stack.push_back({was.pc + 1, in.reconv, stay});
          w.stack.push_back({in.target, in.reconv, m});
        }
        break;
      }
      case ret:
        w.alive &= ~m;
        ++e.pc;
        break;
      case barrier:
        if (m != w.alive) fault("divergent barrier", &w, &in, 0, m);
        ++e.pc;
        w.waiting = true;
        return;
    }
  }
}

void run_block(Machine& m, std::vector<Warp>& warps) {
  std::memset(m.memory.data(), 0xff, m.memory.size());
  std::fill(m.words.begin(), m.words.end(), Word{});
  m.epoch = 1;
  const int threads = int(m.block.x * m.block.y * m.block.z);
  for (std::size_t k = 0; k < warps.size(); ++k) {
    Warp& w = warps[k];
    w.first = int(k) * lanes;
    w.alive = threads - w.first >= lanes ? all : (1u << (threads - w.first)) - 1;
    w.stack.assign(1, {0, s32(m.p->code.size()), w.alive});
    w.waiting = false;
    w.async.assign(lanes, {});
    const u32 fixed[9] = {m.block.x,    m.block.y, m.block.z, m.block_id.x, m.block_id.y,
                          m.block_id.z, m.grid.x,  m.grid.y,  m.grid.z};
    for (int i = 0; i < lanes; ++i) {
      const unsigned t = unsigned(w.first + i);
      lanes_of<u32>(w, 0)[i] = t % m.block.x;
      lanes_of<u32>(w, 1)[i] = t / m.block.x % m.block.y;
      lanes_of<u32>(w, 2)[i] = t / m.block.x / m.block.y;
      for (int s = 0; s < 9; ++s) lanes_of<u32>(w, 3 + s)[i] = fixed[s];
      lanes_of<u32>(w, 12)[i] = u32(i);
      lanes_of<u32>(w, 13)[i] = u32(k);
    }
  }
  std::vector<std::size_t> order(warps.size());
  for (std::size_t k = 0; k < order.size(); ++k) order[k] = settings.order == 1 ? order.size() - 1 - k : k;
  static std::mt19937 random(7);
  while (true) {
    if (settings.order == 2) std::shuffle(order.begin(), order.end(), random);
    bool waiting = false, ended = false;
    for (const std::size_t k : order) {
      if (warps[k].alive != 0 && !warps[k].waiting) run_warp(warps[k]);
      (warps[k].waiting ? waiting : ended) = true;
    }
    if (!waiting) break;
    if (ended) fault("barrier that some threads never reach", &warps[0], nullptr, 0, 0);
    for (Warp& w : warps) w.waiting = false;
    ++m.epoch;
  }
  for (Warp& w : warps) {
    for (int i = 0; i < lanes; ++i) {
      bool left = !w.async[std::size_t(i)].open.empty();
      for (const auto& group : w.async[std::size_t(i)].groups) left |= !group.empty();
      if (left) fault("cp.async still in flight at the end", &w, nullptr, i, 0);
    }
  }
}

}  // namespace

int arch() { return settings.arch; }

const char* launch(const std::string& kernel, Dim grid, Dim block, std::size_t dynamic, bool more_shared,
                   void** arguments) {
  const auto found = programs.find(kernel);
  if (found == programs.end()) {
    fault(("kernel without PTX: " + kernel).c_str(), nullptr, nullptr, 0, 0);
    return "no such kernel";
  }
  Program& p = found->second;
  const u64 threads = u64(block.x) * block.y * block.z;
  if (threads == 0 || threads > 1024 || threads > u64(p.maxntid) || block.z > 64) return "invalid configuration: block";
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    return "invalid configuration: grid";
  }
  if (dynamic + u64(p.static_shared) > (more_shared ? 227u : 48u) * 1024) return "invalid configuration: shared memory";
  launched.push_back(kernel);
  ++p.launches;
  Machine m;
  m.p = &p;
  m.grid = grid;
  m.block = block;
  for (std::size_t i = 0; i < p.params.size(); ++i) {
    const auto [offset, size] = p.params[i];
    if (m.params.size() < std::size_t(offset + size)) m.params.resize(std::size_t(offset + size));
    std::memcpy(m.params.data() + offset, arguments[i], std::size_t(size));
  }
  u32 high = shared_base + u32(p.static_shared);
  high = (high + 127) / 128 * 128 + u32(dynamic);
  m.shared_high = high;
  m.memory.resize((high + 15) / 16 * 16);
  m.words.resize(m.memory.size() / 4);
  for (Buffer& b : buffers) {
    for (u8& s : b.state) s &= 1;
  }
  std::vector<Warp> warps((threads + lanes - 1) / lanes);
  std::vector<u64> registers(warps.size() * std::size_t(p.registers) * lanes,
                             u64(settings.poison) << 32 | settings.poison);
  for (std::size_t k = 0; k < warps.size(); ++k) {
    warps[k].m = &m;
    warps[k].regs = registers.data() + k * std::size_t(p.registers) * lanes;
    warps[k].consts = p.constants.data();
  }
  const u64 total = u64(grid.x) * grid.y * grid.z;
  for (u64 n = 0; n < total; ++n) {
    const u64 b = settings.order == 1 ? total - 1 - n : n;
    m.block_id = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y), unsigned(b / grid.x / grid.y)};
    run_block(m, warps);
  }
  return nullptr;
}

}  // namespace px
