// The Python module of the emulator: every launcher of csrc/cuda, once per dtype, and the emulator's own settings.
#include <pybind11/stl.h>

#include "../core/division.h"
#include "../cuda/launchers.h"
#include "../cuda/schedule.h"
#include "binding.h"
#include "rounding.h"
#include "specimens.h"

namespace emu {

template <class T>
struct FromPython<ebp::Pointers<T>> {
  static ebp::Pointers<T> convert(CallMemory& memory, const py::handle& arrays) {
    ebp::Pointers<T> all{};
    for (const py::handle array : arrays) all.at[all.count++] = FromPython<const T*>::convert(memory, array);
    return all;
  }
};

// From a dict of the fields that are not their defaults, by their names in launchers.h.
template <>
struct FromPython<ebp::LaunchArgs> {
  static ebp::LaunchArgs convert(CallMemory& memory, const py::handle& fields) {
    ebp::LaunchArgs args;
    for (const auto& [key, value] : py::cast<py::dict>(fields)) {
      if (!set(memory, args, key.cast<std::string>(), value)) {
        throw py::type_error("LaunchArgs has no field " + key.cast<std::string>());
      }
    }
    return args;
  }

 private:
  static bool set(CallMemory& memory, ebp::LaunchArgs& args, const std::string& name, const py::handle& value) {
    ebp::Epilogue& e = args.epilogue;
    const std::pair<const char*, const float**> inputs[] = {{"source", &args.from.source},
                                                            {"weight", &args.from.weight[0]},
                                                            {"weight_plus", &args.from.weight[1]},
                                                            {"addend", &e.addend},
                                                            {"gate", &e.gate},
                                                            {"bias", &e.bias}};
    for (const auto& [input, to] : inputs) {
      if (name == input) return *to = FromPython<const float*>::convert(memory, value), true;
    }
    const std::pair<const char*, float**> outputs[] = {{"to", &e.to}, {"side", &e.side}, {"partial", &args.partial}};
    for (const auto& [output, to] : outputs) {
      if (name == output) return *to = FromPython<float*>::convert(memory, value), true;
    }
    if (name == "gate_at") return e.gate_at = value.cast<ebp::Strides>(), true;
    if (name == "columns") return e.columns = value.cast<int>(), true;
    if (name == "relu") return e.relu = value.cast<bool>(), true;
    if (name == "side_is_gate") return e.side_is_gate = value.cast<bool>(), true;
    return false;
  }
};

// Stands for a field of any type.
struct AnyField {
  template <class T>
  operator T() const;
};

template <class Struct, class... Fields>
auto takes(int) -> decltype(Struct{std::declval<Fields>()...}, std::true_type{});
template <class Struct, class... Fields>
std::false_type takes(long);

// A struct made of all its fields, in their order.
template <class Struct, class... Fields>
void bind_struct(py::module_& m, const char* name) {
  static_assert(decltype(takes<Struct, Fields...>(0))::value, "these are not the types of the fields");
  static_assert(!decltype(takes<Struct, Fields..., AnyField>(0))::value, "the struct has more fields");
  py::class_<Struct>(m, name).def(py::init([](Fields... fields) { return Struct{fields...}; }));
}

void bind_params(py::module_& m) {
  using namespace ebp;
  bind_struct<Axis, int, int, int, int, int, int>(m, "Axis");
  bind_struct<Distances, int64_t, int64_t>(m, "Distances");
  bind_struct<Rows, int64_t, int64_t, int64_t, int64_t, Distances, Distances>(m, "Rows");
  bind_struct<Strides, int64_t, int64_t, int64_t, int64_t>(m, "Strides");
  bind_struct<Pool2d, int64_t, int64_t, int64_t, Axis, Axis, int64_t>(m, "Pool2d");
  bind_struct<Lrn, int64_t, int64_t, int64_t, int, double, double, double>(m, "Lrn");
  bind_struct<Conv2d, int, int, int, int, Axis, Axis, Strides, Strides>(m, "Conv2d");
  py::enum_<Method>(m, "Method")
      .value("naive", Method::naive)
      .value("depthwise", Method::depthwise)
      .value("simt", Method::simt)
      .value("mma", Method::mma);
  py::enum_<Precision>(m, "Precision")
      .value("fp32", Precision::fp32)
      .value("tf32", Precision::tf32)
      .value("bf16", Precision::bf16)
      .value("tf32x3", Precision::tf32x3);
  py::enum_<Loads>(m, "Loads")
      .value("single", Loads::single)
      .value("along_terms", Loads::along_terms)
      .value("along_columns", Loads::along_columns);
  py::class_<Schedule>(m, "Schedule")
      .def(py::init([](Method method, Loads loads, bool large, int splits, Precision precision, bool split_source) {
             return Schedule{method, loads, large, splits, precision, split_source};
           }),
           py::arg("method"), py::arg("loads"), py::arg("large"), py::arg("splits"),
           py::arg("precision") = Precision::fp32, py::arg("split_source") = false)
      .def_readonly("method", &Schedule::method)
      .def_readonly("loads", &Schedule::loads)
      .def_readonly("large", &Schedule::large)
      .def_readonly("splits", &Schedule::splits);
  py::enum_<Divisor>(m, "Divisor")
      .value("none", Divisor::none)
      .value("inside", Divisor::inside)
      .value("padded", Divisor::padded);
}

// Not by dtype.
void bind_round(py::module_& m) { bind(m, "round", ebp::launch_round); }

template <class T>
void bind_launchers(py::module_ m) {
  using namespace ebp;
  bind(m, "share", launch_share<T>);
  bind(m, "gate", launch_gate<T>);
  bind(m, "add", launch_add<T>);
  bind(m, "max_winner", launch_max_winner<T>);
  bind(m, "max_pool", launch_max_pool<T>);
  bind(m, "max_route", launch_max_route<T>);
  bind(m, "window_sum", launch_window_sum<T>);
  bind(m, "window_spread", launch_window_spread<T>);
  bind(m, "lrn", launch_lrn<T>);
  bind(m, "conv_normalizer", launch_conv_normalizer<T>);
  bind(m, "conv_sweep", launch_conv_sweep<T>);
}

void bind_contraction(py::module_& m) {
  using namespace ebp;
  py::class_<Contraction>(m, "Contraction");
  m.def("contraction_up", &contraction_up);
  m.def("contraction_down", &contraction_down);
  m.def("partial_total", &partial_total);
  m.def("schedule_of", [](const Contraction& d, int sums, Precision precision, bool going_down, int arch) {
    alignas(16) static const float aligned[4] = {};
    return schedule_of(d, precision, going_down, arch, aligned, aligned, sums == 2 ? aligned : nullptr);
  });
  bind(m, "contraction", launch_contraction);
  bind(m, "excitation", launch_excitation);
}

template <class Function>
auto on_bits(Function function) {
  return py::vectorize([function](std::uint32_t bits) { return std::uint32_t(function(float_of(bits))); });
}

void bind_emulator(py::module_& m) {
  py::register_exception<Fault>(m, "Fault");
  py::enum_<Order>(m, "Order")
      .value("forward", Order::forward)
      .value("reversed", Order::reversed)
      .value("shuffled", Order::shuffled);
  m.def("set_order", &set_order, py::arg("order"), py::arg("seed") = 0);
  m.def("set_misalignment", &set_misalignment, py::arg("bytes"));
  m.def("launched", &launched, "Names of the kernels launched so far.");
  m.def("tf32_nearest", on_bits(&tf32_nearest));
  m.def("tf32_truncated", on_bits(&tf32_truncated));
  m.def("bf16_nearest", on_bits(&bf16_nearest));
  m.def("quotient", [](int n, int divisor) { return n / ebp::divider_of(divisor); });
}

void bind_specimens(py::module_ m) {
  bind(m, "mistake", launch_mistake);
  bind(m, "reverse", launch_reverse);
  bind(m, "warp_sums", launch_warp_sums);
  bind(m, "votes", launch_votes);
  bind(m, "matmul", launch_matmul);
  bind(m, "mma_tf32", launch_mma_tf32);
  bind(m, "mma_bf16", launch_mma_bf16);
  bind(m, "ldmatrix", launch_ldmatrix);
  bind(m, "async_copy", launch_async_copy);
}

PYBIND11_MODULE(EMU_MODULE, m) {
  bind_emulator(m);
  bind_params(m);
  bind_contraction(m);
  bind_round(m);
  bind_launchers<float>(m.def_submodule("f32"));
  bind_launchers<double>(m.def_submodule("f64"));
  bind_specimens(m.def_submodule("specimens"));
}

}  // namespace emu
