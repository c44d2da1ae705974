// Reads a .npy file (format 1.0 to 3.0, little-endian, C or Fortran order) of numbers or booleans.
// Source of the format: numpy's documentation of numpy.lib.format.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tensor/tensor.h"

namespace pome::test {

// nullopt when the file is absent or not of this kind. f16, f32, f64, i8 .. u64 and bool keep their
// type.
inline std::optional<Tensor> read_npy(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return std::nullopt;
  const std::string file((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (file.size() < 12 || file.compare(0, 6, "\x93NUMPY") != 0) return std::nullopt;
  const auto byte = [&](size_t i) { return static_cast<size_t>(static_cast<uint8_t>(file[i])); };
  const bool long_header = file[6] > 1;
  const size_t start = long_header ? 12 : 10;
  const size_t length =
      byte(8) | byte(9) << 8 | (long_header ? byte(10) << 16 | byte(11) << 24 : 0);
  if (start + length > file.size()) return std::nullopt;
  const std::string header = file.substr(start, length);

  const size_t descr = header.find("'descr': '");
  const size_t shape_at = header.find("'shape': (");
  if (descr == std::string::npos || shape_at == std::string::npos) return std::nullopt;
  const bool fortran = header.find("'fortran_order': True") != std::string::npos;
  const std::string code = header.substr(descr + 10, header.find('\'', descr + 10) - descr - 10);
  static const std::pair<const char*, DType> kCodes[] = {
      {"<f2", DType::kF16}, {"<f4", DType::kF32}, {"<f8", DType::kF64}, {"|i1", DType::kI8},
      {"|u1", DType::kU8},  {"<i2", DType::kI16}, {"<u2", DType::kU16}, {"<i4", DType::kI32},
      {"<u4", DType::kU32}, {"<i8", DType::kI64}, {"<u8", DType::kU64}, {"|b1", DType::kBool}};
  std::optional<DType> dtype;
  for (const auto& [text, type] : kCodes)
    if (code == text) dtype = type;
  if (!dtype) return std::nullopt;

  Shape shape;
  for (size_t i = shape_at + 10; i < header.size() && header[i] != ')';) {
    if (header[i] < '0' || header[i] > '9') {
      ++i;
      continue;
    }
    int64_t dim = 0;
    for (; i < header.size() && header[i] >= '0' && header[i] <= '9'; ++i)
      dim = dim * 10 + (header[i] - '0');
    shape.push_back(dim);
  }
  Tensor out = Tensor::zeros(*dtype, shape);
  if (file.size() - start - length < out.bytes().size()) return std::nullopt;
  const char* data = file.data() + start + length;
  if (out.bytes().empty()) return out;
  if (!fortran) {
    std::memcpy(out.mutable_bytes().data(), data, out.bytes().size());
    return out;
  }
  const size_t size = static_cast<size_t>(bits_of(*dtype)) / 8;
  for (int64_t i = 0; i < out.count(); ++i) {
    int64_t rest = i, from = 0, step = 1;  // the first axis runs fastest in the file
    std::vector<int64_t> at(shape.size());
    for (size_t d = shape.size(); d-- > 0; rest /= shape[d]) at[d] = rest % shape[d];
    for (size_t d = 0; d < shape.size(); step *= shape[d++]) from += at[d] * step;
    std::memcpy(out.mutable_bytes().data() + static_cast<size_t>(i) * size,
                data + static_cast<size_t>(from) * size, size);
  }
  return out;
}

}  // namespace pome::test
