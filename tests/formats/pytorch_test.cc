// Files of torch.save: what is read, and one row per way to break one (the numbers are those of
// the checklist of bad inputs, part D).
#include "formats/pytorch.h"

#include <gtest/gtest.h>

#include <functional>

#include "malformed/back_ends.h"
#include "malformed/pytorch_bytes.h"

namespace pome {
namespace {

using namespace malformed;  // NOLINT: builders of the test

Result<PytorchFile> read(const std::string& bytes) {
  return read_pytorch(memory_source(bytes_of(bytes), "m.pt"));
}
const PytorchTensor* find(const PytorchFile& file, std::string_view name) {
  for (const PytorchTensor& tensor : file.tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}
std::string data_of(const PytorchTensor& tensor) {
  std::string out(static_cast<size_t>(tensor.bytes), '\0');
  const Status status = tensor.source->read(tensor.offset, std::as_writable_bytes(std::span(out)));
  EXPECT_TRUE(status.ok()) << status.to_string();
  return out;
}
// A checkpoint with one tensor of bytes of the given sizes and strides.
std::string tensor_file(int64_t offset, const std::vector<int64_t>& sizes,
                        const std::vector<int64_t>& strides, size_t storage = 12) {
  return torch_archive(
             pickle_of(py_dict({py_text("w"), py_tensor(py_storage("CharStorage", "0",
                                                                   static_cast<int64_t>(storage)),
                                                        offset, sizes, strides)})),
             {counting_bytes(storage)})
      .build();
}
std::string file_with(const std::string& value, const std::vector<std::string>& storages = {}) {
  return torch_archive(pickle_of(py_dict({py_text("w"), value})), storages).build();
}

TEST(Pytorch, ReadsAStateDict) {
  const TempFolder folder;
  for (const auto& [name, source] : back_ends(folder, valid_pytorch().build())) {
    const auto file = read_pytorch(source);
    ASSERT_TRUE(file.ok()) << name << file.status().to_string();
    ASSERT_EQ(file->tensors.size(), 5u);
    EXPECT_TRUE(file->warnings.empty());
    const PytorchTensor* a = find(*file, "a");
    EXPECT_EQ(a->dtype, DType::kF32);
    EXPECT_EQ(a->shape, (Shape{2, 3}));
    EXPECT_EQ(a->source, source);  // in place
    EXPECT_EQ(data_of(*a), counting_bytes(24));
    const PytorchTensor* b = find(*file, "b");
    EXPECT_EQ(b->dtype, DType::kBF16);
    EXPECT_EQ(data_of(*b), counting_bytes(10).substr(2));
    EXPECT_EQ(find(*file, "empty")->bytes, 0u);
    EXPECT_EQ(find(*file, "empty")->shape, (Shape{0, 7}));
    EXPECT_EQ(find(*file, "scalar")->bytes, 2u);
    EXPECT_EQ(find(*file, "scalar")->shape, Shape{});
    const std::string in = counting_bytes(24);
    const PytorchTensor* t = find(*file, "t");
    EXPECT_EQ(t->shape, (Shape{3, 2}));
    EXPECT_EQ(data_of(*t), in.substr(0, 4) + in.substr(12, 4) + in.substr(4, 4) + in.substr(16, 4) +
                               in.substr(8, 4) + in.substr(20, 4));
    EXPECT_TRUE(check_checksums(*file).ok());
  }
}

// Bytes of a tensor by the definition: element (i, j, ...) at offset + i * strides[0] + ...
std::string gathered(std::string_view in, int64_t offset, const Shape& sizes,
                     const Shape& strides) {
  std::string out;
  std::vector<int64_t> index(sizes.size(), 0);
  for (bool more = true; more;) {
    int64_t at = offset;
    for (size_t i = 0; i < sizes.size(); ++i) at += index[i] * strides[i];
    out += in[static_cast<size_t>(at)];
    more = false;
    for (size_t i = sizes.size(); i-- > 0 && !more;) {
      more = ++index[i] < sizes[i];
      if (!more) index[i] = 0;
    }
  }
  return out;
}

TEST(Pytorch, GathersEveryPieceOfAStridedTensor) {
  const std::tuple<int64_t, Shape, Shape, size_t> cases[] = {{1, {3, 2, 2}, {1, 6, 3}, 14},
                                                             {0, {5, 4}, {1, 5}, 20},
                                                             {0, {4, 3}, {7, 2}, 30},
                                                             {2, {6}, {3}, 20},
                                                             {0, {2, 2}, {0, 1}, 5},
                                                             {0, {2, 3, 2}, {1, 4, 2}, 13},
                                                             {3, {2, 1, 3, 2}, {1, 50, 2, 7}, 20},
                                                             {0, {3, 2}, {5000, 2500}, 15000},
                                                             {0, {2, 3, 2, 2}, {12, 4, 1, 2}, 24},
                                                             {0, {3, 3}, {1, 9000}, 18100}};
  const TempFolder folder;
  for (const auto& [offset, sizes, strides, storage] : cases) {
    const std::string expected = gathered(counting_bytes(storage), offset, sizes, strides);
    for (const auto& [name, source] :
         back_ends(folder, tensor_file(offset, sizes, strides, storage))) {
      const auto file = read_pytorch(source);
      ASSERT_TRUE(file.ok()) << file.status().to_string();
      const PytorchTensor& tensor = file->tensors[0];
      EXPECT_FALSE(tensor.source->view(0, 1).has_value());
      for (size_t first = 0; first <= expected.size(); ++first) {
        for (size_t size = 0; size <= expected.size() - first; ++size) {
          std::string piece(size, '\0');
          ASSERT_TRUE(tensor.source->read(first, std::as_writable_bytes(std::span(piece))).ok());
          ASSERT_EQ(piece, expected.substr(first, size)) << name << to_string(strides);
        }
      }
      std::string more(2, '\0');
      EXPECT_EQ(tensor.source->read(expected.size() - 1, std::as_writable_bytes(std::span(more)))
                    .refusal(),
                Refusal::kTrunc);
    }
  }
  // Wider elements, read from and to the middle of one.
  const std::string wide =
      torch_archive(pickle_of(py_dict({py_text("w"), py_tensor(py_storage("IntStorage", "0", 6), 0,
                                                               {3, 2}, {1, 3})})),
                    {counting_bytes(24)})
          .build();
  const auto ints = read(wide);
  ASSERT_TRUE(ints.ok());
  const std::string all = data_of(ints->tensors[0]);
  EXPECT_EQ(all.substr(4, 4), counting_bytes(24).substr(12, 4));
  for (size_t first = 0; first < 24; ++first) {
    for (size_t size = 0; size <= 24 - first; ++size) {
      std::string piece(size, '\0');
      ASSERT_TRUE(
          ints->tensors[0].source->read(first, std::as_writable_bytes(std::span(piece))).ok());
      ASSERT_EQ(piece, all.substr(first, size));
    }
  }
}

TEST(Pytorch, OrderDoesNotDependOnDimensionsOfOneElement) {
  for (const auto& strides : {std::vector<int64_t>{99, 3, 7, 1}, {0, 3, 0, 1}}) {
    const auto file = read(tensor_file(2, {1, 2, 1, 3}, strides));
    ASSERT_TRUE(file.ok()) << file.status().to_string();
    EXPECT_EQ(data_of(file->tensors[0]), counting_bytes(8).substr(2));
    EXPECT_GT(file->tensors[0].offset, 0u);  // in place
  }
}

TEST(Pytorch, ReadsEveryDtype) {
  const std::pair<const char*, DType> classes[] = {
      {"FloatStorage", DType::kF32}, {"DoubleStorage", DType::kF64},
      {"HalfStorage", DType::kF16},  {"BFloat16Storage", DType::kBF16},
      {"LongStorage", DType::kI64},  {"IntStorage", DType::kI32},
      {"ShortStorage", DType::kI16}, {"CharStorage", DType::kI8},
      {"ByteStorage", DType::kU8},   {"BoolStorage", DType::kBool}};
  for (const auto& [name, dtype] : classes) {
    const auto bytes = static_cast<size_t>(bits_of(dtype) / 8);
    const auto file =
        read(file_with(py_tensor(py_storage(name, "0", 1), 0, {1}, {1}), {counting_bytes(bytes)}));
    ASSERT_TRUE(file.ok()) << name << file.status().to_string();
    EXPECT_EQ(file->tensors[0].dtype, dtype);
    EXPECT_EQ(file->tensors[0].bytes, bytes);
  }
  const std::pair<const char*, DType> typed[] = {
      {"float8_e4m3fn", DType::kF8E4M3}, {"float8_e5m2", DType::kF8E5M2}, {"uint16", DType::kU16},
      {"uint32", DType::kU32},           {"uint64", DType::kU64},         {"float32", DType::kF32}};
  for (const auto& [name, dtype] : typed) {
    const auto bytes = static_cast<size_t>(bits_of(dtype) / 8) * 3;
    const std::string tensor = py_call(
        py_global("torch._utils", "_rebuild_tensor_v3"),
        {py_storage("UntypedStorage", "0", static_cast<int64_t>(bytes), "torch.storage"), py_int(1),
         py_ints({2}), py_ints({1}), "\x89", py_ordered_dict(), py_global("torch", name)});
    const auto file = read(file_with(tensor, {counting_bytes(bytes)}));
    ASSERT_TRUE(file.ok()) << name << file.status().to_string();
    EXPECT_EQ(file->tensors[0].dtype, dtype);
    EXPECT_EQ(data_of(file->tensors[0]), counting_bytes(bytes).substr(bytes / 3));
  }
}

TEST(Pytorch, ReadsParametersAndTensorsWithAttributes) {
  const std::string storage = py_storage("CharStorage", "0", 3);
  const std::string plain = py_tensor(storage, 0, {3}, {1});
  const std::string state = py_dict({py_text("note"), py_int(1)});
  const std::string arguments =
      py_tuple({storage, py_int(0), py_ints({3}), py_ints({1}), "\x89", py_ordered_dict()});
  for (const std::string& value :
       {py_call(py_global("torch._utils", "_rebuild_parameter"),
                {plain, "\x88", py_ordered_dict()}),
        py_call(py_global("torch._utils", "_rebuild_parameter_with_state"),
                {plain, "\x88", py_ordered_dict(), state}),
        py_call(py_global("torch._tensor", "_rebuild_from_type_v2"),
                {py_global("torch._utils", "_rebuild_tensor_v2"), py_global("torch", "Tensor"),
                 arguments, state}),
        py_call(py_global("torch._utils", "_rebuild_tensor_v2"),
                {storage, py_int(0), py_call(py_global("torch", "Size"), {py_ints({3})}),
                 py_ints({1}), "\x89", py_ordered_dict(), "N"})}) {
    const auto file = read(file_with(value, {counting_bytes(3)}));
    ASSERT_TRUE(file.ok()) << file.status().to_string();
    EXPECT_EQ(data_of(file->tensors[0]), counting_bytes(3));
  }
}

// The rule of docs/pytorch.md.
TEST(Pytorch, FindsTheStateDict) {
  const std::string weights =
      py_dict({py_text("w"), py_tensor(py_storage("CharStorage", "0", 3), 0, {3}, {1})});
  const std::string loss = py_tensor(py_storage("CharStorage", "0", 3), 0, {}, {});
  const auto status_of = [&](const std::string& root) {
    const auto file = read(torch_archive(pickle_of(root), {counting_bytes(3)}).build());
    if (!file.ok()) return std::string(to_string(file.status().refusal()));
    return file->tensors.size() == 1 ? file->tensors[0].name : "?";
  };
  EXPECT_EQ(status_of(weights), "w");
  for (const char* key : {"state_dict", "model_state_dict", "model", "module"}) {
    EXPECT_EQ(status_of(py_dict({py_text("epoch"), py_int(3), py_text(key), weights})), "w");
  }
  // Also beside a tensor and an optimiser.
  EXPECT_EQ(status_of(py_dict({py_text("best_loss"), loss, py_text("model"), weights,
                               py_text("optimizer"), py_dict({py_text("state"), "}"})})),
            "w");
  EXPECT_EQ(status_of(py_dict({py_text("model"), py_dict({py_text("module"), weights})})), "w");
  EXPECT_EQ(status_of(py_dict({py_text("model"), weights, py_text("state_dict"), weights})),
            "range");
  std::string deep = weights;
  for (int i = 0; i < 4; ++i) deep = py_dict({py_text("model"), deep});
  EXPECT_EQ(status_of(deep), "depth");
  EXPECT_EQ(status_of(py_dict({py_text("weights"), weights})), "type");
  EXPECT_EQ(status_of("]"), "type");
  EXPECT_EQ(status_of(loss), "type");
  EXPECT_EQ(status_of("}"), "type");
}

TEST(Pytorch, RemovesPrefixesOfWrappersAndLeavesOthersOut) {
  const std::string one = py_tensor(py_storage("CharStorage", "0", 3), 0, {3}, {1});
  const auto file =
      read(torch_archive(
               pickle_of(py_dict({py_text("module._orig_mod.a"), one, py_text("module._orig_mod.b"),
                                  one, py_text("epoch"), py_int(2)})),
               {counting_bytes(3)})
               .build());
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  EXPECT_NE(find(*file, "a"), nullptr);
  EXPECT_NE(find(*file, "b"), nullptr);
  ASSERT_EQ(file->warnings.size(), 3u);
  EXPECT_NE(file->warnings[0].find("epoch"), std::string::npos);
}

TEST(Pytorch, RefusesBadTensors) {
  struct Row {
    const char* what;
    Refusal refusal;
    std::string bytes;
  };
  const auto storage_file = [](int64_t elements, std::string_view key, size_t bytes,
                               std::string_view type = "FloatStorage") {
    return file_with(py_tensor(py_storage(type, key, elements), 0, {1}, {1}),
                     {counting_bytes(bytes)});
  };
  const std::string s = py_storage("CharStorage", "0", 12);
  const auto with_arguments = [&](const std::vector<std::string>& arguments) {
    return file_with(py_call(py_global("torch._utils", "_rebuild_tensor_v2"), arguments),
                     {counting_bytes(12)});
  };
  const std::string zero = py_int(0), size = py_ints({12}), stride = py_ints({1}), no = "\x89",
                    hooks = py_ordered_dict();
  const Row rows[] = {
      {"102 wraps", Refusal::kOverflow, storage_file(0x4000000000000001, "0", 4)},
      {"102 negative", Refusal::kRange, storage_file(-1, "0", 4)},
      {"103 more", Refusal::kRange, storage_file(2, "0", 4)},
      {"103 fewer", Refusal::kRange, storage_file(1, "0", 8)},
      {"103 half an element", Refusal::kRange, storage_file(1, "0", 5)},
      {"104 rank", Refusal::kBounds, tensor_file(0, {3, 4}, {1})},
      {"104 negative stride", Refusal::kBounds, tensor_file(11, {12}, {-1})},
      {"104 negative size", Refusal::kBounds, tensor_file(0, {-12}, {1})},
      {"104 negative offset", Refusal::kBounds, tensor_file(-1, {1}, {1})},
      {"104 past the end", Refusal::kBounds, tensor_file(1, {12}, {1})},
      {"104 stride past the end", Refusal::kBounds, tensor_file(0, {3, 4}, {5, 1})},
      {"104 empty past the end", Refusal::kBounds, tensor_file(13, {0}, {1})},
      {"sizes wrap", Refusal::kOverflow,
       tensor_file(0, {int64_t{1} << 32, int64_t{1} << 32}, {0, 0})},
      {"strides wrap", Refusal::kOverflow, tensor_file(0, {3, 3}, {INT64_MAX, INT64_MAX})},
      {"offset wraps", Refusal::kBounds, tensor_file(INT64_MAX, {2}, {INT64_MAX})},
      {"repeats", Refusal::kType, tensor_file(0, {13, 2}, {0, 1})},
      {"repeats a lot", Refusal::kType, tensor_file(0, {int64_t{1} << 40}, {0})},
      {"rank 65", Refusal::kLimit,
       tensor_file(0, std::vector<int64_t>(65, 1), std::vector<int64_t>(65, 1))},
      {"105 three", Refusal::kType, with_arguments({s, zero, size})},
      {"105 nine", Refusal::kType,
       with_arguments({s, zero, size, stride, no, hooks, "N", "N", "N"})},
      {"105 no storage", Refusal::kType, with_arguments({zero, zero, size, stride, no, hooks})},
      {"105 offset", Refusal::kType, with_arguments({s, "N", size, stride, no, hooks})},
      {"105 size", Refusal::kType, with_arguments({s, zero, zero, stride, no, hooks})},
      {"105 list", Refusal::kType, with_arguments({s, zero, "]", stride, no, hooks})},
      {"105 size of text", Refusal::kType,
       with_arguments({s, zero, py_tuple({py_text("a")}), stride, no, hooks})},
      {"105 true", Refusal::kType, with_arguments({s, zero, py_tuple({no}), stride, no, hooks})},
      {"105 parameter", Refusal::kType,
       file_with(py_call(py_global("torch._utils", "_rebuild_parameter"), {no, no, hooks}))},
      {"105 parameter of a storage", Refusal::kType,
       file_with(py_call(py_global("torch._utils", "_rebuild_parameter"), {s, no, hooks}),
                 {counting_bytes(12)})},
      {"tensor without a dtype", Refusal::kType,
       file_with(py_tensor(py_storage("UntypedStorage", "0", 12, "torch.storage"), 0, {1}, {1}),
                 {counting_bytes(12)})},
      {"106 path", Refusal::kPath, storage_file(1, "../../x", 4)},
      {"106 absolute", Refusal::kPath, storage_file(1, "/0", 4)},
      {"106 empty", Refusal::kPath, storage_file(1, "", 4)},
      {"106 missing", Refusal::kRange, storage_file(1, "7", 4)},
      {"persistent id", Refusal::kType, file_with(py_text("0") + "Q")},
      {"persistent id of a module", Refusal::kType,
       file_with(py_tuple({py_text("module"), "N", "N"}) + "Q")},
      {"storage of a dtype", Refusal::kType, storage_file(1, "0", 4, "float32")},
      {"two names", Refusal::kDup,
       torch_archive(pickle_of(py_dict({py_text("w"), py_tensor(s, 0, {1}, {1}), py_text("w"),
                                        py_tensor(s, 1, {1}, {1})})),
                     {counting_bytes(12)})
           .build()},
      {"name is a number", Refusal::kType,
       torch_archive(pickle_of(py_dict({zero, py_tensor(s, 0, {1}, {1})})), {counting_bytes(12)})
           .build()},
      {"name is not UTF-8", Refusal::kUtf8,
       torch_archive(pickle_of(py_dict({py_text("\xff"), py_tensor(s, 0, {1}, {1})})),
                     {counting_bytes(12)})
           .build()},
  };
  for (const Row& row : rows) {
    const auto file = read(row.bytes);
    ASSERT_FALSE(file.ok()) << row.what;
    EXPECT_EQ(file.status().refusal(), row.refusal)
        << row.what << ": " << file.status().to_string();
    EXPECT_EQ(file.status().file(), "m.pt") << row.what;
    EXPECT_FALSE(file.status().hint().empty()) << row.what;
  }
  const auto named = read(tensor_file(1, {12}, {1}));
  EXPECT_NE(named.status().message().find("\"w\""), std::string_view::npos);
  const auto negated =
      with_arguments({s, zero, size, stride, no, hooks, py_dict({py_text("neg"), "\x88"})});
  EXPECT_EQ(read(negated).status().code(), StatusCode::kUnsupported);
  EXPECT_EQ(read(negated).status().refusal(), Refusal::kType);
}

TEST(Pytorch, RefusesEveryOtherName) {  // rows 91 and 94
  const std::pair<const char*, const char*> names[] = {
      {"os", "system"},
      {"posix", "system"},
      {"builtins", "eval"},
      {"builtins", "getattr"},
      {"torch", "load"},
      {"torch.hub", "load"},
      {"torch", "hub.load"},
      {"torch.utils._config_module", "load_config"},
      {"torch.storage", "_load_from_bytes"},
      {"torch._utils", "_rebuild_qtensor"},
      {"torch._utils", "_rebuild_sparse_tensor"},
      {"torch._utils", "_rebuild_tensor"},
      {"torch", "QInt8Storage"},
      {"torch", "complex64"},
      {"numpy.core.multiarray", "_reconstruct"},
      {"collections", "namedtuple"},
      {"collections", "OrderedDict.fromkeys"},
      {"Collections", "OrderedDict"},
      {"collections ", "OrderedDict"},
      {"__main__", "Model"},
      {"argparse", "Namespace"}};
  for (const auto& [module, name] : names) {
    for (const std::string& value :
         {py_global(module, name), py_call(py_global(module, name), {py_text("x")}),
          py_text(module) + py_text(name) + "\x93"}) {
      const auto file = read(file_with(value));
      ASSERT_FALSE(file.ok()) << name;
      EXPECT_EQ(file.status().refusal(), Refusal::kGlobal) << file.status().to_string();
      EXPECT_NE(file.status().message().find(std::string(module) + "." + name),
                std::string_view::npos)
          << file.status().to_string();
      EXPECT_NE(file.status().hint().find("state_dict"), std::string_view::npos);
    }
  }
  // Names on the list that are no functions, or not to be rebuilt with.
  for (const std::string& value :
       {py_call(py_global("torch", "FloatStorage"), {py_int(3)}),
        py_call(py_global("torch", "Tensor"), {py_int(3)}), py_call(py_global("torch", "bool"), {}),
        py_call(py_global("torch._tensor", "_rebuild_from_type_v2"),
                {py_global("torch._tensor", "_rebuild_from_type_v2"), py_global("torch", "Tensor"),
                 ")", "}"})}) {
    EXPECT_EQ(read(file_with(value)).status().refusal(), Refusal::kGlobal);
  }
}

TEST(Pytorch, RefusesOtherArchives) {
  const auto refusal_with = [](const std::function<void(ZipBytes&)>& change) {
    ZipBytes zip = valid_pytorch();
    change(zip);
    const auto file = read(zip.build());
    EXPECT_FALSE(file.ok());
    EXPECT_FALSE(file.status().hint().empty());
    return std::pair(file.status().refusal(), file.status().code());
  };
  const auto bad = [](Refusal refusal) { return std::pair(refusal, StatusCode::kBadInput); };
  const auto cannot = std::pair(Refusal::kType, StatusCode::kUnsupported);
  EXPECT_EQ(refusal_with([](ZipBytes& z) {  // row 107
              z.entries.push_back(entry_of("n/data.pkl", z.entries[0].data));
            }),
            bad(Refusal::kDup));
  EXPECT_EQ(refusal_with([](ZipBytes& z) { z.entries[0].name = "m/x/data.pkl"; }),
            bad(Refusal::kMagic));
  EXPECT_EQ(refusal_with([](ZipBytes& z) { z.entries[0].name = "w.npy"; }), bad(Refusal::kMagic));
  EXPECT_EQ(refusal_with([](ZipBytes& z) { z.entries[1].data = "big"; }), cannot);  // row 112
  EXPECT_EQ(refusal_with([](ZipBytes& z) { z.entries[1].data = "middle"; }), bad(Refusal::kType));
  EXPECT_EQ(refusal_with([](ZipBytes& z) { z.entries[1].data = std::string(100, 'l'); }),
            bad(Refusal::kLimit));
  for (const char* version : {"0\n", "11\n", "99999999999999999999999\n", "x"}) {
    EXPECT_EQ(refusal_with([&](ZipBytes& z) { z.entries.back().data = version; }),
              bad(Refusal::kVersion))
        << version;
  }
  EXPECT_EQ(refusal_with([](ZipBytes& z) { z.entries.push_back(entry_of("m/constants.pkl", "")); }),
            cannot);
  EXPECT_EQ(refusal_with([](ZipBytes& z) { z.entries[2].method = 8; }), cannot);  // row 118
  EXPECT_EQ(refusal_with([](ZipBytes& z) { z.entries[0].data = "x"; }), bad(Refusal::kMagic));
  EXPECT_EQ(refusal_with([](ZipBytes& z) { z.entries[0].data = ""; }), bad(Refusal::kTrunc));

  // Bytes of the pickle that are not those of the checksum.
  std::string bytes = valid_pytorch().build();
  bytes[bytes.find("_metadata")] = 'x';
  EXPECT_EQ(read(bytes).status().refusal(), Refusal::kIntegrity);
  // Bytes of a tensor: seen when asked for.
  bytes = valid_pytorch().build();
  bytes[bytes.find(counting_bytes(24)) + 3] ^= 1;
  const auto file = read(bytes);
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(check_checksums(*file).refusal(), Refusal::kIntegrity);
}

TEST(Pytorch, RecognisesOldForms) {
  const std::string magic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
  const auto status_of = [](const std::string& bytes) {
    const ByteSourcePtr source = memory_source(bytes_of(bytes), "old.pt");
    EXPECT_TRUE(looks_like_pytorch(*source));
    const Status status = read_pytorch(source).status();
    EXPECT_FALSE(status.hint().empty());
    return status;
  };
  const Status legacy = status_of(magic + pickle_of(py_int(1001)));
  EXPECT_EQ(legacy.code(), StatusCode::kUnsupported);
  EXPECT_NE(legacy.message().find("1.6"), std::string_view::npos);
  EXPECT_NE(legacy.hint().find("torch.save"), std::string_view::npos);
  std::string tar(512, '\0');
  tar.replace(257, 5, "ustar");
  EXPECT_EQ(status_of(tar).code(), StatusCode::kUnsupported);
  EXPECT_EQ(status_of(pickle_of(py_int(12345))).refusal(), Refusal::kMagic);  // row 108
}

TEST(Pytorch, RecognisesWhatIsNoCheckpoint) {  // rows 109 and 110
  EXPECT_NE(read("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
                .status()
                .message()
                .find("Git LFS"),
            std::string_view::npos);
  EXPECT_NE(read("<!DOCTYPE html><html></html>").status().message().find("web page"),
            std::string_view::npos);
  EXPECT_EQ(read("").status().refusal(), Refusal::kTrunc);
  EXPECT_EQ(read(std::string(100, '\7')).status().refusal(), Refusal::kMagic);
}

TEST(Pytorch, RefusesEveryCut) {  // row 96
  const std::string whole = valid_pytorch().build();
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto file = read(whole.substr(0, size));
    ASSERT_FALSE(file.ok()) << size;
    EXPECT_FALSE(file.status().hint().empty()) << size;
  }
}

TEST(Pytorch, ManyTensorsTakeLinearTime) {
  std::string body = "}(";
  std::vector<std::string> storages;
  constexpr int kCount = 20'000;
  for (int i = 0; i < kCount; ++i) {
    const std::string key = std::to_string(i);
    body += py_text("layer." + key) + py_tensor(py_storage("CharStorage", key, 1), 0, {1}, {1});
    storages.push_back("x");
  }
  const auto file = read(torch_archive(pickle_of(body + "u"), storages).build());
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  EXPECT_EQ(file->tensors.size(), static_cast<size_t>(kCount));
}

}  // namespace
}  // namespace pome
