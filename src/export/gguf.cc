#include "export/gguf.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "base/checked.h"
#include "base/thread_pool.h"
#include "formats/manifest.h"

namespace pome {

namespace {

constexpr uint64_t kFlushBytes = 64 << 20;
constexpr const char* kNoHash = "0000000000000000000000000000000000000000000000000000000000000000";

// One tensor of the file: constants below each other.
struct Planned {
  std::string name;
  Shape shape;
  EncodingKind encoding = EncodingKind::kF32;
  std::vector<size_t> constants;  // by first row
};

Status refuse(const Planned& tensor, const std::string& why) {
  return unsupported("the parts of " + tensor.name + " " + why).at("tensor " + tensor.name);
}

// Parts of fused tensors are next to each other in no particular order, and all there.
Status settle(const Graph& graph, Planned* tensor) {
  const auto place = [&](size_t i) -> const GgufPlace& { return graph.constants[i].gguf_place; };
  std::sort(tensor->constants.begin(), tensor->constants.end(),
            [&](size_t a, size_t b) { return place(a).first_row < place(b).first_row; });
  const Constant& first = graph.constants[tensor->constants[0]];
  tensor->shape = first.data->shape();
  tensor->encoding = first.data->encoding().kind;
  if (first.gguf_place.vector) tensor->shape = {tensor->shape.back()};
  if (first.gguf_place.rows == 0)
    return tensor->constants.size() == 1 ? ok_status() : refuse(*tensor, "are not told apart");
  int64_t rows = 0;
  for (const size_t i : tensor->constants) {
    const Constant& part = graph.constants[i];
    if (part.gguf_place.first_row != rows) return refuse(*tensor, "do not follow each other");
    if (part.data->encoding().kind != tensor->encoding)
      return refuse(*tensor, "have different types");
    rows += part.data->shape()[0];
  }
  if (rows != first.gguf_place.rows) return refuse(*tensor, "are not all there");
  tensor->shape[0] = rows;
  return {};
}

Result<std::vector<Planned>> plan_tensors(const Graph& graph) {
  std::vector<Planned> out;
  std::map<std::string, size_t> index;
  for (size_t i = 0; i < graph.constants.size(); ++i) {
    const Constant& constant = graph.constants[i];
    if (constant.gguf_name.empty()) {
      if (!constant.hf_name.empty())
        return unsupported("GGUF has no name for this weight").at("tensor " + constant.name);
      continue;
    }
    const auto [found, added] = index.emplace(constant.gguf_name, out.size());
    if (added) out.push_back({constant.gguf_name, {}, {}, {}});
    out[found->second].constants.push_back(i);
  }
  for (Planned& tensor : out) POME_RETURN_IF_ERROR(settle(graph, &tensor));
  return out;
}

GgufValue to_gguf(const std::string& key, const ConfigValue& value) {
  if (const auto* flag = std::get_if<bool>(&value)) return GgufValue::boolean(*flag);
  if (const auto* text = std::get_if<std::string>(&value)) return GgufValue::string(*text);
  if (const auto* number = std::get_if<double>(&value))
    return GgufValue::f32(static_cast<float>(*number));
  // Configurations write some real numbers as integers.
  static constexpr std::string_view kReal[] = {"rope.freq_base",         "rope.freq_base_swa",
                                               "rope.scaling.factor",    "expert_weights_scale",
                                               "attn_logit_softcapping", "final_logit_softcapping"};
  const int64_t number = std::get<int64_t>(value);
  if (std::find(std::begin(kReal), std::end(kReal), key) != std::end(kReal))
    return GgufValue::f32(static_cast<float>(number));
  return GgufValue::u32(static_cast<uint32_t>(number));
}

GgufMetadata metadata_of(const Graph& graph, const GgufOptions& options) {
  const GgufInfo& info = graph.info.gguf;
  GgufMetadata out = {
      {"general.architecture", GgufValue::string(info.architecture)},
      {"general.type", GgufValue::string("model")},
      {"general.name", GgufValue::string(options.name)},
      {"general.file_type", GgufValue::u32(static_cast<uint32_t>(options.file_type))},
      {"general.quantization_version", GgufValue::u32(2)},
      {"pome.version", GgufValue::string(kPomeVersion)},
      {"pome.scheme", GgufValue::string(options.scheme)},
      {"pome.graph_hash", GgufValue::string(kNoHash)},
      {"pome.source_hash", GgufValue::string(kNoHash)},
      {"pome.tokenizer_digest", GgufValue::string(options.tokenizer_digest)},
  };
  std::map<std::string, ConfigValue> values = info.values;
  if (info.positions > 0) values["context_length"] = info.positions;
  for (const auto& [key, value] : values)
    out.emplace_back(info.architecture + "." + key, to_gguf(key, value));
  out.insert(out.end(), options.tokenizer.begin(), options.tokenizer.end());
  return out;
}

// Writes the rows of one constant after another; of paired heads a whole head at a time, its rows
// by turns from both halves.
class RowSink {
 public:
  RowSink(GgufWriter* file, const Constant& constant, uint64_t row_bytes)
      : file_(file), row_bytes_(row_bytes) {
    const int64_t heads = constant.gguf_place.paired_heads;
    if (heads > 0) head_rows_ = constant.data->rows() / heads;
  }
  Status write(std::span<const std::byte> rows) {
    if (head_rows_ == 0) return file_->write(rows);
    const size_t head = static_cast<size_t>(head_rows_) * row_bytes_;
    while (!rows.empty()) {
      const size_t taken = std::min(rows.size(), head - waiting_.size());
      waiting_.insert(waiting_.end(), rows.begin(), rows.begin() + static_cast<ptrdiff_t>(taken));
      rows = rows.subspan(taken);
      if (waiting_.size() < head) continue;
      for (int64_t row = 0; row < head_rows_; ++row) {
        const int64_t from = row % 2 * (head_rows_ / 2) + row / 2;
        POME_RETURN_IF_ERROR(file_->write(std::span(waiting_).subspan(
            static_cast<size_t>(from) * row_bytes_, static_cast<size_t>(row_bytes_))));
      }
      waiting_.clear();
    }
    return {};
  }

 private:
  GgufWriter* file_;
  uint64_t row_bytes_;
  int64_t head_rows_ = 0;
  std::vector<std::byte> waiting_;
};

class Stream {
 public:
  Stream(const Graph& graph, GgufWriter* file, const WorkContext& work)
      : graph_(graph),
        file_(file),
        work_(work),
        pool_(std::max(1, work.threads)),
        slots_(static_cast<size_t>(2 * pool_.threads())),
        digests_(graph.constants.size()),
        canonical_(graph.constants.size()),
        errors_(graph.constants.size()) {}

  Status tensor(const Planned& tensor) {
    POME_RETURN_IF_ERROR(file_->begin_tensor());
    for (const size_t i : tensor.constants) {
      Status status = constant(i);
      if (!status.ok()) return std::move(status).at("tensor " + graph_.constants[i].name);
    }
    return {};
  }

  Status vector(const std::vector<float>& values) {
    POME_RETURN_IF_ERROR(file_->begin_tensor());
    return file_->write(std::as_bytes(std::span(values)));
  }

  // Of what is not in the file as well.
  Status finish(GgufReport* report) {
    uint64_t stored_bytes = 0;
    for (size_t i = 0; i < graph_.constants.size(); ++i) {
      const Constant& constant = graph_.constants[i];
      const ConstantData& data = *constant.data;
      if (constant.gguf_name.empty()) {
        POME_ASSIGN_OR_RETURN(digests_[i], digest_of(data, &pool_));
      }
      canonical_[i] = digests_[i];
      if (&data.canonical() != &data) {
        POME_ASSIGN_OR_RETURN(canonical_[i], digest_of(data.canonical(), &pool_));
        POME_RETURN_IF_ERROR(advance(data.canonical().stored_bytes()));
      }
      if (constant.gguf_name.empty() || !is_parameter(constant)) continue;
      report->exported.parameters += data.rows() * data.columns();
      stored_bytes += data.stored_bytes();
      report->exported.tensors.push_back({constant.name, errors_[i].offset, data.stored_bytes()});
      report->errors.push_back(
          {constant.name, to_string(data.encoding()), data.stored_bytes(),
           errors_[i].all > 0 ? std::sqrt(errors_[i].lost / errors_[i].all) : 0});
    }
    if (report->exported.parameters > 0)
      report->exported.bits_per_weight =
          static_cast<double>(stored_bytes) * 8 / static_cast<double>(report->exported.parameters);
    report->exported.weight_bytes = stored_bytes;
    report->exported.hashes.graph_hash = structure_hash(graph_, digests_, false);
    report->exported.hashes.source_hash = structure_hash(graph_, canonical_, true);
    return {};
  }

  // Of the graph that was built from the file: its weights are the ones that were just digested.
  Result<std::string> hash_of(const Graph& reopened) {
    std::map<std::string, Digest> known;
    for (size_t i = 0; i < graph_.constants.size(); ++i)
      if (!graph_.constants[i].gguf_name.empty()) known[graph_.constants[i].name] = digests_[i];
    std::vector<Digest> digests;
    for (const Constant& constant : reopened.constants) {
      const auto found = known.find(constant.name);
      if (found != known.end()) {
        digests.push_back(found->second);
        known.erase(found);
        continue;
      }
      POME_ASSIGN_OR_RETURN(const Digest digest, digest_of(*constant.data, &pool_));
      digests.push_back(digest);
    }
    if (!known.empty())
      return unsupported("a reader of the file does not find the weight " + known.begin()->first);
    return structure_hash(reopened, digests, false);
  }

 private:
  struct Squares {
    double lost = 0, all = 0;
    uint64_t offset = 0;
  };
  struct Slot {
    EncodedTile tile;
    std::vector<float> stored, source;
    Digest digest;
    Squares squares;
  };

  Status constant(size_t index) {
    const Constant& constant = graph_.constants[index];
    const ConstantData& data = *constant.data;
    errors_[index].offset = file_->position();
    const int64_t step = tile_rows(data);
    DigestBuilder digest(data);
    RowSink sink(file_, constant,
                 data.stored_bytes() / static_cast<uint64_t>(std::max<int64_t>(1, data.rows())));
    Status done = pool_.ordered(
        ceil_div(data.rows(), step), static_cast<int64_t>(slots_.size()),
        [&](int64_t tile, int64_t slot) {
          return produce(data, tile * step, std::min(step, data.rows() - tile * step),
                         &slots_[static_cast<size_t>(slot)]);
        },
        [&](int64_t, int64_t slot_index) -> Status {
          Slot& slot = slots_[static_cast<size_t>(slot_index)];
          digest.add(slot.digest);
          errors_[index].lost += slot.squares.lost;
          errors_[index].all += slot.squares.all;
          Status written = write_tile(constant, slot, &sink);
          return written.ok() ? advance(slot.tile.parts[0].size()) : written;
        });
    POME_RETURN_IF_ERROR(done);
    digests_[index] = digest.finish();
    return {};
  }

  // A vector is one row: its elements move where rows of heads do.
  Status write_tile(const Constant& constant, const Slot& slot, RowSink* sink) {
    const int64_t heads = constant.gguf_place.paired_heads;
    if (heads == 0 || constant.data->shape().size() > 1) return sink->write(slot.tile.parts[0]);
    const std::span<const std::byte> values = slot.tile.parts[0];
    const size_t count = static_cast<size_t>(constant.data->columns()),
                 head = count / static_cast<size_t>(heads), width = values.size() / count;
    std::vector<std::byte> moved(values.size());
    for (size_t i = 0; i < count; ++i) {
      const size_t within = i % head, from = i - within + within % 2 * (head / 2) + within / 2;
      std::copy_n(values.begin() + static_cast<ptrdiff_t>(from * width), width,
                  moved.begin() + static_cast<ptrdiff_t>(i * width));
    }
    return file_->write(moved);
  }

  Status produce(const ConstantData& data, int64_t row, int64_t rows, Slot* slot) const {
    POME_RETURN_IF_ERROR(check_cancelled(work_.cancel));
    POME_RETURN_IF_ERROR(data.read_tile(row, rows, &slot->tile));
    slot->digest = DigestBuilder::of_tile(slot->tile);
    slot->squares = {};
    const ConstantData& source = data.canonical();
    if (&source == &data || source.encoding() == data.encoding()) return {};
    const size_t count = static_cast<size_t>(rows * data.columns());
    slot->stored.resize(count);
    slot->source.resize(count);
    POME_RETURN_IF_ERROR(
        decode_rows(data.encoding(), rows, data.columns(), slot->tile.parts, slot->stored.data()));
    POME_RETURN_IF_ERROR(source.read_f32(row, rows, slot->source.data()));
    for (size_t begin = 0; begin < count; begin += 4096) {
      // Short sums in f32 lanes, long ones in f64.
      std::array<float, 16> lost{}, all{};
      const size_t end = std::min(count, begin + 4096);
      for (size_t i = begin; i < end; ++i) {
        const float w = slot->source[i], e = w - slot->stored[i];
        lost[i % 16] += e * e;
        all[i % 16] += w * w;
      }
      for (size_t lane = 0; lane < 16; ++lane) {
        slot->squares.lost += static_cast<double>(lost[lane]);
        slot->squares.all += static_cast<double>(all[lane]);
      }
    }
    return {};
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

  const Graph& graph_;
  GgufWriter* file_;
  const WorkContext& work_;
  ThreadPool pool_;
  std::vector<Slot> slots_;
  std::vector<Digest> digests_, canonical_;
  std::vector<Squares> errors_;
  uint64_t done_ = 0, since_flush_ = 0;
};

}  // namespace

Status check_gguf_support(const Graph& graph) {
  const GgufInfo& info = graph.info.gguf;
  if (info.architecture.empty())
    return unsupported("GGUF has no architecture for the family " + graph.info.family)
        .hint("convert to coreml or onnx");
  if (info.obstacles.empty()) return {};
  std::string all;
  for (const std::string& obstacle : info.obstacles) all += (all.empty() ? "" : "; ") + obstacle;
  return unsupported("GGUF files of architecture " + info.architecture + " cannot say: " + all)
      .hint("convert to coreml or onnx");
}

Result<GgufReport> export_gguf(const Graph& graph, const GgufOptions& options,
                               const std::string& path, const WorkContext& work) {
  POME_RETURN_IF_ERROR(check_gguf_support(graph));
  POME_ASSIGN_OR_RETURN(const std::vector<Planned> tensors, plan_tensors(graph));
  std::vector<GgufWriter::Declared> declared;
  for (const auto& [name, values] : graph.info.gguf.vectors)
    declared.push_back({name, {static_cast<int64_t>(values.size())}, EncodingKind::kF32});
  for (const Planned& tensor : tensors)
    declared.push_back({tensor.name, tensor.shape, tensor.encoding});
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<GgufWriter> file,
                        GgufWriter::create(path, metadata_of(graph, options), declared));
  uint64_t total = 0;
  for (const Constant& constant : graph.constants) {
    const ConstantData& data = *constant.data;
    if (!constant.gguf_name.empty()) total += data.stored_bytes();
    if (&data.canonical() != &data) total += data.canonical().stored_bytes();
  }
  if (work.progress) work.progress->begin("write weights", total, "bytes");
  Stream stream(graph, file.get(), work);
  for (const auto& entry : graph.info.gguf.vectors)
    POME_RETURN_IF_ERROR(stream.vector(entry.second));
  for (const Planned& tensor : tensors) POME_RETURN_IF_ERROR(stream.tensor(tensor));
  GgufReport report;
  POME_RETURN_IF_ERROR(stream.finish(&report));
  report.exported.bytes = file->position();
  if (options.reopen) {
    POME_RETURN_IF_ERROR(file->flush_behind());
    POME_ASSIGN_OR_RETURN(const Graph reopened, options.reopen(path));
    POME_ASSIGN_OR_RETURN(report.exported.hashes.graph_hash, stream.hash_of(reopened));
  }
  POME_RETURN_IF_ERROR(file->replace_string("pome.graph_hash", report.exported.hashes.graph_hash));
  POME_RETURN_IF_ERROR(
      file->replace_string("pome.source_hash", report.exported.hashes.source_hash));
  POME_RETURN_IF_ERROR(file->finish());
  if (work.progress) work.progress->end();
  return report;
}

}  // namespace pome
