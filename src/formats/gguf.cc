#include "formats/gguf.h"

#include <algorithm>
#include <array>
#include <bit>

#include "base/checked.h"
#include "formats/duplicates.h"
#include "formats/gguf_internal.h"
#include "formats/sniff.h"

namespace pome {
namespace {

static_assert(std::endian::native == std::endian::little, "arrays are read without byte swapping");

constexpr uint64_t kMaxKeyBytes = 64u << 10;
constexpr uint64_t kMaxAlignment = 64u << 10;
constexpr uint64_t kMaxNameBytes = 63;
constexpr uint32_t kMaxDims = 4;
// More elements than any file can hold; below it no product with a block size wraps.
constexpr uint64_t kMaxElements = uint64_t{1} << 48;
constexpr uint64_t kMinPairBytes = 8 + 1 + 4 + 1;  // length, key, type, value
constexpr uint64_t kMinTensorBytes =
    8 + 1 + 4 + 8 + 4 + 8;  // length, name, rank, dim, type, offset
// What a std::string costs beside its bytes, roughly: many empty strings must not escape the
// budget.
constexpr uint64_t kStringOverhead = 40;

// Bytes of one element in the file; 0 for strings and arrays.
constexpr uint64_t kElementBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

bool has_control_byte(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) {
    const auto u = static_cast<unsigned char>(c);
    return u < 0x20 || u == 0x7f;
  });
}

const char* removed_type(int64_t type) {
  switch (type) {
    case 4:
      return "Q4_2";
    case 5:
      return "Q4_3";
    case 31:
      return "Q4_0_4_4";
    case 32:
      return "Q4_0_4_8";
    case 33:
      return "Q4_0_8_8";
    case 36:
      return "IQ4_NL_4_4";
    case 37:
      return "IQ4_NL_4_8";
    case 38:
      return "IQ4_NL_8_8";
    default:
      return nullptr;
  }
}

using gguf::in_quotes;

class GgufParser {
 public:
  GgufParser(ByteSourcePtr source, const GgufReadOptions& options)
      : reader_(source), options_(options), budget_(options.metadata_bytes) {
    file_.source = std::move(source);
  }

  Result<GgufFile> parse() {
    POME_RETURN_IF_ERROR(read_header());
    POME_RETURN_IF_ERROR(read_metadata());
    POME_RETURN_IF_ERROR(read_alignment());
    POME_RETURN_IF_ERROR(read_tensor_infos());
    POME_RETURN_IF_ERROR(
        gguf::place_tensors(file_, reader_.offset(), tensor_info_offsets_, options_.strict));
    return std::move(file_);
  }

 private:
  Status refuse(Refusal refusal, uint64_t offset, std::string message) const {
    return bad_input(refusal, std::move(message)).in(file_.source->name()).at_offset(offset);
  }
  Status spend(uint64_t bytes, uint64_t offset) {
    if (bytes > budget_) {
      return refuse(Refusal::kLimit, offset,
                    "the metadata needs more than " + std::to_string(options_.metadata_bytes) +
                        " bytes of memory");
    }
    budget_ -= bytes;
    return {};
  }

  Status read_header();
  Status refuse_magic(const std::array<char, 4>& magic) const;
  Status check_version(uint64_t offset) const;
  Status check_count(std::string_view what, uint64_t count, uint64_t minimum_bytes,
                     uint64_t offset) const;

  Status read_metadata();
  Result<std::string> read_key();
  Result<GgufType> read_type(std::string_view what);
  Result<GgufValue> read_value();
  Status read_array(GgufValue& value);
  Status check_array_length(GgufType element, uint64_t count, uint64_t offset) const;
  Result<std::string> read_string(std::string_view what);
  template <typename Stored, typename Out>
  Status read_numbers(uint64_t count, std::vector<Out>& out);
  Status read_bools(uint64_t count, std::vector<uint8_t>& out);
  Status read_scalar(GgufValue& value);
  Status read_alignment();

  Status read_tensor_infos();
  Status read_tensor_info();
  Result<std::string> read_tensor_name();
  Status read_tensor_shape(GgufTensor& tensor);
  Status set_tensor_type(GgufTensor& tensor, uint32_t type, uint64_t offset);

  GgufFile file_;
  ByteReader reader_;
  GgufReadOptions options_;
  uint64_t budget_;
  uint64_t tensor_count_ = 0, pair_count_ = 0;
  uint64_t alignment_offset_ = 0;              // where the value of general.alignment lies
  std::vector<uint64_t> tensor_info_offsets_;  // for messages
};

// ---- header ------------------------------------------------------------------------------------

Status GgufParser::refuse_magic(const std::array<char, 4>& magic) const {
  POME_RETURN_IF_ERROR(check_not_placeholder(*file_.source));
  const std::string_view text(magic.data(), magic.size());
  // The old formats stored their magic as a little-endian number, so the file shows it reversed.
  for (const std::string_view legacy :
       {"GGML", "lmgg", "ggmf", "fmgg", "ggjt", "tjgg", "ggla", "algg"}) {
    if (text != legacy) continue;
    return refuse(Refusal::kMagic, 0, "this is a GGML file from before GGUF")
        .hint("convert it to GGUF with a llama.cpp of 2023, or download a GGUF file of the model");
  }
  const std::string foreign = foreign_format(*file_.source);
  return refuse(Refusal::kMagic, 0,
                "expected a GGUF file (first bytes \"GGUF\"), found " +
                    (foreign.empty() ? in_quotes(text) : foreign))
      .hint("check that this is the file you meant");
}

Status GgufParser::check_version(uint64_t offset) const {
  const uint32_t version = file_.version;
  if (version == 2 || version == 3) return {};
  const std::string found = "GGUF version " + std::to_string(version);
  if (version == 1) {
    return refuse(Refusal::kVersion, offset, found + " is not supported (2 and 3 are)")
        .hint("convert it again with a current llama.cpp");
  }
  if (version != 0 && (version & 0xffff) == 0) {
    return refuse(Refusal::kVersion, offset,
                  "this is a big-endian GGUF file; only little-endian ones are read")
        .hint("convert it with gguf-convert-endian, or download the little-endian file");
  }
  if (version == 0) {
    return refuse(Refusal::kVersion, offset, found + " does not exist")
        .hint("the file is damaged; fetch it again");
  }
  return refuse(Refusal::kVersion, offset,
                found + ": the file is newer than this pome (2 and 3 are supported)")
      .hint("update pome");
}

Status GgufParser::check_count(std::string_view what, uint64_t count, uint64_t minimum_bytes,
                               uint64_t offset) const {
  if (count <= reader_.remaining() / minimum_bytes) return {};
  return refuse(Refusal::kLimit, offset,
                "the header promises " + std::to_string(count) + " " + std::string(what) +
                    ", more than fit in the remaining " + std::to_string(reader_.remaining()) +
                    " bytes")
      .hint("the file is damaged or cut; fetch it again");
}

Status GgufParser::read_header() {
  std::array<char, 4> magic{};
  POME_RETURN_IF_ERROR(reader_.bytes(std::as_writable_bytes(std::span(magic))));
  if (std::string_view(magic.data(), 4) != "GGUF") return refuse_magic(magic);
  const uint64_t version_offset = reader_.offset();
  POME_ASSIGN_OR_RETURN(file_.version, reader_.u32());
  POME_RETURN_IF_ERROR(check_version(version_offset));
  const uint64_t counts_offset = reader_.offset();
  POME_ASSIGN_OR_RETURN(tensor_count_, reader_.u64());
  POME_ASSIGN_OR_RETURN(pair_count_, reader_.u64());
  POME_RETURN_IF_ERROR(check_count("tensors", tensor_count_, kMinTensorBytes, counts_offset));
  return check_count("metadata entries", pair_count_, kMinPairBytes, counts_offset + 8);
}

// ---- metadata ----------------------------------------------------------------------------------

Status GgufParser::read_metadata() {
  std::vector<uint64_t> offsets;
  for (uint64_t i = 0; i < pair_count_; ++i) {
    offsets.push_back(reader_.offset());
    POME_ASSIGN_OR_RETURN(std::string key, read_key());
    POME_ASSIGN_OR_RETURN(GgufValue value, read_value());
    if (key == "general.alignment") alignment_offset_ = reader_.offset() - 4;
    const auto* text = std::get_if<std::string>(&value.data);
    if (text && !is_valid_utf8(*text)) {
      file_.warnings.push_back("the text of " + in_quotes(key) + " is not valid UTF-8");
    }
    file_.metadata.emplace_back(std::move(key), std::move(value));
  }
  const auto duplicate = first_duplicate(
      file_.metadata.size(), [&](size_t i) { return std::string_view(file_.metadata[i].first); });
  if (!duplicate) return {};
  return refuse(
      Refusal::kDup, offsets[*duplicate],
      "the metadata key " + in_quotes(file_.metadata[*duplicate].first) + " appears twice");
}

Result<std::string> GgufParser::read_key() {
  const uint64_t offset = reader_.offset();
  POME_ASSIGN_OR_RETURN(const uint64_t size, reader_.u64());
  const std::string found = "a metadata key of " + std::to_string(size) + " bytes";
  // A length with the top bit set is no length at all; one that is merely large meets the cap
  // first.
  if (size >> 63) return refuse(Refusal::kBounds, offset, found + " does not fit the file");
  if (size > kMaxKeyBytes) {
    return refuse(Refusal::kLimit, offset, found + " is over the limit of 65536");
  }
  if (size == 0) return refuse(Refusal::kRange, offset, "a metadata key is empty");
  if (size > reader_.remaining()) {
    return refuse(Refusal::kBounds, offset, found + " does not fit the file");
  }
  POME_RETURN_IF_ERROR(spend(size + kStringOverhead, offset));
  POME_ASSIGN_OR_RETURN(std::string key, reader_.text(size, kMaxKeyBytes));
  if (!is_valid_utf8(key) || has_control_byte(key)) {
    return refuse(Refusal::kUtf8, offset + 8,
                  "the metadata key " + in_quotes(key) + " is not plain UTF-8 text");
  }
  return key;
}

Result<GgufType> GgufParser::read_type(std::string_view what) {
  const uint64_t offset = reader_.offset();
  POME_ASSIGN_OR_RETURN(const uint32_t type, reader_.u32());
  if (type > static_cast<uint32_t>(GgufType::kF64)) {
    return refuse(Refusal::kType, offset,
                  std::string(what) + " has the unknown type " + std::to_string(type));
  }
  return static_cast<GgufType>(type);
}

Result<GgufValue> GgufParser::read_value() {
  GgufValue value;
  POME_ASSIGN_OR_RETURN(value.type, read_type("a metadata value"));
  if (value.type == GgufType::kArray) {
    POME_RETURN_IF_ERROR(read_array(value));
  } else if (value.type == GgufType::kString) {
    POME_ASSIGN_OR_RETURN(value.data, read_string("a text in the metadata"));
  } else {
    POME_RETURN_IF_ERROR(spend(sizeof(GgufValue), reader_.offset()));
    POME_RETURN_IF_ERROR(read_scalar(value));
  }
  return value;
}

Result<std::string> GgufParser::read_string(std::string_view what) {
  const uint64_t offset = reader_.offset();
  POME_ASSIGN_OR_RETURN(const uint64_t size, reader_.u64());
  if (size > reader_.remaining()) {
    return refuse(Refusal::kBounds, offset,
                  std::string(what) + " is said to have " + std::to_string(size) + " bytes, but " +
                      std::to_string(reader_.remaining()) + " are left");
  }
  POME_RETURN_IF_ERROR(spend(size + kStringOverhead, offset));
  return reader_.text(size, size);
}

Status GgufParser::read_scalar(GgufValue& value) {
  const uint64_t offset = reader_.offset();
  switch (value.type) {
    case GgufType::kU8: {
      POME_ASSIGN_OR_RETURN(value.data.emplace<uint64_t>(), reader_.u8());
      break;
    }
    case GgufType::kU16: {
      POME_ASSIGN_OR_RETURN(value.data.emplace<uint64_t>(), reader_.u16());
      break;
    }
    case GgufType::kU32: {
      POME_ASSIGN_OR_RETURN(value.data.emplace<uint64_t>(), reader_.u32());
      break;
    }
    case GgufType::kU64: {
      POME_ASSIGN_OR_RETURN(value.data.emplace<uint64_t>(), reader_.u64());
      break;
    }
    case GgufType::kI8: {
      POME_ASSIGN_OR_RETURN(value.data.emplace<int64_t>(), reader_.i8());
      break;
    }
    case GgufType::kI16: {
      POME_ASSIGN_OR_RETURN(value.data.emplace<int64_t>(), reader_.i16());
      break;
    }
    case GgufType::kI32: {
      POME_ASSIGN_OR_RETURN(value.data.emplace<int64_t>(), reader_.i32());
      break;
    }
    case GgufType::kI64: {
      POME_ASSIGN_OR_RETURN(value.data.emplace<int64_t>(), reader_.i64());
      break;
    }
    case GgufType::kF32: {
      POME_ASSIGN_OR_RETURN(value.data.emplace<double>(), reader_.f32());
      break;
    }
    case GgufType::kF64: {
      POME_ASSIGN_OR_RETURN(value.data.emplace<double>(), reader_.f64());
      break;
    }
    case GgufType::kBool: {
      POME_ASSIGN_OR_RETURN(const uint8_t byte, reader_.u8());
      if (byte > 1) {
        return refuse(Refusal::kRange, offset,
                      "a bool is " + std::to_string(byte) + " instead of 0 or 1");
      }
      value.data.emplace<bool>(byte == 1);
      break;
    }
    case GgufType::kString:
    case GgufType::kArray:
      POME_CHECK(false);
  }
  return {};
}

Status GgufParser::check_array_length(GgufType element, uint64_t count, uint64_t offset) const {
  const std::string found = "an array of " + std::to_string(count) + " elements";
  const uint64_t element_bytes =
      element == GgufType::kString ? 8 : kElementBytes[static_cast<uint32_t>(element)];
  // A count with the top bit set is no count at all, whatever its product would do.
  const auto bytes = checked_mul(count, element_bytes);
  if (!bytes && !(count >> 63)) {
    return refuse(Refusal::kOverflow, offset, "the size of " + found + " exceeds 64 bits");
  }
  if (!bytes || *bytes > reader_.remaining()) {
    return refuse(
        Refusal::kBounds, offset,
        found + " does not fit the remaining " + std::to_string(reader_.remaining()) + " bytes");
  }
  return {};
}

Status GgufParser::read_array(GgufValue& value) {
  const uint64_t type_offset = reader_.offset();
  POME_ASSIGN_OR_RETURN(value.element, read_type("an array element"));
  if (value.element == GgufType::kArray) {
    return refuse(Refusal::kType, type_offset, "an array of arrays is not allowed");
  }
  const uint64_t offset = reader_.offset();
  POME_ASSIGN_OR_RETURN(const uint64_t count, reader_.u64());
  POME_RETURN_IF_ERROR(check_array_length(value.element, count, offset));
  const uint64_t in_memory = value.element == GgufType::kString ? kStringOverhead
                             : value.element == GgufType::kBool ? 1
                                                                : 8;
  POME_RETURN_IF_ERROR(spend(count * in_memory, offset));
  switch (value.element) {
    case GgufType::kU8:
      return read_numbers<uint8_t>(count, value.data.emplace<std::vector<uint64_t>>());
    case GgufType::kU16:
      return read_numbers<uint16_t>(count, value.data.emplace<std::vector<uint64_t>>());
    case GgufType::kU32:
      return read_numbers<uint32_t>(count, value.data.emplace<std::vector<uint64_t>>());
    case GgufType::kU64:
      return read_numbers<uint64_t>(count, value.data.emplace<std::vector<uint64_t>>());
    case GgufType::kI8:
      return read_numbers<int8_t>(count, value.data.emplace<std::vector<int64_t>>());
    case GgufType::kI16:
      return read_numbers<int16_t>(count, value.data.emplace<std::vector<int64_t>>());
    case GgufType::kI32:
      return read_numbers<int32_t>(count, value.data.emplace<std::vector<int64_t>>());
    case GgufType::kI64:
      return read_numbers<int64_t>(count, value.data.emplace<std::vector<int64_t>>());
    case GgufType::kF32:
      return read_numbers<float>(count, value.data.emplace<std::vector<double>>());
    case GgufType::kF64:
      return read_numbers<double>(count, value.data.emplace<std::vector<double>>());
    case GgufType::kBool:
      return read_bools(count, value.data.emplace<std::vector<uint8_t>>());
    case GgufType::kString: {
      auto& out = value.data.emplace<std::vector<std::string>>();
      out.reserve(count);
      for (uint64_t i = 0; i < count; ++i) {
        POME_ASSIGN_OR_RETURN(std::string text, read_string("a text in an array"));
        out.push_back(std::move(text));
      }
      return {};
    }
    case GgufType::kArray:
      POME_CHECK(false);
  }
  return {};
}

template <typename Stored, typename Out>
Status GgufParser::read_numbers(uint64_t count, std::vector<Out>& out) {
  out.reserve(count);
  std::array<Stored, 512> chunk;
  while (count > 0) {
    const auto part = std::span(chunk).first(std::min<uint64_t>(count, chunk.size()));
    POME_RETURN_IF_ERROR(reader_.bytes(std::as_writable_bytes(part)));
    out.insert(out.end(), part.begin(), part.end());
    count -= part.size();
  }
  return {};
}

Status GgufParser::read_bools(uint64_t count, std::vector<uint8_t>& out) {
  const uint64_t offset = reader_.offset();
  out.resize(count);
  POME_RETURN_IF_ERROR(reader_.bytes(std::as_writable_bytes(std::span(out))));
  const auto bad = std::find_if(out.begin(), out.end(), [](uint8_t b) { return b > 1; });
  if (bad == out.end()) return {};
  return refuse(Refusal::kRange, offset + static_cast<uint64_t>(bad - out.begin()),
                "a bool is " + std::to_string(*bad) + " instead of 0 or 1");
}

Status GgufParser::read_alignment() {
  const GgufValue* value = file_.find("general.alignment");
  if (!value) return {};
  if (value->type != GgufType::kU32) {
    return refuse(Refusal::kType, alignment_offset_,
                  "general.alignment must be a u32, not " + std::string(to_string(value->type)));
  }
  const uint64_t alignment = std::get<uint64_t>(value->data);
  const std::string found = "general.alignment is " + std::to_string(alignment);
  if (alignment == 0 || !std::has_single_bit(alignment)) {
    return refuse(Refusal::kRange, alignment_offset_, found + ", which is not a power of two");
  }
  if (alignment > kMaxAlignment) {
    return refuse(Refusal::kLimit, alignment_offset_, found + ", over the limit of 65536");
  }
  file_.alignment = alignment;
  return {};
}

// ---- tensors -----------------------------------------------------------------------------------

Status GgufParser::read_tensor_infos() {
  file_.tensors.reserve(tensor_count_);
  tensor_info_offsets_.reserve(tensor_count_);
  for (uint64_t i = 0; i < tensor_count_; ++i) POME_RETURN_IF_ERROR(read_tensor_info());
  const auto duplicate = first_duplicate(
      file_.tensors.size(), [&](size_t i) { return std::string_view(file_.tensors[i].name); });
  if (!duplicate) return {};
  return refuse(Refusal::kDup, tensor_info_offsets_[*duplicate],
                "the tensor name " + in_quotes(file_.tensors[*duplicate].name) + " appears twice");
}

Result<std::string> GgufParser::read_tensor_name() {
  const uint64_t offset = reader_.offset();
  POME_ASSIGN_OR_RETURN(const uint64_t size, reader_.u64());
  if (size > reader_.remaining()) {
    return refuse(Refusal::kBounds, offset,
                  "a tensor name of " + std::to_string(size) + " bytes does not fit the file");
  }
  if (size == 0 || size > kMaxNameBytes) {
    return refuse(Refusal::kRange, offset,
                  "a tensor name has " + std::to_string(size) + " bytes (1 to 63 are allowed)");
  }
  POME_ASSIGN_OR_RETURN(std::string name, reader_.text(size, kMaxNameBytes));
  if (!is_valid_utf8(name) || has_control_byte(name)) {
    return refuse(Refusal::kUtf8, offset + 8,
                  "the tensor name " + in_quotes(name) + " is not plain UTF-8 text");
  }
  // Tools that write one file per tensor would leave their folder.
  if (name.find("../") != std::string::npos) {
    return refuse(Refusal::kRange, offset + 8,
                  "the tensor name " + in_quotes(name) + " holds \"../\"");
  }
  return name;
}

Status GgufParser::read_tensor_shape(GgufTensor& tensor) {
  const uint64_t offset = reader_.offset();
  POME_ASSIGN_OR_RETURN(const uint32_t rank, reader_.u32());
  if (rank == 0 || rank > kMaxDims) {
    return refuse(Refusal::kRange, offset,
                  "tensor " + in_quotes(tensor.name) + " has " + std::to_string(rank) +
                      " dimensions (1 to 4 are allowed)");
  }
  tensor.shape.resize(rank);
  uint64_t elements = 1;
  bool overflow = false;
  for (uint32_t i = 0; i < rank; ++i) {
    const uint64_t dim_offset = reader_.offset();
    POME_ASSIGN_OR_RETURN(const uint64_t dim, reader_.u64());
    if (dim >> 63) {
      return refuse(
          Refusal::kRange, dim_offset,
          "a dimension of tensor " + in_quotes(tensor.name) + " is negative or beyond 2^63");
    }
    tensor.shape[rank - 1 - i] = static_cast<int64_t>(dim);
    const auto product = checked_mul(elements, dim);
    overflow = overflow || !product || *product > kMaxElements;
    elements = product.value_or(0);
  }
  if (overflow) {
    return refuse(Refusal::kOverflow, offset + 4,
                  "tensor " + in_quotes(tensor.name) + " of shape " + to_string(tensor.shape) +
                      " has more elements than any file can hold");
  }
  return {};
}

Status GgufParser::set_tensor_type(GgufTensor& tensor, uint32_t type, uint64_t offset) {
  const auto id = static_cast<int64_t>(static_cast<int32_t>(type));
  const auto encoding = encoding_from_gguf_type(id);
  if (!encoding) {
    const char* removed = removed_type(id);
    Status status =
        refuse(Refusal::kType, offset,
               "tensor " + in_quotes(tensor.name) + " has the " +
                   (removed ? "removed type " + std::to_string(id) + " (" + removed + ")"
                            : "unknown type " + std::to_string(id)));
    return std::move(status).hint(removed ? "convert the model again with a current llama.cpp"
                                          : "the file is damaged, or newer than this pome");
  }
  tensor.encoding = *encoding;
  const EncodingTraits& layout = traits(*encoding);
  const int64_t columns = tensor.shape.back();
  if (columns % layout.block_elements != 0) {
    return refuse(Refusal::kRange, offset,
                  "tensor " + in_quotes(tensor.name) + " has rows of " + std::to_string(columns) +
                      " elements, not a multiple of the " + std::to_string(layout.block_elements) +
                      " that a block of " + std::string(layout.name) + " holds");
  }
  // kMaxElements keeps this product far below 2^64.
  uint64_t elements = 1;
  for (const int64_t dim : tensor.shape) elements *= static_cast<uint64_t>(dim);
  tensor.bytes = elements / static_cast<uint64_t>(layout.block_elements) *
                 static_cast<uint64_t>(layout.block_bytes);
  return {};
}

Status GgufParser::read_tensor_info() {
  GgufTensor tensor;
  tensor_info_offsets_.push_back(reader_.offset());
  POME_ASSIGN_OR_RETURN(tensor.name, read_tensor_name());
  POME_RETURN_IF_ERROR(read_tensor_shape(tensor));
  const uint64_t type_offset = reader_.offset();
  POME_ASSIGN_OR_RETURN(const uint32_t type, reader_.u32());
  POME_RETURN_IF_ERROR(set_tensor_type(tensor, type, type_offset));
  const uint64_t offset_offset = reader_.offset();
  POME_ASSIGN_OR_RETURN(tensor.offset, reader_.u64());
  if (tensor.offset % file_.alignment != 0) {
    return refuse(Refusal::kRange, offset_offset,
                  "the data of tensor " + in_quotes(tensor.name) + " starts at " +
                      std::to_string(tensor.offset) + ", not a multiple of the alignment " +
                      std::to_string(file_.alignment));
  }
  file_.tensors.push_back(std::move(tensor));
  return {};
}

}  // namespace

const GgufValue* GgufFile::find(std::string_view key) const {
  for (const auto& [name, value] : metadata) {
    if (name == key) return &value;
  }
  return nullptr;
}

Result<GgufFile> read_gguf(ByteSourcePtr source, const GgufReadOptions& options) {
  auto file = GgufParser(std::move(source), options).parse();
  if (!file.ok()) return with_file_hint(std::move(file).status());
  return file;
}

}  // namespace pome
