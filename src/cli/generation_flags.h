// The flags of commands that generate text, and how they settle with generation_config.json.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/engine.h"
#include "engine/generate.h"

namespace pome::cli {

inline constexpr double kMaxTemperature = 100, kMinPenalty = 0.01, kMaxPenalty = 100;
inline constexpr int64_t kMaxTopK = int64_t{1} << 30, kMaxTokens = 1'000'000'000;

struct GenerationFlags {
  int64_t max_tokens = 0, context = 0;  // 0 = not given
  std::optional<double> temperature, top_p, min_p, repeat_penalty;
  std::optional<int64_t> top_k;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  std::string kv;             // f32, f16, q8, q4; empty: not given
  std::string session;        // a file that keeps the context
  std::string chat_template;  // a file, or the name of a built-in one
};

// --kv, for all commands that run a model.
void add_kv_flag(CLI::App* command, std::string* kv);
std::optional<KvKind> chosen_kv(const std::string& kv);
// Goes on from the file that --session names, where there is one; gives its note. Refuses runners
// that could not write it at the end.
Result<std::string> resume_session(Runner& runner, const std::string& file);
void add_generation_flags(CLI::App* command, GenerationFlags* flags);
// Flags, else the config, else greedy with a drawn seed and 256 tokens.
GenerateOptions settle(const GenerationFlags& flags, const Json& generation_config);
// The Jinja source that --template names; nullopt without the flag.
Result<std::optional<std::string>> chosen_template(const GenerationFlags& flags);

}  // namespace pome::cli
