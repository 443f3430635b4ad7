#include "memory.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

#include "simt.h"

namespace emu {

const Moment* now = nullptr;
std::uint32_t first_block_of_launch = 0;

namespace {

// Buffers lie in one reserved range, far apart, so that an index gone wrong meets no other buffer.
constexpr std::size_t heap_bytes = std::size_t{1} << 33, gap = std::size_t{1} << 20, page = 4096;
// Shared memory lies in the middle of a range of its own.
constexpr std::size_t shared_range = std::size_t{4} << 20, shared_start = std::size_t{2} << 20;

unsigned char* reserve(std::size_t bytes, int protection) {
  void* range = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED) throw std::bad_alloc();
  return static_cast<unsigned char*>(range);
}

struct Memory {
  unsigned char* heap = reserve(heap_bytes, PROT_NONE);
  unsigned char* shared = reserve(shared_range, PROT_READ | PROT_WRITE);
  std::size_t used = gap, misalignment = 0, shared_bytes = 0;
  std::vector<Buffer*> buffers;
  std::unique_ptr<Shadow> shared_shadow = std::make_unique<Shadow>(most_shared_bytes);
};

Memory& memory() {
  static Memory it;
  return it;
}

bool before(const Moment& mark, const Moment& now, std::uint32_t since) {
  if (mark.block < since) return true;
  if (mark.block != now.block) return false;
  if (mark.thread == now.thread || mark.epoch < now.epoch) return true;
  return mark.warp == now.warp && mark.tick < now.tick;
}

void note_read(Moment& read, const Moment& now, std::uint32_t since) {
  const bool together = !before(read, now, since);
  const std::int16_t thread = together && read.thread != now.thread ? -1 : now.thread;
  const std::int16_t warp = together && read.warp != now.warp ? -1 : now.warp;
  read = now;
  read.thread = thread;
  read.warp = warp;
}

std::string text(const char* verb, std::size_t bytes, std::ptrdiff_t at, const std::string& of, std::size_t size) {
  return std::string(verb) + " " + std::to_string(bytes) + " bytes at byte " + std::to_string(at) + " of " + of + " (" +
         std::to_string(size) + " bytes)";
}

void check_shared(std::ptrdiff_t offset, std::size_t bytes, Access kind, const char* verb) {
  Memory& m = memory();
  const auto describe = [&] { return text(verb, bytes, offset, "shared memory", m.shared_bytes); };
  if (offset < 0 || std::size_t(offset) + bytes > m.shared_bytes) fail(describe() + ": out of bounds");
  const char* wrong = m.shared_shadow->access(std::size_t(offset), bytes, kind, *now, now->block, now->block);
  if (wrong != nullptr) fail(describe() + ": " + wrong);
}

void check_heap(const unsigned char* address, std::size_t bytes, Access kind, const char* verb) {
  for (const Buffer* b : memory().buffers) {
    const std::ptrdiff_t offset = address - b->data();
    if (offset <= -std::ptrdiff_t(gap / 2) || offset >= std::ptrdiff_t(b->size() + gap / 2)) continue;
    const auto describe = [&] { return text(verb, bytes, offset, b->name(), b->size()); };
    if (offset < 0 || std::size_t(offset) + bytes > b->size()) fail(describe() + ": out of bounds");
    if (kind == Access::write && !b->writable()) fail(describe() + ": it is an input");
    if (b->shadow() == nullptr) return;
    const char* wrong =
        b->shadow()->access(std::size_t(offset), bytes, kind, *now, first_block_of_launch, b->poisoned() ? 1 : 0);
    if (wrong != nullptr) fail(describe() + ": " + wrong);
    return;
  }
  fail(std::string(verb) + " " + std::to_string(bytes) + " bytes far from any buffer");
}

}  // namespace

// Makes the pieces so small that this access consists of whole ones.
void Shadow::cut_for(std::size_t offset, std::size_t bytes) {
  std::size_t parts = 1;
  while ((offset | bytes) % (piece_ / parts) != 0) parts *= 2;
  if (parts == 1) return;
  std::vector<History> cut;
  cut.reserve(pieces_.size() * parts);
  for (const History& piece : pieces_) cut.insert(cut.end(), parts, piece);
  pieces_ = std::move(cut);
  piece_ /= parts;
}

const char* Shadow::access(std::size_t offset, std::size_t bytes, Access kind, const Moment& now, std::uint32_t since,
                           std::uint32_t written_since) {
  cut_for(offset, bytes);
  History* const end = &pieces_[0] + (offset + bytes) / piece_;
  for (History* h = &pieces_[0] + offset / piece_; h != end; ++h) {
    if (h->in_flight == now.block) return "an asynchronous copy to it has not been waited for";
    if (!before(h->write, now, since)) return "another thread wrote it and no barrier lies between";
    if (kind == Access::read) {
      if (h->write.block < written_since) return "nobody has written it";
      note_read(h->read, now, since);
    } else {
      if (!before(h->read, now, since)) return "another thread reads it and no barrier lies between";
      h->write = now;
    }
  }
  return nullptr;
}

void Shadow::set_in_flight(std::size_t offset, std::size_t bytes, std::uint32_t block) {
  cut_for(offset, bytes);
  for (std::size_t i = offset / piece_; i < (offset + bytes) / piece_; ++i) pieces_[i].in_flight = block;
}

Buffer::Buffer(std::string name, std::size_t bytes, const void* content, bool writable)
    : name_(std::move(name)), size_(bytes), writable_(writable), poisoned_(content == nullptr) {
  Memory& m = memory();
  const std::size_t spans = (m.misalignment + bytes + page) / page * page;
  if (m.buffers.empty()) m.used = gap;
  if (m.used + spans + gap > heap_bytes) throw std::bad_alloc();
  if (mprotect(m.heap + m.used, spans, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
  data_ = m.heap + m.used + m.misalignment;
  m.used += spans + gap;
  std::memset(data_, 0xff, bytes);
  if (content != nullptr) std::memcpy(data_, content, bytes);
  if (writable) shadow_ = std::make_unique<Shadow>(bytes);
  m.buffers.push_back(this);
}

Buffer::~Buffer() {
  Memory& m = memory();
  for (auto at = m.buffers.begin(); at != m.buffers.end(); ++at) {
    if (*at == this) {
      m.buffers.erase(at);
      break;
    }
  }
  const std::size_t spans = (m.misalignment + size_ + page) / page * page;
  void* const start = data_ - (data_ - m.heap) % page;
  mmap(start, spans, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

void set_misalignment(std::size_t bytes) { memory().misalignment = bytes % 256; }

unsigned char* begin_shared(std::size_t bytes) {
  Memory& m = memory();
  m.shared_bytes = bytes;
  std::memset(m.shared + shared_start, 0xff, bytes);
  return m.shared + shared_start;
}

void check_access(const void* address, std::size_t bytes, Access kind) {
  if (now == nullptr) return;
  const Memory& m = memory();
  const auto* at = static_cast<const unsigned char*>(address);
  const char* verb = kind == Access::read ? "reads" : "writes";
  if (at >= m.shared && at < m.shared + shared_range) {
    check_shared(at - (m.shared + shared_start), bytes, kind, verb);
  } else if (at >= m.heap && at < m.heap + heap_bytes) {
    check_heap(at, bytes, kind, verb);
  }
}

void begin_flight(const void* shared, std::size_t bytes) {
  const Memory& m = memory();
  const auto* at = static_cast<const unsigned char*>(shared);
  if (at < m.shared || at >= m.shared + shared_range) fail("copies asynchronously to what is not shared memory");
  check_access(shared, bytes, Access::write);
  const std::size_t offset = std::size_t(at - (m.shared + shared_start));
  m.shared_shadow->set_in_flight(offset, bytes, now->block);
}

void end_flight(const void* shared, std::size_t bytes) {
  const Memory& m = memory();
  const std::size_t offset = std::size_t(static_cast<const unsigned char*>(shared) - (m.shared + shared_start));
  m.shared_shadow->set_in_flight(offset, bytes, 0);
  check_access(shared, bytes, Access::write);
}

}  // namespace emu
