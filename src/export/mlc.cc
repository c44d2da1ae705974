#include "export/mlc.h"

#include <algorithm>
#include <map>

#include "base/io.h"
#include "encoding/mlc_groups.h"
#include "export/constant_stream.h"
#include "formats/manifest.h"

namespace pome {

namespace {

bool is_grouped(const MlcPart& part) {
  return part.stored->encoding() == Encoding::int_blocks(4, kMlcGroup);
}

// One parameter of MLC: constants below each other, in one or two tensors of the package.
struct Parameter {
  std::string name;
  std::vector<const MlcPart*> parts;  // by first row
  size_t tensor = 0;                  // of the package; scales of groups follow
};

int64_t rows_of_one(const Shape& shape) {
  return shape.size() > 1 ? shape[shape.size() - 2] : shape[0];
}

Shape with_rows(Shape shape, int64_t rows) {
  shape[shape.size() > 1 ? shape.size() - 2 : 0] = rows;
  return shape;
}

Status declare(Parameter* parameter, std::vector<MlcWriter::Declared>* declared) {
  std::sort(parameter->parts.begin(), parameter->parts.end(),
            [](const auto* a, const auto* b) { return a->place.first_row < b->place.first_row; });
  const MlcPart& first = *parameter->parts[0];
  const ConstantData& data = *first.stored;
  const bool grouped = is_grouped(first);
  std::vector<RowSpan> spans;
  int64_t rows = 0;
  for (const MlcPart* part : parameter->parts) {
    if (part->stored->encoding() != data.encoding())
      return unsupported("the parts of " + parameter->name + " have different encodings")
          .at("tensor " + parameter->name);
    spans.push_back({part->place.first_row, rows_of_one(part->stored->shape())});
    rows += spans.back().rows;
  }
  POME_RETURN_IF_ERROR(
      check_stacked(parameter->name, spans, first.place.rows > 0 ? first.place.rows : rows));
  const Shape shape = with_rows(data.shape(), rows);
  parameter->tensor = declared->size();
  if (!grouped) {
    declared->push_back({parameter->name, shape, data.encoding().kind});
    return {};
  }
  const std::string module = parameter->name.substr(0, parameter->name.size() - 6);
  Shape words = shape, scales = shape;
  words.back() = shape.back() / 8;
  scales.back() = shape.back() / kMlcGroup;
  declared->push_back({module + "q_weight", words, EncodingKind::kI32});
  declared->push_back({module + "q_scale", scales, EncodingKind::kF16});
  return {};
}

Result<std::vector<Parameter>> plan(const std::vector<MlcPart>& parts,
                                    std::vector<MlcWriter::Declared>* declared) {
  std::vector<Parameter> out;
  std::map<std::string, size_t> index;
  for (const MlcPart& part : parts) {
    const auto [found, added] = index.emplace(part.place.name, out.size());
    if (added) out.push_back({part.place.name, {}, 0});
    out[found->second].parts.push_back(&part);
  }
  for (Parameter& parameter : out) POME_RETURN_IF_ERROR(declare(&parameter, declared));
  return out;
}

// Writes the weights where their parameters lie.
class Sink {
 public:
  Sink(MlcWriter* file, ConstantStream* stream) : file_(file), stream_(stream) {}

  Status parameter(const Parameter& parameter) {
    for (const MlcPart* part : parameter.parts) {
      const auto write = [&](const ConstantStream::Piece& piece) {
        return write_piece(*part, parameter.tensor, piece);
      };
      POME_RETURN_IF_ERROR(stream_->constant(part->constant, *part->stored, 1,
                                             is_grouped(*part) ? to_groups : nullptr, write));
    }
    return {};
  }

 private:
  static Status to_groups(ConstantStream::Piece* piece) {
    const auto &codes = piece->tile.parts[0], &scales = piece->tile.parts[1];
    piece->codes.assign(codes.begin(), codes.end());
    piece->scales.assign(scales.begin(), scales.end());
    int4_to_mlc(piece->codes, {reinterpret_cast<uint16_t*>(piece->scales.data()),
                               piece->scales.size() / sizeof(uint16_t)});
    return {};
  }

  Status write_piece(const MlcPart& part, size_t tensor, const ConstantStream::Piece& piece) {
    const int64_t row = piece.tile.row;
    if (!is_grouped(part)) return write_rows(part, tensor, row, piece.tile.parts[0]);
    POME_RETURN_IF_ERROR(write_rows(part, tensor, row, piece.codes));
    return write_rows(part, tensor + 1, row, piece.scales);
  }

  // Rows [row, ..) of a constant, whose rows, or those of each expert, lie among others.
  Status write_rows(const MlcPart& part, size_t tensor, int64_t row,
                    std::span<const std::byte> bytes) {
    const Shape& shape = part.stored->shape();
    const MlcPlace& place = part.place;
    const bool vector = shape.size() < 2;
    const uint64_t width =
        file_->cache().tensors[tensor].bytes /
        static_cast<uint64_t>(std::max<int64_t>(1, *element_count(with_columns(tensor))));
    const int64_t own = rows_of_one(shape), all = place.rows > 0 ? place.rows : own;
    // A vector is one row: its elements count as rows here.
    if (vector) row *= own;
    while (!bytes.empty()) {
      const int64_t expert = row / own, within = row % own;
      const uint64_t taken =
          std::min<uint64_t>(bytes.size(), static_cast<uint64_t>(own - within) * width);
      const uint64_t at = static_cast<uint64_t>(expert * all + place.first_row + within) * width;
      POME_RETURN_IF_ERROR(file_->write(tensor, at, bytes.first(static_cast<size_t>(taken))));
      bytes = bytes.subspan(static_cast<size_t>(taken));
      row += static_cast<int64_t>(taken / width);
    }
    return {};
  }

  // The shape of a tensor of the package without its last dimension, of a vector with it.
  Shape with_columns(size_t tensor) const {
    Shape shape = file_->cache().tensors[tensor].shape;
    if (shape.size() > 1) shape.pop_back();
    return shape;
  }

  MlcWriter* file_;
  ConstantStream* stream_;
};

}  // namespace

Result<MlcReport> export_mlc(const Graph& graph, const std::vector<MlcPart>& parts,
                             const MlcOptions& options, const std::string& folder,
                             const WorkContext& work) {
  std::vector<MlcWriter::Declared> declared;
  POME_ASSIGN_OR_RETURN(const std::vector<Parameter> parameters, plan(parts, &declared));
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<MlcWriter> file, MlcWriter::create(folder, declared));
  if (work.progress)
    work.progress->begin("write weights", streamed_bytes(graph, file->bytes()), "bytes");
  MlcReport report;
  ExportReport& exported = report.exported;
  ConstantStream stream(graph, work);
  Sink sink(file.get(), &stream);
  for (const Parameter& parameter : parameters) POME_RETURN_IF_ERROR(sink.parameter(parameter));
  POME_RETURN_IF_ERROR(stream.finish(&exported, &report.errors));
  POME_RETURN_IF_ERROR(file->finish(static_cast<uint64_t>(exported.parameters), stream.pool()));
  report.cache = file->cache();
  // A head of its own counts, too.
  exported.weight_bytes = exported.bytes = file->bytes();
  if (exported.parameters > 0)
    exported.bits_per_weight =
        static_cast<double>(exported.weight_bytes) * 8 / static_cast<double>(exported.parameters);
  if (work.progress) work.progress->end();
  Json chat = options.chat_config;
  chat["pome"] = {{"version", kPomeVersion},
                  {"scheme", options.scheme},
                  {"graph_hash", exported.hashes.graph_hash},
                  {"source_hash", exported.hashes.source_hash},
                  {"tokenizer_digest", options.tokenizer_digest}};
  POME_RETURN_IF_ERROR(io::write_file(folder + "/" + kMlcConfig, dump_json(chat, 2) + "\n"));
  if (options.reopen) {
    POME_ASSIGN_OR_RETURN(const Graph reopened, options.reopen(folder));
    POME_ASSIGN_OR_RETURN(const std::string found, stream.hash_of(reopened));
    if (found != exported.hashes.graph_hash)
      return unsupported("the configuration that is written does not give the same graph again")
          .hint("convert from the original checkpoint, or to coreml, onnx or gguf");
  }
  return report;
}

}  // namespace pome
