#include "quantize/retarget.h"

#include <algorithm>
#include <utility>

#include "graph/f32_tile.h"
#include "quantize/matrix_kernel.h"

namespace pome {

namespace {

constexpr int64_t kRows = 128;  // that a thread takes at a time

class Retargeted final : public ConstantData {
 public:
  Retargeted(ConstantDataPtr data, std::shared_ptr<const Retarget> by,
             std::shared_ptr<const std::vector<float>> added)
      : ConstantData(data->shape(), Encoding::plain(EncodingKind::kF32)),
        data_(std::move(data)),
        by_(std::move(by)),
        added_(std::move(added)) {}
  const ConstantData& canonical() const override { return data_->canonical(); }
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    std::vector<float> from(static_cast<size_t>(rows * columns()));
    POME_RETURN_IF_ERROR(data_->read_f32(row, rows, from.data()));
    float* const to = f32_part(tile, row, rows, columns());
    if (by_)
      by_->apply(from, {to, from.size()});
    else
      std::copy(from.begin(), from.end(), to);
    if (added_)
      for (size_t i = 0; i < from.size(); ++i)
        to[i] += (*added_)[static_cast<size_t>(row * columns()) + i];
    return {};
  }

 private:
  ConstantDataPtr data_;
  std::shared_ptr<const Retarget> by_;
  std::shared_ptr<const std::vector<float>> added_;
};

void transpose(std::vector<float>* matrix, int64_t n, ThreadPool* pool) {
  constexpr int64_t kTile = 32;
  pool->parallel_for(n, kTile, [&](int64_t begin, int64_t end) {
    for (int64_t j0 = begin; j0 < n; j0 += kTile)
      for (int64_t i = begin; i < end; ++i)
        for (int64_t j = std::max(j0, i + 1); j < std::min(j0 + kTile, n); ++j)
          std::swap((*matrix)[static_cast<size_t>(i * n + j)],
                    (*matrix)[static_cast<size_t>(j * n + i)]);
  });
}

}  // namespace

Retarget::Retarget(FeedbackPtr feedback, std::vector<float> cross, int64_t rows, ThreadPool* pool)
    : columns_(feedback->columns()),
      feedback_(rows < feedback->columns() ? feedback : nullptr),
      turned_(std::move(cross)) {
  POME_CHECK(turned_.size() == static_cast<size_t>(columns_ * columns_));
  if (!feedback_) solve_rows(*feedback, &turned_, pool);
  transpose(&turned_, columns_, pool);
}

void Retarget::apply(std::span<const float> rows, std::span<float> out) const {
  const int64_t count = static_cast<int64_t>(rows.size()) / columns_;
  multiply({rows.data(), columns_, count, turned_.data(), columns_, columns_, columns_, out.data(),
            columns_});
  if (feedback_) feedback_->solve(out);
  for (size_t i = 0; i < rows.size(); ++i) out[i] += rows[i];
}

void solve_rows(const Feedback& feedback, std::vector<float>* lacking, ThreadPool* pool) {
  const int64_t n = feedback.columns();
  pool->parallel_for(static_cast<int64_t>(lacking->size()) / n, kRows,
                     [&](int64_t begin, int64_t end) {
                       feedback.solve(std::span(*lacking).subspan(
                           static_cast<size_t>(begin * n), static_cast<size_t>((end - begin) * n)));
                     });
}

ConstantDataPtr retargeted(ConstantDataPtr data, std::shared_ptr<const Retarget> by,
                           std::shared_ptr<const std::vector<float>> added) {
  POME_CHECK(!by || data->columns() == by->columns());
  POME_CHECK(!added || added->size() == static_cast<size_t>(data->rows() * data->columns()));
  return std::make_shared<Retargeted>(std::move(data), std::move(by), std::move(added));
}

}  // namespace pome
