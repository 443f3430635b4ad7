// What the compiler's sanitizers call. Kernels are compiled with -fsanitize=thread,undefined and linked without the
// sanitizers' own libraries: the calls that the first inserts before every access of memory come to the emulator's
// checks, and the findings of the second become faults that name kernel and thread.
//
// The address sanitizer is not used besides: it excludes the thread sanitizer, and what it sees is seen here with the
// buffer's name (global and shared memory) or by the undefined-behavior sanitizer (local arrays, by their bounds).
#include <cstdint>
#include <cstring>

#include "memory.h"
#include "simt.h"

namespace {

// How every description of a finding begins.
struct Place {
  const char* file;
  std::uint32_t line, column;
};

void undefined(const Place* at, const char* what) {
  const char* name = std::strrchr(at->file, '/');
  const std::string text = std::string("has undefined behavior, ") + what + ", at " +
                           (name != nullptr ? name + 1 : at->file) + ":" + std::to_string(at->line);
  if (emu::now != nullptr) emu::fail(text);
  emu::note_host_fault("a launcher " + text);
}

}  // namespace

#define EMU_ACCESS(bytes)                                                                                     \
  extern "C" void __tsan_read##bytes(void* at) { emu::check_access(at, bytes, emu::Access::read); }           \
  extern "C" void __tsan_write##bytes(void* at) { emu::check_access(at, bytes, emu::Access::write); }         \
  extern "C" void __tsan_unaligned_read##bytes(void* at) { emu::check_access(at, bytes, emu::Access::read); } \
  extern "C" void __tsan_unaligned_write##bytes(void* at) { emu::check_access(at, bytes, emu::Access::write); }
EMU_ACCESS(1)
EMU_ACCESS(2)
EMU_ACCESS(4)
EMU_ACCESS(8)
EMU_ACCESS(16)

extern "C" void __tsan_read_range(void* at, std::size_t bytes) { emu::check_access(at, bytes, emu::Access::read); }
extern "C" void __tsan_write_range(void* at, std::size_t bytes) { emu::check_access(at, bytes, emu::Access::write); }
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit(void*) {}

#define EMU_UNDEFINED(name, what) \
  extern "C" void __ubsan_handle_##name(Place* at) { undefined(at, what); }
EMU_UNDEFINED(add_overflow, "an addition that overflows")
EMU_UNDEFINED(sub_overflow, "a subtraction that overflows")
EMU_UNDEFINED(mul_overflow, "a multiplication that overflows")
EMU_UNDEFINED(negate_overflow, "a negation that overflows")
EMU_UNDEFINED(divrem_overflow, "a division by zero or that overflows")
EMU_UNDEFINED(shift_out_of_bounds, "a shift by too much")
EMU_UNDEFINED(out_of_bounds, "an index out of its array's bounds")
EMU_UNDEFINED(type_mismatch_v1, "a pointer that is null or misaligned for its type")
EMU_UNDEFINED(pointer_overflow, "a pointer that wraps around")
EMU_UNDEFINED(load_invalid_value, "a bool or enum of no valid value")
EMU_UNDEFINED(builtin_unreachable, "an unreachable place that was reached")
EMU_UNDEFINED(missing_return, "a function that ends without its value")
EMU_UNDEFINED(vla_bound_not_positive, "an array of no positive length")
EMU_UNDEFINED(nonnull_arg, "a null where none may be")
EMU_UNDEFINED(nonnull_return_v1, "a null where none may be")
EMU_UNDEFINED(invalid_builtin, "a builtin called with zero")
EMU_UNDEFINED(float_cast_overflow, "a number too large for its integer type")
