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
  RopeTableStep(ValueId position, ValueId frequencies, ValueId cosine, ValueId sine, double scale)
      : position_(position),
        frequencies_(frequencies),
        cosine_(cosine),
        sine_(sine),
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

class RopeStep final : public Step {
 public:
  RopeStep(Isa isa, const Node& node, ValueId cosine, ValueId sine)
      : x_(node.operands[0]),
        y_(node.result),
        cosine_(cosine),
        sine_(sine),
        op_(std::get<RopeOp>(node.op)),
        rope_(kernels::choose_rope(isa)) {}
  std::string describe() const override {
    return std::string("rope ") + (op_.style == RopeStyle::kHalves ? "halves" : "interleaved");
  }
  Status run(const Frame& frame) const override {
    const View &x = frame.view(x_), &y = frame.view(y_);
    const int64_t heads = x.dim(0) * x.dim(1), rows = x.dim(2), dim = x.dim(3);
    kernels::RopeArgs args;
    args.cos = frame.view(cosine_).as<const float>();
    args.sin = frame.view(sine_).as<const float>();
    args.rows = rows;
    args.d = dim;
    args.rotary = op_.rotary_dim;
    args.interleaved = op_.style == RopeStyle::kInterleaved;
    for (int64_t h = 0; h < heads; ++h) {
      args.x = x.as<const float>() + h * rows * dim;
      args.y = y.as<float>() + h * rows * dim;
      rope_(args);
    }
    return {};
  }

 private:
  ValueId x_, y_, cosine_, sine_;
  RopeOp op_;
  kernels::RopeKernel rope_;
};

// The result is the cache itself with T more rows.
class KvWriteStep final : public Step {
 public:
  explicit KvWriteStep(const Node& node) : value_(node.operands[1]), cache_(node.result) {}
  std::string describe() const override { return "kv_write f32"; }
  Status run(const Frame& frame) const override {
    const View &value = frame.view(value_), &cache = frame.view(cache_);
    const int64_t heads = cache.dim(1), dim = cache.dim(3), tokens = value.dim(2);
    const int64_t past = cache.dim(2) - tokens;
    for (int64_t h = 0; h < heads; ++h) {
      std::memcpy(cache.as<float>() + h * cache.stride(1) + past * dim,
                  value.as<const float>() + h * tokens * dim,
                  static_cast<size_t>(tokens * dim) * sizeof(float));
    }
    return {};
  }

 private:
  ValueId value_, cache_;
};

class AttentionStep final : public Step {
 public:
  AttentionStep(Isa isa, const Node& node)
      : q_(node.operands[0]),
        k_(node.operands[1]),
        v_(node.operands[2]),
        sinks_(node.operands.size() > 3 ? node.operands[3] : kNoValue),
        y_(node.result),
        op_(std::get<AttentionOp>(node.op)),
        kernels_(kernels::choose_attention(isa)) {}
  std::string describe() const override {
    std::string text = "attention";
    if (op_.window > 0) text += " window " + std::to_string(op_.window);
    if (op_.softcap > 0) text += " softcap " + std::to_string(op_.softcap);
    return text;
  }
  int64_t scratch_floats(const Limits& limits) const override {
    return kernels::kAttentionRows * limits.capacity;
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
    work.cache_bytes = static_cast<uint64_t>(k.dim(1) * touched) * widths * sizeof(float);
    work.attention_macs = static_cast<uint64_t>(q.dim(1)) * seen * widths;
    return work;
  }
  Status run(const Frame& frame) const override {
    const View &q = frame.view(q_), &k = frame.view(k_);
    const int64_t kv_heads = k.dim(1);
    const int64_t rows = q.dim(1) / kv_heads * q.dim(2);  // that share a key head, in memory order
    const int64_t tiles = (rows + kernels::kAttentionRows - 1) / kernels::kAttentionRows;
    frame.parallel(kv_heads * tiles, [&](int64_t item, float* scratch) {
      const int64_t row = item % tiles * kernels::kAttentionRows;
      tile(frame, item / tiles, row, std::min(kernels::kAttentionRows, rows - row), scratch);
    });
    return {};
  }

 private:
  void tile(const Frame& frame, int64_t kv_head, int64_t row, int64_t rows, float* scratch) const {
    const View &q = frame.view(q_), &k = frame.view(k_), &v = frame.view(v_);
    const int64_t tokens = q.dim(2), dim = q.dim(3), value_dim = v.dim(3);
    const int64_t past = k.dim(2) - tokens;
    const int64_t first_row = kv_head * (q.dim(1) / k.dim(1)) * tokens + row;
    kernels::AttentionArgs args;
    args.q = q.as<const float>() + first_row * dim;
    args.ldq = dim;
    args.rows = rows;
    args.dim = dim;
    args.k = k.as<const float>() + kv_head * k.stride(1);
    args.ldk = k.stride(2);
    args.v = v.as<const float>() + kv_head * v.stride(1);
    args.ldv = v.stride(2);
    args.value_dim = value_dim;
    args.scale = static_cast<float>(op_.scale);
    args.softcap = static_cast<float>(op_.softcap);
    args.y = frame.view(y_).as<float>() + first_row * value_dim;
    args.ldy = value_dim;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t head = (first_row + r) / tokens, at = past + (first_row + r) % tokens;
      args.last[r] = at + 1;
      args.first[r] = op_.window > 0 ? std::max<int64_t>(0, at + 1 - op_.window) : 0;
      if (sinks_ != kNoValue) args.sinks[r] = frame.view(sinks_).as<const float>() + head;
    }
    kernels::attention_rows(kernels_, args, scratch);
  }

  ValueId q_, k_, v_, sinks_, y_;
  AttentionOp op_;
  kernels::AttentionKernels kernels_;
};

}  // namespace

StepPtr make_rope_table(ValueId position, ValueId frequencies, ValueId cosine, ValueId sine,
                        double scale) {
  return std::make_unique<RopeTableStep>(position, frequencies, cosine, sine, scale);
}
StepPtr make_rope(Isa isa, const Node& node, ValueId cosine, ValueId sine) {
  return std::make_unique<RopeStep>(isa, node, cosine, sine);
}
StepPtr make_attention(Isa isa, const Node& node) {
  return std::make_unique<AttentionStep>(isa, node);
}
StepPtr make_kv_write(const Node& node) { return std::make_unique<KvWriteStep>(node); }

}  // namespace pome
