#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <sstream>

#include "formats/gguf.h"
#include "shared_data.h"
#include "vocabularies.h"

namespace fathom {
namespace {

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<std::string> split(const std::string& text, const std::string& separator) {
  std::vector<std::string> parts;
  for (size_t at = 0, end; at <= text.size(); at = end + separator.size()) {
    end = std::min(text.find(separator, at), text.size());
    parts.push_back(text.substr(at, end - at));
  }
  return parts;
}

std::vector<int32_t> numbers(const std::string& line) {
  std::istringstream words(line);
  return {std::istream_iterator<int32_t>(words), {}};
}

class Vectors : public testing::TestWithParam<const char*> {};

TEST_P(Vectors, IdsEqualThoseOfAnIndependentEngine) {
  const std::string path =
      test::shared_path(std::string("thirdparty/tokenizers/ggml-vocab-") + GetParam() + ".gguf");
  FATHOM_NEEDS(path);
  const Tokenizer tokenizer(Vocabulary::read(Gguf::open(path)));
  const auto texts = split(contents(path + ".inp"), "\n__ggml_vocab_test__\n");
  const auto lines = split(contents(path + ".out"), "\n");
  ASSERT_GE(lines.size(), 40u);
  ASSERT_EQ(texts.size(), lines.size());  // both end with an empty element
  for (size_t i = 0; i + 1 < lines.size(); ++i) {
    EXPECT_EQ(tokenizer.encode(texts[i], test::kPlain), numbers(lines[i])) << "text " << i << ": " << texts[i];
  }
}

INSTANTIATE_TEST_SUITE_P(Files, Vectors, testing::Values("gpt-2", "llama-spm"),
                         [](const auto& test) { return std::string(test.param) == "gpt-2" ? "Gpt2" : "LlamaSpm"; });

}  // namespace
}  // namespace fathom
