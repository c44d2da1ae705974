// Builds the files of torch.save byte by byte, so that every field can be made wrong: a pickle out
// of its opcodes, and a stored zip archive around it. Shares nothing with the readers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "malformed/gguf_bytes.h"

namespace pome::malformed {

// The plain definition of the checksum, a bit at a time.
inline uint32_t plain_crc32(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320u : 0);
  }
  return ~crc;
}

struct ZipEntryBytes {
  std::string name, data;
  uint16_t flags = 0x0808;  // UTF-8 names, sizes behind the data: as torch writes them
  uint16_t method = 0, made_by = 0;
  uint32_t attributes = 0;
  std::string extra;  // of the local header: alignment padding
  std::optional<std::string> local_name;
  std::optional<uint16_t> local_method;
  std::optional<uint32_t> crc;    // of the directory
  std::optional<uint64_t> bytes;  // of the directory
  std::optional<uint32_t> header_offset;
  std::optional<std::string> central_extra;
  std::optional<std::string> descriptor;
  std::string before;  // bytes in front of the local header
};

inline ZipEntryBytes entry_of(std::string name, std::string data) {
  ZipEntryBytes entry;
  entry.name = std::move(name);
  entry.data = std::move(data);
  return entry;
}

struct ZipBytes {
  std::vector<ZipEntryBytes> entries;
  bool zip64 = true;  // with the 64-bit end record, as torch writes it
  std::optional<uint64_t> count, directory_offset, directory_bytes;
  std::string comment, trailing;
  uint64_t cut = 0;

  std::string build() const {
    std::string out, directory;
    for (const ZipEntryBytes& e : entries) {
      out += e.before;
      const auto at = static_cast<uint32_t>(out.size());
      const auto size = static_cast<uint32_t>(e.data.size());
      const uint32_t crc = plain_crc32(e.data);
      const bool later = e.flags & 8;
      const std::string& local_name = e.local_name.value_or(e.name);
      out += le<uint32_t>(0x04034b50) + le<uint16_t>(0) + le(e.flags) +
             le(e.local_method.value_or(e.method)) + le<uint32_t>(0) + le(later ? 0 : crc) +
             le(later ? 0 : size) + le(later ? 0 : size) +
             le(static_cast<uint16_t>(local_name.size())) +
             le(static_cast<uint16_t>(e.extra.size())) + local_name + e.extra + e.data;
      if (later) {
        out += e.descriptor.value_or(le<uint32_t>(0x08074b50) + le(crc) + le(size) + le(size));
      }
      const auto stated = static_cast<uint32_t>(e.bytes.value_or(size));
      const std::string central_extra = e.central_extra.value_or("");
      directory += le<uint32_t>(0x02014b50) + le(e.made_by) + le<uint16_t>(0) + le(e.flags) +
                   le(e.method) + le<uint32_t>(0) + le(e.crc.value_or(crc)) + le(stated) +
                   le(stated) + le(static_cast<uint16_t>(e.name.size())) +
                   le(static_cast<uint16_t>(central_extra.size())) + le<uint16_t>(0) +
                   le<uint16_t>(0) + le<uint16_t>(0) + le(e.attributes) +
                   le(e.header_offset.value_or(at)) + e.name + central_extra;
    }
    const uint64_t offset = directory_offset.value_or(out.size());
    const uint64_t bytes = directory_bytes.value_or(directory.size());
    const uint64_t number = count.value_or(entries.size());
    const auto small = static_cast<uint16_t>(number > 0xFFFF ? 0xFFFF : number);
    out += directory;
    if (zip64) {
      const uint64_t record = out.size();
      out += le<uint32_t>(0x06064b50) + le<uint64_t>(44) + le<uint16_t>(798) + le<uint16_t>(45) +
             le<uint32_t>(0) + le<uint32_t>(0) + le(number) + le(number) + le(bytes) + le(offset);
      out += le<uint32_t>(0x07064b50) + le<uint32_t>(0) + le(record) + le<uint32_t>(1);
    }
    out += le<uint32_t>(0x06054b50) + le<uint32_t>(0) + le(small) + le(small) +
           le(static_cast<uint32_t>(bytes)) + le(static_cast<uint32_t>(offset)) +
           le(static_cast<uint16_t>(comment.size())) + comment;
    out.resize(out.size() - cut);
    return out + trailing;
  }
};

// ---- pickles: each function gives the opcodes that leave one value on the stack -----------------

inline std::string pickle_of(std::string_view body, char protocol = 2) {
  return std::string("\x80") + protocol + std::string(body) + ".";
}
inline std::string py_global(std::string_view module, std::string_view name) {
  return "c" + std::string(module) + "\n" + std::string(name) + "\n";
}
inline std::string py_text(std::string_view text) {
  return "X" + le(static_cast<uint32_t>(text.size())) + std::string(text);
}
inline std::string py_int(int64_t value) {
  return value >= INT32_MIN && value <= INT32_MAX ? "J" + le(static_cast<int32_t>(value))
                                                  : std::string("\x8a\x08") + le(value);
}
inline std::string py_tuple(const std::vector<std::string>& items) {
  std::string out = "(";
  for (const std::string& item : items) out += item;
  return out + "t";
}
inline std::string py_ints(const std::vector<int64_t>& values) {
  std::vector<std::string> items;
  for (const int64_t value : values) items.push_back(py_int(value));
  return py_tuple(items);
}
inline std::string py_call(const std::string& callee, const std::vector<std::string>& arguments) {
  return callee + py_tuple(arguments) + "R";
}
inline std::string py_ordered_dict() { return py_global("collections", "OrderedDict") + ")R"; }
// `dict` is what makes the empty dictionary; items are keys and values in turn.
inline std::string py_dict(const std::vector<std::string>& items, std::string dict = "}") {
  dict += "(";
  for (const std::string& item : items) dict += item;
  return dict + "u";
}
inline std::string py_storage(std::string_view type, std::string_view key, int64_t elements,
                              std::string_view module = "torch") {
  return py_tuple({py_text("storage"), py_global(module, type), py_text(key), py_text("cpu"),
                   py_int(elements)}) +
         "Q";
}
inline std::string py_tensor(const std::string& storage, int64_t offset,
                             const std::vector<int64_t>& sizes,
                             const std::vector<int64_t>& strides) {
  return py_call(
      py_global("torch._utils", "_rebuild_tensor_v2"),
      {storage, py_int(offset), py_ints(sizes), py_ints(strides), "\x89", py_ordered_dict()});
}

// ---- whole files --------------------------------------------------------------------------------

inline std::string counting_bytes(size_t count) {
  std::string out(count, '\0');
  for (size_t i = 0; i < count; ++i) out[i] = static_cast<char>(0x30 + i % 64);
  return out;
}
// An archive of torch.save around a pickle and the bytes of its storages "0", "1" ...
inline ZipBytes torch_archive(const std::string& pickle, const std::vector<std::string>& storages) {
  ZipBytes zip;
  zip.entries.push_back(entry_of("m/data.pkl", pickle));
  zip.entries.push_back(entry_of("m/byteorder", "little"));
  for (size_t i = 0; i < storages.size(); ++i) {
    ZipEntryBytes entry = entry_of("m/data/" + std::to_string(i), storages[i]);
    entry.extra = "FB" + le<uint16_t>(3) + "ZZZ";
    zip.entries.push_back(std::move(entry));
  }
  zip.entries.push_back(entry_of("m/version", "3\n"));
  return zip;
}
// a: F32 [2, 3], its transposed view t [3, 2], b: BF16 [4] at offset 1 of a storage of 5, empty:
// I64 [0, 7], scalar: F16 []; a state dict as torch writes it, with its _metadata.
inline ZipBytes valid_pytorch() {
  const std::string a = py_storage("FloatStorage", "0", 6);
  std::string dict = py_dict(
      {py_text("a"), py_tensor(a, 0, {2, 3}, {3, 1}), py_text("t"), py_tensor(a, 0, {3, 2}, {1, 3}),
       py_text("b"), py_tensor(py_storage("BFloat16Storage", "1", 5), 1, {4}, {1}),
       py_text("empty"), py_tensor(py_storage("LongStorage", "2", 0), 0, {0, 7}, {7, 1}),
       py_text("scalar"), py_tensor(py_storage("HalfStorage", "3", 1), 0, {}, {})},
      py_ordered_dict());
  dict += py_dict({py_text("_metadata"), py_ordered_dict()}) + "b";
  return torch_archive(pickle_of(dict),
                       {counting_bytes(24), counting_bytes(10), "", counting_bytes(2)});
}

}  // namespace pome::malformed
