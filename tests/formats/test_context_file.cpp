// Context files: every section survives, and every contradiction is an error of one line.
#include "formats/context_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>

#include "base/aligned.h"
#include "base/error.h"
#include "seed.h"

namespace fathom {
namespace {

/// The parts of a small context: 100 tokens, two layers with attention and one with a recurrence.
struct SampleContext {
  SampleContext() {
    info.model_path = "/models/a.gguf";
    info.model_name = "a";
    info.architecture = "llama";
    info.fingerprint = 0x123456789abcdef0u;
    info.position = "file", info.cache = "q8", info.attend = "dense", info.evict = "none";
    info.chunk = 64;
    info.tokens = 100;
    info.rotary = {7, 7};
    info.adapters = {{"lora.gguf", 5, 0.5f}};
    info.pages = {{PageFormat::kQ8, 32, 32, -1, 6}};
    info.layers = {{0, 2, 0}, {-1, 0, 8}, {0, 1, 0}};
    info.notes = {{"chat", false}};
    for (uint32_t table = 0; table < 3; ++table)
      entries.push_back(
          {{0, 0, ~uint64_t{0}, 2 * table, 64}, {64, 64, (uint64_t{1} << 36) - 1, 2 * table + 1, 36}});
    tokens.assign(100, 3);
    for (int64_t i = 0; i < 100; ++i) offsets.push_back(i / 2);
    text = std::string(50, 'x');
    logits.assign(16, 0.5f);
    states.assign(16, 1.5f);
    state_tokens = {40, 100};
  }

  std::vector<std::byte> bytes() const {
    std::string path = testing::TempDir() + "fathom_sample_XXXXXX";
    ::close(::mkstemp(path.data()));
    ContextWriter writer(path);
    writer.add("tokens", std::as_bytes(std::span(tokens)));
    writer.add("text", std::as_bytes(std::span(text)));
    writer.add("offsets", std::as_bytes(std::span(offsets)));
    writer.add("logits", std::as_bytes(std::span(logits)));
    writer.add("selector", std::as_bytes(std::span(std::string_view("state"))));
    std::vector<ContextTable> tables;
    for (const auto& list : entries) tables.push_back({.entries = list});
    writer.add_tables(tables);
    std::vector<const float*> floats;
    for (size_t i = 0; i < state_tokens.size(); ++i) floats.push_back(states.data() + i * 8);
    writer.add_states(1, state_tokens, floats, 8);
    writer.begin_pages(0);
    const std::vector<std::byte> page(info.pages[0].page_bytes(), std::byte{9});
    for (int64_t i = 0; i < written_pages; ++i) writer.add_page(page);
    writer.end_pages();
    writer.finish(info, false);
    std::ifstream in(path, std::ios::binary);
    const std::string all(std::istreambuf_iterator<char>(in), {});
    std::filesystem::remove(path);
    const auto read = std::as_bytes(std::span(all));
    return {read.begin(), read.end()};
  }

  ContextInfo info;
  std::vector<std::vector<ContextEntry>> entries;
  std::vector<int32_t> tokens;
  std::vector<int64_t> offsets, state_tokens;
  std::string text;
  std::vector<float> logits, states;
  int64_t written_pages = 6;
};

/// Reads from a copy in aligned memory, as a mapped file is.
std::string error_of_context(const std::vector<std::byte>& bytes, bool verify = true) {
  AlignedBuffer<std::byte> aligned(bytes.size());
  std::ranges::copy(bytes, aligned.data());
  try {
    const ContextFile file({aligned.data(), bytes.size()}, "a.ctx", verify);
    if (verify) file.verify();
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_TRUE(what.starts_with("a.ctx: ") && what.find('\n') == std::string::npos) << what;
    return what;
  }
  return "";
}

TEST(ContextFile, BytesAfterTheEndAreDamage) {
  std::vector<std::byte> bytes = SampleContext().bytes();
  bytes.resize(bytes.size() + 5);
  EXPECT_EQ(error_of_context(bytes), "a.ctx: the context file is damaged: 5 bytes after the end");
  // a header that covers them
  const uint64_t size = bytes.size();
  std::memcpy(bytes.data() + 16, &size, sizeof size);
  const uint64_t sum = checksum(std::span(bytes).first(56));
  std::memcpy(bytes.data() + 56, &sum, sizeof sum);
  EXPECT_EQ(error_of_context(bytes), "a.ctx: the context file is damaged: 5 bytes after the end");
}

TEST(ContextFile, KeepsEverySection) {
  const SampleContext sample;
  const std::vector<std::byte> bytes = sample.bytes();
  AlignedBuffer<std::byte> aligned(bytes.size());
  std::memcpy(aligned.data(), bytes.data(), bytes.size());
  const ContextFile file({aligned.data(), bytes.size()}, "a.ctx");
  file.verify();
  EXPECT_EQ(file.info().to_json(), sample.info.to_json());
  EXPECT_TRUE(std::ranges::equal(file.tokens(), sample.tokens));
  EXPECT_TRUE(std::ranges::equal(file.offsets(), sample.offsets));
  EXPECT_TRUE(std::ranges::equal(file.logits(), sample.logits));
  EXPECT_EQ(file.text(), sample.text);
  EXPECT_EQ(file.selector_state().size(), 5U);
  EXPECT_TRUE(file.evictor_state().empty());
  EXPECT_EQ(file.table(0, 1).entries[1].page, 3U);
  EXPECT_EQ(file.table(2, 0).entries[0].page, 4U);
  EXPECT_TRUE(std::ranges::equal(file.states(1).tokens, sample.state_tokens));
  EXPECT_TRUE(std::ranges::equal(file.states(1).floats, sample.states));
  EXPECT_EQ(file.pages(0).size(), 6 * sample.info.pages[0].page_bytes());
}

TEST(ContextFile, ReportsContradictions) {
  using Change = std::function<void(SampleContext&)>;
  const std::vector<std::pair<const char*, Change>> changes{
      {"tokens", [](SampleContext& s) { s.tokens.pop_back(); }},
      {"offsets", [](SampleContext& s) { s.offsets[50] = 51; }},
      {"offsets", [](SampleContext& s) { s.offsets[50] = 0; }},
      {"offsets", [](SampleContext& s) { s.offsets.pop_back(); }},
      {"gap", [](SampleContext& s) { s.entries[1][1].first = 65; }},
      {"gap", [](SampleContext& s) { s.entries[1][1].filled = 65; }},
      {"tokens", [](SampleContext& s) { s.entries[1][1].filled = 35, s.entries[1][1].mask >>= 1; }},
      {"not written", [](SampleContext& s) { s.entries[2][1].mask = ~uint64_t{0}; }},
      {"position", [](SampleContext& s) { s.entries[0][0].position = -1; }},
      {"position", [](SampleContext& s) { s.entries[0][0].position = int64_t{1} << 41; }},
      {"position", [](SampleContext& s) { s.entries[0][0].position = (int64_t{1} << 32) - 1; }},
      {"refers to page", [](SampleContext& s) { s.entries[0][0].page = 6; }},
      {"twice", [](SampleContext& s) { s.entries[0][0].page = 3; }},
      {"lacks the page", [](SampleContext& s) { s.entries[0][0].page = ContextEntry::kNoPage; }},
      {"fit together", [](SampleContext& s) { s.entries[1][1].position = 65; }},
      {"first token", [](SampleContext& s) { s.entries[2].erase(s.entries[2].begin()); }},
      {"pages", [](SampleContext& s) { s.written_pages = 7; }},
      {"pages", [](SampleContext& s) { s.written_pages = 5; }},
      {"no table", [](SampleContext& s) { s.written_pages = s.info.pages[0].count = 7; }},
      {"states",
       [](SampleContext& s) {
         s.state_tokens = {40, 99};
       }},
      {"states",
       [](SampleContext& s) {
         s.state_tokens = {40, 40};
       }},
      {"states", [](SampleContext& s) { s.state_tokens.clear(); }},
      {"states", [](SampleContext& s) { s.info.layers[1].state_floats = 9; }},
      {"end early", [](SampleContext& s) { s.info.layers[2].heads = 2; }},
      {"followed by",
       [](SampleContext& s) { s.info.layers.pop_back(), s.info.pages[0].count = s.written_pages = 4; }},
      {"heads", [](SampleContext& s) { s.info.layers[1].heads = 1; }},
      {"chunk", [](SampleContext& s) { s.info.chunk = 0; }},
      {"key_dim", [](SampleContext& s) { s.info.pages[0].key_dim = 31; }},
      {"pages", [](SampleContext& s) { s.info.layers[0].pages = 1; }},
  };
  EXPECT_EQ(error_of_context(SampleContext().bytes()), "");
  for (const auto& [part, change] : changes) {
    SampleContext sample;
    change(sample);
    const std::string error = error_of_context(sample.bytes());
    EXPECT_NE(error.find(part), std::string::npos) << part << ": " << error;
  }
}

TEST(ContextFile, FindsEveryAlteredBit) {
  const std::vector<std::byte> bytes = SampleContext().bytes();
  std::mt19937 random(test::seed(0));
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::byte> altered = bytes;
    altered[random() % bytes.size()] ^= std::byte{1} << random() % 8;
    ASSERT_NE(error_of_context(altered), "") << "round " << round;
  }
  for (size_t size = 0; size < bytes.size(); size += 1 + random() % 100)
    ASSERT_NE(error_of_context({bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size)}), "");
}

TEST(ContextFile, NeverTrustsNumbersWithoutChecksums) {
  const std::vector<std::byte> bytes = SampleContext().bytes();
  std::mt19937 random(test::seed(1));
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::byte> altered = bytes;
    for (uint32_t i = 0; i <= random() % 4; ++i) {
      const size_t at = random() % bytes.size();
      altered[at] = random() % 2 ? static_cast<std::byte>(random()) : std::byte{0xff};
    }
    error_of_context(altered, false);  // must not crash
  }
}

}  // namespace
}  // namespace fathom
