// Products with packed weights: integer activations, see kernels/packed.
#include <algorithm>

#include "engine/activation.h"
#include "engine/buffer.h"
#include "engine/step.h"
#include "kernels/packed/products.h"

namespace pome {

namespace {

// Tiles whose rows are whole blocks of the activations that they become.
constexpr int64_t kQuantisedTiles = kernels::Activations::kPad / kernels::kTileRows;
// Of few tokens, between two looks at whether the caller still wants the result.
constexpr int64_t kRunTiles = 1024;

class PackedLinearStep final : public Step {
 public:
  PackedLinearStep(Isa isa, PackedInput input, std::vector<PackedProduct> products)
      : input_(std::move(input)),
        products_(std::move(products)),
        kernels_(kernels::choose_packed(isa)),
        quantize_(kernels::choose_quantize(isa)),
        add_(kernels::choose_zip(isa, kernels::ZipOp::kAdd)),
        multiply_(kernels::choose_zip(isa, kernels::ZipOp::kMul)),
        columns_(products_.front().weight->view.layout.columns) {
    for (size_t i = 0; i < products_.size(); ++i) {
      const PackedProduct& product = products_[i];
      const kernels::PackedLayout& layout = product.weight->view.layout;
      const int64_t whole = product.quantised != kNoValue ? kQuantisedTiles : 1;
      const int64_t bytes = layout.tile_bytes * (product.up ? 2 : 1) * whole;
      add_items(i, layout.tiles, whole * std::max<int64_t>(1, kPackedItemBytes / bytes), &few_);
      add_items(i, layout.tiles, std::max<int64_t>(2, whole), &many_);
      maps_.push_back(product.activation ? choose_activation(isa, *product.activation) : nullptr);
    }
  }
  std::string describe() const override {
    std::string text = input_.norm ? std::string(input_.norm->name()) + " linear " : "linear ";
    text += kernels_->name;
    for (const PackedProduct& product : products_) {
      const kernels::PackedLayout& layout = product.weight->view.layout;
      text += " [" + std::to_string(layout.rows) + ", " + std::to_string(layout.columns) + "]";
      if (product.up) text += "*2";
      if (product.activation) text += product.up ? " gated" : " activated";
      if (product.quantised != kNoValue) text += " quantised";
      if (product.residual != kNoValue) text += " + residual";
    }
    return text;
  }
  int64_t scratch_floats(const Limits& limits) const override {
    const bool many =
        kernels::activation_bits(limits.tokens, columns_) == kernels::ActivationBits::kCoarse;
    const int64_t panel =
        many ? kernels::gemm_panel_bytes(columns_) / static_cast<int64_t>(sizeof(float)) : 0;
    return std::max(panel, input_.norm ? columns_ : 0);
  }
  int64_t workspace_floats(const Limits& limits) const override {
    if (input_.quantised) return 0;
    return kernels::activation_bytes(limits.tokens, columns_) / static_cast<int64_t>(sizeof(float));
  }
  Work work(const Frame& frame) const override {
    const View& x = frame.view(input_.x);
    const auto m = static_cast<uint64_t>(x.count() / x.dim(-1));
    Work work;
    for (const PackedProduct& product : products_) {
      const kernels::PackedLayout& layout = product.weight->view.layout;
      const uint64_t matrices = product.up ? 2 : 1;
      work.weight_bytes += matrices * static_cast<uint64_t>(layout.tiles * layout.tile_bytes);
      work.int8_macs += matrices * m * static_cast<uint64_t>(layout.rows * layout.columns);
    }
    return work;
  }

  Status run(const Frame& frame) const override {
    const View& x = frame.view(input_.x);
    const int64_t m = x.count() / x.dim(-1);
    if (m == 0) return {};
    const kernels::ActivationBits bits = kernels::activation_bits(m, columns_);
    std::byte* const memory =
        input_.quantised ? x.data : reinterpret_cast<std::byte*>(frame.workspace);
    const kernels::Activations quantised = kernels::activations_in(memory, m, columns_, bits);
    if (!input_.quantised) quantise_input(frame, quantised);
    if (bits == kernels::ActivationBits::kCoarse) {
      frame.parallel(static_cast<int64_t>(many_.size()), [&](int64_t index, float* scratch) {
        run_item(frame, many_[static_cast<size_t>(index)], quantised, scratch);
      });
      return {};
    }
    // Few tokens: what counts is that weights are read in long runs.
    frame.parallel_runs(static_cast<int64_t>(few_.size()),
                        [&](int64_t begin, int64_t end, float* scratch) {
                          while (begin < end && !frame.cancelled()) {
                            Item run = few_[static_cast<size_t>(begin)];
                            while (++begin < end && run.tiles < kRunTiles &&
                                   few_[static_cast<size_t>(begin)].product == run.product)
                              run.tiles += few_[static_cast<size_t>(begin)].tiles;
                            run_item(frame, run, quantised, scratch);
                          }
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

  void quantise_input(const Frame& frame, const kernels::Activations& to) const {
    constexpr int64_t kRows = 4;
    const float* x = frame.view(input_.x).as<const float>();
    frame.parallel((to.m + kRows - 1) / kRows, [&](int64_t item, float* scratch) {
      for (int64_t row = item * kRows; row < std::min(to.m, (item + 1) * kRows); ++row) {
        const float* from = x + row * columns_;
        if (input_.norm) {
          input_.norm->run(frame, row, 1, scratch);
          from = scratch;
        }
        quantize_(from, columns_, to, row);
      }
    });
  }

  static kernels::ProductArgs product_args(const Frame& frame, const Item& item,
                                           const PackedWeight& weight, ValueId bias,
                                           const kernels::Activations& x, float* y,
                                           float* scratch) {
    kernels::ProductArgs args;
    args.w = weight.view;
    args.tile = item.tile;
    args.tiles = item.tiles;
    args.x = x;
    if (bias != kNoValue) args.bias = frame.view(bias).as<const float>();
    args.y = y;
    args.ldy = args.w.layout.rows;
    args.scratch = reinterpret_cast<std::byte*>(scratch);
    return args;
  }

  // What follows a product runs on the rows of the item while they are in the cache.
  void run_item(const Frame& frame, const Item& item, const kernels::Activations& x,
                float* scratch) const {
    const PackedProduct& product = products_[item.product];
    float* y = frame.view(product.result).as<float>();
    const kernels::ProductArgs args =
        product_args(frame, item, *product.weight, product.bias, x, y, scratch);
    float* up = nullptr;
    if (product.up) {
      up = frame.view(product.up_result).as<float>();
      kernels_->multiply(args,
                         product_args(frame, item, *product.up, product.up_bias, x, up, scratch));
    } else {
      kernels_->multiply(args);
    }
    const int64_t width = product.weight->view.layout.rows;
    const int64_t first = item.tile * kernels::kTileRows;
    const int64_t count = std::min(item.tiles * kernels::kTileRows, width - first);
    const kernels::MapKernel map = maps_[item.product];
    const float* residual =
        product.residual == kNoValue ? nullptr : frame.view(product.residual).as<const float>();
    if (!map && !residual) return;
    for (int64_t row = 0; row < x.m; ++row) {
      float* const mine = y + row * width + first;
      if (map) map(mine, mine, count);
      if (up) multiply_(mine, up + row * width + first, mine, count);
      if (residual) add_(mine, residual + row * width + first, mine, count);
      if (product.quantised != kNoValue) quantise_part(frame, product, x.m, row, first, count);
    }
  }

  void quantise_part(const Frame& frame, const PackedProduct& product, int64_t m, int64_t row,
                     int64_t first, int64_t count) const {
    const int64_t width = product.weight->view.layout.rows;
    const kernels::Activations all = kernels::activations_in(
        frame.view(product.quantised).data, m, width, kernels::activation_bits(m, width));
    constexpr int64_t kPad = kernels::Activations::kPad;
    quantize_(frame.view(product.result).as<const float>() + row * width + first, count,
              kernels::activations_part(all, row, first, (count + kPad - 1) / kPad * kPad), 0);
  }

  PackedInput input_;
  std::vector<PackedProduct> products_;
  const kernels::PackedEntry* kernels_;
  kernels::QuantizeKernel quantize_;
  kernels::ZipKernel add_, multiply_;
  std::vector<kernels::MapKernel> maps_;  // by product; null: no activation
  int64_t columns_;
  std::vector<Item> few_, many_;
};

}  // namespace

int64_t quantised_floats(int64_t columns) {
  return kernels::activation_bytes(1, columns) / static_cast<int64_t>(sizeof(float));
}
StepPtr make_packed_linear(Isa isa, PackedInput input, std::vector<PackedProduct> products) {
  return std::make_unique<PackedLinearStep>(isa, std::move(input), std::move(products));
}

}  // namespace pome
