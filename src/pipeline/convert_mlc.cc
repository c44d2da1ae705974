#include "pipeline/convert_mlc.h"

#include <algorithm>

#include "base/io.h"
#include "encoding/mlc_groups.h"
#include "export/mlc.h"
#include "graph/columns.h"
#include "models/mlc_config.h"
#include "models/mlc_names.h"
#include "models/models.h"
#include "pipeline/frame.h"
#include "pipeline/mlc_conversation.h"
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

// config.json and generation_config.json first, so that the folder is a checkpoint.
Status write_side_files(const Checkpoint& checkpoint, const Json& config,
                        const std::string& folder) {
  POME_RETURN_IF_ERROR(write_tokenizer_files(checkpoint, folder));
  return io::write_file(folder + "/config.json", dump_json(config, 2) + "\n");
}

std::string library_name(const ModelInfo& info, const Scheme& scheme) {
  std::string out;
  for (const char c : info.name + "-" + scheme.name)
    out +=
        std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.' ? c : '-';
  return out;
}

// What is left to do, which takes TVM's compiler.
void add_next_steps(const ConvertOptions& options, const ModelInfo& info, const Scheme& scheme,
                    uint64_t memory, std::vector<std::string>* notes) {
  const std::string name = library_name(info, scheme);
  notes->push_back(
      "not done here: the model library, which TVM compiles for a device. On a Mac with Xcode and "
      "the package mlc_llm: mlc_llm compile " +
      options.output + "/" + kMlcConfig + " --device iphone -o " + name + "-iphone.tar");
  notes->push_back(
      "or let the app's build do it: put this into model_list of "
      "mlc-package-config.json (device iphone) and run mlc_llm package: " +
      dump_json(Json{{"model", options.output},
                     {"model_id", name},
                     {"estimated_vram_bytes", memory},
                     {"bundle_weight", true}}));
}

struct Prepared {
  Checkpoint checkpoint;
  Graph graph;
  MlcModel model;
  std::shared_ptr<const Tokenizer> tokenizer;
};

Result<Prepared> prepare(const ConvertOptions& options, ConvertReport* report) {
  Prepared out;
  POME_ASSIGN_OR_RETURN(out.checkpoint, open_checkpoint(options.model));
  POME_ASSIGN_OR_RETURN(const ModelInfo info, read_model_info(out.checkpoint, {options.context}));
  const int64_t positions = info.max_position_embeddings;
  if (options.context > positions)
    return usage_error("--context " + std::to_string(options.context) + " is more than the " +
                       std::to_string(positions) + " positions this model was made for");
  const int64_t wanted = options.context > 0 ? options.context : std::min<int64_t>(positions, 4096);
  POME_ASSIGN_OR_RETURN(out.graph, build_graph(out.checkpoint, {wanted}));
  POME_ASSIGN_OR_RETURN(out.model, describe_for_mlc(out.checkpoint, out.graph, wanted));
  report->warnings = out.checkpoint.warnings;
  report->warnings.insert(report->warnings.end(), out.model.warnings.begin(),
                          out.model.warnings.end());
  if (out.model.context != wanted) {
    POME_ASSIGN_OR_RETURN(out.graph, build_graph(out.checkpoint, {out.model.context}));
  }
  report->context = out.model.context;
  report->chunk = out.model.model_config.value("prefill_chunk_size", report->context);
  if (out.checkpoint.tokenizer.model != TokenizerSource::Model::kNone) {
    POME_ASSIGN_OR_RETURN(out.tokenizer, Tokenizer::create(out.checkpoint.tokenizer));
    if (!out.checkpoint.sidecars.count("tokenizer.json") &&
        !out.checkpoint.sidecars.count("tokenizer.model"))
      report->notes.push_back(
          "MLC's engine needs a tokenizer.json or tokenizer.model, which this checkpoint does not "
          "have: put one beside the weights and name it in tokenizer_files");
  } else {
    report->warnings.push_back(
        "the checkpoint has no tokenizer: MLC's engine needs one beside the weights");
  }
  return out;
}

}  // namespace

Result<ConvertReport> convert_to_mlc(const ConvertOptions& options, const WorkContext& work) {
  ConvertReport report;
  report.output = options.output;
  POME_ASSIGN_OR_RETURN(const Scheme scheme, parse_scheme(options));
  POME_ASSIGN_OR_RETURN(Prepared prepared, prepare(options, &report));
  Graph& graph = prepared.graph;
  const std::vector<MlcPart> parts = choose_all(&graph, scheme, &report.tensors);

  POME_RETURN_IF_ERROR(check_replaceable(options));
  POME_ASSIGN_OR_RETURN(
      const std::unique_ptr<io::Staged> staged,
      io::Staged::create(options.output, io::Staged::Kind::kFolder, options.force));
  POME_RETURN_IF_ERROR(check_disk(graph, parent_of(options.output)));
  POME_RETURN_IF_ERROR(
      write_side_files(prepared.checkpoint, prepared.model.config, staged->path()));
  MlcOptions mlc;
  mlc.scheme = scheme.name;
  if (prepared.tokenizer) mlc.tokenizer_digest = prepared.tokenizer->digest();
  mlc.chat_config = chat_config(prepared.model, scheme, graph.info, prepared.checkpoint,
                                prepared.tokenizer.get(), &report.notes);
  mlc.reopen = [context = report.context](const std::string& folder) -> Result<Graph> {
    OpenOptions open;
    open.read_tokenizer = false;
    POME_ASSIGN_OR_RETURN(const Checkpoint checkpoint, open_checkpoint(folder, open));
    return build_graph(checkpoint, {context});
  };
  POME_ASSIGN_OR_RETURN(MlcReport written, export_mlc(graph, parts, mlc, staged->path(), work));
  report.exported = written.exported;
  report.errors = std::move(written.errors);
  Written files{written.exported, kMlcConfig, {}, {}};
  for (const MlcTensor& tensor : written.cache.tensors)
    files.tensors.push_back(
        {tensor.name, written.cache.shards[tensor.shard].file, tensor.offset, tensor.bytes, {}});
  const Source source{graph,          prepared.checkpoint, scheme.name, mlc.tokenizer_digest,
                      report.context, report.chunk};
  POME_RETURN_IF_ERROR(finish_folder(files, source, options, staged->path(), work, &report));
  const uint64_t cache = 2 * static_cast<uint64_t>(cache_elements_per_token(graph)) *
                         static_cast<uint64_t>(report.context);
  add_next_steps(options, graph.info, scheme, written.exported.weight_bytes + cache, &report.notes);
  POME_RETURN_IF_ERROR(check_cancelled(work.cancel));
  POME_RETURN_IF_ERROR(staged->commit());
  return report;
}

}  // namespace pome
