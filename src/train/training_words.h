#pragma once

#include "eval/words.h"

namespace fathom::train {

// Word lists of training tasks, in alphabetical order. They share no word with the lists of evaluation.
const eval::WordList& training_nouns();       // "abacus", about 160
const eval::WordList& training_adjectives();  // "acrid", about 80
const eval::WordList& training_names();       // "Adewale", about 85

}  // namespace fathom::train
