// Random weights with the statistics of trained ones, as floats or as bytes of any encoding.
//
// A matrix is std * row factor * column factor * x with lognormal factors (sigma 0.35 and 0.25) and
// x from Student's t with 5 degrees of freedom, scaled so that the whole has the standard deviation
// `std`. Row r depends on the seed, the tensor's name and r alone. Thread safety: const.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "encoding/encoding.h"
#include "shapes.h"

namespace pome::random_model {

class RandomTensor {
 public:
  // `encoding` is that of tensors stored as floats. kUnsupported for one that cannot hold weights
  // (integers, f64).
  static Result<RandomTensor> create(const TensorSpec& spec, const ModelShape& model, uint64_t seed,
                                     EncodingKind encoding);
  int64_t rows() const { return rows_; }
  uint64_t row_bytes() const { return row_bytes_; }
  // Bytes of rows [first, first + out.size() / row_bytes()).
  void fill(int64_t first, std::span<std::byte> out) const;

 private:
  RandomTensor() = default;
  void fill_plain_row(int64_t row, std::byte* out, std::vector<float>& values) const;
  void fill_block_row(int64_t row, std::byte* out) const;
  void fill_mxfp4_row(int64_t row, std::byte* out) const;
  uint64_t row_key(int64_t row) const;

  EncodingKind encoding_ = EncodingKind::kF32;
  Stored stored_ = Stored::kFloat;
  Role role_ = Role::kInput;
  int64_t rows_ = 1, columns_ = 0;
  uint64_t row_bytes_ = 0, key_ = 0;
  float deviation_ = 0;  // what x times row and column factor is multiplied with
  std::vector<float> column_factor_;
  std::vector<float> values_;  // kTable
};

}  // namespace pome::random_model
