#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "quantize/block_fit.h"
#include "quantize/int_scale.h"
#include "quantize/palette.h"
#include "quantize/quantize.h"
#include "tensor/half.h"
#include "tensor/tensor.h"

namespace pome {
namespace {

// Source rows are read in chunks of about this many elements, which stay in the cache.
constexpr int64_t kChunkElements = 64 * 1024;

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

// Integers times the scale of their block.
class IntGrid final : public RowGrid {
 public:
  IntGrid(std::span<const uint16_t> scales, int64_t block, const CodeRange& range)
      : block_(block),
        low_(static_cast<float>(range.low)),
        high_(static_cast<float>(range.high)),
        scales_(scales.size()),
        inverses_(scales.size(), 0.0f) {
    f16_to_f32(scales, scales_);
    for (size_t i = 0; i < scales.size(); ++i)
      if (scales_[i] != 0) inverses_[i] = 1 / scales_[i];
  }
  uint8_t nearest(int64_t column, float target, float* value) const override {
    const auto at = static_cast<size_t>(column / block_);
    const float code = std::clamp(std::nearbyint(target * inverses_[at]), low_, high_);
    *value = code * scales_[at];
    return static_cast<uint8_t>(static_cast<int8_t>(code));
  }

 private:
  int64_t block_;
  float low_, high_;
  std::vector<float> scales_, inverses_;
};

// The entries of a table, ascending.
class TableGrid final : public RowGrid {
 public:
  explicit TableGrid(std::span<const uint16_t> table) : values_(table.size()) {
    f16_to_f32(table, values_);
    for (size_t i = 1; i < values_.size(); ++i)
      middles_.push_back(0.5f * (values_[i - 1] + values_[i]));
  }
  uint8_t nearest(int64_t, float target, float* value) const override {
    const auto code = static_cast<size_t>(
        std::lower_bound(middles_.begin(), middles_.end(), target) - middles_.begin());
    *value = values_[code];
    return static_cast<uint8_t>(code);
  }

 private:
  std::vector<float> values_, middles_;
};

class EncodedConstant final : public ConstantData {
 public:
  EncodedConstant(ConstantDataPtr source, const Encoding& encoding, std::string name,
                  std::vector<float> weights, std::vector<FeedbackPtr> feedback)
      : ConstantData(source->shape(), encoding),
        source_(std::move(source)),
        name_(std::move(name)),
        weights_(std::move(weights)),
        feedback_(std::move(feedback)) {}

  const ConstantData& canonical() const override { return source_->canonical(); }
  const ConstantData& unrounded() const override { return source_->unrounded(); }

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
    const int64_t step = std::max<int64_t>(16, kChunkElements / std::max<int64_t>(1, columns()));
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
    const int64_t rows_of_set = sets > 0 ? this->rows() / sets : this->rows();
    std::vector<float> buffer;
    return for_each_chunk(row, rows, &buffer, [&](int64_t first, std::span<const float> values) {
      for (size_t done = 0; done < values.size();) {
        const int64_t at = first + static_cast<int64_t>(done) / columns(), set = at / rows_of_set;
        const size_t count = std::min(
            values.size() - done, static_cast<size_t>(((set + 1) * rows_of_set - at) * columns()));
        const std::span<const float> weights(weights_);
        fit_blocks(encoding().kind, values.subspan(done, count), columns(),
                   sets > 0 ? weights.subspan(static_cast<size_t>(set * columns()),
                                              static_cast<size_t>(columns()))
                            : weights,
                   out);
        out += static_cast<int64_t>(count) / columns() * row_bytes;
        done += count;
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
    const auto block = static_cast<size_t>(encoding().block),
               width = static_cast<size_t>(columns());
    const auto fit = [&](std::span<const float> part, std::span<const float> weights,
                         ScaleScratch* scratch) {
      return four ? fit_scale_exact(part, weights, range, scratch)
                  : fit_scale_search(part, weights, range);
    };
    uint16_t* scales = reinterpret_cast<uint16_t*>(tile->storage[1].data());
    std::vector<int8_t> codes(static_cast<size_t>(rows) * width);
    std::vector<float> buffer;
    ScaleScratch scratch;
    std::span<int8_t> rest(codes);
    const auto encode_row = [&](const Feedback* feedback, std::span<const float> values) {
      for (size_t i = 0; i < width; i += block) {
        const std::span<const float> part = values.subspan(i, block);
        scales[i / block] =
            fit(part, feedback ? feedback->weights().subspan(i, block) : std::span<const float>(),
                &scratch)
                .scale;
        if (!feedback) quantize_with_scale(part, scales[i / block], range, rest.subspan(i, block));
      }
      if (feedback)
        feedback->round(values, IntGrid({scales, width / block}, encoding().block, range),
                        {reinterpret_cast<uint8_t*>(rest.data()), width});
      scales += width / block;
      rest = rest.subspan(width);
    };
    const Status status =
        for_each_chunk(row, rows, &buffer, [&](int64_t first, std::span<const float> values) {
          for (; !values.empty(); values = values.subspan(width), ++first)
            encode_row(feedback_of(first), values.first(width));
        });
    POME_RETURN_IF_ERROR(status);
    pack_bits({reinterpret_cast<const uint8_t*>(codes.data()), codes.size()}, encoding().bits,
              tile->storage[0]);
    return {};
  }

  Status encode_lut(int64_t row, int64_t rows, EncodedTile* tile) const {
    const size_t entries = size_t{1} << encoding().bits, width = static_cast<size_t>(columns());
    const size_t group = static_cast<size_t>(encoding().group) * width;
    uint16_t* table_out = reinterpret_cast<uint16_t*>(tile->storage[1].data());
    std::vector<uint8_t> codes(static_cast<size_t>(rows) * width), index_of_key(65536);
    std::vector<uint16_t> keys(group);
    std::vector<float> buffer, whole;
    std::vector<double> values, weights;
    KeyHistogram histogram;
    uint8_t* code_out = codes.data();
    for (int64_t first = row; first < row + rows; first += encoding().group) {
      const Feedback* const feedback = feedback_of(first);  // groups do not straddle experts
      histogram.clear();
      whole.clear();
      std::span<uint16_t> rest = keys;
      const auto add = [&](int64_t, std::span<const float> chunk) {
        const std::span<uint16_t> part = rest.first(chunk.size());
        f32_to_f16(chunk, part);
        keys_of_f16(part);
        if (!feedback) histogram.add(part);
        for (size_t at = 0; feedback && at < part.size(); at += width)
          histogram.add(part.subspan(at, width), feedback->weights());
        if (feedback) whole.insert(whole.end(), chunk.begin(), chunk.end());
        rest = rest.subspan(chunk.size());
      };
      POME_RETURN_IF_ERROR(for_each_chunk(first, encoding().group, &buffer, add));
      histogram.collect(&values, &weights);
      const std::vector<uint16_t> table = fit_palette(values, weights, encoding().bits);
      std::copy(table.begin(), table.end(), table_out);
      table_out += entries;
      if (feedback) {
        const TableGrid grid(table);
        for (std::span<const float> left(whole); !left.empty(); left = left.subspan(width)) {
          feedback->round(left.first(width), grid, {code_out, width});
          code_out += width;
        }
        continue;
      }
      build_index_map(table, index_of_key);
      for (const uint16_t key : keys) *code_out++ = index_of_key[key];
    }
    pack_bits(codes, encoding().bits, tile->storage[0]);
    return {};
  }

  ConstantDataPtr source_;
  std::string name_;
  std::vector<float> weights_;
  std::vector<FeedbackPtr> feedback_;
};

}  // namespace

ConstantDataPtr encoded_constant(ConstantDataPtr data, const Encoding& encoding, std::string name,
                                 std::vector<float> weights, std::vector<FeedbackPtr> feedback) {
  POME_CHECK(encoding.kind == EncodingKind::kF16 || encoding.kind == EncodingKind::kF32 ||
             encoding.kind == EncodingKind::kBF16 || encoding.kind == EncodingKind::kInt ||
             encoding.kind == EncodingKind::kLut || can_fit_blocks(encoding.kind));
  POME_CHECK(encoded_layout(encoding, data->rows(), data->columns()).ok());
  return std::make_shared<EncodedConstant>(std::move(data), encoding, std::move(name),
                                           std::move(weights), std::move(feedback));
}

}  // namespace pome
