#include "pipeline/shifted_bias.h"

#include <memory>
#include <utility>

#include "graph/f32_tile.h"

namespace pome {

namespace {

using Shift = std::vector<float>;

class Shifted final : public ConstantData {
 public:
  Shifted(ConstantDataPtr bias, std::shared_ptr<const Shift> shift)
      : ConstantData(bias->shape(), Encoding::plain(EncodingKind::kF32)),
        bias_(std::move(bias)),
        shift_(std::move(shift)) {}
  const ConstantData& canonical() const override { return bias_->canonical(); }
  const ConstantData& unrounded() const override { return bias_->unrounded(); }
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    float* const out = f32_part(tile, row, rows, columns());
    POME_RETURN_IF_ERROR(bias_->read_f32(row, rows, out));
    const float* const shift = shift_->data() + row * columns();
    for (int64_t i = 0; i < rows * columns(); ++i) out[i] += shift[i];
    return {};
  }

 private:
  ConstantDataPtr bias_;
  std::shared_ptr<const Shift> shift_;
};

}  // namespace

ShiftedBias shifted_bias(const ConstantDataPtr& bias, const ConstantDataPtr& weight, float factor,
                         const Encoding& stored, std::vector<float> mean_x,
                         std::vector<float> mean_y, std::vector<float> besides) {
  besides.resize(static_cast<size_t>(weight->rows()), 0.0f);
  const auto shift = std::make_shared<Shift>(besides);
  ShiftedBias out;
  out.bias = std::make_shared<Shifted>(bias, shift);
  out.see = [=, mean_x = std::move(mean_x), mean_y = std::move(mean_y),
             besides = std::move(besides)](const EncodedTile& tile) -> Status {
    const auto columns = static_cast<size_t>(weight->columns());
    std::vector<float> rounded(static_cast<size_t>(tile.rows) * columns), wanted(rounded.size());
    POME_RETURN_IF_ERROR(
        decode_rows(stored, tile.rows, weight->columns(), tile.parts, rounded.data()));
    POME_RETURN_IF_ERROR(weight->read_f32(tile.row, tile.rows, wanted.data()));
    for (size_t row = 0; row < static_cast<size_t>(tile.rows); ++row) {
      double sum = besides[static_cast<size_t>(tile.row) + row];
      for (size_t k = 0; k < columns; ++k) {
        const size_t at = row * columns + k;
        sum += static_cast<double>(factor * wanted[at]) * mean_x[k] -
               static_cast<double>(rounded[at]) * mean_y[k];
      }
      (*shift)[static_cast<size_t>(tile.row) + row] = static_cast<float>(sum);
    }
    return {};
  };
  return out;
}

}  // namespace pome
