#include "models/moe.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace pome {

namespace {

ValueId sum_of(GraphBuilder& b, ValueId x) { return b.add(ReduceOp{ReduceKind::kSum, -1}, {x}); }

// `ranks` where the expert's group is among the best, else -inf.
ValueId limit_groups(GraphBuilder& b, ValueId ranks, const RouterConfig& c, int64_t best_of_group) {
  const SymShape shape = {Symbol::kBatch, Symbol::kTokens, c.experts};
  const int64_t size = c.experts / c.groups;
  const ValueId grouped = b.reshape(ranks, {shape[0], shape[1], c.groups, size});
  ValueId group_rank;
  if (best_of_group == 1) {
    group_rank = b.add(ReduceOp{ReduceKind::kMax, -1}, {grouped});
  } else {
    const ValueId best = b.add(TopKMaskOp{std::min(best_of_group, size)}, {grouped});
    group_rank = sum_of(b, b.add(SelectOp{}, {best, grouped, b.scalar(0)}));
  }
  const ValueId chosen = b.add(TopKMaskOp{c.groups_per_token},
                               {b.reshape(group_rank, {shape[0], shape[1], c.groups})});
  const ValueId open = b.reshape(chosen, {shape[0], shape[1], c.groups, 1});
  const ValueId never = b.scalar(-std::numeric_limits<float>::infinity());
  return b.reshape(b.add(SelectOp{}, {open, grouped, never}), shape);
}

// scores of the experts with the largest ranks, 0 for all others, normalised and scaled.
ValueId choose(GraphBuilder& b, ValueId ranks, ValueId scores, const RouterConfig& c,
               float least_sum) {
  const ValueId chosen = b.add(TopKMaskOp{c.experts_per_token}, {ranks});
  ValueId weights = b.add(SelectOp{}, {chosen, scores, b.scalar(0)});
  if (c.normalize) {
    ValueId sum = sum_of(b, weights);
    if (least_sum > 0) sum = b.binary(BinaryKind::kAdd, sum, b.scalar(least_sum));
    weights = b.binary(BinaryKind::kDiv, weights, sum);
  }
  if (c.scale != 1)
    weights = b.binary(BinaryKind::kMul, weights, b.scalar(static_cast<float>(c.scale)));
  return weights;
}

class ExpertColumns final : public ConstantData {
 public:
  ExpertColumns(ConstantDataPtr in, int64_t first, int64_t step, Shape shape)
      : ConstantData(std::move(shape), Encoding::plain(EncodingKind::kF32)),
        in_(std::move(in)),
        first_(first),
        step_(step) {}
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    tile->row = row;
    tile->rows = rows;
    tile->storage.resize(1);
    tile->storage[0].resize(static_cast<size_t>(rows * columns()) * sizeof(float));
    auto* out = reinterpret_cast<float*>(tile->storage[0].data());
    std::vector<float> all(static_cast<size_t>(in_->columns()));
    for (int64_t r = 0; r < rows; ++r) {
      POME_RETURN_IF_ERROR(in_->read_f32(row + r, 1, all.data()));
      for (int64_t i = 0; i < columns(); ++i)
        out[r * columns() + i] = all[static_cast<size_t>(first_ + i * step_)];
    }
    tile->parts.assign(1, tile->storage[0]);
    return {};
  }

 private:
  ConstantDataPtr in_;
  int64_t first_, step_;
};

class TransposedExperts final : public ConstantData {
 public:
  TransposedExperts(ConstantDataPtr in, int64_t first, int64_t step, Shape shape)
      : ConstantData(std::move(shape), encoding_for(*in)),
        in_(std::move(in)),
        first_(first),
        step_(step),
        outputs_(this->shape()[1]),
        bytes_(static_cast<size_t>(traits(encoding().kind).block_bytes)) {}

  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    tile->row = row;
    tile->rows = rows;
    tile->storage.resize(1);
    tile->storage[0].resize(static_cast<size_t>(rows * columns()) * bytes_);
    std::byte* out = tile->storage[0].data();
    EncodedTile piece;
    for (int64_t at = 0; at < rows;) {
      const int64_t expert = (row + at) / outputs_, output = (row + at) % outputs_;
      const int64_t count = std::min(rows - at, outputs_ - output);
      // Input by input: the stored rows are read in the order in which they lie.
      for (int64_t k = 0; k < columns(); ++k) {
        POME_ASSIGN_OR_RETURN(const std::byte* const from,
                              stored_row(expert * columns() + k, &piece));
        for (int64_t i = 0; i < count; ++i)
          std::memcpy(out + static_cast<size_t>((at + i) * columns() + k) * bytes_,
                      from + static_cast<size_t>(first_ + (output + i) * step_) * bytes_, bytes_);
      }
      at += count;
    }
    tile->parts.assign(1, tile->storage[0]);
    return {};
  }

 private:
  static Encoding encoding_for(const ConstantData& in) {
    const EncodingKind kind = in.encoding().kind;
    const bool kept = kind == EncodingKind::kF16 || kind == EncodingKind::kBF16;
    return kept ? in.encoding() : Encoding::plain(EncodingKind::kF32);
  }
  Result<const std::byte*> stored_row(int64_t row, EncodedTile* piece) const {
    if (encoding() == in_->encoding()) {
      if (const auto all = in_->view())
        return all->data() + static_cast<size_t>(row * in_->columns()) * bytes_;
      POME_RETURN_IF_ERROR(in_->read_tile(row, 1, piece));
      return piece->parts[0].data();
    }
    piece->storage.resize(1);
    piece->storage[0].resize(static_cast<size_t>(in_->columns()) * sizeof(float));
    POME_RETURN_IF_ERROR(in_->read_f32(row, 1, reinterpret_cast<float*>(piece->storage[0].data())));
    return static_cast<const std::byte*>(piece->storage[0].data());
  }

  ConstantDataPtr in_;
  int64_t first_, step_, outputs_;
  size_t bytes_;
};

class Mxfp4Experts final : public ConstantData {
 public:
  static constexpr int64_t kElements = 32;
  Mxfp4Experts(ConstantDataPtr blocks, ConstantDataPtr scales, int64_t first, int64_t step,
               Shape shape)
      : ConstantData(std::move(shape), Encoding::plain(EncodingKind::kMXFP4)),
        blocks_(std::move(blocks)),
        scales_(std::move(scales)),
        first_(first),
        step_(step),
        outputs_(this->shape()[1]),
        stored_outputs_(blocks_->shape()[1]) {}

  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    if (!scales_) return bad_input(Refusal::kRange, "the scales are missing from the checkpoint");
    const int64_t groups = columns() / kElements;
    tile->row = row;
    tile->rows = rows;
    tile->storage.resize(1);
    tile->storage[0].resize(static_cast<size_t>(rows * groups * 17));
    std::byte* out = tile->storage[0].data();
    // Several rows at once, with those of the other matrix between them: reading costs more than
    // bytes.
    constexpr int64_t kRows = 32;
    EncodedTile blocks, scales;
    for (int64_t r = row; r < row + rows;) {
      const int64_t count = std::min({kRows, row + rows - r, outputs_ - r % outputs_});
      const int64_t from = r / outputs_ * stored_outputs_ + first_ + r % outputs_ * step_;
      const int64_t span = (count - 1) * step_ + 1;
      // Blocks [.., groups, 16] have one row per group.
      POME_RETURN_IF_ERROR(blocks_->read_tile(from * groups, span * groups, &blocks));
      POME_RETURN_IF_ERROR(scales_->read_tile(from, span, &scales));
      for (int64_t i = 0; i < count; ++i) {
        const std::byte* block = blocks.parts[0].data() + i * step_ * groups * 16;
        const std::byte* scale = scales.parts[0].data() + i * step_ * groups;
        for (int64_t g = 0; g < groups; ++g, out += 17, block += 16) {
          out[0] = scale[g];
          repack(block, out + 1);
        }
      }
      r += count;
    }
    tile->parts.assign(1, tile->storage[0]);
    return {};
  }

 private:
  // The eight nibbles of a word, one to a byte.
  static uint64_t spread(uint64_t nibbles) {
    nibbles = (nibbles | nibbles << 16) & 0x0000FFFF0000FFFFu;
    nibbles = (nibbles | nibbles << 8) & 0x00FF00FF00FF00FFu;
    return (nibbles | nibbles << 4) & 0x0F0F0F0F0F0F0F0Fu;
  }
  // Pairs (2j, 2j + 1) become pairs (j, j + 16).
  static void repack(const std::byte* in, std::byte* out) {
    uint32_t words[4];
    std::memcpy(words, in, sizeof words);
    for (int half = 0; half < 2; ++half) {
      const uint64_t pairs = spread(words[half]) | spread(words[half + 2]) << 4;
      std::memcpy(out + 8 * half, &pairs, sizeof pairs);
    }
  }

  ConstantDataPtr blocks_, scales_;
  int64_t first_, step_, outputs_, stored_outputs_;
};

}  // namespace

ValueId softmax_router(GraphBuilder& builder, ValueId logits, const RouterConfig& config) {
  const ValueId scores = builder.add(SoftmaxOp{}, {logits});
  // Logits rank as their softmax does, and stay apart where that rounds to the same number.
  const ValueId ranks = config.groups > 1 ? limit_groups(builder, logits, config, 1) : logits;
  return choose(builder, ranks, scores, config, 0);
}

ValueId sigmoid_router(GraphBuilder& builder, ValueId logits, ValueId correction,
                       const RouterConfig& config) {
  const ValueId scores = builder.unary(UnaryKind::kSigmoid, logits);
  ValueId ranks = scores;
  if (correction != kNoValue) ranks = builder.binary(BinaryKind::kAdd, scores, correction);
  if (config.groups > 1) ranks = limit_groups(builder, ranks, config, 2);
  return choose(builder, ranks, scores, config, 1e-20f);
}

WeightTransform take_expert_rows(int64_t first, int64_t step, Shape shape) {
  return [first, step, shape = std::move(shape)](ConstantDataPtr in) {
    const int64_t rows = shape[1], stored = in->shape()[1];
    return permute_rows(std::move(in), shape, [rows, stored, first, step](int64_t row) {
      return row / rows * stored + first + row % rows * step;
    });
  };
}

WeightTransform take_expert_columns(int64_t first, int64_t step, Shape shape) {
  return [first, step, shape = std::move(shape)](ConstantDataPtr in) -> ConstantDataPtr {
    return std::make_shared<ExpertColumns>(std::move(in), first, step, shape);
  };
}

WeightTransform transpose_experts(int64_t first, int64_t step, Shape shape) {
  return [first, step, shape = std::move(shape)](ConstantDataPtr in) -> ConstantDataPtr {
    return std::make_shared<TransposedExperts>(std::move(in), first, step, shape);
  };
}

ConstantDataPtr mxfp4_experts(ConstantDataPtr blocks, ConstantDataPtr scales, int64_t first,
                              int64_t step, Shape shape) {
  return std::make_shared<Mxfp4Experts>(std::move(blocks), std::move(scales), first, step,
                                        std::move(shape));
}

ValueId zero_heads(GraphBuilder& builder, int64_t heads) {
  Constant zeros;
  zeros.name = "zero_heads";
  zeros.data = inline_constant(Tensor::zeros(DType::kF32, {1, heads, 1, 1}));
  zeros.role = Constant::Role::kTable;
  return builder.constant(std::move(zeros));
}

}  // namespace pome
