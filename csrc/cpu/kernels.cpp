// The CPU kernels for one instruction set. The build compiles this file several times, each time with another EBP_ISA
// and the compiler options to go with it; dispatch.cpp picks. Nothing here may call an inline function of the standard
// library that is not forced inline: the linker could keep this copy for everybody.
#include "kernels.h"

#include "lrn.h"
#include "pointwise.h"
#include "pool.h"

namespace ebp {
namespace EBP_ISA {

template <class T>
constexpr CpuKernels<T> table{share<T>,      gate<T>,      max_winner<T>,    max_pool<T>,
                              window_sum<T>, max_route<T>, window_spread<T>, lrn<T>};

extern const CpuKernels<float> float_kernels = table<float>;
extern const CpuKernels<double> double_kernels = table<double>;

}  // namespace EBP_ISA
}  // namespace ebp
