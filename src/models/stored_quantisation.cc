#include "models/stored_quantisation.h"

#include <algorithm>

#include "base/checked.h"

namespace pome {
namespace {

const Json* quantisation_of(const Json& config) {
  if (!config.is_object()) return nullptr;
  const auto found = config.find("quantization_config");
  return found == config.end() || found->is_null() ? nullptr : &*found;
}

std::string method_of(const Json& quantisation) {
  const auto found =
      quantisation.is_object() ? quantisation.find("quant_method") : quantisation.end();
  if (found == quantisation.end() || !found->is_string()) return "";
  return found->get<std::string>();
}

std::optional<ScaledFloat8> scaled_float8(const Json& quantisation) {
  if (method_of(quantisation) != "fp8") return std::nullopt;
  const auto format = quantisation.find("fmt");
  if (format != quantisation.end() && !format->is_null() && *format != "e4m3") return std::nullopt;
  const auto block = quantisation.find("weight_block_size");
  if (block == quantisation.end() || block->is_null()) return ScaledFloat8{};
  constexpr int64_t kMost = 1 << 20;
  const auto size = [&](size_t i) -> int64_t {
    const Json& value = (*block)[i];
    return value.is_number_unsigned() && value <= kMost ? value.get<int64_t>() : 0;
  };
  if (!block->is_array() || block->size() != 2 || size(0) == 0 || size(1) == 0) return std::nullopt;
  return ScaledFloat8{size(0), size(1)};
}

class ScaledConstant final : public ConstantData {
 public:
  ScaledConstant(ConstantDataPtr codes, ConstantDataPtr scales, const ScaledFloat8& form)
      : ConstantData(codes->shape(), Encoding::plain(EncodingKind::kF32)),
        codes_(std::move(codes)),
        scales_(std::move(scales)),
        block_rows_(form.block_rows > 0 ? form.block_rows : std::max<int64_t>(1, rows())),
        block_columns_(form.block_columns > 0 ? form.block_columns
                                              : std::max<int64_t>(1, columns())) {}

  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    tile->row = row;
    tile->rows = rows;
    tile->storage.resize(1);
    tile->storage[0].resize(static_cast<size_t>(rows * columns()) * sizeof(float));
    tile->parts.assign(1, tile->storage[0]);
    auto* out = reinterpret_cast<float*>(tile->storage[0].data());
    POME_RETURN_IF_ERROR(codes_->read_f32(row, rows, out));
    std::vector<float> scales(static_cast<size_t>(ceil_div(columns(), block_columns_)));
    int64_t held = -1;  // the row of blocks that `scales` belongs to
    for (int64_t r = 0; r < rows; ++r, out += columns()) {
      if (const int64_t wanted = (row + r) / block_rows_; wanted != held) {
        POME_RETURN_IF_ERROR(scales_->read_f32(wanted, 1, scales.data()));
        held = wanted;
      }
      for (int64_t c = 0; c < columns(); ++c) {
        out[c] *= scales[static_cast<size_t>(c / block_columns_)];
      }
    }
    return {};
  }

 private:
  ConstantDataPtr codes_, scales_;
  int64_t block_rows_, block_columns_;
};

}  // namespace

std::optional<ScaledFloat8> read_scaled_float8(const Checkpoint& checkpoint) {
  const Json* quantisation = quantisation_of(checkpoint.config);
  return quantisation ? scaled_float8(*quantisation) : std::nullopt;
}

void check_stored_quantisation(ConfigReader& config, std::string_view own_method) {
  const Json* quantisation = config.is_gguf() ? nullptr : quantisation_of(config.object());
  if (!quantisation || scaled_float8(*quantisation)) return;
  const std::string method = method_of(*quantisation);
  if (!own_method.empty() && method == own_method) return;
  if (method == "fp8") {
    config.unsupported(
        "quantization_config: fp8 of another form than e4m3 with weight_block_size [rows, "
        "columns]; "
        "take the bfloat16 checkpoint of the model");
    return;
  }
  config.unsupported(
      "quantization_config: weights that " +
      (method.empty() ? "another tool" : "'" + escape_for_terminal(method, 64) + "'") +
      " has quantised; take the checkpoint that they were made from, or a GGUF file "
      "of the model, and let pome quantise it");
}

ConstantDataPtr scaled_constant(ConstantDataPtr codes, ConstantDataPtr scales,
                                const ScaledFloat8& form) {
  return std::make_shared<ScaledConstant>(std::move(codes), std::move(scales), form);
}

}  // namespace pome
