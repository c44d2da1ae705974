// Compressed constants, in the form of iOS 18 (inputs) and of iOS 16 (attributes). Evaluated once,
// when a program is prepared.
//
// Inline codes of at most eight bits arrive as they are stored, other integers as i32 (mil_ops.h);
// a code stream runs over the whole tensor in row-major order.
#include <algorithm>
#include <utility>

#include "interp/mil_ops.h"
#include "refops/refops.h"

namespace pome::mil_ops {
namespace {

// Integers, whatever they are stored as.
class Codes {
 public:
  explicit Codes(Tensor stored)
      : stored_(std::move(stored)),
        bits_(bits_of(stored_.dtype())),
        sign_(stored_.dtype() == DType::kI4 || stored_.dtype() == DType::kI8 ? 1 << (bits_ - 1)
                                                                             : 0) {}
  const Shape& shape() const { return stored_.shape(); }
  // All that this many bits can say lies in [0, end).
  bool is_below(int64_t end) const {
    if (stored_.dtype() != DType::kI32) return sign_ == 0 && int64_t{1} << bits_ <= end;
    const auto all = stored_.as<int32_t>();
    return std::all_of(all.begin(), all.end(), [end](int32_t c) { return c >= 0 && c < end; });
  }
  // Elements [first, first + count); the buffers are the caller's.
  struct Buffers {
    std::vector<uint8_t> packed;
    std::vector<int32_t> wide;
  };
  const int32_t* run(int64_t first, int64_t count, Buffers* buffers) const {
    if (stored_.dtype() == DType::kI32) return stored_.as<int32_t>().data() + first;
    buffers->packed.resize(static_cast<size_t>(count));
    buffers->wide.resize(static_cast<size_t>(count));
    unpack_bits(stored_.bytes(), bits_, first, buffers->packed);
    for (size_t i = 0; i < buffers->wide.size(); ++i)
      buffers->wide[i] = (buffers->packed[i] ^ sign_) - sign_;
    return buffers->wide.data();
  }

 private:
  Tensor stored_;
  int bits_, sign_;
};

Result<Tensor> stored_codes(const Call& call, std::string_view name) {
  const Value& value = call.at(name);
  if (value.is_text() || !is_integer(value.type)) return bad_operand(name, "must be integers");
  return value.tensor;
}
Result<Tensor> widened(Tensor stored) {
  if (stored.dtype() == DType::kI32) return stored;
  POME_ASSIGN_OR_RETURN(Value value, decode_constant(stored));
  return std::move(value.tensor);
}
Result<Tensor> codes(const Call& call, std::string_view name) {
  POME_ASSIGN_OR_RETURN(Tensor stored, stored_codes(call, name));
  return widened(std::move(stored));
}
// Any number as f32 (integers of constants are small).
Result<Tensor> numbers(const Call& call, std::string_view name) {
  const Value& value = call.at(name);
  if (value.is_text() || value.type == DType::kBool) return bad_operand(name, "must be numbers");
  if (is_float(value.type)) return value.tensor;
  POME_ASSIGN_OR_RETURN(const Tensor wide, widened(value.tensor));
  return refops::map<int32_t, float>(wide, [](int32_t v) { return static_cast<float>(v); });
}
// A result of the declared kind: f32 as it is, or back to integers.
void emit_number(Call& call, Tensor floats, DType type) {
  if (is_float(type)) return call.emit(std::move(floats), type);
  call.emit(refops::map<float, int32_t>(floats, [](float v) { return static_cast<int32_t>(v); }),
            type);
}

// Calls body(first element of a row, block index of that row, offset of each column's block) where
// the data [d0, .., dk] is covered by blocks [g0, .., gk], g dividing d: an element (i0, .., ik)
// belongs to block (i0 * g0 / d0, ..).
struct Blocks {
  Shape data;
  std::vector<int64_t> sizes;    // elements per block along each axis
  std::vector<int64_t> strides;  // of the block grid, row-major
};
Result<Blocks> blocks_of(const Shape& data, const Shape& grid, std::string_view name) {
  if (data.size() != grid.size()) return bad_shapes(data, grid);
  Blocks blocks{data, {}, refops::row_major_strides(grid)};
  for (size_t i = 0; i < data.size(); ++i) {
    if (grid[i] <= 0 || data[i] % grid[i] != 0)
      return bad_operand(name,
                         "of shape " + shape_text(grid) + " does not divide " + shape_text(data));
    blocks.sizes.push_back(std::max<int64_t>(data[i] / grid[i], 1));
  }
  return blocks;
}
// On all threads of the pool; body(first element, block of that row, buffers of the thread).
template <typename F>
void each_row(const Blocks& blocks, ThreadPool* pool, const F& body) {
  const size_t rank = blocks.data.size();
  const int64_t columns = rank == 0 ? 1 : std::max<int64_t>(blocks.data.back(), 1);
  const int64_t rows = element_count(blocks.data).value_or(0) / columns;
  const auto some = [&](int64_t begin, int64_t end) {
    Codes::Buffers buffers;
    std::vector<int64_t> at(rank, 0);
    int64_t rest = begin;
    for (size_t axis = rank > 0 ? rank - 1 : 0; axis-- > 0; rest /= blocks.data[axis])
      at[axis] = rest % blocks.data[axis];
    for (int64_t row = begin; row < end; ++row) {
      int64_t block = 0;
      for (size_t i = 0; i + 1 < rank; ++i) block += at[i] / blocks.sizes[i] * blocks.strides[i];
      body(row * columns, block, &buffers);
      for (size_t axis = rank > 0 ? rank - 1 : 0; axis-- > 0;) {
        if (++at[axis] < blocks.data[axis]) break;
        at[axis] = 0;
      }
    }
  };
  const int64_t grain = std::max<int64_t>(1, (1 << 18) / columns);
  if (pool == nullptr || rows <= grain) return some(0, rows);
  pool->parallel_for(rows, grain, some);
}

// scale * (data - offset), one scale (and offset) per block.
Result<Tensor> shift_scale(const Shape& shape, const Tensor& scale, const Tensor& offset,
                           ThreadPool* pool, const auto& values) {
  POME_ASSIGN_OR_RETURN(const Blocks blocks, blocks_of(shape, scale.shape(), "scale"));
  if (offset.defined() && offset.shape() != scale.shape())
    return bad_shapes(scale.shape(), offset.shape());
  Tensor out = Tensor::zeros(DType::kF32, shape);
  const float* scales = scale.f32().data();
  const float* offsets = offset.defined() ? offset.f32().data() : nullptr;
  float* to = out.mutable_as<float>().data();
  const int64_t columns = shape.empty() ? 1 : shape.back();
  const int64_t size = shape.empty() ? 1 : blocks.sizes.back();
  each_row(blocks, pool, [&](int64_t first, int64_t block, Codes::Buffers* buffers) {
    const auto* in = values(first, columns, buffers);
    for (int64_t c = 0; c < columns; c += size, ++block) {
      const float s = scales[block], o = offsets == nullptr ? 0.0f : offsets[block];
      for (int64_t i = c; i < c + size; ++i) to[first + i] = s * (static_cast<float>(in[i]) - o);
    }
  });
  return out;
}
Result<Tensor> shift_scale(const Tensor& data, const Tensor& scale, const Tensor& offset,
                           ThreadPool* pool) {
  const float* in = data.f32().data();
  return shift_scale(data.shape(), scale, offset, pool,
                     [in](int64_t first, int64_t, Codes::Buffers*) { return in + first; });
}
Status blockwise_shift_scale(Call& call) {
  POME_ASSIGN_OR_RETURN(const Value scale, call.floats("scale"));
  Tensor offset;
  if (call.has("offset")) {
    POME_ASSIGN_OR_RETURN(offset, numbers(call, "offset"));
  }
  const Value& data = call.at("data");
  if (!data.is_text() && is_integer(data.type)) {
    const Codes stored(data.tensor);
    POME_ASSIGN_OR_RETURN(Tensor out,
                          shift_scale(stored.shape(), scale.tensor, offset, call.pool(),
                                      [&](int64_t first, int64_t count, Codes::Buffers* buffers) {
                                        return stored.run(first, count, buffers);
                                      }));
    call.emit(std::move(out), scale.type);
    return {};
  }
  POME_ASSIGN_OR_RETURN(const Tensor floats, numbers(call, "data"));
  POME_ASSIGN_OR_RETURN(Tensor out, shift_scale(floats, scale.tensor, offset, call.pool()));
  call.emit(std::move(out), scale.type);
  return {};
}

// ---- palettes

// lut [g0, .., gk, P, V]: table (i0 * g0 / d0, ..), entry `code`, V consecutive elements along
// vector_axis.
Result<Tensor> look_up(const Tensor& stored, const Tensor& lut, int64_t vector_axis,
                       ThreadPool* pool) {
  const auto rank = static_cast<size_t>(stored.rank());
  if (static_cast<size_t>(lut.rank()) != rank + 2) return bad_shapes(stored.shape(), lut.shape());
  const Shape grid(lut.shape().begin(), lut.shape().end() - 2);
  POME_ASSIGN_OR_RETURN(const Blocks blocks, blocks_of(stored.shape(), grid, "lut"));
  const int64_t entries = lut.dim(-2), width = lut.dim(-1);
  const Codes indices(stored);
  if (!indices.is_below(entries)) {
    POME_ASSIGN_OR_RETURN(const Tensor wide, widened(stored));
    for (const int32_t code : wide.as<int32_t>())
      if (code < 0 || code >= entries)
        return bad_operand("indices", "holds " + std::to_string(code) + " for a table of " +
                                          std::to_string(entries));
  }
  Shape shape = stored.shape();
  const size_t axis = static_cast<size_t>(vector_axis);
  if (width != 1) {
    if (axis >= rank) return bad_operand("vector_axis", "is needed with vectors");
    shape[axis] *= width;
  }
  Tensor out = Tensor::zeros(DType::kF32, shape);
  const float* tables = lut.f32().data();
  float* to = out.mutable_as<float>().data();
  const int64_t columns = rank == 0 ? 1 : stored.dim(-1);
  const int64_t size = rank == 0 ? 1 : blocks.sizes.back();
  // A vector's elements lie `apart` elements from each other in the result. All axes from
  // vector_axis on make runs of `apart` codes.
  int64_t apart = 1;
  for (size_t i = axis + 1; width != 1 && i < rank; ++i) apart *= stored.shape()[i];
  each_row(blocks, pool, [&](int64_t first, int64_t block, Codes::Buffers* buffers) {
    const int32_t* codes_in = indices.run(first, columns, buffers);
    for (int64_t c = 0; c < columns; c += size, ++block) {
      const float* table = tables + block * entries * width;
      for (int64_t i = c; i < c + size; ++i) {
        const float* entry = table + codes_in[i] * width;
        if (width == 1) {
          to[first + i] = *entry;
          continue;
        }
        const int64_t at = first + i, base = at / apart * width * apart + at % apart;
        for (int64_t v = 0; v < width; ++v) to[base + v * apart] = entry[v];
      }
    }
  });
  return out;
}

Result<Shape> shape_parameter(const Call& call) {
  POME_ASSIGN_OR_RETURN(std::vector<int64_t> shape, call.ints("shape"));
  if (!element_count(shape)) return bad_operand("shape", "is " + shape_text(shape));
  return shape;
}
// Codes of `bits` bits out of a list of bytes.
Result<Tensor> unpack_bytes(const Tensor& bytes, int bits, const Shape& shape) {
  const int64_t count = *element_count(shape);
  const auto needed = count / 8 * bits + (count % 8 * bits + 7) / 8;
  if (bytes.count() < needed)
    return bad_operand("indices", "holds " + std::to_string(bytes.count()) + " bytes, " +
                                      std::to_string(needed) + " are needed");
  Tensor out = Tensor::zeros(DType::kI32, shape);
  const auto from = bytes.as<int32_t>();
  auto to = out.mutable_as<int32_t>();
  uint32_t window = 0;
  int held = 0;
  size_t next = 0;
  for (int32_t& code : to) {
    if (held < bits) {
      window |= static_cast<uint32_t>(from[next++] & 0xFF) << held;
      held += 8;
    }
    code = static_cast<int32_t>(window & ((1u << bits) - 1));
    window >>= bits;
    held -= bits;
  }
  return out;
}
Status lut_to_dense(Call& call) {
  POME_ASSIGN_OR_RETURN(Tensor indices, stored_codes(call, "indices"));
  POME_ASSIGN_OR_RETURN(Tensor lut, numbers(call, "lut"));
  const DType type = call.at("lut").type;
  int64_t vector_axis = -1;
  if (call.has("shape")) {
    POME_ASSIGN_OR_RETURN(const Shape shape, shape_parameter(call));
    int bits = 0;
    while (bits < 8 && (int64_t{1} << bits) < lut.count()) ++bits;
    if (lut.rank() != 1 || (int64_t{1} << bits) != lut.count() || bits == 0)
      return bad_operand("lut", "has " + std::to_string(lut.count()) +
                                    " entries, a power of two up to 256 is needed");
    POME_ASSIGN_OR_RETURN(const Tensor bytes, widened(std::move(indices)));
    POME_ASSIGN_OR_RETURN(indices, unpack_bytes(bytes, bits, shape));
    Shape grid(shape.size(), 1);
    grid.insert(grid.end(), {lut.count(), 1});
    lut = lut.reshaped(std::move(grid));
  } else if (call.has("vector_axis")) {
    POME_ASSIGN_OR_RETURN(vector_axis, call.axis("vector_axis", 0, indices.rank()));
  }
  POME_ASSIGN_OR_RETURN(Tensor out, look_up(indices, lut, vector_axis, call.pool()));
  emit_number(call, std::move(out), type);
  return {};
}

Status affine_dequantize(Call& call) {
  POME_ASSIGN_OR_RETURN(const Tensor data, numbers(call, "quantized_data"));
  POME_ASSIGN_OR_RETURN(const Value scale, call.floats("scale"));
  POME_ASSIGN_OR_RETURN(const Tensor zero, numbers(call, "zero_point"));
  POME_ASSIGN_OR_RETURN(const int64_t axis, call.axis("axis", 0, data.rank()));
  Tensor out = data;
  const auto apply = [&](const Tensor& by, auto f) -> Status {
    Shape shape(static_cast<size_t>(data.rank()), 1);
    if (by.count() != 1) {
      if (by.rank() != 1 || by.count() != data.dim(axis))
        return bad_shapes(data.shape(), by.shape());
      shape[static_cast<size_t>(axis)] = by.count();
    }
    out = refops::zip<float, float>(out, by.reshaped(shape), f);
    return {};
  };
  POME_RETURN_IF_ERROR(apply(zero, [](float v, float z) { return v - z; }));
  POME_RETURN_IF_ERROR(apply(scale.tensor, [](float v, float s) { return v * s; }));
  call.emit(std::move(out), scale.type);
  return {};
}

Status cast_constant(Call& call) {
  POME_ASSIGN_OR_RETURN(const Value value, call.floats("source_val"));
  POME_ASSIGN_OR_RETURN(const std::string name, call.text("output_dtype", "fp32"));
  if (std::string_view(name) != "fp32") return unsupported("constexpr_cast to " + name);
  call.emit(value.tensor, DType::kF32);
  return {};
}

// ---- sparse

// The mask, with as many ones as there are values.
Result<Tensor> mask_of(const Call& call, std::string_view name, int64_t values) {
  POME_ASSIGN_OR_RETURN(Tensor mask, codes(call, name));
  if (call.has("shape")) {
    POME_ASSIGN_OR_RETURN(const Shape shape, shape_parameter(call));
    POME_ASSIGN_OR_RETURN(mask, unpack_bytes(mask, 1, shape));
  }
  const auto bits = mask.as<int32_t>();
  const auto ones = std::count(bits.begin(), bits.end(), 1);
  if (ones != values || ones + std::count(bits.begin(), bits.end(), 0) != mask.count())
    return bad_operand(
        name, "has " + std::to_string(ones) + " ones for " + std::to_string(values) + " values");
  return mask;
}
// Dense tensor with the values at the ones of the mask and 0 elsewhere, and the way back.
Tensor spread(const Tensor& mask, const Tensor& values) {
  Tensor out = Tensor::zeros(DType::kF32, mask.shape());
  size_t next = 0;
  for (size_t i = 0; i < mask.as<int32_t>().size(); ++i)
    if (mask.as<int32_t>()[i] != 0) out.mutable_as<float>()[i] = values.f32()[next++];
  return out;
}
Tensor pick(const Tensor& mask, const Tensor& dense, int64_t count) {
  Tensor out = Tensor::zeros(DType::kF32, {count});
  size_t next = 0;
  for (size_t i = 0; i < mask.as<int32_t>().size(); ++i)
    if (mask.as<int32_t>()[i] != 0) out.mutable_as<float>()[next++] = dense.f32()[i];
  return out;
}
Status sparse_to_dense(Call& call) {
  POME_ASSIGN_OR_RETURN(const Tensor values, numbers(call, "nonzero_data"));
  POME_ASSIGN_OR_RETURN(const Tensor mask, mask_of(call, "mask", values.count()));
  emit_number(call, spread(mask, values), call.at("nonzero_data").type);
  return {};
}
Status lut_to_sparse(Call& call) {
  POME_ASSIGN_OR_RETURN(const Tensor values, numbers(call, "indices_nonzero_data"));
  POME_ASSIGN_OR_RETURN(const Tensor mask, mask_of(call, "indices_mask", values.count()));
  POME_ASSIGN_OR_RETURN(const Tensor lut, numbers(call, "lut"));
  if (lut.rank() < 1 || lut.dim(-1) != 1)
    return unsupported("constexpr_lut_to_sparse with vectors");
  const Tensor dense_codes = refops::map<float, int32_t>(
      spread(mask, values), [](float v) { return static_cast<int32_t>(v); });
  POME_ASSIGN_OR_RETURN(const Tensor dense, look_up(dense_codes, lut, -1, call.pool()));
  call.emit(mask, call.at("indices_mask").type);
  emit_number(call, pick(mask, dense, values.count()), call.at("lut").type);
  return {};
}
Status sparse_blockwise_shift_scale(Call& call) {
  POME_ASSIGN_OR_RETURN(const Tensor values, numbers(call, "nonzero_data"));
  POME_ASSIGN_OR_RETURN(const Tensor mask, mask_of(call, "data_mask", values.count()));
  POME_ASSIGN_OR_RETURN(const Value scale, call.floats("scale"));
  Tensor offset;
  if (call.has("offset")) {
    POME_ASSIGN_OR_RETURN(offset, numbers(call, "offset"));
  }
  POME_ASSIGN_OR_RETURN(const Tensor dense,
                        shift_scale(spread(mask, values), scale.tensor, offset, call.pool()));
  call.emit(mask, call.at("data_mask").type);
  call.emit(pick(mask, dense, values.count()), scale.type);
  return {};
}

constexpr uint8_t kMany = kConstexpr | kManyOutputs;
constexpr OpSpec kOps[] = {
    {"constexpr_blockwise_shift_scale", blockwise_shift_scale, "data scale", "offset", kConstexpr},
    {"constexpr_lut_to_dense", lut_to_dense, "indices lut", "vector_axis shape", kConstexpr},
    {"constexpr_affine_dequantize", affine_dequantize, "quantized_data zero_point scale axis", "",
     kConstexpr},
    {"constexpr_cast", cast_constant, "source_val output_dtype", "", kConstexpr},
    {"constexpr_sparse_to_dense", sparse_to_dense, "nonzero_data mask", "shape", kConstexpr},
    {"constexpr_lut_to_sparse", lut_to_sparse, "indices_mask indices_nonzero_data lut",
     "vector_axis", kMany},
    {"constexpr_sparse_blockwise_shift_scale", sparse_blockwise_shift_scale,
     "data_mask nonzero_data scale", "offset", kMany},
};

}  // namespace

std::span<const OpSpec> constexpr_ops() { return kOps; }

}  // namespace pome::mil_ops
