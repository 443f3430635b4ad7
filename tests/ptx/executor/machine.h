// The warp machine: its state, and what its parts call of each other. 32 lanes run in step; lanes that part meet again
// at the immediate post-dominator.
//
// Everything here follows the text of the PTX ISA (9.0) and nothing of csrc/emu: lane layouts of ldmatrix and mma.sync,
// groups of cp.async, conversions. `m` is always the mask of the lanes that an instruction runs for.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "launch.h"

namespace px {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using s16 = std::int16_t;
using s32 = std::int32_t;
using s64 = std::int64_t;
using f32 = float;
using f64 = double;

constexpr int lanes = 32, columns = 32, none = -(1 << 30);
constexpr u32 all = 0xffffffffu;
constexpr u64 shared_window = 1ull << 60;
constexpr u32 shared_base = 1024;  // what the driver keeps for itself
enum Space { generic, global, shared_, param, local, constant };
enum Kind { plain, branch, ret, barrier };
struct Settings {
  u32 poison = 0xcdcdcdcdu;
  int order = 0;            // of the warps: forward, reversed, shuffled
  int mma_model = 0;        // 0: exact products, one rounding; 1: sums truncated, as measured on GPUs
  u32 tf32_junk = 0x0aaau;  // in the 13 bits that cvt.rna.tf32 leaves undefined
  int arch = 90;
};
extern Settings settings;

struct Machine;
struct Warp;
struct Instruction;
using Fn = void (*)(Warp&, const Instruction&, u32);

struct Instruction {
  Fn fn;
  s32 guard;         // the predicate's slot times two, plus one where it is negated; or -1
  s32 kind, target;  // a Kind; where a branch goes
  s32 reconv;        // where a branch's lanes meet again
  s64 number[2];     // immediate offsets
  s32 slot[18];      // registers; ~k is constant k
  s32 extra[8];      // sizes and modes, as ptx_program.py writes them
  std::string op, text;
  // Counted as it runs: executions and lanes that took part, requests of global memory and their sectors, wavefronts of
  // shared memory.
  mutable u64 count = 0, active = 0, requests = 0, sectors = 0, sectors_ideal = 0, waves = 0, waves_ideal = 0,
              shared_requests = 0;
};

struct Program {
  std::string name;
  std::vector<Instruction> code;
  int registers = 0;
  std::vector<u64> constants;  // 32 lanes each
  std::vector<std::pair<s64, s64>> params;
  s64 static_shared = 0, local_bytes = 0;
  int maxntid = 1024;
  u64 launches = 0;
};
extern std::map<std::string, Program> programs;  // by mangled name
extern std::vector<std::string> launched;        // since somebody asked

struct Buffer {
  u64 low, high;
  bool writable;
  std::string name;
  std::vector<u8> state;  // bit 0: has a value, bit 1: written by this launch
};
extern std::vector<Buffer> buffers;  // all of device memory

extern std::map<std::string, u64> fault_counts;  // by kind
extern std::vector<std::string> fault_texts;     // the first few of each

struct Entry {
  s32 pc, rpc;
  u32 mask;
};
struct Copy {
  u32 to;
  u32 size;
  u8 data[16];
};
struct Async {
  std::vector<std::vector<Copy>> groups;
  std::vector<Copy> open;
};
struct Warp {
  Machine* m;
  u64* regs;
  u64* consts;
  int first;
  u32 alive;
  std::vector<Entry> stack;
  bool waiting = false;
  std::vector<Async> async;
};
struct Word {
  u32 write_epoch = 0, write_thread = 0, read_epoch = 0, read_thread = 0;
  u8 pending = 0, valid = 0;
};
constexpr u32 many = 0xfffffffeu;

struct Machine {
  const Program* p;
  std::vector<u8> params;
  std::vector<u8> memory;  // shared
  std::vector<Word> words;
  u32 epoch = 1;
  u32 shared_low = shared_base, shared_high = shared_base;
  Dim block_id{}, grid{}, block{};
};

// Notes a fault; the first three of a kind in words. `w` may be null where no warp is at fault.
void fault(const char* kind, const Warp* w, const Instruction* in, int lane, u64 address);

// The 32 lanes of a register or constant.
template <class T>
inline T* lanes_of(Warp& w, s32 slot) {
  return reinterpret_cast<T*>(slot >= 0 ? w.regs + std::size_t(slot) * lanes : w.consts + std::size_t(~slot) * lanes);
}
// A predicate holds one bit per lane.
inline u32& predicate(Warp& w, s32 slot) { return *lanes_of<u32>(w, slot); }

enum Access { reading, writing, issuing, landing };

// Checks an access of shared memory and notes it for the race check. False where it lies outside.
bool shared_touch(Warp& w, const Instruction& in, int lane, u32 at, u32 size, Access how);
// Wavefronts of a shared request: 32 banks of 4 bytes; 8-byte accesses go by half warps, 16-byte ones by quarters.
void count_shared(const Instruction& in, const u32* address, u32 m, u32 size);
// What a register (or constant) of `width` bytes and an offset point to.
u64 address_of(Warp& w, s32 slot, s32 width, s64 offset, int lane);
// A warp instruction wants all its lanes.
void must_be_whole(Warp& w, const Instruction& in, u32 m);

// Instructions by name, from the files that implement them.
using Table = std::unordered_map<std::string, Fn>;
void add_memory(Table&);
void add_matrices(Table&);
void add_arithmetic(Table&);
void add_conversions(Table&);
void add_comparisons(Table&);
const Table& instructions();

}  // namespace px
