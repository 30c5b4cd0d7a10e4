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
constexpr int kFixedPieces = 3 + 1 + 256;    // special tokens, newline, bytes
constexpr size_t kMaxParagraphBytes = 4096;  // SentencePiece expects sentences; longer texts are cut at spaces

/// A paragraph with its random key (`ticket`). The sample consists of the paragraphs with the lowest tickets.
struct SampledParagraph {
  uint64_t ticket;
  std::string document;
  int64_t number;  // in the document
  std::string text;
  bool operator<(const SampledParagraph& other) const {
    return std::tie(ticket, document, number) < std::tie(other.ticket, other.document, other.number);
  }
};

/// Keeps the paragraphs with the lowest tickets that fit in a number of bytes.
class ParagraphSampler {
 public:
  explicit ParagraphSampler(int64_t bytes) : limit_(bytes) {}

  void add(SampledParagraph paragraph) {
    if (paragraph.ticket >= ticket_limit_) return;
    bytes_ += std::ssize(paragraph.text);
    kept_.push(std::move(paragraph));
    while (bytes_ > limit_ && !kept_.empty()) {
      bytes_ -= std::ssize(kept_.top().text);
      ticket_limit_ = kept_.top().ticket;
      kept_.pop();
    }
  }

  /// Returns the sample, ordered by document and number.
  std::vector<SampledParagraph> take() {
    std::vector<SampledParagraph> all;
    for (; !kept_.empty(); kept_.pop()) all.push_back(kept_.top());
    std::ranges::sort(all, [](const SampledParagraph& a, const SampledParagraph& b) {
      return std::tie(a.document, a.number) < std::tie(b.document, b.number);
    });
    return all;
  }

 private:
  int64_t limit_, bytes_ = 0;
  uint64_t ticket_limit_ =
      std::numeric_limits<uint64_t>::max();  // paragraphs with this ticket or a higher one do not fit
  std::priority_queue<SampledParagraph> kept_;
};

/// Returns the end of the paragraph that begins at `begin`: the next newline after its leading newlines.
size_t paragraph_end(std::string_view text, size_t begin) {
  size_t end = std::min(text.find('\n', text.find_first_not_of('\n', begin)), text.size());
  if (end - begin <= kMaxParagraphBytes) return end;
  const size_t space = text.rfind(' ', begin + kMaxParagraphBytes);
  if (space != std::string_view::npos && space > begin) return space;
  end = begin + kMaxParagraphBytes;
  while ((static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;  // not within a character
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
      {"max_sentence_length", std::to_string(2 * kMaxParagraphBytes)},
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
  ParagraphSampler sampler(bytes);
  Progress progress("sampling " + corpus.path(), "bytes", 0);
  int64_t read = 0;
  corpus.for_each([&](const Document& document) {
    const std::string_view text = document.text;
    int64_t number = 0;
    for (size_t begin = 0, end = 0; begin < text.size(); begin = end, ++number) {
      end = paragraph_end(text, begin);
      const uint64_t ticket = eval::Rng(seed, document.name, 0, number).bits();
      sampler.add({ticket, document.name, number, std::string(text.substr(begin, end - begin))});
      if (end < text.size() && text[end] == ' ')
        ++end;  // skip the space at a cut: SentencePiece adds one before the next text
    }
    progress.update(read += std::ssize(text));
  });
  std::vector<std::string> texts;
  for (SampledParagraph& paragraph : sampler.take()) texts.push_back(std::move(paragraph.text));
  if (texts.empty()) fail("corpus ", corpus.path(), ": no paragraph fits into a sample of ", bytes, " bytes");
  return texts;
}

std::string train_sentence_piece(const std::vector<std::string>& texts, const TokenizerTraining& training) {
  if (texts.empty()) fail("no text to train a tokenizer on");
  if (training.vocabulary <= kFixedPieces) {
    fail_usage("new_tokenizer.pieces is ", training.vocabulary, ", expected more than ", kFixedPieces,
               ", the number of special tokens, newline and bytes");
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
