#include "formats/pickle.h"

#include "formats/pickle_opcodes.h"

namespace pome {
namespace {

constexpr size_t kMaxValues = 1 << 22;  // a hundred bytes each, all in all
constexpr size_t kMaxStack = 1 << 20;
constexpr size_t kMaxReferences = 1 << 22;  // members of all tuples, lists and dictionaries
constexpr size_t kMaxTextBytes = 64u << 20;
constexpr size_t kMaxNameBytes = 256;  // of a module or class

class Machine {
 public:
  Machine(const ByteSourcePtr& source, PickleHost& host)
      : source_(source), reader_(source), host_(host) {}

  Result<Pickle> run();

 private:
  Status step(pickle::Opcode op);
  Status fail(Refusal refusal, std::string message) const;
  Status refuse_opcode(uint8_t code, std::string_view why) const;

  Status push(PickleRef value);
  Status push_new(PickleKind kind, int64_t bits);
  Result<PickleRef> pop(std::string_view what);
  Result<std::vector<PickleRef>> pop_to_mark();
  Status push_tuple(size_t count);

  Status read_protocol();
  Status read_long(uint64_t bytes);
  Status read_text(PickleKind kind, uint64_t bytes);
  Status put(uint64_t slot);
  Status get(uint64_t slot);
  Result<std::string> read_line();
  Status push_global(std::string_view module, std::string_view name);
  Status stack_global();
  Status append(std::vector<PickleRef> items);
  Status set_items(std::vector<PickleRef> items);
  Status reduce();
  Status persistent();
  Status build();
  // One function per group of opcodes, each true when the opcode was one of its own.
  Result<bool> number_opcode(pickle::Opcode op);
  Result<bool> text_opcode(pickle::Opcode op);
  Result<bool> container_opcode(pickle::Opcode op);
  Result<bool> memo_opcode(pickle::Opcode op);
  Result<bool> object_opcode(pickle::Opcode op);

  ByteSourcePtr source_;
  ByteReader reader_;
  PickleHost& host_;
  PickleValues values_;
  std::vector<PickleRef> stack_;
  std::vector<size_t> marks_;  // heights of the stack
  std::vector<PickleRef> memo_;
  size_t references_ = 0, text_bytes_ = 0, memoized_ = 0;
  uint64_t at_ = 0;  // where the opcode lies
};

constexpr PickleRef kUnset = UINT32_MAX;

Status Machine::fail(Refusal refusal, std::string message) const {
  return source_->locate(bad_input(refusal, std::move(message)), at_);
}

Status Machine::refuse_opcode(uint8_t code, std::string_view why) const {
  return fail(Refusal::kOpcode,
              "the pickle uses the opcode " + pickle::name_of(code) + ", " + std::string(why));
}

Status Machine::push(PickleRef value) {
  if (stack_.size() >= kMaxStack)
    return fail(Refusal::kLimit, "the stack of the pickle is too deep");
  stack_.push_back(value);
  return {};
}

Status Machine::push_new(PickleKind kind, int64_t bits) {
  if (values_.size() >= kMaxValues) return fail(Refusal::kLimit, "the pickle has too many values");
  return push(values_.add(kind, bits));
}

Result<PickleRef> Machine::pop(std::string_view what) {
  if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) {
    return fail(Refusal::kRange, "the stack is empty where " + std::string(what) + " is expected");
  }
  const PickleRef value = stack_.back();
  stack_.pop_back();
  return value;
}

Result<std::vector<PickleRef>> Machine::pop_to_mark() {
  if (marks_.empty()) return fail(Refusal::kRange, "there is no mark on the stack");
  const auto first = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
  std::vector<PickleRef> items(first, stack_.end());
  stack_.erase(first, stack_.end());
  marks_.pop_back();
  references_ += items.size();
  if (references_ > kMaxReferences) return fail(Refusal::kLimit, "the pickle has too many members");
  return items;
}

Status Machine::push_tuple(size_t count) {
  std::vector<PickleRef> items(count);
  for (size_t i = count; i-- > 0;) {
    POME_ASSIGN_OR_RETURN(items[i], pop("the member of a tuple"));
  }
  references_ += count;
  if (references_ > kMaxReferences || values_.size() >= kMaxValues) {
    return fail(Refusal::kLimit, "the pickle has too many values");
  }
  return push(values_.add_list(PickleKind::kTuple, items));
}

Status Machine::read_protocol() {
  POME_ASSIGN_OR_RETURN(const uint8_t version, reader_.u8());
  if (version >= 2 && version <= 5) return {};
  return fail(Refusal::kOpcode,
              "the pickle is of protocol " + std::to_string(version) + ", known are 2 to 5");
}

// Two's complement, little-endian, of any length.
Status Machine::read_long(uint64_t bytes) {
  if (bytes > reader_.remaining())
    return fail(Refusal::kBounds, "a number is longer than the pickle");
  if (bytes > 8) {
    return fail(Refusal::kRange,
                "a number of " + std::to_string(bytes) + " bytes, at most 8 are read");
  }
  uint64_t value = 0;
  for (uint64_t i = 0; i < bytes; ++i) {
    POME_ASSIGN_OR_RETURN(const uint8_t byte, reader_.u8());
    value |= uint64_t{byte} << (8 * i);
  }
  if (bytes > 0 && bytes < 8 && value >> (8 * bytes - 1)) value |= ~uint64_t{0} << (8 * bytes);
  return push_new(PickleKind::kInt, static_cast<int64_t>(value));
}

Status Machine::read_text(PickleKind kind, uint64_t bytes) {
  if (bytes > reader_.remaining())
    return fail(Refusal::kBounds, "a text is longer than the pickle");
  if (bytes > kMaxTextBytes - text_bytes_)
    return fail(Refusal::kLimit, "the pickle has too much text");
  text_bytes_ += bytes;
  if (values_.size() >= kMaxValues) return fail(Refusal::kLimit, "the pickle has too many values");
  POME_ASSIGN_OR_RETURN(const std::string text, reader_.text(bytes, kMaxTextBytes));
  if (kind == PickleKind::kText && !is_valid_utf8(text)) {
    return fail(Refusal::kUtf8, "a text of the pickle is not valid UTF-8");
  }
  return push(values_.add_text(kind, text));
}

Status Machine::put(uint64_t slot) {
  POME_ASSIGN_OR_RETURN(const PickleRef value, pop("a value to remember"));
  stack_.push_back(value);
  if (slot >= kMaxValues) {
    return fail(Refusal::kLimit,
                "slot " + std::to_string(slot) + " of the memo is beyond the limit");
  }
  if (slot >= memo_.size()) memo_.resize(static_cast<size_t>(slot) + 1, kUnset);
  if (memo_[static_cast<size_t>(slot)] == kUnset) ++memoized_;
  memo_[static_cast<size_t>(slot)] = value;
  return {};
}

Status Machine::get(uint64_t slot) {
  if (slot >= memo_.size() || memo_[static_cast<size_t>(slot)] == kUnset) {
    return fail(Refusal::kRange, "slot " + std::to_string(slot) + " of the memo is not set");
  }
  return push(memo_[static_cast<size_t>(slot)]);
}

Result<std::string> Machine::read_line() {
  std::string line;
  while (true) {
    POME_ASSIGN_OR_RETURN(const uint8_t byte, reader_.u8());
    if (byte == '\n') return line;
    if (line.size() == kMaxNameBytes) return fail(Refusal::kLimit, "a name is too long");
    line += static_cast<char>(byte);
  }
}

Status Machine::push_global(std::string_view module, std::string_view name) {
  const std::optional<int64_t> known = host_.find_global(module, name);
  if (known) return push_new(PickleKind::kGlobal, *known);
  return fail(Refusal::kGlobal, "the pickle names " + escape_for_terminal(module, 80) + "." +
                                    escape_for_terminal(name, 80) +
                                    ", which is not on the list of what a checkpoint needs");
}

Status Machine::stack_global() {
  POME_ASSIGN_OR_RETURN(const PickleRef name, pop("a name"));
  POME_ASSIGN_OR_RETURN(const PickleRef module, pop("a module"));
  if (values_.kind(name) != PickleKind::kText || values_.kind(module) != PickleKind::kText) {
    return fail(Refusal::kType, "a name is not a text");
  }
  return push_global(values_.text(module), values_.text(name));
}

Status Machine::append(std::vector<PickleRef> items) {
  POME_ASSIGN_OR_RETURN(const PickleRef list, pop("a list"));
  if (values_.kind(list) != PickleKind::kList) {
    return fail(Refusal::kOpcode, "the pickle appends to a " +
                                      std::string(to_string(values_.kind(list))) +
                                      ", not to a list");
  }
  values_.append(list, items);
  return push(list);
}

Status Machine::set_items(std::vector<PickleRef> items) {
  POME_ASSIGN_OR_RETURN(const PickleRef dict, pop("a dictionary"));
  const PickleKind kind = values_.kind(dict);
  if (kind != PickleKind::kDict && kind != PickleKind::kOrderedDict) {
    return fail(Refusal::kOpcode, "the pickle sets items of a " + std::string(to_string(kind)) +
                                      ", not of a dictionary");
  }
  if (items.size() % 2 != 0) return fail(Refusal::kRange, "a key of a dictionary has no value");
  values_.append(dict, items);
  return push(dict);
}

Status Machine::reduce() {
  POME_ASSIGN_OR_RETURN(const PickleRef arguments, pop("the arguments of a call"));
  POME_ASSIGN_OR_RETURN(const PickleRef callee, pop("what is called"));
  if (values_.kind(callee) != PickleKind::kGlobal) {
    return fail(Refusal::kOpcode,
                "the pickle calls a " + std::string(to_string(values_.kind(callee))));
  }
  if (values_.kind(arguments) != PickleKind::kTuple) {
    return fail(Refusal::kType, "the arguments of a call are not a tuple");
  }
  if (values_.size() >= kMaxValues) return fail(Refusal::kLimit, "the pickle has too many values");
  auto value = host_.call(values_.number(callee), arguments, values_);
  if (!value.ok()) return source_->locate(std::move(value).status(), at_);
  return push(*value);
}

Status Machine::persistent() {
  POME_ASSIGN_OR_RETURN(const PickleRef id, pop("a persistent id"));
  if (values_.size() >= kMaxValues) return fail(Refusal::kLimit, "the pickle has too many values");
  auto value = host_.persistent(id, values_);
  if (!value.ok()) return source_->locate(std::move(value).status(), at_);
  return push(*value);
}

// An ordered dictionary may carry attributes (torch keeps format versions there); nobody needs
// them.
Status Machine::build() {
  POME_ASSIGN_OR_RETURN(const PickleRef state, pop("a state"));
  POME_ASSIGN_OR_RETURN(const PickleRef object, pop("an object"));
  if (values_.kind(object) != PickleKind::kOrderedDict) {
    return fail(Refusal::kOpcode, "the pickle gives a state (BUILD) to a " +
                                      std::string(to_string(values_.kind(object))));
  }
  if (values_.kind(state) != PickleKind::kDict) {
    return fail(Refusal::kType, "the state of an ordered dictionary is not a dictionary");
  }
  return push(object);
}

Result<bool> Machine::number_opcode(pickle::Opcode op) {
  using pickle::Opcode;
  const auto done = [](Status status) -> Result<bool> {
    if (!status.ok()) return status;
    return true;
  };
  switch (op) {
    case Opcode::kNone:
      return done(push_new(PickleKind::kNone, 0));
    case Opcode::kNewTrue:
      return done(push_new(PickleKind::kBool, 1));
    case Opcode::kNewFalse:
      return done(push_new(PickleKind::kBool, 0));
    case Opcode::kBinInt: {
      POME_ASSIGN_OR_RETURN(const int32_t value, reader_.i32());
      return done(push_new(PickleKind::kInt, value));
    }
    case Opcode::kBinInt1: {
      POME_ASSIGN_OR_RETURN(const uint8_t value, reader_.u8());
      return done(push_new(PickleKind::kInt, value));
    }
    case Opcode::kBinInt2: {
      POME_ASSIGN_OR_RETURN(const uint16_t value, reader_.u16());
      return done(push_new(PickleKind::kInt, value));
    }
    case Opcode::kLong1: {
      POME_ASSIGN_OR_RETURN(const uint8_t bytes, reader_.u8());
      return done(read_long(bytes));
    }
    case Opcode::kLong4: {
      POME_ASSIGN_OR_RETURN(const int32_t bytes, reader_.i32());
      if (bytes < 0) return fail(Refusal::kBounds, "a number has a negative length");
      return done(read_long(static_cast<uint64_t>(bytes)));
    }
    case Opcode::kBinFloat: {
      uint64_t bits = 0;  // big-endian, unlike everything else
      for (int i = 0; i < 8; ++i) {
        POME_ASSIGN_OR_RETURN(const uint8_t byte, reader_.u8());
        bits = bits << 8 | byte;
      }
      return done(push_new(PickleKind::kFloat, static_cast<int64_t>(bits)));
    }
    default:
      return false;
  }
}

Result<bool> Machine::text_opcode(pickle::Opcode op) {
  using pickle::Opcode;
  uint64_t bytes = 0;
  switch (op) {
    case Opcode::kShortBinUnicode:
    case Opcode::kShortBinBytes: {
      POME_ASSIGN_OR_RETURN(bytes, reader_.u8());
      break;
    }
    case Opcode::kBinUnicode:
    case Opcode::kBinBytes: {
      POME_ASSIGN_OR_RETURN(bytes, reader_.u32());
      break;
    }
    case Opcode::kBinUnicode8:
    case Opcode::kBinBytes8: {
      POME_ASSIGN_OR_RETURN(bytes, reader_.u64());
      break;
    }
    default:
      return false;
  }
  const bool text =
      op == Opcode::kShortBinUnicode || op == Opcode::kBinUnicode || op == Opcode::kBinUnicode8;
  POME_RETURN_IF_ERROR(read_text(text ? PickleKind::kText : PickleKind::kBytes, bytes));
  return true;
}

Result<bool> Machine::container_opcode(pickle::Opcode op) {
  using pickle::Opcode;
  const auto empty = [&](PickleKind kind) -> Result<bool> {
    if (values_.size() >= kMaxValues)
      return fail(Refusal::kLimit, "the pickle has too many values");
    POME_RETURN_IF_ERROR(push(values_.add_list(kind, {})));
    return true;
  };
  switch (op) {
    case Opcode::kMark:
      if (marks_.size() >= kMaxStack) return fail(Refusal::kLimit, "the pickle has too many marks");
      marks_.push_back(stack_.size());
      return true;
    case Opcode::kEmptyTuple:
      return empty(PickleKind::kTuple);
    case Opcode::kEmptyList:
      return empty(PickleKind::kList);
    case Opcode::kEmptyDict:
      return empty(PickleKind::kDict);
    case Opcode::kTuple: {
      POME_ASSIGN_OR_RETURN(const std::vector<PickleRef> items, pop_to_mark());
      if (values_.size() >= kMaxValues) {
        return fail(Refusal::kLimit, "the pickle has too many values");
      }
      POME_RETURN_IF_ERROR(push(values_.add_list(PickleKind::kTuple, items)));
      return true;
    }
    case Opcode::kTuple1:
    case Opcode::kTuple2:
    case Opcode::kTuple3:
      POME_RETURN_IF_ERROR(
          push_tuple(static_cast<size_t>(op) - static_cast<size_t>(Opcode::kTuple1) + 1));
      return true;
    case Opcode::kAppend: {
      POME_ASSIGN_OR_RETURN(const PickleRef item, pop("a member of a list"));
      ++references_;
      POME_RETURN_IF_ERROR(append({item}));
      return true;
    }
    case Opcode::kAppends: {
      POME_ASSIGN_OR_RETURN(std::vector<PickleRef> items, pop_to_mark());
      POME_RETURN_IF_ERROR(append(std::move(items)));
      return true;
    }
    case Opcode::kSetItem: {
      POME_ASSIGN_OR_RETURN(const PickleRef value, pop("a value of a dictionary"));
      POME_ASSIGN_OR_RETURN(const PickleRef key, pop("a key of a dictionary"));
      references_ += 2;
      POME_RETURN_IF_ERROR(set_items({key, value}));
      return true;
    }
    case Opcode::kSetItems: {
      POME_ASSIGN_OR_RETURN(std::vector<PickleRef> items, pop_to_mark());
      POME_RETURN_IF_ERROR(set_items(std::move(items)));
      return true;
    }
    default:
      return false;
  }
}

Result<bool> Machine::memo_opcode(pickle::Opcode op) {
  using pickle::Opcode;
  const auto done = [](Status status) -> Result<bool> {
    if (!status.ok()) return status;
    return true;
  };
  switch (op) {
    case Opcode::kBinPut: {
      POME_ASSIGN_OR_RETURN(const uint8_t slot, reader_.u8());
      return done(put(slot));
    }
    case Opcode::kLongBinPut: {
      POME_ASSIGN_OR_RETURN(const uint32_t slot, reader_.u32());
      return done(put(slot));
    }
    case Opcode::kMemoize:  // the slot after as many as are taken
      return done(put(memoized_));
    case Opcode::kBinGet: {
      POME_ASSIGN_OR_RETURN(const uint8_t slot, reader_.u8());
      return done(get(slot));
    }
    case Opcode::kLongBinGet: {
      POME_ASSIGN_OR_RETURN(const uint32_t slot, reader_.u32());
      return done(get(slot));
    }
    default:
      return false;
  }
}

Result<bool> Machine::object_opcode(pickle::Opcode op) {
  using pickle::Opcode;
  const auto done = [](Status status) -> Result<bool> {
    if (!status.ok()) return status;
    return true;
  };
  switch (op) {
    case Opcode::kGlobal: {
      POME_ASSIGN_OR_RETURN(const std::string module, read_line());
      POME_ASSIGN_OR_RETURN(const std::string name, read_line());
      return done(push_global(module, name));
    }
    case Opcode::kStackGlobal:
      return done(stack_global());
    case Opcode::kReduce:
      return done(reduce());
    case Opcode::kBinPersid:
      return done(persistent());
    case Opcode::kBuild:
      return done(build());
    case Opcode::kFrame: {
      POME_ASSIGN_OR_RETURN(const uint64_t bytes, reader_.u64());
      if (bytes > reader_.remaining()) {
        return fail(Refusal::kBounds, "a frame is longer than the pickle");
      }
      return true;
    }
    default:
      return false;
  }
}

Status Machine::step(pickle::Opcode op) {
  for (const auto group : {&Machine::number_opcode, &Machine::text_opcode, &Machine::memo_opcode,
                           &Machine::container_opcode, &Machine::object_opcode}) {
    POME_ASSIGN_OR_RETURN(const bool mine, (this->*group)(op));
    if (mine) {
      return references_ > kMaxReferences ? fail(Refusal::kLimit, "the pickle has too many members")
                                          : Status();
    }
  }
  return refuse_opcode(static_cast<uint8_t>(op), "which data does not need");
}

Result<Pickle> Machine::run() {
  POME_ASSIGN_OR_RETURN(const uint8_t first, reader_.u8());
  if (first != static_cast<uint8_t>(pickle::Opcode::kProto)) {
    return fail(Refusal::kMagic, "this is no pickle of protocol 2 to 5");
  }
  POME_RETURN_IF_ERROR(read_protocol());
  while (true) {
    at_ = reader_.offset();
    POME_ASSIGN_OR_RETURN(const uint8_t code, reader_.u8());
    const auto op = static_cast<pickle::Opcode>(code);
    if (op == pickle::Opcode::kStop) break;
    Status status = step(op);
    if (!status.ok()) return status;
  }
  if (stack_.size() != 1 || !marks_.empty()) {
    return fail(Refusal::kRange, "the pickle ends with " + std::to_string(stack_.size()) +
                                     " values on its stack, not with one");
  }
  if (!reader_.at_end()) {
    return fail(Refusal::kRange,
                std::to_string(reader_.remaining()) + " bytes follow the end of the pickle");
  }
  return Pickle{std::move(values_), stack_.front()};
}

}  // namespace

std::string_view to_string(PickleKind kind) {
  static constexpr std::string_view kNames[] = {"None",       "bool",
                                                "number",     "float",
                                                "text",       "bytes",
                                                "tuple",      "list",
                                                "dictionary", "ordered dictionary",
                                                "name",       "tensor or storage"};
  return kNames[static_cast<size_t>(kind)];
}

std::string_view PickleValues::text(PickleRef ref) const {
  const auto [offset, size] = text_spans_[static_cast<size_t>(nodes_[ref].bits)];
  return std::string_view(texts_).substr(offset, size);
}
PickleRef PickleValues::add(PickleKind kind, int64_t bits) {
  nodes_.push_back({kind, bits});
  return static_cast<PickleRef>(nodes_.size() - 1);
}
PickleRef PickleValues::add_text(PickleKind kind, std::string_view text) {
  text_spans_.emplace_back(texts_.size(), text.size());
  texts_ += text;
  return add(kind, static_cast<int64_t>(text_spans_.size() - 1));
}
PickleRef PickleValues::add_list(PickleKind kind, std::span<const PickleRef> items) {
  lists_.emplace_back(items.begin(), items.end());
  return add(kind, static_cast<int64_t>(lists_.size() - 1));
}
void PickleValues::append(PickleRef to, std::span<const PickleRef> items) {
  auto& list = lists_[static_cast<size_t>(nodes_[to].bits)];
  list.insert(list.end(), items.begin(), items.end());
}

Result<Pickle> read_pickle(ByteSourcePtr source, PickleHost& host) {
  return Machine(source, host).run();
}

}  // namespace pome
