// Mixtures of experts whose weights are packed.
//
// Tokens are sorted by expert, and the experts of a wave run together: one pass for all their gate
// and up products, whose results become activations of the down products at once, one for these,
// and one for the sums. So an expert is read once for all its tokens, and a step with one token
// costs three calls of the pool however many experts it chose. Experts add to a token in ascending
// order.
#include <algorithm>

#include "engine/buffer.h"
#include "engine/expert.h"
#include "engine/step.h"
#include "kernels/packed/products.h"

namespace pome {

namespace {

// Rows of a wave, unless the tokens of a call are more.
constexpr int64_t kWaveRows = 16;
constexpr int64_t kSumColumns = 512;  // per item of work
constexpr int64_t kPad = kernels::Activations::kPad;

class PackedMoeStep final : public Step {
 public:
  PackedMoeStep(Isa isa, const Node& node, const PackedMoeWeights& weights)
      : node_(node),
        op_(std::get<MoeOp>(node.op)),
        biased_(node.operands.size() == op_.operands_with_biases()),
        weights_(weights),
        kernels_(kernels::choose_packed(isa)),
        quantize_(kernels::choose_quantize(isa)),
        activation_(isa, op_),
        hidden_(weights.gate->view.layout.columns),
        width_(weights.down->view.layout.columns),
        experts_(weights.down->view.layout.rows / hidden_) {}

  std::string describe() const override {
    return "moe " + std::string(kernels_->name) + " " + std::to_string(experts_) +
           (op_.gated ? " gated" : "") + (biased_ ? " biased" : "") + " [" +
           std::to_string(width_) + ", " + std::to_string(hidden_) + "]";
  }
  int64_t scratch_floats(const Limits& limits) const override {
    if (limits.tokens < kernels::kGemmTokens) return 0;
    return kernels::gemm_panel_bytes(std::max(hidden_, width_)) / 4;
  }
  int64_t workspace_floats(const Limits& limits) const override {
    const Memory memory(nullptr, *this, limits.tokens);
    return memory.floats;
  }
  Work work(const Frame& frame) const override {
    const int64_t uses = frame.view(node_.operands[0]).count() / hidden_ *
                         std::min(weights_.experts_per_token, experts_);
    Work work;
    for (const PackedWeight* weight : {weights_.gate, weights_.up, weights_.down}) {
      if (!weight) continue;
      const kernels::PackedLayout& layout = weight->view.layout;
      const int64_t tiles = layout.tiles / experts_;
      work.weight_bytes +=
          static_cast<uint64_t>(tiles * std::min(uses, experts_) * layout.tile_bytes);
      work.int8_macs += static_cast<uint64_t>(uses * (layout.rows / experts_) * layout.columns);
    }
    return work;
  }

  Status run(const Frame& frame) const override {
    const View& x = frame.view(node_.operands[0]);
    const float* mix = frame.view(node_.operands[1]).as<const float>();
    const int64_t tokens = x.count() / hidden_;
    float* y = frame.view(node_.result).as<float>();
    std::fill(y, y + tokens * hidden_, 0.0f);
    Wave wave(Memory(frame.workspace, *this, tokens));
    for (int64_t expert = 0; expert < experts_; ++expert) {
      int64_t count = 0;
      for (int64_t t = 0; t < tokens; ++t) count += mix[t * experts_ + expert] != 0;
      if (count == 0) continue;
      if (wave.rows + count > wave.memory.most) {
        run_wave(frame, wave);
        wave.rows = wave.groups = 0;
      }
      wave.memory.groups[wave.groups] = {static_cast<int32_t>(expert),
                                         static_cast<int32_t>(wave.rows),
                                         static_cast<int32_t>(count)};
      for (int64_t t = 0; t < tokens; ++t)
        if (mix[t * experts_ + expert] != 0)
          wave.memory.members[wave.rows++] = {static_cast<int32_t>(t),
                                              static_cast<int32_t>(wave.groups)};
      ++wave.groups;
    }
    if (wave.rows > 0) run_wave(frame, wave);
    return {};
  }

 private:
  struct Group {
    int32_t expert, first, count;  // rows [first, first + count) of the wave
  };
  struct Member {
    int32_t token, group;
  };
  // Where things lie in the workspace.
  struct Memory {
    Memory(float* workspace, const PackedMoeStep& step, int64_t tokens)
        : most(std::max(tokens, kWaveRows)),
          x_floats(quantised_floats(step.hidden_)),
          inner_floats(quantised_floats(step.width_)) {
      const auto take = [&](int64_t count) {
        float* const at = workspace ? workspace + floats : nullptr;
        floats += (count + 15) / 16 * 16;  // whole cache lines
        return at;
      };
      x = take(most * x_floats);
      inner = take(most * inner_floats);
      gate = take(most * step.width_);
      up = take(most * step.width_);
      out = take(most * step.hidden_);
      groups = reinterpret_cast<Group*>(take(most * 3));
      members = reinterpret_cast<Member*>(take(most * 2));
    }
    int64_t most, x_floats, inner_floats, floats = 0;
    float *x, *inner, *gate, *up, *out;
    Group* groups;  // every one has a row
    Member* members;
  };
  struct Wave {
    explicit Wave(const Memory& where) : memory(where) {}
    Memory memory;
    int64_t rows = 0, groups = 0;
  };

  kernels::Activations x_of(const Memory& memory, const Group& group) const {
    return kernels::activations_in(
        reinterpret_cast<std::byte*>(memory.x + group.first * memory.x_floats), group.count,
        hidden_, kernels::activation_bits(group.count, hidden_));
  }
  kernels::Activations inner_of(const Memory& memory, const Group& group) const {
    return kernels::activations_in(
        reinterpret_cast<std::byte*>(memory.inner + group.first * memory.inner_floats), group.count,
        width_, kernels::activation_bits(group.count, width_));
  }
  // The biases of an expert for the weight at operand `weight`, `rows` each; null without.
  const float* bias(const Frame& frame, size_t weight, int64_t expert, int64_t rows) const {
    if (!biased_) return nullptr;
    const ValueId id = node_.operands[weight - 2 + op_.operands_without_biases()];
    return frame.view(id).as<const float>() + expert * rows;
  }

  // Tiles [tile, tile + tiles) of an expert's `rows` rows.
  static kernels::ProductArgs product_args(const PackedWeight& weight, int64_t expert, int64_t rows,
                                           int64_t tile, int64_t tiles,
                                           const kernels::Activations& x, const float* bias,
                                           float* y, float* scratch) {
    kernels::ProductArgs args;
    args.w = weight.view;
    args.w.layout.rows = rows;
    args.w.layout.tiles = rows / kernels::kTileRows;
    args.w.data += expert * args.w.layout.tiles * args.w.layout.tile_bytes;
    args.tile = tile;
    args.tiles = tiles;
    args.x = x;
    args.bias = bias;
    args.y = y + tile * kernels::kTileRows;
    args.ldy = rows;
    args.scratch = reinterpret_cast<std::byte*>(scratch);
    return args;
  }

  void run_wave(const Frame& frame, const Wave& wave) const {
    const Memory& memory = wave.memory;
    const float* x = frame.view(node_.operands[0]).as<const float>();
    frame.parallel(wave.rows, [&](int64_t row, float*) {
      const Member& member = memory.members[row];
      const Group& group = memory.groups[member.group];
      quantize_(x + member.token * hidden_, hidden_, x_of(memory, group), row - group.first);
    });
    const int64_t inner_items = (width_ + kPad - 1) / kPad;
    frame.parallel(wave.groups * inner_items, [&](int64_t item, float* scratch) {
      run_inner(frame, memory, memory.groups[item / inner_items], item % inner_items * kPad,
                scratch);
    });
    const int64_t tiles = hidden_ / kernels::kTileRows;
    const int64_t step =
        std::max<int64_t>(2, kPackedItemBytes / weights_.down->view.layout.tile_bytes);
    const int64_t out_items = (tiles + step - 1) / step;
    frame.parallel(wave.groups * out_items, [&](int64_t item, float* scratch) {
      const Group& group = memory.groups[item / out_items];
      const int64_t tile = item % out_items * step;
      kernels_->multiply(product_args(*weights_.down, group.expert, hidden_, tile,
                                      std::min(step, tiles - tile), inner_of(memory, group),
                                      bias(frame, op_.down(), group.expert, hidden_),
                                      memory.out + group.first * hidden_, scratch));
    });
    frame.parallel((hidden_ + kSumColumns - 1) / kSumColumns, [&](int64_t item, float*) {
      add_up(frame, wave, item * kSumColumns, std::min(hidden_, (item + 1) * kSumColumns));
    });
  }

  // Rows [first, first + kPad) of an expert's inner values, as activations of its down product.
  void run_inner(const Frame& frame, const Memory& memory, const Group& group, int64_t first,
                 float* scratch) const {
    const int64_t count = std::min(kPad, width_ - first);
    const int64_t tile = first / kernels::kTileRows, tiles = count / kernels::kTileRows;
    const kernels::Activations x = x_of(memory, group);
    float* const gate = memory.gate + group.first * width_;
    float* const up = memory.up + group.first * width_;
    const kernels::ProductArgs args =
        product_args(*weights_.gate, group.expert, width_, tile, tiles, x,
                     bias(frame, 2, group.expert, width_), gate, scratch);
    if (op_.gated) {
      kernels_->multiply(args, product_args(*weights_.up, group.expert, width_, tile, tiles, x,
                                            bias(frame, 3, group.expert, width_), up, scratch));
    } else {
      kernels_->multiply(args);
    }
    const kernels::Activations inner = inner_of(memory, group);
    for (int64_t row = 0; row < group.count; ++row) {
      float* const mine = gate + row * width_ + first;
      activation_.run(mine, up + row * width_ + first, count);
      quantize_(mine, count, kernels::activations_part(inner, row, first, kPad), 0);
    }
  }

  void add_up(const Frame& frame, const Wave& wave, int64_t first, int64_t last) const {
    const float* mix = frame.view(node_.operands[1]).as<const float>();
    float* y = frame.view(node_.result).as<float>();
    for (int64_t row = 0; row < wave.rows; ++row) {
      const Member& member = wave.memory.members[row];
      const float weight = mix[member.token * experts_ + wave.memory.groups[member.group].expert];
      float* const to = y + member.token * hidden_;
      const float* from = wave.memory.out + row * hidden_;
      for (int64_t d = first; d < last; ++d) to[d] += weight * from[d];
    }
  }

  Node node_;
  MoeOp op_;
  bool biased_;
  PackedMoeWeights weights_;
  const kernels::PackedEntry* kernels_;
  kernels::QuantizeKernel quantize_;
  ExpertActivation activation_;
  int64_t hidden_, width_, experts_;
};

}  // namespace

StepPtr make_packed_moe(Isa isa, const Node& node, const PackedMoeWeights& weights) {
  return std::make_unique<PackedMoeStep>(isa, node, weights);
}

}  // namespace pome
