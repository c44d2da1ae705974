#include "quantize/fed_rounding.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "quantize/block_fit.h"
#include "quantize/int_scale.h"
#include "quantize/palette.h"
#include "quantize/refine.h"
#include "quantize/target_fit.h"
#include "tensor/half.h"

namespace pome {

namespace {

// Rows of blocks on their way.
struct BlockRows {
  BlockRule rule;
  LevelsPtr levels;
  std::vector<BlockScales> blocks;  // by rows

  // Whether scales are found while rows are rounded.
  bool fitted_in_time(const Feedback& feedback) const {
    return feedback.takes_whole(rule.sub) && TargetFit::can_fit(rule, *levels);
  }

  std::vector<RowGrid> grids(size_t rows) const {
    std::vector<RowGrid> out;
    const size_t of_row = blocks.size() / std::max<size_t>(1, rows);
    for (size_t row = 0; row < rows; ++row)
      out.emplace_back(levels, rule, std::span(blocks).subspan(row * of_row, of_row));
    return out;
  }
};

// The levels of rows, scales where they are found in time, and the refinement that is asked for.
// Rows that a round leaves alone stay so in the next ones, so its end is the same in any company.
void round_levels(const Feedback& feedback, std::span<const float> values,
                  const RoundingOptions& options, BlockRows* rows, std::span<uint8_t> levels) {
  const auto width = static_cast<size_t>(feedback.columns());
  std::vector<RowGrid> grids = rows->grids(width == 0 ? 0 : values.size() / width);
  TargetFit targets(rows->rule, *rows->levels, rows->blocks, grids);
  Feedback::Fitter fit;
  if (rows->fitted_in_time(feedback))
    fit = [&](size_t row, size_t sub, std::span<const float> wanted, std::span<const float> by) {
      targets.fit(row, sub, wanted, by);
    };
  feedback.round(values, grids, levels, fit);
  for (int round = 0; round < options.rounds && feedback.form(); ++round)
    if (!(refine_blocks(*feedback.form(), rows->rule, rows->levels, values, rows->blocks, grids,
                        levels) > 0))
      break;
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

int64_t run_for(const Encoding& encoding) {
  const int64_t block = encoding.kind == EncodingKind::kInt ? encoding.block
                        : can_fit_blocks(encoding.kind) ? BlockRule::of_blocks(encoding.kind).sub
                                                        : 1;
  return block == Feedback::kRun || block == Feedback::kRun / 2 ? Feedback::kRun : 1;
}

void round_integers(const Encoding& encoding, std::span<const float> values,
                    const Feedback& feedback, const RoundingOptions& options,
                    std::span<uint16_t> scales, std::span<int8_t> codes) {
  const bool four = encoding.bits == 4;
  const CodeRange range = four ? kInt4Range : kInt8Range;
  const auto block = static_cast<size_t>(encoding.block),
             width = static_cast<size_t>(feedback.columns());
  BlockRows rows{BlockRule::of_scales(encoding.block),
                 std::make_shared<const Levels>(Levels::of_integers(range.low, range.high, 0)),
                 {}};
  rows.blocks.resize(values.size() / block);
  ScaleScratch scratch;
  for (size_t at = 0; at < values.size() && !rows.fitted_in_time(feedback); at += block) {
    const std::span<const float> part = values.subspan(at, block),
                                 weights = feedback.weights().subspan(at % width, block);
    const ScaleFit fit = four ? fit_scale_exact(part, weights, range, &scratch)
                              : fit_scale_search(part, weights, range);
    rows.blocks[at / block].d = fit.scale;
  }
  const std::span<uint8_t> found(reinterpret_cast<uint8_t*>(codes.data()), codes.size());
  round_levels(feedback, values, options, &rows, found);
  for (size_t i = 0; i < rows.blocks.size(); ++i) scales[i] = rows.blocks[i].d;
  for (uint8_t& level : found) level = rows.levels->codes[level];
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
  const auto size = static_cast<size_t>(type.block_elements);
  std::vector<BlockCodes> blocks(values.size() / size);
  fit_block_codes(kind, values, feedback.columns(), feedback.weights(), blocks);
  BlockRows rows{BlockRule::of_blocks(kind),
                 std::make_shared<const Levels>(Levels::of_blocks(kind)),
                 {blocks.begin(), blocks.end()}};
  std::vector<uint8_t> found(values.size());
  round_levels(feedback, values, options, &rows, found);
  for (size_t i = 0; i < blocks.size(); ++i) {
    static_cast<BlockScales&>(blocks[i]) = rows.blocks[i];
    for (size_t k = 0; k < size; ++k) blocks[i].codes[k] = rows.levels->codes[found[i * size + k]];
    pack_block(kind, blocks[i], out + i * static_cast<size_t>(type.block_bytes));
  }
}

}  // namespace pome
