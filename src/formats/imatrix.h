// Importance matrices of llama.cpp: for each weight how large the activations are that meet its
// columns. Two forms, told from the content:
//
//   .dat   i32 entries, then for each: i32 length, name, i32 calls, i32 values, f32 values
//          (sums of the mean squares of each call); then i32 last chunk, i32 length, name of the
//          text
//   GGUF   general.type "imatrix", imatrix.datasets, .chunk_count, .chunk_size; tensors
//   "<weight>.in_sum2" f32 [matrices, K] and
//          "<weight>.counts" f32 [matrices, 1]
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/byte_source.h"
#include "base/status.h"

namespace pome {

struct ImportanceEntry {
  // Mean of x^2 by column, K of them or K for each of stacked experts; 0 where nothing was counted.
  std::vector<float> mean_squares;
  double calls = 0;  // tokens of the GGUF form, calls of the other
  // Tokens of each expert; may be empty where all saw `calls` of them.
  std::vector<float> counts = {};
};
struct ImportanceMatrix {
  std::map<std::string, ImportanceEntry> entries;  // by GGUF tensor name
  std::vector<std::string> warnings;
};
// Counts and lengths are checked before anything is allocated. kTrunc, kLimit, kRange, kDup, kUtf8;
// those of read_gguf() for the GGUF form.
Result<ImportanceMatrix> read_imatrix(ByteSourcePtr source);
Result<ImportanceMatrix> read_imatrix(const std::string& path);

enum class ImatrixForm : uint8_t { kGguf, kDat };
struct ImatrixText {
  std::string name;               // of the text, as it stands in the file
  int64_t chunks = 0, chunk = 0;  // how many, of how many tokens
};
// Writes `path` in place (stage it), as llama.cpp reads it. What no token met counts as 1 in the
// .dat form, which has no other way to say so.
Status write_imatrix(const ImportanceMatrix& matrix, const ImatrixText& text, ImatrixForm form,
                     const std::string& path);

}  // namespace pome
