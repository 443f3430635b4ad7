// What Python calls, by ctypes (machine.py).
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "machine.h"

namespace px {

const Table& instructions() {
  static const Table table = [] {
    Table t;
    add_memory(t);
    add_matrices(t);
    add_arithmetic(t);
    add_comparisons(t);
    add_conversions(t);
    t["trap"] = [](Warp& w, const Instruction& in, u32 m) {
      if (m) fault("trap", &w, &in, 0, m);
    };
    t["unsupported"] = [](Warp& w, const Instruction& in, u32 m) {
      if (m) fault("unsupported instruction", &w, &in, 0, m);
    };
    t["bra"] = t["ret"] = t["bar"] = [](Warp&, const Instruction&, u32) {};
    return t;
  }();
  return table;
}

}  // namespace px

using namespace px;

extern "C" {
void px_set(unsigned poison, int order, int mma_model, unsigned junk, int arch) {
  settings = {poison, order, mma_model, junk, arch};
}

// Returns how many of the instructions are not known; they become faults where they run.
int px_load(const char* name, const char* ops, const char* texts, const std::int64_t* table, int count, int registers,
            const std::int64_t* widths, const std::uint64_t* bits, int constants, const std::int64_t* params,
            int param_count, std::int64_t static_shared, std::int64_t local_bytes, int maxntid, char* missing,
            int missing_size) {
  const Table& known = instructions();
  Program p;
  p.name = name;
  p.registers = registers;
  p.static_shared = static_shared;
  p.local_bytes = local_bytes;
  p.maxntid = maxntid;
  p.constants.resize(std::size_t(constants) * lanes);
  for (int k = 0; k < constants; ++k) {
    u64* slot = p.constants.data() + std::size_t(k) * lanes;
    for (int i = 0; i < lanes; ++i) {
      if (widths[k] == 8)
        slot[i] = bits[k];
      else
        reinterpret_cast<u32*>(slot)[i] = u32(bits[k]);
    }
  }
  for (int k = 0; k < param_count; ++k) p.params.push_back({params[2 * k], params[2 * k + 1]});
  int unknown = 0;
  std::string list;
  for (int k = 0; k < count; ++k) {
    const std::int64_t* row = table + std::size_t(k) * columns;
    Instruction in{};
    const char* op_end = std::strchr(ops, '\n');
    const char* text_end = std::strchr(texts, '\n');
    in.op.assign(ops, op_end);
    in.text.assign(texts, text_end);
    ops = op_end + 1;
    texts = text_end + 1;
    in.guard = s32(row[0]);
    in.kind = s32(row[1]);
    in.target = s32(row[2]);
    in.reconv = s32(row[3]);
    in.number[0] = row[4];
    in.number[1] = row[5];
    for (int i = 0; i < 18; ++i) in.slot[i] = s32(row[6 + i]);
    for (int i = 0; i < 8; ++i) in.extra[i] = s32(row[24 + i]);
    const auto fn = known.find(in.op);
    if (fn == known.end()) {
      ++unknown;
      if (list.find(in.op) == std::string::npos) list += in.op + " ";
      in.fn = known.at("unsupported");
    } else {
      in.fn = fn->second;
    }
    p.code.push_back(std::move(in));
  }
  std::snprintf(missing, std::size_t(missing_size), "%s", list.c_str());
  programs[name] = std::move(p);
  return unknown;
}
void px_unload() { programs.clear(); }

void px_buffers_clear() { buffers.clear(); }
void px_buffer(const void* data, std::uint64_t size, int writable, const char* name) {
  const u64 low = reinterpret_cast<u64>(data);
  buffers.push_back({low, low + size, writable != 0, name, std::vector<u8>(writable ? size : 0, 0)});
}
// Bytes of a writable buffer that no launch has written.
std::uint64_t px_unwritten(const void* data) {
  for (const Buffer& b : buffers) {
    if (b.low == reinterpret_cast<u64>(data))
      return u64(std::count_if(b.state.begin(), b.state.end(), [](u8 s) { return !(s & 1); }));
  }
  return 0;
}
int px_faults(char* out, int size) {
  std::string all_text;
  u64 total = 0;
  for (const auto& [kind, n] : fault_counts) {
    total += n;
    all_text += kind + "\t" + std::to_string(n) + "\n";
  }
  all_text += "--\n";
  for (const std::string& s : fault_texts) all_text += s + "\n";
  std::snprintf(out, std::size_t(size), "%s", all_text.c_str());
  return int(std::min<u64>(total, 1u << 30));
}
void px_faults_clear() {
  fault_counts.clear();
  fault_texts.clear();
}
int px_launched(char* out, int size) {
  std::string text;
  for (const std::string& s : launched) text += s + "\n";
  std::snprintf(out, std::size_t(size), "%s", text.c_str());
  const int n = int(launched.size());
  launched.clear();
  return n;
}
// Rows of 8: executions, global requests, sectors, ideal, shared requests, wavefronts, ideal, active lanes.
int px_stats(const char* name, std::uint64_t* out, int rows, int clear) {
  Program& p = programs.at(name);
  const int n = std::min(rows, int(p.code.size()));
  for (int k = 0; k < n; ++k) {
    const Instruction& in = p.code[std::size_t(k)];
    const u64 v[8] = {in.count,           in.requests, in.sectors,     in.sectors_ideal,
                      in.shared_requests, in.waves,    in.waves_ideal, in.active};
    if (out) std::memcpy(out + 8 * k, v, sizeof v);
    if (clear)
      in.count = in.active = in.requests = in.sectors = in.sectors_ideal = in.shared_requests = in.waves =
          in.waves_ideal = 0;
  }
  return n;
}
}
