// Codes of fewer than eight bits in weight files of Core ML, where matrices end within a byte.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "export/coreml.h"
#include "export/tiny_graph.h"
#include "formats/mil.h"
#include "support/zoo.h"

namespace pome {
namespace {

// No dimension of a matrix is even.
Graph odd_graph(const Encoding& encoding) {
  TinyOptions out;
  out.hidden = out.ffn = 63;
  out.vocab = 97;
  out.heads = 3;
  out.kv_heads = 1;
  out.head_dim = 21;
  out.rotary_dim = 20;
  out.encoding = encoding;
  return tiny_graph(out);
}

// Every record that a function refers to: where it has to lie, and nothing behind its codes.
// Returns how many have bits to spare.
int check_records(const mil::Package& package) {
  const ByteSource& file = *package.weight_files.begin()->second;
  int ragged = 0;
  for (const mil::Operation& op : package.model.functions[0].operations)
    for (const auto& [name, bindings] : op.inputs)
      for (const mil::Binding& binding : bindings) {
        const auto* const value = std::get_if<mil::ValueData>(&binding);
        const auto* const blob = value ? std::get_if<mil::BlobRef>(&value->data) : nullptr;
        if (!blob) continue;
        EXPECT_EQ(blob->offset % 64, 0u) << name;
        uint64_t header[3];  // bytes, place, bits to spare
        EXPECT_TRUE(file.read(blob->offset + 8, std::as_writable_bytes(std::span(header))).ok());
        EXPECT_EQ(header[1], blob->offset + 64) << name;
        uint64_t bits = static_cast<uint64_t>(bits_of(value->type.dtype));
        for (const int64_t dim : value->type.dims) bits *= static_cast<uint64_t>(dim);
        EXPECT_EQ(header[0], (bits + 7) / 8) << name;
        EXPECT_EQ(header[2], header[0] * 8 - bits) << name;
        if (bits % 8 == 0) continue;
        ++ragged;
        std::byte last;
        EXPECT_TRUE(file.read(header[1] + header[0] - 1, {&last, 1}).ok());
        EXPECT_EQ(std::to_integer<int>(last) >> bits % 8, 0) << name;
      }
  return ragged;
}

// As the package has it.
std::string name_of(const Constant& constant) {
  std::string name = constant.name;
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
}

class CoremlPacking : public testing::TestWithParam<Encoding> {};

TEST_P(CoremlPacking, BitsBehindTheLastCodeAreZero) {
  const Graph graph = odd_graph(GetParam());
  const std::string path = export_folder("packing");
  CoremlOptions options;
  options.context = 24;
  options.chunk = 8;
  const auto report = export_coreml(graph, options, path, {});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  const auto package = mil::read_package(path);
  ASSERT_TRUE(package.ok()) << package.status().to_string();
  ASSERT_EQ(package->weight_files.size(), 1u);
  const bool bytes = GetParam().bits == 8 && !GetParam().is_sparse();
  EXPECT_EQ(check_records(*package) > 14, !bytes);  // seven matrices of each layer, the embedding

  // What is stored is what the encoder made, bit for bit.
  const bool lut = GetParam().kind == EncodingKind::kLut;
  int compared = 0;
  for (const mil::Operation& op : package->model.functions[0].operations) {
    if (op.type != (lut ? "constexpr_lut_to_dense" : "constexpr_blockwise_shift_scale")) continue;
    for (const Constant& constant : graph.constants) {
      if (name_of(constant) != op.outputs[0].name) continue;
      EncodedTile tile;
      ASSERT_TRUE(constant.data->read_tile(0, constant.data->rows(), &tile).ok());
      for (const auto& [name, bindings] : op.inputs) {
        const bool codes = name == "indices" || name == "data";
        const auto stored = mil::load_value(*package, std::get<mil::ValueData>(bindings.at(0)));
        ASSERT_TRUE(stored.ok()) << stored.status().to_string();
        const std::span<const std::byte> part = tile.parts[codes ? 0 : 1];
        EXPECT_TRUE(
            std::equal(part.begin(), part.end(), stored->bytes().begin(), stored->bytes().end()))
            << constant.name << " " << name;
      }
      ++compared;
    }
  }
  EXPECT_EQ(compared, GetParam().is_sparse() ? 0 : 15);
  std::filesystem::remove_all(std::filesystem::path(path).parent_path());
}

INSTANTIATE_TEST_SUITE_P(Encodings, CoremlPacking,
                         testing::Values(Encoding::lut(1, 1), Encoding::lut(2, 1),
                                         Encoding::lut(3, 1), Encoding::lut(4, 1),
                                         Encoding::lut(6, 1), Encoding::lut(8, 1),
                                         Encoding::int_blocks(4, 63), Encoding::int_blocks(4, 7),
                                         Encoding::int_blocks(8, 63),
                                         Encoding::sparse(Encoding::lut(3, 1), 31),
                                         Encoding::sparse(Encoding::int_blocks(4, 63), 31)),
                         [](const auto& row) { return test::test_name(to_string(row.param)); });

}  // namespace
}  // namespace pome
