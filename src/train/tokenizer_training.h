#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tokens/vocabulary.h"
#include "train/corpus.h"

namespace fathom::train {

/// Paragraphs of the corpus for training a tokenizer, up to `bytes` of them: each is as likely to be taken as any
/// other, by `seed`, its document's name and its number alone. All but a document's first begin with the newline
/// before them; long ones are cut at spaces. In order of names, then of the text.
std::vector<std::string> sample_paragraphs(const Corpus& corpus, int64_t bytes, uint64_t seed);

struct TokenizerTraining {
  int32_t vocabulary = 8192;           // pieces, with the 3 special tokens, the newline and the 256 bytes
  double character_coverage = 0.9995;  // share of all characters that get a piece of their own; the rest are bytes
};

/// A SentencePiece model (its file's bytes) of pairs merged by frequency (BPE): unknown 0, BOS 1, EOS 2, newline a
/// piece of its own that no other holds, digits alone, other characters as bytes, a space put before text, no
/// normalisation. The same texts give the same model. Throws Error when there are no texts, too few for so many
/// pieces, or too few pieces for the characters.
std::string train_sentence_piece(const std::vector<std::string>& texts, const TokenizerTraining& training);

/// The vocabulary of a model that train_sentence_piece() made. Throws Error for other bytes.
Vocabulary vocabulary_of_sentence_piece(const std::string& model);

}  // namespace fathom::train
