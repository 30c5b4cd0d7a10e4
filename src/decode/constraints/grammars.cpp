// The generated text is one of a grammar, JSON, or JSON of a schema.
#include "decode/constraints/grammars.h"

#include <mutex>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/file_map.h"
#include "base/format.h"
#include "decode/grammar/automaton.h"
#include "decode/grammar/gbnf.h"
#include "decode/grammar/json_schema.h"

namespace fathom {
namespace {

constexpr size_t kMostFileBytes = size_t{16} << 20;

class GrammarState final : public ConstraintState {
 public:
  explicit GrammarState(std::shared_ptr<GrammarAutomaton> automaton)
      : automaton_(std::move(automaton)), state_(automaton_->start()) {}

  std::unique_ptr<ConstraintState> fork() const override { return std::make_unique<GrammarState>(*this); }

  void restrict(Candidates& candidates) const override {
    if (!ended_) return automaton_->allowed(state_)->restrict(candidates);
    AllowedTokens ends(automaton_->tokens().vocabulary());
    for (const int32_t token : automaton_->tokens().ends()) ends.add(token);
    ends.restrict(candidates);
  }

  void take(int32_t token) override {
    const TokenBytes& tokens = automaton_->tokens();
    if (tokens.is_end(token)) {
      if (!ended_ && !automaton_->may_end(state_)) fail("the grammar does not allow the text to end here");
      ended_ = true;
      return;
    }
    const std::string_view bytes = tokens.of(token);
    const GrammarAutomaton::State next =
        ended_ || bytes.empty() ? GrammarAutomaton::kDead : automaton_->step(state_, bytes);
    if (next == GrammarAutomaton::kDead)
      fail("the grammar does not allow token ", token, " (", quote(bytes), ") here");
    state_ = next;
  }

 private:
  std::shared_ptr<GrammarAutomaton> automaton_;
  GrammarAutomaton::State state_;
  bool ended_ = false;  // by an end-of-generation token, after which only such tokens may follow
};

class GrammarConstraint final : public Constraint {
 public:
  GrammarConstraint(std::shared_ptr<const TokenBytes> tokens, Grammar grammar, size_t memory)
      : tokens_(std::move(tokens)),
        grammar_(std::make_shared<const Grammar>(std::move(grammar))),
        memory_(memory),
        automaton_(make()) {}

  std::unique_ptr<ConstraintState> start() const override {
    const std::lock_guard lock(mutex_);
    // The states of long nested texts are never needed again: a new text begins with a new automaton then.
    if (automaton_->state_bytes() > memory_) automaton_ = make();
    return std::make_unique<GrammarState>(automaton_);
  }

 private:
  std::shared_ptr<GrammarAutomaton> make() const {
    return std::make_shared<GrammarAutomaton>(tokens_, grammar_, memory_);
  }

  std::shared_ptr<const TokenBytes> tokens_;
  std::shared_ptr<const Grammar> grammar_;
  size_t memory_;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<GrammarAutomaton> automaton_;
};

std::string read_grammar_file(const Values& values, const char* method) {
  if (!values.has("file")) fail_usage(method, ": expected file=FILE");
  const std::string& path = values.string("file");
  const FileMap file(path);
  if (file.text().size() > kMostFileBytes)
    fail(path, ": expected at most ", format_bytes(kMostFileBytes), ", found ",
         format_bytes(static_cast<double>(file.text().size())));
  return std::string(file.text());
}

JsonLayout layout_of(const Values& values) {
  return {.compact = values.boolean("compact"), .space = values.integer("space")};
}

std::shared_ptr<const Constraint> with_tokens(const ConstraintSetup& setup, Grammar grammar) {
  return make_grammar_constraint(std::make_shared<const TokenBytes>(*setup.tokenizer), std::move(grammar));
}

std::vector<Parameter> layout_parameters() {
  using Type = Parameter::Type;
  return {{.name = "compact",
           .type = Type::kBool,
           .default_value = "false",
           .summary = "no spaces and lines between the parts of the JSON"},
          {.name = "space",
           .default_value = "16",
           .summary = "most characters of white space between two parts; fewer stop models that indent without end",
           .min = 0,
           .max = 1000}};
}

}  // namespace

std::shared_ptr<const Constraint> make_grammar_constraint(std::shared_ptr<const TokenBytes> tokens, Grammar grammar,
                                                          size_t memory) {
  return std::make_shared<GrammarConstraint>(std::move(tokens), std::move(grammar), memory);
}

ConstraintEntry grammar_method() {
  return {{.name = "grammar",
           .summary = "the text is one of a grammar in GBNF, in any tokenization",
           .needs = "any model",
           .time = "O(v) for each new state of the grammar, O(1) for a known one; v: vocabulary",
           .memory = "v/8 bytes and 1 KiB per state, at most 128 MiB",
           .parameters = {{.name = "file",
                           .type = Parameter::Type::kString,
                           .summary = "a grammar in GBNF, whose texts are those of the rule root"}}},
          [](const Values& values, const ConstraintSetup& setup) {
            return with_tokens(setup, parse_gbnf(read_grammar_file(values, "grammar"), values.string("file")));
          }};
}

ConstraintEntry json_method() {
  std::vector<Parameter> parameters = layout_parameters();
  parameters.insert(parameters.begin(), {.name = "type",
                                         .type = Parameter::Type::kChoice,
                                         .default_value = "object",
                                         .summary = "what the JSON is",
                                         .choices = {"object", "any"}});
  return {{.name = "json",
           .summary = "the text is JSON, in any tokenization",
           .needs = "any model",
           .time = "as grammar",
           .memory = "as grammar",
           .parameters = std::move(parameters)},
          [](const Values& values, const ConstraintSetup& setup) {
            return with_tokens(setup, json_grammar(values.string("type") == "object", layout_of(values)));
          }};
}

ConstraintEntry schema_method() {
  std::vector<Parameter> parameters = layout_parameters();
  parameters.insert(parameters.begin(),
                    {.name = "file", .type = Parameter::Type::kString, .summary = "a JSON schema"});
  return {{.name = "schema",
           .summary = "the text is JSON that a JSON schema accepts, in any tokenization",
           .needs = "any model",
           .time = "as grammar",
           .memory = "as grammar",
           .parameters = std::move(parameters)},
          [](const Values& values, const ConstraintSetup& setup) {
            const std::string text = read_grammar_file(values, "schema");
            const std::string& path = values.string("file");
            try {
              return with_tokens(setup, json_schema_grammar(Json::parse(text), path, layout_of(values)));
            } catch (const JsonError& error) {
              fail(path, ": ", error.what());
            }
          }};
}

}  // namespace fathom
