#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/utf8.h"
#include "tokens/charsmap.h"
#include "tokens/piece_trie.h"
#include "tokens/spaced_encoder.h"

namespace fathom {
namespace {

/// The score of an unknown character is this much below the lowest score of a piece, as in SentencePiece.
constexpr double kUnknownPenalty = 10;

std::vector<std::pair<std::string, int32_t>> normal_pieces(const Vocabulary& vocabulary) {
  std::vector<std::pair<std::string, int32_t>> pieces;
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    if (vocabulary.type(id) == TokenType::kNormal) pieces.emplace_back(vocabulary.pieces[id], id);
  }
  return pieces;
}

/// Encodes text as the sequence of pieces with the highest sum of scores, which are log probabilities (Subword
/// Regularization: Improving Neural Network Translation Models with Multiple Subword Candidates, 2018).
class UnigramEncoder final : public SpacedEncoder {
 public:
  explicit UnigramEncoder(const Vocabulary& vocabulary)
      : SpacedEncoder(vocabulary),
        pieces_(normal_pieces(vocabulary)),
        rules_(vocabulary.charsmap, vocabulary.source) {
    double lowest = 0;
    for (int32_t id = 0; id < vocabulary.size(); ++id) {
      if (vocabulary.type(id) == TokenType::kNormal) lowest = std::min<double>(lowest, vocabulary.score(id));
    }
    unknown_score_ = lowest - kUnknownPenalty;
  }

  void encode(std::string_view text, bool begins, std::vector<int32_t>& ids, WordCache& cache) const override {
    if (rules_.empty() && !vocabulary_.remove_extra_whitespaces)
      return SpacedEncoder::encode(text, begins, ids, cache);
    const std::string normalised = normalise(text);
    if (normalised.empty()) return;
    WordCache own_cache(normalised.size());
    SpacedEncoder::encode(normalised, begins, ids, own_cache);
  }

 private:
  /// The best encoding of the text up to some byte: its score, its last piece, and where that piece begins.
  struct Step {
    double score = -std::numeric_limits<double>::infinity();
    uint32_t begin = 0;
    int32_t id = kNoToken;
  };

  /// Applies the normalisation rules and, with remove_extra_whitespaces, merges spaces and strips them at both
  /// ends.
  std::string normalise(std::string_view text) const {
    std::string out;
    const bool merge_spaces = vocabulary_.remove_extra_whitespaces;
    const auto append = [&](std::string_view part) {
      for (const char c : part) {
        if (c == ' ' && merge_spaces && (out.empty() || out.back() == ' ')) continue;
        out += c;
      }
    };
    while (!text.empty()) {
      const Charsmap::Match rule = rules_.longest_prefix(text);
      const size_t bytes = rule.bytes > 0 ? rule.bytes : std::max<size_t>(utf8_length(text), 1);
      append(rule.bytes > 0 ? rule.replacement : text.substr(0, bytes));
      text.remove_prefix(bytes);
    }
    if (merge_spaces && out.ends_with(' ')) out.pop_back();
    return out;
  }

  void encode_run(std::string_view run, std::vector<int32_t>& ids) const override {
    if (run.size() > std::numeric_limits<int32_t>::max())
      fail("the text has a word of ", run.size(), " bytes; expected less than 2 GiB");
    const std::vector<Step> best = best_steps(run);
    std::vector<PieceSpan> backwards;
    for (size_t end = run.size(); end > 0; end = best[end].begin) {
      backwards.push_back({best[end].begin, static_cast<uint32_t>(end), best[end].id});
    }
    bool after_unknown = false;
    for (size_t i = backwards.size(); i-- > 0;) {
      const auto [begin, end, id] = backwards[i];
      if (id != kNoToken) {
        ids.push_back(id);
      } else if (has_all_bytes() || !after_unknown) {
        append_bytes(run.substr(begin, end - begin), ids);  // consecutive unknown characters give one unknown token
      }
      after_unknown = id == kNoToken;
    }
  }

  /// Returns the best step for each prefix of `run`, by its length in bytes: [bytes + 1].
  std::vector<Step> best_steps(std::string_view run) const {
    std::vector<Step> best(run.size() + 1);
    best[0].score = 0;
    const auto offer = [&](size_t begin, size_t end, double score, int32_t id) {
      if (best[begin].score + score > best[end].score) {
        best[end] = {best[begin].score + score, static_cast<uint32_t>(begin), id};
      }
    };
    for (size_t at = 0, bytes; at < run.size(); at += bytes) {
      bytes = utf8_length(run.substr(at));
      bool covered = false;
      pieces_.for_each_prefix(run.substr(at), [&](size_t length, int32_t id) {
        covered |= length == bytes;
        offer(at, at + length, vocabulary_.score(id), id);
      });
      if (!covered) offer(at, at + bytes, unknown_score_, kNoToken);
    }
    return best;
  }

  struct PieceSpan {
    uint32_t begin, end;
    int32_t id;
  };

  PieceTrie pieces_;
  Charsmap rules_;
  double unknown_score_;
};

}  // namespace

std::unique_ptr<TextEncoder> make_unigram_encoder(const Vocabulary& vocabulary) {
  return std::make_unique<UnigramEncoder>(vocabulary);
}

}  // namespace fathom
