// The targets of convert: what they differ in. convert() does the rest, the same for all. A new
// target is one file with a TargetWriter, and one row.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "export/report.h"
#include "formats/checkpoint.h"
#include "formats/manifest.h"
#include "pipeline/convert.h"
#include "tokenizer/tokenizer.h"

namespace pome {

// What a target is told about the model.
struct Source {
  const Graph& graph;  // quantised
  const Checkpoint& checkpoint;
  const Tokenizer* tokenizer;  // null where the checkpoint has none
  std::string scheme, tokenizer_digest;
  int64_t context = 0, chunk = 0;
  int64_t places = 0;                                      // tokens that the caches hold
  std::map<std::string, ActivationGrid> activations = {};  // of int8 weights, by their names
};
// What it wrote into the staged folder.
struct Written {
  ExportReport exported;
  std::string model;  // inside the folder
  std::vector<ManifestTensor> tensors;
};

// One run of convert: the calls come in the order in which they stand here. What is worth saying
// goes to the report.
class TargetWriter {
 public:
  virtual ~TargetWriter() = default;

  // Flags and small files, before the model is opened.
  virtual Status prepare(const ConvertOptions& options, ConvertReport* report);
  // Builds the graph and settles the report's context and chunk; by default a whole number of
  // chunks, at most 4096 tokens.
  virtual Result<Graph> build(const Checkpoint& checkpoint, const ConvertOptions& options,
                              ConvertReport* report);
  // By default as the recipe says. What is written may have been rounded another way since.
  virtual Result<Quantized> quantize(const Graph& graph, const ConvertOptions& options,
                                     ConvertReport* report);
  // Of the weights in the output; by default each constant once.
  virtual uint64_t stored_bytes(const Graph& quantized) const;

  // What quantize() wishes for from now on, by name of the constant; what is not named as before.
  void choose(std::map<std::string, Encoding> encodings) { recipe_.chosen = std::move(encodings); }
  // Constants for which this is the same are stored in one encoding.
  virtual std::string stored_with(const Constant& constant) const { return constant.name; }
  // What one constant of a quantised graph takes in the weight file, by default as in a package of
  // Core ML; `padded`: with what lies around it, at most.
  virtual uint64_t file_bytes(const Graph& quantized, size_t constant, bool padded) const;

  // `path`: the staged folder, or the file itself where it is one_file().
  virtual Result<Written> write(const Source& source, const ConvertOptions& options,
                                const std::string& path, const WorkContext& work,
                                ConvertReport* report) = 0;

  // Whether the output is the model file itself, without a manifest.
  virtual bool one_file(const ConvertOptions&) const { return false; }
  // Whether quantize() multiplies weights by their gguf_place.factor.
  virtual bool scales_weights() const { return false; }
  // Whether tokenizer files lie beside the model.
  virtual bool tokenizer_beside() const { return true; }

 protected:
  QuantRecipe recipe_;
};

// What hardware runs well, for allocating bits.
struct EncodingSet {
  std::string profile;                // that names it; the first of a target is its default
  std::vector<Encoding> encodings;    // wishes: shapes may force a fallback
  std::vector<Encoding> narrow = {};  // where the others leave no room within the limit
  std::string narrow_note = {};       // said then
  double least_embedding_bits = 4;    // of the embedding and the head, while that fits
};

// What each target has of the flags that not all have.
struct TargetRow {
  Target target;
  const char* weights;  // default of --weights
  int64_t chunk = 64;   // and of --chunk
  std::vector<std::string> profiles = {}, graphs = {};
  bool profiles_need_limit = false;      // they only say which of `sets` is meant
  std::vector<std::string> caches = {};  // --cache of --kv explicit, the default first
  int64_t cache_value_bytes = 2;       // of a number in a cache, where its runtime chooses no other
  bool blocks = false;                 // --block
  bool importance = false;             // --imatrix
  bool activations = false;            // --activations
  bool sparse = false;                 // --prune
  bool inserts = false;                // takes products that the source has not (--transforms)
  std::vector<EncodingSet> sets = {};  // for --size-limit; empty: its scheme says all
  std::unique_ptr<TargetWriter> (*make)() = nullptr;
};
std::span<const TargetRow> target_rows();
std::string join(const std::vector<std::string>& names);  // with spaces, for messages
// The row that the options name, whose flags it has; kUsage.
Result<const TargetRow*> find_target(const ConvertOptions& options);

std::unique_ptr<TargetWriter> coreml_writer();
std::unique_ptr<TargetWriter> onnx_writer();
std::unique_ptr<TargetWriter> gguf_writer();
std::unique_ptr<TargetWriter> mlc_writer();

}  // namespace pome
