// A function that can pause: the body of one CUDA thread. All fibers run on one OS thread.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstddef>

namespace emu {

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next resume() calls body(argument). What ran before must have returned or been abandoned.
  void start(void (*body)(void*), void* argument);
  // Runs until pause() or the end of the body.
  void resume();
  // From within: back to where resume() was called.
  void pause();
  bool ended() const { return ended_; }
  // Forgets a paused body. Destructors of what is on its stack do not run.
  void abandon();

 private:
  static void enter(unsigned high, unsigned low);
  void loop();

  void* stack_;
  ucontext_t first_;
  jmp_buf inside_, outside_;
  void (*body_)(void*) = nullptr;
  void* argument_ = nullptr;
  bool entered_ = false, ended_ = true;
};

}  // namespace emu
