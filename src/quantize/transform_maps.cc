#include "quantize/transform_maps.h"

#include <algorithm>
#include <cmath>
#include <list>
#include <mutex>
#include <utility>

#include "base/split_mix.h"
#include "graph/f32_tile.h"

namespace pome {

namespace {

// A sum of uniform numbers: near enough to a Gaussian one, without its functions.
double bell(SplitMix64* random) {
  double sum = 0;
  for (int i = 0; i < 6; ++i) sum += random->unit();
  return sum - 3;
}

// Rows [n, n] that are orthonormal, by Gram and Schmidt, twice for accuracy. `ones`: the first is
// (1, .., 1) / sqrt(n).
std::vector<double> orthonormal_rows(int64_t n, bool ones, SplitMix64* random) {
  std::vector<double> rows(static_cast<size_t>(n * n));
  for (int64_t i = 0; i < n; ++i) {
    double* const row = rows.data() + i * n;
    for (int64_t j = 0; j < n; ++j) row[j] = ones && i == 0 ? 1 : bell(random);
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t before = 0; before < i; ++before) {
        const double* const other = rows.data() + before * n;
        double product = 0;
        for (int64_t j = 0; j < n; ++j) product += row[j] * other[j];
        for (int64_t j = 0; j < n; ++j) row[j] -= product * other[j];
      }
      double square = 0;
      for (int64_t j = 0; j < n; ++j) square += row[j] * row[j];
      const double by = 1 / std::sqrt(square);
      for (int64_t j = 0; j < n; ++j) row[j] *= by;
    }
  }
  return rows;
}

// [n, n]; with `keeps_ones` U' V of two bases that begin with that direction.
std::vector<float> orthogonal_matrix(int64_t n, bool keeps_ones, SplitMix64* random) {
  const std::vector<double> v = orthonormal_rows(n, keeps_ones, random);
  if (!keeps_ones) return {v.begin(), v.end()};
  const std::vector<double> u = orthonormal_rows(n, true, random);
  std::vector<float> out(static_cast<size_t>(n * n));
  std::vector<double> row(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    std::fill(row.begin(), row.end(), 0.0);
    for (int64_t b = 0; b < n; ++b)
      for (int64_t j = 0; j < n; ++j)
        row[static_cast<size_t>(j)] +=
            u[static_cast<size_t>(b * n + i)] * v[static_cast<size_t>(b * n + j)];
    std::copy(row.begin(), row.end(), out.begin() + i * n);
  }
  return out;
}

}  // namespace

RotationPtr Rotation::random(int64_t size, uint64_t seed, bool keeps_ones) {
  POME_CHECK(size >= 1);
  SplitMix64 random(seed);
  std::shared_ptr<Rotation> out(new Rotation);
  out->run_ = size & -size;  // the largest power of two that divides it
  out->runs_ = size / out->run_;
  out->keeps_ones_ = keeps_ones;
  out->signs_.resize(static_cast<size_t>(size));
  for (int64_t i = 0; i < size; ++i) {
    // Element 0 of a run's spectrum is its mean.
    const bool fixed = keeps_ones && i % out->run_ == 0;
    out->signs_[static_cast<size_t>(i)] = !fixed && (random.next() & 1) != 0 ? -1.0f : 1.0f;
  }
  if (out->runs_ > 1) out->between_ = orthogonal_matrix(out->runs_, keeps_ones, &random);
  return out;
}

void Rotation::hadamard(float* values, int64_t lanes) const {
  for (int64_t half = 1; half < run_; half *= 2) {
    const int64_t width = half * lanes;
    for (int64_t start = 0; start < size(); start += 2 * half) {
      float* const a = values + start * lanes;
      float* const b = a + width;
      for (int64_t i = 0; i < width; ++i) {
        const float x = a[i], y = b[i];
        a[i] = x + y;
        b[i] = x - y;
      }
    }
  }
  const auto by = static_cast<float>(1 / std::sqrt(static_cast<double>(run_)));
  for (int64_t i = 0; i < size() * lanes; ++i) values[i] *= by;
}

void Rotation::mix(float* values, int64_t lanes) const {
  constexpr int64_t kWidth = 256;
  const int64_t stride = run_ * lanes;
  std::vector<float> before(static_cast<size_t>(runs_ * kWidth));
  for (int64_t first = 0; first < stride; first += kWidth) {
    const int64_t width = std::min(kWidth, stride - first);
    for (int64_t r = 0; r < runs_; ++r) {
      std::copy_n(values + r * stride + first, width, before.begin() + r * kWidth);
      std::fill_n(values + r * stride + first, width, 0.0f);
    }
    for (int64_t r = 0; r < runs_; ++r)
      for (int64_t to = 0; to < runs_; ++to) {
        const float by = between_[static_cast<size_t>(r * runs_ + to)];
        const float* const from = before.data() + r * kWidth;
        float* const out = values + to * stride + first;
        for (int64_t i = 0; i < width; ++i) out[i] += by * from[i];
      }
  }
}

void Rotation::apply(float* values, int64_t lanes) const {
  if (keeps_ones_) hadamard(values, lanes);
  for (int64_t i = 0; i < size(); ++i)
    if (signs_[static_cast<size_t>(i)] < 0)
      for (int64_t lane = 0; lane < lanes; ++lane)
        values[i * lanes + lane] = -values[i * lanes + lane];
  hadamard(values, lanes);
  if (runs_ > 1) mix(values, lanes);
}

void BasisMap::columns(int64_t set, const float* in, float* out) const {
  const size_t base = static_cast<size_t>((sets == 1 ? 0 : set) * size);
  for (int64_t i = 0; i < size; ++i) {
    const size_t at = base + static_cast<size_t>(i);
    const float value = in[order.empty() ? i : order[at]];
    out[i] = scale.empty() ? value : value * scale[at];
  }
  for (const RotationPtr& block : blocks) {
    block->apply(out);
    out += block->size();
  }
}

void BasisMap::activations(int64_t set, const float* in, float* out) const {
  const size_t base = static_cast<size_t>((sets == 1 ? 0 : set) * size);
  for (int64_t i = 0; i < size; ++i) {
    const size_t at = base + static_cast<size_t>(i);
    const float value = in[order.empty() ? i : order[at]];
    out[i] = scale.empty() ? value : value / scale[at];
  }
  for (const RotationPtr& block : blocks) {
    block->apply(out);
    out += block->size();
  }
}

MomentsPtr mapped_moments(const Moments& moments, const BasisMap& map, int64_t set) {
  const int64_t n = moments.columns;
  POME_CHECK(map.size == n);
  auto out = std::make_shared<Moments>(moments);
  std::vector<float> half(out->second.size());
  // Rows, then rows of what was turned: H is symmetric.
  std::vector<float> row(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    map.activations(set, moments.second.data() + i * n, row.data());
    for (int64_t j = 0; j < n; ++j)
      half[static_cast<size_t>(j * n + i)] = row[static_cast<size_t>(j)];
  }
  for (int64_t i = 0; i < n; ++i)
    map.activations(set, half.data() + i * n, out->second.data() + i * n);
  out->diagonal.clear();
  if (!moments.mean.empty()) map.activations(set, moments.mean.data(), out->mean.data());
  return out;
}

// ---- constants
// ---------------------------------------------------------------------------------

class PieceCache {
 public:
  struct Piece {
    std::mutex mutex;  // of making it
    bool made = false;
    std::vector<float> values;
  };
  std::shared_ptr<Piece> get(const void* owner, int64_t index, uint64_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto it = entries_.begin(); it != entries_.end(); ++it)
      if (it->owner == owner && it->index == index) {
        entries_.splice(entries_.begin(), entries_, it);
        return entries_.front().piece;
      }
    entries_.push_front({owner, index, bytes, std::make_shared<Piece>()});
    bytes_ += bytes;
    while (entries_.size() > 1 && bytes_ > kMostBytes) {
      bytes_ -= entries_.back().bytes;
      entries_.pop_back();
    }
    return entries_.front().piece;
  }
  void forget(const void* owner) {
    const std::lock_guard<std::mutex> lock(mutex_);
    entries_.remove_if([&](const Entry& entry) {
      if (entry.owner != owner) return false;
      bytes_ -= entry.bytes;
      return true;
    });
  }

 private:
  // Of pieces beside the one that is read: small ones (heads, experts) are many at a time.
  static constexpr uint64_t kMostBytes = uint64_t{64} << 20;
  struct Entry {
    const void* owner;
    int64_t index;
    uint64_t bytes;
    std::shared_ptr<Piece> piece;
  };
  std::mutex mutex_;
  std::list<Entry> entries_;  // the one that was read last first
  uint64_t bytes_ = 0;
};

std::shared_ptr<PieceCache> make_piece_cache() { return std::make_shared<PieceCache>(); }

namespace {

class Mapped : public ConstantData {
 public:
  const ConstantData& canonical() const override { return in_->canonical(); }
  const ConstantData& unrounded() const override { return *this; }

 protected:
  explicit Mapped(ConstantDataPtr in)
      : ConstantData(in->shape(), Encoding::plain(EncodingKind::kF32)), in_(std::move(in)) {}
  ConstantDataPtr in_;
};

class MappedColumns final : public Mapped {
 public:
  MappedColumns(ConstantDataPtr in, BasisMapPtr map) : Mapped(std::move(in)), map_(std::move(map)) {
    POME_CHECK(map_->size == columns() && rows() % map_->sets == 0);
  }
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    float* const out = f32_part(tile, row, rows, columns());
    std::vector<float> in(static_cast<size_t>(rows * columns()));
    POME_RETURN_IF_ERROR(in_->read_f32(row, rows, in.data()));
    const int64_t rows_of_set = this->rows() / map_->sets;
    for (int64_t i = 0; i < rows; ++i)
      map_->columns((row + i) / rows_of_set, in.data() + i * columns(), out + i * columns());
    return {};
  }

 private:
  BasisMapPtr map_;
};

// Made piece by piece: a block that is rotated, or a set whose rows are put in order.
class MappedRows final : public Mapped {
 public:
  MappedRows(ConstantDataPtr in, BasisMapPtr map, std::shared_ptr<PieceCache> cache)
      : Mapped(std::move(in)), map_(std::move(map)), cache_(std::move(cache)) {
    piece_ = map_->blocks.empty() ? map_->size : map_->blocks[0]->size();
    POME_CHECK(map_->blocks.empty() || map_->order.empty());
    // With one map for several experts the rows are those of all of them.
    POME_CHECK(rows() % map_->size == 0 && map_->size % piece_ == 0);
  }
  ~MappedRows() override { cache_->forget(this); }

  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    float* out = f32_part(tile, row, rows, columns());
    for (int64_t at = row; at < row + rows;) {
      const int64_t index = at / piece_, inside = at % piece_;
      const int64_t count = std::min(piece_ - inside, row + rows - at);
      const std::shared_ptr<PieceCache::Piece> piece =
          cache_->get(this, index, static_cast<uint64_t>(piece_ * columns()) * sizeof(float));
      {
        const std::lock_guard<std::mutex> lock(piece->mutex);
        if (!piece->made) POME_RETURN_IF_ERROR(make(index, &piece->values));
        piece->made = true;
      }
      std::copy_n(piece->values.begin() + inside * columns(), count * columns(), out);
      out += count * columns();
      at += count;
    }
    return {};
  }

 private:
  Status make(int64_t index, std::vector<float>* values) const {
    const int64_t first = index * piece_;
    values->resize(static_cast<size_t>(piece_ * columns()));
    const size_t base =
        map_->sets == 1 ? static_cast<size_t>(first % map_->size) : static_cast<size_t>(first);
    if (map_->order.empty()) {
      POME_RETURN_IF_ERROR(in_->read_f32(first, piece_, values->data()));
    } else {
      POME_RETURN_IF_ERROR(read_in_order(first, map_->order.data() + base, values));
    }
    if (!map_->scale.empty())
      for (int64_t i = 0; i < piece_; ++i)
        for (int64_t c = 0; c < columns(); ++c)
          (*values)[static_cast<size_t>(i * columns() + c)] *=
              map_->scale[base + static_cast<size_t>(i)];
    if (!map_->blocks.empty())
      map_->blocks[static_cast<size_t>(first % map_->size / piece_)]->apply(values->data(),
                                                                            columns());
    return {};
  }

  // Reads the rows as they lie, a tile at a time.
  Status read_in_order(int64_t first, const int32_t* order, std::vector<float>* values) const {
    std::vector<int64_t> place(static_cast<size_t>(piece_));
    for (int64_t i = 0; i < piece_; ++i) place[static_cast<size_t>(order[i])] = i;
    const int64_t step = tile_rows(*in_);
    std::vector<float> tile(static_cast<size_t>(std::min(step, piece_) * columns()));
    for (int64_t row = 0; row < piece_; row += step) {
      const int64_t count = std::min(step, piece_ - row);
      POME_RETURN_IF_ERROR(in_->read_f32(first + row, count, tile.data()));
      for (int64_t i = 0; i < count; ++i)
        std::copy_n(tile.begin() + i * columns(), columns(),
                    values->begin() + place[static_cast<size_t>(row + i)] * columns());
    }
    return {};
  }

  BasisMapPtr map_;
  std::shared_ptr<PieceCache> cache_;
  int64_t piece_ = 0;
};

class ReplacedVector final : public Mapped {
 public:
  ReplacedVector(ConstantDataPtr in, std::vector<float> values)
      : Mapped(std::move(in)), values_(std::move(values)) {
    POME_CHECK(rows() == 1 && static_cast<int64_t>(values_.size()) == columns());
  }
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    std::copy(values_.begin(), values_.end(), f32_part(tile, row, rows, columns()));
    return {};
  }

 private:
  std::vector<float> values_;
};

}  // namespace

ConstantDataPtr map_columns(ConstantDataPtr in, BasisMapPtr map) {
  return std::make_shared<MappedColumns>(std::move(in), std::move(map));
}

ConstantDataPtr map_rows(ConstantDataPtr in, BasisMapPtr map, std::shared_ptr<PieceCache> cache) {
  return std::make_shared<MappedRows>(std::move(in), std::move(map), std::move(cache));
}

ConstantDataPtr replace_vector(const ConstantDataPtr& in, std::vector<float> values) {
  return std::make_shared<ReplacedVector>(in, std::move(values));
}

}  // namespace pome
