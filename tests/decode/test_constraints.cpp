#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "byte_vocabulary.h"
#include "decode/byte_constraint.h"
#include "decode/constrained_beam.h"
#include "decode/constraint_cursor.h"
#include "decode/constraints/corpus.h"
#include "decode/constraints/spans.h"
#include "decode/generate.h"
#include "decode/passages.h"
#include "default_model.h"
#include "models/tiny_model.h"
#include "paths.h"
#include "seed.h"

namespace fathom {

ConstraintEntry strings_method();
ConstraintEntry corpus_method();
ConstraintEntry spans_method();

namespace {

using test::allowed_tokens;
using test::byte_tokenizer;
using test::loaded;
using test::random_walk;
using test::read;

std::shared_ptr<const Constraint> make(const std::string& spec, const Tokenizer& tokenizer,
                                       const std::string& text = "") {
  static const MethodTable<ConstraintMethod> table("constrain",
                                                   {strings_method(), corpus_method(), spans_method()});
  return table.make(spec, ConstraintSetup{&tokenizer, text});
}

/// A file that exists as long as this.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& bytes) {
    static int number = 0;
    path_ = (std::filesystem::temp_directory_path() /
             ("fathom_constraint_" + std::to_string(::getpid()) + "_" + std::to_string(++number)))
                .string();
    std::ofstream(path_, std::ios::binary) << bytes;
  }
  ~TemporaryFile() { std::filesystem::remove(path_); }
  TemporaryFile(const TemporaryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Generated generate_text(const std::string& prompt, std::shared_ptr<const Constraint> constraint,
                        const std::vector<std::string>& steps = {}, uint64_t seed = 0) {
  Session session = read(prompt);
  const std::vector<int32_t> tokens = loaded().tokenizer.encode(prompt);
  Sampler sampler(steps, seed);
  sampler.constrain(std::move(constraint), std::ssize(tokens));
  Sampler moved = std::move(sampler);
  GenerateOptions options;
  options.max_tokens = 200;
  return generate(session, loaded().tokenizer, moved, tokens, options);
}

// ---- strings

TEST(Strings, AllTokenizationsOfAllStringsAndNoOthersAreAllowed) {
  const auto tokenizer = byte_tokenizer({"ab", "abc", "bc", "b", "cd", "d\xff", "bcd", " a", "\xc3", "\xa9x"});
  const std::set<std::string> strings = {"abcd", "ab", "abc", "bcd\xff", "b", "\xc3\xa9x"};
  std::set<std::vector<int32_t>> expected, found;
  std::vector<int32_t> tokens;
  // all sequences of tokens that spell a string
  const std::function<void(std::string_view)> spell = [&](std::string_view rest) {
    if (rest.empty()) expected.insert(tokens);
    for (int32_t id = 3; id < tokenizer->size() - 2; ++id) {
      if (!rest.starts_with(tokenizer->piece(id)) || rest.empty()) continue;
      tokens.push_back(id);
      spell(rest.substr(tokenizer->piece(id).size()));
      tokens.pop_back();
    }
  };
  for (const std::string& string : strings) spell(string);
  const std::function<void(const ConstraintState&)> walk = [&](const ConstraintState& state) {
    for (const int32_t token : allowed_tokens(*tokenizer, state)) {
      if (tokenizer->ends_generation(token)) {
        found.insert(tokens);
        continue;
      }
      const auto next = state.fork();
      next->take(token);
      tokens.push_back(token);
      walk(*next);
      tokens.pop_back();
    }
  };
  const TemporaryFile file("abcd\nab\r\nabc\n\nbcd\xff\nb\nab\n\xc3\xa9x");
  walk(*make("strings:file=" + file.path(), *tokenizer)->start());
  EXPECT_EQ(found, expected);
  EXPECT_GT(expected.size(), 30);
}

TEST(Strings, RandomWalksEndInAnAllowedString) {
  const auto tokenizer = byte_tokenizer({"ab", "ba", "aa", "bb", "aba", "bab", " a", " b"});
  std::mt19937 random(test::seed(1));
  std::set<std::string> strings;
  std::string lines;
  for (int i = 0; i < 500; ++i) {
    std::string string;
    for (unsigned length = 1 + random() % 12; length > 0; --length) string += "ab\xe2"[random() % 3];
    strings.insert(string);
    lines += string + "\n";
  }
  const TemporaryFile file(lines);
  const auto constraint = make("strings:file=" + file.path(), *tokenizer);
  const auto spaced = make("strings:space=yes,file=" + file.path(), *tokenizer);
  std::set<std::string> reached;
  int with_space = 0;
  for (int walk = 0; walk < 500; ++walk) {
    const std::string text = random_walk(*tokenizer, *constraint, random, 100, 0.5);
    ASSERT_TRUE(strings.contains(text));
    reached.insert(text);
    std::string other = random_walk(*tokenizer, *spaced, random, 100, 0.5);
    if (other.starts_with(' ')) other.erase(0, 1), ++with_space;
    ASSERT_TRUE(strings.contains(other));
  }
  EXPECT_GT(reached.size(), 80);
  EXPECT_GT(with_space, 50);
}

TEST(Strings, ModelChoosesAnAllowedStringForAnySamplingAndSeed) {
  const std::string prompt =
      "The magic word of Anna is lantern.\nQuestion: What is the magic word of Anna?\n"
      "Answer: The magic word of Anna is";
  const auto constraint = make("strings:list=(window|lantern|carpet),space=true", loaded().tokenizer);
  const Generated best = generate_text(prompt, constraint);
  EXPECT_EQ(best.text, " lantern");
  EXPECT_EQ(best.stop, StopReason::kEos);
  EXPECT_EQ(generate_text(prompt, make("strings:list=(window|carpet)", loaded().tokenizer)).stop, StopReason::kEos);
  const std::set<std::string> allowed = {"window", "lantern", "carpet", " window", " lantern", " carpet"};
  std::set<std::string> found;
  for (uint64_t seed = 0; seed < 12; ++seed) {
    const Generated text = generate_text(prompt, constraint, {"top-k:k=3", "temperature:t=3"}, seed);
    EXPECT_TRUE(allowed.contains(text.text)) << text.text;
    found.insert(text.text);
  }
  EXPECT_GT(found.size(), 1);
}

TEST(Strings, AfterTheEndOnlyTheEndFollows) {
  const auto tokenizer = byte_tokenizer({});
  const auto state = make("strings:list=(a|ab)", *tokenizer)->start();
  EXPECT_EQ(allowed_tokens(*tokenizer, *state), (std::vector<int32_t>{3 + 'a'}));
  state->take(3 + 'a');
  EXPECT_EQ(allowed_tokens(*tokenizer, *state), (std::vector<int32_t>{2, 3 + 'b', tokenizer->size() - 1}));
  state->take(2);
  EXPECT_EQ(allowed_tokens(*tokenizer, *state), (std::vector<int32_t>{2, tokenizer->size() - 1}));
  EXPECT_THROW(state->take(3 + 'b'), Error);
}

TEST(Strings, BadInputIsReported) {
  const auto tokenizer = byte_tokenizer({});
  const TemporaryFile empty(""), blank("\n\r\n\n");
  for (const std::string& spec :
       {std::string("strings"), std::string("strings:list=()"), std::string("strings:list=(a||b)"),
        std::string("strings:list=a|"), "strings:file=" + empty.path(), "strings:file=" + blank.path(),
        "strings:list=a,file=" + empty.path(), std::string("strings:file=/nonexistent"),
        std::string("strings:file=/tmp")})
    EXPECT_THROW(make(spec, *tokenizer), Error) << spec;
  const TemporaryFile huge(std::string(3 << 20, 'x') + "y\n" + std::string(3 << 20, 'x'));  // two long lines
  const auto state = make("strings:file=" + huge.path(), *tokenizer)->start();
  state->take(3 + 'x');
  EXPECT_EQ(allowed_tokens(*tokenizer, *state), (std::vector<int32_t>{3 + 'x'}));

  Vocabulary no_end;
  no_end.pieces = {"<unk>", "a", "b", "é", "\xc3"};
  no_end.types = {TokenType::kUnknown, TokenType::kNormal, TokenType::kNormal, TokenType::kNormal,
                  TokenType::kNormal};
  no_end.unknown = 0;
  EXPECT_THROW(make("strings:list=a", Tokenizer(no_end)), Error);
  no_end.pieces.push_back("</s>");
  no_end.types.push_back(TokenType::kControl);
  no_end.end_of_generation = {5};
  const Tokenizer few(no_end);
  EXPECT_THROW(make("strings:list=(a|abc)", few), Error);  // no token for c
  // tokens that end inside a character are not used where its other bytes have no token
  EXPECT_EQ(allowed_tokens(few, *make("strings:list=é", few)->start()), (std::vector<int32_t>{3}));
}

// ---- corpus

TEST(Corpus, WalksAreNgramsOfOnePassageAndEndWhereAllowed) {
  const auto tokenizer = byte_tokenizer({"the", " cat", " sat"});
  const std::string text = "the cat sat.\n\nthe dog\nsat \xff.\n \nthe cat ran";
  const TemporaryFile file(text), other("zebra");
  const auto constraint = make("corpus:min=4,file=" + file.path() + "+" + other.path(), *tokenizer);
  std::mt19937 random(test::seed(2));
  std::set<std::string> found;
  for (int walk = 0; walk < 300; ++walk) {
    const std::string ngram = random_walk(*tokenizer, *constraint, random, 100, 0.3);
    EXPECT_EQ(ngram.find("\n\n"), std::string::npos);
    EXPECT_TRUE(text.find(ngram) != std::string::npos || std::string("zebra").find(ngram) != std::string::npos)
        << ngram;
    found.insert(ngram);
  }
  EXPECT_GT(found.size(), 50);
}

TEST(Corpus, MayEndAtTheCountOrTheLength) {
  const auto tokenizer = byte_tokenizer({});
  const TemporaryFile file("abab\nabc");
  const auto ends_after = [&](const std::string& spec, const std::string& bytes) {
    const auto state = make(spec + ",passages=lines,file=" + file.path(), *tokenizer)->start();
    for (const char byte : bytes) state->take(3 + byte);
    return allowed_tokens(*tokenizer, *state).front() == 2;
  };
  EXPECT_FALSE(ends_after("corpus:min=1", ""));
  EXPECT_TRUE(ends_after("corpus:min=0", ""));
  EXPECT_TRUE(ends_after("corpus:min=1", "a"));
  EXPECT_FALSE(ends_after("corpus:min=9", "ab"));
  EXPECT_FALSE(ends_after("corpus:min=9,stop_count=2", "ab"));  // three times
  EXPECT_TRUE(ends_after("corpus:min=9,stop_count=3", "ab"));
  EXPECT_TRUE(ends_after("corpus:min=9,stop_count=1", "aba"));
  EXPECT_TRUE(ends_after("corpus:min=9", "abc"));  // the passage ends
}

TEST(Corpus, BadInputIsReported) {
  const auto tokenizer = byte_tokenizer({});
  const TemporaryFile empty(""), blank(" \n\t\n"), good("text");
  for (const std::string& spec : {std::string("corpus"), "corpus:file=" + empty.path(),
                                  "corpus:file=" + blank.path(), "corpus:file=" + good.path() + "+",
                                  "corpus:file=+" + good.path(), "corpus:file=" + good.path() + ",passages=words"})
    EXPECT_THROW(make(spec, *tokenizer), Error) << spec;
  const auto state = make("corpus:file=" + good.path(), *tokenizer)->start();
  EXPECT_THROW(state->take(3 + 'z'), Error);
}

TEST(Passages, AreSplitAtLinesBlankLinesOrNot) {
  using Views = std::vector<std::string_view>;
  const std::string text = "\n a b\nc \r\n \t\r\n\nd\n";
  EXPECT_EQ(split_passages(text, PassageUnit::kLine), (Views{"a b", "c", "d"}));
  EXPECT_EQ(split_passages(text, PassageUnit::kBlank), (Views{"a b\nc", "d"}));
  EXPECT_EQ(split_passages(text, PassageUnit::kWhole), (Views{"a b\nc \r\n \t\r\n\nd"}));
  for (const PassageUnit unit : {PassageUnit::kLine, PassageUnit::kBlank, PassageUnit::kWhole}) {
    EXPECT_TRUE(split_passages("", unit).empty());
    EXPECT_TRUE(split_passages(" \n\n ", unit).empty());
  }
  EXPECT_THROW(parse_passage_unit("words"), Error);
}

// ---- spans

const std::string kDocument =
    "The old harbour was quiet in the morning. The old harbour was busy with boats at noon. Peter carried the lamp "
    "to "
    "the tower! \"Who is there?\" he asked. Nobody answered (the wind was loud).\n\nThe magic word of Anna is "
    "lantern. "
    "The magic word of Peter is window.\nAt night the snow fell. The magic word of Maria is carpet. End of the "
    "story";
const std::string kSpanPrompt = kDocument + "\nQuestion: What is the magic word of Peter?\nEvidence:";

TEST(Spans, SentencesEndAtMarksAndBlankLines) {
  const auto sentences = [](const std::string& text) {
    std::vector<std::string> found;
    for (const SentenceSpan& span : find_sentences(text))
      found.push_back(text.substr(span.begin, span.end - span.begin));
    return found;
  };
  using Strings = std::vector<std::string>;
  EXPECT_EQ(sentences("One is 3.14... Two?! \"Three.\" (Four.) five\nsix\n \nseven"),
            (Strings{"One is 3.14...", "Two?!", "\"Three.\"", "(Four.)", "five\nsix", "seven"}));
  EXPECT_EQ(sentences("你好。再见！」x… y"), (Strings{"你好。", "再见！」", "x…", "y"}));
  EXPECT_EQ(sentences(" \n\n ."), (Strings{"."}));
  EXPECT_TRUE(sentences("").empty());
  EXPECT_TRUE(sentences(" \n\n\t").empty());
  EXPECT_EQ(sentences("\xff\xfe. \xe2\x80 a"), (Strings{"\xff\xfe.", "\xe2\x80 a"}));
  std::mt19937 random(test::seed(3));
  for (int trial = 0; trial < 300; ++trial) {  // sentences and the white space between them are the text
    std::string text;
    for (unsigned i = random() % 60; i > 0; --i) text += "ab.!\n\n \xe2\x80\xa6\"\xe3\x82"[random() % 13];
    size_t at = 0;
    for (const SentenceSpan& span : find_sentences(text)) {
      ASSERT_LT(span.begin, span.end);
      ASSERT_EQ(text.substr(at, span.begin - at).find_first_not_of(" \n"), std::string::npos);
      at = span.end;
    }
    ASSERT_EQ(text.substr(at).find_first_not_of(" \n"), std::string::npos);
  }
}

TEST(Spans, OverlappingSpansAreJoined) {
  EXPECT_EQ(merge_spans({{5, 9}, {0, 2}, {7, 12}, {12, 13}, {20, 30}, {21, 22}}),
            (std::vector<SentenceSpan>{{0, 2}, {5, 13}, {20, 30}}));
  EXPECT_TRUE(merge_spans({}).empty());
}

TEST(Spans, RandomWalksIdentifyOneSentence) {
  const auto tokenizer = byte_tokenizer({"The", " The", "The magic", " magic word", " of", " P", "Peter", " is"});
  std::mt19937 random(test::seed(4));
  std::set<std::string> sentences;
  for (const SentenceSpan& span : find_sentences(kDocument))
    sentences.insert(kDocument.substr(span.begin, span.end - span.begin));
  const auto opening = make("spans:prefix=1000", *tokenizer, kDocument);
  const auto whole = make("spans:full=yes", *tokenizer, kDocument);
  std::set<std::string> reached;
  for (int walk = 0; walk < 200; ++walk) {
    std::string text = random_walk(*tokenizer, *opening, random, 1000, 0.5);
    if (text.starts_with(' ')) text.erase(0, 1);
    EXPECT_EQ(std::ranges::count_if(sentences, [&](const std::string& s) { return s.starts_with(text); }), 1)
        << text;
    std::string full = random_walk(*tokenizer, *whole, random, 1000, 0.5);
    if (full.starts_with(' ')) full.erase(0, 1);
    EXPECT_TRUE(sentences.contains(full)) << full;
    reached.insert(full);
  }
  EXPECT_EQ(reached.size(), sentences.size());
}

TEST(Spans, EarlyStopIdentifiesTheSentenceOfFullDecoding) {
  size_t opening_tokens = 0, full_tokens = 0;
  int trials = 0;
  std::set<std::string> found;
  for (const std::string question : {"word of Peter", "word of Anna", "weather at night", "harbour at noon"}) {
    const std::string prompt = kDocument + "\nQuestion: What is the " + question + "?\nEvidence:";
    for (const uint64_t seed : {0, 1, 2}) {
      const std::vector<std::string> steps =
          seed == 0 ? std::vector<std::string>{} : std::vector<std::string>{"temperature:t=1"};
      const Generated early = generate_text(prompt, make("spans", loaded().tokenizer, kDocument), steps, seed);
      const Generated full =
          generate_text(prompt, make("spans:full=true", loaded().tokenizer, kDocument), steps, seed);
      EXPECT_EQ(full.text.substr(0, early.text.size()), early.text);
      EXPECT_EQ(full.stop, StopReason::kEos);
      opening_tokens += early.tokens.size();
      full_tokens += full.tokens.size();
      found.insert(full.text);
      ++trials;
    }
  }
  EXPECT_GT(found.size(), 2);
  std::printf("openings: %.1f tokens per span, whole sentences: %.1f\n",
              static_cast<double>(opening_tokens) / trials, static_cast<double>(full_tokens) / trials);
  EXPECT_LE(opening_tokens, 8u * trials);
  EXPECT_LT(3 * opening_tokens, 2 * full_tokens);
}

TEST(Spans, PrefixLimitEndsAmbiguousOpenings) {
  const auto tokenizer = byte_tokenizer({});
  const std::string text = "aaaaaaaaab. aaaaaaaaac.";
  const auto limited = make("spans:prefix=3", *tokenizer, text);
  std::mt19937 random(test::seed(5));
  std::string opening = random_walk(*tokenizer, *limited, random, 100, 0);
  EXPECT_EQ(opening.size(), 3);
  const SentenceOpenings openings(text, false, 3);
  auto state = openings.start();
  for (const char byte : {'a', 'a', 'a'}) ASSERT_TRUE(openings.step(state, byte));
  EXPECT_EQ(openings.first_begin(state), 0);
  EXPECT_THROW(make("spans", *tokenizer, ""), Error);
  EXPECT_THROW(make("spans", *tokenizer, " \n "), Error);
}

TEST(Spans, EndChoiceEqualsExhaustiveEvaluation) {
  const Tokenizer& tokenizer = loaded().tokenizer;
  const TokenBytes bytes(tokenizer);
  const std::vector<SentenceSpan> sentences = find_sentences(kDocument);
  const Session session = read(kSpanPrompt);
  std::set<size_t> lengths;
  for (size_t first = 0; first < sentences.size(); ++first) {
    for (const int64_t max : {1, 40, 256}) {
      size_t expected = sentences[first].end;
      double best = -1;
      for (size_t last = first; last < sentences.size(); ++last) {
        const size_t begin = sentences[first].begin, end = sentences[last].end;
        const auto tokens = tokenizer.encode(kDocument.substr(begin, end - begin), {.add_bos_eos = false});
        if (std::ssize(tokens) > max) break;
        Session reader = session.fork();
        reader.append(tokens);
        double sum = 0, ending = 0;
        for (int32_t token = 0; token < std::ssize(reader.logits()); ++token) {
          const double p = std::exp(static_cast<double>(reader.logits()[token]));
          sum += p;
          if (tokenizer.ends_generation(token)) ending += p;
        }
        if (ending / sum > best) {
          best = ending / sum;
          expected = end;
          lengths.insert(last - first);
        }
      }
      EXPECT_EQ(choose_span_end(session, tokenizer, bytes, kDocument, sentences, first, max), expected)
          << first << " " << max;
    }
  }
  EXPECT_GT(lengths.size(), 1);
  EXPECT_EQ(session.length(), std::ssize(tokenizer.encode(kSpanPrompt)));
}

TEST(Spans, TokensAreSplitWhereASentenceEndsInsideThem) {
  const auto tokenizer = byte_tokenizer({".", "\n", ".\n", ".\n\n"});
  const TokenBytes bytes(*tokenizer);
  const std::vector<std::string> segments = {"ab.", "\n\ncd.", "\n\nef.", " g.", "\n\nh."};
  std::string text;
  for (const std::string& segment : segments) text += segment;
  const auto encoded = tokenizer->encode(text);
  ASSERT_TRUE(std::ranges::any_of(encoded, [&](int32_t token) { return bytes.of(token) == ".\n\n"; }));
  const std::vector<SentenceSpan> sentences = find_sentences(text);
  ASSERT_EQ(sentences.size(), segments.size());
  std::set<size_t> chosen;
  for (int32_t prompt = 0; prompt < 12; ++prompt) {
    Session session(test::floats(), loaded().runtime);
    session.append(std::vector<int32_t>{prompt, 2 * prompt + 1});
    Session reader = session.fork();
    size_t expected = 0;
    double best = -1;
    for (size_t i = 0; i < segments.size(); ++i) {
      reader.append(bytes.spell(segments[i]));
      double sum = 0, ending = 0;
      for (int32_t token = 0; token < std::ssize(reader.logits()); ++token) {
        const double p = std::exp(static_cast<double>(reader.logits()[token]));
        sum += p;
        if (tokenizer->ends_generation(token)) ending += p;
      }
      if (ending / sum > best) best = ending / sum, expected = sentences[i].end;
    }
    EXPECT_EQ(choose_span_end(session, *tokenizer, bytes, text, sentences, 0, 100), expected);
    chosen.insert(expected);
  }
  EXPECT_GT(chosen.size(), 1);
}

TEST(Spans, FoundSpansAreVerbatimAndEndAtSentenceLimits) {
  const std::vector<SentenceSpan> sentences = find_sentences(kDocument);
  Session session = read(kSpanPrompt);
  for (const int spans : {1, 3, 6}) {
    const SpanResult result =
        find_spans(session, loaded().tokenizer, kDocument, {.spans = spans, .prefix = 32, .max = 64});
    EXPECT_FALSE(result.spans.empty());
    EXPECT_LE(std::ssize(result.spans), spans);
    EXPECT_LE(std::ssize(result.openings), spans);
    for (size_t i = 0; i < result.spans.size(); ++i) {
      const SentenceSpan& span = result.spans[i];
      EXPECT_TRUE(std::ranges::count(sentences, span.begin, &SentenceSpan::begin) == 1);
      EXPECT_TRUE(std::ranges::count(sentences, span.end, &SentenceSpan::end) == 1);
      EXPECT_TRUE(i == 0 || span.begin > result.spans[i - 1].end);
    }
  }
  EXPECT_THROW(find_spans(session, loaded().tokenizer, ""), Error);
}

// ---- beam

/// Returns a session of the tiny float model, whose results do not depend on the size of a batch.
Session read_tiny(std::vector<int32_t> tokens) {
  Session session(test::floats(), loaded().runtime);
  session.append(tokens);
  return session;
}

TEST(ConstrainedBeam, WidthOfAllContinuationsEqualsExhaustiveSearch) {
  const auto tokenizer = byte_tokenizer({"ab", "bc", "abc", "ca", "aa"});
  const auto constraint = make("strings:list=(abca|ab|aabc|bc|aa)", *tokenizer);
  const Session session = read_tiny({40, 50, 60});
  std::vector<Hypothesis> expected;
  const std::function<void(const Session&, const ConstraintState&, const Hypothesis&)> walk =
      [&](const Session& at, const ConstraintState& state, const Hypothesis& text) {
        Candidates candidates;
        candidates.assign(at.logits());
        const double log_sum = candidates.log_sum();
        const auto tokens = allowed_tokens(*tokenizer, state);
        const bool forced =
            std::ranges::all_of(tokens, [&](int32_t token) { return tokenizer->ends_generation(token); });
        double ending = 0;
        for (const int32_t token : tokens) {
          if (tokenizer->ends_generation(token)) {
            ending += std::exp(at.logits()[token] - log_sum);
            continue;
          }
          Hypothesis next = text;
          next.log_probability += at.logits()[token] - log_sum;
          next.tokens.push_back(token);
          const auto taken = state.fork();
          taken->take(token);
          Session reader = at.fork();
          reader.append({&token, 1});
          walk(reader, *taken, next);
        }
        if (ending == 0) return;
        expected.push_back(text);
        if (!forced) expected.back().log_probability += std::log(ending);
      };
  walk(session, *constraint->start(), {});
  const auto found = constrained_beam(session, *tokenizer, constraint.get(), {.width = 100, .length = 10});
  ASSERT_EQ(found.size(), expected.size());
  EXPECT_GT(found.size(), 10);
  EXPECT_TRUE(std::ranges::is_sorted(found, std::greater(), &Hypothesis::score));
  for (const Hypothesis& text : found) {  // of equally likely ones the order depends on rounding
    const auto same = std::ranges::find(expected, text.tokens, &Hypothesis::tokens);
    ASSERT_NE(same, expected.end());
    EXPECT_NEAR(text.log_probability, same->log_probability, 2e-3);
    EXPECT_TRUE(text.ended);
  }
  const auto narrow = constrained_beam(session, *tokenizer, constraint.get(), {.width = 2, .length = 10});
  ASSERT_EQ(narrow.size(), 2);
  EXPECT_LE(narrow[0].score, found[0].score + 2e-3);
  EXPECT_EQ(session.length(), 3);
}

TEST(ConstrainedBeam, WithoutConstraintEqualsBeamSearch) {
  const auto tokenizer = byte_tokenizer({});
  const Session session = read_tiny({100, 7, 33, 200});
  constexpr int kWidth = 4, kLength = 5;
  struct Text {
    std::vector<int32_t> tokens;
    double log_probability;
  };
  std::vector<Text> texts = {{{}, 0}};
  for (int step = 0; step < kLength; ++step) {
    std::vector<Text> next;
    for (const Text& text : texts) {
      Session reader = session.fork();
      if (!text.tokens.empty()) reader.append(text.tokens);
      Candidates candidates;
      candidates.assign(reader.logits());
      const double log_sum = candidates.log_sum();
      for (const Candidate& candidate : candidates.all()) {
        if (tokenizer->ends_generation(candidate.id)) continue;
        next.push_back({text.tokens, text.log_probability + candidate.logit - log_sum});
        next.back().tokens.push_back(candidate.id);
      }
    }
    std::ranges::partial_sort(next, next.begin() + kWidth, std::greater(), &Text::log_probability);
    next.resize(kWidth);
    texts = next;
  }
  auto found = constrained_beam(session, *tokenizer, nullptr, {.width = kWidth, .length = kLength});
  std::erase_if(found, &Hypothesis::ended);
  ASSERT_FALSE(found.empty());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].tokens, texts[i].tokens);
    EXPECT_NEAR(found[i].log_probability, texts[i].log_probability, 2e-3);
  }
}

// ---- cursor

TEST(ConstraintCursor, RewoundAndBranchingHistoriesEqualAFreshState) {
  const auto tokenizer = byte_tokenizer({"ab", "ba", "aa", "aba"});
  const TemporaryFile file("abbaabab baababba\nababab\nbbabaabbbaba\naaaabaabbaab");
  const auto constraint = make("corpus:file=" + file.path() + ",passages=lines", *tokenizer);
  const std::vector<int32_t> prompt = {9, 8, 7};
  std::mt19937 random(test::seed(6));
  ConstraintCursor cursor(constraint, std::ssize(prompt));
  std::vector<int32_t> history = prompt;
  const std::vector<float> logits(static_cast<size_t>(tokenizer->size()), 0.0f);
  int rewinds = 0;
  for (int step = 0; step < 600; ++step) {
    Candidates candidates;
    candidates.assign(logits);
    cursor.restrict(candidates, history);
    std::vector<int32_t> found;
    for (const Candidate& candidate : candidates.all()) found.push_back(candidate.id);
    const auto fresh = constraint->start();
    for (size_t i = prompt.size(); i < history.size(); ++i) fresh->take(history[i]);
    ASSERT_EQ(found, allowed_tokens(*tokenizer, *fresh));
    std::erase_if(found, [&](int32_t token) { return tokenizer->ends_generation(token); });
    if (found.empty() || random() % 5 == 0) {
      history.resize(prompt.size() + random() % (history.size() - prompt.size() + 1));
      ++rewinds;
    } else {
      history.push_back(found[random() % found.size()]);
    }
  }
  EXPECT_GT(rewinds, 50);
}

TEST(ConstraintCursor, InvalidHistoriesGiveErrorsAndLeaveItUsable) {
  const auto tokenizer = byte_tokenizer({});
  ConstraintCursor cursor(make("strings:list=(ab|ac)", *tokenizer), 2);
  const std::vector<float> logits(static_cast<size_t>(tokenizer->size()), 0.0f);
  Candidates candidates;
  const auto allowed = [&](const std::vector<int32_t>& history) {
    candidates.assign(logits);
    cursor.restrict(candidates, history);
    return candidates.size();
  };
  EXPECT_THROW(allowed({1}), Error);
  EXPECT_THROW(allowed({1, 1, 3 + 'x'}), Error);
  EXPECT_THROW(allowed({1, 1, 3 + 'a', -1}), Error);
  EXPECT_THROW(allowed({1, 1, 3 + 'a', INT32_MAX}), Error);
  EXPECT_EQ(allowed({1, 1, 3 + 'a'}), 2);
  EXPECT_EQ(allowed({5, 5}), 1);
}

TEST(ConstraintCursor, ImpossibleTokensBecomeEquallyLikely) {
  const auto tokenizer = byte_tokenizer({});
  Sampler sampler;
  sampler.constrain(make("strings:list=(a|b)", *tokenizer), 0);
  std::vector<float> logits(static_cast<size_t>(tokenizer->size()), 0.0f);
  logits[3 + 'a'] = logits[3 + 'b'] = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(sampler.sample(logits, {}, 0), 3 + 'a');
  sampler.constrain(nullptr, 0);
  EXPECT_EQ(sampler.sample(logits, {}, 0), 0);
}

}  // namespace
}  // namespace fathom
