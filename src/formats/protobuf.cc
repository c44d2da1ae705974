#include "formats/protobuf.h"

#include "base/byte_source.h"

namespace pome {

ProtoReader::ProtoReader(ProtoContext* context, const char* name)
    : ProtoReader(context, name, 0, context->bytes.size(), 1) {}

ProtoReader::ProtoReader(ProtoContext* context, const char* name, size_t begin, size_t end,
                         int depth)
    : context_(context), name_(name), position_(begin), end_(end), depth_(depth) {}

std::string ProtoReader::place() const {
  std::string text = name_;
  if (field_ != 0) text += " field " + std::to_string(field_);
  return text;
}

void ProtoReader::fail(Refusal refusal, std::string message, StatusCode code) {
  if (!context_->error.ok()) return;
  context_->error = Status(code, place() + ": " + std::move(message), refusal)
                        .in(context_->file)
                        .at_offset(position_);
}

uint64_t ProtoReader::read_varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 70; shift += 7) {
    if (position_ >= end_) {
      fail(end_ == context_->bytes.size() ? Refusal::kTrunc : Refusal::kBounds,
           "a number runs past the end of its message");
      return 0;
    }
    const uint64_t byte = static_cast<uint64_t>(context_->bytes[position_]);
    if (shift == 63 && byte > 1) {
      fail(Refusal::kRange, "a number of more than 64 bits");
      return 0;
    }
    ++position_;
    value |= (byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
  fail(Refusal::kRange, "a number of more than 10 bytes");
  return 0;
}

bool ProtoReader::next() {
  if (pending_) skip();
  if (!ok() || position_ >= end_) return false;
  field_ = 0;
  const uint64_t tag = read_varint();
  if (!ok()) return false;
  if (tag >> 3 == 0 || tag >> 32 != 0) {
    fail(Refusal::kType, "field number " + std::to_string(tag >> 3) + " does not exist");
    return false;
  }
  field_ = static_cast<uint32_t>(tag >> 3);
  const unsigned wire = static_cast<unsigned>(tag & 7);
  if (wire == 3 || wire == 4) {
    refuse_group();
    return false;
  }
  if (wire > 5) {
    fail(Refusal::kType, "wire type " + std::to_string(wire) + " does not exist");
    return false;
  }
  wire_ = static_cast<Wire>(wire);
  pending_ = true;
  return true;
}

// Groups are no part of proto3. Nesting is told from a single one because a reader that follows it
// would run out of stack.
void ProtoReader::refuse_group() {
  size_t starts = 1;
  for (size_t at = position_; at < end_ && starts <= static_cast<size_t>(kMaxDepth); ++at) {
    if ((static_cast<unsigned>(context_->bytes[at]) & 0x87) != 3) break;
    ++starts;
  }
  if (starts > static_cast<size_t>(kMaxDepth)) {
    fail(Refusal::kDepth, "groups nested more than 100 deep");
  } else {
    fail(Refusal::kType, "groups (wire types 3 and 4) are no part of this format");
  }
}

void ProtoReader::once() {
  const uint64_t bit = uint64_t{1} << (field_ % 61);
  if (seen_ & bit) fail(Refusal::kDup, "stands twice in one message");
  seen_ |= bit;
}

bool ProtoReader::need(Wire wire) {
  if (!ok() || !pending_) return false;
  if (wire_ != wire) {
    fail(Refusal::kType, "expected wire type " + std::to_string(static_cast<int>(wire)) +
                             ", found " + std::to_string(static_cast<int>(wire_)));
    return false;
  }
  pending_ = false;
  return true;
}

uint64_t ProtoReader::varint() { return need(Wire::kVarint) ? read_varint() : 0; }

int32_t ProtoReader::int32() {
  const int64_t value = int64();
  if (value < INT32_MIN || value > INT32_MAX) {
    fail(Refusal::kRange, std::to_string(value) + " does not fit 32 bits");
    return 0;
  }
  return static_cast<int32_t>(value);
}

bool ProtoReader::boolean() {
  const uint64_t value = varint();
  if (value > 1) fail(Refusal::kRange, std::to_string(value) + " is no truth value");
  return value == 1;
}

std::span<const std::byte> ProtoReader::length_delimited() {
  if (!need(Wire::kLength)) return {};
  const uint64_t size = read_varint();
  if (!ok()) return {};
  if (size > end_ - position_) {
    fail(end_ == context_->bytes.size() ? Refusal::kTrunc : Refusal::kBounds,
         "states " + std::to_string(size) + " bytes, its message has " +
             std::to_string(end_ - position_) + " left");
    return {};
  }
  const auto out = context_->bytes.subspan(position_, static_cast<size_t>(size));
  position_ += static_cast<size_t>(size);
  return out;
}

std::span<const std::byte> ProtoReader::bytes() { return length_delimited(); }

std::string ProtoReader::text() {
  const auto raw = length_delimited();
  std::string out(reinterpret_cast<const char*>(raw.data()), raw.size());
  if (!is_valid_utf8(out)) {
    fail(Refusal::kUtf8, "a name is not UTF-8");
    return {};
  }
  return out;
}

ProtoReader ProtoReader::message(const char* name) {
  const auto raw = length_delimited();
  const size_t begin = raw.data() ? static_cast<size_t>(raw.data() - context_->bytes.data()) : 0;
  if (depth_ >= kMaxDepth) fail(Refusal::kDepth, "messages nested more than 100 deep");
  return ProtoReader(context_, name, begin, begin + raw.size(), depth_ + 1);
}

std::span<const std::byte> ProtoReader::fixed(size_t width) {
  const Wire single = width == 4 ? Wire::kFixed32 : Wire::kFixed64;
  if (ok() && pending_ && wire_ == single) {
    pending_ = false;
    if (width > end_ - position_) {
      fail(Refusal::kBounds, "a number runs past the end of its message");
      return {};
    }
    const auto out = context_->bytes.subspan(position_, width);
    position_ += width;
    return out;
  }
  const auto out = length_delimited();
  if (out.size() % width != 0) {
    fail(Refusal::kRange, std::to_string(out.size()) +
                              " bytes are no whole number of elements of " + std::to_string(width) +
                              " bytes");
    return {};
  }
  return out;
}

void ProtoReader::skip() {
  switch (wire_) {
    case Wire::kVarint:
      varint();
      break;
    case Wire::kLength:
      length_delimited();
      break;
    case Wire::kFixed32:
      fixed(4);
      break;
    case Wire::kFixed64:
      fixed(8);
      break;
  }
}

}  // namespace pome
