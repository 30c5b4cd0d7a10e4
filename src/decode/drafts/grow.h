#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "decode/draft.h"
#include "decode/random.h"

namespace fathom {

/// Probabilities of tokens, with sum 1.
using TokenDistribution = std::vector<TokenProbability>;

/// What the functions below grow a draft from.
struct GrowthTask {
  int nodes = 0;         // maximum number of nodes
  bool random = true;    // children are drawn from the distributions; otherwise the first ones are taken (kFixed)
  bool replace = false;  // siblings are drawn independently of each other (kIndependent)
  uint64_t seed = 0;     // of the random numbers
  int64_t position = 0;  // of the roots
  /// Returns the distributions of the children of `nodes` (−1: of the roots), in the order of preference if
  /// `random` is false. Called once for each node, for all nodes of a level together where possible. Fewer results
  /// than nodes: the others cannot be computed, and the draft ends there.
  std::function<std::vector<TokenDistribution>(const Draft& draft, std::span<const int> nodes)> expand{};
};

/// Grows a chain. It ends after a token with a probability below `confidence`, which it keeps: leaving the token
/// out would bias the sampling. The random number of a token depends on its position alone, not on where the chain
/// starts.
Draft grow_chain(const GrowthTask& task, int length, double confidence = 0);

/// Grows a tree in which each node of level l has branching[l] children (fewer if the distribution has fewer
/// tokens). Siblings are distinct, unless task.replace is set. Source: Recursive Speculative Decoding, 2024
/// (RSD-C).
Draft grow_constant(const GrowthTask& task, std::span<const int> branching);

/// Grows a tree by stochastic beam search: each level keeps the `width` sequences with the largest log-probability
/// plus Gumbel noise, which are samples of sequences without replacement. Without random numbers: plain beam
/// search. Source: Recursive Speculative Decoding, 2024 (RSD-S).
Draft grow_beam(const GrowthTask& task, int width, int depth);
/// The same with a width for each level.
Draft grow_beam(const GrowthTask& task, std::span<const int> widths);

struct GreedyGrowth {
  int depth = 8;         // maximum number of levels, which bounds the forward passes
  double threshold = 0;  // > 0: level by level, all children that are reached with a higher probability than this
};

/// Grows the tree whose nodes are most likely to be reached by the verification, if a drawn token is accepted with
/// its probability in the draft model. Source: DySpec: Faster Speculative Decoding with Dynamic Token Tree
/// Structure, 2024.
Draft grow_greedy(const GrowthTask& task, const GreedyGrowth& options);

}  // namespace fathom
