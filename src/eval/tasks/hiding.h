#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "eval/task.h"
#include "eval/tasks/parts.h"

namespace fathom::eval {

/// Five short sentences that are repeated to make a text without content.
extern const std::string_view kNoiseLine;

/// What is hidden in a text, in pieces that go to different places.
struct Hiding {
  std::vector<std::string> pieces;
  std::vector<double> depths;  // one per piece: 0 at the start, 1 at the end; ascending
};

/// `text` with each piece put at the boundary between sentences nearest to its depth.
std::string hide_in_prose(std::string_view text, const Hiding& hiding);
/// `lines` lines of noise, with the pieces before the line at their depths.
std::string hide_in_noise(int64_t lines, const Hiding& hiding);

/// Adds where `piece`, which the context holds, lies to the evidence.
void add_evidence(Sample& sample, std::string_view piece);
/// RULER's score: the share of the references that the answer holds; how long it is is told beside it, for a model
/// that lists everything is not punished.
Score recall_score(const Sample& sample, const Answer& answer);
/// depths: where the places of a grid are, `depths` of them, the sample's by its index.
double grid_depth(int64_t index, int64_t depths, bool logistic);

}  // namespace fathom::eval
