// Tables and steps that the files of the ML Program format share. Private to formats.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/byte_source.h"
#include "formats/mil.h"
#include "formats/protobuf.h"

namespace pome::mil {

// MILSpec.DataType of a tensor <-> ours. STRING (2) has no DType.
inline constexpr uint64_t kMilString = 2;
std::optional<DType> dtype_from_mil(uint64_t code);
uint64_t mil_from_dtype(DType dtype);  // POME_CHECKs: every DType has a code
// Data type code of a weight file record; 0 where the record format has none (f64, i64, u64, bool).
uint32_t blob_code(DType dtype);
// ArrayFeatureType.ArrayDataType <-> ours.
std::optional<DType> dtype_from_array(uint64_t code);
uint64_t array_from_dtype(DType dtype);  // 0 where the interface has no such type

// The member of TensorValue that holds an immediate of this dtype (strings: 4).
uint32_t member_of(DType dtype);

// Number of elements of a type whose dimensions are all known; nullopt when one is unknown or the
// product does not fit.
std::optional<uint64_t> element_count_of(const Type& type);

// Messages of MIL.proto. Errors go to the reader's context.
Type parse_type(ProtoReader in);
ValueData parse_value(ProtoReader in);
NamedType parse_named_type(ProtoReader in);

// Names and order within one function: every name defined once and before its use, states only
// where they may stand.
Status check_function(const Function& function, const std::string& file);

// One record of a weight file (64 bytes): drawn in mil_blob.cc.
struct BlobRecord {
  uint64_t data = 0, size = 0;
};
// The header of a weight file, and the record that `value` (a BlobRef) points to.
Status check_weight_file(const ByteSource& file);
Result<BlobRecord> check_blob(const ByteSource& file, const ValueData& value);

}  // namespace pome::mil
