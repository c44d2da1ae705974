// What pome bench measures, and how it is shown and compared.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/app.h"
#include "engine/engine.h"

namespace pome::cli {

struct BenchOptions {
  std::string model;
  std::string kv;       // LoadOptions::kv; empty: not given
  std::string weights;  // as if converted with these; empty: as stored
  int64_t prompt = 512, decode = 128, depth = 0, repetitions = 5;
  std::vector<int> threads;
  bool exact = false, profile = false;
  std::string baseline, fail_over = "10%";
};

struct Samples {
  std::vector<double> values;
  void add(double value) { values.push_back(value); }
  bool empty() const { return values.empty(); }
  double median() const;
  double smallest() const;
  double largest() const;
};

// Per second: bytes, and multiply-adds by kind (0: the instruction set has none).
struct Roofs {
  double read = 0, int8 = 0, bf16 = 0, f32 = 0;
  uint64_t read_set = 0;  // bytes that were read over and over
};

// Steps of one kind, summed.
struct KindTime {
  std::string kind;
  uint64_t calls = 0;
  double seconds = 0;
  Work work;
};

// With one number of threads. Times in seconds.
struct BenchRun {
  int threads = 1;
  int64_t prompt = 0, decoded = 0;  // tokens
  Samples open, plan, session, load, first_token;
  Samples prefill, decode;  // tokens per second
  Samples prompt_to_token;  // prefill and the choice of a token
  double sampling = 0;      // choosing the best of one token's logits
  uint64_t peak_memory = 0;
  std::string isa;
  std::optional<Work> prefill_work, decode_work;  // of the whole prompt; of one token, on average
  Roofs roofs;
  std::vector<KindTime> prefill_kinds, decode_kinds;  // with --profile: of the whole prompt; of
                                                      // all tokens

  double bytes_per_token() const;
  std::optional<double> read_fraction() const;     // of the read roof, in decode
  std::optional<double> compute_fraction() const;  // of the roofs of products, in prefill
};
// Seconds that products with weights take at the roofs.
double seconds_at_roof(const Work& work, const Roofs& roofs);

struct Bench {
  std::string runner;
  uint64_t file_bytes = 0;
  std::optional<double> read_files, tokenizer;  // seconds
  std::vector<BenchRun> runs;
};

// bench_measure.cc
Result<Bench> measure(App& app, const BenchOptions& options);

// bench_report.cc
Json to_json(const Bench& bench, const BenchOptions& options);
std::string to_text(const Bench& bench, const BenchOptions& options);

// bench_baseline.cc
struct Change {
  std::string figure;
  int threads = 1;
  double before = 0, now = 0, percent = 0;  // percent > 0: worse
  bool fails = false;
};
// What can be said about a baseline before anything is measured.
Status check_baseline(const BenchOptions& options, const std::string& path);
// The figures that an earlier report (--json) has too. Refuses reports of other settings.
Result<std::vector<Change>> compare_with_baseline(const Json& report, const std::string& path,
                                                  double allowed_percent);
Json to_json(const std::vector<Change>& changes, const std::string& path, double allowed_percent);
std::string to_text(const std::vector<Change>& changes);

}  // namespace pome::cli
