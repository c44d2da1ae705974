#include <algorithm>
#include <cmath>
#include <memory>

#include "base/io.h"
#include "formats/gguf.h"
#include "outputs.h"
#include "random_weights.h"

namespace pome::random_model {
namespace {

constexpr uint64_t kTileBytes = 4u << 20;
using Metadata = std::vector<std::pair<std::string, GgufValue>>;

// UTF-8 of a code point below 0x800.
std::string utf8(unsigned code) {
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
}

// The visible stand-ins of byte-level BPE for the 256 bytes: printable Latin-1 stands for itself,
// the others follow from U+0100 on.
std::vector<std::string> byte_tokens() {
  std::vector<std::string> tokens;
  unsigned next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool itself = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    tokens.push_back(utf8(itself ? byte : next++));
  }
  return tokens;
}

constexpr std::pair<const char*, const char*> kMerges[] = {
    {"h", "e"}, {"i", "n"}, {"r", "e"}, {"o", "n"}, {"Ġ", "t"}, {"Ġt", "he"}, {"Ġ", "a"},
};

// bos and eos at their ids; bytes, merges and fillers in the places between.
Status add_tokenizer(const ModelShape& model, Metadata& out) {
  const int64_t size = model.vocab_size;
  if (size < 256 + static_cast<int64_t>(std::size(kMerges)) + 2 || model.bos_token_id >= size ||
      model.eos_token_id >= size) {
    return unsupported("a GGUF tokenizer for a vocabulary of " + std::to_string(size) +
                       " with bos " + std::to_string(model.bos_token_id) + " and eos " +
                       std::to_string(model.eos_token_id));
  }
  constexpr int64_t kNormal = 1, kControl = 3;
  std::vector<std::string> tokens(static_cast<size_t>(size));
  std::vector<int64_t> kinds(tokens.size(), kNormal);
  const auto control = [&](int64_t id, const char* text) {
    tokens[static_cast<size_t>(id)] = text;
    kinds[static_cast<size_t>(id)] = kControl;
  };
  control(model.bos_token_id, "<|bos|>");
  control(model.eos_token_id, "<|eos|>");
  std::vector<std::string> wanted = byte_tokens(), merges;
  for (const auto& [left, right] : kMerges) {
    wanted.push_back(std::string(left) + right);
    merges.push_back(std::string(left) + " " + right);
  }
  size_t next = 0;
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!tokens[id].empty()) continue;
    tokens[id] = next < wanted.size() ? wanted[next++] : "t" + std::to_string(id);
  }
  out.emplace_back("tokenizer.ggml.model", GgufValue::string("gpt2"));
  out.emplace_back("tokenizer.ggml.pre", GgufValue::string("gpt-2"));
  out.emplace_back("tokenizer.ggml.tokens", GgufValue::strings(std::move(tokens)));
  out.emplace_back("tokenizer.ggml.token_type", GgufValue::i32s(std::move(kinds)));
  out.emplace_back("tokenizer.ggml.merges", GgufValue::strings(std::move(merges)));
  out.emplace_back("tokenizer.ggml.bos_token_id",
                   GgufValue::u32(static_cast<uint32_t>(model.bos_token_id)));
  out.emplace_back("tokenizer.ggml.eos_token_id",
                   GgufValue::u32(static_cast<uint32_t>(model.eos_token_id)));
  out.emplace_back("tokenizer.ggml.add_bos_token", GgufValue::boolean(true));
  return {};
}

// Phi-3's long factors come with a fixed gain of the attention scores.
Status add_phi3_keys(const ModelShape& model, Metadata& out) {
  const int64_t context = model.max_position_embeddings;
  int64_t original = context;
  if (model.rope_scaling.is_object()) {
    POME_ASSIGN_OR_RETURN(const auto value,
                          json_int(model.rope_scaling, "original_max_position_embeddings"));
    original = value.value_or(std::min<int64_t>(context, 4096));
    const double ratio = static_cast<double>(context) / static_cast<double>(original);
    const double gain =
        ratio <= 1 ? 1 : std::sqrt(1 + std::log(ratio) / std::log(static_cast<double>(original)));
    out.emplace_back("phi3.rope.scaling.attn_factor", GgufValue::f32(static_cast<float>(gain)));
  }
  out.emplace_back("phi3.rope.scaling.original_context_length",
                   GgufValue::u32(static_cast<uint32_t>(original)));
  out.emplace_back("phi3.attention.sliding_window",
                   GgufValue::u32(static_cast<uint32_t>(model.sliding_window)));
  return {};
}

Result<Metadata> make_metadata(const ModelShape& model, const OutputOptions& options,
                               bool quantised) {
  Metadata out;
  out.emplace_back("general.architecture", GgufValue::string(model.family));
  out.emplace_back("general.type", GgufValue::string("model"));
  // Not the family: llama.cpp expects certain tokens of models whose name says "phi3".
  out.emplace_back("general.name", GgufValue::string("random weights"));
  if (options.type.file_type) {
    out.emplace_back("general.file_type",
                     GgufValue::u32(static_cast<uint32_t>(*options.type.file_type)));
  }
  if (quantised) out.emplace_back("general.quantization_version", GgufValue::u32(2));
  const auto put = [&](const char* key, int64_t value) {
    out.emplace_back(model.family + "." + key, GgufValue::u32(static_cast<uint32_t>(value)));
  };
  put("context_length", model.max_position_embeddings);
  put("embedding_length", model.hidden_size);
  put("block_count", model.num_hidden_layers);
  put("feed_forward_length", model.intermediate_size);
  put("attention.head_count", model.num_attention_heads);
  put("attention.head_count_kv", model.num_key_value_heads);
  put("attention.key_length", model.head_dim);
  put("attention.value_length", model.head_dim);
  put("rope.dimension_count", model.head_dim);
  put("vocab_size", model.vocab_size);
  out.emplace_back(model.family + ".attention.layer_norm_rms_epsilon",
                   GgufValue::f32(static_cast<float>(model.rms_norm_eps)));
  out.emplace_back(model.family + ".rope.freq_base",
                   GgufValue::f32(static_cast<float>(model.rope_theta)));
  if (model.family == "phi3") POME_RETURN_IF_ERROR(add_phi3_keys(model, out));
  POME_RETURN_IF_ERROR(add_tokenizer(model, out));
  return out;
}

}  // namespace

Result<uint64_t> write_gguf_file(const ModelShape& model, const OutputOptions& options) {
  if (!model.has_gguf_names) return unsupported("--format gguf for " + model.family);
  std::vector<GgufWriter::Declared> declared;
  bool quantised = false;
  for (const TensorSpec& spec : model.tensors) {
    const EncodingKind kind = gguf_type_of(options.type, spec, model);
    declared.push_back({spec.gguf_name, spec.shape, kind});
    quantised = quantised || traits(kind).block_elements > 1;
  }
  POME_ASSIGN_OR_RETURN(const Metadata metadata, make_metadata(model, options, quantised));
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<io::Staged> staged,
                        io::Staged::create(options.path, io::Staged::Kind::kFile, options.force));
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<GgufWriter> writer,
                        GgufWriter::create(staged->path(), metadata, declared));
  uint64_t total = 0;
  std::vector<std::byte> tile;
  for (size_t i = 0; i < declared.size(); ++i) {
    POME_ASSIGN_OR_RETURN(
        const RandomTensor tensor,
        RandomTensor::create(model.tensors[i], model, options.seed, declared[i].encoding));
    POME_RETURN_IF_ERROR(writer->begin_tensor());
    const int64_t step =
        std::max<int64_t>(1, static_cast<int64_t>(kTileBytes / tensor.row_bytes()));
    for (int64_t row = 0; row < tensor.rows(); row += step) {
      const int64_t count = std::min(step, tensor.rows() - row);
      tile.resize(static_cast<uint64_t>(count) * tensor.row_bytes());
      tensor.fill(row, tile);
      POME_RETURN_IF_ERROR(writer->write(tile));
      total += tile.size();
    }
  }
  POME_RETURN_IF_ERROR(writer->finish());
  POME_RETURN_IF_ERROR(staged->commit());
  return total;
}

}  // namespace pome::random_model
