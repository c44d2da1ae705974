// Graph -> GGUF file that llama.cpp loads, streamed: constants are read, encoded and written in
// tiles.
//
// A constant says itself which tensor it is or is a part of (gguf_name, GgufPlace), and the graph's
// ModelInfo::gguf the metadata; no family is known here. The hashes of the graph stand in the
// metadata (pome.graph_hash, pome.source_hash).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "export/report.h"
#include "formats/gguf.h"
#include "graph/graph.h"
#include "tokenizer/tokenizer_source.h"

namespace pome {

using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;

struct GgufOptions {
  std::string name;  // gguf_model_name()
  std::string scheme;
  int file_type = 0;       // general.file_type
  GgufMetadata tokenizer;  // gguf_tokenizer(), or the keys of the GGUF file it came from
  std::string tokenizer_digest;
  // Builds the graph that the written file holds; the hash in the metadata is that graph's, so that
  // whoever opens the file can check it. (Numbers of f32 metadata may differ from the source's in
  // the last digits.) Null: `graph` itself.
  std::function<Result<Graph>(const std::string& path)> reopen;
};
struct GgufReport {
  ExportReport exported;
  std::vector<TensorError> errors;  // of the weights, in graph order
};

// Whether a GGUF file can hold this model: kUnsupported names what it cannot.
Status check_gguf_support(const Graph& graph);
// Writes `path` in place (stage it). The graph is one of quantize_for_gguf().
Result<GgufReport> export_gguf(const Graph& graph, const GgufOptions& options,
                               const std::string& path, const WorkContext& work);

// llama.cpp takes "phi3" in a name to mean that blanks behind special tokens are dropped, and that
// the tokens of Phi-3 are there: a name that says so where it is true, and only there.
std::string gguf_model_name(const std::string& name, const TokenizerSource& source);

// tokenizer.ggml.* and the chat template. `vocab_size`: rows of the embedding; tokens without a
// text are marked unused. kUnsupported for tokenizers that llama.cpp does not have.
Result<GgufMetadata> gguf_tokenizer(const TokenizerSource& source, int64_t vocab_size,
                                    std::vector<std::string>* warnings);

}  // namespace pome
