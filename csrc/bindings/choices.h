// The table of choices that the convolutions on CUDA follow: the project's, or one that a measurement tries.
#pragma once

#include "../cuda/choices.h"

namespace ebp {

const Choices& choices_in_force();

}  // namespace ebp
