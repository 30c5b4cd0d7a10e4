#include "tokens/spaced_encoder.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"

namespace fathom {
namespace {

int hex_value(char digit) { return digit <= '9' ? digit - '0' : (digit | 0x20) - 'a' + 10; }

/// Returns whether a space mark follows another character.
bool holds_inner_space(std::string_view piece) {
  while (piece.starts_with(kSpaceMark)) piece.remove_prefix(kSpaceMark.size());
  return piece.find(kSpaceMark) != std::string_view::npos;
}

}  // namespace

SpacedEncoder::SpacedEncoder(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {
  byte_ids_.fill(kNoToken);
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    const std::string& piece = vocabulary.pieces[id];
    if (vocabulary.type(id) == TokenType::kByte) {
      int32_t& slot = byte_ids_[hex_value(piece[3]) * 16 + hex_value(piece[4])];
      if (slot == kNoToken) slot = id;
    } else if (vocabulary.type(id) == TokenType::kNormal && holds_inner_space(piece)) {
      words_are_independent_ = false;
    }
  }
  has_all_bytes_ = std::ranges::find(byte_ids_, kNoToken) == byte_ids_.end();
}

void SpacedEncoder::encode(std::string_view text, bool begins, std::vector<int32_t>& ids, WordCache& cache) const {
  if (begins && vocabulary_.add_space_prefix) {
    const size_t bytes = word_bytes(text);
    encode_word(std::string(" ").append(text.substr(0, bytes)), ids);
    text.remove_prefix(bytes);
  }
  while (!text.empty()) {
    const std::string_view word = text.substr(0, word_bytes(text));
    cache.append(word, ids, [&](std::vector<int32_t>& out) { encode_word(word, out); });
    text.remove_prefix(word.size());
  }
}

size_t SpacedEncoder::word_bytes(std::string_view text) const {
  if (!words_are_independent_) return text.size();
  const size_t letters = text.find_first_not_of(' ');
  return letters == std::string_view::npos ? text.size() : std::min(text.find(' ', letters), text.size());
}

void SpacedEncoder::encode_word(std::string_view word, std::vector<int32_t>& ids) const {
  std::string run;
  run.reserve(word.size() + 8);
  const auto end_run = [&] {
    if (!run.empty()) encode_run(run, ids);
    run.clear();
  };
  for (size_t at = 0, bytes; at < word.size(); at += bytes) {
    bytes = utf8_length(word.substr(at));
    const std::string_view character = word.substr(at, std::max<size_t>(bytes, 1));
    if (bytes == 0) {
      end_run();
      append_byte(character[0], ids);
      bytes = 1;
    } else if (character == " ") {
      run += kSpaceMark;
    } else if (character == kSpaceMark && has_all_bytes_) {
      end_run();
      for (const char byte : character) append_byte(byte, ids);
    } else {
      run += character;
    }
  }
  end_run();
}

void SpacedEncoder::append_bytes(std::string_view character, std::vector<int32_t>& ids) const {
  if (character == kSpaceMark) return append_byte(' ', ids);
  if (!has_all_bytes_) {
    const bool covered = std::ranges::all_of(character, [&](unsigned char b) { return byte_ids_[b] != kNoToken; });
    if (!covered) return append_byte(character[0], ids);
  }
  for (const char byte : character) append_byte(byte, ids);
}

void SpacedEncoder::append_byte(unsigned char byte, std::vector<int32_t>& ids) const {
  const int32_t id = byte_ids_[byte] != kNoToken ? byte_ids_[byte] : vocabulary_.unknown;
  if (id == kNoToken) {
    fail(vocabulary_.source, ": byte ", int{byte},
         " of the text: the vocabulary has neither a token for it nor an unknown token");
  }
  ids.push_back(id);
}

std::string SpacedEncoder::text_of(std::string_view piece) const {
  std::string text;
  while (!piece.empty()) {
    const size_t mark = std::min(piece.find(kSpaceMark), piece.size());
    text += piece.substr(0, mark);
    piece.remove_prefix(mark);
    if (piece.empty()) break;
    text += ' ';
    piece.remove_prefix(kSpaceMark.size());
  }
  return text;
}

}  // namespace fathom
