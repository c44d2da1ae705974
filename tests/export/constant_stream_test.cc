#include "export/constant_stream.h"

#include <gtest/gtest.h>

namespace pome {
namespace {

TEST(CheckStacked, TakesPartsThatFillTheTensor) {
  EXPECT_TRUE(check_stacked("t", {{0, 4}}, 4).ok());
  EXPECT_TRUE(check_stacked("t", {{0, 4}, {4, 2}, {6, 2}}, 8).ok());
}

TEST(CheckStacked, NamesTheTensorWhosePartsDoNot) {
  for (const auto& [parts, rows, why] :
       {std::tuple(std::vector<RowSpan>{{0, 4}, {5, 3}}, 8, "do not follow each other"),
        std::tuple(std::vector<RowSpan>{{0, 4}, {0, 4}}, 8, "do not follow each other"),
        std::tuple(std::vector<RowSpan>{{4, 4}}, 8, "do not follow each other"),
        std::tuple(std::vector<RowSpan>{{0, 4}, {4, 2}}, 8, "are not all there")}) {
    const Status status = check_stacked("layers.0.qkv", parts, rows);
    EXPECT_EQ(status.code(), StatusCode::kUnsupported);
    EXPECT_EQ(status.message(), std::string("the parts of layers.0.qkv ") + why);
  }
}

}  // namespace
}  // namespace pome
