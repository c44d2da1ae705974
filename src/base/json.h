// Strict JSON reading with limits, for files from anywhere: depth, duplicate keys, size, UTF-8.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace pome {

using Json = nlohmann::ordered_json;

struct JsonLimits {
  int depth = 128;
  uint64_t bytes = 256u << 20;
  uint64_t values = 64u << 20;
};
// Whole text is one JSON value; no comments, NaN, BOM or trailing bytes. Refusals: kType (syntax),
// kDepth, kDup, kUtf8, kLimit. `name` is for messages; offsets are byte offsets into `text`.
// Iterative: the stack does not grow with input.
Result<Json> parse_json(std::string_view text, const std::string& name,
                        const JsonLimits& limits = {});
Result<Json> read_json_file(const std::string& path, const JsonLimits& limits = {});

// Typed access that names the JSON path in errors. A missing key or null gives nullopt; a wrong
// type is kType.
Result<std::optional<int64_t>> json_int(const Json& object, std::string_view key);
Result<std::optional<double>> json_number(const Json& object, std::string_view key);  // finite
Result<std::optional<bool>> json_bool(const Json& object, std::string_view key);
Result<std::optional<std::string>> json_string(const Json& object, std::string_view key);

// Text for --json and for files: sorted as inserted, UTF-8, `indent` < 0 for one line. Invalid
// UTF-8 becomes U+FFFD.
std::string dump_json(const Json& value, int indent = -1);

}  // namespace pome
