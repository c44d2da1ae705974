#include "quantize/gguf_types.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>

namespace pome {

namespace {

using Kind = EncodingKind;

enum class Mix : uint8_t { kPlain, kSmall, kMedium, kLarge, kPure };

struct Scheme {
  std::string_view name;
  Kind base;
  int file_type;
  Mix mix = Mix::kPlain;
};
constexpr Scheme kSchemes[] = {
    {"f32", Kind::kF32, 0},
    {"f16", Kind::kF16, 1},
    {"bf16", Kind::kBF16, 32},
    {"q8_0", Kind::kQ8_0, 7},
    {"q4_0", Kind::kQ4_0, 2},
    {"q4_1", Kind::kQ4_1, 3},
    {"q5_0", Kind::kQ5_0, 8},
    {"q5_1", Kind::kQ5_1, 9},
    {"q2_k", Kind::kQ2_K, 10, Mix::kMedium},
    {"q2_k_s", Kind::kQ2_K, 21, Mix::kSmall},
    {"q3_k_s", Kind::kQ3_K, 11, Mix::kSmall},
    {"q3_k_m", Kind::kQ3_K, 12, Mix::kMedium},
    {"q3_k_l", Kind::kQ3_K, 13, Mix::kLarge},
    {"q4_k_s", Kind::kQ4_K, 14, Mix::kSmall},
    {"q4_k_m", Kind::kQ4_K, 15, Mix::kMedium},
    {"q5_k_s", Kind::kQ5_K, 16, Mix::kSmall},
    {"q5_k_m", Kind::kQ5_K, 17, Mix::kMedium},
    {"q6_k", Kind::kQ6_K, 18},
    // All matrices alike, embedding and head too: what llama-quantize calls --pure.
    {"q2_k_pure", Kind::kQ2_K, 10, Mix::kPure},
    {"q3_k_pure", Kind::kQ3_K, 12, Mix::kPure},
    {"q4_k_pure", Kind::kQ4_K, 15, Mix::kPure},
    {"q5_k_pure", Kind::kQ5_K, 17, Mix::kPure},
    {"iq4_nl", Kind::kIQ4_NL, 25},
    {"iq4_xs", Kind::kIQ4_XS, 30},
    {"mxfp4", Kind::kMXFP4, 38},
    // What people write for the mixture of that base.
    {"q3_k", Kind::kQ3_K, 12, Mix::kMedium},
    {"q4_k", Kind::kQ4_K, 15, Mix::kMedium},
    {"q5_k", Kind::kQ5_K, 17, Mix::kMedium},
};

Result<Scheme> parse(std::string_view name) {
  for (const Scheme& scheme : kSchemes)
    if (scheme.name == name) return scheme;
  return usage_error("unknown GGUF type \"" + escape_for_terminal(name) + "\"")
      .hint("known: " + gguf_scheme_names());
}

enum class Place : uint8_t { kOther, kEmbedding, kHead, kValue, kKey, kOutput, kDown };

bool holds(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

Place place_of(std::string_view name) {
  if (name == "output.weight") return Place::kHead;
  if (name == "token_embd.weight") return Place::kEmbedding;
  for (const char* part : {"attn_qkv.weight", "attn_kv_b.weight", "attn_v.weight"})
    if (holds(name, part)) return Place::kValue;
  if (holds(name, "attn_k.weight")) return Place::kKey;
  if (holds(name, "attn_output.weight")) return Place::kOutput;
  if (holds(name, "ffn_down")) return Place::kDown;
  return Place::kOther;
}

bool is_quantisable(const Constant& constant) {
  const std::string& name = constant.gguf_name;
  if (constant.data->shape().size() < 2 || !name.ends_with("weight")) return false;
  if (constant.gguf_place.vector) return false;
  for (const char* part : {"_norm.weight", "ffn_gate_inp.weight", "position_embd"})
    if (holds(name, part)) return false;
  return constant.role == Constant::Role::kMatrix || constant.role == Constant::Role::kEmbedding ||
         constant.role == Constant::Role::kHead;
}

int layer_of(const std::string& name) {
  return name.rfind("blk.", 0) == 0 ? std::atoi(name.c_str() + 4) : 0;
}

// What the rules look at.
struct Facts {
  int layers = 1, heads_per_kv = 1, experts = 0;
  bool tied = false, seventy = false, importance = false;
  int values = 0;  // how many tensors of kind kValue there are
};

Facts facts_of(const Graph& graph, bool importance) {
  Facts out;
  const ModelInfo& info = graph.info;
  out.layers = static_cast<int>(std::max<int64_t>(1, info.num_hidden_layers));
  out.heads_per_kv =
      static_cast<int>(info.num_attention_heads / std::max<int64_t>(1, info.num_key_value_heads));
  if (const auto found = info.gguf.values.find("expert_count"); found != info.gguf.values.end())
    if (const auto* count = std::get_if<int64_t>(&found->second))
      out.experts = static_cast<int>(*count);
  out.seventy = info.gguf.architecture == "llama" && out.layers == 80 && out.heads_per_kv > 1;
  out.importance = importance;
  out.tied = true;
  std::set<std::string> values;
  for (const Constant& constant : graph.constants) {
    if (constant.gguf_name == "output.weight") out.tied = false;
    if (place_of(constant.gguf_name) == Place::kValue) values.insert(constant.gguf_name);
  }
  out.values = static_cast<int>(values.size());
  return out;
}

// Layers that get more bits: the first and last eighths, and every third between them.
bool more(int layer, int layers) {
  return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

Kind head_type(const Scheme& scheme, int64_t columns) {
  if (scheme.base == Kind::kMXFP4) return Kind::kQ8_0;
  const bool plain = traits(scheme.base).block_elements == 1;
  if (columns % traits(scheme.base).block_elements != 0) return Kind::kQ8_0;
  return plain || scheme.base == Kind::kQ8_0 ? scheme.base : Kind::kQ6_K;
}

Kind value_type(const Scheme& s, const Facts& f, int index) {
  Kind type = s.base;
  const bool four = f.heads_per_kv >= 4;
  if (s.base == Kind::kQ2_K && s.mix == Mix::kMedium) type = four ? Kind::kQ4_K : Kind::kQ3_K;
  if (s.base == Kind::kQ2_K && s.mix == Mix::kSmall && four) type = Kind::kQ4_K;
  if (s.base == Kind::kQ3_K && s.mix == Mix::kMedium) type = index < 2 ? Kind::kQ5_K : Kind::kQ4_K;
  if (s.base == Kind::kQ3_K && s.mix == Mix::kLarge) type = Kind::kQ5_K;
  if ((s.base == Kind::kIQ4_NL || s.base == Kind::kIQ4_XS) && four) type = Kind::kQ5_K;
  if ((s.base == Kind::kQ4_K || s.base == Kind::kQ5_K) && s.mix == Mix::kMedium &&
      more(index, f.values))
    type = Kind::kQ6_K;
  if (s.base == Kind::kQ4_K && s.mix == Mix::kSmall && index < 4) type = Kind::kQ5_K;
  if (f.seventy && (type == Kind::kQ3_K || type == Kind::kQ4_K)) type = Kind::kQ5_K;
  return f.experts == 8 && traits(s.base).block_elements > 1 ? Kind::kQ8_0 : type;
}

Kind down_type(const Scheme& s, const Facts& f, int layer) {
  const bool early = layer < f.layers / 8;
  const bool medium = s.mix == Mix::kMedium, large = s.mix == Mix::kLarge;
  switch (s.base) {
    case Kind::kQ2_K:
      return medium ? Kind::kQ3_K : early ? Kind::kQ4_K : s.base;
    case Kind::kQ3_K:
      if (large) return Kind::kQ5_K;
      return !medium ? s.base : layer < f.layers / 16 ? Kind::kQ5_K : Kind::kQ4_K;
    case Kind::kQ4_K:
      if (medium) return more(layer, f.layers) ? Kind::kQ6_K : s.base;
      return early ? Kind::kQ5_K : s.base;
    case Kind::kQ5_K:
      return medium && more(layer, f.layers) ? Kind::kQ6_K : s.base;
    case Kind::kIQ4_NL:
    case Kind::kIQ4_XS:
      return early && !f.importance ? Kind::kQ5_K : s.base;
    case Kind::kQ4_0:
      return early && f.importance ? Kind::kQ4_1 : s.base;
    case Kind::kQ5_0:
      return early && f.importance ? Kind::kQ5_1 : s.base;
    default:
      return s.base;
  }
}

Kind output_type(const Scheme& s, const Facts& f) {
  if (f.experts == 8) {
    switch (s.base) {
      case Kind::kQ2_K:
      case Kind::kQ3_K:
      case Kind::kQ4_K:
      case Kind::kIQ4_NL:
      case Kind::kIQ4_XS:
        return s.mix == Mix::kLarge || (s.base == Kind::kQ2_K && s.mix == Mix::kSmall)
                   ? s.base
                   : Kind::kQ5_K;
      default:
        return s.base;
    }
  }
  if (s.base == Kind::kQ2_K && s.mix == Mix::kMedium) return Kind::kQ3_K;
  if (s.base == Kind::kQ3_K && s.mix == Mix::kMedium) return Kind::kQ4_K;
  if (s.base == Kind::kQ3_K && s.mix == Mix::kLarge) return Kind::kQ5_K;
  return s.base;
}

// A type whose blocks divide the row.
Kind dividing(Kind type, int64_t columns, std::string* why) {
  const auto fits = [&](Kind kind) { return columns % traits(kind).block_elements == 0; };
  if (fits(type)) return type;
  *why = std::to_string(columns) + " columns are not a multiple of " +
         std::to_string(traits(type).block_elements);
  Kind other = type;
  switch (type) {
    case Kind::kIQ4_XS:
      other = Kind::kIQ4_NL;
      break;
    case Kind::kQ2_K:
    case Kind::kQ3_K:
      other = Kind::kQ4_0;
      break;
    case Kind::kQ4_K:
      other = Kind::kQ5_0;
      break;
    case Kind::kQ5_K:
      other = Kind::kQ5_1;
      break;
    case Kind::kQ6_K:
      other = Kind::kQ8_0;
      break;
    default:
      break;
  }
  return fits(other) ? other : Kind::kF16;
}

double bits_of(Kind kind) {
  const EncodingTraits& type = traits(kind);
  return type.block_elements > 0 ? 8.0 * type.block_bytes / type.block_elements : 64.0;
}

class Chooser {
 public:
  Chooser(const Graph& graph, const Scheme& scheme, std::optional<Kind> embedding, bool importance,
          const std::map<std::string, Encoding>& chosen)
      : scheme_(scheme),
        embedding_(embedding),
        facts_(facts_of(graph, importance)),
        wishes_(chosen) {}

  // The parts of one fused tensor get the same.
  Kind choose(const Constant& constant, std::string* why) {
    const auto [found, added] = chosen_.try_emplace(constant.gguf_name);
    auto& [type, reason] = found->second;
    if (added) {
      type = pick(constant, &reason);
      if (place_of(constant.gguf_name) == Place::kValue) ++values_;
    }
    *why = reason;
    return type;
  }

 private:
  Kind pick(const Constant& constant, std::string* why) {
    why->clear();
    if (!is_quantisable(constant)) return Kind::kF32;
    const ConstantData& data = *constant.data;
    const Kind type = dividing(wished(constant), data.columns(), why);
    const Kind stored = data.encoding().kind;
    const bool quantised = traits(stored).block_elements > 1 && traits(stored).gguf_type >= 0;
    if (quantised && type != stored && traits(type).block_elements > 1 &&
        bits_of(stored) <= bits_of(type)) {
      *why = "stored as " + std::string(traits(stored).name) + " already";
      return stored;
    }
    return type;
  }

  Kind wished(const Constant& constant) const {
    const auto wish = wishes_.find(constant.name);
    if (wish != wishes_.end()) return wish->second.kind;
    const std::string& name = constant.gguf_name;
    const Place place = place_of(name);
    const bool head = place == Place::kHead || (facts_.tied && place == Place::kEmbedding);
    if ((head || place == Place::kEmbedding) && embedding_) return *embedding_;
    if (scheme_.mix == Mix::kPure) return scheme_.base;
    if (head) return head_type(scheme_, constant.data->columns());
    if (scheme_.base == Kind::kMXFP4) {
      const bool experts = constant.data->shape().size() == 3 && holds(name, "_exps.");
      return experts || (facts_.experts == 0 && place != Place::kEmbedding) ? Kind::kMXFP4
                                                                            : Kind::kQ8_0;
    }
    if (traits(scheme_.base).block_elements == 1) return scheme_.base;
    switch (place) {
      case Place::kValue:
        return value_type(scheme_, facts_, values_);
      case Place::kKey:
        return facts_.experts == 8 ? Kind::kQ8_0 : scheme_.base;
      case Place::kOutput:
        return output_type(scheme_, facts_);
      case Place::kDown:
        return down_type(scheme_, facts_, layer_of(name));
      default:
        return scheme_.base;
    }
  }

  const Scheme& scheme_;
  std::optional<Kind> embedding_;
  Facts facts_;
  const std::map<std::string, Encoding>& wishes_;
  std::map<std::string, std::pair<Kind, std::string>> chosen_;  // by tensor of the file
  int values_ = 0;
};

// Weights of mean 1; columns that met nothing count a little, so that they stay sane.
Result<std::vector<float>> usable(const std::vector<float>& given, const Constant& constant) {
  const ConstantData& data = *constant.data;
  const int64_t experts = data.shape().size() == 3 ? data.shape()[0] : 1;
  const int64_t count = static_cast<int64_t>(given.size());
  if (count != data.columns() && count != data.columns() * experts)
    return bad_input(Refusal::kRange, std::to_string(count) + " values for the " +
                                          std::to_string(data.columns()) + " columns of " +
                                          constant.gguf_name)
        .at("importance matrix")
        .hint("it belongs to another model");
  double sum = 0;
  for (const float value : given) {
    if (!(value >= 0) || !std::isfinite(value))
      return bad_input(Refusal::kRange, "values must be finite and not negative")
          .at("importance matrix, " + constant.gguf_name);
    sum += value;
  }
  std::vector<float> out(given.size(), 1.0f);
  if (!(sum > 0)) return out;
  const double mean = sum / static_cast<double>(count);
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<float>(std::max(given[i] / mean, 1e-4));
  return out;
}

// Of the type that most weights have; readers only show it.
int commonest_file_type(const Quantized& quantized) {
  std::map<Kind, int64_t> counts;
  for (const TensorChoice& choice : quantized.tensors)
    counts[choice.used.kind] += choice.rows * choice.columns;
  int64_t most = 0;
  int out = 0;
  for (const Scheme& scheme : kSchemes)
    if (const auto found = counts.find(scheme.base);
        found != counts.end() && found->second > most) {
      most = found->second;
      out = scheme.file_type;
    }
  return out;
}

}  // namespace

Result<EncodingKind> gguf_type_of(std::string_view name) {
  POME_ASSIGN_OR_RETURN(const Scheme scheme, parse(name));
  return scheme.base;
}

std::string gguf_scheme_names() {
  std::string out;
  for (const Scheme& scheme : kSchemes)
    if (scheme.name != "q3_k" && scheme.name != "q4_k" && scheme.name != "q5_k")
      out += (out.empty() ? "" : " ") + std::string(scheme.name);
  return out;
}

Result<GgufQuantized> quantize_for_gguf(const Graph& graph, std::string_view scheme_name,
                                        std::optional<std::string_view> embedding,
                                        const ColumnWeights& weights, bool calibrated,
                                        const std::map<std::string, Encoding>& chosen) {
  POME_ASSIGN_OR_RETURN(const Scheme scheme, parse(scheme_name));
  std::optional<Kind> head;
  if (embedding) {
    POME_ASSIGN_OR_RETURN(const Scheme other, parse(*embedding));
    head = other.base;
  }
  Chooser chooser(graph, scheme, head, calibrated || !weights.empty(), chosen);
  GgufQuantized out{{graph, {}}, scheme.file_type, {}};
  size_t weighted = 0, weightless = 0;
  for (Constant& constant : out.quantized.graph.constants) {
    if (constant.gguf_place.factor != 1)
      constant.data = multiply_scalar(constant.data, constant.gguf_place.factor);
    const ConstantData& data = *constant.data;
    TensorChoice choice{constant.name, data.rows(), data.columns(), data.encoding(), {}};
    if (!constant.gguf_name.empty()) {
      choice.used = Encoding::plain(chooser.choose(constant, &choice.fallback));
      const auto layout = encoded_layout(choice.used, data.rows(), data.columns());
      if (!layout.ok()) return Status(layout.status()).at("tensor " + constant.name);
      std::vector<float> columns;
      const auto found = weights.find(constant.gguf_name);
      const bool blocks = traits(choice.used.kind).block_elements > 1;
      if (found != weights.end() && blocks) {
        POME_ASSIGN_OR_RETURN(columns, usable(found->second, constant));
        ++weighted;
      } else if (blocks && constant.gguf_name.rfind("blk.", 0) == 0) {
        ++weightless;
      }
      choice.kept_integers = blocks && choice.used == data.encoding();
      if (!choice.kept_integers)
        constant.data =
            encoded_constant(constant.data, choice.used, constant.name, std::move(columns));
    }
    out.quantized.tensors.push_back(std::move(choice));
  }
  if (!chosen.empty()) out.file_type = commonest_file_type(out.quantized);
  if (!weights.empty() && weightless > 0)
    out.warnings.push_back("the importance matrix knows nothing of " + std::to_string(weightless) +
                           " of " + std::to_string(weightless + weighted) + " weights");
  return out;
}

}  // namespace pome
