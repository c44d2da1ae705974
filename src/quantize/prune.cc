#include "quantize/prune.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/checked.h"
#include "quantize/grouped_constant.h"
#include "quantize/int_scale.h"
#include "quantize/palette.h"
#include "quantize/quantize.h"
#include "quantize/row_grid.h"
#include "tensor/half.h"

namespace pome {

namespace {

constexpr int64_t kRowsAtATime = 64;

// The `keep` largest of the scores; of equals the first.
void keep_largest(std::span<const float> scores, int64_t keep, std::span<uint8_t> mask,
                  std::vector<int32_t>* order) {
  order->resize(scores.size());
  std::iota(order->begin(), order->end(), 0);
  const auto before = [&](int32_t a, int32_t b) {
    const float x = scores[static_cast<size_t>(a)], y = scores[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  const auto end = order->begin() + static_cast<std::ptrdiff_t>(keep);
  if (end != order->end()) std::nth_element(order->begin(), end, order->end(), before);
  std::fill(mask.begin(), mask.end(), uint8_t{0});
  for (auto at = order->begin(); at != end; ++at) mask[static_cast<size_t>(*at)] = 1;
}

std::optional<double> number(std::string_view text) {
  // Not from_chars of a double, which older libraries lack.
  if (text.empty() || text.find_first_not_of("0123456789.") != std::string_view::npos) return {};
  char* end = nullptr;
  const std::string copy(text);
  const double value = std::strtod(copy.c_str(), &end);
  return end == copy.c_str() + copy.size() ? std::optional(value) : std::nullopt;
}
std::optional<int64_t> whole(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(value)
                                                                  : std::nullopt;
}

class PrunedConstant final : public GroupedConstant {
 public:
  PrunedConstant(ConstantDataPtr data, const Encoding& encoding, const PruneRule& rule,
                 std::string name, std::vector<FeedbackPtr> feedback)
      : GroupedConstant(std::move(data), encoding, std::move(name), std::move(feedback)),
        rule_(rule) {}
  ConstantDataPtr with(std::vector<FeedbackPtr> feedback) const override {
    return std::make_shared<PrunedConstant>(source(), encoding(), rule_, name(),
                                            std::move(feedback));
  }

 protected:
  int64_t rows_at_a_time() const override {
    return encoding().kind == EncodingKind::kSparseLut ? encoding().group : kRowsAtATime;
  }
  void encode(std::span<const float> values, const Feedback* feedback, Encoded* out) const override;

 private:
  // What the values of each row may become; none for kSparseF16.
  std::vector<RowGrid> fit(std::span<const float> values, std::span<const uint8_t> mask,
                           std::span<const float> weights, Encoded* out) const;

  PruneRule rule_;
};

std::vector<RowGrid> PrunedConstant::fit(std::span<const float> values,
                                         std::span<const uint8_t> mask,
                                         std::span<const float> weights, Encoded* out) const {
  std::vector<RowGrid> grids;
  const auto width = static_cast<size_t>(columns());
  std::vector<float> counts(values.size());  // zeros count nothing
  for (size_t i = 0; i < counts.size(); ++i)
    counts[i] = mask[i] == 0 ? 0.0f : weights.empty() ? 1.0f : weights[i % width];
  if (encoding().kind == EncodingKind::kSparseInt) {
    const bool four = encoding().bits == 4;
    const CodeRange range = four ? kInt4Range : kInt8Range;
    const auto levels =
        std::make_shared<const Levels>(Levels::of_integers(range.low, range.high, 0));
    const auto block = static_cast<size_t>(encoding().block);
    std::vector<float> kept(values.begin(), values.end());
    for (size_t i = 0; i < kept.size(); ++i) kept[i] = mask[i] != 0 ? kept[i] : 0.0f;
    ScaleScratch scratch;
    for (size_t at = 0; at < values.size(); at += width) {
      std::vector<float> scales;
      for (size_t i = at; i < at + width; i += block) {
        const std::span<const float> part(kept.data() + i, block), of(counts.data() + i, block);
        const ScaleFit fitted =
            four ? fit_scale_exact(part, of, range, &scratch) : fit_scale_search(part, of, range);
        out->grids.push_back(fitted.scale);
        scales.push_back(f16_to_f32(fitted.scale));
      }
      grids.emplace_back(levels, encoding().block, std::move(scales), std::vector<float>());
    }
  } else if (encoding().kind == EncodingKind::kSparseLut) {
    std::vector<uint16_t> keys(values.size());
    f32_to_f16(values, keys);
    keys_of_f16(keys);
    KeyHistogram histogram;
    histogram.add(keys, counts);
    std::vector<double> distinct, sums;
    histogram.collect(&distinct, &sums);
    if (distinct.empty()) distinct = {0}, sums = {1};
    const std::vector<uint16_t> table = fit_palette(distinct, sums, encoding().bits);
    out->grids.insert(out->grids.end(), table.begin(), table.end());
    std::vector<float> entries(table.size());
    f16_to_f32(table, entries);
    const auto levels = std::make_shared<const Levels>(Levels::of_table(entries));
    grids.assign(values.size() / width, RowGrid(levels));
  }
  return grids;
}

void PrunedConstant::encode(std::span<const float> values, const Feedback* feedback,
                            Encoded* out) const {
  const auto width = static_cast<size_t>(columns());
  std::vector<float> importance;
  if (feedback && rule_.below == 0)
    for (const float square : feedback->squares()) importance.push_back(std::sqrt(square));
  std::vector<uint8_t> mask(values.size()), codes(values.size());
  for (size_t at = 0; at < values.size(); at += width)
    prune_row(values.subspan(at, width), importance, encoding().keep, rule_,
              std::span(mask).subspan(at, width));
  std::vector<float> result(values.begin(), values.end());
  const auto feed = [&](const auto& value_of) {
    feedback->round_together(
        values, [&](int64_t column, std::span<const float> wanted, std::span<float> chosen) {
          for (size_t row = 0; row < wanted.size(); ++row) {
            const size_t at = row * width + static_cast<size_t>(column);
            chosen[row] = mask[at] != 0 ? value_of(at, wanted[row]) : 0.0f;
            result[at] = chosen[row];
          }
        });
  };
  // First without a grid: what it must hold.
  const auto as_binary16 = [](size_t, float wanted) {
    return round_to_f16(std::clamp(wanted, -65504.0f, 65504.0f));
  };
  if (feedback) feed(as_binary16);
  const std::vector<RowGrid> grids =
      fit(result, mask, feedback ? feedback->weights() : std::span<const float>(), out);
  const auto on_grid = [&](size_t at, float wanted) {
    const RowGrid& grid = grids[at / width];
    float value = 0;
    codes[at] =
        grid.code(grid.nearest(grid.block_of(static_cast<int64_t>(at % width)), wanted, &value));
    return value;
  };
  if (feedback && !grids.empty()) feed(on_grid);
  for (size_t i = 0; i < values.size(); ++i) {
    if (mask[i] == 0) continue;
    if (!feedback) result[i] = grids.empty() ? as_binary16(i, values[i]) : on_grid(i, values[i]);
    if (grids.empty())
      out->halves.push_back(f32_to_f16(result[i]));
    else
      out->codes.push_back(codes[i]);
  }
  out->mask.insert(out->mask.end(), mask.begin(), mask.end());
}

}  // namespace

Result<PruneRule> parse_prune(std::string_view text) {
  PruneRule rule;
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) {
    const auto share = number(text);
    if (share && *share > 0 && *share < 1) {
      rule.zeros = *share;
      return rule;
    }
  } else {
    const auto n = whole(text.substr(0, colon)), m = whole(text.substr(colon + 1));
    if (n && m && *n > 0 && *n < *m && *m <= 1024) {
      rule.n = *n;
      rule.m = *m;
      return rule;
    }
  }
  return usage_error("--prune '" + escape_for_terminal(text) +
                     "' must be a share of zeros such as 0.5, or n:m such as 2:4 (of each 4 "
                     "columns 2 stay)");
}

Result<int64_t> values_kept(const PruneRule& rule, const ConstantData& data) {
  const int64_t columns = data.columns();
  if (rule.below > 0) {
    const int64_t step = tile_rows(data);
    std::vector<float> values;
    int64_t most = 1;
    for (int64_t row = 0; row < data.rows(); row += step) {
      const int64_t rows = std::min(step, data.rows() - row);
      values.resize(static_cast<size_t>(rows * columns));
      POME_RETURN_IF_ERROR(data.read_f32(row, rows, values.data()));
      for (int64_t r = 0; r < rows; ++r) {
        const auto begin = values.begin() + static_cast<std::ptrdiff_t>(r * columns);
        most = std::max<int64_t>(most, std::count_if(begin, begin + columns, [&](float v) {
                                   return std::abs(static_cast<double>(v)) >= rule.below;
                                 }));
      }
    }
    return std::min(most, columns);
  }
  if (rule.m > 0) {
    if (columns % rule.m == 0) return columns / rule.m * rule.n;
    return std::max<int64_t>(1, columns * rule.n / rule.m);
  }
  const auto zeros = static_cast<int64_t>(rule.zeros * static_cast<double>(columns));
  return std::max<int64_t>(1, columns - zeros);
}

void prune_row(std::span<const float> values, std::span<const float> importance, int64_t keep,
               const PruneRule& rule, std::span<uint8_t> mask) {
  std::vector<float> scores(values.size());
  for (size_t i = 0; i < values.size(); ++i)
    scores[i] = std::abs(values[i]) * (importance.empty() ? 1.0f : importance[i]);
  std::vector<int32_t> order;
  const auto run = static_cast<size_t>(rule.m);
  if (run == 0 || values.size() % run != 0) return keep_largest(scores, keep, mask, &order);
  for (size_t at = 0; at < values.size(); at += run)
    keep_largest(std::span<const float>(scores).subspan(at, run), rule.n, mask.subspan(at, run),
                 &order);
}

ConstantDataPtr pruned_constant(ConstantDataPtr data, const Encoding& encoding,
                                const PruneRule& rule, std::string name) {
  POME_CHECK(encoding.is_sparse());
  POME_CHECK(encoded_layout(encoding, data->rows(), data->columns()).ok());
  return std::make_shared<PrunedConstant>(std::move(data), encoding, rule, std::move(name),
                                          std::vector<FeedbackPtr>());
}

}  // namespace pome
