#include "export/coreml_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "base/checked.h"
#include "base/thread_pool.h"
#include "tensor/half.h"

namespace pome::coreml {
namespace {

constexpr uint64_t kFlushBytes = 32u << 20;
constexpr int64_t kSmallest =
    10;  // fewer elements than this stand in the model, as coremltools does

mil::Type tensor_type(DType dtype, Dims dims) {
  return {mil::Type::Kind::kTensor, dtype, std::move(dims)};
}

DType index_type(int bits) {
  switch (bits) {
    case 1:
      return DType::kU1;
    case 2:
      return DType::kU2;
    case 3:
      return DType::kU3;
    case 4:
      return DType::kU4;
    case 6:
      return DType::kU6;
    default:
      return DType::kU8;
  }
}

// Shape of the tables of a palette over `dims`, or nothing where groups of rows do not lie within
// one dimension.
std::optional<Dims> table_dims(const Dims& dims, int64_t rows, const Encoding& encoding) {
  Dims out(dims.size(), 1);
  if (encoding.group != rows) {
    if (dims.size() < 2 || dims[dims.size() - 2] % encoding.group != 0) return std::nullopt;
    std::copy(dims.begin(), dims.end() - 2, out.begin());
    out[dims.size() - 2] = dims[dims.size() - 2] / encoding.group;
  }
  out.push_back(int64_t{1} << encoding.bits);
  out.push_back(std::max<int64_t>(encoding.vector, 1));
  return out;
}

DType code_type(const Encoding& encoding) {
  if (encoding.kind == EncodingKind::kF16) return DType::kF16;
  if (encoding.kind == EncodingKind::kInt) return encoding.bits == 4 ? DType::kI4 : DType::kI8;
  return index_type(encoding.bits);
}

// Form and parts of a constant that has them; kDense is left to the caller.
void plan_parts(const Encoding& encoding, int64_t rows, int64_t columns, StoredConstant* out) {
  using Form = StoredConstant::Form;
  const Encoding dense = encoding.dense();
  const bool sparse = encoding.is_sparse();
  Form form = sparse ? Form::kSparse : Form::kDense;
  Dims codes = out->dims, more;
  switch (dense.kind) {
    case EncodingKind::kF16:
      if (!sparse) return;
      break;
    case EncodingKind::kInt:
      if (out->dims.empty()) return;
      form = sparse ? Form::kSparseInt : Form::kInt;
      more = out->dims;
      more.back() = columns / dense.block;
      break;
    case EncodingKind::kVectorLut:
    case EncodingKind::kLut: {
      auto tables = table_dims(out->dims, rows, dense);
      if (!tables) return;
      form = sparse ? Form::kSparseLut : Form::kLut;
      more = std::move(*tables);
      if (dense.kind == EncodingKind::kLut) break;
      if (codes.size() < 2 || codes[codes.size() - 2] % dense.vector != 0) return;
      form = Form::kVectorLut;
      out->vector = dense.vector;
      codes[codes.size() - 2] /= dense.vector;
      break;
    }
    default:
      return;
  }
  out->form = form;
  if (sparse) {
    out->parts.push_back(tensor_type(DType::kU1, out->dims));
    codes = {rows * encoding.keep};
  }
  out->parts.push_back(tensor_type(code_type(dense), std::move(codes)));
  if (!more.empty()) out->parts.push_back(tensor_type(DType::kF16, std::move(more)));
}

bool is_finite_f16(uint16_t bits) { return (bits & 0x7C00u) != 0x7C00u; }

// The index of the first value that is infinite or not a number.
std::optional<size_t> first_not_finite(std::span<const std::byte> halves) {
  for (size_t i = 0; i * 2 + 1 < halves.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, halves.data() + i * 2, 2);
    if (!is_finite_f16(bits)) return i;
  }
  return std::nullopt;
}

Status not_f16(const Constant& constant, const std::string& what) {
  return bad_input(Refusal::kRange, what + " is not a number that fp16 can hold (largest 65504)")
      .at(constant.hf_name.empty() ? constant.name : constant.hf_name)
      .hint("the checkpoint may be damaged, or was trained with activations beyond fp16");
}

uint64_t bytes_of(const mil::Type& type) {
  uint64_t count = 1;
  for (const int64_t dim : type.dims) count *= static_cast<uint64_t>(dim);
  return *storage_bytes(type.dtype, count);
}

}  // namespace

WeightStore::WeightStore(const Graph& graph) : graph_(graph) {}

Result<StoredConstant> WeightStore::plan(int32_t index) const {
  const Constant& constant = graph_.constants[static_cast<size_t>(index)];
  const ConstantData& data = *constant.data;
  const Encoding& encoding = data.encoding();
  StoredConstant out;
  out.dims = data.shape();
  plan_parts(encoding, data.rows(), data.columns(), &out);
  if (out.form != StoredConstant::Form::kDense) return out;
  out.parts = {tensor_type(DType::kF16, out.dims)};
  const int64_t count = data.rows() * data.columns();
  if (count < kSmallest) {
    std::vector<float> values(static_cast<size_t>(count));
    POME_RETURN_IF_ERROR(data.read_f32(0, data.rows(), values.data()));
    const mil::ValueData value = f16_values(out.dims, values);
    out.immediate = std::get<std::vector<std::byte>>(value.data);
    for (size_t i = 0; i < values.size(); ++i) {
      // An infinite scalar is a mask; anything else that fp16 cannot hold is damage.
      const bool mask = out.dims.empty() && std::isinf(values[i]);
      if (!mask && first_not_finite(std::span(out.immediate).subspan(i * 2, 2))) {
        return not_f16(constant, std::to_string(values[i]));
      }
    }
  }
  return out;
}

Result<Val> WeightStore::emit(int32_t index, FunctionBuilder* out) {
  auto found = constants_.find(index);
  if (found == constants_.end()) {
    POME_ASSIGN_OR_RETURN(StoredConstant planned, plan(index));
    found = constants_.emplace(index, std::move(planned)).first;
  }
  const StoredConstant& stored = found->second;
  const std::string name = out->unique(graph_.constants[static_cast<size_t>(index)].name);
  const auto part = [&](size_t i) {
    const uint64_t offset = stored.offsets.empty() ? 0 : stored.offsets[i];
    return mil::ValueData::blob(stored.parts[i], {kWeightFile, offset});
  };
  switch (stored.form) {
    case StoredConstant::Form::kInt:
      return out->op("constexpr_blockwise_shift_scale", name,
                     {{"data", InlineValue{part(0)}}, {"scale", InlineValue{part(1)}}}, DType::kF16,
                     stored.dims);
    case StoredConstant::Form::kLut:
      return out->op("constexpr_lut_to_dense", name,
                     {{"indices", InlineValue{part(0)}}, {"lut", InlineValue{part(1)}}},
                     DType::kF16, stored.dims);
    case StoredConstant::Form::kVectorLut:
      return out->op(
          "constexpr_lut_to_dense", name,
          {{"indices", InlineValue{part(0)}},
           {"lut", InlineValue{part(1)}},
           {"vector_axis",
            InlineValue{mil::ValueData::scalar_i32(static_cast<int32_t>(stored.dims.size()) - 2)}}},
          DType::kF16, stored.dims);
    case StoredConstant::Form::kSparse:
    case StoredConstant::Form::kSparseInt:
    case StoredConstant::Form::kSparseLut: {
      std::vector<InlineValue> parts;
      for (size_t i = 0; i < stored.parts.size(); ++i) parts.push_back({part(i)});
      return emit_sparse(stored, name, parts, out);
    }
    case StoredConstant::Form::kDense:
      break;
  }
  if (!stored.immediate.empty()) return out->constant(name, {stored.parts[0], stored.immediate});
  return out->constant(name, part(0));
}

Val WeightStore::emit_sparse(const StoredConstant& stored, const std::string& name,
                             const std::vector<InlineValue>& parts, FunctionBuilder* out) {
  const auto dense = [&](Operand values, Operand mask) {
    return out->op("constexpr_sparse_to_dense", name,
                   {{"nonzero_data", std::move(values)}, {"mask", std::move(mask)}}, DType::kF16,
                   stored.dims);
  };
  if (stored.form == StoredConstant::Form::kSparse) return dense(parts[1], parts[0]);
  const bool lut = stored.form == StoredConstant::Form::kSparseLut;
  const std::vector<Val> both = out->op(
      lut ? "constexpr_lut_to_sparse" : "constexpr_sparse_blockwise_shift_scale",
      out->unique(name + "_sparse"),
      lut ? Operands{{"indices_mask", parts[0]},
                     {"indices_nonzero_data", parts[1]},
                     {"lut", parts[2]}}
          : Operands{{"data_mask", parts[0]}, {"nonzero_data", parts[1]}, {"scale", parts[2]}},
      {{DType::kU1, stored.dims}, {DType::kF16, stored.parts[1].dims}});
  return dense(both[1], both[0]);
}

mil::ValueData WeightStore::zeros(int64_t n) {
  if (n < kSmallest) return f16_values({n}, std::vector<float>(static_cast<size_t>(n)));
  const uint64_t offset = zeros_.emplace(n, 0).first->second;
  return mil::ValueData::blob(tensor_type(DType::kF16, {n}), {kWeightFile, offset});
}

std::pair<mil::ValueData, mil::ValueData> WeightStore::rope_tables(const RopeKey& key) {
  const auto offsets = ropes_.emplace(key, std::pair<uint64_t, uint64_t>{}).first->second;
  const mil::Type type = tensor_type(DType::kF16, {key.context, key.width});
  return {mil::ValueData::blob(type, {kWeightFile, offsets.first}),
          mil::ValueData::blob(type, {kWeightFile, offsets.second})};
}

std::string WeightStore::rope_name(const RopeKey& key, bool sine) const {
  return graph_.constants[static_cast<size_t>(key.constant)].name + (sine ? ".sin" : ".cos");
}

// What a part is called behind the constant's name.
const char* part_suffix(StoredConstant::Form form, size_t part) {
  using Form = StoredConstant::Form;
  const bool sparse = form >= Form::kSparse;
  if (sparse && part == 0) return ".mask";
  if (part == (sparse ? 1u : 0u)) return "";
  return form == Form::kInt || form == Form::kSparseInt ? ".scale" : ".table";
}

// ---- writing

// Writes constants tile by tile: tiles are read, encoded and digested on all threads, and written
// in order, a few tiles ahead at most.
class WeightStore::Stream {
 public:
  Stream(mil::BlobWriter* file, ThreadPool* pool, const WorkContext& work)
      : file_(file), pool_(pool), work_(work), slots_(static_cast<size_t>(2 * pool->threads())) {}

  Result<Digest> constant(const Constant& constant, StoredConstant* stored) {
    const ConstantData& data = *constant.data;
    POME_RETURN_IF_ERROR(reserve(stored));
    const int64_t step = tile_rows(data);
    DigestBuilder digest(data);
    POME_RETURN_IF_ERROR(pool_->ordered(
        ceil_div(data.rows(), step), static_cast<int64_t>(slots_.size()),
        [&](int64_t tile, int64_t slot) {
          return produce(constant, *stored, tile * step, std::min(step, data.rows() - tile * step),
                         &slots_[static_cast<size_t>(slot)]);
        },
        [&](int64_t, int64_t slot) {
          return consume(data, *stored, slots_[static_cast<size_t>(slot)], &digest);
        }));
    return digest.finish();
  }

  Status advance(uint64_t bytes) {
    done_ += bytes;
    since_flush_ += bytes;
    if (work_.progress) work_.progress->advance(done_);
    if (since_flush_ >= kFlushBytes) {
      since_flush_ = 0;
      POME_RETURN_IF_ERROR(file_->output().flush_behind());
    }
    return check_cancelled(work_.cancel);
  }

 private:
  struct Slot {
    EncodedTile tile;
    std::vector<float> floats;
    std::vector<uint16_t> halves;
    std::vector<std::span<const std::byte>> out;  // one per part, as it goes to the file
    Digest digest;
  };

  // The small part first: what follows it is written front to back, so that flushing keeps up.
  Status reserve(StoredConstant* stored) {
    if (!stored->immediate.empty()) return {};
    stored->offsets.resize(stored->parts.size());
    for (size_t i = stored->parts.size(); i-- > 0;) {
      uint64_t count = 1;
      for (const int64_t dim : stored->parts[i].dims) count *= static_cast<uint64_t>(dim);
      POME_ASSIGN_OR_RETURN(stored->offsets[i], file_->reserve(stored->parts[i].dtype, count));
    }
    return {};
  }

  Status produce(const Constant& constant, const StoredConstant& stored, int64_t row, int64_t rows,
                 Slot* slot) const {
    POME_RETURN_IF_ERROR(check_cancelled(work_.cancel));
    const ConstantData& data = *constant.data;
    POME_RETURN_IF_ERROR(data.read_tile(row, rows, &slot->tile));
    slot->digest = DigestBuilder::of_tile(slot->tile);
    const bool as_is =
        stored.form != StoredConstant::Form::kDense || data.encoding().kind == EncodingKind::kF16;
    if (as_is) {
      slot->out = slot->tile.parts;
    } else {
      const size_t count = static_cast<size_t>(rows * data.columns());
      slot->floats.resize(count);
      slot->halves.resize(count);
      POME_RETURN_IF_ERROR(decode_rows(data.encoding(), rows, data.columns(), slot->tile.parts,
                                       slot->floats.data()));
      f32_to_f16(std::span<const float>(slot->floats), std::span<uint16_t>(slot->halves));
      slot->out.assign(1, std::as_bytes(std::span(slot->halves)));
    }
    if (!stored.immediate.empty()) return {};  // checked when it was planned
    const auto bad = first_not_finite(slot->out.back());
    if (!bad) return {};
    if (stored.form != StoredConstant::Form::kDense) {
      return not_f16(constant, "a scale or table entry of rows " + std::to_string(row) + " to " +
                                   std::to_string(row + rows));
    }
    const int64_t at = row * data.columns() + static_cast<int64_t>(*bad);
    return not_f16(constant, "the weight at [" + std::to_string(at / data.columns()) + ", " +
                                 std::to_string(at % data.columns()) + "]");
  }

  Status consume(const ConstantData& data, const StoredConstant& stored, const Slot& slot,
                 DigestBuilder* digest) {
    digest->add(slot.digest);
    uint64_t written = 0;
    for (size_t i = 0; i < stored.offsets.size(); ++i) {
      // Tiles start on whole bytes of every part (row_granularity), so bytes grow with the rows.
      const uint64_t whole = bytes_of(stored.parts[i]);
      const uint64_t first = part_offset(data, stored, i, slot.tile.row);
      POME_CHECK(span_fits(first, slot.out[i].size(), whole));
      POME_RETURN_IF_ERROR(file_->write_at(stored.offsets[i] + 64 + first, slot.out[i]));
      written += slot.out[i].size();
    }
    return advance(written);
  }

  // Tiles start on whole bytes of every part, so what is before one is the layout of its rows.
  static uint64_t part_offset(const ConstantData& data, const StoredConstant& stored, size_t part,
                              int64_t row) {
    const Encoding stored_as = stored.form == StoredConstant::Form::kDense
                                   ? Encoding::plain(EncodingKind::kF16)
                                   : data.encoding();
    const auto before = encoded_layout(stored_as, row, data.columns());
    POME_CHECK(before.ok());
    return before->part_bytes[part];
  }

  mil::BlobWriter* file_;
  ThreadPool* pool_;
  const WorkContext& work_;
  std::vector<Slot> slots_;
  uint64_t done_ = 0, since_flush_ = 0;
};

// Row p, pair i turns by the angle a = p f_i. The result of a rotation is x cos + swap(x) sin,
// where swap exchanges the two members of each pair: the first gets -sin a, the second +sin a.
// Columns behind rotary_dim pass through (cos 1, sin 0).
Status WeightStore::write_rope(const RopeKey& key, mil::BlobWriter* file) {
  const ConstantData& data = *graph_.constants[static_cast<size_t>(key.constant)].data;
  const int64_t half = key.rotary_dim / 2;
  POME_CHECK(data.rows() * data.columns() == half);
  std::vector<float> frequencies(static_cast<size_t>(half));
  POME_RETURN_IF_ERROR(data.read_f32(0, data.rows(), frequencies.data()));
  auto& [cos_offset, sin_offset] = ropes_[key];
  const uint64_t count = static_cast<uint64_t>(key.context * key.width);
  POME_ASSIGN_OR_RETURN(cos_offset, file->reserve(DType::kF16, count));
  POME_ASSIGN_OR_RETURN(sin_offset, file->reserve(DType::kF16, count));
  constexpr int64_t kRows = 256;
  const size_t width = static_cast<size_t>(key.width);
  for (int64_t begin = 0; begin < key.context; begin += kRows) {
    const int64_t rows = std::min(kRows, key.context - begin);
    std::vector<float> cosine(static_cast<size_t>(rows) * width, 1.0f);
    std::vector<float> sine(static_cast<size_t>(rows) * width, 0.0f);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(begin + r) *
                             static_cast<double>(frequencies[static_cast<size_t>(i)]);
        const float c = static_cast<float>(std::cos(angle) * key.scale);
        const float s = static_cast<float>(std::sin(angle) * key.scale);
        const bool halves = key.style == RopeStyle::kHalves;
        const size_t row = static_cast<size_t>(r) * width;
        const size_t first = row + static_cast<size_t>(halves ? i : 2 * i);
        const size_t second = row + static_cast<size_t>(halves ? i + half : 2 * i + 1);
        cosine[first] = cosine[second] = c;
        sine[first] = -s;
        sine[second] = s;
      }
    }
    const uint64_t at = 64 + static_cast<uint64_t>(begin * key.width) * 2;
    for (const auto& [offset, values] :
         {std::pair(cos_offset, &cosine), std::pair(sin_offset, &sine)}) {
      std::vector<uint16_t> halves(values->size());
      f32_to_f16(std::span<const float>(*values), std::span<uint16_t>(halves));
      POME_RETURN_IF_ERROR(file->write_at(offset + at, std::as_bytes(std::span(halves))));
    }
  }
  return {};
}

Status WeightStore::write(const std::string& path, const WorkContext& work, ExportReport* report) {
  ThreadPool pool(std::max(1, work.threads));
  POME_ASSIGN_OR_RETURN(std::unique_ptr<mil::BlobWriter> file, mil::BlobWriter::create(path));
  uint64_t total = 0;
  for (size_t i = 0; i < graph_.constants.size(); ++i) {
    const auto stored = constants_.find(static_cast<int32_t>(i));
    if (stored != constants_.end() && stored->second.immediate.empty()) {
      for (const mil::Type& part : stored->second.parts) total += bytes_of(part);
    }
    const ConstantData& data = *graph_.constants[i].data;
    if (&data.canonical() != &data) total += data.canonical().stored_bytes();
  }
  if (work.progress) work.progress->begin("write weights", total, "bytes");
  Stream stream(file.get(), &pool, work);
  std::vector<Digest> digests, canonical;
  uint64_t stored_bytes = 0;
  for (size_t i = 0; i < graph_.constants.size(); ++i) {
    const Constant& constant = graph_.constants[i];
    const ConstantData& data = *constant.data;
    const auto stored = constants_.find(static_cast<int32_t>(i));
    auto digest = stored == constants_.end() ? digest_of(data, &pool)
                                             : stream.constant(constant, &stored->second);
    if (!digest.ok()) return std::move(digest).status().at(constant.name);
    digests.push_back(*digest);
    canonical.push_back(*digest);
    if (&data.canonical() != &data) {
      POME_ASSIGN_OR_RETURN(canonical.back(), digest_of(data.canonical(), &pool));
      POME_RETURN_IF_ERROR(stream.advance(data.canonical().stored_bytes()));
    }
    if (stored == constants_.end() || !is_parameter(constant)) continue;
    report->parameters += data.rows() * data.columns();
    for (size_t part = 0; part < stored->second.parts.size(); ++part) {
      const uint64_t size = bytes_of(stored->second.parts[part]);
      stored_bytes += size;
      if (stored->second.offsets.empty()) continue;
      report->tensors.push_back({constant.name + part_suffix(stored->second.form, part),
                                 stored->second.offsets[part] + 64, size});
    }
  }
  for (const auto& entry : ropes_) POME_RETURN_IF_ERROR(write_rope(entry.first, file.get()));
  for (auto& [n, offset] : zeros_) {
    POME_ASSIGN_OR_RETURN(offset, file->begin(DType::kF16, static_cast<uint64_t>(n)));
    POME_RETURN_IF_ERROR(file->write(std::vector<std::byte>(static_cast<size_t>(n) * 2)));
    POME_RETURN_IF_ERROR(file->end());
  }
  report->weight_bytes = file->size();
  if (report->parameters > 0) {
    report->bits_per_weight =
        static_cast<double>(stored_bytes) * 8 / static_cast<double>(report->parameters);
  }
  report->hashes.graph_hash = structure_hash(graph_, digests, false);
  report->hashes.source_hash = structure_hash(graph_, canonical, true);
  POME_RETURN_IF_ERROR(file->finish());
  if (work.progress) work.progress->end();
  return {};
}

}  // namespace pome::coreml
