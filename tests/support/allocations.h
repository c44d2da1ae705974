// Counts what operator new hands out, on all threads. Included by one file of a test program: it
// replaces the program's operator new. A sanitizer has its own, which stays: nothing is counted
// then.
#pragma once

#include <atomic>
#include <cstdlib>
#include <new>

namespace pome::test {

inline std::atomic<int64_t>& allocations() {
  static std::atomic<int64_t> count{0};
  return count;
}

inline void* counted(std::size_t bytes) {
  allocations().fetch_add(1, std::memory_order_relaxed);
  if (void* const memory = std::malloc(bytes ? bytes : 1)) return memory;
  throw std::bad_alloc();
}

#ifdef __SANITIZE_ADDRESS__
constexpr bool kAllocationsAreCounted = false;
#else
constexpr bool kAllocationsAreCounted = true;
#endif

}  // namespace pome::test

#ifndef __SANITIZE_ADDRESS__
// Not inlined: GCC would say that free() does not go with operator new.
#define POME_COUNTED __attribute__((noinline))
POME_COUNTED void* operator new(std::size_t bytes) { return pome::test::counted(bytes); }
POME_COUNTED void* operator new[](std::size_t bytes) { return pome::test::counted(bytes); }
POME_COUNTED void operator delete(void* memory) noexcept { std::free(memory); }
POME_COUNTED void operator delete[](void* memory) noexcept { std::free(memory); }
POME_COUNTED void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
POME_COUNTED void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
#undef POME_COUNTED
#endif
