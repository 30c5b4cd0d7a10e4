#pragma once

#include "decode/search.h"

namespace fathom {

/// What a candidate token of a group is penalised for.
enum class BeamDiversity {
  kHamming,     // per beam of an earlier group that chose the same token at the same step
  kCumulative,  // exp(−d / range), d: differing tokens of all beams of earlier groups up to this step
  kNgram,       // per occurrence of the n-gram that it completes in the beams of earlier groups
};

/// The parameters of a beam search in groups.
struct BeamGroupOptions {
  int64_t width = 4;  // beams of all groups; a multiple of `groups`
  int64_t groups = 1;
  double penalty = 0;  // factor of the diversity penalty
  BeamDiversity diversity = BeamDiversity::kHamming;
  double range = 4;           // of kCumulative
  int64_t ngram = 2;          // tokens of an n-gram of kNgram
  double length_penalty = 0;  // hypotheses are ranked by score / (tokens and end)^length_penalty
};

/// The parameters `width` and `length_penalty`, which all beam searches share.
Parameter beam_width_parameter();
Parameter beam_length_penalty_parameter();

/// Returns the `width / groups` best hypotheses of each group, ordered by score. At each step the groups choose in
/// order: a group extends its beams by the tokens with the largest sums of log-probabilities minus the penalties
/// for choices of earlier groups. Of the best width / groups extensions, those that end are stored; the best others
/// are the next beams. A group stops when no beam can exceed its stored hypotheses. Hypotheses that are cut at the
/// token limit are ranked with those that ended.
SearchResult grouped_beam_search(const SearchTask& task, const BeamGroupOptions& options);

}  // namespace fathom
