#include <bit>
#include <cstring>
#include <limits>

#include "base/checked.h"
#include "formats/duplicates.h"
#include "formats/gguf.h"

namespace pome {
namespace {

constexpr uint64_t kMaxAlignment = 64u << 10;

// Appends little-endian values to a growing header.
class Buffer {
 public:
  template <typename T>
  void number(T value) {
    static_assert(std::endian::native == std::endian::little);
    const size_t at = text_.size();
    text_.resize(at + sizeof(T));
    std::memcpy(text_.data() + at, &value, sizeof(T));
  }
  void string(std::string_view value) {
    number<uint64_t>(value.size());
    text_.append(value);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

Status wrong(std::string_view key, std::string_view why) {
  return bad_input(Refusal::kRange, "cannot write the metadata key \"" +
                                        escape_for_terminal(key, 80) + "\": " + std::string(why));
}

template <typename T, typename Wide>
bool put_integer(Buffer& out, Wide value) {
  const auto narrow = checked_cast<T>(value);
  if (narrow) out.number(*narrow);
  return narrow.has_value();
}

// One number of the given type; false when it does not fit.
bool put_unsigned(Buffer& out, GgufType type, uint64_t value) {
  switch (type) {
    case GgufType::kU8:
      return put_integer<uint8_t>(out, value);
    case GgufType::kU16:
      return put_integer<uint16_t>(out, value);
    case GgufType::kU32:
      return put_integer<uint32_t>(out, value);
    case GgufType::kU64:
      return put_integer<uint64_t>(out, value);
    default:
      return false;
  }
}
bool put_signed(Buffer& out, GgufType type, int64_t value) {
  switch (type) {
    case GgufType::kI8:
      return put_integer<int8_t>(out, value);
    case GgufType::kI16:
      return put_integer<int16_t>(out, value);
    case GgufType::kI32:
      return put_integer<int32_t>(out, value);
    case GgufType::kI64:
      return put_integer<int64_t>(out, value);
    default:
      return false;
  }
}
bool put_float(Buffer& out, GgufType type, double value) {
  if (type == GgufType::kF32)
    out.number(static_cast<float>(value));
  else if (type == GgufType::kF64)
    out.number(value);
  else
    return false;
  return true;
}

// Visits GgufValue::data; every alternative must agree with the declared type.
struct Putter {
  Buffer& out;
  const GgufValue& value;

  template <typename T, typename Put>
  bool array(const std::vector<T>& items, Put put) {
    if (value.type != GgufType::kArray || value.element == GgufType::kArray) return false;
    out.number(static_cast<uint32_t>(value.element));
    out.number<uint64_t>(items.size());
    for (const T& item : items) {
      if (!put(item)) return false;
    }
    return true;
  }
  bool operator()(uint64_t v) { return put_unsigned(out, value.type, v); }
  bool operator()(int64_t v) { return put_signed(out, value.type, v); }
  bool operator()(double v) { return put_float(out, value.type, v); }
  bool operator()(bool v) {
    if (value.type != GgufType::kBool) return false;
    out.number<uint8_t>(v ? 1 : 0);
    return true;
  }
  bool operator()(const std::string& v) {
    if (value.type != GgufType::kString) return false;
    out.string(v);
    return true;
  }
  bool operator()(const std::vector<uint64_t>& v) {
    return array(v, [&](uint64_t x) { return put_unsigned(out, value.element, x); });
  }
  bool operator()(const std::vector<int64_t>& v) {
    return array(v, [&](int64_t x) { return put_signed(out, value.element, x); });
  }
  bool operator()(const std::vector<double>& v) {
    return array(v, [&](double x) { return put_float(out, value.element, x); });
  }
  bool operator()(const std::vector<uint8_t>& v) {
    if (value.element != GgufType::kBool) return false;
    return array(v, [&](uint8_t x) {
      out.number<uint8_t>(x);
      return x <= 1;
    });
  }
  bool operator()(const std::vector<std::string>& v) {
    if (value.element != GgufType::kString) return false;
    return array(v, [&](const std::string& x) {
      out.string(x);
      return true;
    });
  }
};

Result<uint64_t> alignment_of(const std::vector<std::pair<std::string, GgufValue>>& metadata) {
  for (const auto& [key, value] : metadata) {
    if (key != "general.alignment") continue;
    const auto alignment = value.as_unsigned();
    if (value.type != GgufType::kU32 || !alignment || !std::has_single_bit(*alignment) ||
        *alignment > kMaxAlignment) {
      return wrong(key, "it must be a u32, a power of two up to 65536");
    }
    return *alignment;
  }
  return 32;
}

using StringPlaces = std::map<std::string, std::pair<uint64_t, uint64_t>>;

Status put_metadata(Buffer& out, const std::vector<std::pair<std::string, GgufValue>>& metadata,
                    StringPlaces& strings) {
  const auto duplicate = first_duplicate(
      metadata.size(), [&](size_t i) { return std::string_view(metadata[i].first); });
  if (duplicate) return wrong(metadata[*duplicate].first, "it appears twice");
  for (const auto& [key, value] : metadata) {
    if (key.empty() || key.size() >= 65536) return wrong(key, "its length must be 1 to 65535");
    out.string(key);
    out.number(static_cast<uint32_t>(value.type));
    if (!std::visit(Putter{out, value}, value.data)) {
      return wrong(key, "the value does not fit the type " + std::string(to_string(value.type)));
    }
    if (const auto* text = std::get_if<std::string>(&value.data))
      strings[key] = {out.text().size() - text->size(), text->size()};
  }
  return {};
}

Result<uint64_t> stored_bytes(const GgufWriter::Declared& tensor) {
  const auto refuse = [&](std::string_view why) {
    return bad_input(Refusal::kRange, "cannot write tensor \"" +
                                          escape_for_terminal(tensor.name, 80) + "\" of shape " +
                                          to_string(tensor.shape) + ": " + std::string(why));
  };
  if (tensor.name.empty() || tensor.name.size() > 63) {
    return refuse("GGUF allows names of 1 to 63 bytes");
  }
  if (tensor.shape.empty() || tensor.shape.size() > 4)
    return refuse("GGUF allows 1 to 4 dimensions");
  const EncodingTraits& layout = traits(tensor.encoding);
  if (layout.gguf_type < 0) {
    return Status(StatusCode::kUnsupported, "GGUF has no type for " + std::string(layout.name));
  }
  const auto elements = element_count(tensor.shape);
  if (!elements) return refuse("the shape is not valid");
  if (tensor.shape.back() % layout.block_elements != 0) {
    return refuse("rows are not whole blocks of " + std::string(layout.name));
  }
  const auto bytes = checked_mul(static_cast<uint64_t>(*elements / layout.block_elements),
                                 static_cast<uint64_t>(layout.block_bytes));
  if (!bytes) return refuse("it is too large");
  return *bytes;
}

}  // namespace

GgufValue GgufValue::u32(uint32_t value) {
  return {GgufType::kU32, GgufType::kU32, uint64_t{value}};
}
GgufValue GgufValue::i32(int32_t value) { return {GgufType::kI32, GgufType::kU32, int64_t{value}}; }
GgufValue GgufValue::u64(uint64_t value) { return {GgufType::kU64, GgufType::kU32, value}; }
GgufValue GgufValue::f32(float value) { return {GgufType::kF32, GgufType::kU32, double{value}}; }
GgufValue GgufValue::boolean(bool value) { return {GgufType::kBool, GgufType::kU32, value}; }
GgufValue GgufValue::string(std::string value) {
  return {GgufType::kString, GgufType::kU32, std::move(value)};
}
GgufValue GgufValue::strings(std::vector<std::string> values) {
  return {GgufType::kArray, GgufType::kString, std::move(values)};
}
GgufValue GgufValue::i32s(std::vector<int64_t> values) {
  return {GgufType::kArray, GgufType::kI32, std::move(values)};
}
GgufValue GgufValue::u32s(std::vector<uint64_t> values) {
  return {GgufType::kArray, GgufType::kU32, std::move(values)};
}
GgufValue GgufValue::f32s(std::vector<double> values) {
  return {GgufType::kArray, GgufType::kF32, std::move(values)};
}

std::optional<uint64_t> GgufValue::as_unsigned() const {
  if (const auto* value = std::get_if<uint64_t>(&data)) return *value;
  if (const auto* value = std::get_if<int64_t>(&data)) return checked_cast<uint64_t>(*value);
  return std::nullopt;
}

std::string_view to_string(GgufType type) {
  static constexpr std::string_view kNames[] = {"u8",  "i8",  "u16",  "i16",    "u32",
                                                "i32", "f32", "bool", "string", "array",
                                                "u64", "i64", "f64"};
  const auto index = static_cast<size_t>(type);
  return index < std::size(kNames) ? kNames[index] : "unknown";
}

Result<std::unique_ptr<GgufWriter>> GgufWriter::create(
    const std::string& path, const std::vector<std::pair<std::string, GgufValue>>& metadata,
    const std::vector<Declared>& tensors) {
  std::unique_ptr<GgufWriter> writer(new GgufWriter);
  POME_ASSIGN_OR_RETURN(writer->alignment_, alignment_of(metadata));
  Buffer header;
  header.number<uint32_t>(0x46554747);  // "GGUF"
  header.number<uint32_t>(3);
  header.number<uint64_t>(tensors.size());
  header.number<uint64_t>(metadata.size());
  POME_RETURN_IF_ERROR(put_metadata(header, metadata, writer->strings_));
  const auto duplicate =
      first_duplicate(tensors.size(), [&](size_t i) { return std::string_view(tensors[i].name); });
  if (duplicate) {
    return bad_input(Refusal::kDup, "the tensor name \"" +
                                        escape_for_terminal(tensors[*duplicate].name, 80) +
                                        "\" is declared twice");
  }
  uint64_t offset = 0;
  for (const Declared& tensor : tensors) {
    POME_ASSIGN_OR_RETURN(const uint64_t bytes, stored_bytes(tensor));
    header.string(tensor.name);
    header.number(static_cast<uint32_t>(tensor.shape.size()));
    for (size_t i = tensor.shape.size(); i-- > 0;) {
      header.number(static_cast<uint64_t>(tensor.shape[i]));
    }
    header.number(static_cast<uint32_t>(traits(tensor.encoding).gguf_type));
    header.number(offset);
    const auto end = checked_add(offset, bytes);
    const auto next = end ? checked_align(*end, writer->alignment_) : std::nullopt;
    if (!next) return bad_input(Refusal::kOverflow, "the tensors are larger than any file");
    offset = *next;
    writer->bytes_.push_back(bytes);
  }
  POME_ASSIGN_OR_RETURN(writer->file_, io::OutputFile::create(path));
  POME_RETURN_IF_ERROR(writer->file_->write(header.text()));
  POME_RETURN_IF_ERROR(writer->file_->pad_to(writer->alignment_));
  return writer;
}

Status GgufWriter::begin_tensor() {
  if (left_ != 0) {
    return usage_error("the GGUF tensor before this one lacks " + std::to_string(left_) + " bytes");
  }
  if (next_ == bytes_.size()) return usage_error("more GGUF tensors written than declared");
  left_ = bytes_[next_++];
  return file_->pad_to(alignment_);
}

Status GgufWriter::write(std::span<const std::byte> bytes) {
  if (bytes.size() > left_) {
    return usage_error("a GGUF tensor got " + std::to_string(bytes.size() - left_) +
                       " bytes more than declared");
  }
  left_ -= bytes.size();
  return file_->write(bytes);
}

Status GgufWriter::replace_string(const std::string& key, std::string_view value) {
  const auto found = strings_.find(key);
  if (found == strings_.end() || found->second.second != value.size())
    return usage_error("no GGUF string " + key + " of " + std::to_string(value.size()) + " bytes");
  return file_->write_at(found->second.first, std::as_bytes(std::span(value)));
}

Status GgufWriter::finish() {
  if (left_ != 0 || next_ != bytes_.size()) {
    return usage_error("the GGUF file is not complete: " + std::to_string(bytes_.size() - next_) +
                       " tensors and " + std::to_string(left_) + " bytes are missing");
  }
  POME_RETURN_IF_ERROR(file_->pad_to(alignment_));
  return file_->close();
}

}  // namespace pome
