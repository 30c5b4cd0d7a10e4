// Task "chains": names are set to a number or to another name. Questions ask for all names with a number, or for
// the number of a name.
#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "eval/metrics.h"
#include "eval/words.h"
#include "train/training_parts.h"

namespace fathom::train {
namespace {

constexpr int64_t kMaxNames = 4;

// Templates of assignments: {k} is set to {v}, a number or a name.
constexpr std::string_view kAssignments[] = {"{k} = {v}", "{k} = {v}", "{k} := {v}", "{k} <- {v}",
                                             "set {k} to {v}"};
constexpr std::string_view kNotations[] = {"{k} = {v}",
                                           "{k} = {v}",
                                           "set {k} to {v}",
                                           "{k} := {v}",
                                           "{k} <- {v}",
                                           "let {k} be {v}",
                                           "{v} goes into {k}",
                                           "DEF {k} {v}",
                                           "put {v} in {k}",
                                           "{k} takes {v}",
                                           "{k}: {v}",
                                           "{v} -> {k}",
                                           "{k} copies {v}",
                                           "store {v} as {k}",
                                           "{k} becomes {v}",
                                           "assign {v} to {k}",
                                           "{k} is the same as {v}",
                                           "make {k} equal {v}",
                                           "{k} == {v}",
                                           "from now on {k} is {v}",
                                           "({k} {v})",
                                           "write {k} wherever {v} is meant",
                                           "{k} | {v}"};
/// The prefix of names in assignments, and the noun for one and for several of them.
struct KnownNameKind {
  std::string_view before, one, many;
};
constexpr KnownNameKind kNameKinds[] = {
    {"", "name", "names"},      {"", "name", "names"},       {"", "sign", "signs"},
    {"", "symbol", "symbols"},  {"NAME ", "name", "names"},  {"CELL ", "cell", "cells"},
    {"SLOT ", "slot", "slots"}, {"box ", "box", "boxes"},    {"jar ", "jar", "jars"},
    {"BIN ", "bin", "bins"},    {"REG ", "place", "places"}, {"X ", "name", "names"},
    {"$", "name", "names"},     {"#", "entry", "entries"},   {"drawer ", "drawer", "drawers"}};
// Templates of answers: {v} number, {c} count of the names followed by a space, or nothing, {n} noun for the names.
constexpr std::string_view kLeadBegins[] = {"",
                                            "In all, ",
                                            "Step by step, ",
                                            "As told above, ",
                                            "In the end ",
                                            "Going along the lines, ",
                                            "So ",
                                            "By then ",
                                            "From what stands there ",
                                            "After all these lines ",
                                            "Counting everything, ",
                                            "One line after the other, "};
constexpr std::string_view kLeads[] = {"{v} is found in {c}{n}:",
                                       "{v} sits in {c}{n}:",
                                       "{v} ended up in {c}{n}:",
                                       "{v} belongs to {c}{n}:",
                                       "{v} went on to {c}{n}:",
                                       "{v} was passed to {c}{n}:",
                                       "{v} can be read from {c}{n}:",
                                       "{v} comes with {c}{n},",
                                       "we get {v} from {c}{n} -",
                                       "to {v} come {c}{n}:",
                                       "{v} = {c}{n}:",
                                       "{v} makes {c}{n}:",
                                       "{v} lies with {c}{n}:",
                                       "{v} was given to {c}{n}:",
                                       "the ones with {v}, {c}{n}:",
                                       "{c}{n} have {v}:",
                                       "{c}{n} stand for {v}:",
                                       "with {v} there are {c}{n}:",
                                       "{v} is what {c}{n} got:",
                                       "for {v} the {n} are"};
constexpr std::string_view kAsked[] = {
    "which {n} come to {v}?", "where does {v} end up?", "name the {n} with {v}.",  "{v}?",
    "all {n} for {v}.",       "who has {v}?",           "find {v} and follow it.", "which {n} got {v} in turn?"};
constexpr std::string_view kAskedForward[] = {"which number does {k} come to?", "what does {k} hold at last?",
                                              "{k}?", "follow {k} down to a number.", "solve {k}."};
constexpr std::string_view kForward[] = {"{k} comes to {v}", "{k} = {v}", "{k}: {v}", "behind {k} there is {v}",
                                         "{k} leads to {v}"};
constexpr std::string_view kPrefaces[] = {"Names stand for numbers here, and for other names.",
                                          "Follow who gets what.",
                                          "Keep track of every number and where it goes.",
                                          "Some lines pass a number on.",
                                          "Numbers are handed from one to the next; note who has them.",
                                          "Work out which {n} get the same number."};
// Templates of the number in an answer: {t} noun for the numbers of a text, {v} number.
constexpr std::string_view kNumbers[] = {"{v}", "the {t} {v}", "the {t} {v}", "one {t}, {v}", "{t} {v}"};
constexpr std::string_view kBetween[] = {" ", " ", " ", ", ", ", ", " and ", "; "};

struct NameKind {
  std::string before, one, many;
};

/// Returns a known kind, or one made of a word of a book: "HILL AB = 12", "all hills with 12".
NameKind draw_name_kind(eval::Rng& rng, const ProseSource& prose) {
  const std::vector<std::string> words = passage_words(rng, prose);
  if (words.empty() || rng.below(3) == 0) {
    const KnownNameKind& known = rng.pick(kNameKinds);
    return {std::string(known.before), std::string(known.one), std::string(known.many)};
  }
  const std::string& noun = rng.pick(words);
  NameKind kind{"", noun, noun + "s"};
  switch (rng.below(5)) {
    case 0:
      break;
    case 1:
      kind.before = noun + " ";
      break;
    case 2:
      kind.before = eval::random_letters(rng, static_cast<int>(rng.between(2, 4)), 'A') + " ";
      break;
    default:
      kind.before = (rng.below(2) == 0 ? noun.substr(0, rng.between(3, 4)) : noun) + " ";
      for (char& c : kind.before) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return kind;
}

struct NameChain {
  std::string number;
  std::vector<std::string> names;  // the first is set to the number, each further one to the name before it
};

/// The wording that a text and its worked example share.
struct ChainWording {
  std::string notation, preface, question, lead, end, between;
  std::string forward_question, forward;
  NameKind kind;
  bool counted, own_lines;
};

ChainWording draw_wording(eval::Rng& rng, const ProseSource& prose) {
  ChainWording wording;
  const Marks& marks = draw_marks(rng);
  const bool small = rng.below(4) == 0;
  const auto cased = [&](std::string_view text) { return small ? std::string(text) : capital(std::string(text)); };
  constexpr std::string_view kEnds[] = {"", "", ".", ";"};
  wording.own_lines = rng.below(3) != 0;
  wording.notation = cased(rng.below(2) == 0 ? rng.pick(kAssignments) : rng.pick(kNotations)) +
                     std::string(wording.own_lines ? rng.pick(kEnds) : ".");
  wording.kind = draw_name_kind(rng, prose);
  wording.counted = rng.below(3) != 0;
  if (rng.below(2) == 0) wording.preface = filled(rng.pick(kPrefaces), {{'n', wording.kind.many}});
  if (rng.below(5) != 0) {
    wording.question = concat(marks.question, cased(rng.pick(kAsked)), "\n", marks.answer);
    wording.forward_question = concat(marks.question, cased(rng.pick(kAskedForward)), "\n", marks.answer);
  }
  const std::string number = filled(rng.below(2) == 0 ? rng.pick(kNumbers) : "{v}", {{'t', draw_noun(rng)}});
  wording.lead = cased(concat(rng.pick(kLeadBegins), filled(rng.pick(kLeads), {{'v', number}})));
  wording.forward = cased(rng.pick(kForward));
  wording.between = rng.pick(kBetween);
  wording.end = rng.below(2) == 0 ? "\n" : ".\n";
  return wording;
}

/// Returns whether a template of this task contains the word.
bool is_template_word(const std::string& name) {
  static const std::set<std::string, std::less<>> words = [] {
    std::vector<std::string_view> forms;
    add_chain_templates(forms);
    std::set<std::string, std::less<>> found;
    for (const std::string_view form : forms)
      for (const std::string_view word : eval::split_words(form)) found.emplace(word);
    return found;
  }();
  return words.contains(name);
}

class ChainNames {
 public:
  explicit ChainNames(eval::Rng& rng) : rng_(rng) { redraw(); }
  /// Draws length and style of the names again.
  void redraw() {
    constexpr int kLetters[] = {2, 3, 3, 4, 4, 6, 6};
    letters_ = rng_.pick(kLetters);
    capitals_ = rng_.below(3) != 0;
    nonsense_ = rng_.below(4) == 0;
  }
  std::string name() {
    for (;;) {
      std::string drawn =
          nonsense_ ? eval::nonsense_word(rng_, 2) : eval::random_letters(rng_, letters_, capitals_ ? 'A' : 'a');
      if (!is_template_word(drawn) && used_.insert(drawn).second) return drawn;
    }
  }
  std::string number(int digits) {
    for (;;) {
      std::string drawn = eval::random_number(rng_, digits);
      if (used_.insert(drawn).second) return drawn;
    }
  }

 private:
  eval::Rng& rng_;
  int letters_ = 0;
  bool capitals_ = false, nonsense_ = false;
  std::set<std::string> used_;
};

class ChainSource final : public TaskSource {
 public:
  ChainSource() : TaskSource("chains") {}

  MarkedText make(eval::Rng rng, const ProseSource& prose, int64_t bytes) const override {
    constexpr int64_t kExample = 800;  // minimum bytes of a text with a worked example
    const ChainWording wording = draw_wording(rng, prose);
    const Surroundings around(rng, prose);
    const int digits = training_digits(rng);
    ChainNames names(rng);
    MarkedText marked;
    const bool shown = bytes >= kExample && rng.below(5) != 0;
    if (shown) {
      add_part(wording, around, names, digits, std::min<int64_t>(bytes / 3, rng.between(250, 1500)), 1, rng,
               marked);
      marked.text += '\n';
      if (rng.below(4) != 0) names.redraw();
    }
    const bool crowded = rng.below(2) == 0;
    const int64_t max_chains = bytes < 800    ? 1
                               : crowded      ? std::min<int64_t>(bytes / 500, 12)
                               : bytes < 1500 ? 2
                                              : 3;
    add_part(wording, around, names, digits, bytes - std::ssize(marked.text), max_chains, rng, marked);
    return marked;
  }

 private:
  /// Appends a text with up to `max_chains` chains, and the questions about it.
  static void add_part(const ChainWording& wording, const Surroundings& around, ChainNames& names, int digits,
                       int64_t bytes, int64_t max_chains, eval::Rng& rng, MarkedText& marked) {
    std::vector<NameChain> chains;
    std::vector<size_t> order;  // the chain of each line
    for (int64_t i = rng.between(1, max_chains); i > 0; --i) {
      order.insert(order.end(), draw_length(rng, bytes), chains.size());
      chains.push_back({names.number(digits), {}});
    }
    rng.shuffle(order);
    std::vector<std::string> lines;
    for (const size_t index : order) {
      NameChain& chain = chains[index];
      const std::string set = concat(wording.kind.before, names.name());
      const std::string to = chain.names.empty() ? chain.number : chain.names.back();
      lines.push_back(filled(wording.notation, {{'k', set}, {'v', to}}));
      chain.names.push_back(set);
    }
    MarkedText end;
    for (const NameChain& chain : chains) ask(wording, chain, end);
    ask_forward(wording, chains, bytes, rng, end);
    const std::string preface = bytes < 600 || wording.preface.empty() ? "" : wording.preface + "\n";
    marked.text += preface;
    append(around.insert(lines, end, rng, bytes - std::ssize(preface), wording.own_lines), marked);
  }

  static int64_t draw_length(eval::Rng& rng, int64_t bytes) {
    constexpr int64_t kLengths[] = {1, 2, 2, 3, 3, 3, kMaxNames, kMaxNames};
    return bytes < 400 ? rng.between(1, 2) : rng.pick(kLengths);
  }

  /// Appends the question for all names of a chain; the answer has the names without their prefix.
  static void ask(const ChainWording& wording, const NameChain& chain, MarkedText& end) {
    std::vector<std::string> names;
    for (const std::string& name : chain.names) names.push_back(name.substr(wording.kind.before.size()));
    const auto count = std::ssize(names);
    const std::string counted = wording.counted ? concat(count, " ") : "";
    const std::string_view called = wording.counted && count == 1 ? wording.kind.one : wording.kind.many;
    append_answer(concat(filled(wording.question, {{'n', wording.kind.many}, {'v', chain.number}}),
                         filled(wording.lead, {{'v', chain.number}, {'c', counted}, {'n', called}}), " "),
                  joined(names, wording.between), wording.end, end);
  }

  /// Appends questions for the numbers of some names.
  static void ask_forward(const ChainWording& wording, const std::vector<NameChain>& chains, int64_t bytes,
                          eval::Rng& rng, MarkedText& end) {
    if (bytes < 500) return;
    if (rng.below(2) == 0) return;
    for (const NameChain& chain : chains) {
      for (const std::string& name : chain.names) {
        if (rng.below(2) == 0) continue;
        const std::string answer = concat(wording.forward_question, wording.forward);
        append_answer(filled(answer.substr(0, answer.find("{v}")), {{'k', name}}), chain.number, wording.end, end);
      }
    }
  }
};

}  // namespace

TaskSources chain_tasks() { return {std::make_shared<ChainSource>()}; }

void add_chain_templates(std::vector<std::string_view>& templates) {
  const auto add = [&](const auto& forms) {
    templates.insert(templates.end(), std::begin(forms), std::end(forms));
  };
  add(kAssignments), add(kNotations), add(kLeadBegins), add(kLeads), add(kAsked), add(kAskedForward), add(kForward),
      add(kPrefaces), add(kNumbers);
  for (const KnownNameKind& kind : kNameKinds)
    templates.insert(templates.end(), {kind.before, kind.one, kind.many});
}

}  // namespace fathom::train
