// Python pickles of protocol 2 to 5, as data: an interpreter of the opcodes that build values, and
// nothing else.
//
// A pickle is a program for a stack machine, and the general machine can call any function of the
// reader's language. This one cannot: it builds numbers, texts, tuples, lists and dictionaries, and
// hands the few other things (a name, a call of a name, a persistent id) to a host that knows an
// exact list of them. Every other opcode is refused by its name (kOpcode), every other name too
// (kGlobal). There is no second path.
//
// Values live in one arena and refer to each other by number. Opcodes are executed one after the
// other, nothing recurses, and values, stack, memo and texts are bounded before they grow.
// Source: the opcode list in the documentation of CPython's pickletools.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/byte_source.h"
#include "base/status.h"

namespace pome {

using PickleRef = uint32_t;  // a value of the arena

enum class PickleKind : uint8_t {
  kNone,
  kBool,
  kInt,
  kFloat,
  kText,
  kBytes,
  kTuple,
  kList,
  kDict,
  kOrderedDict,
  kGlobal,  // number(): what the host calls it
  kObject,  // number(): what the host calls it
};
std::string_view to_string(PickleKind kind);

class PickleValues {
 public:
  PickleKind kind(PickleRef ref) const { return nodes_[ref].kind; }
  // kBool, kInt, kGlobal, kObject; for kFloat the bits of the double.
  int64_t number(PickleRef ref) const { return nodes_[ref].bits; }
  double real(PickleRef ref) const { return std::bit_cast<double>(nodes_[ref].bits); }
  std::string_view text(PickleRef ref) const;  // kText, kBytes
  // kTuple, kList: the members; dictionaries: key, value, key, value ...
  std::span<const PickleRef> items(PickleRef ref) const {
    return lists_[static_cast<size_t>(nodes_[ref].bits)];
  }
  size_t size() const { return nodes_.size(); }

  PickleRef add(PickleKind kind, int64_t bits);
  PickleRef add_text(PickleKind kind, std::string_view text);
  PickleRef add_list(PickleKind kind, std::span<const PickleRef> items);
  void append(PickleRef to, std::span<const PickleRef> items);

 private:
  struct Node {
    PickleKind kind;
    int64_t bits;  // a number, or where the text or list is
  };
  std::vector<Node> nodes_;
  std::string texts_;
  std::vector<std::pair<uint64_t, uint64_t>> text_spans_;
  std::vector<std::vector<PickleRef>> lists_;
};

// Decides what names mean. Errors of its functions need no file and no offset.
class PickleHost {
 public:
  virtual ~PickleHost() = default;
  // A number for a name on the list; nullopt refuses it.
  virtual std::optional<int64_t> find_global(std::string_view module, std::string_view name) = 0;
  // The value of global(arguments); `arguments` is a tuple.
  virtual Result<PickleRef> call(int64_t global, PickleRef arguments, PickleValues& values) = 0;
  virtual Result<PickleRef> persistent(PickleRef id, PickleValues& values) = 0;
};

struct Pickle {
  PickleValues values;
  PickleRef root = 0;
};
// `source` holds one pickle and nothing after it. The state that BUILD gives to an ordered
// dictionary (its attributes) is dropped. Refusals: kTrunc, kMagic, kOpcode, kGlobal, kLimit,
// kBounds, kRange, kType, kUtf8 and what the host returns; all with the offset of the opcode.
Result<Pickle> read_pickle(ByteSourcePtr source, PickleHost& host);

}  // namespace pome
