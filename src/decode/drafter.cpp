#include "decode/drafter.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/format.h"
#include "base/stopwatch.h"
#include "decode/drafts/merge.h"

namespace fathom {
namespace {

/// Sources that need neither training nor another model, in the order in which ties are resolved.
constexpr const char* kAutomatic[] = {"suffix", "copy", "recycle"};

bool drafts_work(const Session& session) {
  return session.draft_shape() != Session::DraftShape::kNone && session.options().evict == "none";
}

/// Returns the methods and session options on which costs and acceptance depend.
std::string memory_key(std::span<const std::string> methods, const Session& session) {
  const SessionOptions& options = session.options();
  std::string key = concat(options.attend, " ", options.position, " ", options.cache, " ", options.layers);
  for (const AdapterScale& adapter : options.adapters) key += concat(" ", adapter.scale);
  for (const std::string& method : methods) key += concat(" ", method);
  return key;
}

}  // namespace

void check_draft_method(const std::string& method) {
  if (method == "auto" || method == "none") return;
  const Spec spec = parse_spec(method);
  check_values(spec, draft_methods().find(spec).info.parameters);
}

void check_drafts_work(const Session& session, const std::string& method) {
  if (session.options().evict != "none")
    fail_usage("--draft ", method, " does not work with --evict ", session.options().evict,
               ": an eviction between the tokens of a draft would change what follows; expected --draft none");
  if (!drafts_work(session))
    fail_usage("--draft ", method, ": ", "--attend ", session.options().attend,
               " or the model does not work with drafts, expected --draft none");
}

Drafter::Drafter(const DraftOptions& options, const DraftSetup& setup)
    : session_(*setup.session), fixed_nodes_(options.nodes) {
  if (options.nodes < 0 || options.nodes >= DraftTree::kMaxNodes)
    fail_usage("--draft-nodes: expected 0 to ", DraftTree::kMaxNodes - 1, ", found ", options.nodes);
  std::vector<std::string> names;
  for (const std::string& method : options.methods) {
    if (method == "none") continue;
    if (method == "auto") {
      if (drafts_work(session_)) names.insert(names.end(), std::begin(kAutomatic), std::end(kAutomatic));
      continue;
    }
    check_drafts_work(session_, method);
    names.push_back(method);
  }
  if (names.empty()) return;
  std::vector<std::unique_ptr<DraftSource>> sources;
  std::vector<std::string> report_names;
  for (const std::string& name : names) {
    sources.push_back(draft_methods().make(name, setup));
    std::string label = parse_spec(name).name;
    if (const auto same = std::ranges::count_if(report_names, [&](const std::string& other) {
          return other == label || other.starts_with(label + " ");
        }))
      label += concat(" ", same + 1);
    report_names.push_back(std::move(label));
  }
  for (size_t i = 0; i < sources.size() && sources.size() > 1; ++i)
    if (sources[i]->needs().alone || sources[i]->changes_text())
      fail_usage("--draft ", names[i],
                 ": its drafts cannot be united with those of other sources, expected it alone");
  use(sources.size() == 1 ? std::move(sources[0]) : merge_sources(std::move(sources)), std::move(report_names));
  memory_ = setup.memory;
  if (!memory_) return;
  memory_key_ = memory_key(names, session_);
  if (const std::optional<DraftMemory::Entry> earlier = memory_->find(memory_key_)) {
    budget_ = earlier->budget;
    if (earlier->experience) source_->adopt(*earlier->experience);
  }
}

Drafter::Drafter(std::unique_ptr<DraftSource> source, std::string name, int nodes, Session& session)
    : session_(session), fixed_nodes_(nodes) {
  use(std::move(source), {std::move(name)});
}

void Drafter::use(std::unique_ptr<DraftSource> source, std::vector<std::string> names) {
  source_ = std::move(source);
  // A text that depends on its drafts must not depend on measured times.
  if (source_->changes_text() && fixed_nodes_ == 0) fixed_nodes_ = DraftTree::kMaxNodes - 1;
  needs_ = source_->needs();
  std::set<int> layers(session_.hidden_layers().begin(), session_.hidden_layers().end());
  layers.insert(needs_.hidden_layers.begin(), needs_.hidden_layers.end());
  if (layers.size() > session_.hidden_layers().size()) session_.keep_hidden({layers.begin(), layers.end()});
  report_ = DraftReport(std::move(names));
}

/// Returns the part of Session::hidden or draft_hidden that the source needs. Valid until the next call.
std::span<const float> Drafter::needed_hidden(std::span<const float> kept) {
  return select_hidden(kept, session_.hidden_layers(), needs_.hidden_layers, hidden_);
}

void Drafter::start(std::span<const int32_t> prompt) {
  const Stopwatch watch;
  source_->start(prompt);
  start_seconds_ = watch.seconds();
}

Draft Drafter::propose(DraftContext context, int most) {
  const Stopwatch watch;
  context.hidden = needed_hidden(session_.hidden());
  context_ = session_.length();
  const int nodes = std::min(most, fixed_nodes_ > 0 ? fixed_nodes_ : budget_.nodes(context_));
  Draft draft;
  if (nodes > 0) draft = source_->propose(context, nodes);
  if (session_.draft_shape() == Session::DraftShape::kChain) draft = best_chain(std::move(draft));
  if (draft.size() > 0 && fixed_nodes_ == 0) budget_.prune(draft);
  draft_seconds_ = watch.seconds();
  return draft;
}

void Drafter::observe(DraftOutcome outcome, const NodeLogits& logits, double seconds) {
  const Stopwatch watch;
  top_.clear();
  if (needs_.top_k > 0) {
    for (int node = -1; node < outcome.draft->size(); ++node) append_top_logits(logits(node), needs_.top_k, top_);
    outcome.top = top_;
    outcome.top_k = needs_.top_k;
  }
  outcome.hidden = needed_hidden(outcome.draft->size() > 0 ? session_.draft_hidden() : session_.hidden());
  outcome.logits = logits;
  source_->observe(outcome);
  draft_seconds_ += watch.seconds();
  budget_.observe({.context = context_,
                   .draft_seconds = draft_seconds_,
                   .verify_seconds = seconds,
                   .draft = outcome.draft,
                   .accepted = outcome.accepted,
                   .emitted = outcome.emitted});
  report_.add(*outcome.draft, outcome.accepted, std::ssize(outcome.emitted), draft_seconds_ + start_seconds_);
  start_seconds_ = 0;
}

void Drafter::finish(std::span<const int32_t> tokens) {
  source_->finish(tokens);
  if (memory_) memory_->store(memory_key_, {budget_, source_->experience()});
}

Draft best_chain(Draft draft) {
  if (draft.tree.is_chain()) return draft;
  // reach: estimated probability that a node is accepted; gain: expected number of accepted nodes on its path
  std::vector<double> reach(draft.size()), gain(draft.size());
  int best = 0;
  for (int node = 0; node < draft.size(); ++node) {
    const int parent = draft.tree.parent(node);
    const double estimate = draft.estimates.empty() ? 0.5 : draft.estimates[node];
    reach[node] = (parent < 0 ? 1 : reach[parent]) * estimate;
    gain[node] = (parent < 0 ? 0 : gain[parent]) + reach[node];
    if (gain[node] > gain[best]) best = node;
  }
  Draft chain;
  for (const int node : draft.tree.path(best)) {
    chain.add(chain.size() - 1, draft.tokens[node], draft.estimates.empty() ? 0.5f : draft.estimates[node]);
    if (!draft.sources.empty()) chain.sources.push_back(draft.sources[node]);
  }
  return chain;
}

}  // namespace fathom
