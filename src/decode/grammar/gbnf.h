#pragma once

#include <string>
#include <string_view>

#include "decode/grammar/grammar.h"

namespace fathom {

/// Parses a grammar in GBNF, the notation of llama.cpp: rules `name ::= …` with literals "…", classes […], `.`,
/// groups (…), alternatives |, repetitions ? * + {m} {m,} {m,n}, and comments from # to the end of the line. A rule
/// ends with its line, except inside of groups and after | and ::=. The texts are those of the rule `root`. source:
/// the name of the grammar, for messages. Throws Error with line and column.
Grammar parse_gbnf(std::string_view text, const std::string& source);

}  // namespace fathom
