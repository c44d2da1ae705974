// Steps of attention: rotary positions, cache writes, attention itself.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/step.h"
#include "kernels/attention/attention.h"
#include "kernels/elementwise/elementwise.h"

namespace pome {

namespace {

class RopeTableStep final : public Step {
 public:
  RopeTableStep(ValueId position, ValueId frequencies, const RopeTables& tables, double scale)
      : position_(position),
        frequencies_(frequencies),
        cosine_(tables.cosine),
        sine_(tables.sine),
        scale_(static_cast<float>(scale)) {}
  std::string describe() const override { return "rope_table"; }
  Status run(const Frame& frame) const override {
    const View& table = frame.view(cosine_);
    const int64_t tokens = table.dim(0), half = table.dim(1);
    const int32_t first = frame.view(position_).as<const int32_t>()[0];
    const float* frequencies = frame.view(frequencies_).as<const float>();
    float* cosine = table.as<float>();
    float* sine = frame.view(sine_).as<float>();
    for (int64_t t = 0; t < tokens; ++t) {
      const float position = static_cast<float>(first + static_cast<int32_t>(t));
      for (int64_t p = 0; p < half; ++p) {
        const float angle = position * frequencies[p];
        cosine[t * half + p] = std::cos(angle) * scale_;
        sine[t * half + p] = std::sin(angle) * scale_;
      }
    }
    return {};
  }

 private:
  ValueId position_, frequencies_, cosine_, sine_;
  float scale_;
};

// From so many tokens on, heads are shared among threads.
constexpr int64_t kManyTokens = 8;

template <typename Body>
void for_heads(const Frame& frame, int64_t heads, int64_t tokens, const Body& body) {
  if (tokens >= kManyTokens) return frame.parallel(heads, body);
  for (int64_t h = 0; h < heads; ++h) body(h, frame.scratch);
}

// Turns rows of x [heads, T, D] by the angles of a table.
class Rotation {
 public:
  Rotation(Isa isa, const RopeOp& op, const RopeTables& tables)
      : op_(op), cosine_(tables.cosine), sine_(tables.sine), rope_(kernels::choose_rope(isa)) {}
  std::string describe() const {
    return std::string("rope ") + (op_.style == RopeStyle::kHalves ? "halves" : "interleaved");
  }
  // Rows of the tokens from `first` on.
  void run(const Frame& frame, int64_t first, int64_t rows, int64_t dim, const float* x,
           float* y) const {
    kernels::RopeArgs args;
    args.x = x;
    args.y = y;
    args.cos = frame.view(cosine_).as<const float>() + first * (op_.rotary_dim / 2);
    args.sin = frame.view(sine_).as<const float>() + first * (op_.rotary_dim / 2);
    args.rows = rows;
    args.d = dim;
    args.rotary = op_.rotary_dim;
    args.interleaved = op_.style == RopeStyle::kInterleaved;
    rope_(args);
  }

 private:
  RopeOp op_;
  ValueId cosine_, sine_;
  kernels::RopeKernel rope_;
};

class RopeStep final : public Step {
 public:
  RopeStep(Isa isa, const Node& node, const RopeTables& tables)
      : x_(node.operands[0]), y_(node.result), rotation_(isa, std::get<RopeOp>(node.op), tables) {}
  std::string describe() const override { return rotation_.describe(); }
  Status run(const Frame& frame) const override {
    const View &x = frame.view(x_), &y = frame.view(y_);
    const int64_t rows = x.dim(2), dim = x.dim(3);
    for_heads(frame, x.dim(0) * x.dim(1), rows, [&](int64_t head, float*) {
      const int64_t at = head * rows * dim;
      rotation_.run(frame, 0, rows, dim, x.as<const float>() + at, y.as<float>() + at);
    });
    return {};
  }

 private:
  ValueId x_, y_;
  Rotation rotation_;
};

// The result is the cache itself with T more rows; a rotation turns them on their way.
class KvWriteStep final : public Step {
 public:
  KvWriteStep(const Node& node, const KvLayout& layout, std::optional<Rotation> rotation)
      : value_(node.operands[1]),
        cache_(node.result),
        layout_(layout),
        rotation_(std::move(rotation)) {}
  std::string describe() const override {
    const std::string what = rotation_ ? rotation_->describe() + ", " : "";
    return what + "kv_write " + std::string(kernels::to_string(layout_.kind));
  }
  int64_t scratch_floats(const Limits&) const override {
    return rotation_ ? kTurnedRows * layout_.width : 0;
  }
  Status run(const Frame& frame) const override {
    const View &value = frame.view(value_), &cache = frame.view(cache_);
    const int64_t dim = cache.dim(3), tokens = value.dim(2), past = cache.dim(2) - tokens;
    for_heads(frame, cache.dim(1), tokens, [&](int64_t head, float* scratch) {
      const float* from = value.as<const float>() + head * tokens * dim;
      std::byte* to = cache.data + head * layout_.head_bytes + past * layout_.row_bytes;
      for (int64_t first = 0; first < tokens; first += kTurnedRows) {
        const int64_t rows = std::min(kTurnedRows, tokens - first);
        const float* x = from + first * dim;
        if (rotation_) {
          rotation_->run(frame, first, rows, dim, x, scratch);
          x = scratch;
        }
        for (int64_t t = 0; t < rows; ++t)
          kernels::kv_pack_row(layout_.kind, x + t * dim, dim,
                               to + (first + t) * layout_.row_bytes);
      }
    });
    return {};
  }

 private:
  static constexpr int64_t kTurnedRows = 16;
  ValueId value_, cache_;
  KvLayout layout_;
  std::optional<Rotation> rotation_;
};

class AttentionStep final : public Step {
 public:
  AttentionStep(Isa isa, const Node& node, const AttentionShape& shape, bool exact)
      : q_(node.operands[0]),
        k_(node.operands[1]),
        v_(node.operands[2]),
        sinks_(node.operands.size() > 3 ? node.operands[3] : kNoValue),
        y_(node.result),
        op_(std::get<AttentionOp>(node.op)),
        shape_(shape),
        kernels_(kernels::choose_attention(isa, exact)) {}
  std::string describe() const override {
    std::string text = "attention " + std::string(kernels::to_string(kind(shape_.k)));
    if (shape_.same_rows) text += " of latents";
    if (op_.window > 0) text += " window " + std::to_string(op_.window);
    if (op_.softcap > 0) text += " softcap " + std::to_string(op_.softcap);
    return text;
  }
  int64_t scratch_floats(const Limits&) const override {
    return kernels::attention_scratch(shape_.dim, shape_.value_dim);
  }
  int64_t workspace_floats(const Limits& limits) const override {
    if (!few_heads()) return 0;
    const int64_t keys =
        op_.window > 0 ? std::min(limits.capacity, op_.window + kKeys) : limits.capacity;
    return shape_.kv_heads * (keys / kKeys + 1) * kernels::part_floats(group(), shape_.value_dim);
  }
  Work work(const Frame& frame) const override {
    const View &q = frame.view(q_), &k = frame.view(k_), &v = frame.view(v_);
    const int64_t tokens = q.dim(2), total = k.dim(2);
    const auto widths = static_cast<uint64_t>(q.dim(3) + v.dim(3));
    uint64_t seen = 0;  // keys, over all tokens
    for (int64_t at = total - tokens + 1; at <= total; ++at)
      seen += static_cast<uint64_t>(op_.window > 0 ? std::min(at, op_.window) : at);
    const int64_t touched = op_.window > 0 ? std::min(total, op_.window + tokens - 1) : total;
    Work work;
    const auto row = [](const std::optional<KvLayout>& layout, int64_t dim) {
      return layout ? layout->row_bytes : dim * int64_t{sizeof(float)};
    };
    const int64_t value_bytes = shape_.same_rows ? 0 : row(shape_.v, shape_.value_dim);
    work.cache_bytes =
        static_cast<uint64_t>(k.dim(1) * touched * (row(shape_.k, shape_.dim) + value_bytes));
    work.attention_macs = static_cast<uint64_t>(q.dim(1)) * seen * widths;
    return work;
  }
  Status run(const Frame& frame) const override {
    const int64_t tokens = frame.view(q_).dim(2);
    const int64_t rows = group() * tokens;  // that share a key head, in memory order
    if (tokens == 1 && few_heads()) return run_in_pieces(frame);
    const int64_t tiles = (rows + kRows - 1) / kRows;
    frame.parallel(shape_.kv_heads * tiles, [&](int64_t item, float* scratch) {
      const int64_t row = item % tiles * kRows;
      kernels::AttentionArgs args;
      fill(frame, item / tiles, row, std::min(kRows, rows - row), &args);
      kernels::attention_rows(kernels_, args, scratch);
    });
    return {};
  }

 private:
  static constexpr int64_t kRows = kernels::kAttentionRows, kKeys = kernels::kAttentionKeys;
  // Below this, the key heads of one token are cut along the keys as well.
  static constexpr int64_t kFewHeads = 8;
  // Parts of so many floats are joined by all threads, rows of one head by so many.
  static constexpr int64_t kManyFloats = 1 << 15, kJoinRows = 4;

  int64_t group() const { return shape_.heads / shape_.kv_heads; }
  bool few_heads() const { return shape_.kv_heads < kFewHeads && group() <= kRows; }
  static kernels::KvKind kind(const std::optional<KvLayout>& layout) {
    return layout ? layout->kind : kernels::KvKind::kF32;
  }

  // One token: parts of all blocks of all heads by anyone, then joined. The same sums in the same
  // order as attention_rows.
  Status run_in_pieces(const Frame& frame) const {
    kernels::AttentionArgs first;
    fill(frame, 0, 0, group(), &first);
    const kernels::BlockRange range = kernels::attention_blocks(first);
    const int64_t blocks = range.end - range.begin;
    const int64_t part = kernels::part_floats(group(), shape_.value_dim);
    frame.parallel(shape_.kv_heads * blocks, [&](int64_t item, float* scratch) {
      kernels::AttentionArgs args;
      fill(frame, item / blocks, 0, group(), &args);
      kernels::attention_part(kernels_, args, range.begin + item % blocks,
                              frame.workspace + item * part, scratch);
    });
    const auto join = [&](int64_t head, int64_t begin, int64_t end) {
      kernels::AttentionArgs args;
      fill(frame, head, 0, group(), &args);
      kernels::attention_join(args, frame.workspace + head * blocks * part, begin, end);
    };
    if (shape_.kv_heads * blocks * part < kManyFloats) {
      for (int64_t head = 0; head < shape_.kv_heads; ++head) join(head, 0, group());
      return {};
    }
    const int64_t pieces = (group() + kJoinRows - 1) / kJoinRows;
    frame.parallel(shape_.kv_heads * pieces, [&](int64_t item, float*) {
      const int64_t row = item % pieces * kJoinRows;
      join(item / pieces, row, std::min(group(), row + kJoinRows));
    });
    return {};
  }

  kernels::KvRows rows_of(const View& view, const std::optional<KvLayout>& layout,
                          int64_t head) const {
    if (layout)
      return {layout->kind, view.data + head * layout->head_bytes, layout->row_bytes, view.dim(3),
              layout->width};
    return {kernels::KvKind::kF32, view.data + head * view.stride(1) * 4, view.stride(2) * 4,
            view.dim(3), view.dim(3)};
  }

  void fill(const Frame& frame, int64_t kv_head, int64_t row, int64_t rows,
            kernels::AttentionArgs* args) const {
    const View &q = frame.view(q_), &k = frame.view(k_);
    const int64_t tokens = q.dim(2), dim = q.dim(3);
    const int64_t past = k.dim(2) - tokens;
    const int64_t first_row = kv_head * group() * tokens + row;
    args->q = q.as<const float>() + first_row * dim;
    args->ldq = dim;
    args->rows = rows;
    args->k = rows_of(k, shape_.k, kv_head);
    args->v = rows_of(frame.view(v_), shape_.v, kv_head);
    args->scale = static_cast<float>(op_.scale);
    args->softcap = static_cast<float>(op_.softcap);
    args->y = frame.view(y_).as<float>() + first_row * shape_.value_dim;
    args->ldy = shape_.value_dim;
    args->cancel = frame.cancel;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t head = (first_row + r) / tokens, at = past + (first_row + r) % tokens;
      args->last[r] = at + 1;
      args->first[r] = op_.window > 0 ? std::max<int64_t>(0, at + 1 - op_.window) : 0;
      if (sinks_ != kNoValue) args->sinks[r] = frame.view(sinks_).as<const float>() + head;
    }
  }

  ValueId q_, k_, v_, sinks_, y_;
  AttentionOp op_;
  AttentionShape shape_;
  kernels::AttentionKernels kernels_;
};

}  // namespace

StepPtr make_rope_table(ValueId position, ValueId frequencies, const RopeTables& tables,
                        double scale) {
  return std::make_unique<RopeTableStep>(position, frequencies, tables, scale);
}
StepPtr make_rope(Isa isa, const Node& node, const RopeTables& tables) {
  return std::make_unique<RopeStep>(isa, node, tables);
}
StepPtr make_attention(Isa isa, const Node& node, const AttentionShape& shape, bool exact) {
  return std::make_unique<AttentionStep>(isa, node, shape, exact);
}
StepPtr make_kv_write(const Node& node, const KvLayout& layout) {
  return std::make_unique<KvWriteStep>(node, layout, std::nullopt);
}
StepPtr make_rope_kv_write(Isa isa, const Node& node, const KvLayout& layout, const RopeOp& op,
                           const RopeTables& tables) {
  return std::make_unique<KvWriteStep>(node, layout, Rotation(isa, op, tables));
}

}  // namespace pome
