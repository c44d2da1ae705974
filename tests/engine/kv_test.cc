// The KV cache of a session: kinds, memory that follows use, windows, files, prefixes.
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <ctime>
#include <thread>

#include "base/io.h"
#include "base/sha256.h"
#include "base/temp_folder.h"
#include "engine/kv_cache.h"
#include "engine/kv_store.h"
#include "engine/sessions.h"
#include "engine/tiny_graph.h"

namespace pome {
namespace {

constexpr KvKind kKinds[] = {KvKind::kF32, KvKind::kF16, KvKind::kQ8, KvKind::kQ4};

Graph tiny(int64_t window = 0, int64_t kv_heads = 2) {
  TinyConfig config;
  config.window = window;
  config.kv_heads = kv_heads;
  Graph graph = TinyGraph(config).build();
  graph.info.max_position_embeddings = 8192;
  return graph;
}

PlanOptions with(KvKind kind, bool exact = true) {
  PlanOptions options;
  options.kv = kind;
  options.exact = exact;
  options.capacity = 2048;
  return options;
}

// ---- rows that others keep ----------------------------------------------------------------------

TEST(KvStore, RoundsAsTheEnginesRowsDo) {
  std::vector<float> row(72);
  for (size_t i = 0; i < row.size(); ++i)
    row[i] = static_cast<float>(std::sin(static_cast<double>(i * i))) * (i < 16 ? 0.01f : 2.0f);
  for (const KvKind kind : {KvKind::kQ8, KvKind::kQ4}) {
    std::vector<std::byte> stored(
        static_cast<size_t>(kernels::kv_row_bytes(kind, static_cast<int64_t>(row.size()))));
    std::vector<float> wanted(row.size()), whole = row, small = row;
    kernels::kv_pack_row(kind, row.data(), 72, stored.data());
    kernels::kv_unpack_row(kind, stored.data(), 72, 72, wanted.data());
    kv_round_row(kind, 64, whole);
    EXPECT_EQ(whole, wanted);
    EXPECT_NE(whole, row);
    // A small group keeps what is small beside what is large.
    kv_round_row(kind, 16, small);
    const auto error = [&](const std::vector<float>& x) {
      float most = 0;
      for (size_t i = 0; i < 16; ++i) most = std::max(most, std::abs(x[i] - row[i]));
      return most;
    };
    EXPECT_LT(error(small) * 5, error(whole));
  }
  EXPECT_EQ(kv_stored_bytes(KvKind::kQ8, 64, 72), 8 + 72);
  EXPECT_EQ(kv_stored_bytes(KvKind::kQ4, 16, 72), 20 + 36);
  EXPECT_EQ(kv_stored_bytes(KvKind::kF16, 64, 72), 144);
  EXPECT_EQ(kv_levels(KvKind::kQ4).size(), 16u);
  EXPECT_TRUE(kv_levels(KvKind::kQ8).empty());
  EXPECT_FALSE(is_kv_group(8) || is_kv_group(128));
}

// ---- kinds --------------------------------------------------------------------------------------

TEST(KvKinds, CostWhatTheyRoundOnEveryIsa) {
  const Graph graph = tiny();
  const auto ids = some_ids(300);
  const auto wanted = all_logits(*session(graph, with(KvKind::kF32)), ids);
  const double bounds[] = {1e-5, 1e-3, 0.02, 0.3};
  for (const Isa isa : available_isas()) {
    for (const KvKind kind : kKinds) {
      PlanOptions options = with(kind);
      options.isa = isa;
      const double far = distance(all_logits(*session(graph, options), ids), wanted);
      EXPECT_LT(far, bounds[static_cast<size_t>(kind)])
          << to_string(isa) << " " << kernels::to_string(kind);
      EXPECT_TRUE(kind == KvKind::kF32 || far > 1e-6) << "nothing was rounded";
    }
  }
}

TEST(KvKinds, ExactPlansGiveTheSameBitsHoweverTokensAreCut) {
  const Graph graph = tiny(0, 1);  // one key head: single tokens are cut along the keys
  const auto ids = some_ids(300);
  for (const KvKind kind : kKinds) {
    const auto wanted = all_logits(*session(graph, with(kind)), ids);
    for (const int threads : {1, 2}) {
      for (const int64_t chunk : {1, 64, 300}) {
        PlanOptions options = with(kind);
        options.threads = threads;
        options.chunk = chunk;
        ASSERT_EQ(all_logits(*session(graph, options), ids), wanted)
            << kernels::to_string(kind) << ", " << threads << " threads, chunk " << chunk;
      }
    }
  }
}

// The bound of docs/engine.md.
TEST(KvKinds, FastPrefillIsNearTokenByToken) {
  const Graph graph = tiny();
  const auto ids = some_ids(300);
  for (const KvKind kind : kKinds) {
    PlanOptions one = with(kind, false);
    one.chunk = 1;
    const auto wanted = all_logits(*session(graph, one), ids);
    for (const int threads : {1, 2}) {
      PlanOptions options = with(kind, false);
      options.threads = threads;
      EXPECT_LT(distance(all_logits(*session(graph, options), ids), wanted), 0.02)
          << kernels::to_string(kind);
    }
  }
}

TEST(KvKinds, DefaultsFollowTheArithmetic) {
  for (const bool exact : {true, false}) {
    PlanOptions options;
    options.exact = exact;
    auto plan = compile(tiny(), options);
    ASSERT_TRUE(plan.ok());
    EXPECT_NE((*plan)->describe().find(exact ? "attention f32" : "attention f16"),
              std::string::npos);
  }
}

// ---- memory -------------------------------------------------------------------------------------

TEST(KvCache, MemoryFollowsUse) {
  const std::vector<CacheSlot> slots = {{4, 64, KvKind::kF32, 0, 0}};
  const int64_t capacity = 65536;
  auto cache = KvCache::reserve(slots, capacity, 4ull * 256 * capacity);
  ASSERT_TRUE(cache.ok()) << cache.status().to_string();
  const auto fill = [&](int64_t begin, int64_t end) {
    for (int64_t h = 0; h < 4; ++h)
      for (int64_t t = begin; t < end; ++t) *cache->row(0, h, t) = std::byte{1};
    cache->set_used(end);
  };
  const uint64_t slack = 8 * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  EXPECT_EQ(cache->resident_bytes(), 0u);
  fill(0, 1000);
  EXPECT_LE(cache->resident_bytes(), 4 * 1000 * 256 + slack);
  EXPECT_GE(cache->resident_bytes(), 4u * 1000 * 256);
  fill(1000, 5000);
  EXPECT_LE(cache->resident_bytes(), 4 * 5000 * 256 + slack);
  cache->set_used(300);
  EXPECT_LE(cache->resident_bytes(), 4 * 300 * 256 + slack);
  EXPECT_EQ(*cache->row(0, 3, 299), std::byte{1});
  cache->set_used(0);
  EXPECT_LE(cache->resident_bytes(), slack);
}

TEST(KvCache, WindowsSlide) {
  const std::vector<CacheSlot> slots = {{1, 64, KvKind::kF32, 512, 0}};
  auto cache = KvCache::reserve(slots, 1 << 16, 256ull << 16);
  ASSERT_TRUE(cache.ok());
  for (int64_t t = 0; t < 20000; ++t) {
    *cache->row(0, 0, t) = std::byte{1};
    if (t % 64 == 63) cache->set_used(t + 1);
  }
  EXPECT_LE(cache->resident_bytes(), kv_bytes_at(slots, 20000, 64) + 8192);
  EXPECT_LT(kv_bytes_at(slots, 20000, 64), 256u * 2000);
  const int64_t used = cache->used();
  EXPECT_TRUE(cache->can_cut(used));
  EXPECT_TRUE(cache->can_cut(used - kWindowSlack));
  EXPECT_FALSE(cache->can_cut(used - kWindowSlack - kSlideStep - 2));
  EXPECT_TRUE(cache->can_cut(0));
  EXPECT_EQ(*cache->row(0, 0, used - 512), std::byte{1});
  cache->set_used(0);
  EXPECT_EQ(cache->first_row(0), 0);
}

TEST(KvCache, WindowedLayersGiveTheSameWithLessMemory) {
  const Graph graph = tiny(16);
  PlanOptions options = with(KvKind::kF32);
  const auto ids = some_ids(1900);
  const auto runner = session(graph, options);
  const auto wanted = all_logits(*runner, ids);
  const auto width = static_cast<size_t>(graph.info.vocab_size);
  const std::vector<float> last(wanted.end() - static_cast<ptrdiff_t>(width), wanted.end());
  std::vector<float> row(width);
  // As far back as rows are kept, and not farther.
  EXPECT_TRUE(runner->can_truncate(1000));
  EXPECT_FALSE(runner->can_truncate(300));
  EXPECT_EQ(runner->truncate(300).code(), StatusCode::kUsage);
  EXPECT_EQ(runner->position(), 1900);
  ASSERT_TRUE(runner->truncate(1000).ok());
  ASSERT_TRUE(runner->prefill(std::span(ids).subspan(1000), LogitsOf::kLast, row).ok());
  EXPECT_EQ(row, last);
  // A prefix that is gone is computed again.
  const auto kept = reuse_prefix(*runner, std::span(ids).first(300));
  ASSERT_TRUE(kept.ok());
  EXPECT_EQ(*kept, 0);
  EXPECT_EQ(all_logits(*runner, ids), wanted);
}

TEST(KvCache, TooMuchIsRefusedBeforeWorkStarts) {
  TinyConfig config;
  config.kv_heads = config.heads = 512;
  Graph graph = TinyGraph(config).build();
  graph.info.max_position_embeddings = 1 << 24;
  PlanOptions options;
  options.capacity = 1 << 24;  // a terabyte
  auto plan = compile(graph, options);
  ASSERT_TRUE(plan.ok()) << plan.status().to_string();
  const auto made = (*plan)->new_session();
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.status().code(), StatusCode::kDoesNotFit);
  EXPECT_NE(made.status().to_string().find("--context"), std::string::npos);
}

// ---- prefixes, cancellation ---------------------------------------------------------------------

TEST(ReusePrefix, KeepsWhatIsTheSame) {
  const auto runner = session(tiny());
  auto ids = some_ids(40);
  all_logits(*runner, ids);
  const auto reuse = [&](std::span<const int32_t> wanted) {
    auto kept = reuse_prefix(*runner, wanted);
    EXPECT_TRUE(kept.ok());
    EXPECT_EQ(*kept, runner->position());
    return *kept;
  };
  // The logits of the last id are wanted, so it is never kept.
  EXPECT_EQ(reuse(ids), 39);
  auto other = ids;
  other[20] = (other[20] + 1) % 50;
  EXPECT_EQ(reuse(other), 20);
  EXPECT_TRUE(std::equal(runner->history().begin(), runner->history().end(), ids.begin()));
  EXPECT_EQ(reuse(std::span(ids).first(5)), 4);
  EXPECT_EQ(reuse({}), 0);
}

TEST(Cancel, ComesIntoALongStep) {
  TinyConfig config;
  config.heads = config.kv_heads = 16;
  config.dim = 64;
  config.rotary = 64;
  config.hidden = 512;
  config.width = 2048;
  config.layers = 1;
  Graph graph = TinyGraph(config).build();
  graph.info.max_position_embeddings = 1 << 15;
  PlanOptions options;
  options.isa = Isa::kPortable;  // one step of the chunk takes seconds
  options.capacity = options.chunk = 2048;
  const auto runner = session(graph, options);
  CancelToken token;
  runner->set_cancel(&token);
  // Processor time: other programs on the machine do not count.
  const auto used = [] { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; };
  double asked = 0;
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(150));
    asked = used();
    token.cancel();
  });
  const Status status = runner->prefill(some_ids(2048), LogitsOf::kNone, {});
  const double stopped = used();
  other.join();
  EXPECT_EQ(status.code(), StatusCode::kInterrupted);
  EXPECT_EQ(runner->position(), 0);
  EXPECT_LT(stopped - asked, 0.1);
}

// ---- files --------------------------------------------------------------------------------------

class ContextFile : public testing::Test {
 protected:
  ContextFile() : path_(folder_ / "context") {}
  std::string read() const { return slurp(path_); }
  void write(const std::string& bytes) const { spit(path_, bytes); }
  // With a digest that fits what was changed.
  void write_signed(std::string bytes) const {
    bytes.resize(bytes.size() - 32);
    const Digest digest = sha256(bytes);
    bytes.append(reinterpret_cast<const char*>(digest.data()), digest.size());
    write(bytes);
  }
  TempFolder folder_;
  std::string path_;
};

TEST_F(ContextFile, GoesOnWhereItStopped) {
  for (const int64_t window : {0, 16}) {
    const Graph graph = tiny(window);
    for (const KvKind kind : kKinds) {
      const int64_t count = window ? 1700 : 150;
      const auto ids = some_ids(count);
      const auto first = session(graph, with(kind));
      std::vector<float> wanted(50), row(50);
      ASSERT_TRUE(first->prefill(ids, LogitsOf::kNone, {}).ok());
      const Status saved = first->save_context(path_, "a note");
      ASSERT_TRUE(saved.ok()) << saved.to_string();
      ASSERT_TRUE(first->decode(7, wanted).ok());
      // Another capacity, and a context that is replaced.
      PlanOptions options = with(kind);
      options.capacity = 1800;
      const auto second = session(graph, options);
      ASSERT_TRUE(second->prefill(some_ids(9), LogitsOf::kNone, {}).ok());
      const auto note = second->load_context(path_);
      ASSERT_TRUE(note.ok()) << note.status().to_string();
      EXPECT_EQ(*note, "a note");
      EXPECT_EQ(second->position(), count);
      EXPECT_TRUE(std::equal(ids.begin(), ids.end(), second->history().begin()));
      ASSERT_TRUE(second->decode(7, row).ok());
      EXPECT_EQ(row, wanted) << kernels::to_string(kind);
      ASSERT_TRUE(first->save_context(path_, "").ok());  // over itself
    }
  }
}

TEST_F(ContextFile, OfAnotherSessionIsRefused) {
  const auto runner = session(tiny(), with(KvKind::kQ8));
  ASSERT_TRUE(runner->prefill(some_ids(30), LogitsOf::kNone, {}).ok());
  ASSERT_TRUE(runner->save_context(path_, "").ok());
  const auto refusal = [&](const Graph& graph, const PlanOptions& options) {
    return session(graph, options)->load_context(path_).status();
  };
  const Status kind = refusal(tiny(), with(KvKind::kF16));
  EXPECT_EQ(kind.refusal(), Refusal::kRange);
  EXPECT_NE(kind.to_string().find("--kv q8"), std::string::npos) << kind.to_string();
  EXPECT_EQ(refusal(tiny(9), with(KvKind::kQ8)).refusal(), Refusal::kRange);
  PlanOptions small = with(KvKind::kQ8);
  small.capacity = 20;
  EXPECT_EQ(refusal(tiny(), small).code(), StatusCode::kUsage);
  EXPECT_EQ(session(tiny())->load_context(folder_ / "none").status().code(), StatusCode::kMissing);
}

TEST_F(ContextFile, DamageIsFoundAndChangesNothing) {
  const Graph graph = tiny();
  const auto runner = session(graph, with(KvKind::kF16));
  const auto ids = some_ids(30);
  ASSERT_TRUE(runner->prefill(ids, LogitsOf::kNone, {}).ok());
  ASSERT_TRUE(runner->save_context(path_, "note").ok());
  const std::string whole = read();
  std::vector<float> wanted(50), row(50);
  ASSERT_TRUE(runner->decode(3, wanted).ok());
  ASSERT_TRUE(runner->truncate(30).ok());
  const auto refused = [&](Refusal refusal, const std::string& what) {
    const auto status = runner->load_context(path_).status();
    EXPECT_EQ(status.refusal(), refusal) << what << ": " << status.to_string();
    EXPECT_EQ(status.file(), path_) << what;
    EXPECT_EQ(runner->position(), 30) << what;
  };
  for (const size_t size : {size_t{0}, size_t{7}, size_t{100}, whole.size() - 1}) {
    write(whole.substr(0, size));
    refused(Refusal::kTrunc, "cut to " + std::to_string(size));
  }
  write(whole + "x");
  refused(Refusal::kBounds, "longer");
  struct Change {
    size_t at;
    std::string bytes;
    Refusal refusal;
  };
  const std::string huge("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F", 8);
  const std::string one("\x01\0\0\0\0\0\0\0", 8);
  const Change changes[] = {
      {0, "x", Refusal::kMagic},    {8, "\x02", Refusal::kVersion}, {12, "\x09", Refusal::kRange},
      {20, "?", Refusal::kRange},   {80, huge, Refusal::kLimit},    {80, one, Refusal::kBounds},
      {88, huge, Refusal::kLimit},  {96, "\x03", Refusal::kRange},  {104, one, Refusal::kRange},
      {136, huge, Refusal::kRange},
  };
  for (const Change& change : changes) {
    std::string bytes = whole;
    bytes.replace(change.at, change.bytes.size(), change.bytes);
    write_signed(bytes);
    refused(change.refusal, "at " + std::to_string(change.at));
  }
  for (const size_t at : {size_t{140}, size_t{300}, whole.size() - 40, whole.size() - 1}) {
    std::string bytes = whole;
    bytes[at] ^= 4;
    write(bytes);
    refused(Refusal::kIntegrity, "flipped at " + std::to_string(at));
  }
  ASSERT_TRUE(runner->decode(3, row).ok());
  EXPECT_EQ(row, wanted);
}

TEST_F(ContextFile, AFailedWriteLeavesTheOldFile) {
  const auto runner = session(tiny());
  ASSERT_TRUE(runner->prefill(some_ids(8), LogitsOf::kNone, {}).ok());
  ASSERT_TRUE(runner->save_context(path_, "old").ok());
  const std::string old = read();
  for (uint64_t k = 1; k < 4; ++k) {
    io::FaultPlan plan;
    plan.fail_at = k;
    plan.error = 28;  // ENOSPC
    plan.op = "write";
    io::set_fault_plan(plan);
    const Status status = runner->save_context(path_, "new");
    io::clear_fault_plan();
    if (status.ok()) break;
    EXPECT_EQ(read(), old);
  }
  ASSERT_TRUE(runner->save_context(path_, "new").ok());
  EXPECT_NE(read(), old);
}

}  // namespace
}  // namespace pome
