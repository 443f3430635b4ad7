#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

namespace emu {

namespace {

constexpr std::size_t stack_bytes = 256 * 1024;

std::size_t page_bytes() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

}  // namespace

// The page below the stack stays inaccessible, so that an overflow crashes and overwrites nothing.
Fiber::Fiber() {
  stack_ = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stack_ == MAP_FAILED) throw std::bad_alloc();
  mprotect(stack_, page_bytes(), PROT_NONE);
}

Fiber::~Fiber() { munmap(stack_, stack_bytes); }

void Fiber::start(void (*body)(void*), void* argument) {
  body_ = body;
  argument_ = argument;
  ended_ = false;
}

// A context is entered once in a fiber's life, since that costs system calls (it saves the signal mask); from then on
// jumps do, and the fiber waits in loop() for its next body.
void Fiber::resume() {
  if (_setjmp(outside_) != 0) return;
  if (entered_) _longjmp(inside_, 1);
  entered_ = true;
  getcontext(&first_);
  first_.uc_stack.ss_sp = stack_;
  first_.uc_stack.ss_size = stack_bytes;
  first_.uc_link = nullptr;
  const auto self = reinterpret_cast<std::uintptr_t>(this);
  const auto enter_with_words = reinterpret_cast<void (*)()>(&Fiber::enter);
  makecontext(&first_, enter_with_words, 2, static_cast<unsigned>(self >> 32), static_cast<unsigned>(self));
  setcontext(&first_);
}

void Fiber::pause() {
  if (_setjmp(inside_) == 0) _longjmp(outside_, 1);
}

void Fiber::abandon() {
  if (!ended_) entered_ = false;
  ended_ = true;
}

void Fiber::enter(unsigned high, unsigned low) { reinterpret_cast<Fiber*>(std::uintptr_t{high} << 32 | low)->loop(); }

void Fiber::loop() {
  for (;;) {
    body_(argument_);
    ended_ = true;
    pause();
  }
}

}  // namespace emu
