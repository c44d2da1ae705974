#include "kernels/attention/attention.h"

#include <gtest/gtest.h>

#include "kernels/kernel_test_util.h"

namespace pome::kernels {
namespace {

struct Case {
  int64_t rows, dim, value_dim, keys;
  float softcap;
  bool sinks;
};

std::vector<double> reference(const AttentionArgs& args) {
  std::vector<double> out;
  for (int64_t r = 0; r < args.rows; ++r) {
    std::vector<double> s;
    double largest = args.sinks[r] ? static_cast<double>(*args.sinks[r]) : -INFINITY;
    for (int64_t j = args.first[r]; j < args.last[r]; ++j) {
      double sum = 0;
      for (int64_t d = 0; d < args.dim; ++d)
        sum += static_cast<double>(args.q[r * args.ldq + d]) *
               static_cast<double>(args.k[j * args.ldk + d]);
      sum *= static_cast<double>(args.scale);
      const double cap = static_cast<double>(args.softcap);
      s.push_back(cap > 0 ? cap * std::tanh(sum / cap) : sum);
      largest = std::max(largest, s.back());
    }
    double total = args.sinks[r] ? std::exp(static_cast<double>(*args.sinks[r]) - largest) : 0;
    for (double& v : s) total += v = std::exp(v - largest);
    for (int64_t d = 0; d < args.value_dim; ++d) {
      double sum = 0;
      for (size_t j = 0; j < s.size(); ++j)
        sum += s[j] * static_cast<double>(
                          args.v[(args.first[r] + static_cast<int64_t>(j)) * args.ldv + d]);
      out.push_back(sum / total);
    }
  }
  return out;
}

TEST(Attention, AgreesWithTheFormula) {
  const Case cases[] = {{1, 64, 64, 1, 0, false},   {1, 64, 64, 77, 0, false},
                        {2, 64, 64, 33, 0, true},   {3, 20, 12, 40, 0, false},
                        {5, 7, 3, 9, 0, true},      {6, 32, 64, 100, 30.0f, false},
                        {12, 64, 128, 65, 0, true}, {11, 16, 65, 129, 5.0f, true}};
  for (const Isa isa : available_isas()) {
    const AttentionKernels kernels = choose_attention(isa);
    for (const Case& c : cases) {
      const auto q = random_floats(c.rows * c.dim, 21), k = random_floats(c.keys * c.dim, 22),
                 v = random_floats(c.keys * c.value_dim, 23), sinks = random_floats(c.rows, 24);
      std::vector<float> y(static_cast<size_t>(c.rows * (c.value_dim + 1)), -77.0f);
      AttentionArgs args;
      args.q = q.data();
      args.ldq = args.ldk = args.dim = c.dim;
      args.rows = c.rows;
      args.k = k.data();
      args.v = v.data();
      args.ldv = args.value_dim = c.value_dim;
      args.scale = 0.3f;
      args.softcap = c.softcap;
      args.y = y.data();
      args.ldy = c.value_dim + 1;
      for (int64_t r = 0; r < c.rows; ++r) {
        args.last[r] = std::max<int64_t>(1, c.keys - r % 5);
        args.first[r] = std::max<int64_t>(0, args.last[r] - 20 - r);
        if (c.sinks && r % 2 == 0) args.sinks[r] = &sinks[static_cast<size_t>(r)];
      }
      std::vector<float> scratch(static_cast<size_t>(c.rows * c.keys));
      attention_rows(kernels, args, scratch.data());
      const auto wanted = reference(args);
      for (int64_t r = 0; r < c.rows; ++r) {
        for (int64_t d = 0; d < c.value_dim; ++d)
          ASSERT_NEAR(y[static_cast<size_t>(r * (c.value_dim + 1) + d)],
                      wanted[static_cast<size_t>(r * c.value_dim + d)], 4e-6)
              << to_string(isa) << " rows " << c.rows << " row " << r << " d " << d;
        ASSERT_EQ(y[static_cast<size_t>(r * (c.value_dim + 1) + c.value_dim)], -77.0f);
      }
      // A row alone gives the same bits.
      for (int64_t r = 0; r < c.rows; ++r) {
        AttentionArgs one = args;
        std::vector<float> alone(static_cast<size_t>(c.value_dim));
        one.rows = 1;
        one.q += r * c.dim;
        one.first[0] = args.first[r];
        one.last[0] = args.last[r];
        one.sinks[0] = args.sinks[r];
        one.y = alone.data();
        attention_rows(kernels, one, scratch.data());
        for (int64_t d = 0; d < c.value_dim; ++d)
          ASSERT_EQ(alone[static_cast<size_t>(d)],
                    y[static_cast<size_t>(r * (c.value_dim + 1) + d)])
              << to_string(isa) << " row " << r;
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
      const float factor = entry.run({s.data(), n, 0.5f, 0.0f, nullptr});
      double largest = -INFINITY, total = 0;
      for (int64_t i = 0; i < n; ++i)
        largest = std::max(largest, 0.5 * static_cast<double>(in[static_cast<size_t>(i)]));
      for (int64_t i = 0; i < n; ++i)
        total += std::exp(0.5 * static_cast<double>(in[static_cast<size_t>(i)]) - largest);
      for (int64_t i = 0; i < n; ++i) {
        const double wanted =
            std::exp(0.5 * static_cast<double>(in[static_cast<size_t>(i)]) - largest) / total;
        // The difference to the maximum is rounded to f32: half an ulp of 64 moves e^s by 4e-6.
        ASSERT_NEAR(s[static_cast<size_t>(i)] * factor, wanted, 1e-5 * wanted + 1e-37)
            << entry.name << " n " << n;
      }
      ASSERT_EQ(s.back(), in.back()) << entry.name;
    }
  }
}

}  // namespace
}  // namespace pome::kernels
