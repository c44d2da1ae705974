// Operators of com.microsoft with weights of integers, and the norm that adds.
#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "interp/onnx_ops.h"
#include "refops/refops.h"

namespace pome::onnx_ops {

Tensor dequantize_blocks(std::span<const uint8_t> codes, std::span<const float> scales,
                         const Tensor* zeros, int bits, int64_t rows, int64_t columns,
                         int64_t block) {
  const int64_t blocks = ceil_div(columns, block), per_byte = 8 / bits;
  const int64_t row_bytes = static_cast<int64_t>(codes.size()) / std::max<int64_t>(rows, 1);
  Tensor out = Tensor::zeros(DType::kF32, {rows, columns});
  auto to = out.mutable_as<float>();
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      const int byte = codes[static_cast<size_t>(r * row_bytes + c / per_byte)];
      const int code = byte >> (c % per_byte * bits) & ((1 << bits) - 1);
      const size_t which = static_cast<size_t>(r * blocks + c / block);
      const float zero =
          zeros == nullptr ? static_cast<float>(1 << (bits - 1)) : zeros->f32()[which];
      to[static_cast<size_t>(r * columns + c)] = (static_cast<float>(code) - zero) * scales[which];
    }
  }
  return out;
}

namespace {

std::span<const uint8_t> bytes_of(const Tensor& x) {
  return {reinterpret_cast<const uint8_t*>(x.bytes().data()), x.bytes().size()};
}
bool is_block(int64_t block) { return block >= 16 && (block & (block - 1)) == 0; }

// Input 3, f32 [rows, blocks]: packed as the codes are, or floats. Not defined where there is none.
Result<Tensor> zero_points(const Call& call, int64_t rows, int64_t blocks, int64_t bits) {
  if (!call.has(3)) return Tensor();
  if (call.in(3).dtype() != DType::kU8) {
    POME_ASSIGN_OR_RETURN(const Tensor zeros, call.floats(3));
    if (zeros.count() != rows * blocks) return bad_operand(3, "is not one zero for each block");
    return zeros;
  }
  const std::span<const uint8_t> packed = bytes_of(call.in(3));
  const int64_t per_byte = 8 / bits, row_bytes = ceil_div(blocks, per_byte);
  if (call.in(3).count() != rows * row_bytes)
    return bad_operand(3, "is not one zero for each block");
  Tensor out = Tensor::zeros(DType::kF32, {rows, blocks});
  auto to = out.mutable_as<float>().begin();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t b = 0; b < blocks; ++b)
      *to++ = static_cast<float>(packed[static_cast<size_t>(r * row_bytes + b / per_byte)] >>
                                     (b % per_byte * bits) &
                                 ((1 << bits) - 1));
  return out;
}

// A [.., K] times w^T, w [N, K] of integers.
Status matmul_nbits(Call& call) {
  POME_ASSIGN_OR_RETURN(const Tensor x, call.floats(0));
  const int64_t k = call.integer("K", 0), n = call.integer("N", 0);
  const int64_t bits = call.integer("bits", 4), block = call.integer("block_size", 0);
  if ((bits != 4 && bits != 8) || !is_block(block) || k < 1 || n < 1)
    return bad_operand(
        1, "has " + std::to_string(bits) + " bits in blocks of " + std::to_string(block));
  const int64_t blocks = ceil_div(k, block);
  const Tensor& codes = call.in(1);
  if (x.rank() < 1 || x.dim(-1) != k) return bad_operand(0, "has other than K columns");
  if (codes.dtype() != DType::kU8 || codes.shape() != Shape{n, blocks, block * bits / 8})
    return bad_operand(1, "is not uint8 [N, blocks, bytes of a block]");
  POME_ASSIGN_OR_RETURN(const Tensor scales, call.floats(2));
  if (scales.count() != n * blocks) return bad_operand(2, "is not one scale for each block");
  POME_ASSIGN_OR_RETURN(const Tensor zeros, zero_points(call, n, blocks, bits));
  Tensor* weight = call.kept();
  if (!weight->defined()) {
    // Whole blocks are stored; the columns behind K count for nothing.
    const Tensor all =
        dequantize_blocks(bytes_of(codes), scales.f32(), zeros.defined() ? &zeros : nullptr,
                          static_cast<int>(bits), n, blocks * block, block);
    const std::vector<int64_t> begin = {0, 0}, end = {n, k}, step = {1, 1};
    *weight = blocks * block == k ? all : refops::slice(all, begin, end, step);
  }
  const Tensor flat = x.reshaped({x.count() / k, k});
  Tensor out = refops::matmul(flat, *weight, true, call.pool());
  if (call.has(5)) {
    POME_ASSIGN_OR_RETURN(const Tensor bias, call.floats(5));
    if (bias.shape() != Shape{n}) return bad_operand(5, "is not [N]");
    out = refops::zip<float, float>(out, bias, [](float a, float b) { return a + b; });
  }
  Shape shape = x.shape();
  shape.back() = n;
  call.emit(rounded_to(out.reshaped(std::move(shape)), call.in(0).dtype()));
  return {};
}

// Rows of a table of integers.
Status gather_block_quantized(Call& call) {
  const Tensor& table = call.in(0);
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> ids, call.ints(1));
  POME_ASSIGN_OR_RETURN(const Tensor scales, call.floats(2));
  const int64_t bits = call.integer("bits", 4), block = call.integer("block_size", 128);
  if (table.dtype() != DType::kU8 || table.rank() != 2 || (bits != 4 && bits != 8) ||
      !is_block(block) || call.integer("gather_axis", 0) != 0 ||
      call.integer("quantize_axis", 1) != 1)
    return bad_operand(0, "is not a uint8 table whose rows are asked for");
  const int64_t rows = table.dim(0), row_bytes = table.dim(1), columns = row_bytes * 8 / bits;
  const int64_t blocks = ceil_div(columns, block);
  if (scales.shape() != Shape{rows, blocks}) return bad_shapes(table.shape(), scales.shape());
  Tensor* zeros = call.kept();
  if (!zeros->defined()) {
    POME_ASSIGN_OR_RETURN(*zeros, zero_points(call, rows, blocks, bits));
  }
  Shape shape = call.in(1).shape();
  shape.push_back(columns);
  Tensor out = Tensor::zeros(DType::kF32, std::move(shape));
  auto to = out.mutable_as<float>().begin();
  for (const int64_t id : ids) {
    if (id < 0 || id >= rows)
      return bad_operand(1,
                         "holds " + std::to_string(id) + " for a table of " + std::to_string(rows));
    const auto codes = bytes_of(table).subspan(static_cast<size_t>(id * row_bytes),
                                               static_cast<size_t>(row_bytes));
    const auto scale =
        scales.f32().subspan(static_cast<size_t>(id * blocks), static_cast<size_t>(blocks));
    Tensor zero;
    if (zeros->defined()) {
      const std::vector<int64_t> begin = {id, 0}, end = {id + 1, blocks}, step = {1, 1};
      zero = refops::slice(*zeros, begin, end, step);
    }
    const Tensor row = dequantize_blocks(codes, scale, zero.defined() ? &zero : nullptr,
                                         static_cast<int>(bits), 1, columns, block);
    to = std::copy(row.f32().begin(), row.f32().end(), to);
  }
  call.emit(rounded_to(out, call.in(2).dtype()));
  return {};
}

// sum = x + skip (+ bias); out = sum / sqrt(mean(sum^2) + epsilon) * gain; outputs 0 and 3.
Status skip_simplified_layer_normalization(Call& call) {
  POME_ASSIGN_OR_RETURN(const Tensor x, call.floats(0));
  POME_ASSIGN_OR_RETURN(const Tensor skip, call.floats(1));
  POME_ASSIGN_OR_RETURN(const Tensor gain, call.floats(2));
  if (x.shape() != skip.shape()) return bad_shapes(x.shape(), skip.shape());
  const int64_t n = x.rank() > 0 ? x.dim(-1) : 0;
  if (n == 0 || gain.shape() != Shape{n} || call.has(3)) return bad_shapes(x.shape(), gain.shape());
  const double epsilon = call.number("epsilon", 1e-5);
  const Tensor sum = refops::zip<float, float>(x, skip, [](float a, float b) { return a + b; });
  Tensor out = sum.clone();
  auto values = out.mutable_as<float>();
  for (int64_t row = 0; row < x.count() / n; ++row) {
    const auto part = values.subspan(static_cast<size_t>(row * n), static_cast<size_t>(n));
    double squares = 0;
    for (const float v : part) squares += static_cast<double>(v) * v;
    const double root = std::sqrt(squares / static_cast<double>(n) + epsilon);
    for (size_t i = 0; i < part.size(); ++i)
      part[i] = static_cast<float>(part[i] / root) * gain.f32()[i];
  }
  const DType dtype = call.in(0).dtype();
  call.emit(rounded_to(out, dtype));
  call.emit(Tensor());
  call.emit(Tensor());
  call.emit(rounded_to(sum, dtype));
  return {};
}

constexpr OpSpec kOps[] = {
    {onnx::kMicrosoft, "MatMulNBits", 3, 6, matmul_nbits},
    {onnx::kMicrosoft, "GatherBlockQuantized", 3, 4, gather_block_quantized},
    {onnx::kMicrosoft, "SkipSimplifiedLayerNormalization", 3, 4,
     skip_simplified_layer_normalization},
};

}  // namespace

std::span<const OpSpec> contrib_ops() { return kOps; }

}  // namespace pome::onnx_ops
