// From a model and a text to an importance matrix, as llama.cpp reads and writes it
// (formats/imatrix.h).
#pragma once

#include <cstdint>
#include <string>

#include "base/progress.h"
#include "base/status.h"
#include "formats/imatrix.h"

namespace pome {

struct ImportanceOptions {
  std::string model, output;
  std::string text;       // "": the built-in one
  int64_t tokens = 8192;  // of it, at most
  int64_t window = 512;   // tokens that see each other
  ImatrixForm form = ImatrixForm::kGguf;
  bool force = false;
};
struct ImportanceReport {
  int64_t tokens = 0, weights = 0;
  int64_t unmet = 0;  // experts that no token was routed to
  uint64_t bytes = 0;
  std::string text_digest;
};
// One layer of the model is in memory at a time. Nothing is visible at `output` unless all of it is
// there. kUnsupported where weights have no name in GGUF; kExists.
Result<ImportanceReport> write_importance(const ImportanceOptions& options,
                                          const WorkContext& work);

}  // namespace pome
