#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "eval/task.h"
#include "eval/tasks/parts.h"

namespace fathom::eval {

/// The line of five short sentences that is repeated to make text without content.
extern const std::string_view kNoiseLine;

/// Texts to hide and their depths.
struct HiddenPieces {
  std::vector<std::string> texts;
  std::vector<double> depths;  // one per text, ascending; 0: at the start, 1: at the end
};

/// Inserts each hidden text at the sentence boundary nearest to its depth.
std::string hide_in_prose(std::string_view text, const HiddenPieces& hidden);
/// Returns `lines` lines of noise with each hidden text as a line at its depth.
std::string hide_in_noise(int64_t lines, const HiddenPieces& hidden);

/// Adds the span of `piece`, which must occur in the context, to the evidence.
void add_evidence(Sample& sample, std::string_view piece);
/// RULER's score: the share of the references that occur in the answer. The details contain the answer's number of
/// words, because listing everything is not penalised.
Score recall_score(const Sample& sample, const Answer& answer);
/// Returns the depth of sample `index`: samples cycle through a grid of `depths` depths from 0 to 1, evenly spaced
/// or, if `logistic`, denser near both ends.
double grid_depth(int64_t index, int64_t depths, bool logistic);

}  // namespace fathom::eval
