// Strict cursor over protobuf's wire format (https://protobuf.dev/programming-guides/encoding/),
// for files from anywhere.
//
// Why not protozero for reading: it drops the upper bits of over-long varints and cuts lengths and
// tags to 32 bits, so that a malformed file may parse as another one. Here every one of those is an
// error.
//
// Errors are sticky and shared by all readers of one file: after the first one next() is false
// everywhere and every getter gives zero, so that a parser reads like the schema and looks at
// status() once, at the end. Refusals: kTrunc (the file ends), kBounds (longer than its parent),
// kRange (varints), kDepth, kType (wire types, groups, field 0), kUtf8, kDup.
// Thread safety: one thread per file.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace pome {

struct ProtoContext {
  std::string file;                  // for messages
  std::span<const std::byte> bytes;  // the whole file
  Status error;
};

class ProtoReader {
 public:
  enum class Wire : uint8_t { kVarint = 0, kFixed64 = 1, kLength = 2, kFixed32 = 5 };
  static constexpr int kMaxDepth = 100;

  // The outermost message. `name` (a literal) is what errors call this message.
  ProtoReader(ProtoContext* context, const char* name);

  // Moves to the next field; skips what the caller left of the current one. False at the end and
  // after an error.
  bool next();
  uint32_t field() const { return field_; }
  // Fails with kDup when the current field, a singular one, was there before.
  void once();

  // Value of the current field. A wire type other than the schema's is kType.
  uint64_t varint();
  int64_t int64() { return static_cast<int64_t>(varint()); }
  int32_t int32();  // kRange when the value does not fit
  bool boolean();
  std::string text();  // UTF-8 checked
  std::span<const std::byte> bytes();
  ProtoReader message(const char* name);

  // Elements of a repeated number, packed or single: each() calls sink(value) for every one.
  template <typename Sink>
  void each_varint(Sink&& sink);
  // Raw bytes of a packed fixed-width field (or of one element); kRange unless a multiple of width.
  std::span<const std::byte> fixed(size_t width);

  void fail(Refusal refusal, std::string message, StatusCode code = StatusCode::kBadInput);
  bool ok() const { return context_->error.ok(); }
  size_t offset() const { return position_; }  // in the file

 private:
  ProtoReader(ProtoContext* context, const char* name, size_t begin, size_t end, int depth);
  uint64_t read_varint();
  bool need(Wire wire);
  std::span<const std::byte> length_delimited();
  void skip();
  void refuse_group();
  std::string place() const;

  ProtoContext* context_;
  const char* name_;
  size_t position_, end_;
  int depth_;
  uint32_t field_ = 0;
  Wire wire_ = Wire::kVarint;
  bool pending_ = false;  // the current field's value has not been read
  uint64_t seen_ = 0;     // singular fields so far, by number modulo 61
};

template <typename Sink>
void ProtoReader::each_varint(Sink&& sink) {
  if (wire_ == Wire::kVarint) {
    const uint64_t value = varint();
    if (ok()) sink(value);
    return;
  }
  const std::span<const std::byte> packed = length_delimited();
  if (!ok()) return;
  const size_t begin = static_cast<size_t>(packed.data() - context_->bytes.data());
  ProtoReader inner(context_, name_, begin, begin + packed.size(), depth_);
  inner.field_ = field_;
  while (inner.ok() && inner.position_ < inner.end_) {
    const uint64_t value = inner.read_varint();
    if (inner.ok()) sink(value);
  }
}

}  // namespace pome
