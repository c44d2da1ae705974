// What Python's string methods do, on texts that keep the origin of their bytes. Positions that a
// template sees count characters; here positions are bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/jinja/text.h"

namespace pome::jinja {

// Classes of characters, as the methods is...() of Python's strings tell them.
bool is_python_space(char32_t point);
bool is_alpha(char32_t point);
bool is_decimal(char32_t point);
int decimal_value(char32_t point);  // of what is_decimal holds for
bool is_digit(char32_t point);
bool is_numeric(char32_t point);
bool is_lower(char32_t point);
bool is_upper(char32_t point);
bool is_title(char32_t point);
bool is_printable(char32_t point);
bool is_line_break(char32_t point);

int64_t count_characters(std::string_view bytes);
// Byte at which the character with this number begins; size() behind the last one.
size_t byte_of_character(std::string_view bytes, int64_t character);

// Removes white space, or any of the given characters, from the ends.
Text strip(const Text& text, bool left, bool right,
           const std::optional<std::string>& characters = std::nullopt);

Text lower(const Text& text);
Text upper(const Text& text);
Text fold(const Text& text);  // casefold()
Text swap_case(const Text& text);
Text capitalize(const Text& text);    // first character in title case, the others lower
Text title(const Text& text);         // first cased letter of each word in title case, others lower
Text title_filter(const Text& text);  // Jinja's filter: words begin behind spaces, -, (, {, [, <

// At each separator (not empty), at most `limit` times where it is not negative; from the right
// where `from_right`, still in reading order.
std::vector<Text> split(const Text& text, std::string_view separator, int64_t limit,
                        bool from_right = false);
std::vector<Text> split_at_space(const Text& text, int64_t limit, bool from_right = false);
std::vector<Text> split_lines(const Text& text, bool keep_ends);
// `count` < 0: all. An empty `old` stands between all characters.
Text replace(const Text& text, std::string_view old, const Text& fresh, int64_t count);
Text reversed(const Text& text);
// With so many fills before and after it; to `width` characters with it in the middle.
Text padded(const Text& text, int64_t before, int64_t after, std::string_view fill);
Text centered(const Text& text, int64_t width, std::string_view fill);
Text html_escaped(const Text& text);
Text url_quoted(const Text& text, bool for_query);
int64_t count_words(std::string_view bytes);

}  // namespace pome::jinja
