#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "tokens/decompose.h"
#include "tokens/piece_trie.h"
#include "tokens/pretokenizer.h"
#include "tokens/text_encoder.h"

namespace fathom {
namespace {

constexpr std::string_view kContinuationMark = "##";

// Splits at spaces; punctuation, ASCII symbols and Chinese characters are words of one character.
constexpr SplitStep kSteps[] = {
    {" "},
    {R"([\p{P}$+<=>^`|~\x{3400}-\x{4dbf}\x{4e00}-\x{9fff}\x{f900}-\x{faff}\x{20000}-\x{2a6df}\x{2a700}-\x{2ebef}\x{2f800}-\x{2fa1f}])"},
};

/// BERT's WordPiece: removes accents and case, then splits each word into the longest pieces, from the left (BERT:
/// Pre-training of Deep Bidirectional Transformers for Language Understanding, 2018).
class WordPieceEncoder final : public TextEncoder {
 public:
  explicit WordPieceEncoder(const Vocabulary& vocabulary) : vocabulary_(vocabulary), words_(kSteps) {
    if (vocabulary.unknown == kNoToken)
      fail(vocabulary.source, ": a WordPiece vocabulary needs an unknown token (tokenizer.ggml.unknown_token_id)");
    const bool marks_starts = std::ranges::any_of(
        vocabulary.pieces, [](const std::string& piece) { return piece.starts_with(kSpaceMark); });
    std::vector<std::pair<std::string, int32_t>> starts, continuations;
    for (int32_t id = 0; id < vocabulary.size(); ++id) {
      if (vocabulary.type(id) != TokenType::kNormal) continue;
      const std::string& piece = vocabulary.pieces[id];
      const std::string_view mark = marks_starts ? kSpaceMark : kContinuationMark;
      const bool marked = piece.starts_with(mark);
      auto& list = marked == marks_starts ? starts : continuations;
      list.emplace_back(marked ? piece.substr(mark.size()) : piece, id);
    }
    starts_ = PieceTrie(std::move(starts));
    continuations_ = PieceTrie(std::move(continuations));
    marks_starts_ = marks_starts;
  }

  void encode(std::string_view text, bool, std::vector<int32_t>& ids, WordCache&) const override {
    const std::string plain = simplify(text);
    WordCache cache(plain.size());
    words_.split(plain, [&](std::string_view word) {
      if (word == " ") return;
      cache.append(word, ids, [&](std::vector<int32_t>& out) { encode_word(word, out); });
    });
  }

  std::string text_of(std::string_view piece) const override {
    if (marks_starts_) {
      return piece.starts_with(kSpaceMark) ? std::string(" ").append(piece.substr(kSpaceMark.size()))
                                           : std::string(piece);
    }
    return piece.starts_with(kContinuationMark) ? std::string(piece.substr(kContinuationMark.size()))
                                                : std::string(" ").append(piece);
  }

  bool adds_space() const override { return true; }

 private:
  /// Returns the text in lower case without accents, control characters and bytes that are not UTF-8. Each run of
  /// white space becomes one space.
  std::string simplify(std::string_view text) const {
    std::string decomposed;
    for (size_t at = 0, bytes; at < text.size(); at += std::max<size_t>(bytes, 1)) {
      bytes = utf8_length(text.substr(at));
      if (bytes > 0) append_decomposed(utf8_code_point(text.substr(at)), decomposed);
    }
    return spaces_.replace(upper_case_.replace(removed_.replace(decomposed, ""), "\\L$0"), " ");
  }

  void encode_word(std::string_view word, std::vector<int32_t>& ids) const {
    const size_t before = ids.size();
    const PieceTrie* pieces = &starts_;
    while (!word.empty()) {
      const PieceTrie::Match match = pieces->longest_prefix(word);
      if (match.bytes == 0) {
        ids.resize(before);
        ids.push_back(vocabulary_.unknown);
        return;
      }
      ids.push_back(match.id);
      word.remove_prefix(match.bytes);
      pieces = &continuations_;
    }
  }

  const Vocabulary& vocabulary_;
  Pretokenizer words_;
  Regex removed_{R"((?![\t\n\r])[\p{Cc}\p{Cf}\p{Mn}\x{fffd}])"};
  Regex upper_case_{R"(\p{Lu}+|\p{Lt}+)"};
  Regex spaces_{R"(\s+)"};
  PieceTrie starts_, continuations_;
  bool marks_starts_ = false;
};

}  // namespace

std::unique_ptr<TextEncoder> make_word_piece_encoder(const Vocabulary& vocabulary) {
  return std::make_unique<WordPieceEncoder>(vocabulary);
}

}  // namespace fathom
