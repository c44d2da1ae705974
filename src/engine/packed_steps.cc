// Products with packed weights: integer activations, see kernels/packed.
#include <algorithm>

#include "engine/buffer.h"
#include "engine/step.h"
#include "kernels/packed/products.h"

namespace pome {

namespace {

// Bytes of weights that an item of work reads: enough that handing it to a thread costs little
// beside it.
constexpr int64_t kItemBytes = 32 << 10;

class PackedLinearStep final : public Step {
 public:
  PackedLinearStep(Isa isa, ValueId x, std::vector<PackedProduct> products)
      : x_(x),
        products_(std::move(products)),
        kernels_(kernels::choose_packed(isa)),
        quantize_(kernels::choose_quantize(isa)),
        columns_(products_.front().weight->view.layout.columns) {
    for (size_t i = 0; i < products_.size(); ++i) {
      const kernels::PackedLayout& layout = products_[i].weight->view.layout;
      add_items(i, layout.tiles, std::max<int64_t>(1, kItemBytes / layout.tile_bytes), &few_);
      add_items(i, layout.tiles, 2, &many_);
    }
  }
  std::string describe() const override {
    std::string text = "linear " + std::string(kernels_->name);
    for (const PackedProduct& product : products_) {
      const kernels::PackedLayout& layout = product.weight->view.layout;
      text += " [" + std::to_string(layout.rows) + ", " + std::to_string(layout.columns) + "]";
    }
    return text;
  }
  int64_t scratch_floats(const Limits& limits) const override {
    if (kernels::activation_bits(limits.tokens, columns_) != kernels::ActivationBits::kCoarse)
      return 0;
    return kernels::gemm_panel_bytes(columns_) / static_cast<int64_t>(sizeof(float));
  }
  int64_t workspace_floats(const Limits& limits) const override {
    return kernels::activation_bytes(limits.tokens, columns_) / static_cast<int64_t>(sizeof(float));
  }

  Status run(const Frame& frame) const override {
    const View& x = frame.view(x_);
    const int64_t m = x.count() / columns_;
    if (m == 0) return {};
    const kernels::ActivationBits bits = kernels::activation_bits(m, columns_);
    const bool many = bits == kernels::ActivationBits::kCoarse;
    const kernels::Activations quantised =
        kernels::activations_in(reinterpret_cast<std::byte*>(frame.workspace), m, columns_, bits);
    constexpr int64_t kRows = 4;
    frame.parallel((m + kRows - 1) / kRows, [&](int64_t item, float*) {
      for (int64_t row = item * kRows; row < std::min(m, (item + 1) * kRows); ++row)
        quantize_(x.as<const float>() + row * columns_, columns_, quantised, row);
    });
    const std::vector<Item>& items = many ? many_ : few_;
    frame.parallel(static_cast<int64_t>(items.size()), [&](int64_t index, float* scratch) {
      const Item& item = items[static_cast<size_t>(index)];
      const PackedProduct& product = products_[item.product];
      kernels::ProductArgs args;
      args.w = product.weight->view;
      args.tile = item.tile;
      args.tiles = item.tiles;
      args.x = quantised;
      if (product.bias != kNoValue) args.bias = frame.view(product.bias).as<const float>();
      args.y = frame.view(product.result).as<float>();
      args.ldy = args.w.layout.rows;
      args.scratch = reinterpret_cast<std::byte*>(scratch);
      (many ? kernels_->gemm : kernels_->gemv)(args);
    });
    return {};
  }

 private:
  struct Item {
    size_t product;
    int64_t tile, tiles;
  };
  static void add_items(size_t product, int64_t tiles, int64_t step, std::vector<Item>* items) {
    for (int64_t tile = 0; tile < tiles; tile += step)
      items->push_back({product, tile, std::min(step, tiles - tile)});
  }

  ValueId x_;
  std::vector<PackedProduct> products_;
  const kernels::PackedEntry* kernels_;
  kernels::QuantizeKernel quantize_;
  int64_t columns_;
  std::vector<Item> few_, many_;
};

}  // namespace

StepPtr make_packed_linear(Isa isa, ValueId x, std::vector<PackedProduct> products) {
  return std::make_unique<PackedLinearStep>(isa, x, std::move(products));
}

}  // namespace pome
