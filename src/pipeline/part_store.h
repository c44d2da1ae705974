// Constants that are encoded already, kept in files: what long work leaves behind, so that it can
// go on after it was interrupted.
//
//   FOLDER/key          what the work is about; another key: nothing in the folder is of use
//   FOLDER/part-NNN-M   safetensors: the parts of each constant, of some constants of one part of
//                       the model, and digest-NNN-M the digest of that
//   FOLDER/rows-NNN     what goes into the part NNN, f32: those before are finished
//
// A file appears when it is complete. Thread safety: one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/byte_source.h"
#include "base/progress.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "graph/constant.h"

namespace pome {

// A constant to be encoded, and the same as it was read back.
struct StoredPart {
  std::string name;
  ConstantDataPtr data;
  std::function<Status(const EncodedTile&)> written = {};  // sees its tiles, in order
  // What canonical() of the stored one goes back to, where `data` itself holds much that is not
  // needed any more when it is written. Null: `data`.
  ConstantDataPtr origin = {};
};

class PartStore {
 public:
  // Makes the folder. Parts of earlier work of the same key stay, others are removed.
  static Result<PartStore> open(const std::string& folder, const std::string& key);

  // How many parts lie there, complete, with the rows behind them.
  int64_t finished() const { return finished_; }
  // Reads constants of the part that is next (encoding them on the threads of the pool), writes
  // them, and gives them as they are stored: mapped, canonical() of what they were. A part is
  // stored in as many calls as its maker likes.
  Status add(std::vector<StoredPart>* constants, ThreadPool* pool, const WorkContext& work);
  // What goes into the next part; only now the part counts as finished.
  Status finish(std::span<const float> rows);
  // A finished part again: names and encodings must be those of `constants`. kBadInput where a file
  // is damaged.
  Status load(int64_t part, std::vector<StoredPart>* constants) const;
  Result<std::vector<float>> rows() const;  // what finish() was last given
  Status remove();                          // all of it

 private:
  struct File;  // one that was written
  std::string path(const char* what, int64_t part, int64_t piece = -1) const;
  Result<File> open_piece(int64_t part, int64_t piece) const;

  std::string folder_;
  int64_t finished_ = 0, pieces_ = 0;
  std::vector<ByteSourcePtr> written_;  // of this part: not needed soon when it is finished
};

}  // namespace pome
