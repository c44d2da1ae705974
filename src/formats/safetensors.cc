#include "formats/safetensors.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "base/checked.h"
#include "formats/duplicates.h"
#include "formats/json_scanner.h"
#include "formats/sniff.h"

namespace pome {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxDims = 64;

struct DTypeName {
  std::string_view name;
  int bits;
  std::optional<DType> dtype;  // nullopt: the format has it, pome does not
};
constexpr DTypeName kDTypes[] = {
    {"F32", 32, DType::kF32},
    {"F16", 16, DType::kF16},
    {"BF16", 16, DType::kBF16},
    {"F64", 64, DType::kF64},
    {"I8", 8, DType::kI8},
    {"U8", 8, DType::kU8},
    {"I16", 16, DType::kI16},
    {"U16", 16, DType::kU16},
    {"I32", 32, DType::kI32},
    {"U32", 32, DType::kU32},
    {"I64", 64, DType::kI64},
    {"U64", 64, DType::kU64},
    {"BOOL", 8, DType::kBool},
    {"F8_E4M3", 8, DType::kF8E4M3},
    {"F8_E5M2", 8, DType::kF8E5M2},
    {"F8_E8M0", 8, std::nullopt},
    {"F8_E4M3FNUZ", 8, std::nullopt},
    {"F8_E5M2FNUZ", 8, std::nullopt},
    {"F6_E2M3", 6, std::nullopt},
    {"F6_E3M2", 6, std::nullopt},
    {"F4", 4, std::nullopt},
    {"C64", 64, std::nullopt},
};

std::string in_quotes(std::string_view text) { return "\"" + escape_for_terminal(text, 80) + "\""; }

// One tensor as the header states it, with the places of its parts for messages.
struct Stated {
  std::string dtype;
  Shape shape;
  uint64_t begin = 0, end = 0;
  uint64_t dtype_at = 0, shape_at = 0, span_at = 0;
  bool has_dtype = false, has_shape = false, has_span = false;
};

class HeaderParser {
 public:
  HeaderParser(ByteSourcePtr source, std::string_view text)
      : scan_(text, source->name(), 8), text_(text) {
    file_.source = std::move(source);
  }

  Result<SafetensorsFile> parse() {
    POME_RETURN_IF_ERROR(check_start());
    POME_RETURN_IF_ERROR(read_object());
    POME_RETURN_IF_ERROR(check_padding());
    const auto duplicate = first_duplicate(
        file_.entries.size(), [&](size_t i) { return std::string_view(file_.entries[i].name); });
    if (duplicate) {
      return refuse(Refusal::kDup, name_offsets_[*duplicate],
                    "tensor " + in_quotes(file_.entries[*duplicate].name) + " is listed twice");
    }
    POME_RETURN_IF_ERROR(check_layout());
    return std::move(file_);
  }

 private:
  Status refuse(Refusal refusal, uint64_t offset, std::string message) const {
    return bad_input(refusal, std::move(message)).in(file_.source->name()).at_offset(offset);
  }

  Status check_start() const;
  Status check_padding() const;
  Status read_object();
  Status read_metadata();
  Status read_tensor(std::string name);
  Status read_member(Stated& stated, const std::string& tensor);
  Status read_shape(Stated& stated);
  Status read_span(Stated& stated);
  Result<SafetensorsEntry> check_tensor(std::string name, Stated stated) const;
  Status check_layout();

  JsonScanner scan_;
  std::string_view text_;
  SafetensorsFile file_;
  bool has_metadata_ = false;
  std::vector<uint64_t> name_offsets_;  // parallel to file_.entries until they are sorted
};

Status HeaderParser::check_start() const {
  if (!is_valid_utf8(text_)) return refuse(Refusal::kUtf8, 8, "the header is not valid UTF-8");
  if (text_.starts_with("\xef\xbb\xbf")) {
    return refuse(Refusal::kType, 8, "the header starts with a byte order mark");
  }
  if (text_.empty() || text_.front() != '{') {
    return refuse(Refusal::kRange, 8, "the header does not start with \"{\"");
  }
  return {};
}

Status HeaderParser::check_padding() const {
  const std::string_view rest = scan_.rest();
  const size_t bad = rest.find_first_not_of(' ');
  if (bad == std::string_view::npos) return {};
  return refuse(Refusal::kType, scan_.offset() + bad,
                "only spaces may follow the JSON header, found " + in_quotes(rest.substr(bad, 1)));
}

Status HeaderParser::read_object() {
  POME_RETURN_IF_ERROR(scan_.expect('{'));
  if (scan_.accept('}')) return {};
  while (true) {
    scan_.skip_space();
    const uint64_t offset = scan_.offset();
    POME_ASSIGN_OR_RETURN(std::string name, scan_.string("a tensor name"));
    POME_RETURN_IF_ERROR(scan_.expect(':'));
    if (name == "__metadata__") {
      if (has_metadata_) return refuse(Refusal::kDup, offset, "__metadata__ appears twice");
      has_metadata_ = true;
      POME_RETURN_IF_ERROR(read_metadata());
    } else {
      name_offsets_.push_back(offset);
      POME_RETURN_IF_ERROR(read_tensor(std::move(name)));
    }
    POME_ASSIGN_OR_RETURN(const bool more, scan_.more('}'));
    if (!more) return {};
  }
}

Status HeaderParser::read_metadata() {
  if (!scan_.accept('{')) return scan_.wrong_type("__metadata__");
  if (scan_.accept('}')) return {};
  while (true) {
    scan_.skip_space();
    const uint64_t offset = scan_.offset();
    POME_ASSIGN_OR_RETURN(std::string key, scan_.string("a key of __metadata__"));
    POME_RETURN_IF_ERROR(scan_.expect(':'));
    POME_ASSIGN_OR_RETURN(std::string value, scan_.string("a value of __metadata__"));
    const auto [place, fresh] = file_.metadata.emplace(std::move(key), std::move(value));
    if (!fresh) {
      return refuse(Refusal::kDup, offset,
                    "__metadata__ has the key " + in_quotes(place->first) + " twice");
    }
    POME_ASSIGN_OR_RETURN(const bool more, scan_.more('}'));
    if (!more) return {};
  }
}

Status HeaderParser::read_shape(Stated& stated) {
  if (!scan_.accept('[')) return scan_.wrong_type("a shape");
  if (scan_.accept(']')) return {};
  while (true) {
    scan_.skip_space();
    const uint64_t offset = scan_.offset();
    POME_ASSIGN_OR_RETURN(const uint64_t dim, scan_.unsigned_integer("a dimension"));
    const auto narrow = checked_cast<int64_t>(dim);
    if (!narrow) return refuse(Refusal::kRange, offset, "a dimension is above 2^63-1");
    if (stated.shape.size() == kMaxDims) {
      return refuse(Refusal::kLimit, offset, "a shape has more than 64 dimensions");
    }
    stated.shape.push_back(*narrow);
    POME_ASSIGN_OR_RETURN(const bool more, scan_.more(']'));
    if (!more) return {};
  }
}

Status HeaderParser::read_span(Stated& stated) {
  const auto wrong_count = [&] {
    return refuse(Refusal::kType, stated.span_at, "data_offsets must hold two numbers");
  };
  if (!scan_.accept('[')) return scan_.wrong_type("data_offsets");
  if (scan_.accept(']')) return wrong_count();
  POME_ASSIGN_OR_RETURN(stated.begin, scan_.unsigned_integer("a data offset"));
  if (!scan_.accept(',')) return scan_.accept(']') ? wrong_count() : scan_.expect(',');
  POME_ASSIGN_OR_RETURN(stated.end, scan_.unsigned_integer("a data offset"));
  if (scan_.accept(',')) return wrong_count();
  return scan_.expect(']');
}

Status HeaderParser::read_member(Stated& stated, const std::string& tensor) {
  scan_.skip_space();
  const uint64_t offset = scan_.offset();
  POME_ASSIGN_OR_RETURN(const std::string key, scan_.string("a key of a tensor"));
  POME_RETURN_IF_ERROR(scan_.expect(':'));
  scan_.skip_space();
  bool* seen = key == "dtype"          ? &stated.has_dtype
               : key == "shape"        ? &stated.has_shape
               : key == "data_offsets" ? &stated.has_span
                                       : nullptr;
  if (!seen) {
    return refuse(Refusal::kType, offset,
                  "tensor " + in_quotes(tensor) + " has the unknown member " + in_quotes(key));
  }
  if (*seen) {
    return refuse(Refusal::kDup, offset, "tensor " + in_quotes(tensor) + " has " + key + " twice");
  }
  *seen = true;
  const uint64_t value_at = scan_.offset();
  if (key == "dtype") {
    stated.dtype_at = value_at;
    POME_ASSIGN_OR_RETURN(stated.dtype, scan_.string("a dtype"));
    return {};
  }
  if (key == "shape") {
    stated.shape_at = value_at;
    return read_shape(stated);
  }
  stated.span_at = value_at;
  return read_span(stated);
}

Status HeaderParser::read_tensor(std::string name) {
  scan_.skip_space();
  const uint64_t offset = scan_.offset();
  if (!scan_.accept('{')) return scan_.wrong_type("tensor " + in_quotes(name));
  Stated stated;
  bool more = !scan_.accept('}');
  while (more) {
    POME_RETURN_IF_ERROR(read_member(stated, name));
    POME_ASSIGN_OR_RETURN(more, scan_.more('}'));
  }
  if (!stated.has_dtype || !stated.has_shape || !stated.has_span) {
    return refuse(Refusal::kType, offset,
                  "tensor " + in_quotes(name) + " lacks " +
                      (!stated.has_dtype   ? "dtype"
                       : !stated.has_shape ? "shape"
                                           : "data_offsets"));
  }
  POME_ASSIGN_OR_RETURN(SafetensorsEntry entry, check_tensor(std::move(name), std::move(stated)));
  file_.entries.push_back(std::move(entry));
  return {};
}

// Everything that one tensor says about itself; entry.offset counts from where the data begins.
Result<SafetensorsEntry> HeaderParser::check_tensor(std::string name, Stated stated) const {
  const std::string who = "tensor " + in_quotes(name);
  const auto known = std::find_if(std::begin(kDTypes), std::end(kDTypes),
                                  [&](const DTypeName& d) { return d.name == stated.dtype; });
  if (known == std::end(kDTypes)) {
    return refuse(Refusal::kType, stated.dtype_at,
                  who + " has the unknown dtype " + in_quotes(stated.dtype));
  }
  uint64_t bits = static_cast<uint64_t>(known->bits);
  for (const int64_t dim : stated.shape) {
    const auto product = checked_mul(bits, static_cast<uint64_t>(dim));
    if (!product) {
      return refuse(
          Refusal::kOverflow, stated.shape_at,
          "the size of " + who + " of shape " + to_string(stated.shape) + " exceeds 64 bits");
    }
    bits = *product;
  }
  if (bits % 8 != 0) {
    return refuse(Refusal::kRange, stated.shape_at,
                  who + " of dtype " + stated.dtype + " does not fill whole bytes");
  }
  if (!known->dtype) {
    return Status(StatusCode::kUnsupported,
                  who + " is stored as " + stated.dtype + ", which pome does not read",
                  Refusal::kType)
        .in(file_.source->name())
        .at_offset(stated.dtype_at)
        .hint("use a checkpoint in BF16, F16 or F32");
  }
  if (stated.end < stated.begin) {
    return refuse(Refusal::kRange, stated.span_at, "the data of " + who + " ends before it begins");
  }
  if (stated.end - stated.begin != bits / 8) {
    return refuse(Refusal::kRange, stated.span_at,
                  who + " of shape " + to_string(stated.shape) + " and dtype " + stated.dtype +
                      " needs " + std::to_string(bits / 8) + " bytes, but its data_offsets span " +
                      std::to_string(stated.end - stated.begin));
  }
  return SafetensorsEntry{std::move(name), *known->dtype, std::move(stated.shape), stated.begin,
                          bits / 8};
}

// The spans must touch, from the first byte of the data to the last one of the file.
Status HeaderParser::check_layout() {
  auto& entries = file_.entries;
  std::vector<size_t> order(entries.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const SafetensorsEntry &x = entries[a], &y = entries[b];
    if (x.offset != y.offset) return x.offset < y.offset;
    return x.bytes != y.bytes ? x.bytes < y.bytes : a < b;
  });
  const uint64_t data_start = 8 + text_.size();
  const uint64_t data_size = file_.source->size() - data_start;
  uint64_t end = 0;
  std::vector<SafetensorsEntry> sorted;
  sorted.reserve(entries.size());
  for (const size_t i : order) {
    SafetensorsEntry& entry = entries[i];
    if (entry.offset != end) {
      const bool overlap = entry.offset < end;
      return refuse(overlap ? Refusal::kOverlap : Refusal::kHole, name_offsets_[i],
                    "the data of tensor " + in_quotes(entry.name) + " starts at " +
                        std::to_string(entry.offset) + ", " +
                        (overlap ? "inside the tensor before it" : "after an unused gap") +
                        " (expected " + std::to_string(end) + ")");
    }
    end += entry.bytes;  // data_offsets ended here, so it fits
    if (end > data_size) {
      return refuse(Refusal::kTrunc, file_.source->size(),
                    "the data of tensor " + in_quotes(entry.name) + " is cut off: the file ends " +
                        std::to_string(end - data_size) + " bytes early")
          .hint("the file is not complete; fetch it again");
    }
    entry.offset += data_start;
    sorted.push_back(std::move(entry));
  }
  if (end < data_size) {
    return refuse(Refusal::kBounds, data_start + end,
                  std::to_string(data_size - end) + " unexpected bytes after the last tensor");
  }
  entries = std::move(sorted);
  return {};
}

}  // namespace

std::string_view safetensors_dtype_name(DType dtype) {
  for (const DTypeName& known : kDTypes) {
    if (known.dtype == dtype) return known.name;
  }
  return {};
}

namespace {

Result<SafetensorsFile> read_file(ByteSourcePtr source) {
  ByteReader reader(source);
  POME_ASSIGN_OR_RETURN(const uint64_t header_bytes, reader.u64());
  const auto refuse = [&](Refusal refusal, std::string message) {
    return bad_input(refusal, std::move(message)).in(source->name()).at_offset(0);
  };
  if (header_bytes > kMaxHeaderBytes) {
    POME_RETURN_IF_ERROR(check_not_placeholder(*source));
    const std::string foreign = foreign_format(*source);
    if (!foreign.empty()) {
      return refuse(Refusal::kMagic, "expected a safetensors file, found " + foreign)
          .hint("use the safetensors or GGUF files of the model");
    }
    return refuse(Refusal::kLimit, "the header is said to have " + std::to_string(header_bytes) +
                                       " bytes, over the limit of 100000000")
        .hint("check that this is a safetensors file");
  }
  if (header_bytes > reader.remaining()) {
    return refuse(Refusal::kBounds, "the header is said to have " + std::to_string(header_bytes) +
                                        " bytes, but " + std::to_string(reader.remaining()) +
                                        " are left")
        .hint("the file is damaged or cut; fetch it again");
  }
  std::string header(header_bytes, '\0');
  POME_RETURN_IF_ERROR(source->read(8, std::as_writable_bytes(std::span(header))));
  return HeaderParser(std::move(source), header).parse();
}

}  // namespace

Result<SafetensorsFile> read_safetensors(ByteSourcePtr source) {
  auto file = read_file(std::move(source));
  if (!file.ok()) return with_file_hint(std::move(file).status());
  return file;
}

Result<Tensor> load_tensor(const SafetensorsFile& file, const SafetensorsEntry& entry) {
  if (!span_fits(entry.offset, entry.bytes, file.source->size())) {
    return bad_input(Refusal::kBounds, "tensor " + in_quotes(entry.name) + " lies outside the file")
        .in(file.source->name())
        .at_offset(entry.offset);
  }
  if (const auto view = file.source->view(entry.offset, entry.bytes)) {
    // The format does not promise alignment; elements are read through typed pointers.
    const auto align = static_cast<uintptr_t>(std::max(1, bits_of(entry.dtype) / 8));
    if (!view->empty() && reinterpret_cast<uintptr_t>(view->data()) % align == 0) {
      return Tensor::view(entry.dtype, entry.shape, *view, file.source);
    }
  }
  Tensor tensor = Tensor::zeros(entry.dtype, entry.shape);
  POME_RETURN_IF_ERROR(file.source->read(entry.offset, tensor.mutable_bytes()));
  return tensor;
}

}  // namespace pome
