// Attention in the space of a latent: found by its form, the same logits, a small cache that can do
// what every cache can.
#include "engine/latent.h"

#include <gtest/gtest.h>

#include "base/temp_folder.h"
#include "engine/plan_impl.h"
#include "engine/sessions.h"
#include "engine/tiny_graph.h"

namespace pome {
namespace {

constexpr KvKind kKinds[] = {KvKind::kF32, KvKind::kF16, KvKind::kQ8, KvKind::kQ4};

TinyConfig config(bool apart = false) {
  TinyConfig out;
  out.heads = 6;
  out.dim = 16;
  out.rotary = 8;
  out.latent = 48;
  out.latent_apart = apart;
  return out;
}
Graph tiny(const TinyConfig& from) {
  Graph graph = TinyGraph(from).build();
  graph.info.max_position_embeddings = 4096;
  return graph;
}
PlanOptions fast(KvKind kind = KvKind::kF16) {
  PlanOptions options;
  options.exact = false;
  options.kv = kind;
  options.capacity = 1024;
  return options;
}
bool takes_latents(const Graph& graph) {
  const auto made = attend_to_latents(graph);
  EXPECT_TRUE(made.ok()) << made.status().to_string();
  return made.ok() && made->caches.size() < graph.caches.size();
}

TEST(Latent, TheGraphMeansTheSame) {
  const auto ids = some_ids(200);
  for (const bool apart : {false, true}) {
    for (const Encoding& encoding :
         {Encoding::plain(EncodingKind::kF32), Encoding::plain(EncodingKind::kBF16),
          Encoding::plain(EncodingKind::kF16)}) {
      TinyConfig from = config(apart);
      from.encoding = encoding;
      from.sinks = apart;
      from.softcap = apart ? 20 : 0;
      const Graph graph = tiny(from);
      const auto made = attend_to_latents(graph);
      ASSERT_TRUE(made.ok()) << made.status().to_string();
      const Status valid = validate(*made);
      ASSERT_TRUE(valid.ok()) << valid.to_string();
      ASSERT_EQ(made->caches.size(), 2u);
      EXPECT_EQ(made->caches[0].kind, CachePair::Kind::kLatent);
      EXPECT_EQ(cache_elements_per_token(*made), 2 * (48 + 8));
      EXPECT_EQ(cache_elements_per_token(graph), 2 * 6 * (16 + 8 + 32));
      for (const Isa isa : available_isas()) {
        PlanOptions options;
        options.isa = isa;
        const auto wanted = all_logits(*session(graph, options), ids);
        EXPECT_LT(distance(all_logits(*session(*made, options), ids), wanted), 1e-5)
            << to_string(isa) << (apart ? " apart" : "");
      }
    }
  }
}

TEST(Latent, PlansThatAreNotExactCacheIt) {
  const Graph graph = tiny(config());
  for (const KvKind kind : kKinds) {
    PlanOptions options = fast(kind);
    const auto small = compile(graph, options);
    options.latent = false;
    const auto large = compile(graph, options);
    ASSERT_TRUE(small.ok() && large.ok());
    const auto cached = [](const Plan& plan) {
      const PlanData& data = static_cast<const PlanImpl&>(plan).data();
      return kv_bytes_at(data.caches, data.capacity, data.chunk);
    };
    EXPECT_EQ(cached(**small),
              static_cast<uint64_t>(2 * 1024 * kernels::kv_row_bytes(kind, 48 + 8)));
    EXPECT_LT(5 * cached(**small), cached(**large)) << kernels::to_string(kind);
    EXPECT_LT((*small)->session_bytes() + 4 * cached(**small), (*large)->session_bytes());
    EXPECT_EQ((*small)->work(1, 1000).cache_bytes * 1024, 1001 * cached(**small));
    EXPECT_NE((*small)->describe().find("of latents"), std::string::npos);
  }
  PlanOptions exact;
  const auto plan = compile(graph, exact);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ((*plan)->describe().find("of latents"), std::string::npos);
}

TEST(Latent, LogitsAreThoseOfTheExpandedFormOnEveryIsa) {
  const auto ids = some_ids(300);
  const double bounds[] = {0.02, 0.02, 0.03, 0.4};
  for (const bool apart : {false, true}) {
    for (const EncodingKind encoding : {EncodingKind::kBF16, EncodingKind::kQ8_0}) {
      TinyConfig from = config(apart);
      from.encoding = Encoding::plain(encoding);
      if (encoding == EncodingKind::kQ8_0) {  // rows of whole blocks
        from.dim = from.hidden = 32;
        from.latent = 64;
      }
      const Graph graph = tiny(from);
      const auto wanted = all_logits(*session(graph), ids);
      for (const Isa isa : available_isas()) {
        for (const KvKind kind : kKinds) {
          PlanOptions options = fast(kind);
          options.isa = isa;
          const auto got = all_logits(*session(graph, options), ids);
          EXPECT_LT(distance(got, wanted), bounds[static_cast<size_t>(kind)])
              << to_string(isa) << " " << kernels::to_string(kind);
          options.threads = 2;
          EXPECT_EQ(all_logits(*session(graph, options), ids), got) << to_string(isa);
        }
      }
    }
  }
}

TEST(Latent, PrefillIsNearTokenByToken) {
  const Graph graph = tiny(config());
  const auto ids = some_ids(300);
  for (const KvKind kind : kKinds) {
    PlanOptions one = fast(kind);
    one.chunk = 1;
    const auto wanted = all_logits(*session(graph, one), ids);
    one.threads = 2;  // a token is cut along its keys
    EXPECT_EQ(all_logits(*session(graph, one), ids), wanted);
    // Absorbed queries and rows are rounded to bfloat16 where many share a block.
    EXPECT_LT(distance(all_logits(*session(graph, fast(kind)), ids), wanted), 0.04)
        << kernels::to_string(kind);
  }
}

// Rows of a window are given back; what is left gives the same.
TEST(Latent, WindowsSlide) {
  TinyConfig from = config();
  from.window = 16;
  const auto plan = compile(tiny(from), fast());
  ASSERT_TRUE(plan.ok());
  const CacheSlot& slot = static_cast<const PlanImpl&>(**plan).data().caches[0];
  EXPECT_EQ(slot.window, 16);
  EXPECT_EQ(slot.heads, 1);
  EXPECT_EQ(slot.dim, 48 + 8);
}

TEST(Latent, TheCacheCanDoWhatEveryCacheCan) {
  const Graph graph = tiny(config());
  const TempFolder folder;
  const auto ids = some_ids(150);
  for (const KvKind kind : kKinds) {
    const auto plan = compile(graph, fast(kind));
    ASSERT_TRUE(plan.ok());
    const auto first = session_of(**plan), second = session_of(**plan);
    std::vector<float> wanted(50), row(50);
    ASSERT_TRUE(first->prefill(ids, LogitsOf::kNone, {}).ok());
    ASSERT_TRUE(second->prefill(some_ids(9), LogitsOf::kNone, {}).ok());  // of its own
    const std::string path = folder / ("context-" + std::string(kernels::to_string(kind)));
    const Status saved = first->save_context(path, "note");
    ASSERT_TRUE(saved.ok()) << saved.to_string();
    ASSERT_TRUE(first->decode(7, wanted).ok());
    const auto note = second->load_context(path);
    ASSERT_TRUE(note.ok()) << note.status().to_string();
    EXPECT_EQ(second->position(), 150);
    ASSERT_TRUE(second->decode(7, row).ok());
    EXPECT_EQ(row, wanted);
    // Cut and go on; begin like another prompt.
    ASSERT_TRUE(second->truncate(150).ok());
    ASSERT_TRUE(second->decode(7, row).ok());
    EXPECT_EQ(row, wanted);
    auto other = ids;
    other[100] = (other[100] + 1) % 50;
    const auto kept = reuse_prefix(*second, other);
    ASSERT_TRUE(kept.ok());
    EXPECT_EQ(*kept, 100);
    // A cancelled call leaves the context as it was.
    CancelToken token;
    token.cancel();
    first->set_cancel(&token);
    EXPECT_EQ(first->prefill(ids, LogitsOf::kNone, {}).code(), StatusCode::kInterrupted);
    EXPECT_EQ(first->position(), 151);
    first->set_cancel(nullptr);
    ASSERT_TRUE(first->truncate(150).ok());
    ASSERT_TRUE(first->decode(7, row).ok());
    EXPECT_EQ(row, wanted);
    // A plan that caches other rows does not take the file.
    PlanOptions expanded = fast(kind);
    expanded.latent = false;
    const auto refused = session(graph, expanded)->load_context(path);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.status().refusal(), Refusal::kRange);
    EXPECT_NE(refused.status().to_string().find("--exact"), std::string::npos);
  }
}

TEST(Latent, WhatIsNotThatStaysAsItIs) {
  EXPECT_TRUE(takes_latents(tiny(config())));
  EXPECT_TRUE(takes_latents(tiny(config(true))));
  EXPECT_FALSE(takes_latents(tiny(TinyConfig())));
  TinyConfig other = config();
  other.latent_zero = 1;  // the shared key is not copied but changed
  EXPECT_FALSE(takes_latents(tiny(other)));
  TinyConfig wide = config();
  wide.heads = 1;
  wide.latent = 64;  // one head's key and value are fewer values
  EXPECT_FALSE(takes_latents(tiny(wide)));
}

}  // namespace
}  // namespace pome
