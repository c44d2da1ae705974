#include "base/checked.h"
#include "base/json.h"
#include "formats/duplicates.h"
#include "formats/safetensors.h"

namespace pome {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;

std::string in_quotes(std::string_view text) { return "\"" + escape_for_terminal(text, 80) + "\""; }

Status check_text(std::string_view text, std::string_view what) {
  if (is_valid_utf8(text) && text.find('\0') == std::string_view::npos) return {};
  return bad_input(Refusal::kUtf8, "cannot write the " + std::string(what) + " " + in_quotes(text) +
                                       ": not plain UTF-8");
}

struct Header {
  std::string text;
  uint64_t data_bytes = 0;
};

Status append_tensor(Header& header, const SafetensorsWriter::Declared& tensor) {
  POME_RETURN_IF_ERROR(check_text(tensor.name, "tensor name"));
  const std::string_view dtype = safetensors_dtype_name(tensor.dtype);
  if (dtype.empty()) {
    return Status(StatusCode::kUnsupported, "safetensors has no dtype for " +
                                                std::string(to_string(tensor.dtype)) + " (tensor " +
                                                in_quotes(tensor.name) + ")");
  }
  const auto count = element_count(tensor.shape);
  const auto bytes =
      count ? storage_bytes(tensor.dtype, static_cast<uint64_t>(*count)) : std::nullopt;
  const auto end = bytes ? checked_add(header.data_bytes, *bytes) : std::nullopt;
  if (!end) {
    return bad_input(Refusal::kOverflow,
                     "tensor " + in_quotes(tensor.name) + " is larger than any file");
  }
  header.text +=
      dump_json(Json(tensor.name)) + ":{\"dtype\":\"" + std::string(dtype) + "\",\"shape\":[";
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    if (i > 0) header.text += ',';
    header.text += std::to_string(tensor.shape[i]);
  }
  header.text += "],\"data_offsets\":[" + std::to_string(header.data_bytes) + "," +
                 std::to_string(*end) + "]}";
  header.data_bytes = *end;
  return {};
}

Result<Header> make_header(const std::vector<SafetensorsWriter::Declared>& tensors,
                           const std::map<std::string, std::string>& metadata) {
  const auto duplicate =
      first_duplicate(tensors.size(), [&](size_t i) { return std::string_view(tensors[i].name); });
  if (duplicate) {
    return bad_input(Refusal::kDup,
                     "tensor " + in_quotes(tensors[*duplicate].name) + " is declared twice");
  }
  Header header;
  header.text = "{";
  if (!metadata.empty()) {
    header.text += "\"__metadata__\":{";
    for (auto it = metadata.begin(); it != metadata.end(); ++it) {
      POME_RETURN_IF_ERROR(check_text(it->first, "metadata key"));
      POME_RETURN_IF_ERROR(check_text(it->second, "metadata value"));
      if (it != metadata.begin()) header.text += ',';
      header.text += dump_json(Json(it->first)) + ":" + dump_json(Json(it->second));
    }
    header.text += "}";
  }
  for (const auto& tensor : tensors) {
    if (tensor.name == "__metadata__") {
      return bad_input(Refusal::kRange, "a tensor cannot be called __metadata__");
    }
    if (header.text.size() > 1) header.text += ',';
    POME_RETURN_IF_ERROR(append_tensor(header, tensor));
  }
  header.text += "}";
  header.text.resize((header.text.size() + 7) / 8 * 8, ' ');
  if (header.text.size() > kMaxHeaderBytes) {
    return bad_input(Refusal::kLimit, "the safetensors header would exceed 100000000 bytes");
  }
  return header;
}

}  // namespace

Result<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::create(
    const std::string& path, std::vector<Declared> tensors,
    const std::map<std::string, std::string>& metadata) {
  POME_ASSIGN_OR_RETURN(const Header header, make_header(tensors, metadata));
  std::unique_ptr<SafetensorsWriter> writer(new SafetensorsWriter);
  writer->expected_ = header.data_bytes;
  POME_ASSIGN_OR_RETURN(writer->file_, io::OutputFile::create(path));
  std::string size(8, '\0');
  for (size_t i = 0; i < 8; ++i) size[i] = static_cast<char>(header.text.size() >> (8 * i) & 0xff);
  POME_RETURN_IF_ERROR(writer->file_->write(size));
  POME_RETURN_IF_ERROR(writer->file_->write(header.text));
  return writer;
}

Status SafetensorsWriter::write(std::span<const std::byte> bytes) {
  if (bytes.size() > expected_ - written_) {
    return usage_error("a safetensors file got more data than declared");
  }
  written_ += bytes.size();
  return file_->write(bytes);
}

Status SafetensorsWriter::finish() {
  if (written_ != expected_) {
    return usage_error("a safetensors file lacks " + std::to_string(expected_ - written_) +
                       " of its declared bytes");
  }
  return file_->close();
}

Status write_safetensors(const std::string& path,
                         const std::vector<std::pair<std::string, Tensor>>& tensors) {
  std::vector<SafetensorsWriter::Declared> declared;
  declared.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) {
    declared.push_back({name, tensor.dtype(), tensor.shape()});
  }
  POME_ASSIGN_OR_RETURN(const auto writer, SafetensorsWriter::create(path, std::move(declared)));
  for (const auto& [name, tensor] : tensors) POME_RETURN_IF_ERROR(writer->write(tensor.bytes()));
  return writer->finish();
}

}  // namespace pome
