// What one render may spend, what it owns, and how its errors say where. Every step, and every byte
// or item that is copied, costs; what is alive is counted. So no template can run for long or fill
// the memory.
//
// Thread safety: a Context belongs to one render.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/jinja/object.h"
#include "tokenizer/jinja/value.h"

namespace pome::jinja {

// Nesting of blocks, of expressions, and of lists in lists: what may recurse on the stack.
inline constexpr int kMaxDepth = 200;

struct Place {
  int32_t line = 1, column = 1;
};
// kTemplate at "line L column C".
Status template_error(Place place, std::string message);

struct Limits {
  uint64_t steps = 20'000'000;         // one for an operation, for 16 bytes copied, for an item
  size_t text = size_t{16} << 20;      // bytes, of the output and of any one string
  int64_t memory = int64_t{96} << 20;  // bytes of values alive at one time
  int calls = 200;                     // macros and recursive loops that run inside one another
};

class Context {
 public:
  Context(const Limits& limits, int64_t now) : limits_(limits), now_(now) {}
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  // kTemplate when the steps are used up.
  Status spend(Place place, uint64_t amount = 1);
  // Charges for `bytes` that are about to be made, and says whether there is room for them.
  Status room(Place place, uint64_t bytes);
  // A value that was just made: charges for it and holds it to the limits.
  Result<Value> made(Place place, Text text, bool markup = false);
  Result<Value> made(Place place, std::string text) { return made(place, Text(std::move(text))); }
  Result<Value> made(Place place, Sequence sequence);
  Result<Value> made(Place place, Dict dict);
  Result<Value> list(Place place, List items);
  Result<Value> tuple(Place place, List items);
  Result<Value> generator(Place place, List items);

  // Owned by the context until it dies; charged for.
  template <typename T>
  Result<T*> make(Place place, uint64_t extra = 0) {
    POME_RETURN_IF_ERROR(room(place, sizeof(T) + extra));
    live_ += static_cast<int64_t>(sizeof(T) + extra);
    return &pool<T>().emplace_back();
  }
  Result<Scope*> make_scope(Place place);
  void recycle(Scope* scope);
  Result<Loop*> make_loop(Place place);
  void recycle(Loop* loop);

  const Limits& limits() const { return limits_; }
  int64_t now() const { return now_; }

 private:
  template <typename T>
  std::deque<T>& pool();
  template <typename T>
  Result<Value> checked(Place place, T made, uint64_t items, uint64_t bytes);

  Limits limits_;
  int64_t now_;  // seconds since 1970
  uint64_t spent_ = 0;
  int64_t live_ = 0;  // before everything that charges it: freed last
  std::deque<Namespace> namespaces_;
  std::deque<Loop> loops_;
  std::deque<Macro> macros_;
  std::deque<Cycler> cyclers_;
  std::deque<Joiner> joiners_;
  std::deque<Generator> generators_;
  std::deque<Scope> scopes_;
  std::vector<Scope*> free_scopes_;
  std::vector<Loop*> free_loops_;
};

template <>
inline std::deque<Namespace>& Context::pool() {
  return namespaces_;
}
template <>
inline std::deque<Loop>& Context::pool() {
  return loops_;
}
template <>
inline std::deque<Macro>& Context::pool() {
  return macros_;
}
template <>
inline std::deque<Cycler>& Context::pool() {
  return cyclers_;
}
template <>
inline std::deque<Joiner>& Context::pool() {
  return joiners_;
}
template <>
inline std::deque<Generator>& Context::pool() {
  return generators_;
}
template <>
inline std::deque<Scope>& Context::pool() {
  return scopes_;
}

}  // namespace pome::jinja
