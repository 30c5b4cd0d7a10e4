// Drafts with a small model that has the same vocabulary: chains, or trees whose siblings are distinct samples.
#include <algorithm>
#include <charconv>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/format.h"
#include "decode/draft.h"
#include "decode/drafts/draft_model.h"
#include "decode/drafts/grow.h"

namespace fathom {
namespace {

constexpr int kMaxDraft = DraftTree::kMaxNodes - 1;  // nodes; the root of a tree is the pending token

/// Parses the numbers of children of the levels: "2+2+2".
std::vector<int> parse_branching(const std::string& text) {
  std::vector<int> branching;
  int64_t level = 1, nodes = 0;
  for (const char *at = text.data(), *end = at + text.size(); at <= end;) {
    int count = 0;
    const auto [next, error] = std::from_chars(at, end, count);
    level *= count;
    nodes += level;
    if (error != std::errc() || count < 1 || nodes > kMaxDraft || (next != end && *next != '+'))
      fail_usage("--draft model: b: expected the numbers of children of each level, such as 2+2+2, with at most ",
                 kMaxDraft, " nodes in all, found ", quote(text));
    branching.push_back(count);
    at = next + 1;
  }
  return branching;
}

class ModelSource final : public DraftSource {
 public:
  ModelSource(const Values& values, const DraftSetup& setup)
      : tree_(values.string("tree")),
        length_(static_cast<int>(values.integer("length"))),
        width_(static_cast<int>(values.integer("width"))),
        depth_(static_cast<int>(values.integer("depth"))),
        nodes_(static_cast<int>(values.integer("nodes"))),
        replace_(values.boolean("replace")),
        rule_(read_rule(values)),
        confidence_(values.number("confidence")),
        threshold_(values.number("threshold")),
        branching_(parse_branching(values.string("b"))),
        tokenizer_(setup.tokenizer),
        model_(open_draft_model("model", file(values), setup), setup.runtime, options(values, setup)) {
    if (replace_ && tree_ != "rsd-c") fail_usage("--draft model: replace=true works with tree=rsd-c only");
    if (tree_ == "chain") return;
    try {
      model_.check_trees();
    } catch (const Error& error) {
      fail_usage("--draft model: tree=", tree_, " does not work with ", file(values), ": ", error.what(),
                 "; expected tree=chain");
    }
  }

  void start(std::span<const int32_t> prompt) override { model_.follow(prompt); }

  Draft propose(const DraftContext& context, int nodes) override {
    if (!model_.follow(context.tokens)) return {};
    GrowthTask task = growth_task(context, nodes, rule_);
    task.replace = replace_;
    task.expand = model_.expand({.sampler = context.sampler,
                                 .history = context.tokens,
                                 .tokenizer = tokenizer_,
                                 .tree = tree_ != "chain",
                                 .choices = choices(),
                                 .rule = rule_,
                                 .position = context.position});
    if (tree_ == "chain") return grow_chain(task, length_, confidence_);
    if (tree_ == "rsd-c") return grow_constant(task, branching_);
    if (tree_ == "rsd-s") return grow_beam(task, width_, depth_);
    return grow_dynamic(task);
  }

  void observe(const DraftOutcome& outcome) override { model_.keep(outcome.tokens); }

 private:
  static const std::string& file(const Values& values) {
    if (!values.has("file"))
      fail_usage("--draft model: expected file=FILE, a small model with the same vocabulary");
    return values.string("file");
  }
  static SessionOptions options(const Values& values, const DraftSetup& setup) {
    SessionOptions options;
    options.context = values.integer("context");
    options.attend = values.string("attend");
    options.cache = values.string("cache");
    if (setup.session) options.stop = setup.session->options().stop;
    return options;
  }

  /// Returns the largest number of children of a node that can be useful.
  int choices() const {
    constexpr int kMost = 8;  // a child after these has less than 1/9 of the probability of its parent
    if (tree_ == "chain") return 1;
    return tree_ == "rsd-c" ? std::ranges::max(branching_) : std::min(tree_ == "rsd-s" ? width_ : nodes_, kMost);
  }

  /// Adapts the threshold, so that the tree gets nearly as many nodes as it may have.
  Draft grow_dynamic(GrowthTask& task) {
    constexpr double kStep = 1.25, kLeast = 1e-4, kMost = 0.9;  // about ten drafts from 0.1 to 0.01
    task.nodes = std::min(task.nodes, nodes_);
    Draft draft = grow_greedy(task, {.depth = depth_, .threshold = threshold_});
    if (threshold_ > 0)
      threshold_ = std::clamp(draft.size() < task.nodes ? threshold_ / kStep : threshold_ * kStep, kLeast, kMost);
    return draft;
  }

  std::string tree_;
  int length_, width_, depth_, nodes_;
  bool replace_;
  DraftRule rule_;
  double confidence_, threshold_;
  std::vector<int> branching_;
  const Tokenizer* tokenizer_;
  DraftModel model_;
};

}  // namespace

DraftEntry model_method() {
  using Type = Parameter::Type;
  return {
      {.name = "model",
       .summary = "a small model with the same vocabulary drafts a chain or a tree of tokens",
       .paper = "Recursive Speculative Decoding, 2024; DySpec, 2024",
       .exact = true,
       .needs = "a small model with the same vocabulary",
       .time = "one pass of the small model per level of the draft",
       .memory = "weights and cache of the small model",
       .parameters =
           {{.name = "file", .type = Type::kString, .summary = "model file (GGUF)"},
            {.name = "tree",
             .type = Type::kChoice,
             .default_value = "chain",
             .summary = "shape: chain; rsd-c: b children per node; rsd-s: stochastic beam search; dyspec: the "
                        "nodes that are most likely to be tested",
             .choices = {"chain", "rsd-c", "rsd-s", "dyspec"}},
            {.name = "length",
             .type = Type::kInt,
             .default_value = "4",
             .summary = "tokens of a chain; more pays off if most are accepted",
             .min = 1,
             .max = kMaxDraft},
            {.name = "confidence",
             .type = Type::kFloat,
             .default_value = "0",
             .summary = "a chain ends after a token with a lower probability; more: shorter chains",
             .min = 0,
             .max = 1},
            {.name = "b",
             .type = Type::kString,
             .default_value = "2+2+2",
             .summary = "rsd-c: children per node, level by level"},
            {.name = "replace",
             .type = Type::kBool,
             .default_value = "false",
             .summary = "rsd-c: draws siblings independently, so that they can be equal"},
            {.name = "width",
             .type = Type::kInt,
             .default_value = "4",
             .summary = "rsd-s: sequences per level",
             .min = 1,
             .max = kMaxDraft},
            {.name = "depth",
             .type = Type::kInt,
             .default_value = "4",
             .summary = "rsd-s, dyspec: levels, each with one pass of the small model",
             .min = 1,
             .max = kMaxDraft},
            {.name = "nodes",
             .type = Type::kInt,
             .default_value = "16",
             .summary = "dyspec: tokens of a tree",
             .min = 1,
             .max = kMaxDraft},
            {.name = "threshold",
             .type = Type::kFloat,
             .default_value = "0",
             .summary = "dyspec: grows level by level and adds what is tested with a higher probability; adapts "
                        "to the number of nodes; 0: grows in order of probability",
             .min = 0,
             .max = 0.9},
            rule_parameter(),
            {.name = "context",
             .type = Type::kInt,
             .default_value = "0",
             .summary = "longest text in tokens for which the small model drafts; 0: limited only by memory",
             .min = 0,
             .max = 1e12},
            {.name = "attend",
             .type = Type::kSpec,
             .default_value = "dense",
             .summary = "--attend method of the small model"},
            {.name = "cache",
             .type = Type::kString,
             .default_value = "bf16",
             .summary = "--cache method of the small model"}}},
      [](const Values& values, const DraftSetup& setup) { return std::make_unique<ModelSource>(values, setup); }};
}

}  // namespace fathom
