#include "quantize/fed_rounding.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "quantize/block_fit.h"
#include "quantize/int_scale.h"
#include "quantize/palette.h"
#include "tensor/half.h"

namespace pome {

void round_integers(const Encoding& encoding, std::span<const float> values,
                    const Feedback& feedback, const RoundingOptions&, std::span<uint16_t> scales,
                    std::span<int8_t> codes) {
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
  feedback.round(values, grids, {reinterpret_cast<uint8_t*>(codes.data()), codes.size()});
}

void round_palette(int bits, std::span<const float> values, const Feedback& feedback,
                   const RoundingOptions&, std::span<uint16_t> table, std::span<uint8_t> codes) {
  const auto width = static_cast<size_t>(feedback.columns());
  KeyHistogram histogram;
  std::vector<uint16_t> keys(values.size());
  f32_to_f16(values, keys);
  keys_of_f16(keys);
  for (size_t at = 0; at < keys.size(); at += width)
    histogram.add(std::span<const uint16_t>(keys).subspan(at, width), feedback.weights());
  std::vector<double> distinct, weights;
  histogram.collect(&distinct, &weights);
  const std::vector<uint16_t> fitted = fit_palette(distinct, weights, bits);
  std::copy(fitted.begin(), fitted.end(), table.begin());
  std::vector<float> entries(fitted.size());
  f16_to_f32(fitted, entries);
  const std::vector<RowGrid> grids(
      values.size() / width, RowGrid(std::make_shared<const Levels>(Levels::of_table(entries))));
  feedback.round(values, grids, codes);
}

void round_blocks(EncodingKind kind, std::span<const float> values, const Feedback& feedback,
                  const RoundingOptions&, std::byte* out) {
  const EncodingTraits& type = traits(kind);
  const auto size = static_cast<size_t>(type.block_elements),
             width = static_cast<size_t>(feedback.columns());
  std::vector<BlockCodes> blocks(values.size() / size);
  fit_block_codes(kind, values, feedback.columns(), feedback.weights(), blocks);
  const auto levels = std::make_shared<const Levels>(Levels::of_blocks(kind));
  std::vector<RowGrid> grids;
  for (size_t at = 0; at < blocks.size(); at += width / size)
    grids.emplace_back(levels, kind, std::span<const BlockCodes>(blocks).subspan(at, width / size));
  std::vector<uint8_t> codes(values.size());
  feedback.round(values, grids, codes);
  for (size_t i = 0; i < blocks.size(); ++i) {
    std::copy_n(codes.begin() + static_cast<std::ptrdiff_t>(i * size), size, blocks[i].codes);
    pack_block(kind, blocks[i], out + i * static_cast<size_t>(type.block_bytes));
  }
}

}  // namespace pome
