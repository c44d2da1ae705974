#include "cli/generation_flags.h"

#include <unistd.h>

#include <random>

#include "base/byte_source.h"
#include "cli/app.h"
#include "tokenizer/named_templates.h"

namespace pome::cli {

namespace {

constexpr uint64_t kMaxTemplateBytes = 4 << 20;

// A value that no flag could set either counts as absent: the file came with the weights.
std::optional<double> config_number(const Json& config, const char* key, double low, double high) {
  if (!config.is_object()) return std::nullopt;
  const auto found = config.find(key);
  if (found == config.end() || !found->is_number()) return std::nullopt;
  const double value = found->get<double>();
  return value >= low && value <= high ? std::optional(value) : std::nullopt;
}

}  // namespace

GenerateOptions settle(const GenerationFlags& flags, const Json& config) {
  GenerateOptions out;
  const bool samples =
      config.is_object() && config.contains("do_sample") && config["do_sample"] == Json(true);
  SamplerOptions& s = out.sampler;
  s.temperature = flags.temperature ? *flags.temperature
                  : samples ? config_number(config, "temperature", 0, kMaxTemperature).value_or(1.0)
                            : 0.0;
  const bool from_config = samples && !flags.temperature;
  s.top_k = flags.top_k ? *flags.top_k
            : from_config
                ? static_cast<int64_t>(config_number(config, "top_k", 0, kMaxTopK).value_or(0))
                : 0;
  s.top_p = flags.top_p   ? *flags.top_p
            : from_config ? config_number(config, "top_p", 0, 1).value_or(1)
                          : 1;
  s.min_p = flags.min_p   ? *flags.min_p
            : from_config ? config_number(config, "min_p", 0, 1).value_or(0)
                          : 0;
  s.repeat_penalty =
      flags.repeat_penalty
          ? *flags.repeat_penalty
          : config_number(config, "repetition_penalty", kMinPenalty, kMaxPenalty).value_or(1);
  s.seed =
      flags.seed ? *flags.seed : (uint64_t{std::random_device{}()} << 32 | std::random_device{}());
  out.max_tokens = flags.max_tokens
                       ? flags.max_tokens
                       : static_cast<int64_t>(
                             config_number(config, "max_new_tokens", 1, kMaxTokens).value_or(256));
  out.stop = flags.stop;
  return out;
}

Result<std::optional<std::string>> chosen_template(const GenerationFlags& flags) {
  const std::string& chosen = flags.chat_template;
  if (chosen.empty()) return std::optional<std::string>();
  if (const auto named = named_template(chosen)) return std::optional(std::string(*named));
  if (access(chosen.c_str(), F_OK) != 0)
    return usage_error("--template '" + escape_for_terminal(chosen) +
                       "' is neither a file nor one of " + named_template_list());
  POME_ASSIGN_OR_RETURN(std::string text, read_text_file(chosen, kMaxTemplateBytes));
  // Its mistakes belong to this file, not to the model.
  const auto parsed = ChatTemplate::parse(text);
  if (!parsed.ok()) return Status(parsed.status()).in(chosen);
  return std::optional(std::move(text));
}

void add_kv_flag(CLI::App* command, std::string* kv) {
  command
      ->add_option("--kv", *kv,
                   "how keys and values are cached: f32 f16 q8 q4 (default: f16; f32 where "
                   "arithmetic is exact)")
      ->check(CLI::IsMember({"f32", "f16", "q8", "q4"}));
}
std::optional<KvKind> chosen_kv(const std::string& kv) { return kernels::parse_kv_kind(kv); }

Result<std::string> resume_session(Runner& runner, const std::string& file) {
  if (!runner.keeps_contexts())
    return unsupported("--session: a context of the " + runner.info().kind +
                       " runner cannot be kept in a file")
        .hint("leave --session out, or run the checkpoint");
  if (access(file.c_str(), F_OK) != 0) return std::string();
  return runner.load_context(file);
}

void add_generation_flags(CLI::App* command, GenerationFlags* flags) {
  GenerationFlags& f = *flags;
  command
      ->add_option("-n,--max-tokens", f.max_tokens,
                   "tokens to generate (default: generation_config.json, else 256)")
      ->check(positive());
  command->add_option("--context", f.context, "tokens the KV cache holds")->check(positive());
  add_kv_flag(command, &f.kv);
  command->add_option("--session", f.session,
                      "keep the context in this file: go on from it, and write it at the end");
  command->add_option("--temp", f.temperature, "temperature; 0 = greedy")
      ->check(CLI::Range(0.0, kMaxTemperature));
  command->add_option("--top-k", f.top_k, "keep the k most likely; 0 = all")
      ->check(CLI::Range(int64_t{0}, kMaxTopK));
  command->add_option("--top-p", f.top_p, "keep the smallest set with this probability")
      ->check(CLI::Range(0.0, 1.0));
  command->add_option("--min-p", f.min_p, "drop what is less likely than this fraction of the best")
      ->check(CLI::Range(0.0, 1.0));
  command->add_option("--repeat-penalty", f.repeat_penalty, "divide the logits of recent tokens")
      ->check(CLI::Range(kMinPenalty, kMaxPenalty));
  command->add_option("--seed", f.seed, "seed of the sampler");
  command->add_option("--stop", f.stop, "text that ends the answer (may be given several times)");
  command->add_option(
      "--template", f.chat_template,
      "chat template instead of the model's: a Jinja file, or " + named_template_list());
}

}  // namespace pome::cli
