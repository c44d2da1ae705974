#include "formats/manifest.h"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <set>

#include "base/byte_source.h"
#include "base/json.h"
#include "base/sha256.h"

namespace pome {

namespace {

constexpr uint64_t kChunk = 1 << 20;

bool is_contained(const std::string& path) {
  if (path.empty() || path.front() == '/' || path.find('\0') != std::string::npos ||
      path.find('\\') != std::string::npos)
    return false;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string part = path.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    begin = end + 1;
  }
  return true;
}

bool is_digest(const std::string& text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

// Digest of a range of a file.
Result<std::string> hash_range(const ByteSource& source, uint64_t offset, uint64_t size,
                               const WorkContext& work, uint64_t* done) {
  std::vector<std::byte> buffer(static_cast<size_t>(std::min(size, kChunk)));
  Sha256 hash;
  for (uint64_t at = 0; at < size; at += kChunk) {
    POME_RETURN_IF_ERROR(check_cancelled(work.cancel));
    const std::span<std::byte> piece(buffer.data(),
                                     static_cast<size_t>(std::min(kChunk, size - at)));
    POME_RETURN_IF_ERROR(source.read(offset + at, piece));
    hash.update(piece);
    if (done) *done += piece.size();
    if (done && work.progress) work.progress->advance(*done);
  }
  return to_hex(hash.finish());
}

std::string tree_hash(const std::vector<ManifestFile>& files) {
  Sha256 hash;
  for (const ManifestFile& file : files)
    hash.update(file.path + " " + std::to_string(file.size) + " " + file.sha256 + "\n");
  return to_hex(hash.finish());
}

}  // namespace

std::string to_string(Target target) {
  switch (target) {
    case Target::kCoreml:
      return "coreml";
    case Target::kOnnx:
      return "onnx";
    case Target::kGguf:
      return "gguf";
    case Target::kMlc:
      return "mlc";
  }
  return {};
}

std::optional<Target> parse_target(std::string_view name) {
  for (const Target target : kTargets)
    if (to_string(target) == name) return target;
  return std::nullopt;
}

std::string target_names() {
  std::string out;
  for (const Target target : kTargets) out += (out.empty() ? "" : " ") + to_string(target);
  return out;
}

std::string build_time() {
  // 2026-01-01T00:00:00Z unless the build says otherwise: artefacts never carry the clock.
  std::time_t seconds = 1767225600;
  if (const char* epoch = std::getenv("SOURCE_DATE_EPOCH")) {
    char* end = nullptr;
    const long long value = std::strtoll(epoch, &end, 10);
    if (end != epoch && *end == '\0' && value >= 0 && value < 253402300800LL)
      seconds = static_cast<std::time_t>(value);
  }
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

std::string to_json(const Manifest& m) {
  Json files = Json::array(), tensors = Json::array();
  for (const ManifestFile& file : m.files)
    files.push_back({{"path", file.path}, {"size", file.size}, {"sha256", file.sha256}});
  for (const ManifestTensor& t : m.tensors)
    tensors.push_back({{"name", t.name},
                       {"file", t.file},
                       {"offset", t.offset},
                       {"size", t.size},
                       {"sha256", t.sha256}});
  const Json all = {{"schema", 1},
                    {"name", m.name},
                    {"version", m.version},
                    {"target", m.target},
                    {"scheme", m.scheme},
                    {"model", m.model},
                    {"created", m.created},
                    {"pome_version", m.pome_version},
                    {"minimum_runtime", m.minimum_runtime},
                    {"license", {{"id", m.license_id}, {"source", m.license_source}}},
                    {"graph_hash", m.graph_hash},
                    {"source_hash", m.source_hash},
                    {"tokenizer_digest", m.tokenizer_digest},
                    {"context", m.context},
                    {"chunk", m.chunk},
                    {"parameters", m.parameters},
                    {"bits_per_weight", m.bits_per_weight},
                    {"files", files},
                    {"tree_hash", m.tree_hash},
                    {"tensors", tensors}};
  return dump_json(all, 1) + "\n";
}

Result<Manifest> read_manifest(const std::string& path) {
  POME_ASSIGN_OR_RETURN(const Json all, read_json_file(path));
  const auto refuse = [&](Refusal refusal, std::string where, std::string message) {
    return bad_input(refusal, std::move(message)).in(path).at(where);
  };
  if (!all.is_object()) return refuse(Refusal::kType, "/", "must be an object");
  const auto schema = all.find("schema");
  if (schema == all.end() || !schema->is_number_integer())
    return refuse(Refusal::kVersion, "/schema", "is missing");
  if (*schema != 1)
    return refuse(Refusal::kVersion, "/schema", "is " + dump_json(*schema) + ", this pome reads 1")
        .hint("use the pome that wrote it, or a newer one");
  Manifest m;
  const auto text = [&](const Json& object, const char* key, std::string* out) -> Status {
    const auto found = object.find(key);
    if (found == object.end() || !found->is_string())
      return refuse(Refusal::kType, std::string("/") + key, "must be a string");
    *out = found->get<std::string>();
    return {};
  };
  const auto count = [&](const Json& object, const char* key, auto* out) -> Status {
    const auto found = object.find(key);
    if (found == object.end() || !found->is_number_unsigned())
      return refuse(Refusal::kType, std::string("/") + key, "must be a non-negative integer");
    *out = static_cast<std::decay_t<decltype(*out)>>(found->get<uint64_t>());
    return {};
  };
  const std::pair<const char*, std::string*> strings[] = {{"name", &m.name},
                                                          {"version", &m.version},
                                                          {"target", &m.target},
                                                          {"scheme", &m.scheme},
                                                          {"model", &m.model},
                                                          {"created", &m.created},
                                                          {"pome_version", &m.pome_version},
                                                          {"minimum_runtime", &m.minimum_runtime},
                                                          {"graph_hash", &m.graph_hash},
                                                          {"source_hash", &m.source_hash},
                                                          {"tokenizer_digest", &m.tokenizer_digest},
                                                          {"tree_hash", &m.tree_hash}};
  for (const auto& [key, out] : strings) POME_RETURN_IF_ERROR(text(all, key, out));
  POME_RETURN_IF_ERROR(count(all, "context", &m.context));
  POME_RETURN_IF_ERROR(count(all, "chunk", &m.chunk));
  POME_RETURN_IF_ERROR(count(all, "parameters", &m.parameters));
  if (const auto bits = all.find("bits_per_weight"); bits != all.end() && bits->is_number())
    m.bits_per_weight = bits->get<double>();
  if (const auto license = all.find("license"); license != all.end() && license->is_object()) {
    POME_RETURN_IF_ERROR(text(*license, "id", &m.license_id));
    POME_RETURN_IF_ERROR(text(*license, "source", &m.license_source));
  }
  if (!is_contained(m.model)) return refuse(Refusal::kPath, "/model", "leaves the artefact folder");
  for (const char* key : {"files", "tensors"})
    if (!all.contains(key) || !all[key].is_array())
      return refuse(Refusal::kType, std::string("/") + key, "must be an array");
  std::set<std::string> paths;
  for (const Json& entry : all["files"]) {
    ManifestFile file;
    if (!entry.is_object()) return refuse(Refusal::kType, "/files", "entries must be objects");
    POME_RETURN_IF_ERROR(text(entry, "path", &file.path));
    POME_RETURN_IF_ERROR(count(entry, "size", &file.size));
    POME_RETURN_IF_ERROR(text(entry, "sha256", &file.sha256));
    if (!is_contained(file.path))
      return refuse(Refusal::kPath, "/files", "'" + file.path + "' leaves the artefact folder");
    if (!is_digest(file.sha256))
      return refuse(Refusal::kRange, "/files",
                    "'" + file.path + "': sha256 must be 64 lower-case hex digits");
    if (!paths.insert(file.path).second)
      return refuse(Refusal::kDup, "/files", "'" + file.path + "' is listed twice");
    m.files.push_back(std::move(file));
  }
  for (const Json& entry : all["tensors"]) {
    ManifestTensor tensor;
    if (!entry.is_object()) return refuse(Refusal::kType, "/tensors", "entries must be objects");
    POME_RETURN_IF_ERROR(text(entry, "name", &tensor.name));
    POME_RETURN_IF_ERROR(text(entry, "file", &tensor.file));
    POME_RETURN_IF_ERROR(count(entry, "offset", &tensor.offset));
    POME_RETURN_IF_ERROR(count(entry, "size", &tensor.size));
    POME_RETURN_IF_ERROR(text(entry, "sha256", &tensor.sha256));
    if (!paths.count(tensor.file))
      return refuse(Refusal::kPath, "/tensors",
                    "'" + tensor.name + "' lies in a file that is not listed");
    m.tensors.push_back(std::move(tensor));
  }
  return m;
}

Result<std::vector<std::string>> list_files(const std::string& folder) {
  std::vector<std::string> files, pending = {""};
  while (!pending.empty()) {
    const std::string prefix = std::move(pending.back());
    pending.pop_back();
    DIR* dir = opendir((folder + "/" + prefix).c_str());
    if (!dir)
      return missing(std::string("cannot open the folder: ") + std::strerror(errno))
          .in(folder + "/" + prefix);
    Status status;
    while (const dirent* entry = readdir(dir)) {
      const std::string name = entry->d_name;
      if (name == "." || name == "..") continue;
      const std::string path = prefix + name;
      struct stat info {};
      if (lstat((folder + "/" + path).c_str(), &info) != 0) continue;
      if (S_ISDIR(info.st_mode)) {
        pending.push_back(path + "/");
      } else if (S_ISREG(info.st_mode)) {
        files.push_back(path);
      } else {
        status =
            bad_input(Refusal::kLink, "is neither a file nor a folder").in(folder + "/" + path);
      }
    }
    closedir(dir);
    POME_RETURN_IF_ERROR(status);
  }
  std::sort(files.begin(), files.end());
  return files;
}

Status fill_digests(const std::string& folder, Manifest* manifest, const WorkContext& work) {
  POME_ASSIGN_OR_RETURN(const std::vector<std::string> paths, list_files(folder));
  manifest->files.clear();
  std::map<std::string, ByteSourcePtr> sources;
  uint64_t total = 0, done = 0;
  for (const std::string& path : paths) {
    if (path == kManifestName) continue;
    POME_ASSIGN_OR_RETURN(ByteSourcePtr source, open_for_reading(folder + "/" + path));
    total += source->size();
    sources[path] = std::move(source);
  }
  for (const ManifestTensor& tensor : manifest->tensors) total += tensor.size;
  if (work.progress) work.progress->begin("hash", total, "bytes");
  for (const auto& [path, source] : sources) {
    POME_ASSIGN_OR_RETURN(std::string digest, hash_range(*source, 0, source->size(), work, &done));
    manifest->files.push_back({path, source->size(), std::move(digest)});
  }
  for (ManifestTensor& tensor : manifest->tensors) {
    const auto source = sources.find(tensor.file);
    POME_CHECK(source != sources.end());
    POME_ASSIGN_OR_RETURN(tensor.sha256,
                          hash_range(*source->second, tensor.offset, tensor.size, work, &done));
  }
  if (work.progress) work.progress->end();
  manifest->tree_hash = tree_hash(manifest->files);
  return {};
}

Result<std::vector<IntegrityFinding>> check_integrity(const std::string& folder,
                                                      const Manifest& manifest,
                                                      const WorkContext& work) {
  std::vector<IntegrityFinding> findings;
  POME_ASSIGN_OR_RETURN(const std::vector<std::string> present, list_files(folder));
  std::set<std::string> unlisted(present.begin(), present.end());
  unlisted.erase(kManifestName);
  std::vector<ManifestFile> listed = manifest.files;
  std::sort(listed.begin(), listed.end(),
            [](const auto& a, const auto& b) { return a.path < b.path; });
  if (tree_hash(listed) != manifest.tree_hash)
    findings.push_back({kManifestName, "", "tree_hash does not belong to the listed files"});
  uint64_t total = 0, done = 0;
  for (const ManifestFile& file : listed) total += file.size;
  if (work.progress) work.progress->begin("verify files", total, "bytes");
  for (const ManifestFile& file : listed) {
    if (!unlisted.erase(file.path)) {
      findings.push_back({file.path, "", "is missing"});
      continue;
    }
    POME_ASSIGN_OR_RETURN(const ByteSourcePtr source, open_for_reading(folder + "/" + file.path));
    if (source->size() != file.size) {
      findings.push_back({file.path, "",
                          "has " + std::to_string(source->size()) + " bytes, the manifest says " +
                              std::to_string(file.size)});
      continue;
    }
    POME_ASSIGN_OR_RETURN(const std::string digest,
                          hash_range(*source, 0, source->size(), work, &done));
    if (digest == file.sha256) continue;
    bool named = false;
    for (const ManifestTensor& tensor : manifest.tensors) {
      if (tensor.file != file.path || tensor.offset > file.size ||
          tensor.size > file.size - tensor.offset)
        continue;
      POME_ASSIGN_OR_RETURN(const std::string own,
                            hash_range(*source, tensor.offset, tensor.size, work, nullptr));
      if (own == tensor.sha256) continue;
      findings.push_back({file.path, tensor.name, "SHA-256 differs"});
      named = true;
    }
    if (!named) findings.push_back({file.path, "", "SHA-256 differs"});
  }
  if (work.progress) work.progress->end();
  for (const std::string& path : unlisted)
    findings.push_back({path, "", "is not listed in the manifest"});
  return findings;
}

}  // namespace pome
