// Palettes of real weights against the k-means of coremltools, and int4 against the rule of the
// largest value.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "quantize/int_scale.h"
#include "quantize/quantize.h"
#include "tensor/half.h"
#include "tensor/tensor.h"

namespace pome {
namespace {

namespace fs = std::filesystem;

constexpr const char* kScript = R"(
import sys
import numpy as np
from coremltools._deps import kmeans1d
model, out = sys.argv[1:]
import struct, json
data = open(model, 'rb').read()
size = struct.unpack('<Q', data[:8])[0]
entry = json.loads(data[8:8 + size])['model.layers.0.mlp.gate_proj.weight']
assert entry['dtype'] == 'BF16'
begin, end = entry['data_offsets']
bits16 = np.frombuffer(data[8 + size + begin:8 + size + end], np.uint16).astype(np.uint32)
w = (bits16 << 16).view(np.float32).reshape(entry['shape'])
w.tofile(out + '.f32')
half = w.astype(np.float16)
with open(out + '.txt', 'w') as f:
    print(*w.shape, file=f)
    for bits in (2, 3, 4, 6):
        error = 0.0
        for row in range(0, w.shape[0], 16):
            values, counts = np.unique(half[row:row + 16], return_counts=True)
            values = values.astype(np.float64)
            labels, centroids = kmeans1d.cluster(values, 2 ** bits, weights=counts)
            table = np.array(centroids).astype(np.float16).astype(np.float64)
            group = w[row:row + 16].astype(np.float64).ravel()
            error += (np.abs(group[:, None] - table[None, :]).min(1) ** 2).sum()
        print(bits, error / (w.astype(np.float64) ** 2).sum(), file=f)
)";

TEST(PaletteOracle, AsGoodAsTheExactOptimumOfCoremltools) {
  const fs::path model = fs::path(POME_SOURCE_DIR) / "../shared/models/tales/model.safetensors";
  if (!fs::exists(model)) GTEST_SKIP() << "no " << model;
  if (std::system("python3 -c 'from coremltools._deps import kmeans1d' 2>/dev/null") != 0) {
    GTEST_SKIP() << "python3 has no coremltools";
  }
  const fs::path stem = fs::path(testing::TempDir()) / "pome_palette_oracle";
  std::ofstream(stem.string() + ".py") << kScript;
  const std::string command = "python3 '" + stem.string() + ".py' '" + model.string() + "' '" +
                              stem.string() + "' 2>/dev/null";
  ASSERT_EQ(std::system(command.c_str()), 0);

  std::ifstream results(stem.string() + ".txt");
  int64_t rows = 0, columns = 0;
  ASSERT_TRUE(results >> rows >> columns);
  std::vector<float> values(static_cast<size_t>(rows * columns));
  std::ifstream raw(stem.string() + ".f32", std::ios::binary);
  ASSERT_TRUE(raw.read(reinterpret_cast<char*>(values.data()),
                       static_cast<std::streamsize>(values.size() * sizeof(float))));
  double squares = 0;
  for (const float v : values) squares += static_cast<double>(v) * v;
  const ConstantDataPtr source = inline_constant(Tensor::from_f32({rows, columns}, values));
  const auto nmse = [&](const Encoding& encoding) {
    std::vector<float> decoded(values.size());
    EXPECT_TRUE(encoded_constant(source, encoding)->read_f32(0, rows, decoded.data()).ok());
    double error = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      error += std::pow(static_cast<double>(values[i]) - decoded[i], 2);
    }
    return error / squares;
  };

  int bits = 0, seen = 0;
  double theirs = 0;
  while (results >> bits >> theirs) {
    const double ours = nmse(Encoding::lut(bits, 16));
    RecordProperty("lut" + std::to_string(bits), std::to_string(ours / theirs));
    std::printf("lut%d/16: NMSE %.6g, coremltools' exact k-means %.6g, excess %.4f %%\n", bits,
                ours, theirs, 100 * (ours / theirs - 1));
    EXPECT_LE(ours, theirs * 1.0005) << bits;
    EXPECT_GE(ours, theirs * 0.9995) << bits;
    ++seen;
  }
  EXPECT_EQ(seen, 4);

  double rule = 0;
  for (size_t i = 0; i < values.size(); i += 32) {
    const std::span<const float> block = std::span(values).subspan(i, 32);
    float absmax = 0;
    for (const float v : block) absmax = std::max(absmax, std::fabs(v));
    rule += scale_error(block, {}, f32_to_f16(absmax / 7), {-7, 7, false});
  }
  const double ours = nmse(Encoding::int_blocks(4, 32));
  std::printf("int4/32: NMSE %.6g, largest value to 7: %.6g\n", ours, rule / squares);
  std::printf("int8 per row: NMSE %.6g\n", nmse(Encoding::int_blocks(8, columns)));
  EXPECT_LT(ours, 0.8 * rule / squares);
  for (const char* ending : {".py", ".txt", ".f32"}) fs::remove(stem.string() + ending);
}

}  // namespace
}  // namespace pome
