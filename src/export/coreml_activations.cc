// Values that meet int8 weights, rounded to eight bits on the way: quantize and dequantize, which a
// compiler may join with the product behind them.
#include "export/coreml_lower.h"

namespace pome::coreml {

using mil::ValueData;

Val Lowering::in_eight_bits(const Val& x, ValueId weight) {
  const auto constant = constant_of(weight);
  if (!constant || activations_.empty() || x.dtype != DType::kF16) return x;
  const auto found = activations_.find(graph_.constants[static_cast<size_t>(*constant)].name);
  if (found == activations_.end()) return x;
  const ActivationGrid& grid = found->second;
  // Weights that read one value share its grid.
  if (const auto made = rounded_.find(x.name); made != rounded_.end() && made->second.first == grid)
    return made->second.second;
  const DType type = grid.is_affine ? DType::kU8 : DType::kI8;
  Operands forth = {{"input", x}, {"scale", ValueData::scalar_f16(grid.scale)}};
  if (grid.is_affine)
    forth.emplace_back("zero_point", ValueData::scalar_u8(static_cast<uint8_t>(grid.zero_point)));
  Operands back = forth;
  forth.emplace_back("output_dtype", ValueData::string(grid.is_affine ? "uint8" : "int8"));
  const Val codes =
      out_.op("quantize", out_.unique(x.name + "_codes"), std::move(forth), type, x.dims);
  back[0].second = codes;
  const Val out =
      out_.op("dequantize", out_.unique(x.name + "_rounded"), std::move(back), x.dtype, x.dims);
  rounded_.insert_or_assign(x.name, std::pair(grid, out));
  return out;
}

}  // namespace pome::coreml
