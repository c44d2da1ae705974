#include "random_weights.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <numbers>

#include "block_style.h"
#include "tensor/half.h"

namespace pome::random_model {
namespace {

constexpr double kRowSigma = 0.35, kColumnSigma = 0.25;
constexpr int kQuantileBits = 12, kQuantiles = 1 << kQuantileBits;

uint64_t hash(std::string_view text) {
  uint64_t value = 0xCBF29CE484222325u;
  for (const char c : text) value = (value ^ static_cast<uint8_t>(c)) * 0x100000001B3u;
  return value;
}

// Quantiles of Student's t with 5 degrees of freedom, evenly spaced in probability, scaled to mean
// square 1. With theta = atan(t / sqrt 5) the distribution function is
// 1/2 + (theta + sin theta cos theta (1 + 2/3 cos^2 theta)) / pi, which bisection inverts.
std::array<float, kQuantiles> make_quantiles() {
  std::array<double, kQuantiles> t{};
  double square = 0;
  for (int i = 0; i < kQuantiles; ++i) {
    const double target = ((i + 0.5) / kQuantiles - 0.5) * std::numbers::pi;
    double low = -std::numbers::pi / 2, high = std::numbers::pi / 2;
    for (int step = 0; step < 60; ++step) {
      const double theta = (low + high) / 2, c = std::cos(theta);
      (theta + std::sin(theta) * c * (1 + 2.0 / 3.0 * c * c) < target ? low : high) = theta;
    }
    t[static_cast<size_t>(i)] = std::sqrt(5.0) * std::tan((low + high) / 2);
    square += t[static_cast<size_t>(i)] * t[static_cast<size_t>(i)];
  }
  std::array<float, kQuantiles> scaled{};
  const double scale = 1 / std::sqrt(square / kQuantiles);
  for (size_t i = 0; i < t.size(); ++i) scaled[i] = static_cast<float>(t[i] * scale);
  return scaled;
}
const std::array<float, kQuantiles>& quantiles() {
  static const auto kTable = make_quantiles();
  return kTable;
}

// exp(sigma z) with z normal (Box and Muller).
float lognormal(uint64_t key, double sigma) {
  const double u = (static_cast<double>(mix(key) >> 11) + 0.5) * 0x1p-53;
  const double v = static_cast<double>(mix(key + kStride) >> 11) * 0x1p-53;
  return static_cast<float>(
      std::exp(sigma * std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v)));
}

// Five values from each 64-bit word.
void put_student(uint64_t key, std::span<float> out) {
  const float* table = quantiles().data();
  constexpr uint64_t kMask = kQuantiles - 1;
  size_t i = 0;
  for (; i + 5 <= out.size(); i += 5, key += kStride) {
    const uint64_t word = mix(key);
    for (size_t j = 0; j < 5; ++j) out[i + j] = table[word >> (kQuantileBits * j) & kMask];
  }
  for (uint64_t word = mix(key); i < out.size(); ++i, word >>= kQuantileBits) {
    out[i] = table[word & kMask];
  }
}

// Projections keep the size of a normalised input; those that write to the residual stream are
// smaller the more of them there are, so that the stream stays of order one.
double deviation(const TensorSpec& spec, const ModelShape& model) {
  if (spec.role == Role::kEmbedding) return 0.02;
  if (spec.role == Role::kSmall) return 0.05;
  const int64_t inputs =
      spec.stored == Stored::kFloat ? spec.shape.back() : spec.shape[2] * kMxfp4Weights;
  const double unit = 1 / std::sqrt(static_cast<double>(inputs));
  if (spec.role == Role::kInput) return unit;
  return unit / std::sqrt(2.0 * static_cast<double>(model.num_hidden_layers));
}

}  // namespace

Result<RandomTensor> RandomTensor::create(const TensorSpec& spec, const ModelShape& model,
                                          uint64_t seed, EncodingKind encoding) {
  RandomTensor tensor;
  const bool blocks = spec.stored != Stored::kFloat;
  if (blocks) encoding = EncodingKind::kMXFP4;
  const EncodingTraits& type = traits(encoding);
  const BlockStyle* style = block_style(encoding);
  const bool plain = encoding == EncodingKind::kF32 || encoding == EncodingKind::kF16 ||
                     encoding == EncodingKind::kBF16;
  const bool matrix = spec.shape.size() >= 2;
  if (!plain && (style == nullptr || !matrix)) {
    return unsupported(std::string(type.name) + " for " + spec.gguf_name);
  }
  tensor.encoding_ = encoding;
  tensor.stored_ = spec.stored;
  tensor.role_ = spec.role;
  tensor.rows_ = 1;
  const size_t row_dims = blocks ? 2 : spec.shape.size() - 1;
  for (size_t i = 0; i < row_dims; ++i) tensor.rows_ *= spec.shape[i];
  tensor.columns_ = blocks ? spec.shape[2] * kMxfp4Weights : spec.shape.back();
  POME_ASSIGN_OR_RETURN(const EncodedLayout layout,
                        encoded_layout(Encoding::plain(encoding), 1, tensor.columns_));
  tensor.row_bytes_ = layout.total_bytes();
  if (blocks) {
    const auto groups = static_cast<uint64_t>(spec.shape[2]);
    tensor.row_bytes_ = spec.stored == Stored::kMxfp4Scales ? groups : 16 * groups;
  }
  tensor.key_ = mix(seed + kStride) ^ hash(spec.hf_name);
  tensor.values_ = spec.values;
  if (!matrix) return tensor;

  // Column factors get the mean square 1 that the row factors have on average over many rows.
  const uint64_t column_key = mix(tensor.key_ ^ 1);
  double square = 0;
  for (int64_t i = 0; i < tensor.columns_ / type.block_elements; ++i) {
    const uint64_t key = column_key + 2 * kStride * static_cast<uint64_t>(i);
    tensor.column_factor_.push_back(lognormal(key, kColumnSigma));
    square += static_cast<double>(tensor.column_factor_.back()) * tensor.column_factor_.back();
  }
  double scale = deviation(spec, model) * std::exp(-kRowSigma * kRowSigma) /
                 std::sqrt(square / static_cast<double>(tensor.column_factor_.size()));
  if (style != nullptr) scale /= code_rms(*style);
  tensor.deviation_ = static_cast<float>(scale);
  return tensor;
}

uint64_t RandomTensor::row_key(int64_t row) const {
  return mix(key_ + kStride * static_cast<uint64_t>(row + 1));
}

void RandomTensor::fill_plain_row(int64_t row, std::byte* out, std::vector<float>& values) const {
  values.resize(static_cast<size_t>(columns_));
  if (role_ == Role::kTable) {
    values = values_;
  } else {
    const uint64_t key = row_key(row);
    put_student(key, values);
    if (role_ == Role::kNorm) {
      for (float& value : values) value = 1.0f + 0.1f * value;
    } else if (column_factor_.empty()) {
      for (float& value : values) value *= 0.05f;
    } else {
      const float factor = deviation_ * lognormal(mix(key ^ 1), kRowSigma);
      for (size_t i = 0; i < values.size(); ++i) values[i] *= factor * column_factor_[i];
    }
  }
  if (encoding_ == EncodingKind::kF32) {
    std::memcpy(out, values.data(), 4 * values.size());
    return;
  }
  constexpr size_t kStep = 512;
  uint16_t half[kStep];
  for (size_t i = 0; i < values.size(); i += kStep) {
    const size_t step = std::min(kStep, values.size() - i);
    const std::span<const float> from(values.data() + i, step);
    if (encoding_ == EncodingKind::kF16) {
      f32_to_f16(from, std::span<uint16_t>(half, step));
    } else {
      f32_to_bf16(from, std::span<uint16_t>(half, step));
    }
    std::memcpy(out + 2 * i, half, 2 * step);
  }
}

void RandomTensor::fill_block_row(int64_t row, std::byte* out) const {
  const BlockStyle& style = *block_style(encoding_);
  const size_t block_bytes = static_cast<size_t>(traits(encoding_).block_bytes);
  const uint64_t key = row_key(row);
  uint8_t* bytes = reinterpret_cast<uint8_t*>(out);
  random_bytes(key, bytes, row_bytes_);
  const float factor = deviation_ * lognormal(mix(key ^ 1), kRowSigma);
  for (size_t i = 0; i < column_factor_.size(); ++i) {
    finish_block(style, factor * column_factor_[i], bytes + i * block_bytes);
  }
}

// Any codes will do; exponents are those of whole blocks.
void RandomTensor::fill_mxfp4_row(int64_t row, std::byte* out) const {
  const uint64_t key = row_key(row);
  uint8_t* bytes = reinterpret_cast<uint8_t*>(out);
  if (stored_ == Stored::kMxfp4Blocks) return random_bytes(key, bytes, row_bytes_);
  const float factor = deviation_ * lognormal(mix(key ^ 1), kRowSigma);
  uint8_t block[17] = {};
  for (size_t i = 0; i < column_factor_.size(); ++i) {
    finish_block(*block_style(encoding_), factor * column_factor_[i], block);
    bytes[i] = block[0];
  }
}

void RandomTensor::fill(int64_t first, std::span<std::byte> out) const {
  const int64_t count = static_cast<int64_t>(out.size() / row_bytes_);
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) {
    std::byte* to = out.data() + static_cast<uint64_t>(i) * row_bytes_;
    if (stored_ != Stored::kFloat) {
      fill_mxfp4_row(first + i, to);
    } else if (block_style(encoding_) != nullptr) {
      fill_block_row(first + i, to);
    } else {
      fill_plain_row(first + i, to, values);
    }
  }
}

}  // namespace pome::random_model
