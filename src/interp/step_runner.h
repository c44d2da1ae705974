// A decode step with explicit caches as a Runner (docs/explicit-kv.md): one token a call, and
// between calls the caches are held as an app would hold them, which a CachePolicy says.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "graph/runner.h"
#include "interp/named_tensors.h"

namespace pome {

struct CachePolicy {
  int64_t kept = 0;   // tokens that a step sees at most, its own among them; 0 = no limit
  int64_t sinks = 0;  // of the kept ones, the first of the context; the rest are the newest
  // What a row (one token of one head) becomes where it is stored, in place. Null: what it is.
  std::function<void(std::span<float>)> store;
};

struct StepCache {
  std::string past, present;  // input [1, heads, places, dim] and output
  int64_t heads = 0, dim = 0;
};
struct StepInterface {
  std::string kind;  // for RunnerInfo
  DType ids = DType::kI64;
  std::string mask;  // float [1, 1, 1, places] over the caches as they come out; empty: none
  // Of every cache, going in and coming out; 0: as many as tokens are in it, which grow by one.
  int64_t places = 0;
  std::vector<StepCache> caches;
  int64_t vocab_size = 0, capacity = 0;
};
// The output that gives the cache `past` back: k_lat_0 -> nk_lat_0, past_key_values.0.key ->
// present.0.key (in a Core ML package with underscores). nullopt for other names.
std::optional<std::string> present_name(const std::string& past);

// `call` takes input_ids and position_ids [1, 1], the mask and the caches by name, and gives logits
// [1, 1, vocab_size] and the caches.
using StepCall = std::function<Result<NamedTensors>(const NamedTensors&)>;
std::unique_ptr<Runner> step_runner(StepInterface interface, StepCall call, CachePolicy policy);

}  // namespace pome
