// A tokenizer without a model around it.
#include <filesystem>

#include "base/json.h"
#include "formats/checkpoint.h"
#include "formats/sentencepiece_model.h"
#include "formats/tiktoken.h"
#include "formats/tokenizer_json.h"

namespace pome {

namespace {

namespace fs = std::filesystem;
constexpr uint64_t kMaxJson = uint64_t{256} << 20;

// Null when the file is not there.
Result<Json> optional_json(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return Json();
  POME_ASSIGN_OR_RETURN(const std::string text, read_text_file(path.string(), kMaxJson));
  return parse_json(text, path.string());
}

// A file that holds a tokenizer and nothing else; nullopt for all others.
Result<std::optional<TokenizerSource>> tokenizer_file(const std::string& path,
                                                      const OpenOptions& options) {
  if (fs::path(path).extension() == ".json" && !path.ends_with(".index.json")) {
    POME_ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kMaxJson));
    POME_ASSIGN_OR_RETURN(const Json json, parse_json(text, path));
    POME_ASSIGN_OR_RETURN(TokenizerSource source, parse_tokenizer_json(json, path));
    return std::optional(std::move(source));
  }
  POME_ASSIGN_OR_RETURN(const ByteSourcePtr source,
                        options.mapped ? open_mapped(path) : open_for_reading(path));
  if (looks_like_tiktoken(*source)) {
    POME_ASSIGN_OR_RETURN(TokenizerSource made, read_tiktoken(source, Json()));
    return std::optional(std::move(made));
  }
  if (fs::path(path).extension() == ".model" && looks_like_sentencepiece(*source)) {
    POME_ASSIGN_OR_RETURN(TokenizerSource made, read_sentencepiece_model(source));
    return std::optional(std::move(made));
  }
  return std::optional<TokenizerSource>();
}

}  // namespace

Result<TokenizerSource> open_tokenizer(const std::string& path, const OpenOptions& options) {
  std::error_code error;
  const fs::path base(path);
  if (fs::is_directory(base, error) && !vocabulary_files(path).empty()) {
    POME_ASSIGN_OR_RETURN(const Json config, optional_json(base / "config.json"));
    POME_ASSIGN_OR_RETURN(const Json generation, optional_json(base / "generation_config.json"));
    return read_hf_tokenizer(path, config, generation);
  }
  if (fs::is_regular_file(base, error)) {
    POME_ASSIGN_OR_RETURN(std::optional<TokenizerSource> alone, tokenizer_file(path, options));
    if (alone) return *std::move(alone);
  }
  OpenOptions open = options;
  open.need_tokenizer = true;
  POME_ASSIGN_OR_RETURN(Checkpoint checkpoint, open_checkpoint(path, open));
  return std::move(checkpoint.tokenizer);
}

}  // namespace pome
