#include "formats/imatrix.h"

#include <algorithm>
#include <cmath>

#include "base/io.h"
#include "formats/gguf.h"

namespace pome {

namespace {

constexpr uint64_t kMaxEntries = 1 << 20, kMaxName = 4096;
constexpr std::string_view kSums = ".in_sum2", kCounts = ".counts";

Status check_values(const std::vector<float>& values, const std::string& name,
                    const std::string& file) {
  for (const float value : values)
    if (!(value >= 0) || !std::isfinite(value))
      return bad_input(Refusal::kRange, "mean squares must be finite and not negative")
          .in(file)
          .at(escape_for_terminal(name, 80));
  return {};
}

// One entry of the .dat form.
Status read_entry(ByteReader& in, const std::string& file, ImportanceMatrix* out) {
  POME_ASSIGN_OR_RETURN(const int32_t length, in.i32());
  if (length < 1) return in.fail(Refusal::kRange, "a name of " + std::to_string(length) + " bytes");
  POME_ASSIGN_OR_RETURN(std::string name, in.text(static_cast<uint64_t>(length), kMaxName));
  if (!is_valid_utf8(name)) return in.fail(Refusal::kUtf8, "a name is not UTF-8");
  POME_ASSIGN_OR_RETURN(const int32_t calls, in.i32());
  POME_ASSIGN_OR_RETURN(const int32_t count, in.i32());
  if (calls < 0 || count < 1)
    return in.fail(Refusal::kRange, "entry \"" + escape_for_terminal(name, 80) + "\" says " +
                                        std::to_string(calls) + " calls and " +
                                        std::to_string(count) + " values");
  if (static_cast<uint64_t>(count) > in.remaining() / sizeof(float))
    return in.fail(Refusal::kBounds, std::to_string(count) + " values of \"" +
                                         escape_for_terminal(name, 80) + "\" do not fit the file");
  ImportanceEntry entry;
  entry.calls = calls;
  entry.mean_squares.resize(static_cast<size_t>(count));
  POME_RETURN_IF_ERROR(in.bytes(std::as_writable_bytes(std::span(entry.mean_squares))));
  for (float& value : entry.mean_squares) value = calls > 0 ? value / static_cast<float>(calls) : 0;
  POME_RETURN_IF_ERROR(check_values(entry.mean_squares, name, file));
  if (!out->entries.emplace(name, std::move(entry)).second)
    return in.fail(Refusal::kDup, "\"" + escape_for_terminal(name, 80) + "\" appears twice");
  return {};
}

Result<ImportanceMatrix> read_dat(const ByteSourcePtr& source) {
  ByteReader in(source);
  ImportanceMatrix out;
  POME_ASSIGN_OR_RETURN(const int32_t entries, in.i32());
  if (entries < 1 || static_cast<uint64_t>(entries) > kMaxEntries)
    return in.fail(Refusal::kRange, std::to_string(entries) + " entries: not an importance matrix");
  for (int32_t i = 0; i < entries; ++i) POME_RETURN_IF_ERROR(read_entry(in, source->name(), &out));
  // Last chunk and the name of the text, which older files do not have, tell nothing that is used.
  return out;
}

Result<std::vector<float>> read_floats(const GgufFile& file, const GgufTensor& tensor) {
  if (tensor.encoding != EncodingKind::kF32)
    return bad_input(Refusal::kType, "must be f32").in(file.source->name()).at(tensor.name);
  std::vector<float> out(static_cast<size_t>(tensor.bytes / sizeof(float)));
  POME_RETURN_IF_ERROR(file.source->read(tensor.offset, std::as_writable_bytes(std::span(out))));
  return out;
}

Result<ImportanceMatrix> read_gguf_form(const ByteSourcePtr& source) {
  POME_ASSIGN_OR_RETURN(const GgufFile file, read_gguf(source));
  const GgufValue* type = file.find("general.type");
  const auto* text = type ? std::get_if<std::string>(&type->data) : nullptr;
  if (!text || *text != "imatrix")
    return bad_input(Refusal::kType, "general.type must be \"imatrix\"")
        .in(source->name())
        .hint("this is a GGUF file of another kind");
  std::map<std::string, const GgufTensor*> counts;
  for (const GgufTensor& tensor : file.tensors)
    if (tensor.name.ends_with(kCounts))
      counts[tensor.name.substr(0, tensor.name.size() - kCounts.size())] = &tensor;
  ImportanceMatrix out;
  for (const GgufTensor& tensor : file.tensors) {
    if (!tensor.name.ends_with(kSums)) continue;
    const std::string name = tensor.name.substr(0, tensor.name.size() - kSums.size());
    const auto found = counts.find(name);
    if (found == counts.end())
      return bad_input(Refusal::kRange, "has no counts beside it")
          .in(source->name())
          .at(tensor.name);
    ImportanceEntry entry;
    POME_ASSIGN_OR_RETURN(entry.mean_squares, read_floats(file, tensor));
    POME_ASSIGN_OR_RETURN(const std::vector<float> times, read_floats(file, *found->second));
    POME_RETURN_IF_ERROR(check_values(times, found->second->name, source->name()));
    if (times.empty() || entry.mean_squares.empty() ||
        entry.mean_squares.size() % times.size() != 0)
      return bad_input(Refusal::kRange, std::to_string(entry.mean_squares.size()) + " sums for " +
                                            std::to_string(times.size()) + " counts")
          .in(source->name())
          .at(tensor.name);
    const size_t columns = entry.mean_squares.size() / times.size();
    for (size_t i = 0; i < entry.mean_squares.size(); ++i) {
      const float count = times[i / columns];
      entry.mean_squares[i] = count > 0 ? entry.mean_squares[i] / count : 0;
    }
    for (const float count : times) entry.calls = std::max<double>(entry.calls, count);
    if (times.size() > 1) entry.counts = times;
    POME_RETURN_IF_ERROR(check_values(entry.mean_squares, tensor.name, source->name()));
    out.entries.emplace(name, std::move(entry));
  }
  if (out.entries.empty())
    return bad_input(Refusal::kRange, "no tensor *.in_sum2").in(source->name());
  return out;
}

std::vector<float> counts_of(const ImportanceEntry& entry) {
  return entry.counts.empty() ? std::vector<float>{static_cast<float>(entry.calls)} : entry.counts;
}

Status write_gguf_form(const ImportanceMatrix& matrix, const ImatrixText& text,
                       const std::string& path) {
  const std::vector<std::pair<std::string, GgufValue>> metadata = {
      {"general.type", GgufValue::string("imatrix")},
      {"imatrix.datasets", GgufValue::strings({text.name})},
      {"imatrix.chunk_count", GgufValue::u32(static_cast<uint32_t>(text.chunks))},
      {"imatrix.chunk_size", GgufValue::u32(static_cast<uint32_t>(text.chunk))},
  };
  std::vector<GgufWriter::Declared> declared;
  for (const auto& [name, entry] : matrix.entries) {
    const auto experts = static_cast<int64_t>(counts_of(entry).size());
    const auto columns = static_cast<int64_t>(entry.mean_squares.size()) / experts;
    declared.push_back({name + std::string(kSums), {experts, columns}, EncodingKind::kF32});
    declared.push_back({name + std::string(kCounts), {experts, 1}, EncodingKind::kF32});
  }
  POME_ASSIGN_OR_RETURN(const auto file, GgufWriter::create(path, metadata, declared));
  for (const auto& [name, entry] : matrix.entries) {
    const std::vector<float> counts = counts_of(entry);
    std::vector<float> sums = entry.mean_squares;
    const size_t columns = sums.size() / counts.size();
    for (size_t i = 0; i < sums.size(); ++i) sums[i] *= counts[i / columns];
    POME_RETURN_IF_ERROR(file->begin_tensor());
    POME_RETURN_IF_ERROR(file->write(std::as_bytes(std::span(sums))));
    POME_RETURN_IF_ERROR(file->begin_tensor());
    POME_RETURN_IF_ERROR(file->write(std::as_bytes(std::span(counts))));
  }
  return file->finish();
}

Status write_dat(const ImportanceMatrix& matrix, const ImatrixText& text, const std::string& path) {
  POME_ASSIGN_OR_RETURN(const auto file, io::OutputFile::create(path));
  const auto number = [&](int64_t value) {
    const auto narrow = static_cast<int32_t>(value);
    return file->write(std::as_bytes(std::span(&narrow, 1)));
  };
  const auto calls = static_cast<int32_t>(std::max<int64_t>(1, text.chunks));
  POME_RETURN_IF_ERROR(number(static_cast<int64_t>(matrix.entries.size())));
  for (const auto& [name, entry] : matrix.entries) {
    const std::vector<float> counts = counts_of(entry);
    const size_t columns = entry.mean_squares.size() / counts.size();
    std::vector<float> values = entry.mean_squares;
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = (counts[i / columns] > 0 ? values[i] : 1.0f) * static_cast<float>(calls);
    POME_RETURN_IF_ERROR(number(static_cast<int64_t>(name.size())));
    POME_RETURN_IF_ERROR(file->write(name));
    POME_RETURN_IF_ERROR(number(calls));
    POME_RETURN_IF_ERROR(number(static_cast<int64_t>(values.size())));
    POME_RETURN_IF_ERROR(file->write(std::as_bytes(std::span(values))));
  }
  POME_RETURN_IF_ERROR(number(calls));
  POME_RETURN_IF_ERROR(number(static_cast<int64_t>(text.name.size())));
  POME_RETURN_IF_ERROR(file->write(text.name));
  return file->close();
}

}  // namespace

Result<ImportanceMatrix> read_imatrix(ByteSourcePtr source) {
  char magic[4] = {};
  if (source->size() >= 4) {
    POME_RETURN_IF_ERROR(source->read(0, std::as_writable_bytes(std::span(magic))));
    if (std::string_view(magic, 4) == "GGUF") return read_gguf_form(source);
  }
  return read_dat(source);
}

Result<ImportanceMatrix> read_imatrix(const std::string& path) {
  POME_ASSIGN_OR_RETURN(ByteSourcePtr source, open_for_reading(path));
  return read_imatrix(std::move(source));
}

Status write_imatrix(const ImportanceMatrix& matrix, const ImatrixText& text, ImatrixForm form,
                     const std::string& path) {
  POME_CHECK(!matrix.entries.empty());
  return form == ImatrixForm::kGguf ? write_gguf_form(matrix, text, path)
                                    : write_dat(matrix, text, path);
}

}  // namespace pome
