// Checkpoints whose weights another tool has quantised: what config.json says of it
// (quantization_config), and the one form that is read for every family: floats of 8 bits with
// scales for blocks, as DeepSeek-V3 is published.
#pragma once

#include <optional>
#include <string_view>

#include "graph/constant.h"
#include "models/config.h"

namespace pome {

// weight[n, k] = f8[n, k] * scale_inv[n / block_rows, k / block_columns]
struct ScaledFloat8 {
  int64_t block_rows = 0, block_columns = 0;  // 0: one scale for the whole matrix
};

// nullopt unless config.json says so, in the form that is read.
std::optional<ScaledFloat8> read_scaled_float8(const Checkpoint& checkpoint);

// Complains of every other quantization_config and says what to do about it. `own_method` is the
// quant_method that the family reads itself ("mxfp4"), empty when there is none.
void check_stored_quantisation(ConfigReader& config, std::string_view own_method = "");

// A matrix of 8-bit floats with its scales, decoded to f32 when read. The caller has checked that
// `scales` is a matrix [ceil(rows / block_rows), ceil(columns / block_columns)], or has one
// element.
ConstantDataPtr scaled_constant(ConstantDataPtr codes, ConstantDataPtr scales,
                                const ScaledFloat8& form);

}  // namespace pome
