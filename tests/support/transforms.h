// Changed graphs, and the encodings that a scheme chooses for one.
#pragma once

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "quantize/quantize.h"
#include "quantize/transform.h"

namespace pome::test {

inline Transformed done(Result<Transformed> made) {
  EXPECT_TRUE(made.ok()) << made.status().to_string();
  EXPECT_TRUE(validate(made->graph).ok()) << validate(made->graph).to_string();
  return std::move(*made);
}

inline std::vector<Encoding> encodings_of(const Graph& graph, const char* weights) {
  auto recipe = parse_recipe(weights);
  EXPECT_TRUE(recipe.ok());
  auto quantized = quantize(graph, *recipe);
  EXPECT_TRUE(quantized.ok());
  std::vector<Encoding> out;
  for (const Constant& constant : quantized->graph.constants)
    out.push_back(constant.data->encoding());
  return out;
}

}  // namespace pome::test
