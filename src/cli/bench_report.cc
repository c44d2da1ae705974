// Reports of measurements: keys for programs, tables for readers.
#include <algorithm>
#include <cmath>

#include "cli/cmd_bench.h"

namespace pome::cli {

namespace {

double rounded(double value) { return std::round(value * 1e4) / 1e4; }
Json or_null(const std::optional<double>& value) { return value ? Json(rounded(*value)) : Json(); }
Json median_or_null(const Samples& samples, double scale = 1) {
  return samples.empty() ? Json() : Json(rounded(samples.median() * scale));
}
Json spread(const Samples& samples) {
  if (samples.empty()) return nullptr;
  Json values = Json::array();
  for (const double value : samples.values) values.push_back(rounded(value));
  return {{"median", rounded(samples.median())},
          {"min", rounded(samples.smallest())},
          {"max", rounded(samples.largest())},
          {"values", values}};
}
constexpr double kMs = 1e3, kUs = 1e6;

Json kinds_json(const std::vector<KindTime>& kinds, double units, const Roofs& roofs) {
  Json out = Json::array();
  for (const KindTime& kind : kinds) {
    Json row = {{"kind", kind.kind},
                {"steps", rounded(static_cast<double>(kind.calls) / units)},
                {"us", rounded(kind.seconds * kUs / units)}};
    if (kind.work.weight_macs() > 0 && kind.seconds > 0) {
      row["read_bandwidth_fraction"] =
          rounded(static_cast<double>(kind.work.bytes()) / kind.seconds / roofs.read);
      row["compute_roof_fraction"] = rounded(seconds_at_roof(kind.work, roofs) / kind.seconds);
    }
    out.push_back(row);
  }
  return out;
}

Json run_json(const BenchRun& run, const BenchOptions& options) {
  Json out = {{"threads", run.threads},
              {"prefill_tokens_per_s", median_or_null(run.prefill)},
              {"decode_tokens_per_s", median_or_null(run.decode)},
              {"ttft_ms", median_or_null(run.prompt_to_token, kMs)},
              {"load_ms", median_or_null(run.load, kMs)},
              {"first_token_ms", median_or_null(run.first_token, kMs)},
              {"peak_memory_bytes", run.peak_memory},
              {"bytes_per_token", run.decode_work ? Json(run.decode_work->bytes()) : Json()},
              {"read_bandwidth_fraction", or_null(run.read_fraction())},
              {"compute_roof_fraction", or_null(run.compute_fraction())},
              {"isa", run.isa.empty() ? Json() : Json(run.isa)},
              {"prefill", spread(run.prefill)},
              {"decode", spread(run.decode)},
              {"load",
               {{"open_ms", median_or_null(run.open, kMs)},
                {"weights_ms", median_or_null(run.plan, kMs)},
                {"session_ms", median_or_null(run.session, kMs)}}},
              {"sampling_us", rounded(run.sampling * kUs)}};
  if (run.roofs.read > 0) {
    out["roofs"] = {
        {"read_bytes_per_s", std::round(run.roofs.read)},
        {"read_set_bytes", run.roofs.read_set},
        {"int8_macs_per_s", std::round(run.roofs.int8)},
        {"bf16_macs_per_s", run.roofs.bf16 > 0 ? Json(std::round(run.roofs.bf16)) : Json()},
        {"f32_macs_per_s", std::round(run.roofs.f32)}};
    out["macs_per_prompt"] = {{"int8", run.prefill_work->int8_macs},
                              {"bf16", run.prefill_work->bf16_macs},
                              {"f32", run.prefill_work->f32_macs},
                              {"attention", run.prefill_work->attention_macs}};
  }
  if (!run.prefill_kinds.empty())
    out["prefill_profile"] = kinds_json(run.prefill_kinds, 1, run.roofs);
  if (!run.decode_kinds.empty())
    out["decode_profile"] =
        kinds_json(run.decode_kinds, static_cast<double>(options.decode), run.roofs);
  return out;
}

// Lines of cells, each column as wide as its widest; the first to the left, the others to the
// right.
class Table {
 public:
  void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  std::string text() const {
    std::vector<size_t> widths;
    for (const auto& cells : rows_) {
      widths.resize(std::max(widths.size(), cells.size()), 0);
      for (size_t i = 0; i < cells.size(); ++i) widths[i] = std::max(widths[i], width_of(cells[i]));
    }
    std::string out;
    for (const auto& cells : rows_) {
      std::string line;
      for (size_t i = 0; i < cells.size(); ++i) {
        const std::string space(widths[i] - width_of(cells[i]), ' ');
        line += i == 0 ? cells[i] + space : "   " + space + cells[i];
      }
      out += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
    }
    return out;
  }

 private:
  static size_t width_of(const std::string& cell) {  // characters, not bytes
    return static_cast<size_t>(std::count_if(cell.begin(), cell.end(), [](char c) {
      return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    }));
  }
  std::vector<std::vector<std::string>> rows_;
};

std::string ms(double seconds) {
  const double value = seconds * kMs;
  return fixed(value, value < 10 ? 2 : value < 100 ? 1 : 0) + " ms";
}
std::string percent(const std::optional<double>& fraction) {
  return fraction ? fixed(*fraction * 100, 0) + " %" : "-";
}
std::string rate(const Samples& samples) {
  const int digits = samples.median() < 100 ? 2 : 1;
  return fixed(samples.median(), digits) + " tokens/s (" + fixed(samples.smallest(), digits) +
         " to " + fixed(samples.largest(), digits) + ")";
}
std::string giga(double value, const char* unit) {
  return value > 0 ? fixed(value * 1e-9, 1) + " G" + unit : "-";
}

std::string kinds_text(const BenchRun& run, const std::vector<KindTime>& kinds, double units,
                       double whole, const std::string& title) {
  Table table;
  table.row({title, "steps", "µs", "share", "of read roof", "of product roof"});
  double sum = 0;
  for (const KindTime& kind : kinds) {
    const double seconds = kind.seconds / units;
    sum += seconds;
    std::vector<std::string> row = {"  " + kind.kind,
                                    fixed(static_cast<double>(kind.calls) / units, 0),
                                    fixed(seconds * kUs, 1), percent(seconds / whole)};
    if (kind.work.weight_macs() > 0 && kind.seconds > 0) {
      row.push_back(
          percent(static_cast<double>(kind.work.bytes()) / kind.seconds / run.roofs.read));
      row.push_back(percent(seconds_at_roof(kind.work, run.roofs) / kind.seconds));
    }
    table.row(std::move(row));
  }
  table.row({"  all steps", "", fixed(sum * kUs, 1), percent(sum / whole)});
  table.row({"  measured without a profile", "", fixed(whole * kUs, 1), percent(1.0)});
  return table.text();
}

// How much of a decoded token is not reading of weights, by both ways to tell.
std::string overhead_text(const BenchRun& run) {
  const double whole = 1 / run.decode.median();
  const double reading = run.bytes_per_token() / run.roofs.read;
  std::string text = "  a token takes " + fixed(whole * kUs, 1) + " µs; reading its " +
                     human_bytes(run.decode_work->bytes()) + " at the roof takes " +
                     fixed(reading * kUs, 1) + ", all else " + fixed((whole - reading) * kUs, 1) +
                     "; choosing the best logit " + fixed(run.sampling * kUs, 1) + " more\n";
  if (run.decode_kinds.empty()) return text;
  double products = 0;
  for (const KindTime& kind : run.decode_kinds)
    if (kind.work.weight_macs() > 0) products += kind.seconds;
  const double others = whole - products / static_cast<double>(run.decoded);
  return text + "  outside of products with weights: " + fixed(others * kUs, 1) + " µs\n";
}

}  // namespace

Json to_json(const Bench& bench, const BenchOptions& options) {
  Json out = run_json(bench.runs[0], options);
  out["model"] = options.model;
  out["runner"] = bench.runner;
  out["machine"] = cpu_model_name();
  out["prompt_tokens"] = options.prompt;
  out["decode_tokens"] = options.decode;
  out["depth"] = options.depth;
  out["repetitions"] = options.repetitions;
  out["exact"] = options.exact;
  out["weights"] = options.weights;
  out["kv"] = options.kv;
  out["file_bytes"] = bench.file_bytes > 0 ? Json(bench.file_bytes) : Json();
  out["read_file_ms"] = bench.read_files ? Json(rounded(*bench.read_files * kMs)) : Json();
  out["tokenizer_ms"] = bench.tokenizer ? Json(rounded(*bench.tokenizer * kMs)) : Json();
  out["runs"] = Json::array();
  for (const BenchRun& run : bench.runs) out["runs"].push_back(run_json(run, options));
  return out;
}

std::string to_text(const Bench& bench, const BenchOptions& options) {
  std::string text = "machine      " + cpu_model_name() + "\n";
  if (bench.read_files)
    text += "file         " + human_bytes(bench.file_bytes) + "; reading it once takes " +
            ms(*bench.read_files) + "\n";
  if (bench.tokenizer) text += "tokenizer    " + ms(*bench.tokenizer) + " (not part of load)\n";
  for (const BenchRun& run : bench.runs) {
    const std::string threads =
        std::to_string(run.threads) + (run.threads == 1 ? " thread" : " threads");
    text += "\n" + threads + ", " + (run.isa.empty() ? bench.runner : run.isa) +
            (options.weights.empty() ? "" : ", " + options.weights) +
            (options.exact ? ", exact" : "") + "\n";
    text += "  load         " + ms(run.load.median());
    if (!run.isa.empty())
      text += ": opening " + ms(run.open.median()) + ", weights " + ms(run.plan.median()) +
              ", session " + ms(run.session.median());
    text += "; first token after " + ms(run.first_token.median()) + "\n";
    const auto part = [&](const char* name, int64_t tokens) {
      std::string label = "  " + std::string(name) + " " + std::to_string(tokens);
      label.resize(std::max<size_t>(label.size() + 1, 15), ' ');
      return label;
    };
    if (!run.prefill.empty()) {
      text += part("prefill", options.prompt) + rate(run.prefill);
      if (run.compute_fraction())
        text += ", " + percent(run.compute_fraction()) + " of the product roofs";
      text += "; first token after " + ms(run.prompt_to_token.median()) + "\n";
    }
    if (!run.decode.empty()) {
      text += part("decode", options.decode) + rate(run.decode);
      if (run.read_fraction())
        text += ", " + percent(run.read_fraction()) + " of the read roof (" +
                human_bytes(run.decode_work->bytes()) + " per token)";
      text += "\n";
    }
    text += "  memory       " + human_bytes(run.peak_memory) + " at most\n";
    if (run.roofs.read > 0)
      text += "  roofs        read " + giga(run.roofs.read, "B/s") + " (a set of " +
              human_bytes(run.roofs.read_set) + "), multiply-adds int8 " +
              giga(run.roofs.int8, "/s") + ", bf16 " + giga(run.roofs.bf16, "/s") + ", f32 " +
              giga(run.roofs.f32, "/s") + "\n";
    if (run.roofs.read > 0 && !run.decode.empty()) text += overhead_text(run);
    if (!run.prefill_kinds.empty())
      text += "\n" + kinds_text(run, run.prefill_kinds, 1,
                                static_cast<double>(options.prompt) / run.prefill.median(),
                                "  prefill, all tokens");
    if (!run.decode_kinds.empty())
      text += "\n" + kinds_text(run, run.decode_kinds, static_cast<double>(options.decode),
                                1 / run.decode.median(), "  decode, per token");
  }
  return text;
}

}  // namespace pome::cli
