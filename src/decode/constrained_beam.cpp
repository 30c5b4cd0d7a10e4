#include "decode/constrained_beam.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "decode/candidates.h"
#include "decode/searches/search_run.h"

namespace fathom {
namespace {

/// A token appended to a beam.
struct Extension {
  size_t beam;
  int32_t token;
  double log_probability;  // of the whole text
};

class BeamSearcher {
 public:
  BeamSearcher(const SearchTask& task, const BeamOptions& options)
      : run_(task), tokenizer_(*task.tokenizer), options_(options) {}

  std::vector<Hypothesis> run() {
    std::vector<SearchPath> beams;
    beams.push_back(run_.start());
    for (int64_t step = 0; step < options_.length && !beams.empty(); ++step) {
      const std::vector<Extension> best = extend(beams);
      if (!options_.keep_partial && is_finished(best)) break;
      const bool last = step + 1 == options_.length;
      beams = advance(beams, best, !last);
      if (last || options_.keep_partial)
        for (const SearchPath& beam : beams) found_.push_back(beam.hypothesis(nullptr, beam.log_probability));
    }
    std::ranges::stable_sort(found_, std::greater(), &Hypothesis::score);
    if (!options_.keep_partial && found_.size() > width()) found_.resize(width());
    return std::move(found_);
  }

 private:
  size_t width() const { return static_cast<size_t>(options_.width); }

  /// Returns the best extensions of all beams, and stores the texts that end.
  std::vector<Extension> extend(const std::vector<SearchPath>& beams) {
    std::vector<Extension> extensions;
    for (size_t i = 0; i < beams.size(); ++i) {
      const SearchPath& text = beams[i];
      candidates_.assign(text.session->logits());
      const double log_sum = candidates_.log_sum();
      if (text.constraint) text.constraint->restrict(candidates_);
      double ending = 0;  // probability that an end-of-generation token follows
      size_t ends = 0;
      for (const Candidate& candidate : candidates_.all()) {
        if (!tokenizer_.ends_generation(candidate.id)) continue;
        ending += std::exp(candidate.logit - log_sum);
        ++ends;
      }
      const bool must_end = ends == candidates_.size();
      if (must_end) {
        end(text, text.log_probability);
        continue;
      }
      if (ending > 0) end(text, text.log_probability + std::log(ending));
      for (const Candidate& candidate : candidates_.best(width() + ends)) {
        const double log_probability = text.log_probability + candidate.logit - log_sum;
        if (std::isfinite(log_probability) && !tokenizer_.ends_generation(candidate.id))
          extensions.push_back({i, candidate.id, log_probability});
      }
    }
    std::ranges::sort(extensions, [](const Extension& a, const Extension& b) {
      return std::tuple(-a.log_probability, a.beam, a.token) < std::tuple(-b.log_probability, b.beam, b.token);
    });
    if (extensions.size() > width()) extensions.resize(width());
    return extensions;
  }

  void end(const SearchPath& text, double log_probability) {
    found_.push_back({text.tokens, log_probability, log_probability, true});
  }

  /// Returns whether no extension can be among the best `width` texts.
  bool is_finished(const std::vector<Extension>& best) {
    if (best.empty()) return true;
    if (found_.size() < width()) return false;
    std::ranges::nth_element(found_, found_.begin() + static_cast<ptrdiff_t>(width() - 1), std::greater(),
                             &Hypothesis::score);
    return found_[width() - 1].score >= best.front().log_probability;
  }

  /// Returns the extended beams; read: the model reads their newest tokens.
  std::vector<SearchPath> advance(const std::vector<SearchPath>& beams, const std::vector<Extension>& extensions,
                                  bool read) {
    std::vector<SearchPath> next;
    for (const Extension& extension : extensions) {
      const SearchPath& from = beams[extension.beam];
      SearchPath& beam = next.emplace_back(read ? SearchRun::fork(from) : SearchPath{from.tokens});
      beam.take({extension.token});
      beam.log_probability = extension.log_probability;
    }
    if (!read) return next;
    std::vector<SearchPath*> paths;
    for (SearchPath& beam : next) paths.push_back(&beam);
    run_.read(paths);
    return next;
  }

  SearchRun run_;
  const Tokenizer& tokenizer_;
  const BeamOptions& options_;
  Candidates candidates_;
  std::vector<Hypothesis> found_;
};

}  // namespace

std::vector<Hypothesis> constrained_beam(const Session& session, const Tokenizer& tokenizer,
                                         const Constraint* constraint, const BeamOptions& options) {
  SearchTask task;
  task.session = &session;
  task.tokenizer = &tokenizer;
  task.max_tokens = options.length;
  task.constraint = constraint;
  task.progress = options.progress;
  return BeamSearcher(task, options).run();
}

}  // namespace fathom
