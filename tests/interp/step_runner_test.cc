// How caches are held between the calls of a decode step: a step of the test's own says what it
// was given.
#include "interp/step_runner.h"

#include <gtest/gtest.h>

namespace pome {
namespace {

constexpr int64_t kVocab = 50, kHeads = 2, kDim = 3;

// A cache row of token `id` at position p is (id, p, head); a step's logits are one at `id`.
struct FakeStep {
  int64_t places = 0;
  int fail_at = -1, calls = 0;
  std::vector<std::vector<int>> seen;  // ids in the cache that each step may see, its own last
  std::vector<int64_t> positions;
  std::vector<std::vector<float>> rows;  // first values of head 1 that each step was given

  Result<NamedTensors> operator()(const NamedTensors& inputs) {
    if (calls++ == fail_at) return unsupported("told to fail");
    const auto at = [&](const std::string& name) {
      for (const auto& [key, value] : inputs)
        if (key == name) return value;
      return Tensor();
    };
    const int64_t id = at("input_ids").as<int64_t>()[0],
                  position = at("position_ids").as<int64_t>()[0];
    positions.push_back(position);
    const Tensor past = at("k_lat_0");
    const int64_t given = past.dim(2), first = places > 0 ? 1 : 0, kept = given - first;
    Tensor out = Tensor::zeros(DType::kF32, {1, kHeads, kept + 1, kDim});
    const std::span<const float> from = past.f32();
    const std::span<float> to = out.mutable_as<float>();
    for (int64_t h = 0; h < kHeads; ++h) {
      for (int64_t j = 0; j < kept * kDim; ++j)
        to[static_cast<size_t>(h * (kept + 1) * kDim + j)] =
            from[static_cast<size_t>((h * given + first) * kDim + j)];
      float* const row = to.data() + ((h + 1) * (kept + 1) - 1) * kDim;
      row[0] = static_cast<float>(id);
      row[1] = static_cast<float>(position);
      row[2] = static_cast<float>(h);
    }
    std::vector<int> ids;
    std::vector<float> values;
    const Tensor mask = at("causal_mask");
    EXPECT_EQ(mask.defined(), places > 0);
    for (int64_t j = 0; j <= kept; ++j) {
      if (mask.defined() && mask.f32()[static_cast<size_t>(j)] != 0) continue;
      const size_t row = static_cast<size_t>((kept + 1 + j) * kDim);  // of head 1
      EXPECT_EQ(to[row + 2], 1.0f);
      ids.push_back(static_cast<int>(to[row + 1]));
      values.push_back(to[row]);
    }
    seen.push_back(ids);
    rows.push_back(values);
    Tensor logits = Tensor::zeros(DType::kF32, {1, 1, kVocab});
    logits.mutable_as<float>()[static_cast<size_t>(id)] = 1;
    return NamedTensors{{"nv_other", Tensor()}, {"nk_lat_0", out}, {"logits", logits}};
  }
};

std::unique_ptr<Runner> runner_of(FakeStep* step, CachePolicy policy = {}) {
  StepInterface interface;
  interface.kind = "test";
  interface.places = step->places;
  if (step->places > 0) interface.mask = "causal_mask";
  interface.caches = {{"k_lat_0", "nk_lat_0", kHeads, kDim}};
  interface.vocab_size = kVocab;
  interface.capacity = 20;
  return step_runner(
      interface, [step](const NamedTensors& in) { return (*step)(in); }, std::move(policy));
}

std::vector<int32_t> ids_of(int count) {
  std::vector<int32_t> out;
  for (int i = 0; i < count; ++i) out.push_back(i + 5);
  return out;
}

TEST(StepRunner, FirstStepSeesItselfAlone) {
  for (const int64_t places : {int64_t{0}, int64_t{8}}) {
    FakeStep step;
    step.places = places;
    const auto runner = runner_of(&step);
    std::vector<float> logits(3 * kVocab);
    ASSERT_TRUE(runner->prefill(ids_of(3), LogitsOf::kAll, logits).ok());
    EXPECT_EQ(step.seen, (std::vector<std::vector<int>>{{0}, {0, 1}, {0, 1, 2}}));
    EXPECT_EQ(step.positions, (std::vector<int64_t>{0, 1, 2}));
    EXPECT_EQ(logits[5], 1.0f);
    EXPECT_EQ(logits[2 * kVocab + 7], 1.0f);
    EXPECT_EQ(runner->position(), 3);
  }
}

TEST(StepRunner, OldTokensGoAndPositionsGoOn) {
  for (const int64_t places : {int64_t{0}, int64_t{4}, int64_t{8}}) {
    FakeStep step;
    step.places = places;
    CachePolicy policy;
    policy.kept = 4;
    const auto runner = runner_of(&step, policy);
    ASSERT_TRUE(runner->prefill(ids_of(7), LogitsOf::kNone, {}).ok());
    EXPECT_EQ(step.seen.back(), (std::vector<int>{3, 4, 5, 6})) << places;
    EXPECT_EQ(step.seen[4], (std::vector<int>{1, 2, 3, 4})) << places;
    EXPECT_EQ(step.positions.back(), 6);
    // What is gone cannot come back.
    EXPECT_FALSE(runner->can_truncate(5));
    EXPECT_EQ(runner->truncate(5).code(), StatusCode::kUsage);
    EXPECT_TRUE(runner->truncate(7).ok());
    ASSERT_TRUE(runner->truncate(0).ok());
    ASSERT_TRUE(runner->prefill(ids_of(2), LogitsOf::kNone, {}).ok());
    EXPECT_EQ(step.seen.back(), (std::vector<int>{0, 1})) << places;
  }
}

TEST(StepRunner, FixedPlacesAreALimitOfTheirOwn) {
  FakeStep step;
  step.places = 3;
  const auto runner = runner_of(&step);
  ASSERT_TRUE(runner->prefill(ids_of(6), LogitsOf::kNone, {}).ok());
  EXPECT_EQ(step.seen.back(), (std::vector<int>{3, 4, 5}));
}

TEST(StepRunner, SinksStay) {
  for (const int64_t places : {int64_t{0}, int64_t{5}, int64_t{9}}) {
    FakeStep step;
    step.places = places;
    CachePolicy policy;
    policy.kept = 5;
    policy.sinks = 2;
    const auto runner = runner_of(&step, policy);
    ASSERT_TRUE(runner->prefill(ids_of(9), LogitsOf::kNone, {}).ok());
    EXPECT_EQ(step.seen.back(), (std::vector<int>{0, 1, 6, 7, 8})) << places;
    EXPECT_EQ(step.seen[5], (std::vector<int>{0, 1, 3, 4, 5})) << places;
    EXPECT_EQ(step.rows.back(), (std::vector<float>{5, 6, 11, 12, 13})) << places;
  }
}

TEST(StepRunner, RowsAreStoredOnce) {
  for (const int64_t places : {int64_t{0}, int64_t{8}}) {
    FakeStep step;
    step.places = places;
    CachePolicy policy;
    policy.store = [](std::span<float> row) {
      ASSERT_EQ(row.size(), static_cast<size_t>(kDim));
      row[0] += 0.5f;
    };
    const auto runner = runner_of(&step, policy);
    ASSERT_TRUE(runner->prefill(ids_of(4), LogitsOf::kNone, {}).ok());
    EXPECT_EQ(step.rows.back(), (std::vector<float>{5.5f, 6.5f, 7.5f, 8.0f})) << places;
  }
}

TEST(StepRunner, ForgettingAndGoingOn) {
  for (const int64_t places : {int64_t{0}, int64_t{8}}) {
    FakeStep step;
    step.places = places;
    const auto runner = runner_of(&step);
    ASSERT_TRUE(runner->prefill(ids_of(6), LogitsOf::kNone, {}).ok());
    ASSERT_TRUE(runner->truncate(2).ok());
    std::vector<float> logits(kVocab);
    ASSERT_TRUE(runner->decode(40, logits).ok());
    EXPECT_EQ(step.seen.back(), (std::vector<int>{0, 1, 2}));
    EXPECT_EQ(step.rows.back(), (std::vector<float>{5, 6, 40}));
    EXPECT_EQ(runner->history().size(), 3u);
  }
}

TEST(StepRunner, AFailedCallChangesNothing) {
  FakeStep step;
  step.fail_at = 3;
  const auto runner = runner_of(&step);
  ASSERT_TRUE(runner->prefill(ids_of(2), LogitsOf::kNone, {}).ok());
  EXPECT_FALSE(runner->prefill(ids_of(3), LogitsOf::kNone, {}).ok());
  EXPECT_EQ(runner->position(), 2);
  std::vector<float> logits(kVocab);
  ASSERT_TRUE(runner->decode(30, logits).ok());
  EXPECT_EQ(step.rows.back(), (std::vector<float>{5, 6, 30}));
  EXPECT_EQ(runner->prefill(ids_of(18), LogitsOf::kNone, {}).code(), StatusCode::kUsage);
}

TEST(StepRunner, RefusesAStepThatGivesSomethingElse) {
  FakeStep step;
  StepInterface interface;
  interface.caches = {{"k_lat_0", "nk_lat_0", kHeads, kDim + 1}};
  interface.vocab_size = kVocab;
  interface.capacity = 20;
  const auto other =
      step_runner(interface,
                  [](const NamedTensors&) -> Result<NamedTensors> {
                    return NamedTensors{{"logits", Tensor::zeros(DType::kF32, {1, 1, kVocab})}};
                  },
                  {});
  const Status status = other->prefill(ids_of(1), LogitsOf::kNone, {});
  EXPECT_EQ(status.refusal(), Refusal::kRange);
  EXPECT_NE(status.to_string().find("nk_lat_0"), std::string::npos);
}

TEST(StepRunner, CachesComeBackUnderTheirName) {
  EXPECT_EQ(present_name("k_lat_3"), "nk_lat_3");
  EXPECT_EQ(present_name("v_lat_0"), "nv_lat_0");
  EXPECT_EQ(present_name("past_key_values.7.key"), "present.7.key");
  EXPECT_EQ(present_name("past_key_values_7_value"), "present_7_value");
  EXPECT_EQ(present_name("input_ids"), std::nullopt);
  EXPECT_EQ(present_name("past_key_valuesX"), std::nullopt);
}

}  // namespace
}  // namespace pome
