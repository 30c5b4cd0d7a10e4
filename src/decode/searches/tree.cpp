// Monte Carlo tree search over continuations. A node is a span of tokens: one of the most likely first tokens,
// continued greedily. The model's confidence serves as prior and value. A simulation selects a leaf by
// Q + c·P·√N / (1 + n), expands it into its alternatives and evaluates each of them by a greedy roll-out, all in
// one batch. After the simulations the best child of the root is committed and is the next root; the others are
// freed.
#include <algorithm>
#include <cmath>
#include <utility>

#include "decode/searches/search_run.h"

namespace fathom {
namespace {

struct TreeOptions {
  int64_t span, branch, rollout, simulations;
  double c;
  bool max_backup, sentences;
};

/// A path and the statistics of the values of its evaluated continuations.
struct TreeNode {
  SearchPath path{};  // its session is freed when the node is expanded or terminal
  double prior = 0;   // probability of the first token of the span
  int32_t first = 0;  // that token
  bool ended = false, cut = false;
  bool complete = false;  // whether all continuations are evaluated
  int64_t visits = 0;
  double sum = 0, best = 0;  // of the values
  std::vector<std::unique_ptr<TreeNode>> children{};

  bool terminal() const { return ended || cut; }
  /// Number of tokens with the end.
  int64_t length() const { return std::ssize(path.tokens) + (ended ? 1 : 0); }
  double value(bool max_backup) const { return max_backup ? best : sum / static_cast<double>(visits); }
  void add(double value) {
    ++visits;
    sum += value;
    best = std::max(best, value);
  }
};

/// Returns exp(mean log-probability) of all generated tokens.
double confidence(double log_probability, int64_t tokens) {
  return std::exp(log_probability / static_cast<double>(tokens));
}

class TreeSearchRun {
 public:
  TreeSearchRun(const SearchTask& task, const TreeOptions& options) : run_(task), options_(options) {}

  SearchResult run() {
    root_ = std::make_unique<TreeNode>();
    root_->path = run_.start();
    while (!root_->terminal()) {
      int64_t left = options_.simulations;
      while (left > 0 && !root_->complete && root_->children.size() != 1) left -= simulate();
      if (root_->children.empty()) break;  // no token is possible
      root_ = std::move(root_->children[best_child()]);
    }
    if (root_->length() == 0) return run_.result({});
    const double score = confidence(root_->path.log_probability, root_->length());
    return run_.result({{root_->path.tokens, root_->path.log_probability, score, root_->ended}});
  }

 private:
  /// Runs one simulation and returns the number of values that it added.
  int64_t simulate() {
    std::vector<TreeNode*> line{root_.get()};
    while (!line.back()->children.empty()) line.push_back(&select(*line.back()));
    TreeNode& leaf = *line.back();
    if (leaf.terminal()) {
      const double value = confidence(leaf.path.log_probability, leaf.length());
      for (TreeNode* node : line) node->add(value);
      return 1;
    }
    expand(leaf);
    const std::vector<double> values = evaluate(leaf);
    for (size_t i = 0; i < values.size(); ++i) {
      leaf.children[i]->add(values[i]);
      for (TreeNode* node : line) node->add(values[i]);
    }
    leaf.complete = leaf.children.empty();
    for (size_t i = line.size(); i-- > 0;)
      if (std::ranges::all_of(line[i]->children, &TreeNode::complete)) line[i]->complete = true;
    return std::max<int64_t>(std::ssize(values), 1);
  }

  TreeNode& select(TreeNode& node) const {
    TreeNode* selected = nullptr;
    double best = 0;
    const double root = std::sqrt(static_cast<double>(node.visits));
    for (const auto& child : node.children) {
      if (child->complete) continue;
      const double score = child->value(options_.max_backup) +
                           options_.c * child->prior * root / static_cast<double>(1 + child->visits);
      if (!selected || score > best || (score == best && child->first < selected->first)) {
        selected = child.get();
        best = score;
      }
    }
    return *selected;
  }

  /// Adds the children of a node and reads their spans.
  void expand(TreeNode& node) {
    NextTokens next = run_.next(node.path);
    std::vector<NextToken> firsts = next.best(static_cast<size_t>(options_.branch));
    if (next.end()) firsts.push_back(*next.end());
    std::ranges::sort(firsts, [](const NextToken& a, const NextToken& b) {
      return a.log_probability != b.log_probability ? a.log_probability > b.log_probability : a.token < b.token;
    });
    if (std::ssize(firsts) > options_.branch) firsts.resize(static_cast<size_t>(options_.branch));
    for (const NextToken& first : firsts) {
      auto& child = *node.children.emplace_back(std::make_unique<TreeNode>());
      child.path = SearchRun::fork(node.path);
      child.prior = std::exp(first.log_probability);
      child.first = first.token;
      take(child, first);
    }
    node.path.session.reset();
    extend(node.children, [&](const TreeNode& child, int64_t taken) {
      return taken < options_.span && !ends_sentence(child.path.tokens.back());
    });
  }

  /// Extends nodes greedily, all in one batch per token, while `more` returns true for the number of tokens that a
  /// node has taken. Reads their newest tokens.
  template <class Nodes, class More>
  void extend(const Nodes& nodes, const More& more) {
    std::vector<TreeNode*> open;
    for (const auto& node : nodes)
      if (!node->terminal()) open.push_back(node.get());
    for (int64_t taken = 1; !open.empty(); ++taken) {
      std::vector<SearchPath*> paths;
      for (TreeNode* node : open) paths.push_back(&node->path);
      run_.read(paths);
      std::erase_if(open, [&](TreeNode* node) {
        if (!more(*node, taken)) return true;
        take_greedy(*node);
        return node->terminal();
      });
    }
  }

  /// Returns the values of the children of a node after greedy roll-outs.
  std::vector<double> evaluate(const TreeNode& node) {
    std::vector<std::unique_ptr<TreeNode>> ends;
    for (const auto& child : node.children) {
      auto& end = *ends.emplace_back(std::make_unique<TreeNode>());
      end.ended = child->ended;
      end.cut = child->cut;
      const bool roll = options_.rollout > 0 && options_.branch > 1 && !child->terminal();
      if (roll) {
        end.path = SearchRun::fork(child->path);
        take_greedy(end);
      } else {
        end.path.tokens = child->path.tokens;
        end.path.log_probability = child->path.log_probability;
        end.cut = true;
      }
    }
    roll_out(ends);
    std::vector<double> values;
    for (const auto& end : ends) values.push_back(confidence(end->path.log_probability, end->length()));
    return values;
  }

  /// Extends the ends of roll-outs, which have one token, to the roll-out's length. The newest token is not read.
  void roll_out(std::span<const std::unique_ptr<TreeNode>> ends) {
    for (int64_t taken = 1; taken < options_.rollout; ++taken) {
      std::vector<SearchPath*> paths;
      for (const auto& end : ends)
        if (!end->terminal()) paths.push_back(&end->path);
      run_.read(paths);
      for (const auto& end : ends)
        if (!end->terminal()) take_greedy(*end);
    }
  }

  void take_greedy(TreeNode& node) const {
    NextTokens next = run_.next(node.path);
    if (const auto token = next.greedy()) {
      take(node, *token);
    } else {
      node.cut = true;
      close(node);
    }
  }

  /// Appends a token to a node, which may end it.
  void take(TreeNode& node, const NextToken& next) const {
    if (next.ends) {
      node.path.log_probability += next.log_probability;
      node.ended = true;
    } else {
      node.path.take(next);
      node.cut = std::ssize(node.path.tokens) >= run_.max_tokens();
    }
    if (node.terminal()) close(node);
  }
  void close(TreeNode& node) const {
    node.path.session.reset();
    node.complete = options_.max_backup;  // another visit would change the mean, but not the largest value
  }

  /// Returns the index of the child to commit: the one with the largest value for max back-up, else the one with
  /// the most visits.
  size_t best_child() const {
    const auto rank = [&](const std::unique_ptr<TreeNode>& child) {
      const double visits = static_cast<double>(child->visits), value = child->value(options_.max_backup);
      return options_.max_backup ? std::tuple(-value, -visits, child->first)
                                 : std::tuple(-visits, -value, child->first);
    };
    return std::ranges::min_element(root_->children, {}, rank) - root_->children.begin();
  }

  bool ends_sentence(int32_t token) const {
    const Tokenizer* tokenizer = run_.task().tokenizer;
    if (!options_.sentences || !tokenizer) return false;
    const std::string& piece = tokenizer->piece(token);
    return !piece.empty() && std::string_view(".!?\n").find(piece.back()) != std::string_view::npos;
  }

  SearchRun run_;
  const TreeOptions& options_;
  std::unique_ptr<TreeNode> root_;
};

class TreeSearch final : public Search {
 public:
  explicit TreeSearch(const Values& values)
      : options_{.span = values.integer("span"),
                 .branch = values.integer("branch"),
                 .rollout = values.integer("rollout"),
                 .simulations = values.integer("simulations"),
                 .c = values.number("c"),
                 .max_backup = values.string("backup") == "max",
                 .sentences = values.boolean("sentences")} {}
  SearchResult run(const SearchTask& task) const override { return TreeSearchRun(task, options_).run(); }

 private:
  TreeOptions options_;
};

std::vector<Parameter> tree_parameters() {
  using Type = Parameter::Type;
  return {{.name = "span",
           .type = Type::kInt,
           .default_value = "8",
           .summary = "tokens of a node",
           .min = 1,
           .max = 4096},
          {.name = "branch",
           .type = Type::kInt,
           .default_value = "3",
           .summary = "alternatives after each node; 1 is greedy decoding",
           .min = 1,
           .max = 1024},
          {.name = "c",
           .type = Type::kFloat,
           .default_value = "1.5",
           .summary = "weight of rarely visited alternatives; more explores more",
           .min = 0,
           .max = 1e6},
          {.name = "rollout",
           .type = Type::kInt,
           .default_value = "16",
           .summary = "greedy tokens after a node that its value includes",
           .min = 0,
           .max = 65536},
          {.name = "simulations",
           .type = Type::kInt,
           .default_value = "64",
           .summary = "values computed per committed node; more finds better ones and takes more time",
           .min = 1,
           .max = 1e6},
          {.name = "backup",
           .type = Type::kChoice,
           .default_value = "mean",
           .summary = "the value of a node with children: the mean or the largest of the values below it",
           .choices = {"mean", "max"}},
          {.name = "sentences",
           .type = Type::kBool,
           .default_value = "true",
           .summary = "whether a node also ends at the end of a sentence or line"}};
}

}  // namespace

SearchEntry tree_search_method() {
  return {
      {.name = "tree",
       .summary = "Monte Carlo tree search over spans of tokens, with the model's confidence as prior and value",
       .paper = "LLM Tree Search, 2024",
       .needs = "any model",
       .time = "about simulations · (span + rollout) rows per node, in batches of `branch`",
       .memory = "O(simulations · (span + v))",
       .parameters = tree_parameters()},
      [](const Values& values) { return std::make_unique<TreeSearch>(values); }};
}

}  // namespace fathom
