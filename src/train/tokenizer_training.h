#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tokens/vocabulary.h"
#include "train/corpus.h"

namespace fathom::train {

/// Returns a random sample of the corpus's paragraphs of at most `bytes` bytes, for training a tokenizer. All
/// paragraphs are equally likely; the choice depends only on `seed`, the document's name and the paragraph's
/// number. Every paragraph but a document's first begins with the newline before it; long ones are cut at spaces.
/// They are sorted by document name, then by position in the text. Throws Error if no paragraph fits.
std::vector<std::string> sample_paragraphs(const Corpus& corpus, int64_t bytes, uint64_t seed);

/// Options of train_sentence_piece.
struct TokenizerTraining {
  int32_t vocabulary = 8192;           // pieces, including 3 special tokens, the newline and 256 bytes
  double character_coverage = 0.9995;  // share of all characters that get their own piece; others become bytes
};

/// Trains a SentencePiece BPE model. Returns the bytes of its file. Ids: unknown 0, BOS 1, EOS 2. The newline is a
/// piece that no other piece contains, digits are single pieces, other characters become bytes, a space is put
/// before the text, and there is no normalisation. The same texts give the same model. Throws Error if there are no
/// texts, too few texts for the number of pieces, or too few pieces for the characters.
std::string train_sentence_piece(const std::vector<std::string>& texts, const TokenizerTraining& training);

/// Returns the vocabulary of a model of train_sentence_piece(). Throws Error for other bytes.
Vocabulary vocabulary_of_sentence_piece(const std::string& model);

}  // namespace fathom::train
