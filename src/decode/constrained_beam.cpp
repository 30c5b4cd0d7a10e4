#include "decode/constrained_beam.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <tuple>
#include <utility>

#include "decode/candidates.h"

namespace fathom {
namespace {

/// A continuation that may be continued.
struct Beam {
  Hypothesis text;
  std::unique_ptr<Session> session;        // after the text
  std::unique_ptr<ConstraintState> state;  // null: no constraint
};

/// A token appended to a beam.
struct Extension {
  size_t beam;
  int32_t token;
  double log_probability;  // of the whole text
};

class BeamSearcher {
 public:
  BeamSearcher(const Tokenizer& tokenizer, const BeamOptions& options) : tokenizer_(tokenizer), options_(options) {}

  std::vector<Hypothesis> run(const Session& session, const Constraint* constraint) {
    std::vector<Beam> beams;
    beams.push_back({{}, std::make_unique<Session>(session.fork()), constraint ? constraint->start() : nullptr});
    for (int64_t step = 0; step < options_.length && !beams.empty(); ++step) {
      const std::vector<Extension> best = extend(beams);
      if (!options_.keep_partial && is_finished(best)) break;
      const bool last = step + 1 == options_.length;
      beams = advance(beams, best, !last);
      if (last || options_.keep_partial)
        for (const Beam& beam : beams) found_.push_back(beam.text);
    }
    std::ranges::stable_sort(found_, std::greater(), &Hypothesis::score);
    if (!options_.keep_partial && found_.size() > width()) found_.resize(width());
    return std::move(found_);
  }

 private:
  size_t width() const { return static_cast<size_t>(options_.width); }

  /// Returns the best extensions of all beams, and stores the texts that end.
  std::vector<Extension> extend(const std::vector<Beam>& beams) {
    std::vector<Extension> extensions;
    for (size_t i = 0; i < beams.size(); ++i) {
      const Hypothesis& text = beams[i].text;
      candidates_.assign(beams[i].session->logits());
      const double log_sum = candidates_.log_sum();
      if (beams[i].state) beams[i].state->restrict(candidates_);
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

  void end(Hypothesis text, double log_probability) {
    text.log_probability = text.score = log_probability;
    text.ended = true;
    found_.push_back(std::move(text));
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
  std::vector<Beam> advance(const std::vector<Beam>& beams, const std::vector<Extension>& extensions, bool read) {
    std::vector<Beam> next;
    std::vector<Session*> sessions;
    std::vector<int32_t> tokens;
    for (const Extension& extension : extensions) {
      const Beam& from = beams[extension.beam];
      Beam beam{from.text, nullptr, from.state ? from.state->fork() : nullptr};
      beam.text.tokens.push_back(extension.token);
      beam.text.log_probability = beam.text.score = extension.log_probability;
      if (read) {
        if (beam.state) beam.state->take(extension.token);
        beam.session = std::make_unique<Session>(from.session->fork());
        sessions.push_back(beam.session.get());
        tokens.push_back(extension.token);
      }
      next.push_back(std::move(beam));
    }
    if (!sessions.empty()) {
      Session::step(sessions, tokens);
      tokens_read_ += std::ssize(tokens);
      if (options_.progress) options_.progress(tokens_read_);
    }
    return next;
  }

  const Tokenizer& tokenizer_;
  const BeamOptions& options_;
  Candidates candidates_;
  std::vector<Hypothesis> found_;
  int64_t tokens_read_ = 0;
};

}  // namespace

std::vector<Hypothesis> constrained_beam(const Session& session, const Tokenizer& tokenizer,
                                         const Constraint* constraint, const BeamOptions& options) {
  return BeamSearcher(tokenizer, options).run(session, constraint);
}

}  // namespace fathom
