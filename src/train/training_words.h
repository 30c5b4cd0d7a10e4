#pragma once

#include "eval/words.h"

namespace fathom::train {

// What training tasks speak of: in alphabetical order, none of them a word of the lists that evaluation draws from.
const eval::WordList& training_nouns();       // "abacus", about 160
const eval::WordList& training_adjectives();  // "acrid", about 80
const eval::WordList& training_names();       // "Adewale", about 85

}  // namespace fathom::train
