#include "formats/tiktoken_encodings.h"

#include <string_view>

#include "tokenizer/pattern.h"

namespace pome {
namespace {

constexpr std::string_view kCl100kPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwenPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kO200kPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// cl100k as tiktoken spells it, but for the possessive {1,3}+, which is something else to Ruby: a
// run of white space that ends the text counts before its newlines.
constexpr std::string_view kCl100kTiktokenPattern =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*+|)"
    R"(\s++$|\s*[\r\n]|\s+(?!\S)|\s)";
constexpr std::string_view kEndOfText = "<|endoftext|>";

void add_range(TiktokenEncoding& out, std::string_view prefix, int first_number, int32_t first_id,
               int32_t last_id) {
  for (int32_t id = first_id; id <= last_id; ++id) {
    out.special.emplace_back(
        std::string(prefix) + std::to_string(first_number + (id - first_id)) + "|>", id);
  }
}

TiktokenEncoding gpt2(std::string name) {
  TiktokenEncoding out;
  out.name = std::move(name);
  out.pattern = gpt2_pattern();
  out.special = {{std::string(kEndOfText), 50256}};
  out.bos = out.eos = kEndOfText;
  return out;
}

TiktokenEncoding cl100k() {
  TiktokenEncoding out;
  out.name = "cl100k_base";
  out.pattern = kCl100kTiktokenPattern;
  out.special = {{std::string(kEndOfText), 100257},
                 {"<|fim_prefix|>", 100258},
                 {"<|fim_middle|>", 100259},
                 {"<|fim_suffix|>", 100260},
                 {"<|endofprompt|>", 100276}};
  out.eos = kEndOfText;
  return out;
}

TiktokenEncoding o200k() {
  TiktokenEncoding out;
  out.name = "o200k_base";
  out.pattern = kO200kPattern;
  out.special = {{std::string(kEndOfText), 199999}, {"<|endofprompt|>", 200018}};
  out.eos = kEndOfText;
  return out;
}

TiktokenEncoding o200k_harmony() {
  TiktokenEncoding out = o200k();
  out.name = "o200k_harmony";
  const std::pair<const char*, int32_t> special[] = {
      {"<|startoftext|>", 199998}, {"<|return|>", 200002}, {"<|constrain|>", 200003},
      {"<|channel|>", 200005},     {"<|start|>", 200006},  {"<|end|>", 200007},
      {"<|message|>", 200008},     {"<|call|>", 200012}};
  for (const auto& [text, id] : special) out.special.emplace_back(text, id);
  const std::pair<int32_t, int32_t> reserved[] = {
      {200000, 200001}, {200004, 200004}, {200009, 200011}, {200013, 200017}, {200019, 201087}};
  for (const auto& [first, last] : reserved) {
    add_range(out, "<|reserved_", first, first, last);
  }
  out.bos = "<|startoftext|>";
  out.eos = "<|return|>";
  return out;
}

TiktokenEncoding qwen(bool first_generation) {
  TiktokenEncoding out;
  out.name = "qwen";
  out.pattern = kQwenPattern;
  out.nfc = true;
  out.special = {
      {std::string(kEndOfText), 151643}, {"<|im_start|>", 151644}, {"<|im_end|>", 151645}};
  if (first_generation) add_range(out, "<|extra_", 0, 151646, 151850);
  out.eos = kEndOfText;
  out.end_of_turn = "<|im_end|>";
  return out;
}

// Releases from 3.1 on gave names to tokens that were reserved before, and numbered the rest anew.
TiktokenEncoding llama3(bool before_3_1) {
  TiktokenEncoding out;
  out.name = "llama-3";
  out.pattern = kCl100kPattern;
  out.special = {{"<|begin_of_text|>", 128000},
                 {"<|end_of_text|>", 128001},
                 {"<|start_header_id|>", 128006},
                 {"<|end_header_id|>", 128007},
                 {"<|eot_id|>", 128009}};
  constexpr std::string_view kReserved = "<|reserved_special_token_";
  if (before_3_1) {
    add_range(out, kReserved, 0, 128002, 128005);
    add_range(out, kReserved, 4, 128008, 128008);
    add_range(out, kReserved, 5, 128010, 128255);
  } else {
    out.special.emplace_back("<|finetune_right_pad_id|>", 128004);
    out.special.emplace_back("<|eom_id|>", 128008);
    out.special.emplace_back("<|python_tag|>", 128010);
    add_range(out, kReserved, 0, 128002, 128003);
    add_range(out, kReserved, 2, 128005, 128005);
    add_range(out, kReserved, 3, 128011, 128255);
  }
  out.bos = "<|begin_of_text|>";
  out.eos = "<|end_of_text|>";
  out.end_of_turn = "<|eot_id|>";
  out.add_bos = true;
  return out;
}

}  // namespace

Result<TiktokenEncoding> find_tiktoken_encoding(size_t tokens, const Json& config) {
  const auto member = [&](const char* key) -> const Json* {
    if (!config.is_object()) return nullptr;
    const auto found = config.find(key);
    return found == config.end() || found->is_null() ? nullptr : &*found;
  };
  const Json* type = member("model_type");
  const std::string model_type = type && type->is_string() ? type->get<std::string>() : "";
  switch (tokens) {
    case 50256:
      return gpt2("r50k_base");
    case 50280:
      return gpt2("p50k_base");
    case 100256:
      return cl100k();
    case 128000:
      return llama3(config.is_object() && member("rope_scaling") == nullptr &&
                    member("rope_parameters") == nullptr);
    case 151643:
      return qwen(model_type.empty() || model_type == "qwen");
    case 199998: {
      const Json* size = member("vocab_size");
      const bool larger = size && size->is_number_integer() && size->get<int64_t>() >= 201088;
      return larger || model_type == "gpt_oss" ? o200k_harmony() : o200k();
    }
    default:
      return Status(unsupported("a tiktoken file of " + std::to_string(tokens) +
                                " tokens is none of the known encodings (r50k_base, p50k_base, "
                                "cl100k_base, o200k_base, o200k_harmony, Qwen, Llama 3)"))
          .hint("put the model's tokenizer.json beside it");
  }
}

}  // namespace pome
