// Products of heads with weights of their own: x [B, H or 1, T, K] times [H, N, K] -> [B, H, T, N].
#include <algorithm>

#include "engine/step.h"
#include "kernels/gemm/gemm.h"
#include "kernels/packed/products.h"

namespace pome {

namespace {

// Rows of a head's matrix and tokens that are an item of work.
constexpr int64_t kItemRows = 128, kItemTokens = 256;

// What an item of work multiplies.
struct HeadItem {
  int64_t head = 0, row = 0, rows = 0;  // rows of the head's matrix
  const float* x = nullptr;             // [tokens, columns]
  float* y = nullptr;                   // [tokens, rows of a head], of the item's first row
  int64_t tokens = 0;
};

class HeadLinear : public Step {
 public:
  HeadLinear(const Node& node, int64_t columns)
      : x_(node.operands[0]), y_(node.result), columns_(columns) {}

 protected:
  template <typename Run>
  void for_items(const Frame& frame, const Run& run) const {
    const View &x = frame.view(x_), &y = frame.view(y_);
    const int64_t heads = y.dim(1), tokens = y.dim(2), rows = y.dim(3);
    const int64_t pieces = (rows + kItemRows - 1) / kItemRows;
    const int64_t calls = (tokens + kItemTokens - 1) / kItemTokens;
    frame.parallel(heads * pieces * calls, [&](int64_t index, float* scratch) {
      HeadItem item;
      item.head = index / (pieces * calls);
      item.row = index / calls % pieces * kItemRows;
      item.rows = std::min(kItemRows, rows - item.row);
      const int64_t token = index % calls * kItemTokens;
      item.tokens = std::min(kItemTokens, tokens - token);
      const int64_t x_head = x.dim(1) == 1 ? 0 : item.head;
      item.x = x.as<const float>() + (x_head * tokens + token) * columns_;
      item.y = y.as<float>() + (item.head * tokens + token) * rows + item.row;
      run(item, rows, scratch);
    });
  }
  uint64_t macs(const Frame& frame) const {
    return static_cast<uint64_t>(frame.view(y_).count() * columns_);
  }

  ValueId x_, y_;
  int64_t columns_;
};

class StoredHeadLinear final : public HeadLinear {
 public:
  StoredHeadLinear(Isa isa, const Node& node, const Weight* weight)
      : HeadLinear(node, weight->view.columns),
        weight_(weight),
        kernels_(kernels::choose_gemm(isa, weight->view.encoding, columns_)) {}
  std::string describe() const override {
    return "head linear " + std::string(kernels::gemm_name(kernels_)) + " [" +
           std::to_string(weight_->view.rows) + ", " + std::to_string(columns_) + "]";
  }
  int64_t scratch_floats(const Limits&) const override { return kernels::gemm_scratch(columns_); }
  Work work(const Frame& frame) const override {
    Work work;
    const kernels::WeightView& w = weight_->view;
    const auto layout = encoded_layout(w.encoding, w.rows, w.columns);
    if (layout.ok()) work.weight_bytes = layout->total_bytes();
    work.f32_macs = macs(frame);
    return work;
  }
  Status run(const Frame& frame) const override {
    for_items(frame, [&](const HeadItem& item, int64_t rows, float* scratch) {
      const int64_t row = item.head * rows + item.row;
      kernels::gemm_rows(kernels_, weight_->view, row, row + item.rows,
                         {item.x, columns_, item.tokens, nullptr, item.y, rows}, scratch);
    });
    return {};
  }

 private:
  const Weight* weight_;
  kernels::GemmKernels kernels_;
};

class PackedHeadLinear final : public HeadLinear {
 public:
  PackedHeadLinear(Isa isa, const Node& node, const PackedWeight* weight)
      : HeadLinear(node, weight->view.layout.columns),
        weight_(weight),
        kernels_(kernels::choose_packed(isa)),
        quantize_(kernels::choose_quantize(isa)) {}
  std::string describe() const override {
    return "head linear " + std::string(kernels_->name) + " [" +
           std::to_string(weight_->view.layout.rows) + ", " + std::to_string(columns_) + "]";
  }
  int64_t scratch_floats(const Limits& limits) const override {
    const int64_t tokens = std::min(limits.tokens, kItemTokens);
    return (kernels::activation_bytes(tokens, columns_) + kernels::gemm_panel_bytes(columns_)) /
           static_cast<int64_t>(sizeof(float));
  }
  Work work(const Frame& frame) const override {
    const kernels::PackedLayout& layout = weight_->view.layout;
    Work work;
    work.weight_bytes = static_cast<uint64_t>(layout.tiles * layout.tile_bytes);
    work.int8_macs = macs(frame);
    return work;
  }
  // An item quantises its x itself: once per 128 rows of weights, which multiply it.
  Status run(const Frame& frame) const override {
    for_items(frame, [&](const HeadItem& item, int64_t rows, float* scratch) {
      auto* const memory = reinterpret_cast<std::byte*>(scratch);
      kernels::ProductArgs args;
      args.x = kernels::activations_in(memory, item.tokens, columns_,
                                       kernels::activation_bits(item.tokens, columns_));
      for (int64_t t = 0; t < item.tokens; ++t)
        quantize_(item.x + t * columns_, columns_, args.x, t);
      args.w = weight_->view;
      args.w.layout.rows = rows;
      args.w.layout.tiles = rows / kernels::kTileRows;
      args.w.data += item.head * args.w.layout.tiles * args.w.layout.tile_bytes;
      args.tile = item.row / kernels::kTileRows;
      args.tiles = item.rows / kernels::kTileRows;
      args.y = item.y;
      args.ldy = rows;
      args.scratch = memory + kernels::activation_bytes(item.tokens, columns_);
      kernels_->multiply(args);
    });
    return {};
  }

 private:
  const PackedWeight* weight_;
  const kernels::PackedEntry* kernels_;
  kernels::QuantizeKernel quantize_;
};

}  // namespace

StepPtr make_head_linear(Isa isa, const Node& node, const Weight* weight) {
  return std::make_unique<StoredHeadLinear>(isa, node, weight);
}
StepPtr make_packed_head_linear(Isa isa, const Node& node, const PackedWeight* weight) {
  return std::make_unique<PackedHeadLinear>(isa, node, weight);
}

}  // namespace pome
