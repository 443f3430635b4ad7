// From a launcher to a Python function: numpy arrays stand for device memory, the stream is left out.
//
// const T* takes an array to read (None for null). T* takes an array whose content is overwritten: the kernel sees it
// poisoned, as memory fresh from an allocator. void pointers take arrays of any dtype. Structs and numbers are
// themselves.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "memory.h"
#include "simt.h"

namespace emu {

namespace py = pybind11;

// The device memory of one call.
class CallMemory {
 public:
  const void* input(const py::handle& array) { return add(array, false); }
  void* output(const py::handle& array) { return add(array, true); }

  // Copies what kernels wrote into the arrays.
  void finish() {
    for (Copied& c : copied_) {
      if (c.buffer->writable()) std::memcpy(c.array.mutable_data(), c.buffer->data(), c.buffer->size());
    }
  }

 private:
  struct Copied {
    py::array array;
    std::unique_ptr<Buffer> buffer;
  };

  void* add(const py::handle& object, bool writable) {
    const std::string name = "array " + std::to_string(copied_.size());
    if (!py::isinstance<py::array>(object)) throw py::type_error(name + " is no numpy array");
    auto array = py::reinterpret_borrow<py::array>(object);
    if (!(array.flags() & py::array::c_style)) throw py::type_error(name + " is not C-contiguous");
    const void* content = writable ? nullptr : array.data();
    copied_.push_back({array, std::make_unique<Buffer>(name, std::size_t(array.nbytes()), content, writable)});
    return copied_.back().buffer->data();
  }

  std::deque<Copied> copied_;
};

// How a parameter of type P is made of a Python object. Specialize it for structs that hold pointers.
template <class P>
struct FromPython {
  static P convert(CallMemory& memory, const py::handle& value) {
    if constexpr (!std::is_pointer_v<P>) {
      return value.cast<P>();
    } else {
      using Element = std::remove_pointer_t<P>;
      if (value.is_none()) return nullptr;
      check_dtype<std::remove_const_t<Element>>(value);
      if constexpr (std::is_const_v<Element>)
        return static_cast<P>(memory.input(value));
      else
        return static_cast<P>(memory.output(value));
    }
  }

 private:
  template <class T>
  static void check_dtype(const py::handle& value) {
    if constexpr (!std::is_void_v<T>) {
      if (py::isinstance<py::array>(value) && !py::isinstance<py::array_t<T>>(value)) {
        throw py::type_error("an array of dtype " + std::string(py::str(value.attr("dtype"))) + ", wanted " +
                             std::string(py::str(py::dtype::of<T>())));
      }
    }
  }
};

// Arguments but the last parameter, the stream.
template <class... P, std::size_t... I>
void call_launcher(const char* (*launcher)(P...), const py::args& args, std::index_sequence<I...>) {
  using Parameters = std::tuple<std::decay_t<P>...>;
  CallMemory memory;
  std::tuple<std::tuple_element_t<I, Parameters>...> values{
      FromPython<std::tuple_element_t<I, Parameters>>::convert(memory, args[I])...};
  const char* error = launcher(std::get<I>(values)..., nullptr);
  if (error != nullptr) throw Fault(error);
  if (const std::string fault = take_host_fault(); !fault.empty()) throw Fault(fault);
  memory.finish();
}

template <class... P>
void bind(py::module_& m, const char* name, const char* (*launcher)(P...)) {
  constexpr std::size_t count = sizeof...(P) - 1;
  const std::string full = name;
  m.def(name, [launcher, full](const py::args& args) {
    if (args.size() != count) {
      throw py::type_error(full + " takes " + std::to_string(count) + " arguments, got " + std::to_string(args.size()));
    }
    call_launcher(launcher, args, std::make_index_sequence<count>{});
  });
}

}  // namespace emu
