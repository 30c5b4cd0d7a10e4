#include "decode/token_bytes.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/format.h"
#include "base/utf8.h"

namespace fathom {
namespace {

bool adds_text(TokenType type) {
  return type == TokenType::kNormal || type == TokenType::kUserDefined || type == TokenType::kByte;
}

/// Returns whether the bytes are whole UTF-8 characters.
bool is_complete(std::string_view bytes) { return utf8_valid_prefix(bytes) == bytes.size(); }

size_t common_prefix(std::string_view a, std::string_view b) {
  return static_cast<size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
}

}  // namespace

TokenBytes::TokenBytes(const Tokenizer& tokenizer) : ends_(tokenizer.vocabulary().end_of_generation) {
  const Vocabulary& vocabulary = tokenizer.vocabulary();
  if (ends_.empty())
    fail(vocabulary.source, ": a constraint needs an end-of-generation token; the vocabulary has none");
  const auto text = [&](int32_t id) {
    const bool visible = adds_text(vocabulary.type(id)) && !tokenizer.ends_generation(id);
    return visible ? std::string_view(tokenizer.piece(id)) : std::string_view();
  };
  std::array<bool, 256> single{}, single_piece{};  // whether a byte has a token, and one other than a byte token
  for (int32_t id = 0; id < tokenizer.size(); ++id) {
    if (text(id).size() != 1) continue;
    const auto byte = static_cast<unsigned char>(text(id)[0]);
    single[byte] = true;
    single_piece[byte] |= vocabulary.type(id) != TokenType::kByte;
  }
  has_all_bytes_ = std::ranges::count(single, true) == 256;

  begin_.push_back(0);
  std::vector<std::pair<std::string, int32_t>> pieces;
  for (int32_t id = 0; id < tokenizer.size(); ++id) {
    if (!text(id).empty() && (has_all_bytes_ || is_complete(text(id)))) {
      bytes_ += text(id);
      sorted_.push_back(id);
      // byte tokens are rare in training, so spell() prefers others
      if (vocabulary.type(id) != TokenType::kByte || !single_piece[static_cast<unsigned char>(text(id)[0])])
        pieces.emplace_back(text(id), id);
    }
    begin_.push_back(bytes_.size());
  }
  trie_ = PieceTrie(std::move(pieces));
  std::ranges::sort(sorted_, [&](int32_t a, int32_t b) { return std::pair(of(a), a) < std::pair(of(b), b); });
  for (size_t i = 0; i < sorted_.size(); ++i)
    shared_.push_back(i == 0 ? 0 : static_cast<uint16_t>(common_prefix(of(sorted_[i - 1]), of(sorted_[i]))));
}

bool TokenBytes::is_end(int32_t token) const { return std::ranges::binary_search(ends_, token); }

std::optional<size_t> TokenBytes::find_unspellable(std::string_view text) const {
  if (has_all_bytes_) return std::nullopt;
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text.substr(at));
    if (length == 0 || trie_.longest_prefix(text.substr(at, length)).bytes != length) return at;
    at += length;
  }
  return std::nullopt;
}

std::vector<int32_t> TokenBytes::spell(std::string_view text) const {
  std::vector<int32_t> tokens;
  while (!text.empty()) {
    const PieceTrie::Match match = trie_.longest_prefix(text);
    if (match.bytes == 0) fail("the vocabulary has no token for ", quote(text.substr(0, 4)));
    tokens.push_back(match.id);
    text.remove_prefix(match.bytes);
  }
  return tokens;
}

}  // namespace fathom
