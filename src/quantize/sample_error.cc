#include "quantize/sample_error.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace pome {

namespace {

constexpr int64_t kPiece = 16;  // rows that are read together

// Rows and columns of a tile whose values lie on one grid.
struct Grid {
  int64_t rows = 1, columns = 1;
};
Grid grid_of(const Encoding& encoding, int64_t columns) {
  if (encoding.kind == EncodingKind::kLut) return {encoding.group, columns};
  if (encoding.kind == EncodingKind::kInt) return {1, encoding.block};
  const int block = traits(encoding.kind).block_elements;
  // Of the super-blocks of 256 each part of 16 or 32 has a scale of its own.
  return {1, block > 32 ? 16 : block};
}

// The grid itself is not known here: its ends are those of the values in use, its step there the
// distance to the next value in use.
int64_t beyond(std::span<const float> wanted, std::vector<float>* values) {
  std::sort(values->begin(), values->end());
  values->erase(std::unique(values->begin(), values->end()), values->end());
  if (values->size() < 2) return 0;
  const std::vector<float>& v = *values;
  const float low = v[0] - (v[1] - v[0]), high = v.back() + (v.back() - v[v.size() - 2]);
  return std::count_if(wanted.begin(), wanted.end(), [&](float w) { return w < low || w > high; });
}

int64_t count_saturated(const Encoding& encoding, std::span<const float> source,
                        std::span<const float> stored, int64_t rows, int64_t columns) {
  if (traits(encoding.kind).block_elements == 1) return 0;
  const Grid grid = grid_of(encoding, columns);
  if (grid.rows <= 0 || grid.columns <= 0) return 0;
  int64_t out = 0;
  std::vector<float> values, wanted;
  for (int64_t r = 0; r < rows; r += grid.rows)
    for (int64_t c = 0; c < columns; c += grid.columns) {
      values.clear();
      wanted.clear();
      for (int64_t i = r; i < std::min(rows, r + grid.rows); ++i) {
        const auto at = static_cast<ptrdiff_t>(i * columns + c);
        const auto count = static_cast<ptrdiff_t>(std::min(grid.columns, columns - c));
        values.insert(values.end(), stored.begin() + at, stored.begin() + at + count);
        wanted.insert(wanted.end(), source.begin() + at, source.begin() + at + count);
      }
      out += beyond(wanted, &values);
    }
  return out;
}

}  // namespace

double SampleError::signal_to_noise_db() const {
  return error > 0 ? 10 * std::log10(energy / error) : std::numeric_limits<double>::infinity();
}

SampleError& SampleError::operator+=(const SampleError& other) {
  rows += other.rows;
  error += other.error;
  energy += other.energy;
  output_error += other.output_error;
  output_energy += other.output_energy;
  saturated += other.saturated;
  values += other.values;
  return *this;
}

Result<SampleError> sample_error(const ConstantData& source, float factor,
                                 const ConstantData& stored, int64_t rows,
                                 std::span<const FeedbackPtr> feedback, bool saturation) {
  SampleError out;
  const int64_t total = stored.rows(), columns = stored.columns();
  if (total == 0 || columns == 0) return out;
  const int64_t grain = row_granularity(stored.encoding(), columns);
  const int64_t piece = std::min(total, (kPiece + grain - 1) / grain * grain);
  const int64_t pieces = total / piece, wanted = std::clamp<int64_t>(rows / piece, 1, pieces);
  const int64_t rows_of_one =
      feedback.empty() ? total : total / static_cast<int64_t>(feedback.size());
  std::vector<float> from(static_cast<size_t>(piece * columns)), to(from.size()),
      errors(from.size());
  for (int64_t k = 0; k < wanted; ++k) {
    const int64_t first = pieces * k / wanted * piece;
    POME_RETURN_IF_ERROR(source.read_f32(first, piece, from.data()));
    POME_RETURN_IF_ERROR(stored.read_f32(first, piece, to.data()));
    for (size_t i = 0; i < from.size(); ++i) {
      from[i] *= factor;
      errors[i] = from[i] - to[i];
      out.error += static_cast<double>(errors[i]) * static_cast<double>(errors[i]);
      out.energy += static_cast<double>(from[i]) * static_cast<double>(from[i]);
    }
    for (int64_t r = 0; r < piece && !feedback.empty(); ++r) {
      const FeedbackPtr& known = feedback[static_cast<size_t>((first + r) / rows_of_one)];
      if (!known) continue;
      const auto at = static_cast<size_t>(r * columns), count = static_cast<size_t>(columns);
      out.output_error += known->cost(std::span<const float>(errors).subspan(at, count));
      out.output_energy += known->cost(std::span<const float>(from).subspan(at, count));
    }
    out.rows += piece;
    if (!saturation) continue;
    out.values += piece * columns;
    out.saturated += count_saturated(stored.encoding(), from, to, piece, columns);
  }
  return out;
}

Result<std::vector<FeedbackPtr>> Factors::of(const Constant& constant, int64_t run) {
  constexpr int64_t kMostElements = int64_t{64} << 20;
  std::vector<FeedbackPtr> out;
  const auto found = statistics_.find(constant.name);
  if (found == statistics_.end()) return out;
  for (const MomentsPtr& moments : found->second) {
    if (!moments) {
      out.push_back(nullptr);
      continue;
    }
    if (const auto known = made_.find({moments.get(), run}); known != made_.end()) {
      out.push_back(known->second);
      continue;
    }
    const int64_t elements = moments->columns * moments->columns;
    if (held_ + elements > kMostElements) {
      made_.clear();
      held_ = 0;
    }
    auto made = Feedback::create(*moments, run);
    if (!made.ok()) return Status(made.status()).at("tensor " + constant.name);
    held_ += elements;
    out.push_back(made_[{moments.get(), run}] = *made);
  }
  return out;
}

}  // namespace pome
