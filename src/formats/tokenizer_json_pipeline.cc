#include "formats/tokenizer_json_pipeline.h"

#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/base64.h"
#include "tokenizer/unicode.h"

namespace pome {
namespace {

struct Component {
  const Json* value = nullptr;
  std::string path, type;
};

Status type_error(std::string path, std::string_view wanted) {
  return bad_input(Refusal::kType, "expected " + std::string(wanted)).at(path);
}
Status not_supported(const Component& component, std::string what) {
  return unsupported(component.type + ": " + what).at(component.path);
}
Status unknown_type(const Component& component, std::string_view role) {
  return unsupported(std::string(role) + " \"" + escape_for_terminal(component.type, 60) +
                     "\" is not supported")
      .at(component.path);
}

// The components of root[member] in order, Sequences resolved. Iterative: a Sequence inside a
// Sequence is put in its place.
Result<std::vector<Component>> flatten(const Json& root, const char* member, const char* list_key) {
  std::vector<Component> out;
  const auto found = root.find(member);
  if (found == root.end() || found->is_null()) return out;
  std::vector<Component> open{{&*found, std::string("/") + member, {}}};
  while (!open.empty()) {
    Component component = std::move(open.back());
    open.pop_back();
    if (!component.value->is_object()) return type_error(component.path, "an object");
    POME_ASSIGN_OR_RETURN(auto type, under(component.path, json_string(*component.value, "type")));
    if (!type) return type_error(component.path + "/type", "a string");
    component.type = *std::move(type);
    if (component.type != "Sequence") {
      out.push_back(std::move(component));
      continue;
    }
    const auto list = component.value->find(list_key);
    if (list == component.value->end() || !list->is_array()) {
      return type_error(component.path + "/" + list_key, "an array");
    }
    for (size_t i = list->size(); i-- > 0;) {
      open.push_back({&(*list)[i], component.path + "/" + list_key + "/" + std::to_string(i), {}});
    }
  }
  return out;
}

Result<bool> flag(const Component& component, const char* key, bool otherwise) {
  POME_ASSIGN_OR_RETURN(const auto value, under(component.path, json_bool(*component.value, key)));
  return value.value_or(otherwise);
}
Result<std::string> text(const Component& component, const char* key) {
  POME_ASSIGN_OR_RETURN(auto value, under(component.path, json_string(*component.value, key)));
  if (!value) return type_error(component.path + "/" + key, "a string");
  return *std::move(value);
}
Result<std::string> text_or(const Component& component, const char* key, std::string otherwise) {
  POME_ASSIGN_OR_RETURN(auto value, under(component.path, json_string(*component.value, key)));
  return std::move(value).value_or(std::move(otherwise));
}
Result<std::string> character(const Component& component, const char* key) {
  POME_ASSIGN_OR_RETURN(std::string value, text(component, key));
  if (value.empty() || decode_rune(value, 0).size != value.size()) {
    return type_error(component.path + "/" + key, "one character");
  }
  return value;
}
Result<uint32_t> count(const Component& component, const char* key, uint32_t otherwise) {
  POME_ASSIGN_OR_RETURN(const auto value, under(component.path, json_int(*component.value, key)));
  const int64_t number = value.value_or(otherwise);
  if (number < 0 || number > std::numeric_limits<uint32_t>::max()) {
    return bad_input(Refusal::kRange, std::to_string(number) + " is not 0..4294967295")
        .at(component.path + "/" + key);
  }
  return static_cast<uint32_t>(number);
}

// {"pattern": {"String": ...}} or {"pattern": {"Regex": ...}}.
Result<TextPattern> pattern_of_component(const Component& component) {
  const std::string path = component.path + "/pattern";
  const auto pattern = component.value->find("pattern");
  if (pattern == component.value->end() || !pattern->is_object()) {
    return type_error(path, "an object");
  }
  const Component inner{&*pattern, path, component.type};
  TextPattern out;
  out.regex = pattern->contains("Regex");
  POME_ASSIGN_OR_RETURN(out.text, text(inner, out.regex ? "Regex" : "String"));
  if (out.text.empty()) {
    return bad_input(Refusal::kRange, "an empty pattern matches everywhere").at(path);
  }
  return out;
}

Result<SplitBehavior> behavior_of(const Component& component) {
  static constexpr std::pair<std::string_view, SplitBehavior> kNames[] = {
      {"Removed", SplitBehavior::kRemoved},
      {"Isolated", SplitBehavior::kIsolated},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous}};
  POME_ASSIGN_OR_RETURN(const std::string name, text_or(component, "behavior", "Isolated"));
  for (const auto& [known, behavior] : kNames) {
    if (known == name) return behavior;
  }
  return not_supported(component, "behavior \"" + escape_for_terminal(name, 40) + "\"");
}

Result<PrependScheme> prepend_scheme(const Component& component) {
  POME_ASSIGN_OR_RETURN(const std::string scheme, text_or(component, "prepend_scheme", "always"));
  POME_ASSIGN_OR_RETURN(const bool prefix, flag(component, "add_prefix_space", true));
  if (!prefix || scheme == "never") return PrependScheme::kNever;
  if (scheme == "always") return PrependScheme::kAlways;
  if (scheme == "first") return PrependScheme::kFirst;
  return not_supported(component, "prepend_scheme \"" + escape_for_terminal(scheme, 40) + "\"");
}

Result<NormalizerStep> read_replace(const Component& component) {
  normalizer::Replace step;
  POME_ASSIGN_OR_RETURN(step.pattern, pattern_of_component(component));
  POME_ASSIGN_OR_RETURN(step.content, text(component, "content"));
  return NormalizerStep(std::move(step));
}

Result<NormalizerStep> read_bert(const Component& component) {
  normalizer::Bert step;
  POME_ASSIGN_OR_RETURN(step.clean_text, flag(component, "clean_text", true));
  POME_ASSIGN_OR_RETURN(step.handle_chinese_chars, flag(component, "handle_chinese_chars", true));
  POME_ASSIGN_OR_RETURN(step.lowercase, flag(component, "lowercase", true));
  POME_ASSIGN_OR_RETURN(step.strip_accents, flag(component, "strip_accents", step.lowercase));
  return NormalizerStep(step);
}

Result<NormalizerStep> normalizer_step(const Component& component) {
  using namespace normalizer;  // NOLINT: the steps
  static constexpr std::pair<std::string_view, Form> kForms[] = {
      {"NFC", Form::kNfc}, {"NFD", Form::kNfd}, {"NFKC", Form::kNfkc}, {"NFKD", Form::kNfkd}};
  for (const auto& [name, form] : kForms) {
    if (component.type == name) return NormalizerStep(UnicodeForm{form});
  }
  if (component.type == "Lowercase") return NormalizerStep(Lowercase{});
  if (component.type == "StripAccents") return NormalizerStep(StripAccents{});
  if (component.type == "Nmt") return NormalizerStep(Nmt{});
  if (component.type == "ByteLevel") return NormalizerStep(ByteLevel{});
  if (component.type == "BertNormalizer") return read_bert(component);
  if (component.type == "Replace") return read_replace(component);
  if (component.type == "Strip") {
    Strip step;
    POME_ASSIGN_OR_RETURN(step.left, flag(component, "strip_left", true));
    POME_ASSIGN_OR_RETURN(step.right, flag(component, "strip_right", true));
    return NormalizerStep(step);
  }
  if (component.type == "Prepend") {
    POME_ASSIGN_OR_RETURN(std::string prefix, text(component, "prepend"));
    return NormalizerStep(Prepend{std::move(prefix)});
  }
  if (component.type == "Precompiled") {
    POME_ASSIGN_OR_RETURN(const std::string encoded,
                          text_or(component, "precompiled_charsmap", ""));
    auto map = decode_base64(encoded);
    if (!map) return type_error(component.path + "/precompiled_charsmap", "base64");
    Precompiled step;
    step.charsmap = *std::move(map);
    return NormalizerStep(std::move(step));
  }
  return unknown_type(component, "normalizer");
}

Result<PreTokenizerStep> read_metaspace(const Component& component) {
  pretokenizer::Metaspace step;
  POME_ASSIGN_OR_RETURN(step.replacement, character(component, "replacement"));
  POME_ASSIGN_OR_RETURN(step.prepend, prepend_scheme(component));
  POME_ASSIGN_OR_RETURN(step.split, flag(component, "split", true));
  return PreTokenizerStep(std::move(step));
}

Result<PreTokenizerStep> pre_tokenizer_step(const Component& component) {
  using namespace pretokenizer;  // NOLINT: the steps
  if (component.type == "ByteLevel") {
    ByteLevel step;
    POME_ASSIGN_OR_RETURN(step.add_prefix_space, flag(component, "add_prefix_space", true));
    POME_ASSIGN_OR_RETURN(step.use_regex, flag(component, "use_regex", true));
    return PreTokenizerStep(step);
  }
  if (component.type == "Metaspace") return read_metaspace(component);
  if (component.type == "Whitespace") return PreTokenizerStep(Whitespace{});
  if (component.type == "WhitespaceSplit") return PreTokenizerStep(WhitespaceSplit{});
  if (component.type == "BertPreTokenizer") return PreTokenizerStep(Bert{});
  if (component.type == "UnicodeScripts") return PreTokenizerStep(UnicodeScripts{});
  if (component.type == "Punctuation") {
    POME_ASSIGN_OR_RETURN(const SplitBehavior behavior, behavior_of(component));
    return PreTokenizerStep(Punctuation{behavior});
  }
  if (component.type == "Digits") {
    POME_ASSIGN_OR_RETURN(const bool each, flag(component, "individual_digits", false));
    return PreTokenizerStep(Digits{each});
  }
  if (component.type == "CharDelimiterSplit") {
    POME_ASSIGN_OR_RETURN(std::string delimiter, character(component, "delimiter"));
    return PreTokenizerStep(CharDelimiter{std::move(delimiter)});
  }
  if (component.type == "FixedLength") {
    POME_ASSIGN_OR_RETURN(const uint32_t length, count(component, "length", 5));
    return PreTokenizerStep(FixedLength{length});
  }
  if (component.type == "Split") {
    Split step;
    POME_ASSIGN_OR_RETURN(step.pattern, pattern_of_component(component));
    POME_ASSIGN_OR_RETURN(step.behavior, behavior_of(component));
    POME_ASSIGN_OR_RETURN(step.invert, flag(component, "invert", false));
    return PreTokenizerStep(std::move(step));
  }
  return unknown_type(component, "pre-tokenizer");
}

Result<DecoderStep> read_ctc(const Component& component) {
  decoder::Ctc step;
  POME_ASSIGN_OR_RETURN(step.pad_token, text_or(component, "pad_token", step.pad_token));
  POME_ASSIGN_OR_RETURN(step.word_delimiter_token,
                        text_or(component, "word_delimiter_token", step.word_delimiter_token));
  POME_ASSIGN_OR_RETURN(step.cleanup, flag(component, "cleanup", true));
  return DecoderStep(std::move(step));
}

Result<DecoderStep> decoder_step(const Component& component) {
  using namespace decoder;  // NOLINT: the steps
  if (component.type == "ByteLevel") return DecoderStep(ByteLevel{});
  if (component.type == "ByteFallback") return DecoderStep(ByteFallback{});
  if (component.type == "Fuse") return DecoderStep(Fuse{});
  if (component.type == "CTC") return read_ctc(component);
  if (component.type == "WordPiece") {
    WordPiece step;
    POME_ASSIGN_OR_RETURN(step.prefix, text_or(component, "prefix", step.prefix));
    POME_ASSIGN_OR_RETURN(step.cleanup, flag(component, "cleanup", true));
    return DecoderStep(std::move(step));
  }
  if (component.type == "Metaspace") {
    Metaspace step;
    POME_ASSIGN_OR_RETURN(step.replacement, character(component, "replacement"));
    POME_ASSIGN_OR_RETURN(const PrependScheme scheme, prepend_scheme(component));
    step.drop_in_first = scheme != PrependScheme::kNever;
    return DecoderStep(std::move(step));
  }
  if (component.type == "BPEDecoder") {
    Bpe step;
    POME_ASSIGN_OR_RETURN(step.suffix, text_or(component, "suffix", step.suffix));
    return DecoderStep(std::move(step));
  }
  if (component.type == "Replace") {
    Replace step;
    POME_ASSIGN_OR_RETURN(step.pattern, pattern_of_component(component));
    POME_ASSIGN_OR_RETURN(step.content, text(component, "content"));
    return DecoderStep(std::move(step));
  }
  if (component.type == "Strip") {
    Strip step;
    POME_ASSIGN_OR_RETURN(step.content, character(component, "content"));
    POME_ASSIGN_OR_RETURN(step.start, count(component, "start", 0));
    POME_ASSIGN_OR_RETURN(step.stop, count(component, "stop", 0));
    return DecoderStep(std::move(step));
  }
  return unknown_type(component, "decoder");
}

Result<int32_t> checked_id(const Json& value, const std::string& path, size_t vocabulary) {
  if (!value.is_number_integer()) return type_error(path, "a whole number as id");
  const auto id = value.get<int64_t>();
  if (id < 0 || id >= static_cast<int64_t>(vocabulary)) {
    return bad_input(Refusal::kRange, "id " + std::to_string(id) + " is outside the vocabulary")
        .at(path);
  }
  return static_cast<int32_t>(id);
}

// The ids of a special token that a template names, from its own table.
Status add_template_ids(const Component& component, const std::string& name, size_t vocabulary,
                        std::vector<int32_t>& out) {
  const std::string path = component.path + "/special_tokens";
  const auto table = component.value->find("special_tokens");
  if (table == component.value->end() || !table->is_object()) return type_error(path, "an object");
  const auto entry = table->find(name);
  if (entry == table->end() || !entry->is_object() || !entry->contains("ids") ||
      !(*entry)["ids"].is_array()) {
    return type_error(path, "an entry for \"" + escape_for_terminal(name, 60) + "\"");
  }
  for (const Json& id : (*entry)["ids"]) {
    POME_ASSIGN_OR_RETURN(const int32_t checked, checked_id(id, path, vocabulary));
    out.push_back(checked);
  }
  return {};
}

Status read_template(const Component& component, TokenizerSource& source) {
  constexpr size_t kMaxPieces = 64;
  const std::string path = component.path + "/single";
  const auto single = component.value->find("single");
  if (single == component.value->end() || !single->is_array()) return type_error(path, "an array");
  if (single->size() > kMaxPieces) {
    return bad_input(Refusal::kLimit, "more than 64 pieces").at(path);
  }
  bool seen_text = false;
  for (const Json& item : *single) {
    if (!item.is_object()) return type_error(path, "objects");
    if (item.contains("Sequence")) {
      if (seen_text) return not_supported(component, "the text twice");
      seen_text = true;
      continue;
    }
    const auto special = item.find("SpecialToken");
    if (special == item.end() || !special->is_object()) return type_error(path, "SpecialToken");
    POME_ASSIGN_OR_RETURN(const std::string name, text({&*special, path, {}}, "id"));
    POME_RETURN_IF_ERROR(add_template_ids(component, name, source.tokens.size(),
                                          seen_text ? source.suffix_ids : source.prefix_ids));
  }
  if (!seen_text) return not_supported(component, "no text");
  return {};
}

// "cls": ["[CLS]", 101], "sep": ["[SEP]", 102]
Status read_cls_and_sep(const Component& component, TokenizerSource& source) {
  const std::pair<const char*, std::vector<int32_t>*> sides[] = {{"cls", &source.prefix_ids},
                                                                 {"sep", &source.suffix_ids}};
  for (const auto& [key, ids] : sides) {
    const std::string path = component.path + "/" + key;
    const auto pair = component.value->find(key);
    if (pair == component.value->end() || !pair->is_array() || pair->size() != 2) {
      return type_error(path, "a token and its id");
    }
    POME_ASSIGN_OR_RETURN(const int32_t id, checked_id((*pair)[1], path, source.tokens.size()));
    ids->push_back(id);
  }
  return {};
}

}  // namespace

Status read_normalizer(const Json& root, TokenizerSource& source) {
  POME_ASSIGN_OR_RETURN(const auto components, flatten(root, "normalizer", "normalizers"));
  for (const Component& component : components) {
    POME_ASSIGN_OR_RETURN(NormalizerStep step, normalizer_step(component));
    source.normalizer.push_back(std::move(step));
  }
  return {};
}

Status read_pre_tokenizer(const Json& root, TokenizerSource& source) {
  POME_ASSIGN_OR_RETURN(const auto components, flatten(root, "pre_tokenizer", "pretokenizers"));
  for (const Component& component : components) {
    POME_ASSIGN_OR_RETURN(PreTokenizerStep step, pre_tokenizer_step(component));
    source.pre_tokenizer.push_back(std::move(step));
  }
  return {};
}

Status read_decoder(const Json& root, TokenizerSource& source) {
  POME_ASSIGN_OR_RETURN(const auto components, flatten(root, "decoder", "decoders"));
  for (const Component& component : components) {
    POME_ASSIGN_OR_RETURN(DecoderStep step, decoder_step(component));
    source.decoder.push_back(std::move(step));
  }
  const auto found = root.find("decoder");
  if (found == root.end() || found->is_null()) {
    source.decoder.emplace_back(decoder::JoinWithSpaces{});
  }
  return {};
}

Status read_post_processor(const Json& root, TokenizerSource& source) {
  POME_ASSIGN_OR_RETURN(const auto components, flatten(root, "post_processor", "processors"));
  bool placed = false;
  for (const Component& component : components) {
    if (component.type == "ByteLevel") continue;  // moves offsets only
    if (placed) return not_supported(component, "a second one that adds tokens");
    placed = true;
    if (component.type == "TemplateProcessing") {
      POME_RETURN_IF_ERROR(read_template(component, source));
    } else if (component.type == "BertProcessing" || component.type == "RobertaProcessing") {
      POME_RETURN_IF_ERROR(read_cls_and_sep(component, source));
    } else {
      return unknown_type(component, "post-processor");
    }
  }
  return {};
}

}  // namespace pome
