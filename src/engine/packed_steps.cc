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
// Of many tokens: tiles of an item, whole for whatever follows. What follows a product runs on rows
// of 64 floats then.
constexpr int64_t kManyTiles = 4;
static_assert(kManyTiles % kQuantisedTiles == 0);
// Of few tokens: tiles between two looks at whether the caller still wants the result, and the
// floats of a run that scratch holds.
constexpr int64_t kRunTiles = 1024, kRunFloats = 16 << 10;
// Times `whole` tiles: an item whose floats lie in scratch stays in the cache with many tokens.
constexpr int64_t kMostWithFloats = 4;

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
      const int64_t most = floats_of(product) > 0 ? kMostWithFloats : kRunTiles;
      add_items(i, layout.tiles, whole * std::clamp<int64_t>(kPackedItemBytes / bytes, 1, most),
                &few_);
      add_items(i, layout.tiles, kManyTiles, &many_);
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
    int64_t floats = kRunFloats;
    for (const std::vector<Item>* items : {&few_, &many_})
      for (const Item& item : *items)
        floats = std::max(floats, floats_of(products_[item.product], item.tiles, limits.tokens));
    return std::max((many ? panel_floats() : 0) + floats, input_.norm ? columns_ : 0);
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
                            const Item run = take_run(&begin, end, m);
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
  // Neighbouring items of few tokens from `begin` on as one.
  Item take_run(int64_t* begin, int64_t end, int64_t m) const {
    Item run = few_[static_cast<size_t>(*begin)];
    while (++*begin < end) {
      const Item& next = few_[static_cast<size_t>(*begin)];
      const int64_t tiles = run.tiles + next.tiles;
      if (next.product != run.product || tiles > kRunTiles ||
          floats_of(products_[run.product], tiles, m) > kRunFloats)
        break;
      run.tiles = tiles;
    }
    return run;
  }

  // Results that live as long as an item only, in scratch: of `up`, and those that become
  // activations.
  static int64_t floats_of(const PackedProduct& product) {
    return (product.up ? 1 : 0) + (product.quantised != kNoValue ? 1 : 0);
  }
  static int64_t floats_of(const PackedProduct& product, int64_t tiles, int64_t m) {
    return floats_of(product) * tiles * kernels::kTileRows * m;
  }
  int64_t panel_floats() const {
    return kernels::gemm_panel_bytes(columns_) / static_cast<int64_t>(sizeof(float));
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
                                           const kernels::Activations& x, float* scratch) {
    kernels::ProductArgs args;
    args.w = weight.view;
    args.tile = item.tile;
    args.tiles = item.tiles;
    args.x = x;
    if (bias != kNoValue) args.bias = frame.view(bias).as<const float>();
    args.scratch = reinterpret_cast<std::byte*>(scratch);
    return args;
  }

  // What follows a product runs on the rows of the item while they are in the cache.
  void run_item(const Frame& frame, const Item& item, const kernels::Activations& x,
                float* scratch) const {
    const PackedProduct& product = products_[item.product];
    const int64_t width = product.weight->view.layout.rows;
    const int64_t first = item.tile * kernels::kTileRows;
    const int64_t rows = item.tiles * kernels::kTileRows;
    const int64_t count = std::min(rows, width - first);
    float* floats = scratch;
    if (x.bits == kernels::ActivationBits::kCoarse) floats += panel_floats();
    kernels::ProductArgs args =
        product_args(frame, item, *product.weight, product.bias, x, scratch);
    if (product.quantised != kNoValue) {
      args.y = floats;
      args.ldy = rows;
      floats += rows * x.m;
    } else {
      args.y = frame.view(product.result).as<float>() + first;
      args.ldy = width;
    }
    float* const up = floats;
    if (product.up) {
      kernels::ProductArgs other =
          product_args(frame, item, *product.up, product.up_bias, x, scratch);
      other.y = up;
      other.ldy = rows;
      kernels_->multiply(args, other);
    } else {
      kernels_->multiply(args);
    }
    const kernels::MapKernel map = maps_[item.product];
    const float* residual =
        product.residual == kNoValue ? nullptr : frame.view(product.residual).as<const float>();
    if (!map && !residual) return;
    for (int64_t row = 0; row < x.m; ++row) {
      float* const mine = args.y + row * args.ldy;
      if (map) map(mine, mine, count);
      if (product.up) multiply_(mine, up + row * rows, mine, count);
      if (residual) add_(mine, residual + row * width + first, mine, count);
      if (product.quantised != kNoValue)
        quantise_part(frame, product, mine, x.m, row, first, count);
    }
  }

  void quantise_part(const Frame& frame, const PackedProduct& product, const float* values,
                     int64_t m, int64_t row, int64_t first, int64_t count) const {
    const int64_t width = product.weight->view.layout.rows;
    const kernels::Activations all = kernels::activations_in(
        frame.view(product.quantised).data, m, width, kernels::activation_bits(m, width));
    constexpr int64_t kPad = kernels::Activations::kPad;
    quantize_(values, count,
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
