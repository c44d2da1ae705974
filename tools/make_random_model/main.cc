// Writes a model of the true shapes of a config.json with random weights of realistic statistics:
// something to convert, load and time where the real weights may not be had. Its text is noise.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>

#include "families.h"
#include "outputs.h"

namespace pome::random_model {
namespace {

// "500MB", "5GB", "1GiB", or plain bytes.
Result<uint64_t> parse_size(const std::string& text) {
  size_t digits = 0;
  uint64_t value = 0;
  while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9' && digits < 15) {
    value = value * 10 + static_cast<uint64_t>(text[digits++] - '0');
  }
  const std::string unit = text.substr(digits);
  struct Unit {
    const char* name;
    uint64_t bytes;
  };
  for (const Unit& known :
       {Unit{"", 1}, Unit{"KB", 1000}, Unit{"MB", 1000000}, Unit{"GB", 1000000000},
        Unit{"KiB", 1 << 10}, Unit{"MiB", 1 << 20}, Unit{"GiB", 1 << 30}}) {
    if (digits > 0 && value > 0 && unit == known.name &&
        value < (uint64_t{1} << 63) / known.bytes) {
      return value * known.bytes;
    }
  }
  return usage_error("not a size: \"" + text + "\" (such as 500MB or 5GB)");
}

struct Arguments {
  std::string config, format = "safetensors", type = "bf16", shard_size = "5GB";
  int64_t layers = 0;
  OutputOptions output;
};

Status run(Arguments& arguments) {
  POME_ASSIGN_OR_RETURN(arguments.output.type, parse_type(arguments.type));
  POME_ASSIGN_OR_RETURN(arguments.output.shard_bytes, parse_size(arguments.shard_size));
  POME_ASSIGN_OR_RETURN(const Json config, read_json_file(arguments.config));
  Result<ModelShape> read = read_shape(config, arguments.layers);
  if (!read.ok()) return std::move(read).status().in(arguments.config);
  const ModelShape model = std::move(read).value();
  const bool gguf = arguments.format == "gguf";
  if (gguf && !arguments.output.tokenizer_folder.empty()) {
    return usage_error("--tokenizer is for safetensors; a GGUF file gets a tokenizer of its own");
  }
  const auto start = std::chrono::steady_clock::now();
  POME_ASSIGN_OR_RETURN(const uint64_t bytes,
                        gguf ? write_gguf_file(model, arguments.output)
                             : write_hf_folder(model, config, arguments.output));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  std::printf("%s: %zu tensors, %.3f GB of weights in %.1f s\n", arguments.output.path.c_str(),
              model.tensors.size(), static_cast<double>(bytes) * 1e-9, took.count());
  return {};
}

}  // namespace
}  // namespace pome::random_model

int main(int argc, char** argv) {
  pome::random_model::Arguments arguments;
  CLI::App app("Writes a model with random weights of the shapes in a config.json (" +
               pome::random_model::family_names() + ")");
  app.add_option("config", arguments.config, "config.json of Hugging Face")->required();
  app.add_option("-o,--output", arguments.output.path, "folder or .gguf file to write")->required();
  app.add_option("--format", arguments.format)
      ->check(CLI::IsMember({"safetensors", "gguf"}))
      ->capture_default_str();
  app.add_option("--type", arguments.type,
                 "bf16, f16, f32; for gguf also a block type (q8_0, q4_k ...: every matrix has it) "
                 "or a mixture of llama.cpp (q3_k_m, q4_k_s, q4_k_m, q5_k_s, q5_k_m)")
      ->capture_default_str();
  app.add_option("--shard-size", arguments.shard_size, "largest safetensors file")
      ->capture_default_str();
  app.add_option("--layers", arguments.layers, "instead of num_hidden_layers")
      ->check(CLI::Range(1, 10000));
  app.add_option("--seed", arguments.output.seed)->capture_default_str();
  app.add_option("--tokenizer", arguments.output.tokenizer_folder,
                 "folder whose tokenizer files are copied (safetensors)");
  app.add_flag("--force", arguments.output.force, "replace an existing output");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : 2;
  }
  const pome::Status status = pome::random_model::run(arguments);
  if (!status.ok()) std::fprintf(stderr, "make_random_model: %s\n", status.to_string().c_str());
  return pome::exit_code(status.code());
}
