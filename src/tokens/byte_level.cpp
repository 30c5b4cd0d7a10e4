#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <optional>

#include "base/error.h"
#include "base/format.h"
#include "base/utf8.h"
#include "tokens/merge.h"
#include "tokens/piece_index.h"
#include "tokens/pretokenizer.h"
#include "tokens/text_encoder.h"

namespace fathom {
namespace {

/// GPT-2's alphabet: each printable byte of Latin-1 is spelt as its character, the others as U+0100, U+0101, …
class ByteAlphabet {
 public:
  ByteAlphabet() {
    uint32_t next_unused = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
      byte_of_[printable ? byte : next_unused++] = byte;
    }
  }

  /// Returns the bytes that `piece` spells; nothing if it has a character outside the alphabet.
  std::optional<std::string> bytes(std::string_view piece) const {
    std::string out;
    for (size_t length; !piece.empty(); piece.remove_prefix(length)) {
      length = utf8_length(piece);
      const uint32_t character = length == 0 ? 0 : utf8_code_point(piece);
      if (character >= byte_of_.size() || byte_of_[character] < 0) return std::nullopt;
      out += static_cast<char>(byte_of_[character]);
    }
    return out;
  }

 private:
  std::array<int, 0x144> byte_of_ = [] {
    std::array<int, 0x144> none;
    none.fill(-1);
    return none;
  }();
};

/// Maps the ids of two neighbours to their Merge with an open-addressing hash table.
class MergeTable {
 public:
  explicit MergeTable(size_t count) : slots_(std::bit_ceil(2 * count + 2)) {}

  /// Of equal pairs the first added is kept.
  void add(int32_t left, int32_t right, Merge merge) {
    Slot& slot = slots_[locate(pair(left, right))];
    if (slot.pair == kFree) slot = {pair(left, right), merge};
  }
  Merge find(int32_t left, int32_t right) const {
    if (left == kNoToken || right == kNoToken) return {};
    return slots_[locate(pair(left, right))].merge;
  }

 private:
  static constexpr uint64_t kFree = std::numeric_limits<uint64_t>::max();
  struct Slot {
    uint64_t pair = kFree;
    Merge merge;
  };
  static uint64_t pair(int32_t left, int32_t right) { return static_cast<uint64_t>(left) << 32 | right; }
  size_t locate(uint64_t pair) const {
    const size_t mask = slots_.size() - 1;
    size_t at = (pair * 0x9e3779b97f4a7c15 >> 24) & mask;
    while (slots_[at].pair != pair && slots_[at].pair != kFree) at = (at + 1) & mask;
    return at;
  }
  std::vector<Slot> slots_;  // a power of two, at most half full
};

/// Byte-level BPE: merges the bytes of each word by rank (Language Models are Unsupervised Multitask Learners,
/// 2019).
class ByteLevelEncoder final : public TextEncoder {
 public:
  explicit ByteLevelEncoder(const Vocabulary& vocabulary)
      : vocabulary_(vocabulary),
        info_(find_pretokenizer(vocabulary.pre, vocabulary.source)),
        pretokenizer_(info_.steps),
        merges_(vocabulary.merges.size()) {
    for (int32_t id = 0; id < vocabulary.size(); ++id) {
      if (vocabulary.type(id) != TokenType::kNormal) continue;
      const auto bytes = alphabet_.bytes(vocabulary.pieces[id]);
      if (bytes && !bytes->empty()) pieces_.add(*bytes, id);
    }
    for (int byte = 0; byte < 256; ++byte) byte_ids_[byte] = pieces_.find(std::string(1, static_cast<char>(byte)));
    for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) add_merge(vocabulary.merges[rank], rank);
  }

  void encode(std::string_view text, bool, std::vector<int32_t>& ids, WordCache& cache) const override {
    pretokenizer_.split(text, [&](std::string_view word) {
      cache.append(word, ids, [&](std::vector<int32_t>& out) { encode_word(word, out); });
    });
  }

  std::string text_of(std::string_view piece) const override {
    return alphabet_.bytes(piece).value_or(std::string(piece));
  }

 private:
  /// Ignores a merge whose parts or result are no pieces, because it can never be applied.
  void add_merge(std::string_view merge, size_t rank) {
    const size_t space = merge.find(' ', 1);
    if (space == std::string_view::npos || space + 1 == merge.size()) {
      fail(vocabulary_.source, ": metadata key 'tokenizer.ggml.merges': entry ", rank,
           ": expected two pieces separated by a space, found ", quote(merge));
    }
    const auto left = alphabet_.bytes(merge.substr(0, space));
    const auto right = alphabet_.bytes(merge.substr(space + 1));
    if (!left || !right) return;
    const int32_t left_id = pieces_.find(*left), right_id = pieces_.find(*right);
    const int32_t merged = pieces_.find(*left + *right);
    if (left_id == kNoToken || right_id == kNoToken || merged == kNoToken) return;
    merges_.add(left_id, right_id, {static_cast<uint32_t>(rank), merged});
  }

  void encode_word(std::string_view word, std::vector<int32_t>& ids) const {
    if (info_.ignore_merges) {
      if (const int32_t whole = pieces_.find(word); whole != kNoToken) return ids.push_back(whole);
    }
    if (word.size() > std::numeric_limits<int32_t>::max())
      fail("the text has a word of ", word.size(), " bytes; expected less than 2 GiB");
    thread_local std::vector<Symbol> symbols;
    symbols.clear();
    for (uint32_t at = 0; at < word.size(); ++at) {
      symbols.push_back({at, 1, byte_ids_[static_cast<unsigned char>(word[at])]});
    }
    merge_symbols(symbols,
                  [&](const Symbol& left, const Symbol& right) { return merges_.find(left.id, right.id); });
    for (const Symbol& symbol : symbols)
      ids.push_back(symbol.id != kNoToken ? symbol.id : unknown(word[symbol.begin]));
  }

  int32_t unknown(unsigned char byte) const {
    if (vocabulary_.unknown == kNoToken) {
      fail(vocabulary_.source, ": byte ", int{byte},
           " of the text: the vocabulary has neither a token for it nor an unknown token");
    }
    return vocabulary_.unknown;
  }

  const Vocabulary& vocabulary_;
  const PretokenizerInfo& info_;
  const ByteAlphabet alphabet_;
  Pretokenizer pretokenizer_;
  PieceIndex pieces_;  // by their bytes
  std::array<int32_t, 256> byte_ids_{};
  MergeTable merges_;
};

}  // namespace

std::unique_ptr<TextEncoder> make_byte_level_encoder(const Vocabulary& vocabulary) {
  return std::make_unique<ByteLevelEncoder>(vocabulary);
}

}  // namespace fathom
