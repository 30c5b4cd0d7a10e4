#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "eval/rng.h"

namespace fathom::eval {

using WordList = std::vector<std::string_view>;

// Word lists, sorted and without duplicates.
const WordList& adjectives();    // "amber", about 170
const WordList& nouns();         // concrete objects, "acorn", about 270; none is in adjectives()
const WordList& first_names();   // "Abigail", about 130
const WordList& towns();         // invented, "Alderby", about 100
const WordList& common_words();  // 3,600 frequent words of English books, lower case, 4 to 10 letters

/// Returns a number of `digits` digits; the first is not 0.
std::string random_number(Rng& rng, int digits);
/// Returns a random UUID, version 4.
std::string random_uuid(Rng& rng);
/// Returns `count` random letters; first: 'A' for capitals, 'a' for lower case.
std::string random_letters(Rng& rng, int count, char first);
/// Returns a pronounceable nonsense word of `syllables` syllables and a final consonant, "bovil". It is an English
/// word only by chance.
std::string nonsense_word(Rng& rng, int syllables);

}  // namespace fathom::eval
