#include "engine/weights.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "base/memory.h"

namespace pome {

namespace {

// What the kernels ask of the address of a part.
size_t part_alignment(const Encoding& encoding, size_t part) {
  if (part > 0) return 2;
  switch (encoding.kind) {
    case EncodingKind::kF64:
    case EncodingKind::kI64:
      return 8;
    case EncodingKind::kF32:
    case EncodingKind::kI32:
      return 4;
    case EncodingKind::kF16:
    case EncodingKind::kBF16:
    case EncodingKind::kI16:
      return 2;
    default:
      return 1;
  }
}

// Reads the tiles of a constant on all threads of the pool, a few ahead of the last one taken:
// take(row, rows, tile) for each, in any order.
Status for_tiles(const ConstantData& data, ThreadPool* pool, const CancelToken* cancel,
                 const std::function<Status(int64_t, int64_t, const EncodedTile&)>& take) {
  const int64_t step = tile_rows(data), window = 2 * pool->threads();
  std::vector<EncodedTile> tiles(static_cast<size_t>(window));
  return pool->ordered((data.rows() + step - 1) / step, window,
                       [&](int64_t item, int64_t place) -> Status {
                         POME_RETURN_IF_ERROR(check_cancelled(cancel));
                         const int64_t row = item * step, rows = std::min(step, data.rows() - row);
                         EncodedTile& tile = tiles[static_cast<size_t>(place)];
                         POME_RETURN_IF_ERROR(data.read_tile(row, rows, &tile));
                         return take(row, rows, tile);
                       },
                       [](int64_t, int64_t) { return Status(); });
}

}  // namespace

// Tile by tile, each at its place in every part.
Status WeightStore::copy(const ConstantData& data, const EncodedLayout& layout,
                         const std::vector<std::byte*>& parts, ThreadPool* pool,
                         const CancelToken* cancel) {
  return for_tiles(
      data, pool, cancel, [&](int64_t row, int64_t, const EncodedTile& tile) -> Status {
        POME_ASSIGN_OR_RETURN(const EncodedLayout before,
                              encoded_layout(data.encoding(), row, data.columns()));
        POME_CHECK(tile.parts.size() == parts.size());
        for (size_t part = 0; part < parts.size(); ++part) {
          const auto bytes = tile.parts[part];
          POME_CHECK(before.part_bytes[part] + bytes.size() <= layout.part_bytes[part]);
          if (!bytes.empty())
            std::memcpy(parts[part] + before.part_bytes[part], bytes.data(), bytes.size());
        }
        return {};
      });
}

Result<const Weight*> WeightStore::encoded(const Graph& graph, int32_t constant, ThreadPool* pool,
                                           const CancelToken* cancel) {
  auto& slot = encoded_[constant];
  if (slot) return slot.get();
  const Constant& named = graph.constants[static_cast<size_t>(constant)];
  const ConstantData& data = *named.data;
  POME_ASSIGN_OR_RETURN(const EncodedLayout layout,
                        encoded_layout(data.encoding(), data.rows(), data.columns()));
  auto weight = std::make_unique<Weight>();
  weight->source = named.data;
  const auto mapped = layout.part_bytes.size() == 1 ? data.view() : std::nullopt;
  std::vector<const std::byte*> parts;
  if (mapped && mapped->size() == layout.part_bytes[0] &&
      reinterpret_cast<uintptr_t>(mapped->data()) % part_alignment(data.encoding(), 0) == 0) {
    parts.push_back(mapped->data());
  } else {
    std::vector<std::byte*> memory;
    for (const uint64_t bytes : layout.part_bytes) {
      POME_ASSIGN_OR_RETURN(std::byte* const part, take(bytes));
      memory.push_back(part);
    }
    Status status = copy(data, layout, memory, pool, cancel);
    if (!status.ok()) return std::move(status).at(named.name);
    parts.assign(memory.begin(), memory.end());
  }
  weight->view = kernels::weight_view(data.encoding(), data.rows(), data.columns(), parts);
  bytes_ += layout.total_bytes();
  slot = std::move(weight);
  return slot.get();
}

Result<std::byte*> WeightStore::take(uint64_t bytes) {
  constexpr uint64_t kArena = uint64_t{64} << 20;
  const uint64_t whole = (bytes + AlignedBuffer::kAlignment - 1) / AlignedBuffer::kAlignment *
                         AlignedBuffer::kAlignment;
  if (arenas_.empty() || arena_used_ + whole > arenas_.back().bytes().size()) {
    POME_ASSIGN_OR_RETURN(AlignedBuffer arena, AlignedBuffer::allocate(std::max(whole, kArena),
                                                                       "weights", Pages::kLarge));
    arenas_.push_back(std::move(arena));
    arena_used_ = 0;
  }
  std::byte* const at = arenas_.back().data() + arena_used_;
  arena_used_ += whole;
  return at;
}

Result<const PackedWeight*> WeightStore::packed(const Graph& graph, int32_t constant,
                                                const kernels::PackedFormat& format,
                                                ThreadPool* pool, const CancelToken* cancel) {
  auto& slot = packed_[constant];
  if (slot) return slot.get();
  const Constant& named = graph.constants[static_cast<size_t>(constant)];
  const ConstantData& data = *named.data;
  auto weight = std::make_unique<PackedWeight>();
  weight->view.format = format;
  weight->view.layout = kernels::packed_layout(format, data.rows(), data.columns());
  const kernels::PackedLayout& layout = weight->view.layout;
  const auto bytes = static_cast<uint64_t>(layout.tiles * layout.tile_bytes);
  POME_ASSIGN_OR_RETURN(std::byte* const memory, take(bytes));
  weight->view.data = memory;
  // tile_rows() is a multiple of 64, and so of the rows of a packed tile.
  Status status = for_tiles(
      data, pool, cancel, [&](int64_t row, int64_t rows, const EncodedTile& tile) -> Status {
        std::vector<const std::byte*> parts;
        for (const auto& part : tile.parts) parts.push_back(part.data());
        const auto from = kernels::weight_view(data.encoding(), rows, data.columns(), parts);
        for (int64_t r = 0; r < rows; r += kernels::kTileRows) {
          std::byte* to = memory + (row + r) / kernels::kTileRows * layout.tile_bytes;
          kernels::pack_tile(weight->view, from, r, to);
        }
        return {};
      });
  if (!status.ok()) return std::move(status).at(named.name);
  bytes_ += bytes;
  slot = std::move(weight);
  return slot.get();
}

Result<const float*> WeightStore::decoded(const Graph& graph, int32_t constant,
                                          const CancelToken* cancel) {
  if (const auto found = decoded_.find(constant); found != decoded_.end())
    return reinterpret_cast<const float*>(found->second.data());
  const Constant& named = graph.constants[static_cast<size_t>(constant)];
  const ConstantData& data = *named.data;
  const uint64_t bytes = static_cast<uint64_t>(data.rows() * data.columns()) * sizeof(float);
  POME_ASSIGN_OR_RETURN(AlignedBuffer buffer, AlignedBuffer::allocate(bytes, "weights"));
  auto* values = reinterpret_cast<float*>(buffer.data());
  const int64_t step = tile_rows(data);
  for (int64_t row = 0; row < data.rows(); row += step) {
    POME_RETURN_IF_ERROR(check_cancelled(cancel));
    Status status =
        data.read_f32(row, std::min(step, data.rows() - row), values + row * data.columns());
    if (!status.ok()) return std::move(status).at(named.name);
  }
  bytes_ += bytes;
  decoded_.emplace(constant, std::move(buffer));
  return values;
}

Status check_weight_memory(const Graph& graph) {
  uint64_t copied = 0;
  for (const Constant& constant : graph.constants)
    if (!constant.data->view()) copied += constant.data->stored_bytes();
  const uint64_t available = available_memory();
  if (copied <= available) return {};
  return does_not_fit("running this model takes " + std::to_string(copied) +
                      " bytes of memory for weights, " + std::to_string(available) +
                      " are available")
      .hint("close other programs, or convert the model with fewer bits");
}

}  // namespace pome
