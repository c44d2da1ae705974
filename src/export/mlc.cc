#include "export/mlc.h"

#include <algorithm>
#include <map>

#include "base/checked.h"
#include "base/io.h"
#include "base/thread_pool.h"
#include "encoding/mlc_groups.h"
#include "export/rounding.h"
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

Status refuse(const Parameter& parameter, const std::string& why) {
  return unsupported("the parts of " + parameter.name + " " + why).at("tensor " + parameter.name);
}

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
  int64_t rows = 0;
  for (const MlcPart* part : parameter->parts) {
    if (part->place.first_row != rows) return refuse(*parameter, "do not follow each other");
    if (part->stored->encoding() != data.encoding())
      return refuse(*parameter, "have different encodings");
    rows += rows_of_one(part->stored->shape());
  }
  if (first.place.rows > 0 && rows != first.place.rows)
    return refuse(*parameter, "are not all there");
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

class Stream {
 public:
  Stream(const Graph& graph, MlcWriter* file, const WorkContext& work)
      : graph_(graph),
        file_(file),
        work_(work),
        pool_(std::max(1, work.threads)),
        slots_(static_cast<size_t>(2 * pool_.threads())),
        done_(graph.constants.size()) {}

  Status parameter(const Parameter& parameter) {
    for (const MlcPart* one : parameter.parts) {
      Status status = part(*one, parameter.tensor);
      if (!status.ok())
        return std::move(status).at("tensor " + graph_.constants[one->constant].name);
    }
    return {};
  }

  // Digests of what is not in the package as well.
  Status finish(MlcReport* report) {
    std::vector<Digest> digests, canonical;
    ExportReport& exported = report->exported;
    for (size_t i = 0; i < graph_.constants.size(); ++i) {
      const Constant& constant = graph_.constants[i];
      const ConstantData& data = *constant.data;
      const Done& done = done_[i];
      digests.push_back(done.digest);
      if (done.bytes == 0) {
        POME_ASSIGN_OR_RETURN(digests.back(), digest_of(data, &pool_));
      }
      canonical.push_back(digests.back());
      if (&data.canonical() != &data) {
        POME_ASSIGN_OR_RETURN(canonical.back(), digest_of(data.canonical(), &pool_));
        POME_RETURN_IF_ERROR(advance(data.canonical().stored_bytes()));
      }
      if (done.bytes == 0) continue;
      known_[constant.name] = done.digest;
      if (!is_parameter(constant)) continue;
      exported.parameters += data.rows() * data.columns();
      report->errors.push_back({constant.name, done.encoding, done.bytes, done.error.relative()});
    }
    exported.hashes.graph_hash = structure_hash(graph_, digests, false);
    exported.hashes.source_hash = structure_hash(graph_, canonical, true);
    POME_RETURN_IF_ERROR(file_->finish(static_cast<uint64_t>(exported.parameters), &pool_));
    report->cache = file_->cache();
    exported.weight_bytes = exported.bytes = file_->bytes();
    if (exported.parameters > 0)
      exported.bits_per_weight =
          static_cast<double>(exported.weight_bytes) * 8 / static_cast<double>(exported.parameters);
    return {};
  }

  Status check(const Graph& reopened, const std::string& hash) {
    POME_ASSIGN_OR_RETURN(const std::string found, hash_of_reopened(reopened, known_, &pool_));
    if (found == hash) return {};
    return unsupported("the configuration that is written does not give the same graph again")
        .hint("convert from the original checkpoint, or to coreml, onnx or gguf");
  }

 private:
  struct Done {
    Digest digest;
    RoundingError error;
    std::string encoding;
    uint64_t bytes = 0;  // 0: not in the package
  };
  struct Slot {
    EncodedTile tile, whole;
    std::vector<std::byte> codes, scales;
    RoundingScratch scratch;
    Digest digest;
    RoundingError error;
  };

  Status part(const MlcPart& part, size_t tensor) {
    const ConstantData& data = *graph_.constants[part.constant].data;
    const int64_t step = tile_rows(data);
    DigestBuilder digest(data);
    Done done;
    done.encoding = to_string(part.stored->encoding());
    Status status = pool_.ordered(
        ceil_div(data.rows(), step), static_cast<int64_t>(slots_.size()),
        [&](int64_t tile, int64_t slot) {
          return produce(part, data, tile * step, std::min(step, data.rows() - tile * step),
                         &slots_[static_cast<size_t>(slot)]);
        },
        [&](int64_t, int64_t index) -> Status {
          const Slot& slot = slots_[static_cast<size_t>(index)];
          digest.add(slot.digest);
          done.error.add(slot.error);
          POME_RETURN_IF_ERROR(write_rows(part, tensor, slot.tile.row, slot.codes));
          if (!slot.scales.empty())
            POME_RETURN_IF_ERROR(write_rows(part, tensor + 1, slot.tile.row, slot.scales));
          done.bytes += slot.codes.size() + slot.scales.size();
          return advance(slot.codes.size() + slot.scales.size());
        });
    POME_RETURN_IF_ERROR(status);
    done.digest = digest.finish();
    done_[part.constant] = done;
    return {};
  }

  Status produce(const MlcPart& part, const ConstantData& data, int64_t row, int64_t rows,
                 Slot* slot) const {
    POME_RETURN_IF_ERROR(check_cancelled(work_.cancel));
    POME_RETURN_IF_ERROR(data.read_tile(row, rows, &slot->tile));
    slot->digest = DigestBuilder::of_tile(slot->tile);
    POME_ASSIGN_OR_RETURN(slot->error, rounding_error(data, slot->tile, &slot->scratch));
    const EncodedTile* tile = &slot->tile;
    if (part.stored.get() != &data) {
      POME_RETURN_IF_ERROR(part.stored->read_tile(row, rows, &slot->whole));
      tile = &slot->whole;
    }
    slot->codes.assign(tile->parts[0].begin(), tile->parts[0].end());
    slot->scales.clear();
    if (!is_grouped(part)) return {};
    slot->scales.assign(tile->parts[1].begin(), tile->parts[1].end());
    int4_to_mlc(slot->codes, {reinterpret_cast<uint16_t*>(slot->scales.data()),
                              slot->scales.size() / sizeof(uint16_t)});
    return {};
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

  Status advance(uint64_t bytes) {
    progressed_ += bytes;
    if (work_.progress) work_.progress->advance(progressed_);
    return check_cancelled(work_.cancel);
  }

  const Graph& graph_;
  MlcWriter* file_;
  const WorkContext& work_;
  ThreadPool pool_;
  std::vector<Slot> slots_;
  std::vector<Done> done_;               // by constant
  std::map<std::string, Digest> known_;  // of the weights, by name
  uint64_t progressed_ = 0;
};

}  // namespace

Result<MlcReport> export_mlc(const Graph& graph, const std::vector<MlcPart>& parts,
                             const MlcOptions& options, const std::string& folder,
                             const WorkContext& work) {
  std::vector<MlcWriter::Declared> declared;
  POME_ASSIGN_OR_RETURN(const std::vector<Parameter> parameters, plan(parts, &declared));
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<MlcWriter> file, MlcWriter::create(folder, declared));
  if (work.progress) {
    uint64_t total = file->bytes();
    for (const Constant& constant : graph.constants)
      if (&constant.data->canonical() != constant.data.get())
        total += constant.data->canonical().stored_bytes();
    work.progress->begin("write weights", total, "bytes");
  }
  MlcReport report;
  Stream stream(graph, file.get(), work);
  for (const Parameter& parameter : parameters) POME_RETURN_IF_ERROR(stream.parameter(parameter));
  POME_RETURN_IF_ERROR(stream.finish(&report));
  if (work.progress) work.progress->end();
  Json chat = options.chat_config;
  chat["pome"] = {{"version", kPomeVersion},
                  {"scheme", options.scheme},
                  {"graph_hash", report.exported.hashes.graph_hash},
                  {"source_hash", report.exported.hashes.source_hash},
                  {"tokenizer_digest", options.tokenizer_digest}};
  POME_RETURN_IF_ERROR(io::write_file(folder + "/" + kMlcConfig, dump_json(chat, 2) + "\n"));
  if (options.reopen) {
    POME_ASSIGN_OR_RETURN(const Graph reopened, options.reopen(folder));
    POME_RETURN_IF_ERROR(stream.check(reopened, report.exported.hashes.graph_hash));
  }
  return report;
}

}  // namespace pome
