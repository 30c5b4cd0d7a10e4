#include "tokens/vocabulary.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <set>
#include <string_view>

#include "base/error.h"
#include "base/format.h"
#include "tokens/pretokenizer.h"

namespace fathom {
namespace {

/// Maximum bytes of a piece, which bounds the cost of matching. The longest known pieces have 512 spaces.
constexpr size_t kMaxPieceBytes = 4096;

std::string key(std::string_view name) { return concat("tokenizer.ggml.", name); }

constexpr std::array<std::pair<std::string_view, VocabularyKind>, 4> kKinds{{
    {"llama", VocabularyKind::kSentencePiece},
    {"t5", VocabularyKind::kUnigram},
    {"gpt2", VocabularyKind::kByteLevelBpe},
    {"bert", VocabularyKind::kWordPiece},
}};

VocabularyKind read_kind(const Gguf& file) {
  const auto model = file.string(key("model"));
  if (!model) fail(file.name(), ": no metadata key 'tokenizer.ggml.model': the file holds no vocabulary");
  std::vector<std::string_view> known;
  for (const auto& [name, kind] : kKinds) {
    if (name == *model) return kind;
    known.push_back(name);
  }
  fail(file.name(), ": metadata key 'tokenizer.ggml.model': expected one of ", comma_list(known), ", found ",
       quote(*model));
}

struct NamedId {
  std::string_view key;
  int32_t Vocabulary::*id;
};
constexpr NamedId kIds[] = {
    {"bos_token_id", &Vocabulary::bos},
    {"eos_token_id", &Vocabulary::eos},
    {"unknown_token_id", &Vocabulary::unknown},
    {"padding_token_id", &Vocabulary::padding},
    {"eot_token_id", &Vocabulary::eot},
    {"eom_token_id", &Vocabulary::eom},
    {"seperator_token_id", &Vocabulary::separator},  // the format's spelling
    {"mask_token_id", &Vocabulary::mask},
};

/// Sets the defaults for keys that the file lacks; they depend on the kind.
void set_defaults(Vocabulary& vocabulary) {
  switch (vocabulary.kind) {
    case VocabularyKind::kSentencePiece:
      vocabulary.unknown = 0;
      vocabulary.bos = 1;
      vocabulary.eos = 2;
      vocabulary.add_bos = true;
      vocabulary.add_space_prefix = true;
      break;
    case VocabularyKind::kUnigram:
      vocabulary.padding = 0;
      vocabulary.eos = 1;
      vocabulary.unknown = 2;
      vocabulary.add_eos = true;
      break;
    case VocabularyKind::kByteLevelBpe:
      vocabulary.add_bos = find_pretokenizer(vocabulary.pre, vocabulary.source).add_bos;
      break;
    case VocabularyKind::kWordPiece:
      vocabulary.padding = 0;
      vocabulary.unknown = 100;
      vocabulary.bos = 101;
      vocabulary.separator = 102;
      vocabulary.mask = 103;
      vocabulary.add_bos = true;
      vocabulary.add_eos = true;
      break;
  }
}

void read_ids(const Gguf& file, Vocabulary& vocabulary) {
  for (const NamedId& named : kIds) {
    const auto id = file.integer(key(named.key));
    if (id) {
      if (*id < 0 || *id >= vocabulary.size()) {
        fail(file.name(), ": metadata key ", quote(key(named.key)), ": expected a token id below ",
             vocabulary.size(), ", found ", *id);
      }
      vocabulary.*named.id = static_cast<int32_t>(*id);
    } else if (vocabulary.*named.id >= vocabulary.size()) {
      vocabulary.*named.id = kNoToken;  // the default id is outside this vocabulary
    }
  }
  if (vocabulary.kind == VocabularyKind::kWordPiece && vocabulary.eos == kNoToken)
    vocabulary.eos = vocabulary.separator;
}

/// Texts of the tokens with which chat models end their answer.
constexpr std::string_view kEndTexts[] = {
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>",      "<end_of_turn>", "<|endoftext|>",      "<|end|>",
    "</s>",       "<|return|>", "<|end_of_text|>", "<EOT>",         "<end_of_utterance>", "<｜end▁of▁sentence｜>",
};

/// Returns the ids of tokens that end a generated text, ascending.
std::vector<int32_t> ends_of_generation(const Vocabulary& vocabulary) {
  std::set<int32_t> ends;
  for (const int32_t id : {vocabulary.eos, vocabulary.eot, vocabulary.eom}) {
    if (id != kNoToken) ends.insert(id);
  }
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    if (vocabulary.type(id) != TokenType::kControl) continue;
    if (std::ranges::find(kEndTexts, vocabulary.pieces[id]) != std::end(kEndTexts)) ends.insert(id);
  }
  return {ends.begin(), ends.end()};
}

void read_pieces(const Gguf& file, Vocabulary& vocabulary) {
  const auto* pieces = file.strings(key("tokens"));
  if (!pieces) fail(file.name(), ": no metadata key 'tokenizer.ggml.tokens': the file holds no vocabulary");
  vocabulary.pieces.assign(pieces->begin(), pieces->end());
  if (const auto scores = file.floats(key("scores"))) vocabulary.scores = *scores;
  if (const auto types = file.integers(key("token_type"))) {
    for (size_t i = 0; i < types->size(); ++i) {
      const int64_t type = (*types)[i];
      if (type < 0 || type > 6) {
        fail(file.name(), ": metadata key 'tokenizer.ggml.token_type': entry ", i,
             ": expected a type of 1 to 6, found ", type);
      }
      vocabulary.types.push_back(type == 0 ? TokenType::kUnused : static_cast<TokenType>(type));
    }
  }
  if (const auto* merges = file.strings(key("merges"))) vocabulary.merges.assign(merges->begin(), merges->end());
}

std::string read_charsmap(const Gguf& file) {
  const std::string name = key("precompiled_charsmap");
  const GgufValue* value = file.find(name);
  if (!value) return {};
  const GgufType type = value->array.type;
  if (value->type != GgufType::kArray || (type != GgufType::kU8 && type != GgufType::kI8)) {
    fail(file.name(), ": metadata key ", quote(name), ": expected an array of bytes");
  }
  return {reinterpret_cast<const char*>(value->array.data), value->array.count};
}

bool is_byte_piece(std::string_view piece) {
  const auto is_hex = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f');
  };
  return piece.size() == 6 && piece.starts_with("<0x") && is_hex(piece[3]) && is_hex(piece[4]) && piece[5] == '>';
}

}  // namespace

Vocabulary Vocabulary::read(const Gguf& file) {
  Vocabulary vocabulary;
  vocabulary.source = file.name();
  vocabulary.kind = read_kind(file);
  read_pieces(file, vocabulary);
  if (const auto pre = file.string(key("pre"))) vocabulary.pre = *pre;
  set_defaults(vocabulary);
  read_ids(file, vocabulary);
  vocabulary.add_bos = file.boolean(key("add_bos_token")).value_or(vocabulary.add_bos);
  vocabulary.add_eos = file.boolean(key("add_eos_token")).value_or(vocabulary.add_eos);
  vocabulary.add_space_prefix = file.boolean(key("add_space_prefix")).value_or(vocabulary.add_space_prefix);
  vocabulary.remove_extra_whitespaces = file.boolean(key("remove_extra_whitespaces")).value_or(false);
  vocabulary.charsmap = read_charsmap(file);
  vocabulary.chat_template = file.string("tokenizer.chat_template").value_or("");
  vocabulary.check();
  vocabulary.end_of_generation = ends_of_generation(vocabulary);
  return vocabulary;
}

void Vocabulary::check() const {
  if (pieces.empty()) fail(source, ": the vocabulary is empty");
  if (pieces.size() > std::numeric_limits<int32_t>::max()) fail(source, ": the vocabulary has over 2^31 tokens");
  const auto check_count = [&](const char* name, size_t count) {
    if (count != 0 && count != pieces.size()) {
      fail(source, ": metadata key 'tokenizer.ggml.", name, "': expected one entry for each of the ", pieces.size(),
           " tokens, found ", count);
    }
  };
  check_count("scores", scores.size());
  check_count("token_type", types.size());
  for (int32_t id = 0; id < size(); ++id) {
    if (pieces[id].size() > kMaxPieceBytes) {
      fail(source, ": token ", id, ": expected at most ", kMaxPieceBytes, " bytes, found ", pieces[id].size());
    }
    if (std::isnan(score(id)))
      fail(source, ": metadata key 'tokenizer.ggml.scores': entry ", id, " is not a number");
    if (type(id) == TokenType::kByte && !is_byte_piece(pieces[id])) {
      fail(source, ": token ", id, " is of type byte: expected a text such as '<0x0A>', found ", quote(pieces[id]));
    }
  }
  const auto check_id = [&](std::string_view name, int32_t id) {
    if (id < kNoToken || id >= size()) {
      fail(source, ": ", name, ": expected a token id below ", size(), ", found ", id);
    }
  };
  for (const NamedId& named : kIds) check_id(named.key, this->*named.id);
  for (const int32_t id : end_of_generation) check_id("end of generation", id);
  if (add_bos && bos == kNoToken) fail(source, ": add_bos_token is set, but there is no bos_token_id");
  if (add_eos && eos == kNoToken) fail(source, ": add_eos_token is set, but there is no eos_token_id");
}

}  // namespace fathom
