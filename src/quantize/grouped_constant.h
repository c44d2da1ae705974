// Constants that are encoded some rows at a time when they are read: pruned ones and palettes of
// vectors.
//
// Values are rounded to binary16 first, which also checks them (encoded_constant). Thread safety:
// immutable.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "encoding/encoding.h"
#include "graph/constant.h"
#include "quantize/feedback.h"

namespace pome {

class GroupedConstant : public ConstantData {
 public:
  const ConstantData& canonical() const override { return source_->canonical(); }
  const ConstantData& unrounded() const override { return source_->unrounded(); }
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override;
  // The same rounded with feedback: one for all rows, or one for each of stacked experts; null for
  // an expert: as without.
  virtual ConstantDataPtr with(std::vector<FeedbackPtr> feedback) const = 0;

 protected:
  GroupedConstant(ConstantDataPtr source, const Encoding& encoding, std::string name,
                  std::vector<FeedbackPtr> feedback);

  // Rows as they are stored, to which encode() appends.
  struct Encoded {
    std::vector<uint8_t> mask, codes;  // an element each
    std::vector<uint16_t> halves;      // values of kSparseF16
    std::vector<uint16_t> grids;       // scales or tables
  };
  // Whole rows of one expert: rows_at_a_time(), or what is left of the expert.
  virtual void encode(std::span<const float> values, const Feedback* feedback,
                      Encoded* out) const = 0;
  virtual int64_t rows_at_a_time() const = 0;

  const ConstantDataPtr& source() const { return source_; }
  const std::string& name() const { return name_; }

 private:
  ConstantDataPtr source_;
  std::string name_;
  std::vector<FeedbackPtr> feedback_;
};

}  // namespace pome
