// The roofs' kernels do what they are counted for.
#include "kernels/roof/roof.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "kernels/kernel_test_util.h"

namespace pome::kernels {
namespace {

struct alignas(64) Unit {
  std::byte bytes[static_cast<size_t>(kReadUnit)];
};

TEST(Roof, ReadingReadsEveryByteOnce) {
  for (const size_t units : {1, 2, 7}) {
    std::vector<Unit> memory(units);
    std::mt19937 random(static_cast<uint32_t>(units));
    for (Unit& unit : memory)
      for (std::byte& byte : unit.bytes) byte = static_cast<std::byte>(random());
    const auto bytes = static_cast<int64_t>(units) * kReadUnit;
    uint64_t expected = 0;
    for (const Unit& unit : memory) {
      for (int64_t i = 0; i < kReadUnit; i += 8) {
        uint64_t word;
        std::memcpy(&word, unit.bytes + i, sizeof word);
        expected += word;
      }
    }
    for (const ReadRoofEntry& entry : read_roof_kernels()) {
      if (!runs_here(entry.isa)) continue;
      EXPECT_EQ(entry.run(memory[0].bytes, bytes), expected) << entry.name << " " << units;
    }
  }
}

TEST(Roof, ProductsAreAsManyAsTheirLineSays) {
  for (const ProductRoofEntry& entry : product_roof_kernels()) {
    if (!runs_here(entry.isa)) continue;
    for (const int64_t rounds : {0, 1, 1000})
      EXPECT_EQ(entry.run(rounds), static_cast<double>(entry.macs * rounds)) << entry.name;
  }
}

TEST(Roof, EveryInstructionSetHasReadingAndProducts) {
  for (const Isa isa : available_isas()) {
    EXPECT_NE(choose_read_roof(isa), nullptr);
    for (const RoofProduct product : {RoofProduct::kInt8, RoofProduct::kF32}) {
      const ProductRoofEntry* entry = choose_product_roof(isa, product);
      ASSERT_NE(entry, nullptr);
      EXPECT_LE(entry->isa, isa);
    }
  }
  EXPECT_EQ(choose_product_roof(Isa::kPortable, RoofProduct::kBf16), nullptr);
}

TEST(Roof, MeasuringGivesRatesThatAMachineCanHave) {
  ThreadPool pool(2);
  std::vector<Unit> memory(4096);
  const auto bytes = std::as_bytes(std::span(memory));
  const double read = measure_read_roof(Isa::kPortable, bytes, &pool);
  EXPECT_GT(read, 1e7);
  EXPECT_LT(read, 1e14);
  EXPECT_EQ(measure_read_roof(Isa::kPortable, bytes.first(kReadUnit), &pool), 0);
  const double products = measure_product_roof(Isa::kPortable, RoofProduct::kInt8, &pool);
  EXPECT_GT(products, 1e7);
  EXPECT_LT(products, 1e15);
  EXPECT_EQ(measure_product_roof(Isa::kPortable, RoofProduct::kBf16, &pool), 0);
}

}  // namespace
}  // namespace pome::kernels
