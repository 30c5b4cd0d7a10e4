#include "decode/searches/beam_groups.h"

namespace fathom {
namespace {

class BeamSearch final : public Search {
 public:
  explicit BeamSearch(const Values& values)
      : options_{.width = values.integer("width"), .length_penalty = values.number("length_penalty")} {}
  SearchResult run(const SearchTask& task) const override { return grouped_beam_search(task, options_); }

 private:
  BeamGroupOptions options_;
};

}  // namespace

SearchEntry beam_search_method() {
  return {{.name = "beam",
           .summary = "extends the most likely continuations token by token; ended ones are kept until no open one "
                      "can exceed them",
           .needs = "any model",
           .time = "width rows per token",
           .memory = "O(width · (max_tokens + v))",
           .parameters = {beam_width_parameter(), beam_length_penalty_parameter()}},
          [](const Values& values) { return std::make_unique<BeamSearch>(values); }};
}

}  // namespace fathom
