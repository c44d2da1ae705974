// The one layer through which every write goes: output files, folders that become visible at once,
// and the hooks that let tests fail or crash the process at every single system call.
//
// An artefact is staged beside its final name as ".<name>.pome-<pid>-<random>" under an advisory
// lock held by the writer, and renamed when complete: readers see the old state or the new one,
// never anything between. A staging entry whose lock can be taken belongs to a dead writer;
// create() removes such leftovers of the same name.
//
// Thread safety: OutputFile::write_at may be called from several threads; all else belongs to one
// thread. The fault plan is process-wide.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace pome::io {

// What a test may break. The k-th call (1-based, over all operations in `ops`, or all when empty)
// fails with `error` (an errno value), and `sticky` makes all later ones fail too; with `crash` the
// process ends by _exit(137) instead. The environment variable
// POME_IO_FAULT="k[:errno|crash[:op[:sticky]]]" sets a plan for a whole program run.
struct FaultPlan {
  uint64_t fail_at = 0;  // 0 = off
  int error = 0;
  bool sticky = false;
  bool crash = false;
  std::string op;  // "", "open", "write", "fsync", "rename", "unlink", "mkdir", "close", "lock"
};
void set_fault_plan(const FaultPlan& plan);
void clear_fault_plan();
uint64_t operation_count();  // since the plan was last set or cleared

// A file that is being written. All errors name the path, the operation and errno; ENOSPC, EDQUOT
// and EFBIG are kDoesNotFit with the bytes needed so far.
class OutputFile {
 public:
  static Result<std::unique_ptr<OutputFile>> create(const std::string& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  Status write(std::span<const std::byte> bytes);  // appends
  Status write(std::string_view text);
  Status write_at(
      uint64_t offset,
      std::span<const std::byte> bytes);  // patches or fills; does not move the end pointer
  Status pad_to(uint64_t alignment);      // zero bytes up to a multiple
  uint64_t size() const;                  // where the next write() goes
  // Starts writing dirty pages back and lets the kernel drop them, so that long outputs do not fill
  // memory.
  Status flush_behind();
  Status close();  // fsync + close; a file that was not closed is an error of the writer

 private:
  OutputFile();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// One artefact in the making: a file or a folder that becomes visible under `final_path` at
// commit().
class Staged {
 public:
  enum class Kind { kFile, kFolder };
  // kExists when final_path exists and !force. Removes leftovers of dead writers of the same name
  // first.
  static Result<std::unique_ptr<Staged>> create(const std::string& final_path, Kind kind,
                                                bool force);
  ~Staged();                        // removes the staging entry unless committed
  const std::string& path() const;  // write here (the file itself, or the folder)
  // Syncs the tree, then renames; an existing output is replaced by exchange (RENAME_EXCHANGE) and
  // then removed.
  Status commit();

 private:
  Staged();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

Status make_folder(const std::string& path);  // one level; exists is fine
Status remove_tree(const std::string& path);  // never follows links; iterative; absent is fine
Status copy_file(const std::string& from, const std::string& to);
// Writes a whole small file inside a staged folder.
Status write_file(const std::string& path, std::string_view contents);
Result<uint64_t> free_bytes(const std::string& folder);

}  // namespace pome::io
