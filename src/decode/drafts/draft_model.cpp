#include "decode/drafts/draft_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>

#include "base/error.h"
#include "base/format.h"

namespace fathom {
namespace {

constexpr float kExcluded = -std::numeric_limits<float>::infinity();  // logit of a token that is not chosen

/// Returns the name of a model for messages.
std::string model_name(const Model& model) {
  if (model.file()) return model.file()->name();
  return concat("the model ", model.config().name.empty() ? model.config().architecture : model.config().name);
}

/// Calls `read`. Returns false if it fails for lack of memory or was interrupted.
template <class Read>
bool can_read(const Read& read) {
  try {
    read();
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  } catch (const Error& error) {
    if (error.kind() != Error::Kind::kOutOfMemory && error.kind() != Error::Kind::kInterrupted) throw;
    return false;
  }
}

/// Returns what the sampler draws from.
TokenDistribution sampled_distribution(Sampler& sampler, std::span<const float> logits,
                                       std::span<const int32_t> history) {
  const Candidates& drawn = sampler.distribution(logits, history);
  const double log_sum = drawn.log_sum();
  TokenDistribution distribution;
  for (const Candidate& candidate : drawn.all()) {
    const auto probability = static_cast<float>(std::exp(candidate.logit - log_sum));
    if (probability > 0) distribution.push_back({candidate.id, probability});
  }
  return distribution;
}

/// Returns the tokens that a greedy sampler prefers, best first.
TokenDistribution greedy_choices(Sampler& sampler, std::span<const float> logits, std::span<const int32_t> history,
                                 int choices) {
  TokenDistribution tokens;
  Candidates plain;
  plain.assign(logits);
  const double log_sum = plain.log_sum();
  if (sampler.plain()) {
    std::vector<TokenLogit> best;
    append_top_logits(logits, choices, best);
    for (const auto& [token, logit] : best)
      if (const double probability = std::exp(logit - log_sum); probability > 0)
        tokens.push_back({token, static_cast<float>(probability)});
    return tokens;
  }
  std::vector<float> left(logits.begin(), logits.end());  // without the tokens that were taken
  double least = 1;
  for (int32_t token = sampler.distribution(logits, history).all()[0].id;;) {
    if (!(left[token] > kExcluded)) return tokens;  // a constraint allows no others
    least = std::min(least, std::exp(logits[token] - log_sum));
    if (!(least > 0)) return tokens;
    tokens.push_back({token, static_cast<float>(least)});
    if (std::ssize(tokens) >= std::min<int64_t>(choices, std::ssize(logits))) return tokens;
    left[token] = kExcluded;
    if (std::ranges::max(left) == kExcluded) return tokens;
    token = sampler.distribution(left, history).all()[0].id;
  }
}

/// Returns the tokens that a sampler prefers with its own random numbers of a position, best first.
TokenDistribution matching_choices(Sampler& sampler, std::span<const float> logits,
                                   std::span<const int32_t> history, int64_t position, int choices) {
  const Candidates& candidates = sampler.distribution(logits, history);
  const double log_sum = candidates.log_sum();
  TokenDistribution tokens;
  for (const Candidate& best : draw_best(candidates, sampler.seed(), position, choices)) {
    const auto probability = static_cast<float>(std::exp(best.logit - log_sum));
    if (probability > 0) tokens.push_back({best.id, probability});
  }
  return tokens;
}

/// Returns the tokens with at least `share` of the largest probability, in plain softmax.
std::vector<TokenProbability> likely_tokens(std::span<const float> logits, float share) {
  Candidates plain;
  plain.assign(logits);
  const double log_sum = plain.log_sum(), least = plain.max_logit() + std::log(share);
  std::vector<TokenProbability> tokens;
  for (const Candidate& candidate : plain.all())
    if (candidate.logit >= least)
      tokens.push_back({candidate.id, static_cast<float>(std::exp(candidate.logit - log_sum))});
  return tokens;
}

}  // namespace

Parameter rule_parameter() {
  return {.name = "rule",
          .type = Parameter::Type::kChoice,
          .default_value = "match",
          .summary =
              "with sampling: match: drafts use the random numbers of the sampler, and the text is the same as "
              "without drafts; reject: drafts use their own, and the text has the same distribution",
          .choices = {"match", "reject"}};
}

TokenDistribution child_distribution(Sampler& sampler, std::span<const float> logits,
                                     std::span<const int32_t> history, int64_t position, DraftRule rule,
                                     int choices) {
  if (sampler.greedy()) return greedy_choices(sampler, logits, history, choices);
  if (rule == DraftRule::kMatch) return matching_choices(sampler, logits, history, position, choices);
  return sampled_distribution(sampler, logits, history);
}

DraftRule read_rule(const Values& values) {
  return values.string("rule") == "match" ? DraftRule::kMatch : DraftRule::kReject;
}

GrowthTask growth_task(const DraftContext& context, int nodes, DraftRule rule) {
  GrowthTask task;
  task.nodes = std::min(nodes, DraftTree::kMaxNodes - 1);
  task.random = !context.sampler->greedy() && rule == DraftRule::kReject;
  task.seed = context.sampler->seed();
  task.position = context.position;
  return task;
}

std::shared_ptr<const Model> open_draft_model(const std::string& method, const std::string& file,
                                              const DraftSetup& setup) {
  const std::shared_ptr<const Model> model = Model::open(file);
  const std::string target = model_name(*setup.model);
  const int64_t expected = setup.model->config().vocabulary, found = model->config().vocabulary;
  if (found != expected)
    fail_usage("--draft ", method, ": ", file, " has ", found, " tokens and ", target, " has ", expected,
               ": expected a model with the same vocabulary");
  if (!setup.tokenizer) return model;
  const Vocabulary vocabulary = Vocabulary::read(*model->file());
  if (vocabulary.size() != setup.tokenizer->size())
    fail_usage("--draft ", method, ": ", file, " has ", vocabulary.size(), " tokens and ", target, " has ",
               setup.tokenizer->size(), ": expected a model with the same vocabulary");
  const Tokenizer tokenizer(vocabulary);
  for (int32_t id = 0; id < tokenizer.size(); ++id) {
    if (tokenizer.piece(id) == setup.tokenizer->piece(id)) continue;
    fail_usage("--draft ", method, ": token ", id, " is ", quote(tokenizer.piece(id)), " in ", file, " and ",
               quote(setup.tokenizer->piece(id)), " in ", target, ": expected a model with the same vocabulary");
  }
  return model;
}

DraftModel::DraftModel(std::shared_ptr<const Model> model, std::shared_ptr<Runtime> runtime, SessionOptions options)
    : session_(std::move(model), std::move(runtime), std::move(options)),
      recurrent_(session_.sequence().has_recurrent_layers()) {}

void DraftModel::check_trees() {
  Session trial = session_.fork();
  const std::vector<int32_t> tokens{0, 0};
  trial.append(std::span(tokens).first(1));
  DraftTree tree;
  tree.add(-1);
  tree.add(-1);
  trial.draft(tree, tokens);
  trial.accept({});
}

bool DraftModel::append(Session& session, std::span<const int32_t> tokens) {
  const int64_t context = session.options().context;
  if (context > 0 && session.length() + std::ssize(tokens) > context) return false;
  ++forwards_;
  return can_read([&] { session.append(tokens); });
}

/// Closes the open tree. Appends its nodes that continue the text with the tokens `after`.
void DraftModel::close_tree(std::span<const int32_t> after) {
  open_ = false;
  std::vector<int> path;
  for (const int32_t token : after) {
    const int child = tree_.find_child(path.empty() ? -1 : path.back(), token);
    if (child < 0) break;
    path.push_back(child);
  }
  if (!can_read([&] { session_.accept(path); })) path.clear();
  for (const int node : path) held_.push_back(tree_.tokens[node]);
}

void DraftModel::keep(std::span<const int32_t> text) {
  branch_.reset();
  const auto common = std::ranges::mismatch(held_, text).in1 - held_.begin();
  const bool continues = common == std::ssize(held_);
  if (open_) close_tree(continues ? text.subspan(common) : std::span<const int32_t>());
  if (continues) return;
  session_.rewind(std::ssize(held_) - common);
  held_.resize(common);
}

bool DraftModel::follow(std::span<const int32_t> text) {
  const auto read = [&] {
    keep(text);
    if (text.empty() || (held_.size() == text.size() && !session_.logits().empty())) return;
    if (held_.size() == text.size()) keep(text.first(text.size() - 1));
    const auto missing = text.subspan(held_.size());
    append(session_, missing);
    held_.insert(held_.end(), missing.begin(), missing.begin() + session_.length() - std::ssize(held_));
  };
  return can_read(read) && !text.empty() && held_.size() == text.size();
}

std::vector<std::span<const float>> DraftModel::tree_logits(const Draft& draft, std::span<const int> nodes) {
  const int64_t vocabulary = session_.model().config().vocabulary, context = session_.options().context;
  std::vector<std::span<const float>> logits;
  if (nodes[0] < 0) {
    logits.push_back(session_.logits());
    return logits;
  }
  if (context > 0 && session_.length() + draft.size() > context) return {};
  if (open_) close_tree({});
  ++forwards_;
  if (!can_read([&] { rows_ = session_.draft(draft.tree, draft.tokens); })) return {};
  open_ = true;
  tree_ = {.tree = draft.tree, .tokens = draft.tokens};
  for (const int node : nodes) logits.push_back(rows_.subspan(node * vocabulary, vocabulary));
  return logits;
}

std::vector<std::span<const float>> DraftModel::chain_logits(const Draft& draft, int node) {
  if (node < 0) return {session_.logits()};
  if (recurrent_ && !branch_) branch_.emplace(session_.fork());
  const int32_t token = draft.tokens[node];
  if (!append(branch_ ? *branch_ : session_, {&token, 1})) return {};
  if (branch_) return {branch_->logits()};
  held_.push_back(token);
  return {session_.logits()};
}

std::function<std::vector<TokenDistribution>(const Draft&, std::span<const int>)> DraftModel::expand(
    NodeOptions options) {
  likely_.clear();
  return [this, options, text = std::vector<int32_t>(options.history.begin(), options.history.end())](
             const Draft& draft, std::span<const int> nodes) mutable {
    const size_t before = text.size();
    const auto ends = [&](int node) {
      return node >= 0 && options.tokenizer && options.tokenizer->ends_generation(draft.tokens[node]);
    };
    std::vector<TokenDistribution> distributions;
    if (std::ranges::all_of(nodes, ends)) return distributions;
    const auto logits = options.tree ? tree_logits(draft, nodes) : chain_logits(draft, nodes[0]);
    for (size_t i = 0; i < logits.size(); ++i) {
      TokenDistribution& distribution = distributions.emplace_back();
      if (ends(nodes[i])) continue;
      if (nodes[i] >= 0)
        for (const int node : draft.tree.path(nodes[i])) text.push_back(draft.tokens[node]);
      const int64_t position = options.position + (nodes[i] < 0 ? 0 : draft.tree.depth(nodes[i]) + 1);
      if (options.likely_share > 0) likely_.push_back(likely_tokens(logits[i], options.likely_share));
      distribution = child_distribution(*options.sampler, logits[i], text, position, options.rule, options.choices);
      text.resize(before);
    }
    return distributions;
  };
}

}  // namespace fathom
