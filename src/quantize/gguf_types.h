// Which type each tensor of a GGUF file gets: types and mixtures by llama.cpp's names and rules
// (llama-quantize of August 2026).
//
// A mixture gives more bits to tensors by kind and layer: the head, attn_v, ffn_down, attn_output.
// Norms, biases, routers and position tables stay f32. A row that is not a multiple of the block
// falls back to a type with smaller blocks, as llama.cpp does. A tensor that is stored in a
// quantised type already keeps its bytes where the wished type is the same, and where it would be
// larger.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "graph/graph.h"
#include "quantize/quantize.h"

namespace pome {

// "f32 f16 bf16 q8_0 q4_0 .. q4_k_m .. iq4_xs mxfp4"
std::string gguf_scheme_names();

// Mean squares of the activations that meet each column, by GGUF tensor name; K of them, or E * K
// of stacked experts.
using ColumnWeights = std::map<std::string, std::vector<float>>;

struct GgufQuantized {
  Quantized quantized;
  int file_type = 0;  // general.file_type
  std::vector<std::string> warnings;
};
// kUsage for an unknown scheme. `embedding`: the type of token_embd and of the head instead.
// kRange where weights do not fit their tensor. `calibrated`: what columns count will be known
// without weights too; some mixtures spend fewer bits then. `chosen`, by name of the constant: what
// an allocation wishes for instead of the scheme; file_type is then that of the commonest type.
Result<GgufQuantized> quantize_for_gguf(const Graph& graph, std::string_view scheme,
                                        std::optional<std::string_view> embedding,
                                        const ColumnWeights& weights, bool calibrated = false,
                                        const std::map<std::string, Encoding>& chosen = {});
// The type of a scheme without mixture.
Result<EncodingKind> gguf_type_of(std::string_view scheme);

}  // namespace pome
