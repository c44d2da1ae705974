// Encoding, decoding and building tokenizers. POME_BENCH_TOKENIZER: the folder of one (default:
// models/tales); POME_BENCH_TEXT: a file (default: data/held-out.txt).
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <string>

#include "base/byte_source.h"
#include "formats/tokenizer_json.h"
#include "tokenizer/tokenizer.h"

namespace pome {
namespace {

std::string setting(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : otherwise;
}

Result<TokenizerSource> read_source() {
  return read_hf_tokenizer(setting("POME_BENCH_TOKENIZER", "models/tales"), Json(), Json());
}

// Null, with the benchmark told why, when a file is not there.
std::shared_ptr<const Tokenizer> tokenizer_of(benchmark::State& state) {
  auto source = read_source();
  if (!source.ok()) {
    state.SkipWithError(source.status().to_string().c_str());
    return nullptr;
  }
  auto tokenizer = Tokenizer::create(*std::move(source));
  if (!tokenizer.ok()) {
    state.SkipWithError(tokenizer.status().to_string().c_str());
    return nullptr;
  }
  return *tokenizer;
}

std::string text_of(benchmark::State& state) {
  auto text = read_text_file(setting("POME_BENCH_TEXT", "data/held-out.txt"), uint64_t{256} << 20);
  if (!text.ok()) state.SkipWithError(text.status().to_string().c_str());
  return text.ok() ? *text : std::string();
}

void count_bytes(benchmark::State& state, size_t bytes) {
  state.SetBytesProcessed(static_cast<int64_t>(bytes) * static_cast<int64_t>(state.iterations()));
}

void EncodeText(benchmark::State& state) {
  const auto tokenizer = tokenizer_of(state);
  const std::string text = text_of(state);
  if (!tokenizer || text.empty()) return;
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer->encode(text));
  count_bytes(state, text.size());
}
BENCHMARK(EncodeText)->Unit(benchmark::kMillisecond);

// A tokenizer that has seen nothing yet.
void EncodeTextCold(benchmark::State& state) {
  const auto tokenizer = tokenizer_of(state);
  const std::string text = text_of(state);
  if (!tokenizer || text.empty()) return;
  for (auto _ : state) {
    state.PauseTiming();
    const auto fresh = Tokenizer::create(tokenizer->source());
    state.ResumeTiming();
    benchmark::DoNotOptimize((*fresh)->encode(text));
  }
  count_bytes(state, text.size());
}
BENCHMARK(EncodeTextCold)->Unit(benchmark::kMillisecond);

void EncodeLines(benchmark::State& state) {
  const auto tokenizer = tokenizer_of(state);
  const std::string text = text_of(state);
  if (!tokenizer || text.empty()) return;
  for (auto _ : state) {
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size() - 1) + 1;
      benchmark::DoNotOptimize(
          tokenizer->encode(std::string_view(text).substr(begin, end - begin)));
      begin = end;
    }
  }
  count_bytes(state, text.size());
}
BENCHMARK(EncodeLines)->Unit(benchmark::kMillisecond);

void Decode(benchmark::State& state) {
  const auto tokenizer = tokenizer_of(state);
  const std::string text = text_of(state);
  if (!tokenizer || text.empty()) return;
  const auto ids = tokenizer->encode(text);
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer->decode(ids));
  count_bytes(state, text.size());
}
BENCHMARK(Decode)->Unit(benchmark::kMillisecond);

// A megabyte of what takes naive tokenizers quadratic time.
void Hostile(benchmark::State& state, const std::string& part) {
  const auto tokenizer = tokenizer_of(state);
  if (!tokenizer) return;
  std::string text;
  while (text.size() < size_t{1} << 20) text += part;
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer->encode(text));
  count_bytes(state, text.size());
}
BENCHMARK_CAPTURE(Hostile, letters, std::string("a"))->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Hostile, spaces, std::string(" "))->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Hostile, marks, std::string("\u0301"))->Unit(benchmark::kMillisecond);

void Read(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(read_source());
}
BENCHMARK(Read)->Unit(benchmark::kMillisecond);

void Create(benchmark::State& state) {
  const auto tokenizer = tokenizer_of(state);
  if (!tokenizer) return;
  for (auto _ : state) {
    state.PauseTiming();
    TokenizerSource source = tokenizer->source();
    state.ResumeTiming();
    benchmark::DoNotOptimize(Tokenizer::create(std::move(source)));
  }
}
BENCHMARK(Create)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace pome
