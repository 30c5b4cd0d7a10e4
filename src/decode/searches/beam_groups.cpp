#include "decode/searches/beam_groups.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "base/error.h"
#include "decode/searches/search_run.h"

namespace fathom {
namespace {

/// A beam and the sum of its log-probabilities and penalties.
struct GroupBeam {
  SearchPath path;
  double score = 0;
};

/// A token that may extend a beam.
struct GroupExtension {
  size_t beam = 0;
  NextToken next;
  double score = 0;
};

/// The beams of one group.
struct BeamGroup {
  std::vector<GroupBeam> beams;
  BestHypotheses found;
};

/// The tokens that one beam has chosen, the last one at the current step.
using Choices = std::vector<int32_t>;

/// The penalties of the tokens after one beam, before the factor.
struct TokenPenalties {
  double others = 0;                 // of tokens that are not in `tokens`
  std::map<int32_t, double> tokens;  // all at least `others`
  double of(int32_t token) const {
    const auto found = tokens.find(token);
    return found == tokens.end() ? others : found->second;
  }
};

int64_t differing(const Choices& earlier, std::span<const int32_t> tokens) {
  int64_t count = 0;
  for (size_t i = 0; i < tokens.size(); ++i) count += earlier[i] != tokens[i] ? 1 : 0;
  return count;
}

class GroupedBeamSearch {
 public:
  GroupedBeamSearch(const SearchTask& task, const BeamGroupOptions& options)
      : run_(task), options_(options), width_(static_cast<size_t>(options.width / options.groups)) {}

  SearchResult run() {
    for (int64_t g = 0; g < options_.groups; ++g) {
      groups_.push_back({{}, BestHypotheses(width_)});
      groups_.back().beams.push_back({run_.start()});
    }
    for (int64_t tokens = 0; std::ranges::any_of(groups_, [](const BeamGroup& g) { return !g.beams.empty(); });
         ++tokens) {
      std::vector<Choices> chosen;
      for (BeamGroup& group : groups_) advance(group, tokens + 1, chosen);
      read_newest();
    }
    std::vector<Hypothesis> all;
    for (const BeamGroup& group : groups_)
      all.insert(all.end(), group.found.all().begin(), group.found.all().end());
    std::ranges::stable_sort(all, ranks_before);
    return run_.result(std::move(all));
  }

 private:
  /// Chooses the beams of a group with `tokens` tokens, and adds its choices to those of earlier groups.
  void advance(BeamGroup& group, int64_t tokens, std::vector<Choices>& chosen) const {
    const std::vector<GroupExtension> ranked = rank(group, chosen);
    std::vector<GroupExtension> kept;
    std::vector<Choices> own;
    for (size_t i = 0; i < ranked.size() && kept.size() < width_; ++i) {
      const GroupExtension& extension = ranked[i];
      const GroupBeam& beam = group.beams[extension.beam];
      if (!extension.next.ends) {
        kept.push_back(extension);
      } else if (i < width_) {
        group.found.add(beam.path.hypothesis(&extension.next, final_score(extension.score, tokens)));
      } else {
        continue;
      }
      own.push_back(beam.path.tokens);
      own.back().push_back(extension.next.token);
    }
    chosen.insert(chosen.end(), own.begin(), own.end());
    group.beams = extend(std::move(group.beams), kept);
    if (tokens == run_.max_tokens()) {
      for (const GroupBeam& beam : group.beams)
        group.found.add(beam.path.hypothesis(nullptr, final_score(beam.score, tokens)));
      group.beams.clear();
    }
    const auto can_improve = [&](const GroupBeam& beam) {
      return final_score(beam.score, run_.max_tokens()) > group.found.bound();
    };
    if (std::ranges::none_of(group.beams, can_improve)) group.beams.clear();
  }

  /// Returns the extensions of all beams of a group, best first: at least its width that do not end, unless there
  /// are fewer.
  std::vector<GroupExtension> rank(const BeamGroup& group, const std::vector<Choices>& chosen) const {
    std::vector<GroupExtension> ranked;
    for (size_t b = 0; b < group.beams.size(); ++b) {
      const GroupBeam& beam = group.beams[b];
      const TokenPenalties penalties = penalties_after(beam.path.tokens, chosen);
      NextTokens next = run_.next(beam.path);
      std::vector<NextToken> tokens = next.best(width_ + penalties.tokens.size());
      if (next.end()) tokens.push_back(*next.end());
      for (const NextToken& token : tokens)
        ranked.push_back(
            {b, token, beam.score + token.log_probability - options_.penalty * penalties.of(token.token)});
    }
    std::ranges::sort(ranked, [&](const GroupExtension& a, const GroupExtension& b) {
      if (a.score != b.score) return a.score > b.score;
      const auto& left = group.beams[a.beam].path.tokens;
      const auto& right = group.beams[b.beam].path.tokens;
      return left != right ? left < right : a.next.token < b.next.token;
    });
    return ranked;
  }

  TokenPenalties penalties_after(std::span<const int32_t> tokens, const std::vector<Choices>& chosen) const {
    TokenPenalties penalties;
    if (options_.penalty == 0 || chosen.empty()) return penalties;
    switch (options_.diversity) {
      case BeamDiversity::kHamming:
        for (const Choices& earlier : chosen) ++penalties.tokens[earlier.back()];
        break;
      case BeamDiversity::kCumulative:
        add_cumulative(tokens, chosen, penalties);
        break;
      case BeamDiversity::kNgram:
        for (const Choices& earlier : chosen) add_ngrams(tokens, earlier, penalties);
        break;
    }
    return penalties;
  }

  void add_cumulative(std::span<const int32_t> tokens, const std::vector<Choices>& chosen,
                      TokenPenalties& penalties) const {
    double differences = static_cast<double>(chosen.size());  // of a token that no earlier beam chose
    for (const Choices& earlier : chosen) differences += static_cast<double>(differing(earlier, tokens));
    penalties.others = std::exp(-differences / options_.range);
    std::map<int32_t, double> equal;
    for (const Choices& earlier : chosen) ++equal[earlier.back()];
    for (const auto& [token, count] : equal)
      penalties.tokens[token] = std::exp(-(differences - count) / options_.range);
  }

  void add_ngrams(std::span<const int32_t> tokens, const Choices& earlier, TokenPenalties& penalties) const {
    const size_t before = static_cast<size_t>(options_.ngram) - 1;
    if (tokens.size() < before) return;
    const std::span<const int32_t> newest = tokens.last(before);
    for (size_t i = before; i < earlier.size(); ++i)
      if (std::ranges::equal(std::span(earlier).subspan(i - before, before), newest))
        ++penalties.tokens[earlier[i]];
  }

  /// Returns the extended beams. A beam is forked for all its extensions but the last one; beams without extensions
  /// are freed.
  static std::vector<GroupBeam> extend(std::vector<GroupBeam> beams, std::span<const GroupExtension> extensions) {
    std::vector<int> uses(beams.size());
    for (const GroupExtension& extension : extensions) ++uses[extension.beam];
    std::vector<GroupBeam> extended;
    for (const GroupExtension& extension : extensions) {
      SearchPath& path = beams[extension.beam].path;
      const bool last = --uses[extension.beam] == 0;
      extended.push_back({last ? std::move(path) : SearchRun::fork(path), extension.score});
      extended.back().path.take(extension.next);
    }
    return extended;
  }

  void read_newest() {
    std::vector<SearchPath*> paths;
    for (BeamGroup& group : groups_)
      for (GroupBeam& beam : group.beams) paths.push_back(&beam.path);
    run_.read(paths);
  }

  double final_score(double score, int64_t tokens) const {
    return score / std::pow(static_cast<double>(tokens), options_.length_penalty);
  }

  SearchRun run_;
  const BeamGroupOptions& options_;
  size_t width_;  // of one group
  std::vector<BeamGroup> groups_;
};

}  // namespace

Parameter beam_width_parameter() {
  return {.name = "width",
          .type = Parameter::Type::kInt,
          .default_value = "4",
          .summary = "beams, and hypotheses returned; more finds likelier ones and takes more time",
          .min = 1,
          .max = 1024};
}

Parameter beam_length_penalty_parameter() {
  return {.name = "length_penalty",
          .type = Parameter::Type::kFloat,
          .default_value = "0",
          .summary =
              "hypotheses are ranked by log-probability / length^length_penalty; 0 prefers short ones, 1 "
              "ranks by the mean",
          .min = 0,
          .max = 10};
}

SearchResult grouped_beam_search(const SearchTask& task, const BeamGroupOptions& options) {
  if (options.width < 1 || options.groups < 1 || options.width % options.groups != 0)
    fail_usage("beam search: expected a width that is a multiple of groups, found width=", options.width,
               " and groups=", options.groups);
  return GroupedBeamSearch(task, options).run();
}

}  // namespace fathom
