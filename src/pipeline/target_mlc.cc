// A weight package that MLC's engine loads beside a compiled model library.
#include <algorithm>
#include <cctype>

#include "base/io.h"
#include "encoding/mlc_groups.h"
#include "export/mlc.h"
#include "graph/columns.h"
#include "models/mlc_config.h"
#include "models/mlc_names.h"
#include "models/models.h"
#include "pipeline/frame.h"
#include "pipeline/mlc_conversation.h"
#include "pipeline/target.h"
#include "tokenizer/tokenizer.h"

namespace pome {

namespace {

// What MLC calls the scheme, and how weights are stored under that name.
struct Scheme {
  std::string name;       // "q4f16_1"
  bool grouped = false;   // matrices in groups of 32
  bool embedding = true;  // the embedding and the head too
  EncodingKind plain = EncodingKind::kF16;
};

Result<Scheme> parse_scheme(const ConvertOptions& options) {
  const std::string& weights = options.weights;
  Scheme out;
  if (weights == "q4f16_1" || weights == "q4f16_2" || weights == "int4")
    out = {"q4f16_1", true, weights != "q4f16_2", EncodingKind::kF16};
  else if (weights == "q0f16" || weights == "f16")
    out = {"q0f16", false, false, EncodingKind::kF16};
  else if (weights == "q0f32" || weights == "f32")
    out = {"q0f32", false, false, EncodingKind::kF32};
  else
    return usage_error("--weights " + escape_for_terminal(weights, 64) +
                       ": MLC packages have no such scheme here")
        .hint("known: q4f16_1 (int4) q4f16_2 q0f16 (f16) q0f32 (f32)");
  if (options.embedding) {
    const bool same = *options.embedding == weights;
    if (!same && !(out.grouped && *options.embedding == "f16"))
      return usage_error("--embedding " + escape_for_terminal(*options.embedding, 64) +
                         ": MLC stores the embedding as the rest, or as f16 beside q4f16_1");
    out.embedding = out.embedding && same;
  }
  if (out.grouped && !out.embedding) out.name = "q4f16_2";
  return out;
}

// Data as the scheme stores it, and the same for the graph, whose rows are not padded.
struct Chosen {
  ConstantDataPtr stored, graph;
};
Chosen choose(const Constant& constant, const MlcPlace& place, const Scheme& scheme) {
  const ConstantDataPtr& data = constant.data;
  const bool of_vocabulary = constant.role == Constant::Role::kEmbedding ||
                             constant.role == Constant::Role::kHead ||
                             constant.role == Constant::Role::kTable;
  if (!place.grouped || !scheme.grouped || (of_vocabulary && !scheme.embedding)) {
    const EncodingKind kind = place.wide ? EncodingKind::kF32 : scheme.plain;
    const ConstantDataPtr plain = encoded_constant(data, Encoding::plain(kind), constant.name);
    return {plain, plain};
  }
  const Encoding groups = Encoding::int_blocks(4, kMlcGroup);
  const int64_t columns = data->columns();
  if (columns % kMlcGroup == 0) {
    const ConstantDataPtr whole = encoded_constant(data, groups, constant.name);
    return {whole, whole};
  }
  const int64_t padded = (columns + kMlcGroup - 1) / kMlcGroup * kMlcGroup;
  const ConstantDataPtr longer = encoded_constant(pad_columns(data, padded), groups, constant.name);
  return {longer, cut_columns(longer, columns)};
}

// Where every weight goes; the graph's constants become what is stored.
std::vector<MlcPart> choose_all(Graph* graph, const Scheme& scheme,
                                std::vector<TensorChoice>* choices) {
  std::vector<MlcPart> out;
  for (size_t i = 0; i < graph->constants.size(); ++i) {
    Constant& constant = graph->constants[i];
    TensorChoice choice;
    choice.name = constant.name;
    choice.rows = constant.data->rows();
    choice.columns = constant.data->columns();
    choice.used = constant.data->encoding();
    const MlcPlace place = mlc_place(graph->info, constant.name, constant.data->shape());
    if (!place.name.empty()) {
      const Chosen chosen = choose(constant, place, scheme);
      constant.data = chosen.graph;
      choice.used = chosen.stored->encoding();
      out.push_back({place, i, chosen.stored});
    }
    choices->push_back(std::move(choice));
  }
  for (const MlcExtra& extra : mlc_extra_parameters(*graph)) {
    const auto same = std::find_if(out.begin(), out.end(), [&](const MlcPart& part) {
      return part.constant == extra.constant;
    });
    out.push_back({extra.place, extra.constant, same->stored});
  }
  return out;
}

double number_in(const Json& object, const char* key, double fallback) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && found != object.end() && found->is_number() ? found->get<double>()
                                                                           : fallback;
}

Json chat_config(const MlcModel& model, const Scheme& scheme, const ModelInfo& info,
                 const Checkpoint& checkpoint, const Tokenizer* tokenizer,
                 std::vector<std::string>* notes) {
  const Json& fields = model.model_config;
  const TokenizerSource& source = checkpoint.tokenizer;
  Json out = {
      {"version", "0.1.0"},
      {"model_type", model.model_type},
      {"quantization", scheme.name},
      {"model_config", fields},
      {"vocab_size", info.vocab_size},
      {"context_window_size", model.context},
      {"sliding_window_size", fields.value("sliding_window_size", Json(-1))},
      {"prefill_chunk_size", fields.value("prefill_chunk_size", Json(model.context))},
      {"attention_sink_size", fields.value("attention_sink_size", Json(-1))},
      {"tensor_parallel_shards", 1},
      {"pipeline_parallel_stages", 1},
      {"active_vocab_size",
       std::min<int64_t>(info.vocab_size, source.tokens.empty()
                                              ? info.vocab_size
                                              : static_cast<int64_t>(source.tokens.size()))}};
  for (const auto& [key, fallback] :
       {std::pair("temperature", 1.0), std::pair("presence_penalty", 0.0),
        std::pair("frequency_penalty", 0.0), std::pair("repetition_penalty", 1.0),
        std::pair("top_p", 1.0)})
    out[key] = number_in(checkpoint.generation_config, key, fallback);
  out["tokenizer_files"] = Json::array();
  for (const char* name : {"tokenizer.model", "tokenizer.json", "vocab.json", "merges.txt",
                           "added_tokens.json", "tokenizer_config.json"})
    if (checkpoint.sidecars.count(name)) out["tokenizer_files"].push_back(name);
  out["tokenizer_info"] = mlc_tokenizer_info(source);
  out["pad_token_id"] = source.padding.value_or(0);
  out["bos_token_id"] = source.bos ? Json(*source.bos) : Json();
  out["eos_token_id"] = source.eos ? Json(*source.eos) : Json();
  if (tokenizer) {
    out["conv_template"] = mlc_conversation(*tokenizer, notes);
    if (!tokenizer->stop_ids().empty())
      out["eos_token_id"] =
          std::vector<int32_t>(tokenizer->stop_ids().begin(), tokenizer->stop_ids().end());
  }
  out["model_task"] = "chat";
  out["embedding_metadata"] = nullptr;
  return out;
}

std::string library_name(const ModelInfo& info, const Scheme& scheme) {
  std::string out;
  for (const char c : info.name + "-" + scheme.name)
    out +=
        std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.' ? c : '-';
  return out;
}

// As a word of a shell's command.
std::string shell_word(const std::string& text) {
  constexpr std::string_view kPlain = "_./-+=:@%,";
  const bool plain = std::all_of(text.begin(), text.end(), [&](unsigned char c) {
    return std::isalnum(c) || kPlain.find(static_cast<char>(c)) != std::string_view::npos;
  });
  if (plain) return text;
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// What is left to do, which takes TVM's compiler.
void add_next_steps(const ConvertOptions& options, const ModelInfo& info, const Scheme& scheme,
                    uint64_t memory, std::vector<std::string>* notes) {
  const std::string name = library_name(info, scheme);
  notes->push_back(
      "not done here: the model library, which TVM compiles for a device. On a Mac with Xcode and "
      "the package mlc_llm: mlc_llm compile " +
      shell_word(options.output + "/" + kMlcConfig) + " --device iphone -o " + name +
      "-iphone.tar");
  notes->push_back(
      "or let the app's build do it: put this into model_list of "
      "mlc-package-config.json (device iphone) and run mlc_llm package: " +
      dump_json(Json{{"model", options.output},
                     {"model_id", name},
                     {"estimated_vram_bytes", memory},
                     {"bundle_weight", true}}));
}

class MlcTarget final : public TargetWriter {
 public:
  Status prepare(const ConvertOptions& options, ConvertReport*) override {
    POME_ASSIGN_OR_RETURN(scheme_, parse_scheme(options));
    return {};
  }

  Result<Graph> build(const Checkpoint& checkpoint, const ConvertOptions& options,
                      ConvertReport* report) override {
    POME_ASSIGN_OR_RETURN(const ModelInfo info, read_model_info(checkpoint, {options.context}));
    const int64_t positions = info.max_position_embeddings;
    if (options.context > positions)
      return usage_error("--context " + std::to_string(options.context) + " is more than the " +
                         std::to_string(positions) + " positions this model was made for");
    const int64_t wanted =
        options.context > 0 ? options.context : std::min<int64_t>(positions, 4096);
    POME_ASSIGN_OR_RETURN(Graph graph, build_graph(checkpoint, {wanted}));
    POME_ASSIGN_OR_RETURN(model_, describe_for_mlc(checkpoint, graph, wanted, options.chunk));
    report->warnings.insert(report->warnings.end(), model_.warnings.begin(), model_.warnings.end());
    report->context = model_.context;
    report->chunk = model_.model_config.value("prefill_chunk_size", report->context);
    if (model_.context == wanted) return graph;
    return build_graph(checkpoint, {model_.context});
  }

  Result<Quantized> quantize(const Graph& graph, const ConvertOptions&, ConvertReport*) override {
    Quantized out{graph, {}};
    parts_ = choose_all(&out.graph, scheme_, &out.tensors);
    return out;
  }

  // Rows may be padded, and a head that shares the embedding is there twice.
  uint64_t stored_bytes(const Graph&) const override {
    uint64_t out = 0;
    for (const MlcPart& part : parts_) out += part.stored->stored_bytes();
    return out;
  }

  Result<Written> write(const Source& source, const ConvertOptions& options,
                        const std::string& path, const WorkContext& work,
                        ConvertReport* report) override {
    // What is not padded is stored as the graph has it, which calibration may have rounded anew.
    for (MlcPart& part : parts_) {
      const ConstantDataPtr& data = source.graph.constants[part.constant].data;
      if (data->columns() == part.stored->columns()) part.stored = data;
    }
    // First, so that the folder is a checkpoint when it is opened again.
    POME_RETURN_IF_ERROR(write_tokenizer_files(source.checkpoint, path));
    POME_RETURN_IF_ERROR(io::write_file(path + "/config.json", dump_json(model_.config, 2) + "\n"));
    MlcOptions mlc;
    mlc.scheme = scheme_.name;
    mlc.tokenizer_digest = source.tokenizer_digest;
    note_tokenizer(source, report);
    mlc.chat_config = chat_config(model_, scheme_, source.graph.info, source.checkpoint,
                                  source.tokenizer, &report->notes);
    mlc.reopen = [context = source.context](const std::string& folder) -> Result<Graph> {
      OpenOptions open;
      open.read_tokenizer = false;
      POME_ASSIGN_OR_RETURN(const Checkpoint checkpoint, open_checkpoint(folder, open));
      return build_graph(checkpoint, {context});
    };
    POME_ASSIGN_OR_RETURN(MlcReport made, export_mlc(source.graph, parts_, mlc, path, work));
    report->errors = std::move(made.errors);
    Written out{made.exported, kMlcConfig, {}};
    for (const MlcTensor& tensor : made.cache.tensors)
      out.tensors.push_back(
          {tensor.name, made.cache.shards[tensor.shard].file, tensor.offset, tensor.bytes, {}});
    const uint64_t cache = 2 * static_cast<uint64_t>(cache_elements_per_token(source.graph)) *
                           static_cast<uint64_t>(source.context);
    add_next_steps(options, source.graph.info, scheme_, made.exported.weight_bytes + cache,
                   &report->notes);
    return out;
  }

  // They are, but config.json is not that of the checkpoint: write() has done it.
  bool tokenizer_beside() const override { return false; }

 private:
  static void note_tokenizer(const Source& source, ConvertReport* report) {
    const auto& sidecars = source.checkpoint.sidecars;
    if (!source.tokenizer || sidecars.count("tokenizer.json") || sidecars.count("tokenizer.model"))
      return;
    report->notes.push_back(
        "MLC's engine needs a tokenizer.json or tokenizer.model, which this checkpoint does not "
        "have: put one beside the weights and name it in tokenizer_files");
  }

  Scheme scheme_;
  MlcModel model_;
  std::vector<MlcPart> parts_;
};

}  // namespace

std::unique_ptr<TargetWriter> mlc_writer() { return std::make_unique<MlcTarget>(); }

}  // namespace pome
