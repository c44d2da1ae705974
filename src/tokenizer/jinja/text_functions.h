// What Python's string methods do, on texts that keep the origin of their bytes.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/jinja/value.h"

namespace pome::jinja {

// Removes white space, or any of the given characters, from the ends.
Text strip(const Text& text, bool left, bool right,
           const std::optional<std::string>& characters = std::nullopt);
Text lower(const Text& text);
Text upper(const Text& text);
Text capitalize(const Text& text);  // first character upper, the others lower
Text title(const Text& text);       // first letter of each word upper, the others lower
// At each separator (not empty), at most `limit` times where it is not negative.
std::vector<Text> split(const Text& text, std::string_view separator, int64_t limit);
std::vector<Text> split_at_space(const Text& text);  // at runs of white space, no empty parts
// `count` < 0: all.
Text replace(const Text& text, std::string_view old, const Text& fresh, int64_t count);

}  // namespace pome::jinja
