// convert: checkpoint -> graph -> quantise -> artefact folder, from end to end in bounded memory.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "export/coreml.h"
#include "export/gguf.h"
#include "export/onnx.h"
#include "formats/kv_sidecars.h"
#include "pipeline/activations.h"
#include "quantize/quantize.h"
#include "quantize/transform.h"

namespace pome {

struct ConvertReport;

struct ConvertOptions {
  std::string model, output;
  std::string target = "coreml";
  // Scheme, or "3.7bpw": one for each weight, so many bits in all. "": int4, of gguf q4_k_m, of mlc
  // q4f16_1.
  std::string weights;
  uint64_t size_limit = 0;  // of the whole artefact: a scheme for each weight; 0: none
  std::string profile;      // variant of the target: "ort" (default) or "plain" of onnx
  std::string graph;        // "" or, for onnx, "logits-only"
  std::string kv;           // "" or "explicit": a decode step with caches going in and out
  // Of that step: caches "fixed" or "dynamic" ("" = the target's default), how an app stores them
  // ("", "u8", "nf4") and how many tokens stay (0 = all; one of the two gives the other).
  std::string cache, kvq;
  int64_t kvq_group = 64, page_len = 0, max_pages = 0, sink_tokens = 0;
  std::string preset;              // decides of the above what is not set, context and budget
  uint64_t budget = 0;             // bytes of weights and caches; 0 = no limit
  int64_t default_context = 4096;  // where `context` is 0 and the model has as many positions
  std::optional<std::string> embedding;
  int64_t context =
      0;  // KV capacity; 0 = min(max_position_embeddings, 4096) rounded down to whole chunks
  int64_t chunk = 0;  // tokens per prefill call; 0 = 64, of mlc 2048
  bool one_function = false;
  int64_t block = 0;    // onnx: columns that share a scale; 0 = 32, or a whole row for plain int8
  std::string imatrix;  // gguf: an importance matrix of llama.cpp
  std::string quality;  // fast, good, best (pipeline/quality.h); "": good with `calibrate`
  // A text whose activations tell the rounding what matters; "": the built-in one.
  std::string calibrate;
  int64_t calibrate_tokens = 0;  // of that text, at most; 0: what the quality takes
  // Told what long work is about to begin, and what of earlier work it goes on with.
  std::function<void(const std::string&)> say;
  // Of coreml, which weights of matrices become zero: "" or "0.5" or "2:4"; or those below a
  // magnitude.
  std::string prune;
  double prune_below = 0;
  // "" or, for coreml, "int8": what int8 weights read is rounded to eight bits, in the range that
  // "minmax", "percentile" or "entropy" finds.
  std::string activations, activation_range = "percentile";
  std::string transforms = "none";  // quantize/transform.h: "auto", "none", or names
  bool split = false;               // quantize/split.h: bits are given to parts of weights
  bool force = false;
  std::string version = "1.0.0";  // semver of the artefact
  std::string license_id, license_source;
  // Set by convert: what `weights` and `size_limit` ask for, and as the manifest says it.
  double bits_per_weight = 0;
  std::string limit_text;
  bool describe_weights = false;  // fills weight_figures of the report
  // Looks at the artefact before it becomes visible, and fills `figures`; an error of it leaves
  // nothing behind. Null: nobody looks.
  std::function<Status(const std::string& path, ConvertReport* report)> gate;
};
// What allocating bits to weights chose, and what it expects.
struct AllocationReport {
  struct Weight {
    std::string name, encoding;
    uint64_t bytes = 0;
    double alpha = 0, error = 0, loss = 0;  // measure_costs.h
  };
  struct Point {  // bits per weight in all, and the loss
    double bits = 0, loss = 0;
    std::string name;  // of the encoding of all weights, or empty
    size_t items = 0;
  };
  uint64_t limit = 0, bytes = 0;  // of the weight file; a limit of 0: bits were not allocated
  double loss = 0, lower_bound = 0;
  std::string measured;        // how the losses were found
  bool is_divergence = false;  // losses are KL divergences, not a guess
  std::vector<Weight> weights;
  std::vector<Point> curve, uniform;  // at other limits; with one encoding for all
};
// What rounding cost one weight, from a sample of its rows.
struct WeightFigures {
  std::string name, encoding, fallback;
  int64_t rows = 0, columns = 0, sampled = 0;
  uint64_t bytes = 0;
  double signal_to_noise_db = 0;
  // Relative, of the output where activations are known, else of the weights; and the same had it
  // been rounded to the nearest.
  double error = 0, nearest_error = 0;
  double saturation = 0;  // share of weights beyond what the grid reaches
  bool of_output = false;
};
// How the artefact predicts a text that it was not calibrated on, beside the original.
struct TextFigures {
  int64_t tokens = 0;  // 0: nobody looked
  std::string text;
  double mean_kld = 0, mean_kld_stderr = 0, kld_999 = 0, max_kld = 0, top1_agreement = 0;
  double perplexity = 0, perplexity_original = 0, ppl_increase_percent = 0;
  double nll_difference = 0, nll_difference_stderr = 0;
};
struct ConvertReport {
  std::string output;
  std::string quality;
  int64_t calibrated_tokens = 0;
  std::string calibration_text, calibration_digest;
  std::vector<TransformChoice> transforms;  // that were tried
  int64_t split_networks = 0, split_tables = 0;
  ExportReport exported;
  uint64_t bytes = 0;         // of the whole artefact
  uint64_t source_bytes = 0;  // of the checkpoint's tensors
  int64_t context = 0, chunk = 0;
  PackagingSummary packaging;
  std::string tree_hash;
  AllocationReport allocation;
  std::vector<WeightFigures> weight_figures;
  TextFigures figures;
  std::vector<TensorChoice> tensors;
  std::vector<ActivationValue> activations;  // what became of the values that int8 weights read
  std::vector<TensorError> errors;           // gguf, mlc, onnx: what rounding cost each weight
  std::vector<std::string> warnings;
  std::vector<std::string> notes;  // what the target's runtime needs
};
// Nothing is visible at `output` unless all of it is complete. kExists, kDoesNotFit (free disk,
// before work starts).
Result<ConvertReport> convert(const ConvertOptions& options, const WorkContext& work);

}  // namespace pome
