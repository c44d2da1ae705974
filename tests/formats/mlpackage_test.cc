// The ML Program format: what is written comes back, and malformed packages are refused by name.
#include <algorithm>
#include <filesystem>
#include <functional>
#include <protozero/pbf_writer.hpp>
#include <span>

#include "formats/mil.h"
#include "formats/mil_samples.h"

namespace pome::mil {
namespace {

namespace fs = std::filesystem;
using Writer = protozero::pbf_writer;

Result<Model> parse(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return parse_model(memory_source({bytes.begin(), bytes.end()}, "test.mlmodel"));
}
Result<Model> parse(std::vector<std::byte> bytes) {
  return parse_model(memory_source(std::move(bytes), "test.mlmodel"));
}

// A model whose program holds one function with one block; `fill` writes the block's fields.
std::string model_with_block(const std::function<void(Writer&)>& fill, int64_t spec = 9,
                             const std::string& opset = "CoreML8") {
  std::string out;
  Writer model(out);
  model.add_int64(1, spec);
  {
    Writer program(model, 502);
    program.add_int64(1, 1);
    Writer entry(program, 2);
    entry.add_string(1, "main");
    Writer function(entry, 2);
    function.add_string(2, opset);
    Writer body(function, 3);
    body.add_string(1, opset);
    Writer block(body, 2);
    fill(block);
  }
  return out;
}
// The same with one const operation whose attribute `val` is written by `fill`.
std::string model_with_value(const std::function<void(Writer&)>& fill) {
  return model_with_block([&](Writer& block) {
    Writer op(block, 3);
    op.add_string(1, "const");
    Writer entry(op, 5);
    entry.add_string(1, "val");
    Writer value(entry, 2);
    fill(value);
  });
}
void add_tensor_type(Writer& value, uint32_t field, int32_t dtype, std::vector<uint64_t> dims,
                     int64_t rank = -1) {
  Writer type(value, field);
  Writer tensor(type, 1);
  tensor.add_enum(1, dtype);
  tensor.add_int64(2, rank < 0 ? static_cast<int64_t>(dims.size()) : rank);
  for (const uint64_t dim : dims) {
    Writer dimension(tensor, 3);
    Writer constant_dim(dimension, 1);
    constant_dim.add_uint64(1, dim);
  }
}

void expect_refused(const Status& status, Refusal refusal, const std::string& what) {
  EXPECT_FALSE(status.ok()) << what;
  EXPECT_EQ(to_string(status.refusal()), to_string(refusal)) << what << ": " << status.to_string();
}

TEST(MilModel, ComesBackAsItWasWritten) {
  const Model model = sample_model();
  const auto bytes = serialize(model);
  ASSERT_TRUE(bytes.ok()) << bytes.status().to_string();
  const auto back = parse(*bytes);
  ASSERT_TRUE(back.ok()) << back.status().to_string();
  EXPECT_TRUE(*back == sorted(model));
  const auto again = serialize(*back);
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(*again == *bytes);
}

TEST(MilModel, EveryImmediateTypeComesBack) {
  Model model = sample_model();
  auto& ops = model.functions[0].operations;
  for (int code = 0; code < kDTypeCount; ++code) {
    const DType dtype = static_cast<DType>(code);
    const auto size = storage_bytes(dtype, 5);
    ASSERT_TRUE(size);
    std::vector<std::byte> bytes(*size);
    for (size_t i = 0; i < bytes.size(); ++i) {
      bytes[i] = static_cast<std::byte>(dtype == DType::kBool ? i % 2 : 0xF1 + 7 * i);
    }
    ops.push_back(constant("t" + std::to_string(code), {tensor_type(dtype, {5, 1}), bytes}));
  }
  const auto bytes = serialize(model);
  ASSERT_TRUE(bytes.ok()) << bytes.status().to_string();
  const auto back = parse(*bytes);
  ASSERT_TRUE(back.ok()) << back.status().to_string();
  EXPECT_TRUE(*back == sorted(model));
}

TEST(MilModel, SeveralFunctionsComeBack) {
  Model model = sample_model();
  Function decode = model.functions[0];
  model.functions[0].name = "prefill";
  decode.name = "decode";
  model.functions.insert(model.functions.begin(), decode);
  model.descriptions.push_back(model.descriptions[0]);
  model.descriptions[0].name = "prefill";
  model.descriptions[1].name = "decode";
  model.default_function = "decode";
  const auto bytes = serialize(model);
  ASSERT_TRUE(bytes.ok()) << bytes.status().to_string();
  const auto back = parse(*bytes);
  ASSERT_TRUE(back.ok()) << back.status().to_string();
  EXPECT_TRUE(*back == sorted(model));

  Model lost = model;
  lost.default_function = "nowhere";
  expect_refused(parse(*serialize(lost)).status(), Refusal::kRange, "dangling default function");
  Model twice = model;
  twice.descriptions[0].name = "decode";
  expect_refused(parse(*serialize(twice)).status(), Refusal::kDup, "described twice");
}

// The bytes of the format's description for the constants 0 (int32), [1, 2, 3, 0, 15, 9] (uint4)
// and the dimension 0.
TEST(MilModel, BytesAreThoseOfTheFormat) {
  Model model = sample_model();
  model.functions[0].operations.push_back(constant("zero", ValueData::scalar_i32(0)));
  model.functions[0].operations.push_back(constant(
      "nibbles", {tensor_type(DType::kU4, {6}),
                  std::vector<std::byte>{std::byte{0x21}, std::byte{0x03}, std::byte{0x9f}}}));
  const auto bytes = serialize(model);
  ASSERT_TRUE(bytes.ok());
  const auto contains = [&](std::vector<uint8_t> wanted) {
    const auto raw = std::as_bytes(std::span(wanted));
    return std::search(bytes->begin(), bytes->end(), raw.begin(), raw.end()) != bytes->end();
  };
  EXPECT_TRUE(contains(
      {0x12, 0x04, 0x0a, 0x02, 0x08, 0x17, 0x1a, 0x07, 0x0a, 0x05, 0x12, 0x03, 0x0a, 0x01, 0x00}));
  EXPECT_TRUE(contains({0x3a, 0x05, 0x0a, 0x03, 0x21, 0x03, 0x9f}));
  EXPECT_TRUE(contains({0x1a, 0x02, 0x0a, 0x00}));
}

TEST(MilModel, EveryPrefixIsRefused) {
  const auto bytes = serialize(sample_model());
  ASSERT_TRUE(bytes.ok());
  for (size_t size = 0; size < bytes->size(); ++size) {
    const auto back = parse(std::vector<std::byte>(bytes->begin(), bytes->begin() + size));
    EXPECT_FALSE(back.ok()) << size;
  }
}

// A changed byte may give another valid model, but never a crash, and what parses can be written.
TEST(MilModel, EveryChangedByteIsHandled) {
  const auto bytes = serialize(sample_model());
  ASSERT_TRUE(bytes.ok());
  for (size_t at = 0; at < bytes->size(); ++at) {
    for (const int flip : {0x01, 0x80, 0xFF}) {
      auto changed = *bytes;
      changed[at] ^= static_cast<std::byte>(flip);
      const auto back = parse(changed);
      if (back.ok()) (void)serialize(*back);
    }
  }
}

TEST(MilWire, NumbersAndLengths) {
  using S = std::string;
  const auto raw = [](std::initializer_list<int> bytes) {
    S out;
    for (const int byte : bytes) out.push_back(static_cast<char>(byte));
    return out;
  };
  const S eleven = raw({0x08}) + S(10, '\x80') + raw({0x01});
  expect_refused(parse(eleven).status(), Refusal::kRange, "11 bytes");
  const S wide = raw({0x08}) + S(9, '\xff') + raw({0x7f});
  expect_refused(parse(wide).status(), Refusal::kRange, "more than 64 bits");
  expect_refused(parse(raw({0x12, 0x80, 0x80, 0x80, 0x80, 0x08})).status(), Refusal::kTrunc,
                 "2^31");
  expect_refused(parse(raw({0x12}) + S(9, '\x80') + raw({0x01})).status(), Refusal::kTrunc, "2^63");
  // A length that fits the file but not the message around it.
  expect_refused(parse(raw({0x08, 0x09, 0x12, 0x02, 0x0a, 0x05, 0x08, 0x09, 0x08, 0x09})).status(),
                 Refusal::kBounds, "longer than its parent");
  expect_refused(parse(raw({0x0e, 0x00})).status(), Refusal::kType, "wire type 6");
  expect_refused(parse(raw({0x0f, 0x00})).status(), Refusal::kType, "wire type 7");
  expect_refused(parse(raw({0x00, 0x00})).status(), Refusal::kType, "field 0");
  expect_refused(parse(raw({0x13, 0x14})).status(), Refusal::kType, "a group");
  expect_refused(parse(S(1000000, '\x13')).status(), Refusal::kDepth, "nested groups");
  expect_refused(parse(raw({0x0a, 0x01, 0x09})).status(), Refusal::kType, "version as text");
}

TEST(MilWire, Depth) {
  // Lists of lists: field 2 (listType) of a type, whose field 1 is a type.
  const auto lists = [](int levels) {
    std::string type;
    {
      Writer leaf(type);
      Writer tensor(leaf, 1);
      tensor.add_enum(1, 11);
    }
    for (int i = 0; i < levels; ++i) {
      std::string list, outer;
      Writer(list).add_message(1, type);
      Writer(outer).add_message(2, list);
      type = outer;
    }
    return model_with_value([&](Writer& value) { value.add_message(2, type); });
  };
  expect_refused(parse(lists(60)).status(), Refusal::kDepth, "types");
  EXPECT_NE(parse(lists(20)).status().refusal(), Refusal::kDepth);

  // Blocks within operations.
  std::string block;
  for (int i = 0; i < 60; ++i) {
    std::string op, outer;
    {
      Writer writer(op);
      writer.add_string(1, "cond");
      writer.add_message(4, block);
    }
    Writer(outer).add_message(3, op);
    block = outer;
  }
  const auto with = [](const std::string& inner) {
    return model_with_block([&](Writer& writer) {
      Writer op(writer, 3);
      op.add_string(1, "cond");
      op.add_message(4, inner);
    });
  };
  expect_refused(parse(with(block)).status(), Refusal::kDepth, "blocks");
  const auto flat = parse(with(""));
  EXPECT_EQ(flat.status().code(), StatusCode::kUnsupported) << flat.status().to_string();
}

TEST(MilModel, VersionsAndKinds) {
  const auto nothing = [](Writer& block) { block.add_string(2, "y"); };
  for (const int64_t spec : {0, 5, 11, 1000000, -1}) {
    expect_refused(parse(model_with_block(nothing, spec)).status(), Refusal::kVersion,
                   std::to_string(spec));
  }
  for (const char* opset : {"CoreML4", "CoreML10", "", "CoreML", "coreml8"}) {
    expect_refused(parse(model_with_block(nothing, 9, opset)).status(), Refusal::kVersion, opset);
  }
  std::string network;
  Writer writer(network);
  writer.add_int32(1, 9);
  writer.add_message(500, std::string(""));
  expect_refused(parse(network).status(), Refusal::kRange, "a neural network");
  std::string twice;
  Writer again(twice);
  again.add_int32(1, 9);
  again.add_message(502, std::string("\x08\x01"));
  again.add_message(502, std::string("\x08\x01"));
  expect_refused(parse(twice).status(), Refusal::kDup, "two programs");
}

TEST(MilModel, Values) {
  const auto value = [](int32_t dtype, std::vector<uint64_t> dims, uint32_t member,
                        const std::string& raw, int64_t rank = -1) {
    return parse(model_with_value([&](Writer& out) {
             add_tensor_type(out, 2, dtype, dims, rank);
             Writer immediate(out, 3);
             Writer tensor(immediate, 1);
             Writer values(tensor, member);
             values.add_bytes(1, raw);
           }))
        .status();
  };
  expect_refused(value(11, {2}, 1, std::string(7, '\0')), Refusal::kRange,
                 "packed floats, 7 bytes");
  expect_refused(value(12, {1}, 6, std::string(12, '\0')), Refusal::kRange, "packed doubles");
  expect_refused(value(11, {2}, 1, std::string(4, '\0')), Refusal::kRange, "one float for two");
  expect_refused(value(10, {2}, 7, std::string(3, '\0')), Refusal::kRange, "3 bytes for two fp16");
  expect_refused(value(10, {2}, 1, std::string(8, '\0')), Refusal::kType, "fp16 among the floats");
  expect_refused(value(99, {2}, 7, std::string(2, '\0')), Refusal::kType, "unknown data type");
  expect_refused(value(10, {2}, 7, std::string(4, '\0'), 2), Refusal::kRange, "rank 2, one dim");
  expect_refused(value(21, {uint64_t{1} << 62, 4}, 7, ""), Refusal::kOverflow, "product wraps");
  expect_refused(value(21, {uint64_t{1} << 63}, 7, ""), Refusal::kOverflow, "2^63");
  expect_refused(value(1, {1}, 3, "\x02"), Refusal::kRange, "bool 2");
  expect_refused(value(22, {1}, 2, std::string("\x80\x80\x04", 3)), Refusal::kRange, "int16 65536");
  expect_refused(value(2, {1}, 4, "\xff\xfe"), Refusal::kUtf8, "text");
  // What remains to refuse in a sound value is only the missing description.
  expect_refused(value(10, {2}, 7, std::string(4, '\0')), Refusal::kRange, "no description");
  const auto both = parse(model_with_value([](Writer& out) {
    add_tensor_type(out, 2, 21, {1});
    { Writer(out, 3).add_message(1, std::string("\x3a\x03\x0a\x01x")); }
    out.add_message(5, std::string(""));
  }));
  expect_refused(both.status(), Refusal::kRange, "immediate and blob");
  const auto neither =
      parse(model_with_value([](Writer& out) { add_tensor_type(out, 2, 21, {1}); }));
  expect_refused(neither.status(), Refusal::kRange, "no value");
}

TEST(MilModel, NamesAndOrder) {
  const auto broken = [](const std::function<void(Function*)>& change) {
    Model model = sample_model();
    const auto good = serialize(model);
    EXPECT_TRUE(good.ok());
    change(&model.functions[0]);
    return serialize(model).status();  // the writer applies the reader's checks
  };
  expect_refused(broken([](Function* f) { f->operations.push_back(f->operations[0]); }),
                 Refusal::kDup, "defined twice");
  expect_refused(
      broken([](Function* f) { std::swap(f->operations.front(), f->operations.back()); }),
      Refusal::kRange, "use before definition");
  expect_refused(broken([](Function* f) { f->outputs = {"nobody"}; }), Refusal::kRange, "output");
  expect_refused(broken([](Function* f) { f->outputs = {"cache"}; }), Refusal::kRange, "state out");
  expect_refused(
      broken([](Function* f) { f->operations.back().inputs[0].second = {std::string("cache")}; }),
      Refusal::kRange, "state as operand");
  expect_refused(broken([](Function* f) {
                   f->operations[f->operations.size() - 2].inputs[0].second = {std::string("x")};
                 }),
                 Refusal::kRange, "read_state of a value");
  expect_refused(broken([](Function* f) { f->operations[0].attributes.erase("val"); }),
                 Refusal::kRange, "const without value");
}

// ---- the folder

TEST(MlPackage, ReadsWhatWasWritten) {
  const SamplePackage sample = write_sample("reads");
  const auto package = read_package(sample.path);
  ASSERT_TRUE(package.ok()) << package.status().to_string();
  EXPECT_TRUE(package->model == sorted(sample_model()));
  const ValueData& weight = package->model.functions[0].operations[0].attributes.at("val");
  const auto tensor = load_value(*package, weight);
  ASSERT_TRUE(tensor.ok()) << tensor.status().to_string();
  EXPECT_EQ(tensor->shape(), (Shape{3, 5}));
  for (size_t i = 0; i < 15; ++i) EXPECT_EQ(tensor->as<uint16_t>()[i], i);
  const auto small = load_value(*package, ValueData::i32s({4, 5}));
  ASSERT_TRUE(small.ok());
  EXPECT_EQ(small->as<int32_t>()[1], 5);
  EXPECT_FALSE(load_value(*package, ValueData::string("x")).ok());
}

TEST(MlPackage, WriterLaysRecordsOut) {
  const std::string path = temp_folder("layout") + "/weight.bin";
  auto writer = BlobWriter::create(path);
  ASSERT_TRUE(writer.ok());
  const auto first = (*writer)->reserve(DType::kU3, 11);
  ASSERT_TRUE(first.ok());
  const auto second = (*writer)->begin(DType::kI8, 1);
  ASSERT_TRUE(second.ok());
  const std::byte one{7};
  ASSERT_TRUE((*writer)->write(std::span(&one, 1)).ok());
  ASSERT_TRUE((*writer)->end().ok());
  const std::vector<std::byte> late(5, std::byte{0x11});
  ASSERT_TRUE((*writer)->write_at(*first + 64, late).ok());
  ASSERT_TRUE((*writer)->finish().ok());
  EXPECT_EQ(*first, 64u);
  EXPECT_EQ(*second, 192u);
  const auto bytes = read_raw(path);
  ASSERT_EQ(bytes.size(), 257u);
  const auto u32 = [&](size_t at) {
    uint32_t value;
    std::memcpy(&value, bytes.data() + at, 4);
    return value;
  };
  EXPECT_EQ(u32(0), 2u);
  EXPECT_EQ(u32(4), 2u);
  EXPECT_EQ(u32(64), 0xDEADBEEFu);
  EXPECT_EQ(u32(68), 12u);
  EXPECT_EQ(u32(72), 5u);
  EXPECT_EQ(u32(80), 128u);
  EXPECT_EQ(u32(88), 7u);  // 40 - 33 bits
  EXPECT_EQ(bytes[128], std::byte{0x11});
  EXPECT_EQ(u32(196), 4u);
  EXPECT_EQ(u32(216), 0u);
  EXPECT_EQ(bytes[256], one);
}

// Codes of every width, of lengths that end within a byte and between two multiples of 64.
TEST(MlPackage, PackedCodesComeBackFromAlignedRecords) {
  const std::string path = temp_folder("packed") + "/weight.bin";
  constexpr DType kTypes[] = {DType::kU1, DType::kU2, DType::kU3,
                              DType::kU4, DType::kU6, DType::kU8};
  struct Stored {
    DType dtype;
    std::vector<uint8_t> codes;
    uint64_t offset;
  };
  std::vector<Stored> all;
  auto writer = BlobWriter::create(path);
  ASSERT_TRUE(writer.ok());
  for (const DType dtype : kTypes)
    for (const size_t count : {1u, 3u, 7u, 8u, 9u, 61u, 63u, 65u, 171u, 513u}) {
      Stored stored{dtype, std::vector<uint8_t>(count), 0};
      const int bits = bits_of(dtype);
      for (size_t i = 0; i < count; ++i)
        stored.codes[i] = static_cast<uint8_t>((i * 37 + 255) & ((1u << bits) - 1));
      std::vector<std::byte> packed(*storage_bytes(dtype, count), std::byte{0xFF});
      pack_bits(stored.codes, bits, packed);
      const auto at = (*writer)->begin(dtype, count);
      ASSERT_TRUE(at.ok());
      ASSERT_TRUE((*writer)->write(packed).ok());
      ASSERT_TRUE((*writer)->end().ok());
      stored.offset = *at;
      all.push_back(std::move(stored));
    }
  ASSERT_TRUE((*writer)->finish().ok());

  const auto bytes = read_raw(path);
  Package package;
  auto source = open_mapped(path);
  ASSERT_TRUE(source.ok());
  package.weight_files["w"] = *source;
  uint64_t end = 64;
  for (const auto& [dtype, codes, offset] : all) {
    SCOPED_TRACE(std::string(to_string(dtype)) + " " + std::to_string(codes.size()));
    EXPECT_EQ(offset % 64, 0u);
    EXPECT_EQ(offset, (end + 63) / 64 * 64);
    for (uint64_t i = end; i < offset; ++i) EXPECT_EQ(bytes[i], std::byte{0}) << i;
    const size_t used = codes.size() * static_cast<size_t>(bits_of(dtype)), size = (used + 7) / 8;
    uint64_t header[3];
    std::memcpy(header, bytes.data() + offset + 8, sizeof header);
    EXPECT_EQ(header[0], size);
    EXPECT_EQ(header[1], offset + 64);
    EXPECT_EQ(header[2], size * 8 - used);
    end = offset + 64 + size;
    if (used % 8 != 0) {
      EXPECT_EQ(std::to_integer<int>(bytes[end - 1]) >> used % 8, 0);
    }
    const auto tensor = load_value(
        package,
        ValueData::blob(tensor_type(dtype, {static_cast<int64_t>(codes.size())}), {"w", offset}));
    ASSERT_TRUE(tensor.ok()) << tensor.status().to_string();
    std::vector<uint8_t> back(codes.size());
    unpack_bits(tensor->bytes(), bits_of(dtype), 0, back);
    EXPECT_EQ(back, codes);
  }
  EXPECT_EQ(bytes.size(), end);
}

TEST(MlPackage, ManifestRules) {
  const SamplePackage sample = write_sample("manifest");
  const std::string good = "com.apple.CoreML/model.mlmodel";
  const auto refused = [&](const std::string& manifest) {
    write_raw(sample.manifest, manifest);
    return read_package(sample.path).status();
  };
  EXPECT_TRUE(refused(manifest_with(good)).ok());
  for (const char* path : {"../../secret", "/etc/passwd", "a/../../b", "a/..", "./a", "a//b", "",
                           "..\\\\x", "C:x", "a\\u0000b", "com.apple.CoreML/"}) {
    expect_refused(refused(manifest_with(path)), Refusal::kPath, path);
  }
  for (const char* version :
       {"1.0", "-1.0.0", "999.0.0", "1.0.0x", "1.0.1", "", "1..0", "1.0.0.0"}) {
    expect_refused(refused(manifest_with(good, version)), Refusal::kVersion, version);
  }
  expect_refused(refused(manifest_with(good, "1.0.0", "nobody")), Refusal::kRange, "dangling root");
  expect_refused(refused(manifest_with("com.apple.CoreML/weights")), Refusal::kRange,
                 "one path twice");
  expect_refused(refused(R"({"fileFormatVersion": "1.0.0", "itemInfoEntries": {}})"),
                 Refusal::kRange, "no root");
  expect_refused(refused(R"({"fileFormatVersion": 1, "rootModelIdentifier": "m"})"), Refusal::kType,
                 "version as number");
  expect_refused(refused("[]"), Refusal::kType, "no object");
  expect_refused(refused(R"({"fileFormatVersion": "1.0.0", "rootModelIdentifier": "m",
                             "itemInfoEntries": {"m": 5}})"),
                 Refusal::kType, "item as number");
  EXPECT_EQ(refused(manifest_with("com.apple.CoreML/other.mlmodel")).code(), StatusCode::kMissing);
  fs::remove(sample.manifest);
  EXPECT_EQ(read_package(sample.path).status().code(), StatusCode::kMissing);
  EXPECT_EQ(read_package(sample.path + "x").status().code(), StatusCode::kMissing);
  expect_refused(read_package(sample.model).status(), Refusal::kType, "a file");
}

TEST(MlPackage, LinksStayInside) {
  const SamplePackage sample = write_sample("links");
  const std::string outside = temp_folder("links_outside");
  fs::rename(sample.model, outside + "/model.mlmodel");
  fs::create_symlink(outside + "/model.mlmodel", sample.model);
  expect_refused(read_package(sample.path).status(), Refusal::kLink, "model outside");
  fs::remove(sample.model);
  fs::copy_file(outside + "/model.mlmodel", sample.model);
  EXPECT_TRUE(read_package(sample.path).ok());
  fs::rename(sample.weights, outside + "/weight.bin");
  fs::create_symlink(outside + "/weight.bin", sample.weights);
  expect_refused(read_package(sample.path).status(), Refusal::kLink, "weights outside");
  fs::remove(sample.weights);
  const Status gone = read_package(sample.path).status();
  EXPECT_EQ(gone.code(), StatusCode::kMissing);
  EXPECT_NE(gone.to_string().find("weight.bin"), std::string::npos) << gone.to_string();
}

TEST(MlPackage, WeightFileNames) {
  const SamplePackage sample = write_sample("names");
  for (const char* name : {"@model_path/../x", "weights/weight.bin", "/etc/passwd", "@model_path/",
                           "@model_path//etc/passwd", ""}) {
    Model model = sample_model();
    std::get<BlobRef>(model.functions[0].operations[0].attributes.at("val").data).file = name;
    const auto bytes = serialize(model);
    ASSERT_TRUE(bytes.ok());
    write_raw(sample.model, *bytes);
    expect_refused(read_package(sample.path).status(), Refusal::kPath, name);
  }
}

TEST(MlPackage, Records) {
  const SamplePackage sample = write_sample("records");
  const auto good = read_raw(sample.weights);
  const auto changed = [&](size_t at, uint64_t value, size_t width) {
    auto bytes = good;
    std::memcpy(bytes.data() + at, &value, width);
    write_raw(sample.weights, bytes);
    return read_package(sample.path).status();
  };
  expect_refused(changed(64, 0xDEADBEEE, 4), Refusal::kMagic, "sentinel");
  expect_refused(changed(68, 2, 4), Refusal::kType, "fp32 record");
  expect_refused(changed(68, 77, 4), Refusal::kType, "unknown code");
  expect_refused(changed(72, 31, 8), Refusal::kRange, "size");
  expect_refused(changed(80, 64, 8), Refusal::kBounds, "data within the record");
  expect_refused(changed(80, ~uint64_t{0}, 8), Refusal::kBounds, "data at 2^64-1");
  expect_refused(changed(4, 1, 4), Refusal::kVersion, "storage version 1");
  for (size_t size = 0; size < good.size(); ++size) {
    write_raw(sample.weights,
              std::vector<std::byte>(good.begin(), good.begin() + static_cast<long>(size)));
    expect_refused(read_package(sample.path).status(), Refusal::kTrunc, std::to_string(size));
  }
  write_raw(sample.weights, good);
  for (const uint64_t offset :
       {uint64_t{0}, uint64_t{32}, uint64_t{65}, uint64_t{1} << 40, ~uint64_t{0} - 63}) {
    write_raw(sample.model, *serialize(sample_model(offset)));
    const Status status = read_package(sample.path).status();
    EXPECT_FALSE(status.ok()) << offset;
    EXPECT_TRUE(status.refusal() == Refusal::kBounds || status.refusal() == Refusal::kTrunc)
        << status.to_string();
  }
}

TEST(MlPackage, ManifestIsAFunctionOfItsSeed) {
  EXPECT_EQ(package_manifest("a"), package_manifest("a"));
  EXPECT_NE(package_manifest("a"), package_manifest("b"));
}

}  // namespace
}  // namespace pome::mil
