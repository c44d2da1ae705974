// The pickle machine: what it builds, and one row per way to misuse it (the numbers are those of
// the checklist of bad inputs, part D).
#include "formats/pickle.h"

#include <gtest/gtest.h>

#include "formats/pickle_opcodes.h"
#include "malformed/back_ends.h"
#include "malformed/pytorch_bytes.h"

namespace pome {
namespace {

using namespace malformed;  // NOLINT: builders of the test

// Knows m.f (a call of it gives its arguments), collections.OrderedDict, and any persistent id.
class TestHost final : public PickleHost {
 public:
  std::optional<int64_t> find_global(std::string_view module, std::string_view name) override {
    if (module == "m" && name == "f") return 7;
    if (module == "collections" && name == "OrderedDict") return 8;
    return std::nullopt;
  }
  Result<PickleRef> call(int64_t global, PickleRef arguments, PickleValues& values) override {
    if (global == 8) return values.add_list(PickleKind::kOrderedDict, {});
    return arguments;
  }
  Result<PickleRef> persistent(PickleRef id, PickleValues& values) override {
    ++ids;
    return values.add(PickleKind::kObject, static_cast<int64_t>(id));
  }
  int ids = 0;
};

Result<Pickle> read(const std::string& bytes) {
  TestHost host;
  return read_pickle(memory_source(bytes_of(bytes), "p"), host);
}
// The single value that the opcodes build.
Pickle value_of(const std::string& body) {
  auto pickle = read(pickle_of(body));
  EXPECT_TRUE(pickle.ok()) << pickle.status().to_string();
  return pickle.ok() ? *std::move(pickle) : Pickle{{}, 0};
}
int64_t number_of(const std::string& body) {
  const Pickle pickle = value_of(body);
  EXPECT_EQ(pickle.values.kind(pickle.root), PickleKind::kInt);
  return pickle.values.number(pickle.root);
}
std::string text_of(const std::string& body) {
  const Pickle pickle = value_of(body);
  EXPECT_EQ(pickle.values.kind(pickle.root), PickleKind::kText);
  return std::string(pickle.values.text(pickle.root));
}

TEST(Pickle, Numbers) {
  EXPECT_EQ(number_of("K\xff"), 255);
  EXPECT_EQ(number_of("M\x01\x02"), 513);
  EXPECT_EQ(number_of("J\xff\xff\xff\xff"), -1);
  EXPECT_EQ(number_of(std::string("\x8a\0", 2)), 0);
  EXPECT_EQ(number_of("\x8a\x01\x80"), -128);
  EXPECT_EQ(number_of(std::string("\x8a\x02\x80\0", 4)), 128);
  EXPECT_EQ(number_of("\x8a\x08" + le(INT64_MIN)), INT64_MIN);
  EXPECT_EQ(number_of("\x8b" + le<int32_t>(3) + "\xff\xff\x7f"), 0x7FFFFF);
  const Pickle real = value_of(std::string("G\x3f\xf8\0\0\0\0\0\0", 9));
  EXPECT_EQ(real.values.kind(real.root), PickleKind::kFloat);
  EXPECT_EQ(real.values.real(real.root), 1.5);
  for (const auto& [code, bit] : {std::pair("\x88", 1), std::pair("\x89", 0)}) {
    const Pickle flag = value_of(code);
    EXPECT_EQ(flag.values.kind(flag.root), PickleKind::kBool);
    EXPECT_EQ(flag.values.number(flag.root), bit);
  }
  const Pickle none = value_of("N");
  EXPECT_EQ(none.values.kind(none.root), PickleKind::kNone);
}

TEST(Pickle, Texts) {
  EXPECT_EQ(text_of(py_text("h\xc3\xa9")), "h\xc3\xa9");
  EXPECT_EQ(text_of("\x8c\x02hi"), "hi");
  EXPECT_EQ(text_of("\x8d" + le<uint64_t>(2) + "hi"), "hi");
  EXPECT_EQ(text_of(py_text("")), "");
  for (const std::string& body :
       {std::string("C\x02\xff\0", 4), "B" + le<uint32_t>(2) + std::string("\xff\0", 2),
        "\x8e" + le<uint64_t>(2) + std::string("\xff\0", 2)}) {
    const Pickle bytes = value_of(body);
    EXPECT_EQ(bytes.values.kind(bytes.root), PickleKind::kBytes);
    EXPECT_EQ(bytes.values.text(bytes.root), std::string_view("\xff\0", 2));
  }
}

TEST(Pickle, ContainersAndMemo) {
  // [ (1, 2), (3,), (), {"a": 1, "b": (1, 2)} ] with the first tuple used twice by the memo.
  const std::string body = std::string("](") + "K\1K\2\x86q\5" + "K\3\x85" + ")" + "}(" +
                           py_text("a") + "K\1" + py_text("b") + "h\5" + "u" + "e";
  const Pickle pickle = value_of(body);
  const PickleValues& values = pickle.values;
  ASSERT_EQ(values.kind(pickle.root), PickleKind::kList);
  const auto items = values.items(pickle.root);
  ASSERT_EQ(items.size(), 4u);
  EXPECT_EQ(values.items(items[0]).size(), 2u);
  EXPECT_EQ(values.items(items[1]).size(), 1u);
  EXPECT_EQ(values.kind(items[2]), PickleKind::kTuple);
  ASSERT_EQ(values.kind(items[3]), PickleKind::kDict);
  const auto members = values.items(items[3]);
  ASSERT_EQ(members.size(), 4u);
  EXPECT_EQ(values.text(members[2]), "b");
  EXPECT_EQ(members[3], items[0]);  // the same tuple
  EXPECT_EQ(value_of("]K\1aK\2a").values.size(), 3u);
  // MEMOIZE takes the slot after as many as are taken; LONG forms reach further.
  const std::string slots =
      "K\7\x94K\x08\x94\x86r" + le<uint32_t>(1000) + "h\1j" + le<uint32_t>(1000) + "\x87";
  const Pickle memo = value_of(slots);
  ASSERT_EQ(memo.values.items(memo.root).size(), 3u);
}

TEST(Pickle, CallsAndNames) {
  for (const std::string& callee : {py_global("m", "f"), py_text("m") + py_text("f") + "\x93",
                                    py_text("m") + "\x94" + py_text("f") + "\x94\x93"}) {
    const Pickle pickle = value_of(callee + "K\1\x85R");
    EXPECT_EQ(pickle.values.kind(pickle.root), PickleKind::kTuple);
  }
  const Pickle name = value_of(py_global("m", "f"));
  EXPECT_EQ(name.values.kind(name.root), PickleKind::kGlobal);
  EXPECT_EQ(name.values.number(name.root), 7);
  const Pickle object = value_of(")Q");
  EXPECT_EQ(object.values.kind(object.root), PickleKind::kObject);
  // The attributes of an ordered dictionary are dropped.
  const Pickle dict = value_of(py_ordered_dict() + "}" + py_text("x") + "K\1s" + "b");
  EXPECT_EQ(dict.values.kind(dict.root), PickleKind::kOrderedDict);
  EXPECT_TRUE(dict.values.items(dict.root).empty());
}

TEST(Pickle, TakesProtocols2To5AndFrames) {
  for (char protocol = 2; protocol <= 5; ++protocol) {
    EXPECT_TRUE(read(pickle_of("K\1", protocol)).ok());
  }
  EXPECT_TRUE(read(pickle_of("\x95" + le<uint64_t>(3) + "K\1", 4)).ok());
}

std::string repeated(std::string_view piece, size_t count) {
  std::string out;
  out.reserve(piece.size() * count);
  for (size_t i = 0; i < count; ++i) out += piece;
  return out;
}

TEST(Pickle, RefusesWhatIsWrong) {
  struct Row {
    const char* what;
    Refusal refusal;
    std::string bytes;
  };
  const std::string one = py_int(1);
  const std::vector<Row> rows = {
      {"91", Refusal::kGlobal, pickle_of(py_call(py_global("os", "system"), {py_text("true")}))},
      {"91 py2", Refusal::kGlobal, pickle_of(py_global("__builtin__", "eval"))},
      {"92", Refusal::kGlobal,
       pickle_of(py_text("posix") + "q\1" + py_text("system") + "q\2\x86q\3" + "h\1h\2\x93)R\x86")},
      {"92 not text", Refusal::kType, pickle_of(one + one + "\x93")},
      {"94 prefix", Refusal::kGlobal, pickle_of(py_global("m", "f.g"))},
      {"94 longer", Refusal::kGlobal, pickle_of(py_global("m", "ff"))},
      {"94 module", Refusal::kGlobal, pickle_of(py_global("m.f", "f"))},
      {"94 sibling", Refusal::kGlobal, pickle_of(py_global("collections", "namedtuple"))},
      {"95 protocol 6", Refusal::kOpcode, pickle_of("N", 6)},
      {"95 protocol 1", Refusal::kOpcode, pickle_of("N", 1)},
      {"95 second PROTO", Refusal::kOpcode, pickle_of("\x80\x02N")},
      {"protocol 0", Refusal::kMagic, "I1\n."},
      {"97 text", Refusal::kBounds, pickle_of("\x8d" + le(uint64_t{1} << 63))},
      {"97 bytes", Refusal::kBounds, pickle_of("\x8e" + le(uint64_t{1} << 63))},
      {"97 text 32", Refusal::kBounds, pickle_of("X" + le(UINT32_MAX) + "abc")},
      {"97 negative", Refusal::kBounds, pickle_of("\x8b" + le<int32_t>(-1))},
      {"97 long", Refusal::kBounds, pickle_of("\x8b" + le<int32_t>(1000))},
      {"wide number", Refusal::kRange, pickle_of("\x8a\x09" + std::string(9, '\1'))},
      {"97 frame", Refusal::kBounds, pickle_of("\x95" + le<uint64_t>(1000) + "N")},
      {"98 unset", Refusal::kRange, pickle_of("h\5")},
      {"98 unset long", Refusal::kRange, pickle_of("j" + le(UINT32_MAX))},
      {"98 between", Refusal::kRange, pickle_of("Nq\5h\4\x86")},
      {"98 slot", Refusal::kLimit, pickle_of("Nr" + le(UINT32_MAX))},
      {"98 nothing", Refusal::kRange, pickle_of("q\1")},
      {"99 marks", Refusal::kLimit, pickle_of(repeated("(", 1'100'000))},
      {"99 nested", Refusal::kLimit, pickle_of(")" + repeated("\x85", 4'300'000))},
      {"99 stack", Refusal::kLimit, pickle_of(repeated("N", 1'100'000))},
      {"99 memo", Refusal::kLimit, pickle_of("]q\1" + repeated("h\1a", 4'300'000))},
      {"100 no STOP", Refusal::kTrunc, "\x80\x02N"},
      {"100 after STOP", Refusal::kRange, pickle_of("N") + "x"},
      {"100 two pickles", Refusal::kRange, pickle_of("N") + pickle_of("N")},
      {"empty stack", Refusal::kRange, pickle_of("")},
      {"two values", Refusal::kRange, pickle_of("NN")},
      {"open mark", Refusal::kRange, pickle_of("N(")},
      {"101 list", Refusal::kOpcode, pickle_of("]" + one + one + "s")},
      {"101 tuple", Refusal::kOpcode, pickle_of(")(" + one + one + "u")},
      {"101 number", Refusal::kOpcode, pickle_of(one + one + one + "s")},
      {"101 object", Refusal::kOpcode, pickle_of(")Q(" + one + one + "u")},
      {"append to dict", Refusal::kOpcode, pickle_of("}" + one + "a")},
      {"append to tuple", Refusal::kOpcode, pickle_of(")(" + one + "e")},
      {"odd items", Refusal::kRange, pickle_of("}(" + one + "u")},
      {"93 BUILD dict", Refusal::kOpcode, pickle_of("}}b")},
      {"93 BUILD object", Refusal::kOpcode, pickle_of(")Q}b")},
      {"BUILD no dict", Refusal::kType, pickle_of(py_ordered_dict() + ")b")},
      {"call number", Refusal::kOpcode, pickle_of(one + ")R")},
      {"call text", Refusal::kOpcode, pickle_of(py_text("f") + ")R")},
      {"arguments", Refusal::kType, pickle_of(py_global("m", "f") + "]R")},
      {"no mark", Refusal::kRange, pickle_of("t")},
      {"below the mark", Refusal::kRange, pickle_of("N(\x85")},
      {"UTF-8", Refusal::kUtf8, pickle_of(py_text("\xff"))},
      {"surrogate", Refusal::kUtf8, pickle_of(py_text("\xed\xa0\x80"))},
      {"name", Refusal::kLimit, pickle_of("c" + std::string(300, 'a') + "\nb\n")},
  };
  for (const Row& row : rows) {
    const auto pickle = read(row.bytes);
    ASSERT_FALSE(pickle.ok()) << row.what;
    EXPECT_EQ(pickle.status().refusal(), row.refusal)
        << row.what << ": " << pickle.status().to_string();
    EXPECT_TRUE(pickle.status().offset().has_value()) << row.what;
    EXPECT_EQ(pickle.status().file(), "p") << row.what;
  }
}

TEST(Pickle, NamesEveryOpcodeThatItRefuses) {  // rows 93 and 95
  const std::pair<int, const char*> refused[] = {{'i', "INST"},
                                                 {'o', "OBJ"},
                                                 {0x81, "NEWOBJ"},
                                                 {0x92, "NEWOBJ_EX"},
                                                 {0x82, "EXT1"},
                                                 {0x83, "EXT2"},
                                                 {0x84, "EXT4"},
                                                 {'P', "PERSID"},
                                                 {'0', "POP"},
                                                 {'1', "POP_MARK"},
                                                 {'2', "DUP"},
                                                 {'F', "FLOAT"},
                                                 {'I', "INT"},
                                                 {'L', "LONG"},
                                                 {'S', "STRING"},
                                                 {'T', "BINSTRING"},
                                                 {'U', "SHORT_BINSTRING"},
                                                 {'V', "UNICODE"},
                                                 {'d', "DICT"},
                                                 {'l', "LIST"},
                                                 {'g', "GET"},
                                                 {'p', "PUT"},
                                                 {0x8f, "EMPTY_SET"},
                                                 {0x90, "ADDITEMS"},
                                                 {0x91, "FROZENSET"},
                                                 {0x96, "BYTEARRAY8"},
                                                 {0x97, "NEXT_BUFFER"},
                                                 {0x98, "READONLY_BUFFER"},
                                                 {0xff, "0xff (unknown)"},
                                                 {0x00, "0x00 (unknown)"}};
  for (const auto& [code, name] : refused) {
    const auto pickle = read(pickle_of("NN" + std::string(1, static_cast<char>(code)) + "N"));
    ASSERT_FALSE(pickle.ok()) << name;
    EXPECT_EQ(pickle.status().refusal(), Refusal::kOpcode) << name;
    EXPECT_NE(pickle.status().message().find(name), std::string_view::npos)
        << pickle.status().to_string();
    EXPECT_EQ(pickle.status().offset(), 4u);
  }
  // Every other byte is an opcode that does something: none falls through unnamed.
  size_t known = 0;
  for (int code = 0; code < 256; ++code) {
    known += pickle::name_of(static_cast<uint8_t>(code)).find("unknown") == std::string::npos;
  }
  EXPECT_EQ(known, 68u);
}

TEST(Pickle, RefusesEveryCut) {  // row 96
  const std::string whole =
      pickle_of("\x95" + le<uint64_t>(0) + "](" + py_text("ab") + py_int(1) + "\x8a\x02\x01\x02" +
                py_global("m", "f") + "K\1\x85R" + "}" + py_text("k") + "Nsq\1" + "h\1" + ")Q" +
                std::string("G\x3f\xf8\0\0\0\0\0\0", 9) + "C\x02zz" + "e");
  ASSERT_TRUE(read(whole).ok()) << read(whole).status().to_string();
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto pickle = read(whole.substr(0, size));
    ASSERT_FALSE(pickle.ok()) << size;
    EXPECT_TRUE(pickle.status().refusal() == Refusal::kTrunc ||
                pickle.status().refusal() == Refusal::kBounds)
        << size << ": " << pickle.status().to_string();
  }
}

TEST(Pickle, OffsetsCountFromTheStartOfTheFile) {
  const std::string bytes = "12345" + pickle_of("NN" + py_global("os", "system"));
  TestHost host;
  const auto pickle = read_pickle(
      sub_source(memory_source(bytes_of(bytes), "file"), 5, bytes.size() - 5, "file"), host);
  ASSERT_FALSE(pickle.ok());
  EXPECT_EQ(pickle.status().offset(), 9u);
  EXPECT_NE(pickle.status().message().find("os.system"), std::string_view::npos);
}

}  // namespace
}  // namespace pome
