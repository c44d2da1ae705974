#include "engine/context_file.h"

#include <algorithm>
#include <cstring>

#include "base/byte_source.h"
#include "base/checked.h"
#include "base/io.h"
#include "base/sha256.h"

namespace pome {

namespace {

constexpr std::string_view kMagic = "POMECTX\n";
constexpr uint32_t kVersion = 1;
constexpr uint64_t kHeaderBytes = 104, kDigestBytes = 32, kFingerprintBytes = 64;
constexpr size_t kPiece = size_t{1} << 20;

template <typename T>
void put(std::string* out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i)
    out->push_back(static_cast<char>(static_cast<uint64_t>(value) >> (8 * i)));
}

// Writes and hashes.
class Writer {
 public:
  explicit Writer(io::OutputFile* file) : file_(file) {}
  Status write(std::span<const std::byte> bytes) {
    hash_.update(bytes);
    return file_->write(bytes);
  }
  Status write(std::string_view text) { return write(std::as_bytes(std::span(text))); }
  Status finish() {
    const Digest digest = hash_.finish();
    POME_RETURN_IF_ERROR(file_->write(std::as_bytes(std::span(digest))));
    return file_->close();
  }

 private:
  io::OutputFile* file_;
  Sha256 hash_;
};

struct Header {
  uint64_t tokens = 0, note_bytes = 0;
  std::vector<int64_t> first;  // by slot
};

uint64_t rows_bytes(const CacheSlot& slot, int64_t rows) {
  return static_cast<uint64_t>(rows) * static_cast<uint64_t>(slot.row_bytes());
}

// What the file must be long, given a header whose numbers are in range; nullopt on overflow.
std::optional<uint64_t> expected_bytes(const Header& header, const std::vector<CacheSlot>& slots) {
  std::optional<uint64_t> total =
      kHeaderBytes + kDigestBytes + 8 * slots.size() + 4 * header.tokens + header.note_bytes;
  for (size_t i = 0; i < slots.size() && total; ++i) {
    const int64_t rows = static_cast<int64_t>(header.tokens) - header.first[i];
    const auto bytes =
        checked_mul<uint64_t>(rows_bytes(slots[i], rows), static_cast<uint64_t>(slots[i].heads));
    total = bytes ? checked_add(*total, *bytes) : std::nullopt;
  }
  return total;
}

// Of ops, shapes, encodings, and the first and last rows of every weight.
Result<std::string> graph_fingerprint(const Graph& graph) {
  std::vector<Digest> digests;
  EncodedTile tile;
  for (const Constant& constant : graph.constants) {
    const ConstantData& data = *constant.data;
    const int64_t step = row_granularity(data.encoding(), data.columns());
    const int64_t last = (data.rows() - 1) / step * step;
    Sha256 hash;
    for (const int64_t row : {int64_t{0}, last}) {
      Status status = data.read_tile(row, std::min(step, data.rows() - row), &tile);
      if (!status.ok()) return std::move(status).at(constant.name);
      for (const auto& part : tile.parts) hash.update(part);
    }
    digests.push_back(hash.finish());
  }
  return structure_hash(graph, digests, false);
}

Status check_names(ByteReader& in, const PlanData& plan) {
  POME_ASSIGN_OR_RETURN(const std::string magic, in.text(kMagic.size(), kMagic.size()));
  if (magic != kMagic)
    return in.fail(Refusal::kMagic, "expected a context that pome saved, found other bytes");
  POME_ASSIGN_OR_RETURN(const uint32_t version, in.u32());
  if (version != kVersion)
    return in.fail(Refusal::kVersion,
                   "expected version 1 of a saved context, found " + std::to_string(version));
  POME_ASSIGN_OR_RETURN(const uint32_t kind, in.u32());
  if (kind > static_cast<uint32_t>(KvKind::kQ4))
    return in.fail(Refusal::kRange, "kind " + std::to_string(kind) + " of caches is not known");
  const auto named = kernels::to_string(static_cast<KvKind>(kind));
  POME_ASSIGN_OR_RETURN(const std::string print, in.text(kFingerprintBytes, kFingerprintBytes));
  POME_ASSIGN_OR_RETURN(const std::string expected, graph_fingerprint(plan.graph));
  if (print != expected)
    return in
        .fail(Refusal::kRange,
              "the context belongs to another model, another --context or other "
              "arithmetic (--exact)")
        .hint("name another file, or remove this one to start anew");
  if (static_cast<KvKind>(kind) != plan.kv)
    return in
        .fail(Refusal::kRange, "keys and values are saved as " + std::string(named) +
                                   ", this session keeps them as " +
                                   std::string(kernels::to_string(plan.kv)))
        .hint("use --kv " + std::string(named));
  return {};
}

Result<Header> read_header(ByteReader& in, const PlanData& plan, uint64_t file_bytes) {
  if (file_bytes < kHeaderBytes + kDigestBytes)
    return in.fail(Refusal::kTrunc, "holds " + std::to_string(file_bytes) +
                                        " bytes, fewer than the header of a saved context");
  POME_RETURN_IF_ERROR(check_names(in, plan));
  Header out;
  POME_ASSIGN_OR_RETURN(out.tokens, in.u64());
  POME_ASSIGN_OR_RETURN(out.note_bytes, in.u64());
  POME_ASSIGN_OR_RETURN(const uint32_t slots, in.u32());
  POME_ASSIGN_OR_RETURN(const uint32_t zero, in.u32());
  if (out.tokens > uint64_t{1} << 31)
    return in.fail(Refusal::kLimit, std::to_string(out.tokens) + " tokens");
  if (out.note_bytes > kMaxNoteBytes)
    return in.fail(Refusal::kLimit, "a note of " + std::to_string(out.note_bytes) +
                                        " bytes; at most " + std::to_string(kMaxNoteBytes));
  if (slots != plan.caches.size() || zero != 0)
    return in.fail(Refusal::kRange, "expected " + std::to_string(plan.caches.size()) +
                                        " caches, found " + std::to_string(slots));
  const auto tokens = static_cast<int64_t>(out.tokens);
  for (const CacheSlot& slot : plan.caches) {
    POME_ASSIGN_OR_RETURN(const uint64_t first, in.u64());
    const int64_t needed = slot.window > 0 ? std::max<int64_t>(0, tokens + 1 - slot.window) : 0;
    if (first > static_cast<uint64_t>(needed))
      return in.fail(Refusal::kRange, "rows before " + std::to_string(first) +
                                          " are left out, but those from " +
                                          std::to_string(needed) + " on are needed");
    out.first.push_back(static_cast<int64_t>(first));
  }
  const auto expected = expected_bytes(out, plan.caches);
  if (!expected) return in.fail(Refusal::kOverflow, "sizes whose sum does not fit");
  if (*expected != file_bytes)
    return in.fail(*expected > file_bytes ? Refusal::kTrunc : Refusal::kBounds,
                   "expected a file of " + std::to_string(*expected) + " bytes, found " +
                       std::to_string(file_bytes));
  if (tokens > plan.capacity)
    return usage_error("the saved context has " + std::to_string(tokens) +
                       " tokens, this session holds " + std::to_string(plan.capacity))
        .hint("use a larger --context");
  return out;
}

Status check_digest(const ByteSource& source) {
  Sha256 hash;
  std::vector<std::byte> piece(kPiece);
  const uint64_t end = source.size() - kDigestBytes;
  for (uint64_t at = 0; at < end; at += kPiece) {
    const auto part = std::span(piece).first(std::min<uint64_t>(kPiece, end - at));
    POME_RETURN_IF_ERROR(source.read(at, part));
    hash.update(part);
  }
  Digest stored{};
  POME_RETURN_IF_ERROR(source.read(end, std::as_writable_bytes(std::span(stored))));
  if (stored == hash.finish()) return {};
  return bad_input(Refusal::kIntegrity, "the bytes are not those that were saved")
      .in(source.name())
      .hint("remove the file to start anew");
}

Status read_rows(const ByteSource& source, uint64_t at, const Header& header, KvCache* cache) {
  const auto tokens = static_cast<int64_t>(header.tokens);
  for (size_t slot = 0; slot < header.first.size(); ++slot) {
    const CacheSlot& shape = cache->slots()[slot];
    const uint64_t bytes = rows_bytes(shape, tokens - header.first[slot]);
    for (int64_t head = 0; head < shape.heads; ++head, at += bytes)
      POME_RETURN_IF_ERROR(source.read(
          at, {cache->row(slot, head, header.first[slot]), static_cast<size_t>(bytes)}));
  }
  return {};
}

}  // namespace

Status save_context_file(const std::string& path, const PlanData& plan, const KvCache& cache,
                         std::span<const int32_t> ids, std::string_view note) {
  if (note.size() > kMaxNoteBytes)
    return usage_error("a note of " + std::to_string(note.size()) + " bytes is too long");
  POME_ASSIGN_OR_RETURN(const std::string print, graph_fingerprint(plan.graph));
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<io::Staged> staged,
                        io::Staged::create(path, io::Staged::Kind::kFile, true));
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<io::OutputFile> file,
                        io::OutputFile::create(staged->path()));
  Writer out(file.get());
  std::string head(kMagic);
  put(&head, kVersion);
  put(&head, static_cast<uint32_t>(plan.kv));
  head += print;
  put(&head, static_cast<uint64_t>(ids.size()));
  put(&head, static_cast<uint64_t>(note.size()));
  put(&head, static_cast<uint32_t>(plan.caches.size()));
  put(&head, uint32_t{0});
  for (size_t slot = 0; slot < plan.caches.size(); ++slot)
    put(&head, static_cast<uint64_t>(cache.first_row(slot)));
  for (const int32_t id : ids) put(&head, static_cast<uint32_t>(id));
  POME_RETURN_IF_ERROR(out.write(head));
  POME_RETURN_IF_ERROR(out.write(note));
  for (size_t slot = 0; slot < plan.caches.size(); ++slot) {
    const int64_t first = cache.first_row(slot);
    const uint64_t bytes = rows_bytes(plan.caches[slot], static_cast<int64_t>(ids.size()) - first);
    for (int64_t h = 0; h < plan.caches[slot].heads; ++h)
      POME_RETURN_IF_ERROR(out.write({cache.row(slot, h, first), static_cast<size_t>(bytes)}));
  }
  POME_RETURN_IF_ERROR(out.finish());
  return staged->commit();
}

Result<SavedContext> load_context_file(const std::string& path, const PlanData& plan,
                                       KvCache* cache) {
  POME_ASSIGN_OR_RETURN(const ByteSourcePtr source, open_for_reading(path));
  ByteReader in(source);
  auto header = read_header(in, plan, source->size());
  if (!header.ok()) return std::move(header).status().in(path);
  POME_RETURN_IF_ERROR(check_digest(*source));
  SavedContext out;
  for (uint64_t i = 0; i < header->tokens; ++i) {
    POME_ASSIGN_OR_RETURN(const int32_t id, in.i32());
    if (id < 0 || id >= plan.vocab_size)
      return in.fail(Refusal::kRange, "token id " + std::to_string(id) +
                                          " is outside the vocabulary of " +
                                          std::to_string(plan.vocab_size));
    out.ids.push_back(id);
  }
  POME_ASSIGN_OR_RETURN(out.note, in.text(header->note_bytes, kMaxNoteBytes));
  cache->set_used(0);
  const Status status = read_rows(*source, in.offset(), *header, cache);
  for (size_t slot = 0; slot < header->first.size() && status.ok(); ++slot)
    cache->set_first_row(slot, header->first[slot]);
  // Also after an error: what was read of it is given back.
  cache->set_used(static_cast<int64_t>(header->tokens));
  if (!status.ok()) {
    cache->set_used(0);
    return status;
  }
  return out;
}

}  // namespace pome
