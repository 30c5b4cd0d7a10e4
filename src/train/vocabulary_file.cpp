#include "train/vocabulary_file.h"

#include <string>
#include <vector>

#include "base/error.h"

namespace fathom::train {
namespace {

std::string key(std::string_view name) { return concat("tokenizer.ggml.", name); }

const char* kind_name(VocabularyKind kind) {
  switch (kind) {
    case VocabularyKind::kSentencePiece:
      return "llama";
    case VocabularyKind::kUnigram:
      return "t5";
    case VocabularyKind::kByteLevelBpe:
      return "gpt2";
    case VocabularyKind::kWordPiece:
      return "bert";
  }
  fail("unknown kind of vocabulary");
}

void write_ids(GgufWriter& writer, const Vocabulary& v) {
  const auto write = [&](const char* name, int32_t id) {
    if (id != kNoToken) writer.set(key(name), GgufType::kU32, static_cast<uint64_t>(id));
  };
  write("bos_token_id", v.bos);
  write("eos_token_id", v.eos);
  write("unknown_token_id", v.unknown);
  write("padding_token_id", v.padding);
  write("eot_token_id", v.eot);
  write("eom_token_id", v.eom);
  write("seperator_token_id", v.separator);  // the format's spelling
  write("mask_token_id", v.mask);
}

}  // namespace

void write_vocabulary(GgufWriter& writer, const Vocabulary& vocabulary) {
  vocabulary.check();
  if (!vocabulary.charsmap.empty())
    fail(vocabulary.source, ": the vocabulary has normalisation rules, which cannot be written to GGUF");
  writer.set_string(key("model"), kind_name(vocabulary.kind));
  if (vocabulary.kind == VocabularyKind::kByteLevelBpe) writer.set_string(key("pre"), vocabulary.pre);
  writer.set_strings(key("tokens"), vocabulary.pieces);
  if (!vocabulary.scores.empty()) writer.set_floats(key("scores"), vocabulary.scores);
  if (!vocabulary.types.empty()) {
    std::vector<int32_t> types;
    for (const TokenType type : vocabulary.types) types.push_back(static_cast<int32_t>(type));
    writer.set_integers(key("token_type"), types);
  }
  if (!vocabulary.merges.empty()) writer.set_strings(key("merges"), vocabulary.merges);
  write_ids(writer, vocabulary);
  writer.set(key("add_bos_token"), GgufType::kBool, vocabulary.add_bos);
  writer.set(key("add_eos_token"), GgufType::kBool, vocabulary.add_eos);
  writer.set(key("add_space_prefix"), GgufType::kBool, vocabulary.add_space_prefix);
  if (vocabulary.remove_extra_whitespaces) writer.set(key("remove_extra_whitespaces"), GgufType::kBool, true);
  if (!vocabulary.chat_template.empty()) writer.set_string("tokenizer.chat_template", vocabulary.chat_template);
}

}  // namespace fathom::train
