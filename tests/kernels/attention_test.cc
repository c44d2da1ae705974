#include "kernels/attention/attention.h"

#include <gtest/gtest.h>

#include <cstring>

#include "kernels/kernel_test_util.h"

namespace pome::kernels {
namespace {

constexpr KvKind kKinds[] = {KvKind::kF32, KvKind::kF16, KvKind::kQ8, KvKind::kQ4};

struct Case {
  int64_t rows, dim, value_dim, keys;
  float softcap;
  bool sinks;
  int64_t window;
  int64_t more = 0;  // values of a cached row behind those that are meant
};
// Blocks begin at multiples of 128: fewer, as many, more, and several; tails of every loop.
const Case kCases[] = {{1, 64, 64, 1, 0, false, 20},        {1, 64, 64, 300, 0, false, 1000},
                       {2, 64, 64, 133, 0, true, 20},       {3, 20, 12, 40, 0, false, 20},
                       {5, 7, 3, 129, 0, true, 1000},       {4, 128, 128, 257, 0, false, 1000},
                       {6, 32, 64, 100, 30.0f, false, 9},   {12, 80, 128, 256, 0, true, 130},
                       {11, 16, 65, 129, 5.0f, true, 20},   {128, 64, 96, 403, 0, true, 200},
                       {61, 40, 40, 140, 0, false, 1000},   {1, 80, 64, 300, 0, false, 1000, 70},
                       {17, 40, 20, 140, 0, true, 1000, 30}};

// A cache of one head, and the floats that it means.
struct Cache {
  Cache(KvKind kind, int64_t rows, int64_t dim, uint32_t seed, int64_t more = 0)
      : stored(static_cast<size_t>(rows * kv_row_bytes(kind, dim + more))),
        values(static_cast<size_t>(rows * dim)) {
    const int64_t width = dim + more;
    const auto x = random_floats(rows * width, seed);
    view = {kind, stored.data(), kv_row_bytes(kind, width), dim, width};
    for (int64_t i = 0; i < rows; ++i) {
      std::byte* row = stored.data() + i * view.row_bytes;
      kv_pack_row(kind, x.data() + i * width, width, row);
      kv_unpack_row(kind, row, dim, width, values.data() + i * dim);
    }
  }
  std::vector<std::byte> stored;
  std::vector<float> values;
  KvRows view;
};

struct Problem {
  Problem(const Case& c, KvKind kind)
      : k(kind, c.keys, c.dim, 22, c.more),
        v(kind, c.keys, c.value_dim, 23, c.more),
        q(random_floats(c.rows * c.dim, 21)),
        sinks(random_floats(c.rows, 24)),
        y(static_cast<size_t>(c.rows * (c.value_dim + 1)), -77.0f) {
    args.q = q.data();
    args.ldq = c.dim;
    args.rows = c.rows;
    args.k = k.view;
    args.v = v.view;
    args.scale = 0.3f;
    args.softcap = c.softcap;
    args.y = y.data();
    args.ldy = c.value_dim + 1;
    for (int64_t r = 0; r < c.rows; ++r) {
      args.last[r] = std::max<int64_t>(1, c.keys - (c.rows - 1 - r) % 67);
      args.first[r] = std::max<int64_t>(0, args.last[r] - c.window - r % 3);
      if (c.sinks && r % 2 == 0) args.sinks[r] = &sinks[static_cast<size_t>(r)];
    }
    scratch.resize(static_cast<size_t>(attention_scratch(c.dim, c.value_dim)));
  }
  std::vector<double> wanted() const {
    std::vector<double> out;
    const int64_t dim = args.k.dim, value_dim = args.v.dim;
    for (int64_t r = 0; r < args.rows; ++r) {
      std::vector<double> s;
      double largest = args.sinks[r] ? static_cast<double>(*args.sinks[r]) : -INFINITY;
      for (int64_t j = args.first[r]; j < args.last[r]; ++j) {
        double sum = 0;
        for (int64_t d = 0; d < dim; ++d)
          sum += static_cast<double>(args.q[r * args.ldq + d]) *
                 static_cast<double>(k.values[static_cast<size_t>(j * dim + d)]);
        sum *= static_cast<double>(args.scale);
        const double cap = static_cast<double>(args.softcap);
        s.push_back(cap > 0 ? cap * std::tanh(sum / cap) : sum);
        largest = std::max(largest, s.back());
      }
      double total = args.sinks[r] ? std::exp(static_cast<double>(*args.sinks[r]) - largest) : 0;
      for (double& p : s) total += p = std::exp(p - largest);
      for (int64_t d = 0; d < value_dim; ++d) {
        double sum = 0;
        for (size_t j = 0; j < s.size(); ++j)
          sum += s[j] * static_cast<double>(v.values[(static_cast<size_t>(args.first[r]) + j) *
                                                         static_cast<size_t>(value_dim) +
                                                     static_cast<size_t>(d)]);
        out.push_back(sum / total);
      }
    }
    return out;
  }
  Cache k, v;
  std::vector<float> q, sinks, y, scratch;
  AttentionArgs args;
};

std::string name(const Case& c, KvKind kind, Isa isa) {
  return std::string(to_string(isa)) + " " + std::string(to_string(kind)) + " rows " +
         std::to_string(c.rows) + " dim " + std::to_string(c.dim) + " keys " +
         std::to_string(c.keys);
}

TEST(Attention, AgreesWithTheFormula) {
  for (const KvKind kind : kKinds) {
    for (const Case& c : kCases) {
      const auto wanted = Problem(c, kind).wanted();
      for (const Isa isa : available_isas()) {
        for (const bool exact : {true, false}) {
          Problem problem(c, kind);
          const AttentionKernels kernels = choose_attention(isa, exact);
          attention_rows(kernels, problem.args, problem.scratch.data());
          // bfloat16 has 8 bits: errors of scores times values of about 1.
          const bool rounds = kernels.many && c.rows >= kernels.many->min_rows;
          const double bound = rounds ? 0.06 : 4e-6;
          double worst = 0, squares = 0;
          for (int64_t r = 0; r < c.rows; ++r) {
            const auto row = static_cast<size_t>(r * (c.value_dim + 1));
            for (int64_t d = 0; d < c.value_dim; ++d) {
              const double error =
                  std::fabs(static_cast<double>(problem.y[row + static_cast<size_t>(d)]) -
                            wanted[static_cast<size_t>(r * c.value_dim + d)]);
              worst = std::max(worst, error);
              squares += error * error;
            }
            ASSERT_EQ(problem.y[row + static_cast<size_t>(c.value_dim)], -77.0f);
          }
          ASSERT_LT(worst, bound) << name(c, kind, isa) << (exact ? " exact" : "");
          if (rounds) {
            ASSERT_LT(std::sqrt(squares / static_cast<double>(wanted.size())), 0.006)
                << name(c, kind, isa);
          }
        }
      }
    }
  }
}

TEST(Attention, ARowAloneAndAnyPiecesGiveTheSameBits) {
  for (const KvKind kind : kKinds) {
    for (const Case& c : kCases) {
      for (const Isa isa : available_isas()) {
        const AttentionKernels kernels = choose_attention(isa, true);
        Problem problem(c, kind);
        const AttentionArgs& args = problem.args;
        attention_rows(kernels, args, problem.scratch.data());
        const std::vector<float> whole = problem.y;
        const BlockRange range = attention_blocks(args);
        const int64_t size = part_floats(c.rows, c.value_dim);
        std::vector<float> parts(static_cast<size_t>(size * (range.end - range.begin)));
        for (int64_t b = range.end; b-- > range.begin;)
          attention_part(kernels, args, b, parts.data() + (b - range.begin) * size,
                         problem.scratch.data());
        std::fill(problem.y.begin(), problem.y.end(), -77.0f);
        attention_join(args, parts.data(), 0, args.rows / 2);  // and the rest
        attention_join(args, parts.data(), args.rows / 2, args.rows);
        ASSERT_EQ(problem.y, whole) << name(c, kind, isa);
        for (int64_t r = 0; r < c.rows; r += 3) {
          AttentionArgs one = args;
          std::vector<float> alone(static_cast<size_t>(c.value_dim));
          one.rows = 1;
          one.q += r * c.dim;
          one.first[0] = args.first[r];
          one.last[0] = args.last[r];
          one.sinks[0] = args.sinks[r];
          one.y = alone.data();
          attention_rows(kernels, one, problem.scratch.data());
          for (int64_t d = 0; d < c.value_dim; ++d)
            ASSERT_EQ(alone[static_cast<size_t>(d)],
                      whole[static_cast<size_t>(r * (c.value_dim + 1) + d)])
                << name(c, kind, isa) << " row " << r;
        }
      }
    }
  }
}

TEST(Softmax, ManyLengths) {
  for (const SoftmaxEntry& entry : softmax_kernels()) {
    if (!runs_here(entry.isa)) continue;
    for (int64_t n = 1; n < 40; ++n) {
      auto s = random_floats(n + 1, 25, 30.0f);
      if (n > 3) s[2] = -INFINITY;
      const auto in = s;
      float most = 0;
      const float sum = entry.run({s.data(), n, 0.5f, 0.0f, &most});
      double largest = -INFINITY, total = 0;
      for (int64_t i = 0; i < n; ++i)
        largest = std::max(largest, 0.5 * static_cast<double>(in[static_cast<size_t>(i)]));
      ASSERT_EQ(static_cast<double>(most), largest);
      for (int64_t i = 0; i < n; ++i)
        total += std::exp(0.5 * static_cast<double>(in[static_cast<size_t>(i)]) - largest);
      for (int64_t i = 0; i < n; ++i) {
        const double wanted =
            std::exp(0.5 * static_cast<double>(in[static_cast<size_t>(i)]) - largest) / total;
        // The difference to the maximum is rounded to f32: half an ulp of 64 moves e^s by 4e-6.
        ASSERT_NEAR(s[static_cast<size_t>(i)] / sum, wanted, 1e-5 * wanted + 1e-37)
            << entry.name << " n " << n;
      }
      ASSERT_EQ(s.back(), in.back()) << entry.name;
    }
  }
}

// The whole range in steps of 2^-12: the bound that attention.h states.
TEST(Softmax, ExponentialKeepsItsBound) {
  constexpr int64_t kSteps = 4096, kWidth = 120;
  for (const SoftmaxEntry& entry : softmax_kernels()) {
    if (!runs_here(entry.isa)) continue;
    double worst = 0;
    std::vector<float> s(kWidth + 1);
    for (int64_t step = 0; step < 88 * kSteps; step += kWidth) {
      s[0] = 0;
      for (int64_t i = 0; i < kWidth; ++i)
        s[static_cast<size_t>(i + 1)] = -static_cast<float>(step + i) / kSteps;
      const auto in = s;
      float most = 1;
      entry.run({s.data(), kWidth + 1, 1.0f, 0.0f, &most});
      ASSERT_EQ(most, 0.0f);
      for (size_t i = 0; i <= kWidth; ++i) {
        const double wanted = std::exp(static_cast<double>(in[i]));
        if (in[i] < -87.3f)
          ASSERT_LT(s[i], 1.3e-38f) << entry.name;
        else
          worst = std::max(worst, std::fabs(static_cast<double>(s[i]) - wanted) / wanted);
      }
    }
    EXPECT_LT(worst, std::ldexp(1.0, -22)) << entry.name;
  }
}

TEST(KvRows, UnpackKernelsAgree) {
  for (const UnpackEntry& entry : unpack_kernels()) {
    if (!runs_here(entry.isa)) continue;
    for (const KvKind kind : kKinds) {
      for (const int64_t dim : {1, 7, 16, 20, 64, 65, 80, 128, 200}) {
        for (const int64_t more : {0, 70}) {
          const Cache cache(kind, 5, dim, 31, more);
          std::vector<float> x(static_cast<size_t>(5 * (dim + 1)), -77.0f);
          entry.run(cache.view, 5, x.data(), dim + 1);
          for (int64_t i = 0; i < 5; ++i) {
            for (int64_t d = 0; d < dim; ++d)
              // AVX2 adds and multiplies in one.
              ASSERT_NEAR(x[static_cast<size_t>(i * (dim + 1) + d)],
                          cache.values[static_cast<size_t>(i * dim + d)], 1e-6)
                  << entry.name << " " << to_string(kind) << " dim " << dim;
            ASSERT_EQ(x[static_cast<size_t>(i * (dim + 1) + dim)], -77.0f) << entry.name;
          }
        }
      }
    }
  }
}

TEST(KvRows, ErrorsStayWithinTheirBounds) {
  const float shifts[] = {0.0f, 3.0f, -40.0f, 1e-6f};
  for (const float shift : shifts) {
    for (const int64_t dim : {3, 64, 100}) {
      auto x = random_floats(dim, 41);
      for (float& value : x) value += shift;
      for (const KvKind kind : kKinds) {
        std::vector<std::byte> row(static_cast<size_t>(kv_row_bytes(kind, dim)));
        std::vector<float> back(x.size());
        kv_pack_row(kind, x.data(), dim, row.data());
        kv_unpack_row(kind, row.data(), dim, dim, back.data());
        for (int64_t begin = 0; begin < dim; begin += kKvGroup) {
          const auto from = x.begin() + begin, to = x.begin() + std::min(dim, begin + kKvGroup);
          const auto [low, high] = std::minmax_element(from, to);
          // bfloat16 offsets lie up to 2^-7 of themselves outside of the range.
          const float beyond = std::max(std::fabs(*low), std::fabs(*high)) / 128;
          const float range = *high - *low;
          for (int64_t d = begin; d < begin + (to - from); ++d) {
            const auto i = static_cast<size_t>(d);
            const float bound = kind == KvKind::kF32   ? 0
                                : kind == KvKind::kF16 ? std::fabs(x[i]) / 2048 + 1e-7f
                                : kind == KvKind::kQ8  ? (range + beyond) / 505
                                                       : 0.16f * (range / 2 + beyond) * 1.01f;
            ASSERT_LE(std::fabs(back[i] - x[i]), bound + 1e-30f)
                << to_string(kind) << " dim " << dim << " shift " << shift;
          }
        }
      }
    }
  }
}

TEST(KvRows, ExtremesDoNotBecomeInfinite) {
  for (const KvKind kind : kKinds) {
    const std::vector<float> x = {1e30f, -1e30f, 0, 1e-30f, 70000, -70000, 65504, 3};
    std::vector<std::byte> row(static_cast<size_t>(kv_row_bytes(kind, 8)));
    std::vector<float> back(8);
    kv_pack_row(kind, x.data(), 8, row.data());
    kv_unpack_row(kind, row.data(), 8, 8, back.data());
    for (const float value : back) ASSERT_TRUE(std::isfinite(value)) << to_string(kind);
    const std::vector<float> zeros(8);
    kv_pack_row(kind, zeros.data(), 8, row.data());
    kv_unpack_row(kind, row.data(), 8, 8, back.data());
    EXPECT_EQ(back, zeros) << to_string(kind);
  }
}

}  // namespace
}  // namespace pome::kernels
