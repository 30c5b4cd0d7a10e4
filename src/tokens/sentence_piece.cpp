#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/utf8.h"
#include "tokens/merge.h"
#include "tokens/piece_index.h"
#include "tokens/spaced_encoder.h"

namespace fathom {
namespace {

/// SentencePiece's BPE: merges neighbouring characters; the pair that forms the piece with the highest score is
/// merged first (SentencePiece: A simple and language independent subword tokenizer and detokenizer for Neural Text
/// Processing, 2018).
class SentencePieceEncoder final : public SpacedEncoder {
 public:
  explicit SentencePieceEncoder(const Vocabulary& vocabulary)
      : SpacedEncoder(vocabulary), ranks_(vocabulary.size()) {
    std::vector<float> scores;
    for (int32_t id = 0; id < vocabulary.size(); ++id) {
      scores.push_back(vocabulary.score(id));
      if (vocabulary.type(id) == TokenType::kNormal && !vocabulary.pieces[id].empty()) {
        pieces_.add(vocabulary.pieces[id], id);
      }
    }
    std::ranges::sort(scores, std::greater());
    scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
    for (int32_t id = 0; id < vocabulary.size(); ++id) {
      const auto rank = std::ranges::lower_bound(scores, vocabulary.score(id), std::greater());
      ranks_[id] = static_cast<uint32_t>(rank - scores.begin());
    }
  }

 private:
  void encode_run(std::string_view run, std::vector<int32_t>& ids) const override {
    thread_local std::vector<Symbol> symbols;
    symbols.clear();
    if (run.size() > std::numeric_limits<int32_t>::max())
      fail("the text has a word of ", run.size(), " bytes; expected less than 2 GiB");
    for (size_t at = 0; at < run.size();) {
      const size_t bytes = utf8_length(run.substr(at));
      symbols.push_back(
          {static_cast<uint32_t>(at), static_cast<uint32_t>(bytes), pieces_.find(run.substr(at, bytes))});
      at += bytes;
    }
    merge_symbols(symbols, [&](const Symbol& left, const Symbol& right) {
      const int32_t id = pieces_.find(run.substr(left.begin, left.bytes + right.bytes));
      return id == kNoToken ? Merge{} : Merge{ranks_[id], id};
    });
    for (const Symbol& symbol : symbols) {
      if (symbol.id != kNoToken) {
        ids.push_back(symbol.id);
      } else {
        append_bytes(run.substr(symbol.begin, symbol.bytes), ids);
      }
    }
  }

  PieceIndex pieces_;
  std::vector<uint32_t> ranks_;  // [ids]: 0 for the highest score; equal scores have equal ranks
};

}  // namespace

std::unique_ptr<TextEncoder> make_sentence_piece_encoder(const Vocabulary& vocabulary) {
  return std::make_unique<SentencePieceEncoder>(vocabulary);
}

}  // namespace fathom
