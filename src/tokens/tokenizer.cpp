#include "tokens/tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"

namespace fathom {
namespace {

std::unique_ptr<TextEncoder> make_encoder(const Vocabulary& vocabulary) {
  vocabulary.check();
  switch (vocabulary.kind) {
    case VocabularyKind::kSentencePiece:
      return make_sentence_piece_encoder(vocabulary);
    case VocabularyKind::kUnigram:
      return make_unigram_encoder(vocabulary);
    case VocabularyKind::kByteLevelBpe:
      return make_byte_level_encoder(vocabulary);
    case VocabularyKind::kWordPiece:
      return make_word_piece_encoder(vocabulary);
  }
  fail(vocabulary.source, ": unknown kind of vocabulary");
}

bool is_special(TokenType type) {
  return type == TokenType::kControl || type == TokenType::kUnknown || type == TokenType::kUserDefined;
}

bool is_hidden(TokenType type) {
  return type == TokenType::kControl || type == TokenType::kUnknown || type == TokenType::kUnused;
}

}  // namespace

Tokenizer::Tokenizer(Vocabulary vocabulary)
    : vocabulary_(std::move(vocabulary)), encoder_(make_encoder(vocabulary_)) {
  std::vector<std::pair<std::string, int32_t>> always, specials;
  for (int32_t id = 0; id < size(); ++id) {
    const std::string& piece = vocabulary_.pieces[id];
    const TokenType type = vocabulary_.type(id);
    if (type == TokenType::kByte) {
      texts_.emplace_back(1, static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16)));
    } else {
      texts_.push_back(type == TokenType::kNormal ? encoder_->text_of(piece) : piece);
    }
    if (is_special(type)) specials.emplace_back(piece, id);
    if (type == TokenType::kUserDefined) always.emplace_back(piece, id);
  }
  always_ = PieceTrie(std::move(always));
  specials_ = PieceTrie(std::move(specials));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3 + 2);
  if (options.add_bos_eos && vocabulary_.add_bos) ids.push_back(vocabulary_.bos);
  append_ids(text, options.parse_special ? specials_ : always_, ids);
  if (options.add_bos_eos && vocabulary_.add_eos) ids.push_back(vocabulary_.eos);
  return ids;
}

void Tokenizer::append_ids(std::string_view text, const PieceTrie& specials, std::vector<int32_t>& ids) const {
  WordCache cache(text.size());
  size_t begin = 0;  // of the text since the last special token
  bool begins = true;
  const auto end_text = [&](size_t end) {
    if (end == begin) return;
    encoder_->encode(text.substr(begin, end - begin), begins, ids, cache);
    begins = false;
  };
  for (size_t at = 0; at < text.size() && !specials.empty();) {
    const PieceTrie::Match match =
        specials.starts(text[at]) ? specials.longest_prefix(text.substr(at)) : PieceTrie::Match{};
    if (match.bytes == 0) {
      ++at;
      continue;
    }
    end_text(at);
    ids.push_back(match.id);
    const TokenType type = vocabulary_.type(match.id);
    if (type != TokenType::kUnknown) begins = type == TokenType::kControl;
    at += match.bytes;
    begin = at;
  }
  end_text(text.size());
}

const std::string& Tokenizer::piece(int32_t id) const {
  if (id < 0 || id >= size()) {
    fail(vocabulary_.source, ": token id ", id, " is outside the vocabulary of ", size(), " tokens");
  }
  return texts_[id];
}

bool Tokenizer::ends_generation(int32_t id) const {
  return std::ranges::binary_search(vocabulary_.end_of_generation, id);
}

void Tokenizer::append_text(int32_t id, bool show_special, bool& at_start, std::string& text) const {
  std::string_view own = piece(id);
  const TokenType type = vocabulary_.type(id);
  if (type == TokenType::kControl) {
    at_start = true;
  } else if (type == TokenType::kUserDefined) {
    at_start = false;
  } else if (!is_hidden(type)) {
    if (at_start && encoder_->adds_space() && own.starts_with(' ')) own.remove_prefix(1);
    at_start = false;
  }
  if (show_special || !is_hidden(type)) text += own;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool show_special) const {
  std::string text;
  bool at_start = true;
  for (const int32_t id : ids) append_text(id, show_special, at_start, text);
  return text;
}

std::string StreamDecoder::add(int32_t id) {
  tokenizer_.append_text(id, show_special_, at_start_, pending_);
  const size_t complete = pending_.size() - utf8_unfinished(pending_);
  std::string text = pending_.substr(0, complete);
  pending_.erase(0, complete);
  return text;
}

std::string StreamDecoder::flush() { return std::exchange(pending_, {}); }

}  // namespace fathom
