// Weight files (MILBlob storage, version 2), little-endian:
//
//   file header, 64 bytes      0 u32 number of records | 4 u32 version = 2 | zeros
//   record, 64 bytes           0 u32 0xDEADBEEF | 4 u32 data type code | 8 u64 bytes of data
//                              16 u64 offset of the data | 24 u64 unused bits at its end | zeros
//   data, right behind         the next record starts at the next multiple of 64
#include <bit>
#include <cstring>

#include "base/checked.h"
#include "formats/mil_internal.h"

namespace pome::mil {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint64_t kAlignment = 64;
constexpr uint32_t kVersion = 2;
constexpr uint32_t kSentinel = 0xDEADBEEF;

struct FileHeader {
  uint32_t count, version;
  uint64_t reserved[7];
};
static_assert(sizeof(FileHeader) == 64);
struct RecordHeader {
  uint32_t sentinel, code;
  uint64_t size, data, padding_bits;
  uint64_t reserved[4];
};
static_assert(sizeof(RecordHeader) == 64 && offsetof(RecordHeader, padding_bits) == 24);

template <typename T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span<const T, 1>(&value, 1));
}

}  // namespace

Status check_weight_file(const ByteSource& file) {
  FileHeader header;
  if (file.size() < sizeof(header)) {
    return bad_input(Refusal::kTrunc, "a weight file has a header of 64 bytes, this one has " +
                                          std::to_string(file.size()))
        .in(file.name());
  }
  POME_RETURN_IF_ERROR(file.read(0, std::as_writable_bytes(std::span(&header, 1))));
  if (header.version != kVersion) {
    return bad_input(Refusal::kVersion,
                     "weight file version " + std::to_string(header.version) + ", expected 2")
        .in(file.name())
        .at_offset(4);
  }
  return {};
}

Result<BlobRecord> check_blob(const ByteSource& file, const ValueData& value) {
  const uint64_t at = std::get<BlobRef>(value.data).offset;
  const auto fail = [&](Refusal refusal, std::string message) {
    return bad_input(refusal, std::move(message)).in(file.name()).at_offset(at);
  };
  if (at % kAlignment != 0 || at < kAlignment) {
    return fail(Refusal::kBounds, "a record stands at a multiple of 64 behind the header");
  }
  if (!span_fits(at, sizeof(RecordHeader), file.size())) {
    return fail(Refusal::kTrunc,
                "a record of 64 bytes, the file has " + std::to_string(file.size()));
  }
  RecordHeader record;
  POME_RETURN_IF_ERROR(file.read(at, std::as_writable_bytes(std::span(&record, 1))));
  if (record.sentinel != kSentinel) return fail(Refusal::kMagic, "no record starts here");
  const auto count = element_count_of(value.type);
  const auto size = count ? storage_bytes(value.type.dtype, *count) : std::nullopt;
  if (!size) return fail(Refusal::kOverflow, "the size of " + to_string(value.type) + " overflows");
  const uint32_t code = blob_code(value.type.dtype);
  if (code == 0 || record.code != code) {
    return fail(Refusal::kType, "data type code " + std::to_string(record.code) + ", expected " +
                                    std::to_string(code) + " for " + to_string(value.type));
  }
  if (record.size != *size) {
    return fail(Refusal::kRange, "the record states " + std::to_string(record.size) +
                                     " bytes of data, " + to_string(value.type) + " has " +
                                     std::to_string(*size));
  }
  if (record.data != at + sizeof(RecordHeader)) {
    return fail(Refusal::kBounds, "the record's data is said to lie at " +
                                      std::to_string(record.data) + ", not behind the record");
  }
  if (!span_fits(record.data, record.size, file.size())) {
    return fail(Refusal::kTrunc, "data of " + std::to_string(record.size) +
                                     " bytes, the file ends at " + std::to_string(file.size()));
  }
  return BlobRecord{record.data, record.size};
}

Result<Tensor> load_value(const Package& package, const ValueData& value) {
  if (value.type.kind != Type::Kind::kTensor) {
    return bad_input(Refusal::kType, "a value of type " + to_string(value.type) + " is no tensor")
        .in(package.path);
  }
  if (const auto* inline_bytes = std::get_if<std::vector<std::byte>>(&value.data)) {
    const auto count = element_count_of(value.type);
    const auto size = count ? storage_bytes(value.type.dtype, *count) : std::nullopt;
    if (!size || *size != inline_bytes->size()) {
      return bad_input(Refusal::kRange,
                       "the bytes of a value do not match " + to_string(value.type))
          .in(package.path);
    }
    auto copy = std::make_shared<std::vector<std::byte>>(*inline_bytes);
    const std::span<const std::byte> bytes(*copy);
    return Tensor::view(value.type.dtype, value.type.dims, bytes, std::move(copy));
  }
  const auto* ref = std::get_if<BlobRef>(&value.data);
  if (ref == nullptr) {
    return bad_input(Refusal::kType, "strings are no tensor").in(package.path);
  }
  const auto file = package.weight_files.find(ref->file);
  if (file == package.weight_files.end()) {
    return missing("weight file " + ref->file + " is not part of the package").in(package.path);
  }
  POME_ASSIGN_OR_RETURN(const BlobRecord record, check_blob(*file->second, value));
  if (const auto view = file->second->view(record.data, record.size)) {
    return Tensor::view(value.type.dtype, value.type.dims, *view, file->second);
  }
  auto copy = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(record.size));
  POME_RETURN_IF_ERROR(file->second->read(record.data, *copy));
  const std::span<const std::byte> bytes(*copy);
  return Tensor::view(value.type.dtype, value.type.dims, bytes, std::move(copy));
}

// ---- BlobWriter

Result<std::unique_ptr<BlobWriter>> BlobWriter::create(const std::string& path) {
  std::unique_ptr<BlobWriter> writer(new BlobWriter());
  POME_ASSIGN_OR_RETURN(writer->file_, io::OutputFile::create(path));
  const FileHeader header{0, kVersion, {}};
  POME_RETURN_IF_ERROR(writer->file_->write(bytes_of(header)));
  writer->end_ = sizeof(header);
  return writer;
}

// Writes the record header at the next place and returns its offset; end_ moves behind the data.
Result<uint64_t> BlobWriter::place(DType dtype, uint64_t elements) {
  POME_CHECK(!open_);
  POME_CHECK(blob_code(dtype) != 0);
  const auto size = storage_bytes(dtype, elements);
  const auto at = checked_align(end_, kAlignment);
  if (!size || !at || !checked_add<uint64_t>(*at + sizeof(RecordHeader), *size)) {
    return does_not_fit("a weight of " + std::to_string(elements) + " elements");
  }
  RecordHeader record{};
  record.sentinel = kSentinel;
  record.code = blob_code(dtype);
  record.size = *size;
  record.data = *at + sizeof(RecordHeader);
  // Whole bytes have no unused bits; below a byte, size * 8 < 2^64 because elements * bits is.
  if (bits_of(dtype) < 8) {
    record.padding_bits = *size * 8 - elements * static_cast<uint64_t>(bits_of(dtype));
  }
  // The end pointer of the file stays behind the header; everything goes to its place.
  POME_RETURN_IF_ERROR(file_->write_at(*at, bytes_of(record)));
  ++count_;
  left_ = *size;
  end_ = record.data + *size;
  return *at;
}

Result<uint64_t> BlobWriter::begin(DType dtype, uint64_t elements) {
  POME_ASSIGN_OR_RETURN(const uint64_t at, place(dtype, elements));
  open_ = true;
  return at;
}

Status BlobWriter::write(std::span<const std::byte> bytes) {
  POME_CHECK(open_ && bytes.size() <= left_);
  POME_RETURN_IF_ERROR(file_->write_at(end_ - left_, bytes));
  left_ -= bytes.size();
  return {};
}

Status BlobWriter::end() {
  POME_CHECK(open_ && left_ == 0);
  open_ = false;
  return {};
}

Result<uint64_t> BlobWriter::reserve(DType dtype, uint64_t elements) {
  return place(dtype, elements);
}

Status BlobWriter::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  POME_CHECK(span_fits(offset, bytes.size(), end_));
  return file_->write_at(offset, bytes);
}

Status BlobWriter::finish() {
  POME_CHECK(!open_);
  const FileHeader header{count_, kVersion, {}};
  POME_RETURN_IF_ERROR(file_->write_at(0, bytes_of(header)));
  return file_->close();
}

}  // namespace pome::mil
