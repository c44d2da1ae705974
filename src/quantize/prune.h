// Pruning: which weights become zero, and storing what is left (kSparse*).
//
// Every row keeps equally many values, so that sizes follow from shapes and tiles stand on their
// own. Within a row, or within each run of m columns, those with the largest |w| * sqrt(H_jj) stay
// (arXiv 2306.11695), H the second moments of the activations; without calibration the largest |w|.
// With them, what the zeros take away the values behind them make good as far as they can
// (feedback.h; arXiv 2301.00774), and grids are fitted for the values after that.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "graph/constant.h"
#include "quantize/feedback.h"

namespace pome {

struct PruneRule {
  double zeros = 0.5;    // of each row; not used where one of the following is set
  int64_t n = 0, m = 0;  // of each m columns n stay
  double below = 0;      // all magnitudes of at least this stay
};
// "0.5", "2:4": what --prune says. kUsage.
Result<PruneRule> parse_prune(std::string_view text);

// How many values of each row stay. Of a threshold, as many as the row that has most of them: reads
// all of `data` once. Where m does not divide the columns, the same share of each row.
Result<int64_t> values_kept(const PruneRule& rule, const ConstantData& data);

// The mask of one row; `importance` by column, or empty: all the same. Of equals the first stay.
void prune_row(std::span<const float> values, std::span<const float> importance, int64_t keep,
               const PruneRule& rule, std::span<uint8_t> mask);

// Prunes and encodes when it is read. `encoding` is sparse and divides the shape; `keep` is what
// values_kept() says.
ConstantDataPtr pruned_constant(ConstantDataPtr data, const Encoding& encoding,
                                const PruneRule& rule, std::string name = {});

}  // namespace pome
