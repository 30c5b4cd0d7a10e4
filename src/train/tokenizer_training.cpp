#include "train/tokenizer_training.h"

#include <algorithm>
#include <limits>
#include <queue>
#include <tuple>
#include <unordered_map>

#include "base/error.h"
#include "base/progress.h"
#include "eval/rng.h"
#include "train/sentence_piece/module.h"

namespace fathom::train {
namespace {

constexpr std::string_view kNewline = "\n";
constexpr int kUnknownId = 0, kBosId = 1, kEosId = 2;
constexpr int kFixedPieces = 3 + 1 + 256;     // special tokens, newline, bytes
constexpr size_t kMostParagraphBytes = 4096;  // the library wants sentences; longer texts are cut at spaces

/// A paragraph with its place in the sample: those of the lowest tickets are taken.
struct Drawn {
  uint64_t ticket;
  std::string document;
  int64_t number;
  std::string text;
  bool operator<(const Drawn& other) const {
    return std::tie(ticket, document, number) < std::tie(other.ticket, other.document, other.number);
  }
};

/// Keeps the paragraphs of the lowest tickets as long as they fit.
class Sampler {
 public:
  explicit Sampler(int64_t bytes) : limit_(bytes) {}

  void add(Drawn drawn) {
    if (drawn.ticket >= barrier_) return;
    bytes_ += std::ssize(drawn.text);
    kept_.push(std::move(drawn));
    while (bytes_ > limit_ && !kept_.empty()) {
      bytes_ -= std::ssize(kept_.top().text);
      barrier_ = kept_.top().ticket;
      kept_.pop();
    }
  }

  /// In order of documents and numbers.
  std::vector<Drawn> take() {
    std::vector<Drawn> all;
    for (; !kept_.empty(); kept_.pop()) all.push_back(kept_.top());
    std::ranges::sort(all, [](const Drawn& a, const Drawn& b) {
      return std::tie(a.document, a.number) < std::tie(b.document, b.number);
    });
    return all;
  }

 private:
  int64_t limit_, bytes_ = 0;
  uint64_t barrier_ = std::numeric_limits<uint64_t>::max();  // what has a higher ticket came too late
  std::priority_queue<Drawn> kept_;
};

/// The end of the paragraph that begins at `begin`: before the next newline that does not open it.
size_t paragraph_end(std::string_view text, size_t begin) {
  size_t end = std::min(text.find('\n', text.find_first_not_of('\n', begin)), text.size());
  if (end - begin <= kMostParagraphBytes) return end;
  const size_t space = text.rfind(' ', begin + kMostParagraphBytes);
  if (space != std::string_view::npos && space > begin) return space;
  end = begin + kMostParagraphBytes;
  while ((static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;  // not inside a character
  return end;
}

std::unordered_map<std::string, std::string> arguments(const TokenizerTraining& training) {
  return {
      {"model_type", "bpe"},
      {"vocab_size", std::to_string(training.vocabulary)},
      {"character_coverage", concat(training.character_coverage)},
      {"byte_fallback", "true"},
      {"split_digits", "true"},
      {"user_defined_symbols", std::string(kNewline)},
      {"add_dummy_prefix", "true"},
      {"remove_extra_whitespaces", "false"},
      {"normalization_rule_name", "identity"},
      {"max_sentence_length", std::to_string(2 * kMostParagraphBytes)},
      {"unk_id", std::to_string(kUnknownId)},
      {"bos_id", std::to_string(kBosId)},
      {"eos_id", std::to_string(kEosId)},
      {"pad_id", "-1"},
      {"num_threads", "1"},
      {"minloglevel", "3"},
  };
}

}  // namespace

std::vector<std::string> sample_paragraphs(const Corpus& corpus, int64_t bytes, uint64_t seed) {
  Sampler sampler(bytes);
  Progress progress("sampling " + corpus.path(), "bytes", 0);
  int64_t read = 0;
  corpus.for_each([&](const Document& document) {
    const std::string_view text = document.text;
    int64_t number = 0;
    for (size_t begin = 0, end = 0; begin < text.size(); begin = end, ++number) {
      end = paragraph_end(text, begin);
      const uint64_t ticket = eval::Rng(seed, document.name, 0, number).bits();
      sampler.add({ticket, document.name, number, std::string(text.substr(begin, end - begin))});
      if (end < text.size() && text[end] == ' ') ++end;  // a cut, whose space stands before the next text anyway
    }
    progress.update(read += std::ssize(text));
  });
  std::vector<std::string> texts;
  for (Drawn& drawn : sampler.take()) texts.push_back(std::move(drawn.text));
  if (texts.empty()) fail("corpus ", corpus.path(), ": no paragraph fits into a sample of ", bytes, " bytes");
  return texts;
}

std::string train_sentence_piece(const std::vector<std::string>& texts, const TokenizerTraining& training) {
  if (texts.empty()) fail("there is no text to train a tokenizer on");
  if (training.vocabulary <= kFixedPieces) {
    fail_usage("a vocabulary of ", training.vocabulary, " pieces: expected more than ", kFixedPieces,
               ", for so many are special tokens, the newline and bytes");
  }
  if (!(training.character_coverage >= 0.98 && training.character_coverage <= 1))
    fail_usage("character coverage: expected 0.98 to 1, found ", training.character_coverage);
  std::string model;
  const std::string error = sentence_piece_module().train(arguments(training), texts, model);
  if (!error.empty()) {
    fail("a vocabulary of ", training.vocabulary, " pieces cannot be trained on these ", texts.size(),
         " paragraphs: ", error);
  }
  return model;
}

Vocabulary vocabulary_of_sentence_piece(const std::string& model) {
  std::vector<SentencePieceModule::Piece> pieces;
  if (const std::string error = sentence_piece_module().pieces(model, pieces); !error.empty())
    fail("not a SentencePiece model: ", error);
  Vocabulary vocabulary;
  vocabulary.source = "the trained vocabulary";
  for (const auto& piece : pieces) {
    vocabulary.pieces.push_back(piece.text);
    vocabulary.scores.push_back(piece.score);
    vocabulary.types.push_back(piece.unknown            ? TokenType::kUnknown
                               : piece.control          ? TokenType::kControl
                               : piece.byte             ? TokenType::kByte
                               : piece.text == kNewline ? TokenType::kUserDefined
                                                        : TokenType::kNormal);
  }
  vocabulary.unknown = kUnknownId;
  vocabulary.bos = kBosId;
  vocabulary.eos = kEosId;
  vocabulary.add_bos = true;
  vocabulary.add_space_prefix = true;
  vocabulary.end_of_generation = {kEosId};
  vocabulary.check();
  return vocabulary;
}

}  // namespace fathom::train
