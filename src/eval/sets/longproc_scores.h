#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::eval {

// LongProc's rules (LongProc: Benchmarking Long-Context Language Models on Long Procedural Generation, 2025).

/// accuracy: all is right, or F1 of rows; partial: how far the trace is right, or recall of rows.
struct ProcedureScore {
  double accuracy = 0, partial = 0;
};

/// What stands between <tag> and </tag>, trimmed; empty without both.
std::string_view between_tags(std::string_view text, std::string_view tag);

/// The lines in <Route> tags are those of `route`. partial: (number of the first wrong line, from 1)/lines.
ProcedureScore score_path(std::string_view answer, std::string_view route);
/// The three equations in <Solution> tags use each number once and end with the target. partial: the lines behind
/// "# Search Procedure" before the first wrong one; of a "Try" line what stands before '=' and whether the branch
/// is dropped must be right.
ProcedureScore score_countdown(std::string_view answer, std::vector<int64_t> numbers, int64_t target,
                               std::string_view procedure);
/// The lines that begin with '-' are those of `trace`, but for case, punctuation and filling words.
ProcedureScore score_tracking(std::string_view answer, std::string_view trace);
/// The plan in <Plan> tags visits the cities in order, each for its days. partial: the share of stays before the
/// first wrong one (LongProc's own, of the search's lines, is not counted).
ProcedureScore score_travel(std::string_view answer, const std::vector<std::string>& cities,
                            const std::vector<int64_t>& days);
/// F1 of rows below the header, cells in lower case without punctuation, articles and spaces; of a row with too
/// many or few cells none is right. The table may stand in a ```tsv block.
ProcedureScore score_table(std::string_view answer, std::string_view table);

}  // namespace fathom::eval
