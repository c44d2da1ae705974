#include "quantize/fed_rounding.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "quantize/block_fit.h"
#include "quantize/int_scale.h"
#include "quantize/palette.h"
#include "quantize/refine.h"
#include "tensor/half.h"

namespace pome {

namespace {

// The levels of rows, and the refinement that is asked for. Rows that a round leaves alone stay so
// in the next ones, so its end is the same in any company.
void round_levels(const Feedback& feedback, std::span<const float> values,
                  std::span<const RowGrid> grids, const RoundingOptions& options,
                  std::span<uint8_t> levels) {
  feedback.round(values, grids, levels);
  for (int round = 0; round < options.rounds && feedback.form(); ++round)
    if (!(refine_levels(*feedback.form(), values, grids, levels) > 0)) break;
}

std::vector<RowGrid> grids_of(std::span<const uint16_t> tables, size_t entries, size_t group) {
  std::vector<float> values(tables.size());
  f16_to_f32(tables, values);
  std::vector<RowGrid> out;
  for (size_t at = 0; at < values.size(); at += entries) {
    const auto levels = std::make_shared<const Levels>(
        Levels::of_table(std::span<const float>(values).subspan(at, entries)));
    out.insert(out.end(), group, RowGrid(levels));
  }
  return out;
}

}  // namespace

void round_integers(const Encoding& encoding, std::span<const float> values,
                    const Feedback& feedback, const RoundingOptions& options,
                    std::span<uint16_t> scales, std::span<int8_t> codes) {
  const bool four = encoding.bits == 4;
  const CodeRange range = four ? kInt4Range : kInt8Range;
  const auto levels = std::make_shared<const Levels>(Levels::of_integers(range.low, range.high, 0));
  const auto block = static_cast<size_t>(encoding.block),
             width = static_cast<size_t>(feedback.columns());
  ScaleScratch scratch;
  std::vector<RowGrid> grids;
  for (size_t at = 0; at < values.size(); at += width) {
    std::vector<float> row_scales;
    for (size_t i = 0; i < width; i += block) {
      const std::span<const float> part = values.subspan(at + i, block),
                                   weights = feedback.weights().subspan(i, block);
      const ScaleFit fit = four ? fit_scale_exact(part, weights, range, &scratch)
                                : fit_scale_search(part, weights, range);
      scales[(at + i) / block] = fit.scale;
      row_scales.push_back(f16_to_f32(fit.scale));
    }
    grids.emplace_back(levels, encoding.block, std::move(row_scales), std::vector<float>());
  }
  const std::span<uint8_t> found(reinterpret_cast<uint8_t*>(codes.data()), codes.size());
  round_levels(feedback, values, grids, options, found);
  for (uint8_t& level : found) level = levels->codes[level];
}

void round_palettes(const Encoding& encoding, std::span<const float> values,
                    const Feedback& feedback, std::span<const float> row_weights,
                    const RoundingOptions& options, std::span<uint16_t> tables,
                    std::span<uint8_t> codes) {
  const auto width = static_cast<size_t>(feedback.columns()),
             group = static_cast<size_t>(encoding.group), entries = size_t{1} << encoding.bits;
  KeyHistogram histogram;
  const std::vector<float> alike(row_weights.empty() ? values.size() / width : 0, 1.0f);
  if (row_weights.empty()) row_weights = alike;
  std::vector<float> weights_of_row(width);
  std::vector<uint16_t> keys(values.size());
  f32_to_f16(values, keys);
  keys_of_f16(keys);
  std::vector<double> distinct, weights;
  for (size_t first = 0, to = 0; first < keys.size(); first += group * width, to += entries) {
    histogram.clear();
    for (size_t row = first / width; row < first / width + group; ++row) {
      for (size_t j = 0; j < width; ++j)
        weights_of_row[j] = row_weights[row] * feedback.weights()[j];
      histogram.add(std::span<const uint16_t>(keys).subspan(row * width, width), weights_of_row);
    }
    histogram.collect(&distinct, &weights);
    const std::vector<uint16_t> fitted = fit_palette(distinct, weights, encoding.bits);
    std::copy(fitted.begin(), fitted.end(), tables.begin() + static_cast<std::ptrdiff_t>(to));
  }
  // Levels are codes.
  feedback.round(values, grids_of(tables, entries, group), codes);
  for (int round = 0; round < options.rounds && feedback.form(); ++round) {
    refine_tables(*feedback.form(), feedback.weights(), row_weights, values, group, codes, tables);
    refine_levels(*feedback.form(), values, grids_of(tables, entries, group), codes);
  }
}

void round_blocks(EncodingKind kind, std::span<const float> values, const Feedback& feedback,
                  const RoundingOptions& options, std::byte* out) {
  const EncodingTraits& type = traits(kind);
  const auto size = static_cast<size_t>(type.block_elements),
             width = static_cast<size_t>(feedback.columns());
  std::vector<BlockCodes> blocks(values.size() / size);
  fit_block_codes(kind, values, feedback.columns(), feedback.weights(), blocks);
  const auto levels = std::make_shared<const Levels>(Levels::of_blocks(kind));
  std::vector<RowGrid> grids;
  for (size_t at = 0; at < blocks.size(); at += width / size)
    grids.emplace_back(levels, kind, std::span<const BlockCodes>(blocks).subspan(at, width / size));
  std::vector<uint8_t> found(values.size());
  round_levels(feedback, values, grids, options, found);
  for (size_t i = 0; i < blocks.size(); ++i) {
    for (size_t k = 0; k < size; ++k) blocks[i].codes[k] = levels->codes[found[i * size + k]];
    pack_block(kind, blocks[i], out + i * static_cast<size_t>(type.block_bytes));
  }
}

}  // namespace pome
