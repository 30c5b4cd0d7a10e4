#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::eval {

// LongProc's scoring rules (LongProc: Benchmarking Long-Context Language Models on Long Procedural Generation,
// 2025).

/// Scores of an answer. accuracy: 1 if everything is correct, else 0; for tables, F1 of the rows. partial: the
/// share of the trace before the first error; for tables, recall of the rows.
struct ProcedureScore {
  double accuracy = 0, partial = 0;
};

/// Returns the trimmed text between <tag> and </tag>; empty if one of them is missing.
std::string_view between_tags(std::string_view text, std::string_view tag);

/// accuracy: the lines in <Route> tags equal those of `route`. partial: (number of the first wrong line, from 1) /
/// lines.
ProcedureScore score_path(std::string_view answer, std::string_view route);
/// accuracy: the three equations in <Solution> tags use each number once and end with the target. partial: the
/// share of the lines after "# Search Procedure" before the first wrong one. A "Try" line is correct if the text
/// before '=' matches and both lines or neither drop the branch.
ProcedureScore score_countdown(std::string_view answer, std::vector<int64_t> numbers, int64_t target,
                               std::string_view procedure);
/// Compares the lines that begin with '-' with those of `trace`, ignoring case, punctuation and filler words.
ProcedureScore score_tracking(std::string_view answer, std::string_view trace);
/// accuracy: the plan in <Plan> tags visits the cities in order, each for its days. partial: the share of stays
/// before the first wrong one (LongProc's own partial score, of the lines of the search, is not computed).
ProcedureScore score_travel(std::string_view answer, const std::vector<std::string>& cities,
                            const std::vector<int64_t>& days);
/// accuracy: F1 of the rows below the header; cells are compared in lower case without punctuation, articles and
/// spaces. A row with a wrong number of cells is wrong. The table may be in a ```tsv block.
ProcedureScore score_table(std::string_view answer, std::string_view table);

}  // namespace fathom::eval
