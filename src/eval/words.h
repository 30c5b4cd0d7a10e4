#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "eval/rng.h"

namespace fathom::eval {

using WordList = std::vector<std::string_view>;

// In alphabetical order, all different.
const WordList& adjectives();    // "amber", about 170
const WordList& nouns();         // concrete things, "acorn", about 270; none is an adjective above
const WordList& first_names();   // "Abigail", about 130
const WordList& towns();         // made up, "Alderby", about 100
const WordList& common_words();  // 3,600 frequent words of English books, lower case, 4 to 10 letters

/// `digits` digits, the first not 0.
std::string random_number(Rng& rng, int digits);
/// A random UUID, version 4.
std::string random_uuid(Rng& rng);
/// Random letters: capitals from 'A', or small ones from 'a'.
std::string random_letters(Rng& rng, int count, char first);
/// A pronounceable nonsense word of `syllables` syllables, "bovile"; none is an English word by design, few by
/// chance.
std::string nonsense_word(Rng& rng, int syllables);

}  // namespace fathom::eval
