#include "export/gguf.h"

#include <algorithm>
#include <map>

#include "export/constant_stream.h"
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
  std::vector<RowSpan> parts;
  for (const size_t i : tensor->constants) {
    const Constant& part = graph.constants[i];
    if (part.data->encoding().kind != tensor->encoding)
      return refuse(*tensor, "have different types");
    parts.push_back({part.gguf_place.first_row, part.data->shape()[0]});
  }
  POME_RETURN_IF_ERROR(check_stacked(tensor->name, parts, first.gguf_place.rows));
  tensor->shape[0] = first.gguf_place.rows;
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

// Writes the constants of the graph where the file is now.
class Sink {
 public:
  Sink(const Graph& graph, GgufWriter* file, ConstantStream* stream)
      : graph_(graph), file_(file), stream_(stream), offsets_(graph.constants.size()) {}

  Status tensor(const Planned& tensor) {
    POME_RETURN_IF_ERROR(file_->begin_tensor());
    for (const size_t i : tensor.constants) POME_RETURN_IF_ERROR(constant(i));
    return {};
  }

  Status vector(const std::vector<float>& values) {
    POME_RETURN_IF_ERROR(file_->begin_tensor());
    return file_->write(std::as_bytes(std::span(values)));
  }

  std::vector<PlacedTensor> places() const {
    std::vector<PlacedTensor> out;
    for (size_t i = 0; i < graph_.constants.size(); ++i) {
      const Constant& constant = graph_.constants[i];
      if (stream_->was_streamed(i) && is_parameter(constant))
        out.push_back({constant.name, offsets_[i], constant.data->stored_bytes()});
    }
    return out;
  }

 private:
  Status constant(size_t index) {
    const Constant& constant = graph_.constants[index];
    const ConstantData& data = *constant.data;
    offsets_[index] = file_->position();
    RowSink sink(file_, constant,
                 data.stored_bytes() / static_cast<uint64_t>(std::max<int64_t>(1, data.rows())));
    return stream_->constant(
        index, data, constant.gguf_place.factor, nullptr,
        [&](const ConstantStream::Piece& piece) -> Status {
          POME_RETURN_IF_ERROR(write_tile(constant, piece.tile.parts[0], &sink));
          since_flush_ += piece.tile.parts[0].size();
          if (since_flush_ < kFlushBytes) return {};
          since_flush_ = 0;
          return file_->flush_behind();
        });
  }

  // A vector is one row: its elements move where rows of heads do.
  Status write_tile(const Constant& constant, std::span<const std::byte> values, RowSink* sink) {
    const int64_t heads = constant.gguf_place.paired_heads;
    if (heads == 0 || constant.data->shape().size() > 1) return sink->write(values);
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

  const Graph& graph_;
  GgufWriter* file_;
  ConstantStream* stream_;
  std::vector<uint64_t> offsets_;  // in the file, by constant
  uint64_t since_flush_ = 0;
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
  uint64_t stored = 0;
  for (const Constant& constant : graph.constants)
    if (!constant.gguf_name.empty()) stored += constant.data->stored_bytes();
  if (work.progress) work.progress->begin("write weights", streamed_bytes(graph, stored), "bytes");
  ConstantStream stream(graph, work);
  Sink sink(graph, file.get(), &stream);
  for (const auto& entry : graph.info.gguf.vectors) POME_RETURN_IF_ERROR(sink.vector(entry.second));
  for (const Planned& tensor : tensors) POME_RETURN_IF_ERROR(sink.tensor(tensor));
  GgufReport report;
  POME_RETURN_IF_ERROR(stream.finish(&report.exported, &report.errors));
  report.exported.tensors = sink.places();
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
