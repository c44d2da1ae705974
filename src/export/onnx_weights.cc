#include "export/onnx_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "base/checked.h"
#include "base/io.h"
#include "base/thread_pool.h"
#include "encoding/affine_blocks.h"
#include "export/onnx.h"
#include "export/rounding.h"
#include "tensor/half.h"

namespace pome::onnx_export {
namespace {

using onnx::External;
using onnx::TensorData;

constexpr uint64_t kFlushBytes = 32u << 20;
constexpr uint64_t kInlineBytes = 1024;  // fewer bytes than this stand in the model itself
constexpr uint64_t kPage = 4096;         // what is at least that long can be mapped on its own

uint64_t bytes_of(DType dtype, const Shape& dims) {
  const auto count = element_count(dims);
  POME_CHECK(count.has_value());
  return storage_bytes(dtype, static_cast<uint64_t>(*count)).value();
}

bool is_int(const Encoding& encoding) { return encoding.kind == EncodingKind::kInt; }

Status not_finite(const Constant& constant, int64_t at, int64_t columns) {
  return bad_input(Refusal::kRange, "the weight at [" + std::to_string(at / columns) + ", " +
                                        std::to_string(at % columns) + "] is not a finite number")
      .at(constant.hf_name.empty() ? constant.name : constant.hf_name)
      .hint("the checkpoint may be damaged");
}

}  // namespace

// ---- planning

const ConstantData& WeightStore::data(int32_t constant) const {
  return *graph_.constants[static_cast<size_t>(constant)].data;
}

// Columns that share a scale in kRows: the encoding's own where the operators take it, else the
// largest power of two that divides it, which repeats scales. 0: none.
int64_t WeightStore::row_block(int32_t constant) const {
  const Encoding& encoding = data(constant).encoding();
  if (is_affine4(encoding.kind)) return kAffineGroup;
  if (!is_int(encoding)) return 0;
  for (int64_t block = 256; block >= 16; block /= 2)
    if (encoding.block % block == 0) return block;
  return 0;
}

bool WeightStore::can_store(int32_t constant, Form form) const {
  const ConstantData& from = data(constant);
  if (form == Form::kDense) return true;
  if (is_affine4(from.encoding().kind)) return form == Form::kRows && from.shape().size() == 2;
  if (!is_int(from.encoding()) || from.shape().size() < 2) return false;
  if (form == Form::kRows) return row_block(constant) > 0;
  // Nibbles of one matrix end on a whole byte.
  const int64_t n = from.shape()[from.shape().size() - 2];
  return from.encoding().bits == 8 || n % 2 == 0;
}

void WeightStore::declare(const std::string& name, DType dtype, Shape dims) {
  TensorData tensor;
  tensor.name = name;
  tensor.dtype = dtype;
  const uint64_t length = bytes_of(dtype, dims);
  tensor.dims = std::move(dims);
  tensor.external = External{kOnnxData, 0, length};
  out_->initializer(std::move(tensor));
}

const Stored& WeightStore::request(int32_t index, Form form) {
  const auto [entry, fresh] = items_.try_emplace({index, form});
  Item& item = entry->second;
  if (!fresh) return item.stored;
  item.constant = index;
  item.form = form;
  POME_CHECK(can_store(index, form));
  const ConstantData& from = data(index);
  const Encoding& encoding = from.encoding();
  const std::string& name = graph_.constants[static_cast<size_t>(index)].name;
  Stored& stored = item.stored;
  if (form == Form::kRows) {
    declare_rows(index, name, 1, &stored);
    return stored;
  }
  const std::string base = out_->unique(name + (form == Form::kColumns ? ".T.codes" : ""));
  stored.codes = base;
  Shape dims = from.shape();
  if (form == Form::kDense) {
    stored.dtype = encoding.kind == EncodingKind::kF16 ? DType::kF16 : DType::kF32;
    declare(base, stored.dtype, std::move(dims));
    return stored;
  }
  const size_t rank = dims.size();
  const std::string stem = base.substr(0, base.rfind('.'));
  stored.scale = out_->unique(stem + ".scale");
  stored.bits = encoding.bits;
  stored.dtype = encoding.bits == 4 ? DType::kI4 : DType::kI8;
  stored.block = encoding.block;
  std::swap(dims[rank - 2], dims[rank - 1]);
  Shape scales = dims;
  scales[rank - 2] = from.columns() / encoding.block;
  if (rank == 2 && scales[0] == 1) scales = {scales[1]};
  declare(stored.scale, DType::kF32, std::move(scales));
  declare(base, stored.dtype, std::move(dims));
  return stored;
}

// Codes and scales by rows; `turns` constants of this shape share them.
void WeightStore::declare_rows(int32_t index, const std::string& stem, int64_t turns,
                               Stored* stored) {
  const ConstantData& from = data(index);
  const bool affine = is_affine4(from.encoding().kind);
  const int64_t bits = affine ? 4 : from.encoding().bits;
  stored->bits = bits;
  stored->codes = out_->unique(stem + (bits == 4 ? ".q4" : ".q8"));
  stored->scale = out_->unique(stem + ".scale");
  stored->dtype = DType::kU8;
  stored->block = row_block(index);
  Shape dims = from.shape();
  dims[dims.size() - 2] *= turns;
  dims.back() = from.columns() / stored->block;
  declare(stored->scale, DType::kF32, dims);
  if (affine) {
    stored->minima = out_->unique(stem + ".min");
    declare(stored->minima, DType::kF32, dims);
    stored->zeros = out_->unique(stem + ".zeros");
    declare(stored->zeros, DType::kU8, {dims[0], ceil_div(dims[1], int64_t{2})});
  }
  dims.back() = from.columns() * bits / 8;
  declare(stored->codes, DType::kU8, std::move(dims));
}

const Stored& WeightStore::request_turns(int32_t first, int32_t second) {
  const auto [entry, fresh] = items_.try_emplace({first, Form::kTurns});
  Item& item = entry->second;
  if (!fresh) return item.stored;
  POME_CHECK(can_store(first, Form::kRows) && data(first).shape() == data(second).shape() &&
             data(first).encoding() == data(second).encoding());
  item.constant = first;
  item.form = Form::kTurns;
  declare_rows(first,
               graph_.constants[static_cast<size_t>(first)].name + "|" +
                   graph_.constants[static_cast<size_t>(second)].name,
               2, &item.stored);
  items_[{second, Form::kTurns}] = {second, Form::kTurns, true, item.stored};
  return item.stored;
}

Val WeightStore::view_of(const Stored& stored, const std::string& suffix, Shape dims) {
  const std::string name = stored.codes + suffix;
  const auto [entry, fresh] = views_.try_emplace(name, stored.codes);
  if (fresh) declare(name, stored.dtype, std::move(dims));
  return name;
}

std::pair<Val, Val> WeightStore::rope_tables(int32_t constant, int64_t context, double scale) {
  for (const RopeTable& table : ropes_)
    if (table.constant == constant && table.context == context && table.scale == scale)
      return {table.cosine, table.sine};
  const std::string& name = graph_.constants[static_cast<size_t>(constant)].name;
  RopeTable table{out_->unique(name + ".cos"), out_->unique(name + ".sin"), constant, context,
                  scale};
  const int64_t half = data(constant).rows() * data(constant).columns();
  for (const std::string& part : {table.cosine, table.sine})
    declare(part, DType::kF32, {context, half});
  ropes_.push_back(table);
  return {table.cosine, table.sine};
}

// ---- writing

// Writes constants tile by tile: tiles are read, encoded and digested on all threads, and consumed
// in order, a few tiles ahead at most. A transposed matrix gathers in memory, as codes.
class WeightStore::Stream {
 public:
  Stream(io::OutputFile* file, onnx::Graph* graph, const std::map<std::string, std::string>& views,
         ThreadPool* pool, const WorkContext& work)
      : file_(file),
        views_(views),
        pool_(pool),
        work_(work),
        slots_(static_cast<size_t>(2 * pool->threads())) {
    for (TensorData& tensor : graph->initializers)
      if (tensor.external) wanted_[tensor.name] = &tensor;
  }

  bool wants(const std::string& name) const { return wanted_.count(name) > 0; }
  // The name under which the bytes of an initializer are wanted: its own or that of a view; empty
  // when nobody wants them.
  std::string alive(const std::string& name) const {
    if (wants(name)) return name;
    for (const auto& [view, of] : views_)
      if (of == name && wants(view)) return view;
    return {};
  }

  Result<Digest> constant(const Constant& constant, const std::vector<const Item*>& items) {
    const ConstantData& data = *constant.data;
    std::vector<Sink> sinks;
    for (const Item* item : items) {
      if (!alive(item->stored.codes).empty()) sinks.push_back(open(data, *item));
    }
    for (Slot& slot : slots_) slot.parts.resize(sinks.size());
    const int64_t step = tile_rows(data);
    DigestBuilder digest(data);
    error_ = {};
    POME_RETURN_IF_ERROR(pool_->ordered(
        ceil_div(data.rows(), step), static_cast<int64_t>(slots_.size()),
        [&](int64_t tile, int64_t slot) {
          return produce(constant, sinks, tile * step, std::min(step, data.rows() - tile * step),
                         &slots_[static_cast<size_t>(slot)]);
        },
        [&](int64_t, int64_t slot) {
          return consume(data, sinks, slots_[static_cast<size_t>(slot)], &digest);
        }));
    return digest.finish();
  }

  // Room for a tensor; inline tensors get their bytes in the model.
  Place reserve(const std::string& name) {
    const auto found = wanted_.find(name);
    if (found == wanted_.end()) return {UINT64_MAX, 0};
    const auto [entry, fresh] = places_.try_emplace(name);
    if (fresh) entry->second = place(found);
    return entry->second;
  }
  // Another name for bytes that have their place.
  void share(const std::string& name, const std::string& with) {
    const auto view = wanted_.find(name), from = wanted_.find(alive(with));
    if (view == wanted_.end() || view == from) return;
    POME_CHECK(from != wanted_.end());
    view->second->external = from->second->external;
    view->second->raw = from->second->raw;
  }

  Status write(const std::string& name, const Place& place, uint64_t at,
               std::span<const std::byte> bytes) {
    if (place.offset != UINT64_MAX) {
      POME_CHECK(span_fits(at, bytes.size(), place.length));
      POME_RETURN_IF_ERROR(file_->write_at(place.offset + at, bytes));
    } else if (const auto found = wanted_.find(name); found != wanted_.end()) {
      std::vector<std::byte>& raw = found->second->raw;
      POME_CHECK(span_fits(at, bytes.size(), raw.size()));
      std::copy(bytes.begin(), bytes.end(), raw.begin() + static_cast<ptrdiff_t>(at));
    }
    return advance(bytes.size());
  }

  Status advance(uint64_t bytes) {
    done_ += bytes;
    since_flush_ += bytes;
    if (work_.progress) work_.progress->advance(done_);
    if (since_flush_ >= kFlushBytes) {
      since_flush_ = 0;
      POME_RETURN_IF_ERROR(file_->flush_behind());
    }
    return check_cancelled(work_.cancel);
  }
  uint64_t end() const { return end_; }
  const RoundingError& error() const { return error_; }  // of the last constant

 private:
  Place place(std::map<std::string, TensorData*>::iterator found) {
    TensorData& tensor = *found->second;
    const uint64_t length = tensor.external->length;
    if (length < kInlineBytes) {
      tensor.external.reset();
      tensor.raw.resize(static_cast<size_t>(length));
      return {UINT64_MAX, length};
    }
    const uint64_t alignment = length >= kPage ? kPage : 64;
    end_ = (end_ + alignment - 1) / alignment * alignment;
    tensor.external->offset = end_;
    end_ += length;
    return {tensor.external->offset, length};
  }

  struct Sink {
    const Item* item = nullptr;
    std::string name;  // of the initializer that holds the codes
    Place codes, scale, minima, zeros;
    std::vector<std::byte> matrix;  // kColumns: the codes of one matrix, transposed
    std::vector<float> scales;
  };
  struct Part {
    std::vector<std::byte> codes;
    std::vector<float> floats, scales, minima;
  };
  struct Slot {
    EncodedTile tile;
    std::vector<Part> parts;  // one per sink
    Digest digest;
    RoundingScratch scratch;
    RoundingError error;
  };

  Sink open(const ConstantData& data, const Item& item) {
    Sink sink;
    sink.item = &item;
    sink.name = alive(item.stored.codes);
    if (item.form != Form::kDense) sink.scale = reserve(item.stored.scale);
    if (!item.stored.minima.empty()) {
      sink.minima = reserve(item.stored.minima);
      sink.zeros = reserve(item.stored.zeros);
    }
    sink.codes = reserve(sink.name);
    if (item.form == Form::kColumns) {
      const int64_t n = data.shape()[data.shape().size() - 2];
      const uint64_t count = static_cast<uint64_t>(n * data.columns());
      sink.matrix.resize(
          static_cast<size_t>(count * static_cast<uint64_t>(data.encoding().bits) / 8));
      sink.scales.resize(static_cast<size_t>(n * (data.columns() / data.encoding().block)));
    }
    return sink;
  }

  Status produce(const Constant& constant, const std::vector<Sink>& sinks, int64_t row,
                 int64_t rows, Slot* slot) const {
    POME_RETURN_IF_ERROR(check_cancelled(work_.cancel));
    const ConstantData& data = *constant.data;
    POME_RETURN_IF_ERROR(data.read_tile(row, rows, &slot->tile));
    slot->digest = DigestBuilder::of_tile(slot->tile);
    POME_ASSIGN_OR_RETURN(slot->error, rounding_error(data, 1, slot->tile, &slot->scratch));
    for (size_t i = 0; i < sinks.size(); ++i) {
      Part& part = slot->parts[i];
      const Stored& stored = sinks[i].item->stored;
      if (sinks[i].item->form == Form::kDense) {
        POME_RETURN_IF_ERROR(dense(constant, stored, row, rows, *slot, &part));
      } else if (!stored.minima.empty()) {
        POME_RETURN_IF_ERROR(affine(constant, row, *slot, &part));
      } else {
        integers(data.encoding(), sinks[i].item->form, stored, *slot, &part);
      }
    }
    return {};
  }

  static Status dense(const Constant& constant, const Stored& stored, int64_t row, int64_t rows,
                      const Slot& slot, Part* part) {
    const ConstantData& data = *constant.data;
    part->floats.resize(static_cast<size_t>(rows * data.columns()));
    POME_RETURN_IF_ERROR(
        decode_rows(data.encoding(), rows, data.columns(), slot.tile.parts, part->floats.data()));
    // A scalar is a mask or a count of the builder's own.
    const auto bad = std::find_if(part->floats.begin(), part->floats.end(),
                                  [](float v) { return !std::isfinite(v); });
    if (bad != part->floats.end() && !data.shape().empty())
      return not_finite(constant, row * data.columns() + (bad - part->floats.begin()),
                        data.columns());
    const std::span<const std::byte> bytes =
        stored.dtype == DType::kF16 ? slot.tile.parts[0] : std::as_bytes(std::span(part->floats));
    part->codes.assign(bytes.begin(), bytes.end());
    return {};
  }

  static Status affine(const Constant& constant, int64_t row, const Slot& slot, Part* part) {
    const std::span<const std::byte> bytes = slot.tile.parts[0];
    const EncodingTraits& type = traits(constant.data->encoding().kind);
    const size_t blocks = bytes.size() / static_cast<size_t>(type.block_bytes);
    const size_t count = blocks * static_cast<size_t>(type.block_elements);
    part->codes.resize(count / 2);
    part->scales.resize(count / kAffineGroup);
    part->minima.resize(part->scales.size());
    split_affine4(type.kind, bytes.data(), static_cast<int64_t>(blocks),
                  reinterpret_cast<uint8_t*>(part->codes.data()), part->scales.data(),
                  part->minima.data());
    for (size_t i = 0; i < part->scales.size(); ++i)
      if (!std::isfinite(part->scales[i]) || !std::isfinite(part->minima[i])) {
        const int64_t columns = constant.data->columns();
        return not_finite(constant, row * columns + static_cast<int64_t>(i) * kAffineGroup,
                          columns);
      }
    return {};
  }

  static void integers(const Encoding& encoding, Form form, const Stored& stored, const Slot& slot,
                       Part* part) {
    const auto codes = slot.tile.parts[0];
    part->codes.assign(codes.begin(), codes.end());
    // Two's complement + 8 or + 128, as unsigned numbers.
    if (form != Form::kColumns) {
      const std::byte flip{static_cast<uint8_t>(encoding.bits == 4 ? 0x88 : 0x80)};
      for (std::byte& code : part->codes) code ^= flip;
    }
    const size_t count = slot.tile.parts[1].size() / 2;
    const auto* halves = reinterpret_cast<const uint16_t*>(slot.tile.parts[1].data());
    const size_t repeat = static_cast<size_t>(encoding.block / stored.block);
    part->scales.resize(count * repeat);
    for (size_t i = 0; i < count; ++i)
      std::fill_n(part->scales.begin() + static_cast<ptrdiff_t>(i * repeat), repeat,
                  f16_to_f32(halves[i]));
  }

  Status consume(const ConstantData& data, std::vector<Sink>& sinks, const Slot& slot,
                 DigestBuilder* digest) {
    digest->add(slot.digest);
    error_.add(slot.error);
    for (size_t i = 0; i < sinks.size(); ++i) {
      Sink& sink = sinks[i];
      const Part& part = slot.parts[i];
      if (sink.item->form == Form::kColumns) {
        POME_RETURN_IF_ERROR(transpose(data, sink, part, slot.tile.row, slot.tile.rows));
        continue;
      }
      if (sink.item->form == Form::kTurns) {
        POME_RETURN_IF_ERROR(take_turns(sink, part, slot.tile.row, slot.tile.rows));
        continue;
      }
      const Stored& stored = sink.item->stored;
      const uint64_t first = static_cast<uint64_t>(slot.tile.row);
      const uint64_t rows = static_cast<uint64_t>(slot.tile.rows);
      POME_RETURN_IF_ERROR(
          write(sink.name, sink.codes, first * (part.codes.size() / rows), part.codes));
      if (sink.item->form == Form::kDense) continue;
      const uint64_t scales = static_cast<uint64_t>(data.columns() / stored.block) * 4;
      POME_RETURN_IF_ERROR(
          write(stored.scale, sink.scale, first * scales, std::as_bytes(std::span(part.scales))));
      if (stored.minima.empty()) continue;
      POME_RETURN_IF_ERROR(
          write(stored.minima, sink.minima, first * scales, std::as_bytes(std::span(part.minima))));
      const uint64_t width = ceil_div(scales / 4, uint64_t{2});
      POME_RETURN_IF_ERROR(write(stored.zeros, sink.zeros, first * width,
                                 std::vector<std::byte>(static_cast<size_t>(rows * width))));
    }
    return {};
  }

  Status take_turns(const Sink& sink, const Part& part, int64_t row, int64_t rows) {
    const std::span<const std::byte> scales = std::as_bytes(std::span(part.scales));
    const size_t count = static_cast<size_t>(rows), width = part.codes.size() / count,
                 scale_width = scales.size() / count;
    for (size_t r = 0; r < count; ++r) {
      const uint64_t to = 2 * (static_cast<uint64_t>(row) + r) + (sink.item->second ? 1 : 0);
      POME_RETURN_IF_ERROR(write(sink.name, sink.codes, to * width,
                                 std::span(part.codes).subspan(r * width, width)));
      POME_RETURN_IF_ERROR(write(sink.item->stored.scale, sink.scale, to * scale_width,
                                 scales.subspan(r * scale_width, scale_width)));
    }
    return {};
  }

  Status transpose(const ConstantData& data, Sink& sink, const Part& part, int64_t row,
                   int64_t rows) {
    const int64_t n = data.shape()[data.shape().size() - 2], k = data.columns();
    const int64_t blocks = k / data.encoding().block;
    const bool nibbles = data.encoding().bits == 4;
    const auto* codes = reinterpret_cast<const uint8_t*>(part.codes.data());
    auto* matrix = reinterpret_cast<uint8_t*>(sink.matrix.data());
    for (int64_t done = 0; done < rows;) {
      const int64_t first = (row + done) % n, some = std::min(rows - done, n - first);
      if (first == 0) std::fill(sink.matrix.begin(), sink.matrix.end(), std::byte{0});
      for (int64_t c = 0; c < k; ++c) {
        for (int64_t r = 0; r < some; ++r) {
          const int64_t from = (done + r) * k + c, to = c * n + first + r;
          if (nibbles) {
            const int code = codes[from / 2] >> (from % 2 * 4) & 15;
            matrix[to / 2] = static_cast<uint8_t>(matrix[to / 2] | code << (to % 2 * 4));
          } else {
            matrix[to] = codes[from];
          }
        }
      }
      for (int64_t b = 0; b < blocks; ++b)
        for (int64_t r = 0; r < some; ++r)
          sink.scales[static_cast<size_t>(b * n + first + r)] =
              part.scales[static_cast<size_t>((done + r) * blocks + b)];
      done += some;
      if (first + some < n) continue;
      const uint64_t which = static_cast<uint64_t>((row + done - 1) / n);
      const Stored& stored = sink.item->stored;
      POME_RETURN_IF_ERROR(write(sink.name, sink.codes, which * sink.matrix.size(), sink.matrix));
      POME_RETURN_IF_ERROR(write(stored.scale, sink.scale, which * sink.scales.size() * 4,
                                 std::as_bytes(std::span(sink.scales))));
    }
    return {};
  }

  io::OutputFile* file_;
  const std::map<std::string, std::string>& views_;
  ThreadPool* pool_;
  const WorkContext& work_;
  std::map<std::string, TensorData*> wanted_;
  std::vector<Slot> slots_;
  std::map<std::string, Place> places_;
  uint64_t end_ = 0, done_ = 0, since_flush_ = 0;
  RoundingError error_;  // of the constant that is streamed
};

Status WeightStore::write_rope(const RopeTable& table, Stream* stream) const {
  const ConstantData& from = data(table.constant);
  const int64_t half = from.rows() * from.columns();
  std::vector<float> frequencies(static_cast<size_t>(half));
  POME_RETURN_IF_ERROR(from.read_f32(0, from.rows(), frequencies.data()));
  const Place cos_place = stream->reserve(table.cosine), sin_place = stream->reserve(table.sine);
  std::vector<float> cosine(frequencies.size()), sine(frequencies.size());
  for (int64_t p = 0; p < table.context; ++p) {
    for (size_t i = 0; i < frequencies.size(); ++i) {
      // As the graph computes it: the angle is a product in binary32.
      const float angle = static_cast<float>(p) * frequencies[i];
      cosine[i] = static_cast<float>(std::cos(static_cast<double>(angle)) * table.scale);
      sine[i] = static_cast<float>(std::sin(static_cast<double>(angle)) * table.scale);
    }
    const uint64_t at = static_cast<uint64_t>(p * half) * 4;
    POME_RETURN_IF_ERROR(
        stream->write(table.cosine, cos_place, at, std::as_bytes(std::span(cosine))));
    POME_RETURN_IF_ERROR(stream->write(table.sine, sin_place, at, std::as_bytes(std::span(sine))));
  }
  return {};
}

Status WeightStore::write(const std::string& path, onnx::Graph* graph, const WorkContext& work,
                          ExportReport* report, std::vector<TensorError>* errors) {
  ThreadPool pool(std::max(1, work.threads));
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<io::OutputFile> file, io::OutputFile::create(path));
  uint64_t total = 0;
  for (const TensorData& tensor : graph->initializers)
    if (tensor.external && views_.count(tensor.name) == 0) total += tensor.external->length;
  for (const Constant& constant : graph_.constants)
    if (&constant.data->canonical() != constant.data.get())
      total += constant.data->canonical().stored_bytes();
  if (work.progress) work.progress->begin("write weights", total, "bytes");
  Stream stream(file.get(), graph, views_, &pool, work);
  std::vector<Digest> digests, canonical;
  uint64_t stored_bytes = 0;
  std::map<std::string, const TensorData*> written;
  for (const TensorData& tensor : graph->initializers) written[tensor.name] = &tensor;
  for (size_t i = 0; i < graph_.constants.size(); ++i) {
    const Constant& constant = graph_.constants[i];
    const ConstantData& from = *constant.data;
    std::vector<const Item*> items;
    for (const auto& [key, item] : items_)
      if (key.first == static_cast<int32_t>(i)) items.push_back(&item);
    auto digest = stream.constant(constant, items);
    if (!digest.ok()) return std::move(digest).status().at(constant.name);
    digests.push_back(*digest);
    canonical.push_back(*digest);
    if (&from.canonical() != &from) {
      POME_ASSIGN_OR_RETURN(canonical.back(), digest_of(from.canonical(), &pool));
      POME_RETURN_IF_ERROR(stream.advance(from.canonical().stored_bytes()));
    }
    if (!is_parameter(constant)) continue;
    report->parameters += from.rows() * from.columns();
    const uint64_t before = stored_bytes;
    for (const Item* item : items)
      for (const std::string& name : {item->stored.scale, stream.alive(item->stored.codes),
                                      item->stored.minima, item->stored.zeros}) {
        const auto found = written.find(name);
        if (name.empty() || item->second || found == written.end()) continue;
        const TensorData& tensor = *found->second;
        const uint64_t size = bytes_of(tensor.dtype, tensor.dims);
        stored_bytes += size;
        if (tensor.external) report->tensors.push_back({name, tensor.external->offset, size});
      }
    errors->push_back({constant.name, to_string(from.encoding()), stored_bytes - before,
                       stream.error().relative()});
  }
  for (const RopeTable& table : ropes_)
    if (stream.wants(table.cosine)) POME_RETURN_IF_ERROR(write_rope(table, &stream));
  for (const auto& [view, of] : views_) stream.share(view, of);
  report->weight_bytes = stream.end();
  if (report->parameters > 0) {
    report->bits_per_weight =
        static_cast<double>(stored_bytes) * 8 / static_cast<double>(report->parameters);
  }
  report->hashes.graph_hash = structure_hash(graph_, digests, false);
  report->hashes.source_hash = structure_hash(graph_, canonical, true);
  POME_RETURN_IF_ERROR(file->close());
  if (work.progress) work.progress->end();
  return {};
}

}  // namespace pome::onnx_export
