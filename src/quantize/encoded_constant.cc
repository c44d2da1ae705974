#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "quantize/block_fit.h"
#include "quantize/fed_rounding.h"
#include "quantize/grouped_constant.h"
#include "quantize/int_scale.h"
#include "quantize/palette.h"
#include "quantize/quantize.h"
#include "tensor/half.h"
#include "tensor/tensor.h"

namespace pome {
namespace {

// Source rows are read in chunks of about this many elements, which stay in the cache.
constexpr int64_t kChunkElements = 64 * 1024, kFedElements = 1024 * 1024;

constexpr uint32_t kFloatInfinity = 0x7F800000;
constexpr uint32_t kHalfOverflow = 0x477FF000;  // 65520: rounds to infinity in binary16

// Largest bit pattern without sign: orders as the magnitudes do, NaN last.
uint32_t largest_magnitude(std::span<const float> values) {
  constexpr size_t kWidth = 16;
  uint32_t lanes[kWidth] = {};
  size_t i = 0;
  for (; i + kWidth <= values.size(); i += kWidth) {
    uint32_t bits[kWidth];
    std::memcpy(bits, values.data() + i, sizeof bits);
    for (size_t lane = 0; lane < kWidth; ++lane) {
      lanes[lane] = std::max(lanes[lane], bits[lane] & 0x7FFFFFFFu);
    }
  }
  uint32_t largest = *std::max_element(std::begin(lanes), std::end(lanes));
  for (; i < values.size(); ++i) {
    largest = std::max(largest, std::bit_cast<uint32_t>(values[i]) & 0x7FFFFFFFu);
  }
  return largest;
}

class EncodedConstant final : public ConstantData {
 public:
  EncodedConstant(ConstantDataPtr source, const Encoding& encoding, std::string name,
                  std::vector<float> weights)
      : ConstantData(source->shape(), encoding),
        source_(std::move(source)),
        name_(std::move(name)),
        weights_(std::move(weights)) {}
  EncodedConstant(const EncodedConstant& other, std::vector<FeedbackPtr> feedback,
                  const RoundingOptions& options, std::vector<float> row_weights)
      : ConstantData(other.shape(), other.encoding()),
        source_(other.source_),
        name_(other.name_),
        weights_(other.weights_),
        feedback_(std::move(feedback)),
        options_(options),
        row_weights_(std::move(row_weights)) {}

  EncodedConstant(const EncodedConstant& other, ConstantDataPtr source) : EncodedConstant(other) {
    if (!origin_) origin_ = other.source_;
    source_ = std::move(source);
  }

  // Whether there is a choice that one column's error could make another column take.
  bool has_grid() const { return !is_plain(); }

  const ConstantData& canonical() const override { return origin().canonical(); }
  const ConstantData& unrounded() const override { return origin().unrounded(); }

  std::optional<std::span<const std::byte>> view() const override {
    return source_->encoding() == encoding() ? source_->view() : std::nullopt;
  }

  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    if (source_->encoding() == encoding() && is_plain()) return read_checked(row, rows, tile);
    POME_ASSIGN_OR_RETURN(const EncodedLayout layout, encoded_layout(encoding(), rows, columns()));
    tile->row = row;
    tile->rows = rows;
    tile->storage.resize(layout.part_bytes.size());
    for (size_t part = 0; part < layout.part_bytes.size(); ++part) {
      tile->storage[part].resize(static_cast<size_t>(layout.part_bytes[part]));
    }
    tile->parts.assign(tile->storage.begin(), tile->storage.end());
    switch (encoding().kind) {
      case EncodingKind::kInt:
        return encode_int(row, rows, tile);
      case EncodingKind::kLut:
        return encode_lut(row, rows, tile);
      default:
        if (can_fit_blocks(encoding().kind)) return encode_blocks(row, rows, tile);
        return encode_plain(row, rows, tile);
    }
  }

 private:
  const ConstantData& origin() const { return origin_ ? *origin_ : *source_; }
  bool is_plain() const {
    return encoding().kind == EncodingKind::kF16 || encoding().kind == EncodingKind::kF32 ||
           encoding().kind == EncodingKind::kBF16;
  }

  // The first offender of rows [row, ..).
  Status refuse(std::span<const float> values, int64_t row, uint32_t limit) const {
    const auto bad = std::find_if(values.begin(), values.end(), [&](float value) {
      return (std::bit_cast<uint32_t>(value) & 0x7FFFFFFFu) >= limit;
    });
    const int64_t index = bad - values.begin();
    const std::string place = "row " + std::to_string(row + index / columns()) + ", column " +
                              std::to_string(index % columns());
    const std::string what = std::isnan(*bad)   ? "NaN"
                             : std::isinf(*bad) ? "an infinite value"
                                                : std::to_string(*bad);
    Status status = bad_input(
        Refusal::kRange, place + " holds " + what + ", but weights must be finite" +
                             (limit == kHalfOverflow ? " and at most 65504 in magnitude" : ""));
    status = std::move(status).at(name_.empty() ? "a weight tensor" : "tensor " + name_);
    if (std::isfinite(*bad)) return std::move(status).hint("convert with --weights f32");
    return std::move(status).hint("the checkpoint is damaged: fetch it again");
  }

  Status check(std::span<const float> values, int64_t row, uint32_t limit) const {
    return largest_magnitude(values) < limit ? ok_status() : refuse(values, row, limit);
  }

  // Calls use(first row, values) for rows [row, row + rows) in chunks of at least 16, checked to be
  // finite and, but for bfloat16, to fit binary16.
  template <typename Use>
  Status for_each_chunk(int64_t row, int64_t rows, std::vector<float>* buffer,
                        const Use& use) const {
    // Rows that are fed back share the reading of a factor.
    const int64_t elements = feedback_.empty() ? kChunkElements : kFedElements;
    const int64_t step = std::max<int64_t>(16, elements / std::max<int64_t>(1, columns()));
    const bool wide = encoding().kind == EncodingKind::kBF16;
    for (int64_t first = row; first < row + rows; first += step) {
      const int64_t count = std::min(step, row + rows - first);
      buffer->resize(static_cast<size_t>(count * columns()));
      POME_RETURN_IF_ERROR(source_->read_f32(first, count, buffer->data()));
      POME_RETURN_IF_ERROR(check(*buffer, first, wide ? kFloatInfinity : kHalfOverflow));
      use(first, std::span<const float>(*buffer));
    }
    return {};
  }

  Status read_checked(int64_t row, int64_t rows, EncodedTile* tile) const {
    POME_RETURN_IF_ERROR(source_->read_tile(row, rows, tile));
    std::vector<float> buffer;
    const int64_t step = std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, columns()));
    const size_t row_bytes =
        tile->parts[0].size() / static_cast<size_t>(std::max<int64_t>(1, rows));
    for (int64_t first = 0; first < rows; first += step) {
      const int64_t count = std::min(step, rows - first);
      buffer.resize(static_cast<size_t>(count * columns()));
      const std::span<const std::byte> part = tile->parts[0].subspan(
          static_cast<size_t>(first) * row_bytes, static_cast<size_t>(count) * row_bytes);
      POME_RETURN_IF_ERROR(decode_rows(encoding(), count, columns(), {&part, 1}, buffer.data()));
      POME_RETURN_IF_ERROR(check(buffer, row + first, kFloatInfinity));
    }
    return {};
  }

  Status encode_plain(int64_t row, int64_t rows, EncodedTile* tile) const {
    std::byte* out = tile->storage[0].data();
    if (encoding().kind == EncodingKind::kF32) {
      float* values = reinterpret_cast<float*>(out);
      POME_RETURN_IF_ERROR(source_->read_f32(row, rows, values));
      return check({values, static_cast<size_t>(rows * columns())}, row, kFloatInfinity);
    }
    std::vector<float> buffer;
    return for_each_chunk(row, rows, &buffer, [&](int64_t, std::span<const float> values) {
      const std::span<uint16_t> to(reinterpret_cast<uint16_t*>(out), values.size());
      if (encoding().kind == EncodingKind::kBF16)
        f32_to_bf16(values, to);
      else
        f32_to_f16(values, to);
      out += values.size() * sizeof(uint16_t);
    });
  }

  Status encode_blocks(int64_t row, int64_t rows, EncodedTile* tile) const {
    std::byte* out = tile->storage[0].data();
    const EncodingTraits& type = traits(encoding().kind);
    const int64_t row_bytes = columns() / type.block_elements * type.block_bytes;
    // Of stacked experts each may have weights of its own.
    const int64_t sets = static_cast<int64_t>(weights_.size()) / std::max<int64_t>(1, columns());
    const auto encode = [&](int64_t first, const Feedback* feedback,
                            std::span<const float> values) {
      if (feedback) {
        round_blocks(encoding().kind, values, *feedback, options_, out);
      } else {
        std::span<const float> weights(weights_);
        if (sets > 0)
          weights = weights.subspan(static_cast<size_t>(first / (this->rows() / sets) * columns()),
                                    static_cast<size_t>(columns()));
        fit_blocks(encoding().kind, values, columns(), weights, out);
      }
      out += static_cast<int64_t>(values.size()) / columns() * row_bytes;
    };
    return for_each_expert(row, rows, encode);
  }

  // Calls use(first row, feedback or null, values) with chunks whose rows belong to one expert.
  template <typename Use>
  Status for_each_expert(int64_t row, int64_t rows, const Use& use) const {
    const int64_t rows_of_one = shape().size() >= 3 ? shape()[shape().size() - 2] : this->rows();
    std::vector<float> buffer;
    return for_each_chunk(row, rows, &buffer, [&](int64_t first, std::span<const float> values) {
      while (!values.empty()) {
        const int64_t expert = first / rows_of_one;
        const auto count = std::min(
            values.size(), static_cast<size_t>(((expert + 1) * rows_of_one - first) * columns()));
        use(first, feedback_of(first), values.first(count));
        values = values.subspan(count);
        first += static_cast<int64_t>(count) / columns();
      }
    });
  }

  // Of the expert that a row belongs to; null: values are rounded to the nearest.
  const Feedback* feedback_of(int64_t row) const {
    if (feedback_.empty()) return nullptr;
    const int64_t rows_of_one = rows() / static_cast<int64_t>(feedback_.size());
    return feedback_[static_cast<size_t>(row / rows_of_one)].get();
  }

  Status encode_int(int64_t row, int64_t rows, EncodedTile* tile) const {
    const bool four = encoding().bits == 4;
    const CodeRange range = four ? kInt4Range : kInt8Range;
    const auto block = static_cast<size_t>(encoding().block);
    std::vector<int8_t> codes(static_cast<size_t>(rows * columns()));
    std::span<uint16_t> scales(reinterpret_cast<uint16_t*>(tile->storage[1].data()),
                               codes.size() / block);
    std::span<int8_t> rest(codes);
    ScaleScratch scratch;
    const auto encode = [&](int64_t, const Feedback* feedback, std::span<const float> values) {
      const std::span<int8_t> part_codes = rest.first(values.size());
      if (feedback)
        round_integers(encoding(), values, *feedback, options_, scales.first(values.size() / block),
                       part_codes);
      for (size_t i = 0; !feedback && i < values.size(); i += block) {
        const std::span<const float> part = values.subspan(i, block);
        const ScaleFit fit =
            four ? fit_scale_exact(part, {}, range, &scratch) : fit_scale_search(part, {}, range);
        scales[i / block] = fit.scale;
        quantize_with_scale(part, fit.scale, range, part_codes.subspan(i, block));
      }
      scales = scales.subspan(values.size() / block);
      rest = rest.subspan(values.size());
    };
    POME_RETURN_IF_ERROR(for_each_expert(row, rows, encode));
    pack_bits({reinterpret_cast<const uint8_t*>(codes.data()), codes.size()}, encoding().bits,
              tile->storage[0]);
    return {};
  }

  // Whole groups of one expert, few enough to lie in memory without harm.
  int64_t rows_fed_together(int64_t first, int64_t end) const {
    const int64_t rows_of_one = rows() / static_cast<int64_t>(feedback_.size());
    const int64_t most = std::min(end, (first / rows_of_one + 1) * rows_of_one) - first;
    const int64_t groups = kFedElements / std::max<int64_t>(1, columns()) / encoding().group;
    return std::min(most, std::max<int64_t>(1, groups) * encoding().group);
  }

  Status encode_lut(int64_t row, int64_t rows, EncodedTile* tile) const {
    const size_t entries = size_t{1} << encoding().bits, width = static_cast<size_t>(columns());
    std::span<uint16_t> tables(reinterpret_cast<uint16_t*>(tile->storage[1].data()),
                               tile->storage[1].size() / sizeof(uint16_t));
    std::vector<uint8_t> codes(static_cast<size_t>(rows) * width), index_of_key(65536);
    std::vector<uint16_t> keys;
    std::vector<float> buffer, whole;
    std::vector<double> values, weights;
    KeyHistogram histogram;
    std::span<uint8_t> rest(codes);
    int64_t count = 0;
    for (int64_t first = row; first < row + rows; first += count) {
      const Feedback* const feedback = feedback_of(first);  // groups do not straddle experts
      count = feedback ? rows_fed_together(first, row + rows) : encoding().group;
      const std::span<uint16_t> these =
          tables.first(static_cast<size_t>(count / encoding().group) * entries);
      const std::span<uint8_t> found = rest.first(static_cast<size_t>(count) * width);
      histogram.clear();
      whole.clear();
      keys.clear();
      const auto add = [&](int64_t, std::span<const float> chunk) {
        if (feedback) {
          whole.insert(whole.end(), chunk.begin(), chunk.end());
          return;
        }
        keys.resize(keys.size() + chunk.size());
        const std::span<uint16_t> part = std::span<uint16_t>(keys).last(chunk.size());
        f32_to_f16(chunk, part);
        keys_of_f16(part);
        histogram.add(part);
      };
      POME_RETURN_IF_ERROR(for_each_chunk(first, count, &buffer, add));
      if (feedback) {
        std::span<const float> counts(row_weights_);
        if (!counts.empty())
          counts = counts.subspan(static_cast<size_t>(first), static_cast<size_t>(count));
        round_palettes(encoding(), whole, *feedback, counts, options_, these, found);
      } else {
        histogram.collect(&values, &weights);
        const std::vector<uint16_t> fitted = fit_palette(values, weights, encoding().bits);
        std::copy(fitted.begin(), fitted.end(), these.begin());
        build_index_map(fitted, index_of_key);
        for (size_t i = 0; i < found.size(); ++i) found[i] = index_of_key[keys[i]];
      }
      tables = tables.subspan(these.size());
      rest = rest.subspan(found.size());
    }
    pack_bits(codes, encoding().bits, tile->storage[0]);
    return {};
  }

  ConstantDataPtr source_;
  ConstantDataPtr origin_;  // where what is rounded is another target than that
  std::string name_;
  std::vector<float> weights_;
  std::vector<FeedbackPtr> feedback_;
  RoundingOptions options_;
  std::vector<float> row_weights_;
};

}  // namespace

ConstantDataPtr encoded_constant(ConstantDataPtr data, const Encoding& encoding, std::string name,
                                 std::vector<float> weights) {
  POME_CHECK(encoding.kind == EncodingKind::kF16 || encoding.kind == EncodingKind::kF32 ||
             encoding.kind == EncodingKind::kBF16 || encoding.kind == EncodingKind::kInt ||
             encoding.kind == EncodingKind::kLut || can_fit_blocks(encoding.kind));
  POME_CHECK(encoded_layout(encoding, data->rows(), data->columns()).ok());
  return std::make_shared<EncodedConstant>(std::move(data), encoding, std::move(name),
                                           std::move(weights));
}

ConstantDataPtr with_feedback(const ConstantDataPtr& data, std::vector<FeedbackPtr> feedback,
                              const RoundingOptions& options, std::vector<float> row_weights) {
  POME_CHECK(row_weights.empty() || static_cast<int64_t>(row_weights.size()) == data->rows());
  if (const auto* grouped = dynamic_cast<const GroupedConstant*>(data.get()))
    return grouped->with(std::move(feedback));
  const auto* encoded = dynamic_cast<const EncodedConstant*>(data.get());
  if (!encoded || !encoded->has_grid()) return nullptr;
  for (const FeedbackPtr& one : feedback) POME_CHECK(!one || one->columns() == data->columns());
  POME_CHECK(feedback.empty() || data->rows() % static_cast<int64_t>(feedback.size()) == 0);
  return std::make_shared<EncodedConstant>(*encoded, std::move(feedback), options,
                                           std::move(row_weights));
}

ConstantDataPtr with_source(const ConstantDataPtr& data, ConstantDataPtr source) {
  const auto* encoded = dynamic_cast<const EncodedConstant*>(data.get());
  if (!encoded) return nullptr;
  POME_CHECK(source->shape() == data->shape());
  return std::make_shared<EncodedConstant>(*encoded, std::move(source));
}

}  // namespace pome
