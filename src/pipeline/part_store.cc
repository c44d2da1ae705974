#include "pipeline/part_store.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <utility>

#include "base/byte_source.h"
#include "base/checked.h"
#include "base/io.h"
#include "base/sha256.h"
#include "formats/safetensors.h"

namespace pome {

namespace {

constexpr uint64_t kMostKeyBytes = 1 << 20;

// The parts of a constant as they lie in a file. Tiles are read into their own memory: who goes
// through all of a model maps nothing of it.
class StoredConstant final : public ConstantData {
 public:
  StoredConstant(const ConstantDataPtr& source, std::vector<uint64_t> offsets, ByteSourcePtr file)
      : ConstantData(source->shape(), source->encoding()),
        source_(source),
        offsets_(std::move(offsets)),
        file_(std::move(file)) {}

  const ConstantData& canonical() const override { return source_->canonical(); }
  const ConstantData& unrounded() const override { return source_->unrounded(); }
  std::optional<std::span<const std::byte>> view() const override {
    const auto layout = encoded_layout(encoding(), rows(), columns());
    return layout.ok() ? file_->view(offsets_[0], layout->part_bytes[0]) : std::nullopt;
  }

  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    tile->row = row;
    tile->rows = rows;
    tile->parts.clear();
    tile->storage.resize(offsets_.size());
    std::vector<uint64_t> begin(offsets_.size(), 0);
    if (row > 0) {
      POME_ASSIGN_OR_RETURN(const EncodedLayout before, encoded_layout(encoding(), row, columns()));
      begin = before.part_bytes;
    }
    POME_ASSIGN_OR_RETURN(const EncodedLayout layout, encoded_layout(encoding(), rows, columns()));
    for (size_t part = 0; part < offsets_.size(); ++part) {
      tile->storage[part].resize(static_cast<size_t>(layout.part_bytes[part]));
      POME_RETURN_IF_ERROR(file_->read(offsets_[part] + begin[part], tile->storage[part]));
      tile->parts.push_back(tile->storage[part]);
    }
    return {};
  }

 private:
  ConstantDataPtr source_;
  std::vector<uint64_t> offsets_;
  ByteSourcePtr file_;
};

std::string entry_name(const std::string& constant, size_t part) {
  return constant + "/" + std::to_string(part);
}

// All tiles of a constant: the first part to the file as it comes, the others kept for behind.
Status write_constant(const StoredPart& constant, SafetensorsWriter* file, Sha256* digest,
                      ThreadPool* pool, const WorkContext& work) {
  const ConstantData& data = *constant.data;
  const int64_t step = tile_rows(data);
  std::vector<EncodedTile> slots(static_cast<size_t>(2 * pool->threads()));
  std::vector<std::vector<std::byte>> behind;
  const auto write = [&](std::span<const std::byte> bytes) {
    digest->update(bytes);
    return file->write(bytes);
  };
  Status status = pool->ordered(
      ceil_div(data.rows(), step), static_cast<int64_t>(slots.size()),
      [&](int64_t tile, int64_t slot) -> Status {
        POME_RETURN_IF_ERROR(check_cancelled(work.cancel));
        return data.read_tile(tile * step, std::min(step, data.rows() - tile * step),
                              &slots[static_cast<size_t>(slot)]);
      },
      [&](int64_t, int64_t slot) -> Status {
        const EncodedTile& tile = slots[static_cast<size_t>(slot)];
        behind.resize(tile.parts.size());
        for (size_t part = 1; part < tile.parts.size(); ++part)
          behind[part].insert(behind[part].end(), tile.parts[part].begin(), tile.parts[part].end());
        if (constant.written) POME_RETURN_IF_ERROR(constant.written(tile));
        return write(tile.parts[0]);
      });
  if (!status.ok()) return std::move(status).at("tensor " + constant.name);
  for (size_t part = 1; part < behind.size(); ++part) POME_RETURN_IF_ERROR(write(behind[part]));
  return {};
}

Result<std::vector<SafetensorsWriter::Declared>> declare(const std::vector<StoredPart>& constants) {
  std::vector<SafetensorsWriter::Declared> out;
  for (const StoredPart& constant : constants) {
    const ConstantData& data = *constant.data;
    POME_ASSIGN_OR_RETURN(const EncodedLayout layout,
                          encoded_layout(data.encoding(), data.rows(), data.columns()));
    for (size_t part = 0; part < layout.part_bytes.size(); ++part)
      out.push_back({entry_name(constant.name, part),
                     DType::kU8,
                     {static_cast<int64_t>(layout.part_bytes[part])}});
  }
  return out;
}

// The constant as it lies in a file.
Status take(const ByteSourcePtr& source, const std::map<std::string, SafetensorsEntry>& entries,
            StoredPart* constant) {
  const ConstantData& data = *constant->data;
  POME_ASSIGN_OR_RETURN(const EncodedLayout layout,
                        encoded_layout(data.encoding(), data.rows(), data.columns()));
  std::vector<uint64_t> offsets;
  for (size_t i = 0; i < layout.part_bytes.size(); ++i) {
    const auto entry = entries.find(entry_name(constant->name, i));
    if (entry == entries.end() || entry->second.bytes != layout.part_bytes[i])
      return bad_input(Refusal::kRange,
                       "it lacks " + constant->name + " as " + to_string(data.encoding()))
          .in(source->name());
    offsets.push_back(entry->second.offset);
  }
  const ConstantDataPtr origin = constant->origin ? constant->origin : constant->data;
  constant->data = std::make_shared<StoredConstant>(origin, std::move(offsets), source);
  return {};
}

bool exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

}  // namespace

std::string PartStore::path(const char* what, int64_t part, int64_t piece) const {
  char number[24];
  std::snprintf(number, sizeof number, "%03lld", static_cast<long long>(part));
  return folder_ + "/" + what + "-" + number + (piece < 0 ? "" : "-" + std::to_string(piece));
}

Result<PartStore> PartStore::open(const std::string& folder, const std::string& key) {
  PartStore out;
  out.folder_ = folder;
  const std::string key_path = folder + "/key";
  const auto found = read_text_file(key_path, kMostKeyBytes);
  if (!found.ok() || *found != key) {
    POME_RETURN_IF_ERROR(io::remove_tree(folder));
    POME_RETURN_IF_ERROR(io::make_folder(folder));
    POME_RETURN_IF_ERROR(io::write_file(key_path, key));
    return out;
  }
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind("rows-", 0) == 0)
      out.finished_ = std::max<int64_t>(out.finished_, std::atoll(name.c_str() + 5));
  }
  return out;
}

struct PartStore::File {
  ByteSourcePtr source;
  std::map<std::string, SafetensorsEntry> entries;
};

// With its digest checked.
Result<PartStore::File> PartStore::open_piece(int64_t part, int64_t piece) const {
  File out;
  POME_ASSIGN_OR_RETURN(out.source, open_mapped(path("part", part, piece)));
  POME_ASSIGN_OR_RETURN(const SafetensorsFile file, read_safetensors(out.source));
  POME_ASSIGN_OR_RETURN(const std::string digest,
                        read_text_file(path("digest", part, piece), kMostKeyBytes));
  Sha256 found;
  for (const SafetensorsEntry& entry : file.entries) {
    out.entries[entry.name] = entry;
    const auto bytes = out.source->view(entry.offset, entry.bytes);
    if (bytes) found.update(*bytes);
    out.source->release(entry.offset, entry.bytes);
  }
  if (to_hex(found.finish()) == digest) return out;
  return bad_input(Refusal::kRange, "the contents are not what was written")
      .in(out.source->name())
      .hint("remove " + folder_ + ": the work begins anew then");
}

Status PartStore::add(std::vector<StoredPart>* constants, ThreadPool* pool,
                      const WorkContext& work) {
  if (constants->empty()) return {};
  const std::string name = path("part", finished_, pieces_);
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<io::Staged> staged,
                        io::Staged::create(name, io::Staged::Kind::kFile, true));
  POME_ASSIGN_OR_RETURN(const auto declared, declare(*constants));
  POME_ASSIGN_OR_RETURN(const auto file, SafetensorsWriter::create(staged->path(), declared));
  Sha256 digest;
  for (const StoredPart& constant : *constants)
    POME_RETURN_IF_ERROR(write_constant(constant, file.get(), &digest, pool, work));
  POME_RETURN_IF_ERROR(file->finish());
  POME_RETURN_IF_ERROR(staged->commit());
  POME_RETURN_IF_ERROR(io::write_file(path("digest", finished_, pieces_), to_hex(digest.finish())));
  POME_ASSIGN_OR_RETURN(const File written, open_piece(finished_, pieces_));
  ++pieces_;
  written_.push_back(written.source);
  for (StoredPart& constant : *constants)
    POME_RETURN_IF_ERROR(take(written.source, written.entries, &constant));
  return {};
}

Status PartStore::load(int64_t part, std::vector<StoredPart>* constants) const {
  std::vector<File> files;
  while (exists(path("part", part, static_cast<int64_t>(files.size())))) {
    POME_ASSIGN_OR_RETURN(File file, open_piece(part, static_cast<int64_t>(files.size())));
    files.push_back(std::move(file));
  }
  for (StoredPart& constant : *constants) {
    const auto found = std::find_if(files.begin(), files.end(), [&](const File& file) {
      return file.entries.count(entry_name(constant.name, 0)) > 0;
    });
    if (found == files.end())
      return bad_input(Refusal::kRange, "nothing holds " + constant.name)
          .in(folder_)
          .hint("remove it: the work begins anew then");
    POME_RETURN_IF_ERROR(take(found->source, found->entries, &constant));
  }
  return {};
}

Status PartStore::finish(std::span<const float> rows) {
  ++finished_;
  pieces_ = 0;
  for (const ByteSourcePtr& source : std::exchange(written_, {}))
    source->release(0, source->size());
  const std::string name = path("rows", finished_);
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<io::Staged> staged,
                        io::Staged::create(name, io::Staged::Kind::kFile, true));
  POME_ASSIGN_OR_RETURN(const auto file, io::OutputFile::create(staged->path()));
  POME_RETURN_IF_ERROR(file->write(std::as_bytes(rows)));
  POME_RETURN_IF_ERROR(file->close());
  POME_RETURN_IF_ERROR(staged->commit());
  return io::remove_tree(path("rows", finished_ - 1));
}

Result<std::vector<float>> PartStore::rows() const {
  POME_ASSIGN_OR_RETURN(const ByteSourcePtr source, open_mapped(path("rows", finished_)));
  std::vector<float> out(static_cast<size_t>(source->size() / sizeof(float)));
  POME_RETURN_IF_ERROR(source->read(0, std::as_writable_bytes(std::span(out))));
  return out;
}

Status PartStore::remove() { return io::remove_tree(folder_); }

}  // namespace pome
