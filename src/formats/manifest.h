// manifest.json of an artefact folder: what it is, what it was made from, and the digest of every
// file and tensor.
//
// {
//   "schema": 1, "name", "version" (semver), "target", "scheme", "model" (path of the model inside
//   the folder), "created" (RFC 3339), "pome_version", "minimum_runtime", "license": {"id",
//   "source"}, "graph_hash", "source_hash", "tokenizer_digest", "context", "chunk", "parameters",
//   "bits_per_weight", "files": [{"path", "size", "sha256"}], "tree_hash", "tensors": [{"name",
//   "file", "offset", "size", "sha256"}]
// }
// tree_hash: SHA-256 over "path size sha256\n" of every file, sorted by path; manifest.json itself
// is not in it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/progress.h"
#include "base/status.h"

namespace pome {

// What convert writes and the rest opens: the one list. A manifest of a newer version may name
// another.
enum class Target : uint8_t { kCoreml, kOnnx, kGguf, kMlc };
inline constexpr Target kTargets[] = {Target::kCoreml, Target::kOnnx, Target::kGguf, Target::kMlc};
std::string to_string(Target target);  // "coreml"
std::optional<Target> parse_target(std::string_view name);
std::string target_names();  // "coreml onnx gguf mlc"

struct ManifestFile {
  std::string path;  // relative, '/' between parts
  uint64_t size = 0;
  std::string sha256;
};
struct ManifestTensor {
  std::string name, file;
  uint64_t offset = 0, size = 0;  // of the data inside the file
  std::string sha256;
};
struct Manifest {
  std::string name, version = "1.0.0", target, scheme, model;
  std::string created, pome_version, minimum_runtime;
  std::string license_id, license_source;
  std::string graph_hash, source_hash, tokenizer_digest;
  int64_t context = 0, chunk = 0, parameters = 0;
  double bits_per_weight = 0;
  std::vector<ManifestFile> files;
  std::string tree_hash;
  std::vector<ManifestTensor> tensors;
};

inline constexpr const char* kManifestName = "manifest.json";
inline constexpr const char* kPomeVersion = "0.1.0";

// RFC 3339 of SOURCE_DATE_EPOCH, or of a constant where that is not set: never the clock.
std::string build_time();

std::string to_json(const Manifest& manifest);
// Refuses unknown schema versions (kVersion), paths that leave the folder (kPath), malformed
// digests (kRange).
Result<Manifest> read_manifest(const std::string& path);

// Fills files and tree_hash from what lies in `folder` (manifest.json left out), and the digests of
// `tensors`, whose name, file, offset and size the caller has set.
Status fill_digests(const std::string& folder, Manifest* manifest, const WorkContext& work);

struct IntegrityFinding {
  std::string file, tensor;  // tensor empty when the damage lies in none of the listed ones
  std::string problem;       // "3 bytes shorter than the manifest says", "SHA-256 differs"
};
// Every file against the manifest: missing, wrong size, wrong digest, and files that the manifest
// does not list. Where a file's digest differs, the tensors in it that differ are named.
Result<std::vector<IntegrityFinding>> check_integrity(const std::string& folder,
                                                      const Manifest& manifest,
                                                      const WorkContext& work);

// Relative paths of all regular files below `folder`, sorted; a link or special file is an error
// (kLink).
Result<std::vector<std::string>> list_files(const std::string& folder);

}  // namespace pome
