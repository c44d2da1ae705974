#include "formats/tokenizer_json_pipeline.h"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/pretokenizer.h"

namespace pome {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581

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

// {"pattern": {"String": ...}} or {"pattern": {"Regex": ...}}.
struct Pattern {
  std::string text;
  bool regex = false;
};
Result<Pattern> pattern_of_component(const Component& component) {
  const std::string path = component.path + "/pattern";
  const auto pattern = component.value->find("pattern");
  if (pattern == component.value->end() || !pattern->is_object()) {
    return type_error(path, "an object");
  }
  const Component inner{&*pattern, path, component.type};
  Pattern out;
  out.regex = pattern->contains("Regex");
  POME_ASSIGN_OR_RETURN(out.text, text(inner, out.regex ? "Regex" : "String"));
  if (out.text.empty()) {
    return bad_input(Refusal::kRange, "an empty pattern matches everywhere").at(path);
  }
  return out;
}

Status read_metaspace(const Component& component, TokenizerSource& source) {
  if (source.escape_whitespace) return not_supported(component, "a second one");
  POME_ASSIGN_OR_RETURN(const std::string replacement, text(component, "replacement"));
  if (replacement != kSpaceMark) return not_supported(component, "replacement is not U+2581");
  std::string scheme;
  if (component.value->contains("prepend_scheme")) {
    POME_ASSIGN_OR_RETURN(scheme, text(component, "prepend_scheme"));
  } else {
    POME_ASSIGN_OR_RETURN(const bool prefix, flag(component, "add_prefix_space", true));
    scheme = prefix ? "always" : "never";
  }
  if (scheme != "always" && scheme != "never" && scheme != "first") {
    return not_supported(component, "prepend_scheme \"" + escape_for_terminal(scheme, 40) + "\"");
  }
  source.escape_whitespace = true;
  source.add_prefix_space = scheme != "never";
  source.prefix_only_first = scheme == "first";
  source.prefix_unless_space = true;
  POME_ASSIGN_OR_RETURN(source.split_at_spaces, flag(component, "split", true));
  return {};
}

Status read_split(const Component& component, TokenizerSource& source) {
  POME_ASSIGN_OR_RETURN(const Pattern pattern, pattern_of_component(component));
  POME_ASSIGN_OR_RETURN(const std::string behavior, text(component, "behavior"));
  POME_ASSIGN_OR_RETURN(const bool invert, flag(component, "invert", false));
  // Spaces are gone by then, so that cutting at them does nothing.
  if (!pattern.regex && pattern.text == " " && source.escape_whitespace) return {};
  if (!pattern.regex || !rule_of_pattern(pattern.text)) {
    return Status(StatusCode::kUnsupported,
                  "split pattern \"" + escape_for_terminal(pattern.text, 120) + "\" is not known",
                  Refusal::kRegex)
        .at(component.path + "/pattern");
  }
  // The known patterns match all text, so that what is cut out and what is between are the same.
  if (!(behavior == "Isolated" || (behavior == "Removed" && invert))) {
    return not_supported(component, "behavior \"" + escape_for_terminal(behavior, 40) + "\"");
  }
  source.pre_patterns.push_back(pattern.text);
  return {};
}

}  // namespace

Status read_normalizer(const Json& root, TokenizerSource& source) {
  POME_ASSIGN_OR_RETURN(const auto components, flatten(root, "normalizer", "normalizers"));
  for (const Component& component : components) {
    if (component.type == "Prepend" && !source.add_prefix_space) {
      POME_ASSIGN_OR_RETURN(const std::string prefix, text(component, "prepend"));
      if (prefix != kSpaceMark) return not_supported(component, "the text is not U+2581");
      source.add_prefix_space = true;
    } else if (component.type == "Replace" && !source.escape_whitespace) {
      POME_ASSIGN_OR_RETURN(const Pattern pattern, pattern_of_component(component));
      POME_ASSIGN_OR_RETURN(const std::string content, text(component, "content"));
      if (pattern.regex || pattern.text != " " || content != kSpaceMark) {
        return not_supported(component, "only ' ' to U+2581");
      }
      source.escape_whitespace = true;
    } else {
      return unknown_type(component, "normalizer");
    }
  }
  source.escape_in_normalizer = !components.empty();
  if (source.add_prefix_space && !source.escape_whitespace) {
    return not_supported(components.front(), "without Replace of ' ' by U+2581");
  }
  return {};
}

Status read_pre_tokenizer(const Json& root, TokenizerSource& source, bool& byte_level) {
  POME_ASSIGN_OR_RETURN(const auto components, flatten(root, "pre_tokenizer", "pretokenizers"));
  for (const Component& component : components) {
    if (byte_level) return not_supported(component, "after ByteLevel");
    if (component.type == "ByteLevel") {
      if (source.escape_whitespace) return not_supported(component, "after U+2581 for spaces");
      POME_ASSIGN_OR_RETURN(const bool prefix, flag(component, "add_prefix_space", true));
      POME_ASSIGN_OR_RETURN(const bool pattern, flag(component, "use_regex", true));
      // The prefix goes in front of each piece, which only without earlier cuts is the text.
      if (prefix && !source.pre_patterns.empty()) {
        return not_supported(component, "add_prefix_space behind another pre-tokenizer");
      }
      source.add_prefix_space = source.prefix_unless_space = prefix;
      if (pattern) source.pre_patterns.emplace_back(pattern_of(SplitRule::kGpt2));
      byte_level = true;
    } else if (component.type == "Split") {
      POME_RETURN_IF_ERROR(read_split(component, source));
    } else if (component.type == "Digits") {
      POME_ASSIGN_OR_RETURN(const bool each, flag(component, "individual_digits", false));
      source.pre_patterns.emplace_back(
          pattern_of(each ? SplitRule::kNumber : SplitRule::kNumberRun));
    } else if (component.type == "Metaspace") {
      if (!source.pre_patterns.empty()) return not_supported(component, "behind another one");
      POME_RETURN_IF_ERROR(read_metaspace(component, source));
    } else {
      return unknown_type(component, "pre-tokenizer");
    }
  }
  return {};
}

Status read_decoder(const Json& root, TokenizerSource& source) {
  POME_ASSIGN_OR_RETURN(const auto components, flatten(root, "decoder", "decoders"));
  for (const Component& component : components) {
    const std::string& type = component.type;
    if (type == "ByteLevel" || type == "ByteFallback" || type == "Fuse") continue;
    if (type == "Metaspace") {
      source.strip_first_space = source.add_prefix_space;
    } else if (type == "Replace") {
      POME_ASSIGN_OR_RETURN(const Pattern pattern, pattern_of_component(component));
      POME_ASSIGN_OR_RETURN(const std::string content, text(component, "content"));
      if (pattern.regex || pattern.text != kSpaceMark || content != " ") {
        return not_supported(component, "only U+2581 to ' '");
      }
    } else if (type == "Strip") {
      POME_ASSIGN_OR_RETURN(const std::string content, text(component, "content"));
      POME_ASSIGN_OR_RETURN(const auto start,
                            under(component.path, json_int(*component.value, "start")));
      POME_ASSIGN_OR_RETURN(const auto stop,
                            under(component.path, json_int(*component.value, "stop")));
      if (content != " " || start != 1 || stop != 0) {
        return not_supported(component, "only one ' ' at the start");
      }
      source.strip_first_space = true;
    } else {
      return unknown_type(component, "decoder");
    }
  }
  return {};
}

namespace {

// The id of a special token that a template names, from its own table.
Result<int32_t> template_id(const Component& component, const std::string& name, size_t count) {
  const std::string path = component.path + "/special_tokens";
  const auto table = component.value->find("special_tokens");
  if (table == component.value->end() || !table->is_object()) return type_error(path, "an object");
  const auto entry = table->find(name);
  if (entry == table->end() || !entry->is_object() || !entry->contains("ids")) {
    return type_error(path, "an entry for \"" + escape_for_terminal(name, 60) + "\"");
  }
  const Json& ids = (*entry)["ids"];
  if (!ids.is_array() || ids.size() != 1) {
    return not_supported(component, "a special token of several ids");
  }
  if (!ids[0].is_number_integer()) return type_error(path, "a whole number as id");
  const auto id = ids[0].get<int64_t>();
  if (id < 0 || id >= static_cast<int64_t>(count)) {
    return bad_input(Refusal::kRange, "id " + std::to_string(id) + " is outside the vocabulary")
        .at(path);
  }
  return static_cast<int32_t>(id);
}

Status read_template(const Component& component, TokenizerSource& source) {
  const std::string path = component.path + "/single";
  const auto single = component.value->find("single");
  if (single == component.value->end() || !single->is_array()) return type_error(path, "an array");
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
    POME_ASSIGN_OR_RETURN(const int32_t id, template_id(component, name, source.tokens.size()));
    bool& add = seen_text ? source.add_eos : source.add_bos;
    if (add) return not_supported(component, "several special tokens on one side");
    add = true;
    (seen_text ? source.eos : source.bos) = id;
  }
  if (!seen_text) return not_supported(component, "no text");
  return {};
}

}  // namespace

Status read_post_processor(const Json& root, TokenizerSource& source) {
  POME_ASSIGN_OR_RETURN(const auto components, flatten(root, "post_processor", "processors"));
  for (const Component& component : components) {
    if (component.type == "ByteLevel") continue;  // moves offsets only
    if (component.type != "TemplateProcessing") return unknown_type(component, "post-processor");
    POME_RETURN_IF_ERROR(read_template(component, source));
  }
  return {};
}

}  // namespace pome
