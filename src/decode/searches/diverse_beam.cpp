// Beam search in groups that are penalised for the choices of earlier groups. The cumulative and n-gram penalties
// are variants of the same paper.
#include "base/error.h"
#include "decode/searches/beam_groups.h"

namespace fathom {
namespace {

BeamDiversity diversity_of(const std::string& kind) {
  if (kind == "cumulative") return BeamDiversity::kCumulative;
  return kind == "ngram" ? BeamDiversity::kNgram : BeamDiversity::kHamming;
}

class DiverseBeamSearch final : public Search {
 public:
  explicit DiverseBeamSearch(const Values& values)
      : options_{.width = values.integer("width"),
                 .groups = values.integer("groups"),
                 .penalty = values.number("penalty"),
                 .diversity = diversity_of(values.string("kind")),
                 .range = values.number("range"),
                 .ngram = values.integer("ngram"),
                 .length_penalty = values.number("length_penalty")} {
    if (options_.width % options_.groups != 0)
      fail_usage("search method diverse-beam: expected a width that is a multiple of groups, found width=",
                 options_.width, " and groups=", options_.groups);
  }
  SearchResult run(const SearchTask& task) const override { return grouped_beam_search(task, options_); }

 private:
  BeamGroupOptions options_;
};

std::vector<Parameter> diverse_beam_parameters() {
  return {beam_width_parameter(),
          {.name = "groups",
           .type = Parameter::Type::kInt,
           .default_value = "4",
           .summary = "groups of width / groups beams; more is more varied; 1 is plain beam search",
           .min = 1,
           .max = 1024},
          {.name = "penalty",
           .type = Parameter::Type::kFloat,
           .default_value = "0.5",
           .summary = "factor of the penalty in nats; more is more varied; 0 makes all groups equal",
           .min = 0,
           .max = 1e6},
          {.name = "kind",
           .type = Parameter::Type::kChoice,
           .default_value = "hamming",
           .summary = "what is penalised: tokens that earlier groups chose at the same step (hamming), similar "
                      "prefixes (cumulative), or n-grams of earlier groups (ngram)",
           .choices = {"hamming", "cumulative", "ngram"}},
          {.name = "range",
           .type = Parameter::Type::kFloat,
           .default_value = "4",
           .summary = "with kind=cumulative, differing tokens that reduce the penalty by the factor e",
           .min = 1e-3,
           .max = 1e6},
          {.name = "ngram",
           .type = Parameter::Type::kInt,
           .default_value = "2",
           .summary = "with kind=ngram, tokens of an n-gram",
           .min = 1,
           .max = 64},
          beam_length_penalty_parameter()};
}

}  // namespace

SearchEntry diverse_beam_search_method() {
  return {{.name = "diverse-beam",
           .summary = "beam search in groups; a group is penalised for tokens that earlier groups chose",
           .paper = "Diverse Beam Search: Decoding Diverse Solutions from Neural Sequence Models, 2016",
           .needs = "any model",
           .time = "width rows per token",
           .memory = "O(width · (max_tokens + v))",
           .parameters = diverse_beam_parameters()},
          [](const Values& values) { return std::make_unique<DiverseBeamSearch>(values); }};
}

}  // namespace fathom
