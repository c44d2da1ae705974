// Steps around products: linear, embedding, matmul of two values, mixture of experts.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "engine/expert.h"
#include "engine/step.h"
#include "kernels/attention/attention.h"
#include "kernels/bf16/bf16.h"
#include "kernels/gemm/gemm.h"

namespace pome {

namespace {

std::string shape_text(int64_t rows, int64_t columns) {
  return " [" + std::to_string(rows) + ", " + std::to_string(columns) + "]";
}

uint64_t bytes_of(const kernels::WeightView& w, int64_t rows) {
  const auto layout = encoded_layout(w.encoding, w.rows, w.columns);
  if (!layout.ok() || w.rows == 0) return 0;
  return layout->total_bytes() * static_cast<uint64_t>(rows) / static_cast<uint64_t>(w.rows);
}

// y[m, r] = x[m, :] . w[row0 + r, :] (+ bias[row0 + r]) over `rows` rows of w, on all threads.
void multiply(const Frame& frame, const kernels::GemmKernels& kernels, const kernels::WeightView& w,
              int64_t row0, int64_t rows, const kernels::GemmArgs& args) {
  // Enough work per item that handing it to a thread costs little beside it.
  constexpr int64_t kItemWork = 1 << 15;
  const int64_t step = kernels::panel_rows(w.columns);
  const int64_t wanted = kItemWork / std::max<int64_t>(w.columns * args.m, 1);
  const int64_t item_rows = std::max<int64_t>(1, (wanted + step - 1) / step) * step;
  frame.parallel((rows + item_rows - 1) / item_rows, [&](int64_t item, float* scratch) {
    const int64_t begin = item * item_rows, end = std::min(rows, begin + item_rows);
    kernels::GemmArgs mine = args;
    mine.y += begin;
    kernels::gemm_rows(kernels, w, row0 + begin, row0 + end, mine, scratch);
  });
}

class LinearStep final : public Step {
 public:
  LinearStep(Isa isa, const Node& node, const Weight* weight, bool exact)
      : x_(node.operands[0]),
        w_(node.operands[1]),
        bias_(node.operands.size() > 2 ? node.operands[2] : kNoValue),
        y_(node.result),
        weight_(weight) {
    kernels_ = kernels::choose_gemm(
        isa, weight ? weight->view.encoding : Encoding::plain(EncodingKind::kF32),
        weight ? weight->view.columns : 0);
    if (weight && !exact && weight->view.columns >= kernels::kBf16Columns)
      bf16_ = kernels::choose_bf16(isa, weight->view.encoding);
  }
  std::string describe() const override {
    std::string text = "linear " + std::string(kernels::gemm_name(kernels_));
    if (bf16_) text += " " + std::string(bf16_->name);
    return weight_ ? text + shape_text(weight_->view.rows, weight_->view.columns) : text;
  }
  int64_t scratch_floats(const Limits&) const override {
    if (!weight_) return 0;
    const int64_t exact = kernels::gemm_scratch(weight_->view.columns);
    return bf16_ ? std::max(exact, kernels::bf16_panel_bytes(weight_->view.columns) / 4) : exact;
  }
  int64_t workspace_floats(const Limits& limits) const override {
    return bf16_ ? limits.tokens * kernels::bf16_padded(weight_->view.columns) / 2 : 0;
  }
  Work work(const Frame& frame) const override {
    if (!weight_) return {};
    const kernels::WeightView& w = weight_->view;
    const int64_t m = w.columns ? frame.view(x_).count() / w.columns : 0;
    Work work;
    work.weight_bytes = bytes_of(w, w.rows);
    (bf16_ && m >= kernels::kBf16Tokens ? work.bf16_macs : work.f32_macs) =
        static_cast<uint64_t>(m * w.rows * w.columns);
    return work;
  }
  Status run(const Frame& frame) const override {
    const View& x = frame.view(x_);
    kernels::WeightView w;
    if (weight_) {
      w = weight_->view;
    } else {
      const View& value = frame.view(w_);
      const std::byte* parts[] = {value.data};
      w = kernels::weight_view(Encoding::plain(EncodingKind::kF32), value.dim(0), value.dim(1),
                               parts);
    }
    kernels::GemmArgs args;
    args.x = x.as<const float>();
    args.ldx = w.columns;
    args.m = w.columns ? x.count() / w.columns : 0;
    args.bias = bias_ == kNoValue ? nullptr : frame.view(bias_).as<const float>();
    args.y = frame.view(y_).as<float>();
    args.ldy = w.rows;
    if (bf16_ && args.m >= kernels::kBf16Tokens) {
      multiply_bf16(frame, w, args);
    } else {
      multiply(frame, kernels_, w, 0, w.rows, args);
    }
    return {};
  }

 private:
  void multiply_bf16(const Frame& frame, const kernels::WeightView& w,
                     const kernels::GemmArgs& args) const {
    auto* rounded = reinterpret_cast<uint16_t*>(frame.workspace);
    const int64_t ldx = kernels::bf16_padded(w.columns);
    frame.parallel(args.m, [&](int64_t row, float*) {
      bf16_->round(args.x + row * args.ldx, w.columns, rounded + row * ldx);
    });
    const int64_t step = kernels::kBf16Rows;
    frame.parallel((w.rows + step - 1) / step, [&](int64_t item, float* scratch) {
      const int64_t row = item * step;
      bf16_->multiply({w, row, std::min(step, w.rows - row), rounded, args.m, args.bias, args.y,
                       args.ldy, reinterpret_cast<std::byte*>(scratch)});
    });
  }

  ValueId x_, w_, bias_, y_;
  const Weight* weight_;
  kernels::GemmKernels kernels_;
  const kernels::Bf16Entry* bf16_ = nullptr;
};

class ObservedStep final : public StepInFront {
 public:
  ObservedStep(StepPtr product, ValueId x, std::string weight, int64_t columns,
               std::shared_ptr<ActivationObserver> observer)
      : StepInFront(std::move(product)),
        x_(x),
        weight_(std::move(weight)),
        columns_(columns),
        observer_(std::move(observer)) {}
  Status run(const Frame& frame) const override {
    const View& x = frame.view(x_);
    if (columns_ > 0) observer_->see(weight_, 0, x.as<const float>(), x.count() / columns_);
    return step_->run(frame);
  }

 private:
  ValueId x_;
  std::string weight_;
  int64_t columns_;
  std::shared_ptr<ActivationObserver> observer_;
};

// Rows of a table that is a weight, as it is stored or packed.
class StoredRows {
 public:
  StoredRows(Isa isa, const Weight* table)
      : view_(table->view), decode_(kernels::choose_decode(isa, view_.encoding, view_.columns)) {}
  std::string name() const { return to_string(view_.encoding); }
  int64_t rows() const { return view_.rows; }
  int64_t columns() const { return view_.columns; }
  uint64_t bytes(int64_t rows) const { return bytes_of(view_, rows); }
  void row(int64_t id, float* out) const { decode_(view_, id, 1, out); }

 private:
  const kernels::WeightView& view_;
  kernels::DecodeKernel decode_;
};
class PackedRows {
 public:
  explicit PackedRows(const PackedWeight* table) : view_(table->view) {}
  std::string name() const { return "packed"; }
  int64_t rows() const { return view_.layout.rows; }
  int64_t columns() const { return view_.layout.columns; }
  uint64_t bytes(int64_t rows) const {
    return static_cast<uint64_t>(rows * view_.layout.tile_bytes / kernels::kTileRows);
  }
  void row(int64_t id, float* out) const { kernels::unpack_row(view_, id, out); }

 private:
  const kernels::PackedView& view_;
};

template <typename Table>
class EmbeddingStep final : public Step {
 public:
  EmbeddingStep(const Node& node, Table table)
      : ids_(node.operands[1]), y_(node.result), table_(std::move(table)) {}
  std::string describe() const override {
    return "embedding " + table_.name() + shape_text(table_.rows(), table_.columns());
  }
  Work work(const Frame& frame) const override {
    Work work;
    work.weight_bytes = table_.bytes(frame.view(ids_).count());
    return work;
  }
  Status run(const Frame& frame) const override {
    const View& ids = frame.view(ids_);
    float* y = frame.view(y_).as<float>();
    const int64_t count = ids.count();
    for (int64_t i = 0; i < count; ++i) {
      const int64_t id = ids.as<const int32_t>()[i];
      if (id < 0 || id >= table_.rows()) {
        return bad_input(Refusal::kRange, "id " + std::to_string(id) + " is outside the table of " +
                                              std::to_string(table_.rows()));
      }
      table_.row(id, y + i * table_.columns());
    }
    return {};
  }

 private:
  ValueId ids_, y_;
  Table table_;
};

// x [.., M, K] times y [.., N, K] or [.., K, N]; batch axes broadcast.
class MatMulStep final : public Step {
 public:
  MatMulStep(Isa isa, const Node& node)
      : x_(node.operands[0]),
        y_(node.operands[1]),
        out_(node.result),
        transpose_y_(std::get<MatMulOp>(node.op).transpose_y),
        kernels_(kernels::choose_attention(isa, true)) {}
  std::string describe() const override { return transpose_y_ ? "matmul xy'" : "matmul xy"; }
  Status run(const Frame& frame) const override {
    const View &x = frame.view(x_), &y = frame.view(y_), &out = frame.view(out_);
    const int64_t m = out.dim(-2), n = out.dim(-1);
    if (m == 0 || n == 0) return {};
    const int64_t batches = out.count() / (m * n);
    const int64_t tiles = (m + kTile - 1) / kTile;
    frame.parallel(batches * tiles, [&](int64_t item, float*) {
      const int64_t batch = item / tiles, row = item % tiles * kTile;
      tile(x, y, out, batch, row, std::min(kTile, m - row));
    });
    return {};
  }

 private:
  static constexpr int64_t kTile = 12;

  // Element offset of the matrix of `in` that belongs to batch number `batch` of the result.
  static int64_t batch_offset(const View& in, const View& out, int64_t batch) {
    int64_t offset = 0;
    for (int axis = out.rank - 3; axis >= 0; --axis) {
      const int64_t at = batch % out.dim(axis);
      batch /= out.dim(axis);
      const int own = axis - (out.rank - in.rank);
      if (own >= 0 && in.dim(own) != 1) offset += at * in.stride(own);
    }
    return offset;
  }

  void tile(const View& x, const View& y, const View& out, int64_t batch, int64_t row,
            int64_t rows) const {
    const int64_t m = out.dim(-2), n = out.dim(-1), k = x.dim(-1);
    const float* a = x.as<const float>() + batch_offset(x, out, batch) + row * x.stride(-2);
    const float* b = y.as<const float>() + batch_offset(y, out, batch);
    float* to = out.as<float>() + batch * m * n + row * n;
    if (transpose_y_) {
      kernels_.panel({a, x.stride(-2), rows, b, y.stride(-2), n, k, to, n});
      return;
    }
    kernels_.weighted_sum({a, x.stride(-2), rows, b, y.stride(-2), k, n, to, n});
  }

  ValueId x_, y_, out_;
  bool transpose_y_;
  kernels::AttentionKernels kernels_;
};

// Tokens are gathered per expert, so only chosen experts are read: those whose weight is not zero.
// Experts run in ascending order: every token sums its experts in the same order whatever the other
// tokens chose.
class MoeStep final : public Step {
 public:
  MoeStep(Isa isa, const Node& node, const MoeWeights& weights, ObservedExperts observed)
      : node_(node),
        op_(std::get<MoeOp>(node.op)),
        biased_(node.operands.size() == op_.operands_with_biases()),
        weights_(weights),
        observed_(std::move(observed)),
        gate_kernels_(gemm_for(isa, weights.gate)),
        up_kernels_(gemm_for(isa, weights.up ? weights.up : weights.gate)),
        down_kernels_(gemm_for(isa, weights.down)),
        activation_(isa, op_),
        hidden_(weights.gate->view.columns),
        width_(weights.down->view.columns),
        experts_(weights.down->view.rows / hidden_) {}

  std::string describe() const override {
    return "moe " + std::string(kernels::gemm_name(gate_kernels_)) + " " +
           std::to_string(experts_) + (op_.gated ? " gated" : "") + (biased_ ? " biased" : "") +
           shape_text(width_, hidden_);
  }
  int64_t scratch_floats(const Limits&) const override {
    return std::max(kernels::gemm_scratch(hidden_), kernels::gemm_scratch(width_));
  }
  int64_t workspace_floats(const Limits& limits) const override {
    return limits.tokens * (1 + 2 * (hidden_ + width_));
  }
  Work work(const Frame& frame) const override {
    const int64_t uses = frame.view(node_.operands[0]).count() / hidden_ *
                         std::min(weights_.experts_per_token, experts_);
    Work work;
    for (const Weight* weight : {weights_.gate, weights_.up, weights_.down}) {
      if (!weight) continue;
      const int64_t rows = weight->view.rows / experts_;
      work.weight_bytes += bytes_of(weight->view, rows * std::min(uses, experts_));
      work.f32_macs += static_cast<uint64_t>(uses * rows * weight->view.columns);
    }
    return work;
  }

  Status run(const Frame& frame) const override {
    const View& x = frame.view(node_.operands[0]);
    const float* mix = frame.view(node_.operands[1]).as<const float>();
    const int64_t tokens = x.count() / hidden_;
    float* y = frame.view(node_.result).as<float>();
    std::fill(y, y + tokens * hidden_, 0.0f);
    auto* const members = reinterpret_cast<int32_t*>(frame.workspace);
    for (int64_t expert = 0; expert < experts_; ++expert) {
      size_t count = 0;
      for (int64_t t = 0; t < tokens; ++t)
        if (mix[t * experts_ + expert] != 0) members[count++] = static_cast<int32_t>(t);
      if (count > 0)
        run_expert(frame, expert, {members, count}, x.as<const float>(), mix,
                   frame.workspace + tokens, y);
    }
    return {};
  }

 private:
  static kernels::GemmKernels gemm_for(Isa isa, const Weight* weight) {
    return kernels::choose_gemm(isa, weight->view.encoding, weight->view.columns);
  }
  // The biases of the weight at operand `weight`, of all experts: multiply() indexes them by the
  // row of the stacked weight. Null without biases.
  const float* bias(const Frame& frame, size_t weight) const {
    if (!biased_) return nullptr;
    return frame.view(node_.operands[weight - 2 + op_.operands_without_biases()]).as<const float>();
  }

  void run_expert(const Frame& frame, int64_t expert, std::span<const int32_t> members,
                  const float* x, const float* mix, float* memory, float* y) const {
    const auto count = static_cast<int64_t>(members.size());
    float* in = memory;
    float* gate = in + count * hidden_;
    float* up = gate + count * width_;
    float* out = up + count * width_;
    for (int64_t i = 0; i < count; ++i) {
      std::memcpy(in + i * hidden_, x + members[static_cast<size_t>(i)] * hidden_,
                  static_cast<size_t>(hidden_) * sizeof(float));
    }
    if (observed_.observer)
      for (const std::string& name : observed_.in) observed_.observer->see(name, expert, in, count);
    multiply(frame, gate_kernels_, weights_.gate->view, expert * width_, width_,
             {in, hidden_, count, bias(frame, 2), gate, width_});
    if (op_.gated) {
      multiply(frame, up_kernels_, weights_.up->view, expert * width_, width_,
               {in, hidden_, count, bias(frame, 3), up, width_});
    }
    activation_.run(gate, up, count * width_);
    if (observed_.observer) observed_.observer->see(observed_.down, expert, gate, count);
    multiply(frame, down_kernels_, weights_.down->view, expert * hidden_, hidden_,
             {gate, width_, count, bias(frame, op_.down()), out, hidden_});
    for (int64_t i = 0; i < count; ++i) {
      const int64_t token = members[static_cast<size_t>(i)];
      const float weight = mix[token * experts_ + expert];
      for (int64_t d = 0; d < hidden_; ++d) y[token * hidden_ + d] += weight * out[i * hidden_ + d];
    }
  }

  Node node_;
  MoeOp op_;
  bool biased_;
  MoeWeights weights_;
  ObservedExperts observed_;
  kernels::GemmKernels gate_kernels_, up_kernels_, down_kernels_;
  ExpertActivation activation_;
  int64_t hidden_, width_, experts_;
};

}  // namespace

StepPtr make_linear(Isa isa, const Node& node, const Weight* weight, bool exact) {
  return std::make_unique<LinearStep>(isa, node, weight, exact);
}
StepPtr make_observed(StepPtr product, ValueId x, std::string weight, int64_t columns,
                      std::shared_ptr<ActivationObserver> observer) {
  return std::make_unique<ObservedStep>(std::move(product), x, std::move(weight), columns,
                                        std::move(observer));
}
StepPtr make_embedding(Isa isa, const Node& node, const Weight* table) {
  return std::make_unique<EmbeddingStep<StoredRows>>(node, StoredRows(isa, table));
}
StepPtr make_packed_embedding(const Node& node, const PackedWeight* table) {
  return std::make_unique<EmbeddingStep<PackedRows>>(node, PackedRows(table));
}
StepPtr make_matmul(Isa isa, const Node& node) { return std::make_unique<MatMulStep>(isa, node); }
StepPtr make_moe(Isa isa, const Node& node, const MoeWeights& weights, ObservedExperts observed) {
  return std::make_unique<MoeStep>(isa, node, weights, std::move(observed));
}

}  // namespace pome
