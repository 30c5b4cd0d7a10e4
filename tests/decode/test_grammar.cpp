// Grammars: the tokens that a constraint allows against a plain recogniser, GBNF, and hostile input.
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <set>

#include "base/error.h"
#include "byte_vocabulary.h"
#include "decode/constraints/grammars.h"
#include "decode/grammar/automaton.h"
#include "decode/grammar/gbnf.h"
#include "decode/grammar/json_schema.h"
#include "default_model.h"
#include "seed.h"

namespace fathom {
namespace {

using test::allowed_tokens;
using test::byte_tokenizer;

/// A random expression, its text in GBNF, and a plain recogniser.
struct Plain {
  enum class Kind { kText, kSet, kSequence, kChoice, kRepeat, kBracketed } kind = Kind::kText;
  std::string text;                // of kText
  std::vector<std::string> set{};  // characters of kSet
  std::vector<Plain> parts{};
  int min = 0, max = 0;  // −1: any number

  /// How the text from `begin` on can be read: the ends of complete readings, and whether it can end inside.
  struct Reading {
    std::set<size_t> ends;
    bool inside = false;
    void add(const Reading& other) {
      ends.insert(other.ends.begin(), other.ends.end());
      inside |= other.inside;
    }
  };
  static Reading read_text(std::string_view expected, std::string_view text, size_t begin) {
    const std::string_view rest = text.substr(begin);
    if (rest.starts_with(expected)) return {{begin + expected.size()}, false};
    return {{}, expected.starts_with(rest)};
  }
  static Reading then(const Reading& first, const std::function<Reading(size_t)>& next) {
    Reading all{{}, first.inside};
    for (const size_t end : first.ends) all.add(next(end));
    return all;
  }
  Reading read(std::string_view given, size_t begin) const {
    Reading all;
    switch (kind) {
      case Kind::kText:
        return read_text(text, given, begin);
      case Kind::kSet:
        for (const std::string& character : set) all.add(read_text(character, given, begin));
        return all;
      case Kind::kChoice:
        for (const Plain& part : parts) all.add(part.read(given, begin));
        return all;
      case Kind::kSequence:
        all.ends = {begin};
        for (const Plain& part : parts) all = then(all, [&](size_t at) { return part.read(given, at); });
        return all;
      case Kind::kRepeat: {
        Reading current{{begin}, false};
        for (int i = 0; i < (max < 0 ? min + 30 : max) && !current.ends.empty(); ++i) {
          if (i >= min) all.ends.insert(current.ends.begin(), current.ends.end());
          const Reading next = then({current.ends, false}, [&](size_t at) { return parts[0].read(given, at); });
          all.inside |= next.inside;
          if (i >= min && next.ends == current.ends) break;
          current = next;
        }
        all.ends.insert(current.ends.begin(), current.ends.end());
        return all;
      }
      case Kind::kBracketed: {  // nested brackets around the part
        all = then(read_text("(", given, begin), [&](size_t at) {
          return then(read(given, at), [&](size_t end) { return read_text(")", given, end); });
        });
        all.add(parts[0].read(given, begin));
        return all;
      }
    }
    return all;
  }

  static Plain random(std::mt19937& random, int depth) {
    Plain made;
    static const std::vector<std::string> characters = {"a", "b", "c", "\xc3\xa9", "\xe6\x97\xa5", "\""};
    const unsigned kinds = depth == 0 ? 2 : 6;
    made.kind = static_cast<Kind>(random() % kinds);
    switch (made.kind) {
      case Kind::kText:
        for (unsigned n = 1 + random() % 2; n > 0; --n) made.text += characters[random() % characters.size()];
        break;
      case Kind::kSet:
        for (unsigned n = 1 + random() % 3; n > 0; --n)
          made.set.push_back(characters[random() % characters.size()]);
        break;
      case Kind::kRepeat:
        made.parts.push_back(Plain::random(random, depth - 1));
        made.min = static_cast<int>(random() % 3);
        made.max = random() % 2 == 0 ? -1 : made.min + static_cast<int>(random() % 3);
        if (made.max == 0) made.max = 1;
        break;
      case Kind::kBracketed:
        made.parts.push_back(Plain::random(random, depth - 1));
        break;
      default:
        for (unsigned n = 2 + random() % 2; n > 0; --n) made.parts.push_back(Plain::random(random, depth - 1));
    }
    return made;
  }

  /// Returns GBNF; rules are appended to `rules`.
  std::string gbnf(std::string& rules, int& count) const {
    const auto quoted = [](const std::string& plain) {
      std::string out;
      for (const char c : plain) out += c == '"' ? std::string("\\\"") : std::string(1, c);
      return out;
    };
    std::string out;
    switch (kind) {
      case Kind::kText:
        return "\"" + quoted(text) + "\"";
      case Kind::kSet:
        for (const std::string& character : set) out += character;
        return "[" + out + "]";
      case Kind::kRepeat: {
        const std::string inside = "(" + parts[0].gbnf(rules, count) + ")";
        if (max < 0) return inside + (min == 0 ? "*" : "{" + std::to_string(min) + ",}");
        return inside + "{" + std::to_string(min) + "," + std::to_string(max) + "}";
      }
      case Kind::kBracketed: {
        const std::string name = "r" + std::to_string(count++);
        rules += name + " ::= \"(\" " + name + " \")\" | " + parts[0].gbnf(rules, count) + "\n";
        return name;
      }
      default:
        for (const Plain& part : parts)
          out += (out.empty() ? "" : kind == Kind::kChoice ? " | " : " ") + part.gbnf(rules, count);
        return "(" + out + ")";
    }
  }
};

std::shared_ptr<const Constraint> constraint_of(const std::string& gbnf, const Tokenizer& tokenizer) {
  return make_grammar_constraint(std::make_shared<const TokenBytes>(tokenizer), parse_gbnf(gbnf, "test"));
}

std::string error_of(const std::string& gbnf) {
  try {
    parse_gbnf(gbnf, "test");
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(Grammar, AllowsTheTokensOfAPlainRecogniser) {
  const auto tokenizer = byte_tokenizer(
      {"ab", "abc", "ba", "((", "))", "a)", "(a", "\xc3\xa9\x61", "\xa9\x62", "\x97\xa5", "\"a", "b\"c"});
  std::mt19937 random(test::seed(3));
  int tokens_checked = 0;
  for (int round = 0; round < 150; ++round) {
    const Plain plain = Plain::random(random, 3);
    std::string rules;
    int count = 0;
    const std::string root = plain.gbnf(rules, count);
    const std::string gbnf = "root ::= " + root + "\n" + rules;
    SCOPED_TRACE(gbnf);
    const auto constraint = constraint_of(gbnf, *tokenizer);
    const auto state = constraint->start();
    std::string text;
    for (int step = 0; step < 8; ++step) {
      const std::vector<int32_t> allowed = allowed_tokens(*tokenizer, *state);
      const Plain::Reading here = plain.read(text, 0);
      std::vector<int32_t> expected;
      for (int32_t id = 3; id < tokenizer->size() - 2; ++id) {
        const std::string longer = text + tokenizer->piece(id);
        const Plain::Reading reading = plain.read(longer, 0);
        if (reading.inside || reading.ends.contains(longer.size())) expected.push_back(id);
        ++tokens_checked;
      }
      if (here.ends.contains(text.size())) {
        expected.insert(expected.begin(), 2);
        expected.push_back(tokenizer->size() - 1);
      }
      ASSERT_EQ(allowed, expected) << "after " << text;
      std::erase_if(expected, [&](int32_t id) { return tokenizer->ends_generation(id); });
      if (expected.empty()) break;
      const int32_t token = expected[random() % expected.size()];
      state->take(token);
      text += tokenizer->piece(token);
    }
  }
  EXPECT_GT(tokens_checked, 100'000);
}

TEST(Grammar, GbnfHasItsUsualNotation) {
  const auto tokenizer = byte_tokenizer({});
  const auto accepts = [&](const std::string& gbnf, const std::string& text) {
    GrammarAutomaton automaton(std::make_shared<const TokenBytes>(*tokenizer),
                               std::make_shared<const Grammar>(parse_gbnf(gbnf, "test")));
    const GrammarAutomaton::State state = automaton.step(automaton.start(), text);
    return state != GrammarAutomaton::kDead && automaton.may_end(state);
  };
  const std::string list =
      "# a list\nroot ::= item (\",\" item)*  # one or more\n\nitem ::= [a-z0-9]+ |\n  \"\\\"\" [^\"\\n]* "
      "\"\\\"\"\r\n";
  EXPECT_TRUE(accepts(list, "ab,\"x, y\",9"));
  EXPECT_FALSE(accepts(list, "ab,"));
  EXPECT_FALSE(accepts(list, "\"a\nb\""));
  EXPECT_TRUE(accepts("root ::= (\n  \"a\"\n  | \"b\" # or b\n)+", "abba"));
  EXPECT_TRUE(accepts("root ::= \"\\x41\\u00e9\\U0001F600\\t\"", "A\xc3\xa9\xf0\x9f\x98\x80\t"));
  EXPECT_TRUE(accepts("root ::= .", "\xf0\x9f\x98\x80"));
  EXPECT_FALSE(accepts("root ::= .", "\xf0\x9f"));
  EXPECT_FALSE(accepts("root ::= .", "\xed\xa0\x80")) << "a surrogate";
  EXPECT_TRUE(accepts("root ::= [^a-y\\]-]{2}", "z["));
  EXPECT_TRUE(accepts("root ::= [a-]", "-"));
  EXPECT_TRUE(accepts("root ::= \"\"", ""));
  EXPECT_TRUE(accepts("root ::= \"a\"{3}", "aaa"));
  EXPECT_FALSE(accepts("root ::= \"a\"{3}", "aa"));
  EXPECT_TRUE(accepts("root ::= \"a\"{2,}", "aaaa"));
  EXPECT_TRUE(accepts("root ::= x-1\nx-1 ::= \"b\" x-1 | \"\"", std::string(3000, 'b')));
  const std::string nested = "root ::= \"[\" root \"]\" | \"\"";
  EXPECT_TRUE(accepts(nested, std::string(5000, '[') + std::string(5000, ']')));
  EXPECT_FALSE(accepts(nested, std::string(5000, '[') + std::string(4999, ']')));
}

TEST(Grammar, ErrorsNameThePlace) {
  EXPECT_EQ(error_of("root ::= \"a\"\nroot ::= \"b\""), "test:2:1: the rule 'root' is defined twice");
  EXPECT_EQ(error_of("root ::= item"), "test:1:10: the rule 'item' is not defined");
  EXPECT_EQ(error_of("item ::= \"a\""), "test: expected a rule root");
  EXPECT_EQ(error_of(""), "test: expected a rule root");
  EXPECT_EQ(error_of("root = \"a\""), "test:1:6: expected ::= after the name of a rule");
  EXPECT_EQ(error_of("root ::= \"a"), "test:1:10: this literal or class has no end");
  EXPECT_EQ(error_of("root ::= (\"a\""), "test:1:10: this group has no end");
  EXPECT_EQ(error_of("root ::= \"\\q\"").substr(0, 25), "test:1:11: unknown escape");
  EXPECT_NE(error_of("root ::= root \"a\" | \"b\"").find("'root' calls itself before it reads"), std::string::npos);
  EXPECT_NE(error_of("root ::= a\na ::= b?  root \"x\"\nb ::= \"c\"").find("left recursion"), std::string::npos);
  EXPECT_NE(error_of("root ::= \"a\" root").find("no text is complete"), std::string::npos);
  EXPECT_NE(error_of("root ::= \"a\"{3,2}").find("smaller"), std::string::npos);
  EXPECT_NE(error_of("root ::= \"\xff\"").find("not UTF-8"), std::string::npos);
}

TEST(Grammar, HostileGrammarsAreErrorsOrBounded) {
  EXPECT_NE(error_of("root ::= " + std::string(100'000, '(')).find("groups inside each other"), std::string::npos);
  EXPECT_NE(error_of("root ::= \"a\"{100001}").find("at most 100000"), std::string::npos);
  EXPECT_NE(error_of("root ::= ((((\"abcdef\"{99999}){99999}){99999}) \"b\"){99999}"), "x");
  EXPECT_NE(error_of("root ::= \"a\"" + std::string(100'000, '*')).find("too many repetitions"), std::string::npos);
  EXPECT_EQ(error_of("root ::= (((\"a\"*)*)*)* \"b\""), "");
  EXPECT_EQ(error_of("root ::= (\"\"*)+ \"b\""), "");
  std::string chain;
  for (int i = 0; i < 20'000; ++i) chain += "r" + std::to_string(i) + " ::= r" + std::to_string(i + 1) + "\n";
  EXPECT_EQ(error_of("root ::= r0\n" + chain + "r20000 ::= \"x\""), "");

  // More and more ways to read the text.
  const auto tokenizer = byte_tokenizer({});
  const auto state = constraint_of("root ::= \"a\" root \"a\" | \"a\" root | \"a\"", *tokenizer)->start();
  try {
    for (int i = 0; i < 20'000; ++i) state->take(3 + 'a');
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("too many ways"), std::string::npos);
  }
}

TEST(Grammar, RulesWithoutATextAreLeftOut) {
  const auto tokenizer = byte_tokenizer({});
  const auto constraint = constraint_of("root ::= \"a\" (endless | \"b\")\nendless ::= \"b\" endless", *tokenizer);
  const auto state = constraint->start();
  state->take(3 + 'a');
  state->take(3 + 'b');
  EXPECT_EQ(allowed_tokens(*tokenizer, *state), (std::vector<int32_t>{2, tokenizer->size() - 1}));
  state->take(2);
  EXPECT_EQ(allowed_tokens(*tokenizer, *state), (std::vector<int32_t>{2, tokenizer->size() - 1}));
  EXPECT_THROW(state->take(3 + 'a'), Error);
}

TEST(Grammar, StatesSurviveTheBoundOfMemory) {
  const auto tokenizer = byte_tokenizer({"abc", "b1", "9z"});
  const auto tokens = std::make_shared<const TokenBytes>(*tokenizer);
  const auto grammar = std::make_shared<const Grammar>(parse_gbnf("root ::= [a-c0-9]{300} | \"x\"", "test"));
  constexpr size_t kMemory = 20'000;
  GrammarAutomaton bounded(tokens, grammar, kMemory), whole(tokens, grammar);
  GrammarAutomaton::State a = bounded.start(), b = whole.start();
  const auto same = [&](GrammarAutomaton::State left, GrammarAutomaton::State right) {
    Candidates first, second;
    for (Candidates* candidates : {&first, &second})
      candidates->assign(std::vector<float>(static_cast<size_t>(tokenizer->size()), 0.0f));
    bounded.allowed(left)->restrict(first);
    whole.allowed(right)->restrict(second);
    return std::ranges::equal(first.all(), second.all(), {}, &Candidate::id, &Candidate::id);
  };
  size_t most = 0;
  for (int i = 0; i < 300; ++i) {
    ASSERT_TRUE(same(a, b)) << i;
    ASSERT_TRUE(same(bounded.start(), whole.start())) << i;
    a = bounded.step(a, "b");
    b = whole.step(b, "b");
    most = std::max(most, bounded.bytes());
  }
  EXPECT_LT(most, kMemory);
  EXPECT_GT(whole.bytes(), 10 * kMemory) << "the bound was reached";
}

TEST(Grammar, StatesOfEarlierTextsDoNotAddUp) {
  const auto tokenizer = byte_tokenizer({});
  const auto constraint = make_grammar_constraint(std::make_shared<const TokenBytes>(*tokenizer),
                                                  parse_gbnf("root ::= \"[\" root \"]\" | \"x\"", "test"), 50'000);
  const auto early = constraint->start();
  for (int round = 0; round < 5; ++round) {
    const auto state = constraint->start();
    for (int i = 0; i < 2000; ++i) state->take(3 + '[');
    state->take(3 + 'x');
    for (int i = 0; i < 2000; ++i) state->take(3 + ']');
    EXPECT_EQ(allowed_tokens(*tokenizer, *state).size(), 2);
  }
  EXPECT_EQ(allowed_tokens(*tokenizer, *early), (std::vector<int32_t>{3 + '[', 3 + 'x'})) << "still valid";
}

TEST(Grammar, TextsOfARealVocabularyFollowIt) {
  const std::string gbnf = "root ::= \" \"? [A-Z] [a-z]* (\" \" [a-z]+){2,5} \".\"";
  const Tokenizer& tokenizer = test::loaded().tokenizer;
  const auto constraint = constraint_of(gbnf, tokenizer);
  std::mt19937 random(test::seed(4));
  for (int i = 0; i < 40; ++i) {
    const std::string text = test::random_walk(tokenizer, *constraint, random, 100, 1);
    EXPECT_TRUE(text.ends_with('.')) << text;
    const auto words = std::ranges::count(text.substr(text.find_first_not_of(' ')), ' ');
    EXPECT_TRUE(words >= 2 && words <= 5) << text;
  }
}

}  // namespace
}  // namespace fathom
