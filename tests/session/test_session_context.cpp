// Context files: a session that was saved and opened again continues with the same bits.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <random>

#include "base/error.h"
#include "models/tiny_model.h"
#include "seed.h"
#include "seedling.h"
#include "shared_data.h"
#include "temporary_folder.h"
#include "tiny_goldens.h"

namespace fathom {
namespace {

std::vector<std::byte> read_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(in), {});
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

void write_bytes(const std::string& path, std::span<const std::byte> bytes) {
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
}

Session open_context(std::shared_ptr<const Model> model, const std::string& path) {
  const auto file = std::make_shared<const ContextFile>(path);
  return Session::open(std::make_shared<Engine>(std::move(model), test::runtime()), file,
                       Session::options_of(*file));
}

std::string open_error(const std::shared_ptr<const Model>& model, const std::string& path) {
  try {
    open_context(model, path);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

/// Continues both sessions greedily and expects the same logits.
void expect_same_continuation(Session& a, Session& b, int steps) {
  ASSERT_EQ(a.length(), b.length());
  ASSERT_FALSE(a.logits().empty());
  for (int step = 0; step < steps; ++step) {
    ASSERT_TRUE(std::ranges::equal(a.logits(), b.logits())) << "after " << step << " tokens";
    const auto next = static_cast<int32_t>(std::ranges::max_element(a.logits()) - a.logits().begin());
    a.append({&next, 1});
    b.append({&next, 1});
  }
}

/// Reads tokens in chunks and single steps, saves, opens, and compares the continuations, also after a rewind.
void expect_round_trip(const std::shared_ptr<const Model>& model, SessionOptions options, int64_t length,
                       const std::string& path) {
  options.chunk = 96;
  Session session(model, test::runtime(), options);
  const int64_t vocabulary = std::min<int64_t>(model->config().vocabulary, 200);
  std::mt19937 random(test::seed(0));
  std::vector<int32_t> ids(length);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % vocabulary);
  session.append(std::span(ids).first(length - 3));
  test::steps(session, {ids.end() - 3, ids.end()});
  session.save(path);
  Session opened = open_context(model, path);
  EXPECT_EQ(opened.opened(), length);
  ASSERT_NO_FATAL_FAILURE(expect_same_continuation(session, opened, 20));
  session.rewind(40);  // into the saved tokens
  opened.rewind(40);
  ids.resize(70);
  session.append(ids);
  opened.append(ids);
  ASSERT_NO_FATAL_FAILURE(expect_same_continuation(session, opened, 5));
}

TEST(SessionContext, EveryArchitectureContinuesWithTheSameBits) {
  const test::TemporaryFolder folder;
  for (const char* name : test::tiny_goldens()) {
    const std::string path = test::golden(name) + ".gguf";
    FATHOM_NEEDS(path);
    const auto model = Model::open(path);
    for (const std::string cache : {"f32", "bf16", "q8", "q4"}) {
      SCOPED_TRACE(testing::Message() << name << ", " << cache);
      ASSERT_NO_FATAL_FAILURE(expect_round_trip(model, {.cache = cache}, 150, folder.file("a.ctx")));
    }
  }
}

TEST(SessionContext, EveryMethodContinuesWithTheSameBits) {
  const test::TemporaryFolder folder;
  for (const std::string cache : {"bf16", "q4"}) {
    for (const char* attend : {"quest:budget=128", "recycled:budget=128", "infllm:window=128,block=64,sink=16",
                               "shadowkv:budget=64", "tokenselect:budget=64", "squeezed"}) {
      SCOPED_TRACE(testing::Message() << attend << ", " << cache);
      ASSERT_NO_FATAL_FAILURE(
          expect_round_trip(test::seedling(), {.attend = attend, .cache = cache}, 600, folder.file("a.ctx")));
    }
    for (const char* evict : {"snapkv:budget=128", "h2o:budget=128", "streaming:budget=128"}) {
      SCOPED_TRACE(testing::Message() << evict << ", " << cache);
      ASSERT_NO_FATAL_FAILURE(
          expect_round_trip(test::seedling(), {.cache = cache, .evict = evict}, 600, folder.file("a.ctx")));
    }
  }
}

/// Opens a session, or returns nothing if the method does not work with the model.
std::optional<Session> session_if_suited(const std::shared_ptr<const Model>& model, const SessionOptions& options) {
  try {
    return Session(model, test::runtime(), options);
  } catch (const Error&) {
    return std::nullopt;
  }
}

TEST(SessionContext, MethodsContinueWithTheSameBitsOnEveryArchitecture) {
  const test::TemporaryFolder folder;
  const std::string path = folder.file("a.ctx");
  for (const char* attend :
       {"dense", "quest:budget=64,dense_layers=0", "infllm:window=64,block=16,sink=16,topk=2",
        "shadowkv:budget=32,rank=8", "tokenselect:budget=32,window=32,sink=8", "recycled:budget=64"}) {
    int architectures = 0;
    for (const char* name : test::tiny_goldens()) {
      FATHOM_NEEDS(test::golden(name) + ".gguf");
      const auto model = Model::open(test::golden(name) + ".gguf");
      for (const std::string cache : {"f32", "bf16", "q8", "q4"}) {
        SCOPED_TRACE(testing::Message() << attend << ", " << name << ", " << cache);
        std::optional<Session> session = session_if_suited(model, {.chunk = 64, .attend = attend, .cache = cache});
        if (!session) break;
        architectures += cache == "f32";
        session->append(test::tokens(200));
        session->save(path);
        Session opened = open_context(model, path);
        ASSERT_NO_FATAL_FAILURE(expect_same_continuation(*session, opened, 25));
      }
    }
    EXPECT_GE(architectures, 6) << attend;
  }
}

TEST(SessionContext, TheFileIsNeverChanged) {
  const test::TemporaryFolder folder;
  const std::string path = folder.file("a.ctx");
  Session session(test::seedling(), test::runtime());
  session.append(test::tokens(100));
  session.save(path);
  const std::vector<std::byte> before = read_bytes(path);
  for (int question = 0; question < 5; ++question) {
    Session opened = open_context(test::seedling(), path);
    Session forked = opened.fork();
    forked.append(test::tokens(30, question));
    opened.append(test::tokens(70, question));
    opened.rewind(80);
    opened.append(test::tokens(10));
  }
  EXPECT_EQ(read_bytes(path), before);
  // A session that was opened can replace its own file: the old contents stay mapped.
  Session opened = open_context(test::seedling(), path);
  opened.append(test::tokens(30));
  opened.save(path);
  Session again = open_context(test::seedling(), path);
  ASSERT_NO_FATAL_FAILURE(expect_same_continuation(opened, again, 5));
}

TEST(SessionContext, ErrorsSayWhatDiffers) {
  const test::TemporaryFolder folder;
  const std::string path = folder.file("a.ctx");
  {
    Session session(test::seedling(), test::runtime(), {.cache = "q8"});
    EXPECT_THROW(session.save(path), Error);  // no tokens
    session.append(test::tokens(100));
    session.save(path);
  }
  EXPECT_NE(open_error(test::floats(), path).find("read with another model"), std::string::npos);
  const auto file = std::make_shared<const ContextFile>(path);
  const auto error_with = [&](SessionOptions options) -> std::string {
    try {
      Session::open(std::make_shared<Engine>(test::seedling(), test::runtime()), file, std::move(options));
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(error_with({.cache = "q8"}), "");
  EXPECT_NE(error_with({}).find("read with --cache q8, found --cache bf16"), std::string::npos) << error_with({});
  EXPECT_NE(error_with({.position = "linear:factor=2", .cache = "q8"}).find("other rotary positions"),
            std::string::npos);
  EXPECT_NE(error_with({.cache = "q8", .layers = 1}).find("layers of the model"), std::string::npos);

  const std::vector<std::byte> bytes = read_bytes(path);
  const std::string other = folder.file("b.ctx");
  write_bytes(other, {});
  EXPECT_NE(open_error(test::seedling(), other).find("not a context file"), std::string::npos);
  for (const size_t size : {size_t{7}, size_t{63}, size_t{64}, bytes.size() / 2, bytes.size() - 1}) {
    write_bytes(other, std::span(bytes).first(size));
    EXPECT_NE(open_error(test::seedling(), other), "") << size;
  }
  std::vector<std::byte> longer = bytes;
  longer.emplace_back();
  write_bytes(other, longer);
  EXPECT_NE(open_error(test::seedling(), other).find("1 bytes after the end"), std::string::npos);
  std::vector<std::byte> newer = bytes;
  newer[8] = std::byte{2};
  write_bytes(other, newer);
  EXPECT_NE(open_error(test::seedling(), other).find("of version 2"), std::string::npos);
}

TEST(SessionContext, AlteredBytesAreDetected) {
  const test::TemporaryFolder folder;
  const std::string path = folder.file("a.ctx"), other = folder.file("b.ctx");
  Session session(test::seedling(), test::runtime(), {.cache = "q4"});
  session.append(test::tokens(70));
  session.save(path);
  const std::vector<std::byte> bytes = read_bytes(path);
  const ContextFile intact(bytes, "intact");
  intact.verify();
  std::mt19937 random(test::seed(1));
  int pages = 0;
  for (int round = 0; round < 300; ++round) {
    std::vector<std::byte> altered = bytes;
    const size_t at = random() % bytes.size();
    altered[at] ^= std::byte{1} << random() % 8;
    const uint64_t begin = intact.offset_of("pages.0");
    const bool in_page = at >= begin && at < begin + intact.pages(0).size();
    pages += in_page;
    write_bytes(other, altered);
    EXPECT_THROW(ContextFile(other).verify(), Error) << "byte " << at;
    try {
      Session opened = open_context(test::seedling(), other);
      EXPECT_TRUE(std::ranges::equal(opened.logits(), session.logits()));
      opened.append(test::tokens(1));  // reads all pages
      EXPECT_FALSE(in_page);
    } catch (const Error& error) {
      EXPECT_TRUE(std::string(error.what()).starts_with(other)) << error.what();
    }
  }
  EXPECT_GT(pages, 0);
}

}  // namespace
}  // namespace fathom
