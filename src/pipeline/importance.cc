#include "pipeline/importance.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/checked.h"
#include "base/io.h"
#include "formats/checkpoint.h"
#include "models/models.h"
#include "pipeline/layer_chain.h"
#include "pipeline/quality.h"
#include "tokenizer/tokenizer.h"

namespace pome {

namespace {

// The tensor of the file gets the sums once, even where it is made of several weights.
void add_entry(const Constant& constant, const std::vector<MomentsPtr>& moments,
               ImportanceMatrix* out) {
  ImportanceEntry entry;
  for (const MomentsPtr& one : moments) {
    const auto columns = static_cast<size_t>(constant.data->columns());
    if (one)
      entry.mean_squares.insert(entry.mean_squares.end(), one->diagonal.begin(),
                                one->diagonal.end());
    else
      entry.mean_squares.insert(entry.mean_squares.end(), columns, 0.0f);
    entry.counts.push_back(one ? static_cast<float>(one->tokens) : 0.0f);
    entry.calls = std::max(entry.calls, static_cast<double>(entry.counts.back()));
  }
  out->entries.emplace(constant.gguf_name, std::move(entry));
}

Result<ImportanceMatrix> gather(const Graph& graph, const CalibrationText& text, int64_t window,
                                const WorkContext& work, ImportanceReport* report) {
  std::map<std::string, const Constant*> constants;
  for (const Constant& constant : graph.constants) constants[constant.name] = &constant;
  ImportanceMatrix out;
  const auto see = [&](const ReadValue& value, const std::vector<MomentsPtr>& moments) -> Status {
    for (const MomentsPtr& one : moments) report->unmet += one ? 0 : 1;
    for (const std::string& weight : value.weights)
      if (!constants.at(weight)->gguf_name.empty()) add_entry(*constants.at(weight), moments, &out);
    return {};
  };
  POME_RETURN_IF_ERROR(watch_layers(
      graph, text.ids, window, [](const ReadValue&) { return false; }, see, work));
  return out;
}

}  // namespace

Result<ImportanceReport> write_importance(const ImportanceOptions& options,
                                          const WorkContext& work) {
  POME_ASSIGN_OR_RETURN(const Checkpoint checkpoint, open_checkpoint(options.model));
  POME_ASSIGN_OR_RETURN(const Graph graph, build_graph(checkpoint, {}));
  if (graph.info.gguf.architecture.empty())
    return unsupported("GGUF has no names for the weights of the family " + graph.info.family)
        .in(options.model);
  if (Status has = check_has_tokenizer(checkpoint); !has.ok())
    return std::move(has).in(options.model);
  POME_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::create(checkpoint.tokenizer));
  const int64_t window = std::min(options.window, graph.info.max_position_embeddings);
  POME_ASSIGN_OR_RETURN(const CalibrationText text,
                        read_calibration_text(options.text, *tokenizer, checkpoint.tokenizer,
                                              options.tokens, window));
  POME_ASSIGN_OR_RETURN(const auto staged,
                        io::Staged::create(options.output, io::Staged::Kind::kFile, options.force));
  ImportanceReport out;
  out.tokens = static_cast<int64_t>(text.ids.size());
  out.text_digest = text.digest;
  POME_ASSIGN_OR_RETURN(const ImportanceMatrix matrix, gather(graph, text, window, work, &out));
  out.weights = static_cast<int64_t>(matrix.entries.size());
  if (matrix.entries.empty())
    return unsupported("no weight of the model has a name in GGUF").in(options.model);
  POME_RETURN_IF_ERROR(write_imatrix(matrix, {text.name, ceil_div(out.tokens, window), window},
                                     options.form, staged->path()));
  POME_ASSIGN_OR_RETURN(const ByteSourcePtr file, open_for_reading(staged->path()));
  out.bytes = file->size();
  POME_RETURN_IF_ERROR(staged->commit());
  return out;
}

}  // namespace pome
