#include "pipeline/moments.h"

#include <algorithm>
#include <utility>

namespace pome {

namespace {

constexpr int64_t kWaiting = 512;  // rows that are multiplied at a time
// Of second moments, what a thread takes at a time: so many columns of both, transposed, are in the
// second-level cache together.
constexpr int64_t kTile = 128;

// [rows, columns] -> [columns, rows]
void transpose(const float* from, int64_t rows, int64_t columns, std::vector<float>* to,
               ThreadPool* pool) {
  constexpr int64_t kSquare = 16;
  to->resize(static_cast<size_t>(columns * rows));
  pool->parallel_for(columns, kSquare, [&](int64_t begin, int64_t end) {
    for (int64_t t0 = 0; t0 < rows; t0 += kSquare)
      for (int64_t k = begin; k < end; ++k)
        for (int64_t t = t0; t < std::min(t0 + kSquare, rows); ++t)
          (*to)[static_cast<size_t>(k * rows + t)] = from[t * columns + k];
  });
}

// to[i, j] += sum over rows of x[row, i] y[row, j], for all j, or those from i on.
void add_products(const std::vector<float>& x, const std::vector<float>& y, int64_t rows,
                  bool triangle, float* to, kernels::PanelKernel panel, ThreadPool* pool) {
  const auto height = static_cast<int64_t>(x.size()) / rows,
             columns = static_cast<int64_t>(y.size()) / rows;
  pool->parallel_for(height, kTile, [&](int64_t begin, int64_t end) {
    float products[kTile * kTile];
    for (int64_t first = triangle ? begin : 0; first < columns; first += kTile) {
      const int64_t width = std::min(kTile, columns - first);
      panel({x.data() + begin * rows, rows, end - begin, y.data() + first * rows, rows, width, rows,
             products, kTile});
      for (int64_t i = begin; i < end; ++i) {
        const float* const sums = products + (i - begin) * kTile - first;
        for (int64_t j = triangle ? std::max(i, first) : first; j < first + width; ++j)
          to[i * columns + j] += sums[j];
      }
    }
  });
}

}  // namespace

std::vector<ReadValue> read_values(const Graph& graph) {
  std::vector<const Node*> producer(graph.values.size(), nullptr);
  for (const Node& node : graph.nodes) producer[static_cast<size_t>(node.result)] = &node;
  const auto constant = [&](ValueId id) -> const Constant* {
    const Node* const node = producer[static_cast<size_t>(id)];
    const auto* op = node ? std::get_if<ConstantOp>(&node->op) : nullptr;
    return op ? &graph.constants[static_cast<size_t>(op->constant)] : nullptr;
  };
  std::vector<ReadValue> out;
  enum class Reader { kProduct, kExpertsIn, kExpertsOut };
  std::map<std::pair<ValueId, Reader>, size_t> of_value;
  const auto add = [&](ValueId value, Reader reader, ValueId weight) {
    const Constant* const found = constant(weight);
    if (!found) return;
    const auto [at, made] = of_value.try_emplace({value, reader}, out.size());
    const Shape& shape = found->data->shape();
    if (made)
      out.push_back({value, graph.name(value), found->name, found->data->columns(),
                     shape.size() == 3 ? shape[0] : 1,
                     shape.size() == 2 && graph.type(value).shape.size() == 3});
    out[at->second].weights.push_back(found->name);
  };
  for (const Node& node : graph.nodes) {
    if (std::holds_alternative<LinearOp>(node.op))
      add(node.operands[0], Reader::kProduct, node.operands[1]);
    if (const auto* matmul = std::get_if<MatMulOp>(&node.op);
        matmul && matmul->transpose_y && graph.type(node.operands[1]).shape.size() == 2)
      add(node.operands[0], Reader::kProduct, node.operands[1]);
    if (const auto* moe = std::get_if<MoeOp>(&node.op)) {
      for (size_t i = 2; i < moe->down(); ++i)
        add(node.result, Reader::kExpertsIn, node.operands[i]);
      add(node.result, Reader::kExpertsOut, node.operands[moe->down()]);
    }
  }
  return out;
}

std::map<std::string, Product> products_of_weights(const Graph& graph) {
  std::map<ValueId, std::string> constants, weights;
  std::map<std::string, Product> out;
  for (const Node& node : graph.nodes) {
    if (const auto* constant = std::get_if<ConstantOp>(&node.op))
      constants[node.result] = graph.constants[static_cast<size_t>(constant->constant)].name;
    if (std::holds_alternative<LinearOp>(node.op))
      if (const auto weight = constants.find(node.operands[1]); weight != constants.end())
        if (out.try_emplace(weight->second, Product{node.result}).second)
          weights[node.result] = weight->second;
    const auto* const binary = std::get_if<BinaryOp>(&node.op);
    if (!binary || binary->kind != BinaryKind::kAdd) continue;
    for (const size_t one : {0, 1}) {
      const auto weight = weights.find(node.operands[1 - one]);
      if (weight == weights.end() || !(graph.type(node.operands[one]) == graph.type(node.result)))
        continue;
      Product& product = out[weight->second];
      if (product.sum != kNoValue) continue;
      product.added_to = node.operands[one];
      product.sum = node.result;
    }
  }
  return out;
}

MomentSums::MomentSums(int64_t columns, bool whole)
    : columns_(columns),
      whole_(whole),
      second_(whole ? static_cast<size_t>(columns * columns) : 0, 0.0f),
      first_(static_cast<size_t>(columns), 0.0),
      squares_(first_) {}

void MomentSums::add(const float* x, int64_t rows, kernels::PanelKernel panel, ThreadPool* pool) {
  tokens_ += rows;
  while (rows > 0) {
    const int64_t taken = std::min(rows, kWaiting - waiting_);
    rows_.insert(rows_.end(), x, x + taken * columns_);
    x += taken * columns_;
    rows -= taken;
    waiting_ += taken;
    if (waiting_ == kWaiting) multiply(panel, pool);
  }
}

void MomentSums::multiply(kernels::PanelKernel panel, ThreadPool* pool) {
  const int64_t rows = std::exchange(waiting_, 0);
  pool->parallel_for(columns_, kTile, [&](int64_t begin, int64_t end) {
    for (int64_t t = 0; t < rows; ++t) {
      const float* const row = rows_.data() + t * columns_;
      for (int64_t k = begin; k < end; ++k) {
        const auto value = static_cast<double>(row[k]);
        first_[static_cast<size_t>(k)] += value;
        squares_[static_cast<size_t>(k)] += value * value;
      }
    }
  });
  if (whole_) {
    transpose(rows_.data(), rows, columns_, &turned_, pool);
    add_products(turned_, turned_, rows, true, second_.data(), panel, pool);
  }
  rows_.clear();
}

MomentsPtr MomentSums::take(kernels::PanelKernel panel, ThreadPool* pool) {
  if (tokens_ == 0) return nullptr;
  if (waiting_ > 0) multiply(panel, pool);
  rows_ = {};
  turned_ = {};
  auto out = std::make_shared<Moments>();
  out->columns = columns_;
  out->tokens = tokens_;
  const double by = 1.0 / static_cast<double>(tokens_);
  constexpr int64_t kBlock = 64;  // both triangles stay in the cache
  pool->parallel_for(whole_ ? columns_ : 0, kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t j0 = begin; j0 < columns_; j0 += kBlock)
      for (int64_t i = begin; i < end; ++i)
        for (int64_t j = std::max(i, j0); j < std::min(j0 + kBlock, columns_); ++j) {
          float& sum = second_[static_cast<size_t>(i * columns_ + j)];
          sum = static_cast<float>(static_cast<double>(sum) * by);
          second_[static_cast<size_t>(j * columns_ + i)] = sum;
        }
  });
  out->second = std::move(second_);
  out->mean.reserve(first_.size());
  for (const double sum : first_) out->mean.push_back(static_cast<float>(sum * by));
  for (const double sum : squares_) out->diagonal.push_back(static_cast<float>(sum * by));
  return out;
}

std::vector<float> cross_moments(std::span<const float> x, std::span<const float> y, int64_t rows,
                                 kernels::PanelKernel panel, ThreadPool* pool) {
  const auto height = static_cast<int64_t>(x.size()) / rows,
             columns = static_cast<int64_t>(y.size()) / rows;
  std::vector<float> out(static_cast<size_t>(height * columns), 0.0f), x_turned, y_turned;
  for (int64_t at = 0; at < rows; at += kWaiting) {
    const int64_t count = std::min(kWaiting, rows - at);
    transpose(x.data() + at * height, count, height, &x_turned, pool);
    transpose(y.data() + at * columns, count, columns, &y_turned, pool);
    add_products(x_turned, y_turned, count, false, out.data(), panel, pool);
  }
  const double by = 1.0 / static_cast<double>(rows);
  pool->parallel_for(height, kTile, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * columns; i < end * columns; ++i) {
      float& sum = out[static_cast<size_t>(i)];
      sum = static_cast<float>(static_cast<double>(sum) * by);
    }
  });
  return out;
}

RowKeeper::RowKeeper(std::span<const ReadValue> values, int64_t tokens) {
  for (const ReadValue& value : values) {
    Kept& kept = kept_[value.first];
    kept.columns = value.columns;
    kept.rows.reserve(static_cast<size_t>(value.columns * tokens));
  }
}

void RowKeeper::see(const std::string& weight, int64_t, const float* x, int64_t rows) {
  const auto found = kept_.find(weight);
  if (found == kept_.end()) return;
  Kept& kept = found->second;
  kept.rows.insert(kept.rows.end(), x, x + rows * kept.columns);
}

MomentCollector::MomentCollector(std::vector<ReadValue> values,
                                 const std::function<bool(const ReadValue&)>& whole, Isa isa,
                                 int threads)
    : values_(std::move(values)), panel_(kernels::choose_panel(isa)), pool_(threads) {
  for (const ReadValue& value : values_) {
    std::vector<MomentSums>& sums = by_first_[value.first];
    for (int64_t e = 0; e < value.experts; ++e) sums.emplace_back(value.columns, whole(value));
  }
}

void MomentCollector::see(const std::string& weight, int64_t expert, const float* x, int64_t rows) {
  const auto found = by_first_.find(weight);
  if (found != by_first_.end())
    found->second[static_cast<size_t>(expert)].add(x, rows, panel_, &pool_);
}

std::vector<MomentsPtr> MomentCollector::take(const ReadValue& value) {
  std::vector<MomentsPtr> out;
  for (MomentSums& sums : by_first_[value.first]) out.push_back(sums.take(panel_, &pool_));
  by_first_.erase(value.first);
  return out;
}

}  // namespace pome
