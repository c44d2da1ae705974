#include <algorithm>

#include "base/checked.h"
#include "base/md5.h"
#include "base/thread_pool.h"
#include "formats/mlc.h"

namespace pome {

namespace {

constexpr uint64_t kFlushBytes = uint64_t{64} << 20;

std::string_view dtype_of(EncodingKind encoding) {
  switch (encoding) {
    case EncodingKind::kF16:
      return "float16";
    case EncodingKind::kBF16:
      return "bfloat16";
    case EncodingKind::kI32:
      return "uint32";
    default:
      return "float32";
  }
}

// Tensors wait in a pending shard. One that would fill it goes into a shard of its own where it is
// half of the limit at least; else the pending shard ends before it.
std::vector<std::vector<size_t>> gather(const std::vector<uint64_t>& sizes) {
  std::vector<std::vector<size_t>> shards;
  std::vector<size_t> pending;
  uint64_t pending_bytes = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (pending_bytes + sizes[i] >= kMlcShardBytes) {
      if (sizes[i] >= kMlcShardBytes / 2) {
        shards.push_back({i});
        continue;
      }
      shards.push_back(std::move(pending));
      pending.clear();
      pending_bytes = 0;
    }
    pending.push_back(i);
    pending_bytes += sizes[i];
  }
  if (!pending.empty()) shards.push_back(std::move(pending));
  return shards;
}

}  // namespace

MlcWriter::MlcWriter() = default;
MlcWriter::~MlcWriter() = default;

Result<std::unique_ptr<MlcWriter>> MlcWriter::create(const std::string& folder,
                                                     const std::vector<Declared>& tensors) {
  std::unique_ptr<MlcWriter> out(new MlcWriter());
  out->folder_ = folder;
  std::vector<uint64_t> sizes;
  for (const Declared& tensor : tensors) {
    const auto count = element_count(tensor.shape);
    const auto bytes = count ? checked_mul<uint64_t>(static_cast<uint64_t>(*count),
                                                     mlc_element_bytes(tensor.encoding))
                             : std::nullopt;
    if (!bytes) return bad_input(Refusal::kOverflow, "too many elements").at(tensor.name);
    out->cache_.tensors.push_back({tensor.name, tensor.shape, tensor.encoding, 0, 0, *bytes});
    sizes.push_back(*bytes);
  }
  for (const std::vector<size_t>& members : gather(sizes)) {
    const size_t shard = out->cache_.shards.size();
    uint64_t bytes = 0;
    for (const size_t i : members) {
      MlcTensor& tensor = out->cache_.tensors[i];
      tensor.shard = shard;
      tensor.offset = bytes;
      bytes += tensor.bytes;
    }
    out->cache_.shards.push_back({"params_shard_" + std::to_string(shard) + ".bin", bytes, {}});
    out->missing_.push_back(bytes);
  }
  out->files_.resize(out->cache_.shards.size());
  out->since_flush_.resize(out->cache_.shards.size());
  return out;
}

Status MlcWriter::write(size_t index, uint64_t offset, std::span<const std::byte> bytes) {
  const MlcTensor& tensor = cache_.tensors[index];
  POME_CHECK(span_fits(offset, bytes.size(), tensor.bytes));
  const size_t shard = tensor.shard;
  POME_CHECK(missing_[shard] >= bytes.size());
  if (bytes.empty()) return {};
  std::unique_ptr<io::OutputFile>& file = files_[shard];
  if (!file) {
    POME_ASSIGN_OR_RETURN(file, io::OutputFile::create(folder_ + "/" + cache_.shards[shard].file));
  }
  POME_RETURN_IF_ERROR(file->write_at(tensor.offset + offset, bytes));
  missing_[shard] -= bytes.size();
  if (missing_[shard] == 0) return close(shard);
  since_flush_[shard] += bytes.size();
  if (since_flush_[shard] < kFlushBytes) return {};
  since_flush_[shard] = 0;
  return file->flush_behind();
}

Status MlcWriter::close(size_t shard) {
  Status status = files_[shard]->close();
  files_[shard].reset();
  return status;
}

uint64_t MlcWriter::bytes() const {
  uint64_t out = 0;
  for (const MlcShard& shard : cache_.shards) out += shard.bytes;
  return out;
}

Status MlcWriter::finish(uint64_t parameters, ThreadPool* pool) {
  for (const uint64_t missing : missing_) POME_CHECK(missing == 0);
  const int64_t count = static_cast<int64_t>(cache_.shards.size());
  POME_RETURN_IF_ERROR(pool->ordered(
      count, 2 * pool->threads(),
      [&](int64_t i, int64_t) -> Status {
        MlcShard& shard = cache_.shards[static_cast<size_t>(i)];
        if (shard.bytes == 0) {
          shard.md5 = Md5().finish();
          return io::write_file(folder_ + "/" + shard.file, "");
        }
        POME_ASSIGN_OR_RETURN(shard.md5, mlc_sum(folder_ + "/" + shard.file));
        return {};
      },
      [](int64_t, int64_t) { return Status(); }));
  Json records = Json::array();
  for (const MlcShard& shard : cache_.shards)
    records.push_back({{"dataPath", shard.file},
                       {"format", "raw-shard"},
                       {"nbytes", shard.bytes},
                       {"records", Json::array()},
                       {"md5sum", shard.md5}});
  for (const MlcTensor& tensor : cache_.tensors)
    records[tensor.shard]["records"].push_back({{"name", tensor.name},
                                                {"shape", tensor.shape},
                                                {"dtype", dtype_of(tensor.encoding)},
                                                {"format", "raw"},
                                                {"nbytes", tensor.bytes},
                                                {"byteOffset", tensor.offset}});
  const double all = static_cast<double>(bytes());
  const Json cache = {
      {"metadata",
       {{"ParamSize", cache_.tensors.size()},
        {"ParamBytes", all},
        {"BitsPerParam", parameters > 0 ? 8 * all / static_cast<double>(parameters) : 0.0}}},
      {"records", records}};
  const std::string text = dump_json(cache, 4) + "\n";
  POME_RETURN_IF_ERROR(io::write_file(folder_ + "/" + kMlcOldCache, text));
  return io::write_file(folder_ + "/" + kMlcCache, text);
}

}  // namespace pome
