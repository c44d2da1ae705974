// The engine against the reference evaluator, and against itself: threads, chunks and what logits
// are asked for must not change a bit.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include <cstring>

#include "engine/sessions.h"
#include "engine/tiny_graph.h"
#include "graph/passes.h"
#include "interp/graph_eval.h"

namespace pome {
namespace {

std::vector<float> reference_logits(const Graph& graph, std::span<const int32_t> ids) {
  auto runner = reference_runner({graph}, {});
  EXPECT_TRUE(runner.ok()) << runner.status().to_string();
  return all_logits(**runner, ids);
}

void expect_close(const std::vector<float>& got, const std::vector<float>& wanted,
                  const std::string& what) {
  ASSERT_EQ(got.size(), wanted.size()) << what;
  float size = 0, worst = 0;
  for (const float v : wanted) size = std::max(size, std::fabs(v));
  for (size_t i = 0; i < got.size(); ++i) worst = std::max(worst, std::fabs(got[i] - wanted[i]));
  EXPECT_GT(size, 1e-3f) << what << ": nothing to compare";
  EXPECT_LT(worst, 3e-5f * std::max(size, 1.0f)) << what;
}

std::vector<TinyConfig> configs() {
  std::vector<TinyConfig> out;
  const auto add = [&](const std::string& name, auto change) {
    TinyConfig config;
    config.name = name;
    change(config);
    out.push_back(config);
  };
  add("plain", [](TinyConfig&) {});
  add("partial_interleaved", [](TinyConfig& c) {
    c.style = RopeStyle::kInterleaved;
    c.rotary = 6;
    c.rope_scale = 1.25;
  });
  add("partial_halves", [](TinyConfig& c) { c.rotary = 4; });
  add("window_softcap", [](TinyConfig& c) {
    c.window = 5;
    c.softcap = 3;
    c.final_softcap = 2;
    c.activation = Activation::kGeluTanh;
  });
  add("sinks_bias_odd", [](TinyConfig& c) {
    c.sinks = c.bias = true;
    c.hidden = 21;
    c.width = 37;
    c.dim = 10;
    c.heads = c.kv_heads = 3;
    c.vocab = 53;
  });
  add("one_key_head", [](TinyConfig& c) { c.kv_heads = 1; });
  add("gelu_no_gate", [](TinyConfig& c) {
    c.activation = Activation::kGelu;
    c.gated = false;
  });
  add("layer_norm_learned_positions", [](TinyConfig& c) {
    c.layer_norm = c.bias = true;
    c.hidden = 21;
    c.learned_positions = 64;
    c.gated = false;
  });
  add("layer_norm_without_bias", [](TinyConfig& c) { c.layer_norm = true; });
  add("relu", [](TinyConfig& c) { c.activation = Activation::kRelu; });
  add("moe_normalized", [](TinyConfig& c) {
    c.experts = 5;
    c.experts_per_token = 2;
  });
  add("moe_softmax_first", [](TinyConfig& c) {
    c.experts = 4;
    c.experts_per_token = 3;
    c.normalize = false;
  });
  add("moe_clamped_with_biases", [](TinyConfig& c) {
    c.experts = 6;
    c.experts_per_token = 2;
    c.bias = true;
    c.sigmoid_scale = 1.702;
    c.limit = 0.1;
    c.up_offset = 1;
  });
  add("moe_without_gate", [](TinyConfig& c) {
    c.experts = 3;
    c.experts_per_token = 2;
    c.activation = Activation::kGelu;
    c.gated = false;
    c.bias = true;
  });
  const auto encoded = [&](const std::string& name, const Encoding& encoding) {
    add(name, [&](TinyConfig& c) {
      c.encoding = encoding;
      c.vocab = 64;
      c.experts = name == "q8_0" || name == "int4" ? 2 : 0;
      c.experts_per_token = 1;
    });
  };
  encoded("f32", Encoding::plain(EncodingKind::kF32));
  encoded("f16", Encoding::plain(EncodingKind::kF16));
  encoded("q8_0", Encoding::plain(EncodingKind::kQ8_0));
  encoded("q4_0", Encoding::plain(EncodingKind::kQ4_0));
  encoded("int4", Encoding::int_blocks(4, 32));
  encoded("int8_by_16", Encoding::int_blocks(8, 16));
  encoded("lut4", Encoding::lut(4, 16));
  encoded("lut3", Encoding::lut(3, 8));
  return out;
}

class Engine : public testing::TestWithParam<TinyConfig> {};

TEST_P(Engine, AgreesWithTheReferenceOnEveryIsa) {
  const Graph graph = TinyGraph(GetParam()).build();
  const auto ids = some_ids(13);
  const auto wanted = reference_logits(graph, ids);
  for (const Isa isa : available_isas()) {
    PlanOptions options;
    options.isa = isa;
    expect_close(all_logits(*session(graph, options), ids), wanted,
                 "composites, " + std::string(to_string(isa)));
    options.chunk = 4;
    expect_close(all_logits(*session(decompose(graph), options), ids), wanted,
                 "primitives, " + std::string(to_string(isa)));
  }
}

TEST_P(Engine, ChunksAndThreadsDoNotChangeABit) {
  const Graph composite = TinyGraph(GetParam()).build();
  const auto ids = some_ids(45);
  for (const Graph& graph : {composite, decompose(composite)}) {
    const auto wanted = all_logits(*session(graph), ids);
    for (const int threads : {1, 2, 3}) {
      for (const int64_t chunk : {1, 7, 45}) {
        PlanOptions options;
        options.threads = threads;
        options.chunk = chunk;
        ASSERT_EQ(all_logits(*session(graph, options), ids), wanted)
            << threads << " threads, chunk " << chunk;
      }
    }
  }
}

TEST_P(Engine, WhatIsAskedForDoesNotChangeABit) {
  const Graph graph = TinyGraph(GetParam()).build();
  const auto ids = some_ids(40);
  const auto wanted = all_logits(*session(graph), ids);
  const auto width = static_cast<size_t>(graph.info.vocab_size);
  PlanOptions options;
  options.chunk = 9;
  const auto runner = session(graph, options);
  std::vector<float> row(width);
  const auto expect_row = [&](size_t t) {
    const std::vector<float> expected(wanted.begin() + static_cast<ptrdiff_t>(t * width),
                                      wanted.begin() + static_cast<ptrdiff_t>((t + 1) * width));
    ASSERT_EQ(row, expected) << "token " << t;
  };
  const std::span<const int32_t> all(ids);
  ASSERT_TRUE(runner->prefill(all.first(11), LogitsOf::kNone, {}).ok());
  ASSERT_TRUE(runner->decode(ids[11], row).ok());
  expect_row(11);
  ASSERT_TRUE(runner->prefill(all.subspan(12, 20), LogitsOf::kLast, row).ok());
  expect_row(31);
  EXPECT_EQ(runner->position(), 32);
  // Back, and over the same ground by another road.
  ASSERT_TRUE(runner->truncate(5).ok());
  EXPECT_EQ(runner->position(), 5);
  std::vector<float> several(6 * width);
  ASSERT_TRUE(runner->prefill(all.subspan(5, 6), LogitsOf::kAll, several).ok());
  for (size_t i = 0; i < 6; ++i) {
    std::copy_n(several.begin() + static_cast<ptrdiff_t>(i * width), width, row.begin());
    expect_row(5 + i);
  }
  for (size_t t = 11; t < 15; ++t) {
    ASSERT_TRUE(runner->decode(ids[t], row).ok());
    expect_row(t);
  }
  ASSERT_TRUE(runner->truncate(0).ok());
  EXPECT_EQ(all_logits(*runner, ids), wanted);
}

INSTANTIATE_TEST_SUITE_P(Tiny, Engine, testing::ValuesIn(configs()),
                         [](const testing::TestParamInfo<TinyConfig>& p) { return p.param.name; });

// ---- primitives that no decomposition holds -----------------------------------------------------

class Primitives : public testing::Test {
 protected:
  static constexpr int64_t kVocab = 40, kWidth = 12;
  Primitives() : b_(info()) {
    Constant table;
    table.name = "table";
    table.data = std::make_shared<RandomConstant>(Shape{kVocab, kWidth},
                                                  Encoding::plain(EncodingKind::kF32), 1);
    table_ = b_.constant(std::move(table));
    x_ = b_.add(EmbeddingOp{}, {table_, b_.token_ids()});
  }
  static ModelInfo info() {
    ModelInfo out;
    out.name = "primitives";
    out.vocab_size = kVocab;
    out.max_position_embeddings = 32;
    return out;
  }
  ValueId unary(UnaryKind kind, ValueId x) { return b_.unary(kind, x); }
  ValueId binary(BinaryKind kind, ValueId x, ValueId y) { return b_.binary(kind, x, y); }
  ValueId number(float value) { return b_.scalar(value); }

  // Compares the graph that ends in y [B, T, kWidth] with the reference, in several chunkings.
  void check(ValueId y) {
    auto graph = b_.finish(b_.linear(y, table_));
    ASSERT_TRUE(graph.ok()) << graph.status().to_string();
    const auto ids = some_ids(11, kVocab);
    const auto wanted = reference_logits(*graph, ids);
    for (const int64_t chunk : {1, 4, 11}) {
      PlanOptions options;
      options.chunk = chunk;
      options.threads = 2;
      expect_close(all_logits(*session(*graph, options), ids), wanted,
                   "chunk " + std::to_string(chunk));
    }
  }

  GraphBuilder b_;
  ValueId table_, x_;
};

TEST_F(Primitives, UnaryKinds) {
  const ValueId positive = binary(BinaryKind::kAdd, unary(UnaryKind::kAbs, x_), number(0.1f));
  ValueId sum = x_;
  for (const UnaryKind kind :
       {UnaryKind::kNeg, UnaryKind::kExp, UnaryKind::kSigmoid, UnaryKind::kTanh, UnaryKind::kErf,
        UnaryKind::kSin, UnaryKind::kCos, UnaryKind::kRelu})
    sum = binary(BinaryKind::kAdd, sum, unary(kind, x_));
  for (const UnaryKind kind : {UnaryKind::kLog, UnaryKind::kSqrt, UnaryKind::kRsqrt})
    sum = binary(BinaryKind::kAdd, sum, unary(kind, positive));
  const ValueId scaled = binary(BinaryKind::kMul, x_, number(10));
  sum = binary(BinaryKind::kAdd, sum, unary(UnaryKind::kToF32, unary(UnaryKind::kToI32, scaled)));
  check(sum);
}

TEST_F(Primitives, BinaryKindsBroadcast) {
  const ValueId row = b_.vector("row", std::vector<float>(kWidth, 0.3f));
  const ValueId per_token = b_.add(ReduceOp{ReduceKind::kMax, -1}, {x_});  // [B, T, 1]
  ValueId sum = x_;
  for (const BinaryKind kind :
       {BinaryKind::kSub, BinaryKind::kMul, BinaryKind::kMin, BinaryKind::kMax}) {
    sum = binary(BinaryKind::kAdd, sum, binary(kind, x_, row));
    sum = binary(BinaryKind::kAdd, sum, binary(kind, per_token, x_));
  }
  const ValueId above_one = binary(BinaryKind::kMax, per_token, number(1.0f));
  sum = binary(BinaryKind::kDiv, sum, above_one);
  sum = binary(BinaryKind::kAdd, sum,
               binary(BinaryKind::kPow, unary(UnaryKind::kAbs, x_), number(1.5f)));
  check(sum);
}

TEST_F(Primitives, ComparisonsLogicAndSelect) {
  const ValueId small = binary(BinaryKind::kLess, x_, number(0.05f));
  const ValueId large = binary(BinaryKind::kLessEqual, number(-0.1f), x_);
  const ValueId both = binary(BinaryKind::kAnd, small, large);
  const ValueId either =
      binary(BinaryKind::kOr, both, binary(BinaryKind::kEqual, x_, b_.add(SoftmaxOp{}, {x_})));
  const ValueId chosen = b_.add(SelectOp{}, {either, number(2), x_});
  const ValueId counts = b_.add(
      SelectOp{}, {small, unary(UnaryKind::kToI32, number(3)), unary(UnaryKind::kToI32, chosen)});
  check(binary(BinaryKind::kAdd, chosen, unary(UnaryKind::kToF32, counts)));
}

TEST_F(Primitives, IntegerArithmetic) {
  const ValueId at =
      b_.reshape(b_.add(IotaOp{Symbol::kTokens, Symbol::kPast}, {}), {1, Symbol::kTokens, 1});
  const ValueId three = unary(UnaryKind::kToI32, number(3));
  const ValueId quotient = binary(BinaryKind::kDiv, at, three);
  const ValueId rest = binary(BinaryKind::kSub, at, binary(BinaryKind::kMul, quotient, three));
  const ValueId even = binary(BinaryKind::kEqual, rest, unary(UnaryKind::kToI32, number(1)));
  check(b_.add(SelectOp{}, {even, x_, unary(UnaryKind::kNeg, x_)}));
}

TEST_F(Primitives, MovingData) {
  const ValueId split = b_.reshape(x_, {Symbol::kBatch, Symbol::kTokens, 3, 4});
  const ValueId turned = b_.transpose(split, {0, 3, 1, 2});        // [B, 4, T, 3]
  const ValueId stepped = b_.add(SliceOp{1, 1, 4, 2}, {turned});   // [B, 2, T, 3]
  const ValueId doubled = b_.add(ConcatOp{1}, {stepped, turned});  // [B, 6, T, 3]
  const ValueId head = b_.add(SliceOp{1, 0, 4, 1}, {doubled});     // [B, 4, T, 3]
  const ValueId back = b_.transpose(head, {0, 2, 3, 1});           // [B, T, 3, 4]
  const ValueId joined = b_.reshape(back, {Symbol::kBatch, Symbol::kTokens, kWidth});
  check(b_.add(SliceOp{-1, 4, 16, 1}, {b_.add(ConcatOp{-1}, {x_, joined})}));
}

TEST_F(Primitives, ReduceOverEveryAxis) {
  const ValueId split = b_.reshape(x_, {Symbol::kBatch, Symbol::kTokens, 3, 4});
  const ValueId by_three = b_.add(ReduceOp{ReduceKind::kSum, 2}, {split});  // [B, T, 1, 4]
  const ValueId by_four = b_.add(ReduceOp{ReduceKind::kMean, 3}, {split});  // [B, T, 3, 1]
  const ValueId largest = b_.add(ReduceOp{ReduceKind::kMax, -2}, {split});  // [B, T, 1, 4]
  const ValueId sum = binary(BinaryKind::kAdd, binary(BinaryKind::kMul, by_three, by_four),
                             binary(BinaryKind::kSub, split, largest));
  check(b_.reshape(sum, {Symbol::kBatch, Symbol::kTokens, kWidth}));
}

TEST_F(Primitives, TopKMaskGatherAndMatMul) {
  const ValueId mask = b_.add(TopKMaskOp{3}, {x_});
  const ValueId kept = b_.add(SelectOp{}, {mask, x_, number(0)});
  // A computed table, and ids that are computed from the token ids.
  const ValueId table = binary(BinaryKind::kMul, b_.add(SliceOp{0, 0, 20, 1}, {table_}), number(2));
  const ValueId half =
      binary(BinaryKind::kDiv, b_.token_ids(), unary(UnaryKind::kToI32, number(2)));
  const ValueId looked_up = b_.add(GatherOp{}, {table, half});
  // [B, T, 12] x [12, 12] with a computed matrix, both ways round.
  const ValueId square = b_.add(SliceOp{0, 3, 15, 1}, {table_});
  const ValueId computed = binary(BinaryKind::kAdd, square, number(0.1f));
  const ValueId product = b_.add(MatMulOp{false}, {looked_up, computed});
  const ValueId other = b_.add(MatMulOp{true}, {kept, computed});
  const ValueId third = b_.linear(kept, computed);
  check(binary(BinaryKind::kAdd, binary(BinaryKind::kAdd, product, other), third));
}

// ---- the contract of plan and session -----------------------------------------------------------

TEST(Session, RefusesWhatDoesNotFit) {
  const Graph graph = TinyGraph({}).build();
  PlanOptions options;
  options.capacity = 10;
  const auto runner = session(graph, options);
  EXPECT_EQ(runner->info().capacity, 10);
  EXPECT_EQ(runner->info().vocab_size, 50);
  EXPECT_EQ(runner->info().kind, "engine");
  const auto ids = some_ids(11);
  EXPECT_EQ(runner->prefill(ids, LogitsOf::kNone, {}).code(), StatusCode::kUsage);
  EXPECT_EQ(runner->position(), 0);
  std::vector<float> row(50);
  EXPECT_EQ(runner->decode(50, row).code(), StatusCode::kUsage);
  EXPECT_EQ(runner->decode(-1, row).code(), StatusCode::kUsage);
  ASSERT_TRUE(runner->prefill(std::span(ids).first(10), LogitsOf::kNone, {}).ok());
  EXPECT_EQ(runner->decode(1, row).code(), StatusCode::kUsage);
  EXPECT_EQ(runner->position(), 10);
  EXPECT_EQ(runner->truncate(11).code(), StatusCode::kUsage);
  EXPECT_EQ(runner->truncate(-1).code(), StatusCode::kUsage);
  EXPECT_TRUE(runner->prefill({}, LogitsOf::kLast, {}).ok());
}

TEST(Session, RefusesPositionsBeyondALearnedTable) {
  TinyConfig config;
  config.learned_positions = 16;
  PlanOptions options;
  options.capacity = 32;
  const auto runner = session(TinyGraph(config).build(), options);
  std::vector<float> logits(static_cast<size_t>(config.vocab));
  ASSERT_TRUE(runner->prefill(some_ids(16, config.vocab), LogitsOf::kLast, logits).ok());
  const Status status = runner->decode(1, logits);
  EXPECT_EQ(status.code(), StatusCode::kBadInput) << status.to_string();
}

TEST(Session, CancelLeavesTheContextAsItWas) {
  const auto runner = session(TinyGraph({}).build());
  const auto ids = some_ids(6);
  std::vector<float> row(50), again(50);
  ASSERT_TRUE(runner->prefill(ids, LogitsOf::kLast, row).ok());
  CancelToken token;
  token.cancel();
  runner->set_cancel(&token);
  EXPECT_EQ(runner->decode(7, again).code(), StatusCode::kInterrupted);
  EXPECT_EQ(runner->position(), 6);
  runner->set_cancel(nullptr);
  ASSERT_TRUE(runner->truncate(5).ok());
  ASSERT_TRUE(runner->decode(ids[5], again).ok());
  EXPECT_EQ(row, again);
}

TEST(Session, SessionsOfOnePlanAreIndependent) {
  auto plan = compile(TinyGraph({}).build(), {});
  ASSERT_TRUE(plan.ok());
  auto one = (*plan)->new_session(), two = (*plan)->new_session();
  ASSERT_TRUE(one.ok() && two.ok());
  plan->reset();  // sessions keep what they need
  std::vector<float> a(50), b(50), c(50);
  ASSERT_TRUE((*one)->decode(1, a).ok());
  ASSERT_TRUE((*two)->decode(2, b).ok());
  ASSERT_TRUE((*one)->decode(3, a).ok());
  ASSERT_TRUE((*two)->truncate(0).ok());
  ASSERT_TRUE((*two)->decode(1, b).ok());
  ASSERT_TRUE((*two)->decode(3, b).ok());
  EXPECT_EQ(a, b);
}

TEST(Compile, Options) {
  const Graph graph = TinyGraph({}).build();
  const auto code = [&](auto change) {
    PlanOptions options;
    change(options);
    return compile(graph, options).status().code();
  };
  EXPECT_EQ(code([](PlanOptions& o) { o.threads = 0; }), StatusCode::kUsage);
  EXPECT_EQ(code([](PlanOptions& o) { o.capacity = -1; }), StatusCode::kUsage);
  EXPECT_EQ(code([](PlanOptions& o) { o.chunk = 0; }), StatusCode::kUsage);
#if defined(__x86_64__)
  EXPECT_EQ(code([](PlanOptions& o) { o.isa = Isa::kNeon; }), StatusCode::kUsage);
#endif
  PlanOptions options;
  options.isa = Isa::kPortable;
  auto plan = compile(graph, options);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ((*plan)->isa(), Isa::kPortable);
  EXPECT_NE((*plan)->describe().find("decode_portable"), std::string::npos);
  EXPECT_GT((*plan)->weight_bytes(), 0u);
  EXPECT_EQ((*(*plan)->new_session())->info().capacity, 64);  // max_position_embeddings
}

// Work memory is shared between values: far less than the sum of all, and independent of depth.
TEST(Compile, WorkMemoryDoesNotGrowWithDepth) {
  const auto work_bytes = [](int64_t layers) {
    TinyConfig config;
    config.layers = layers;
    PlanOptions options;
    options.capacity = 1;  // caches as good as nothing
    options.chunk = 1;
    auto plan = compile(TinyGraph(config).build(), options);
    return (*plan)->session_bytes() -
           static_cast<uint64_t>(layers) * 2 * 64;  // K and V, one line each
  };
  EXPECT_EQ(work_bytes(2), work_bytes(9));
}

TEST(Compile, RefusesACacheBeyondAnyMachine) {
  TinyConfig config;
  config.heads = config.kv_heads = 1 << 10;
  config.layers = 3;
  PlanOptions options;
  options.capacity = int64_t{1} << 31;  // 2^46 bytes per cache
  const Status status = compile(TinyGraph(config).build(), options).status();
  EXPECT_EQ(status.code(), StatusCode::kDoesNotFit) << status.to_string();
}

TEST(Parts, AChainGivesTheLogitsOfTheWholeGraph) {
  TinyConfig config;
  config.layers = 3;
  const Graph graph = TinyGraph(config).build();
  const std::vector<int32_t> ids = {1, 5, 2, 7, 3, 3, 0};
  PlanOptions options;
  options.chunk = 3;
  const auto whole = compile(graph, options);
  ASSERT_TRUE(whole.ok()) << whole.status().to_string();
  auto session = (*whole)->new_session();
  ASSERT_TRUE(session.ok());
  const auto vocab = static_cast<size_t>(graph.info.vocab_size),
             width = static_cast<size_t>(graph.type(graph.layer_outputs[0]).shape[2].size);
  std::vector<float> expected(ids.size() * vocab), logits(ids.size() * vocab);
  ASSERT_TRUE((*session)->prefill(ids, LogitsOf::kAll, expected).ok());

  std::vector<float> hidden(ids.size() * width), next(hidden.size());
  for (size_t part = 0; part <= graph.layer_outputs.size(); ++part) {
    const bool last = part == graph.layer_outputs.size();
    const auto cut = part_of(graph, part == 0 ? kNoValue : graph.layer_outputs[part - 1],
                             last ? graph.output : graph.layer_outputs[part]);
    ASSERT_TRUE(cut.ok()) << cut.status().to_string();
    EXPECT_EQ(cut->caches.size(), last ? 0u : 2u);
    const auto plan = compile(*cut, options);
    ASSERT_TRUE(plan.ok()) << plan.status().to_string();
    EXPECT_EQ((*plan)->new_session().status().code(), StatusCode::kUnsupported);
    auto runner = (*plan)->new_part();
    ASSERT_TRUE(runner.ok());
    // The second time from an empty context, in other pieces.
    for (const size_t piece : {ids.size(), size_t{2}}) {
      (*runner)->restart();
      for (size_t at = 0; at < ids.size(); at += piece) {
        const size_t count = std::min(piece, ids.size() - at);
        const std::span<const float> from = std::span(hidden).subspan(at * width, count * width);
        const std::span<float> to = last ? std::span(logits).subspan(at * vocab, count * vocab)
                                         : std::span(next).subspan(at * width, count * width);
        const Status status = part == 0 ? (*runner)->run(std::span(ids).subspan(at, count), to)
                                        : (*runner)->run(from, to);
        ASSERT_TRUE(status.ok()) << status.to_string();
      }
    }
    hidden = next;
  }
  EXPECT_EQ(logits, expected);
}

TEST(Compile, Interrupted) {
  CancelToken token;
  token.cancel();
  WorkContext work;
  work.cancel = &token;
  EXPECT_EQ(compile(TinyGraph({}).build(), {}, work).status().code(), StatusCode::kInterrupted);
}

}  // namespace
}  // namespace pome
