#include <algorithm>
#include <array>
#include <cctype>

#include "base/error.h"
#include "train/training_parts.h"

namespace fathom::train {
namespace {

// Templates of statements: {a} article, {m} modifier, {t} noun, {p} preposition, {i} verb, {k} key, {v} value.
// Those that end with the value can also begin an answer and state several values.
constexpr std::string_view kPlainForm = "{a}{m}{t} {p} {k}{i} {v}";
constexpr std::string_view kValueLast[] = {"{k}'s {m}{t}{i} {v}",
                                           "for {k} the {m}{t}{i} {v}",
                                           "as to {k}, the {m}{t}{i} {v}",
                                           "[{k}] {m}{t}{i} {v}",
                                           "<{k}> {t}{i} {v}",
                                           "{k} / {t}{i} {v}",
                                           "{k} ({m}{t}){i} {v}",
                                           "{k}, {m}{t}{i} {v}",
                                           "{k}{i} {v}",
                                           "{t} {k}{i} {v}",
                                           "{t}, {k}{i} {v}",
                                           "{t}[{k}]{i} {v}",
                                           "{t} | {k} | {v}",
                                           "{k} | {t} | {v}",
                                           "{k} has the {m}{t} {v}",
                                           "{k} was given the {m}{t} {v}",
                                           "under {k} one finds the {m}{t} {v}",
                                           "it is said of {k} that the {m}{t}{i} {v}",
                                           "whoever asks {k} for the {m}{t} hears {v}",
                                           "next to {k} somebody wrote the {m}{t} {v}",
                                           "the {t} seen with {k}{i} {v}"};
constexpr std::string_view kValueInside[] = {
    "{k} keeps {v} as {m}{t}",     "{k} was given {v} as {m}{t}", "under {k} stands {v}, the {m}{t}",
    "{k} uses {v} for its {m}{t}", "{k} goes by {v}, the {m}{t}", "one writes {k} with {v} for its {t}"};
constexpr std::string_view kValueFirst[] = {"{v} is what {k} has as {m}{t}",
                                            "{v} is the {m}{t} {p} {k}",
                                            "{v} was the {m}{t} {p} {k}",
                                            "{v}: {m}{t} {p} {k}",
                                            "{v} belongs to {k} as {m}{t}",
                                            "({v}) {m}{t} {p} {k}",
                                            "{v} -> {k}",
                                            "with {v} for its {m}{t} comes {k}",
                                            "{v}, such is the {m}{t} {p} {k}"};
constexpr std::string_view kArticles[] = {"the ",
                                          "the ",
                                          "the ",
                                          "the ",
                                          "",
                                          "",
                                          "a ",
                                          "one ",
                                          "this ",
                                          "our ",
                                          "now the ",
                                          "note: the ",
                                          "so the ",
                                          "and the ",
                                          "as agreed, the ",
                                          "mind that the ",
                                          "here the ",
                                          "by the way, the "};
constexpr std::string_view kManyArticles[] = {"the ", "the ", "the ", "all ", "", "all the ", "these ", "our "};
constexpr std::string_view kModifiers[] = {"",         "",          "",       "",        "new ",   "old ",
                                           "true ",    "present ",  "first ", "proper ", "usual ", "hidden ",
                                           "private ", "official ", "spare ", "only "};
constexpr std::string_view kTypicalNouns[] = {
    "badge",      "berth",      "cipher",        "docket",      "emblem",      "ledger mark",  "locker",  "motto",
    "parcel tag", "quota",      "seal",          "serial mark", "shelf mark",  "stall",        "stamp",   "ticket",
    "token word", "watchword",  "deposit",       "wage",        "fare",        "rank",         "bid",     "toll",
    "door code",  "entry code", "docket number", "room number", "sum",         "share",        "reading", "chit",
    "sign",       "call sign",  "amount",        "score",       "plot number", "storage code", "mark",    "number"};
constexpr std::string_view kPrepositions[] = {
    "of",           "of",      "for",       "for",         "for",      "at",          "held by",
    "belonging to", "kept by", "under",     "assigned to", "beside",   "given to",    "carried by",
    "noted for",    "with",    "meant for", "near",        "known to", "set down for"};
struct Verb {
  std::string_view one, many;
};
constexpr Verb kVerbs[] = {{" is", " are"},
                           {" is", " are"},
                           {" is", " are"},
                           {" was", " were"},
                           {" reads", " read"},
                           {" equals", " equal"},
                           {" =", " ="},
                           {" =", " ="},
                           {":", ":"},
                           {":", ":"},
                           {" ->", " ->"},
                           {" =>", " =>"},
                           {" -", " -"},
                           {" is now", " are now"},
                           {" runs", " run"},
                           {" comes out as", " come out as"},
                           {" must be", " must be"},
                           {" will be", " will be"},
                           {" has become", " have become"},
                           {" says", " say"},
                           {" remains", " remain"},
                           {" turned out to be", " turned out to be"},
                           {" is given as", " are given as"}};
constexpr std::string_view kEnds[] = {".", ".", ".", ";", "!", ""};
// Templates of questions: {b} is or are.
constexpr std::string_view kQuestions[] = {"which {b} the {m}{t} {p} {k}?",
                                           "the {m}{t} {p} {k}?",
                                           "name the {m}{t} {p} {k}.",
                                           "tell me the {m}{t} {p} {k}!",
                                           "and the {m}{t} {p} {k}?",
                                           "look up {k}.",
                                           "{k}?",
                                           "{k}, {t}?",
                                           "recall the {t} {p} {k}.",
                                           "{t} {p} {k} ?",
                                           "does anybody know the {m}{t} {p} {k}?",
                                           "I need the {t} {p} {k}.",
                                           "what about {k} and the {t}?",
                                           "for {k}, which {b} the {m}{t}?"};
// Templates of facts whose key {k} is the noun itself.
constexpr std::string_view kNounForms[] = {"{a}{k}{i} {v}", "{a}{k}{i} {v}", "{a}{k}{i} {v}",   "{a}{k}{i} {v}",
                                           "{k}: {v}",      "{k} = {v}",     "as {k} take {v}", "{k}{i} {v}"};
// Repetitions of such a fact after it, in half of the texts.
constexpr std::string_view kNounRepetitions[] = {
    "once more, {v}",     "{v} it is, the {k}",  "{v} and no other is {a}{k}", "so {v} was {a}{k}",
    "{v}: mind this {k}", "the {k}, again: {v}", "{v} has become the {k}",     "do not mistake {v}, the {k}"};
constexpr std::string_view kNounQuestions[] = {
    "which is {a}{k}?", "{a}{k}?",         "name {a}{k}.",    "tell me the {k}!", "look up {a}{k}.", "{k}?",
    "the {k} ?",        "recall the {k}.", "I need the {k}.", "and now the {k}?", "give the {k}!",   "{k} wanted."};
constexpr Marks kMarks[] = {{"Q: ", "A: "},
                            {"Q: ", "A: "},
                            {"Asked: ", "Said: "},
                            {"Query - ", "Reply - "},
                            {"> ", "< "},
                            {"? ", "! "},
                            {"- ", "- "},
                            {"", ""},
                            {"Q. ", "A. "},
                            {"Ask> ", "Tell> "},
                            {"Pupil: ", "Teacher: "},
                            {"[ask] ", "[tell] "},
                            {"Test: ", "Solution: "},
                            {"", "It says: "},
                            {"One asks: ", "One hears: "},
                            {"Task: ", "Result: "},
                            {"QUERY ", "FOUND "},
                            {"Wanted: ", "Found: "}};
constexpr std::string_view kPrefaceBegins[] = {"Learn ",        "Do not forget ", "Keep in mind ",  "Mark well ",
                                               "Take note of ", "Hold on to ",    "Note down ",     "Store away ",
                                               "Watch for ",    "Look out for ",  "This is about ", "Mind "};
constexpr std::string_view kPrefaceSubjects[] = {
    "the {t}s", "each {t}", "every {t}", "all {t}s", "whatever {t} there is", "any {t}", "the {t} of everybody"};
constexpr std::string_view kPrefacePlaces[] = {" below",
                                               " in these lines",
                                               " in this passage",
                                               " that this page mentions",
                                               " found further down",
                                               " among the sentences to come",
                                               ""};
constexpr std::string_view kPrefaceEnds[] = {".",
                                             "; questions follow at the end.",
                                             ": somebody will ask.",
                                             ", for there is a test.",
                                             " and give it back when asked.",
                                             ", nothing else matters.",
                                             ":",
                                             "!"};

std::string plural(std::string_view noun) { return concat(noun, "s"); }

/// The words that statement, question and answer of a text share.
struct SharedWords {
  std::string_view article, many_article, modifier, noun, preposition;
  Verb verb;
};

SharedWords draw_parts(eval::Rng& rng) {
  return {rng.pick(kArticles),     rng.pick(kManyArticles), rng.pick(kModifiers),
          rng.pick(kTypicalNouns), rng.pick(kPrepositions), rng.pick(kVerbs)};
}

std::string worded(std::string_view form, const SharedWords& parts, bool several) {
  const std::string noun = several ? plural(parts.noun) : std::string(parts.noun);
  const bool vowel =
      std::string_view("aeiou").find((parts.modifier.empty() ? noun : parts.modifier)[0]) != std::string_view::npos;
  const std::string_view article = several                          ? parts.many_article
                                   : parts.article == "a " && vowel ? "an "
                                                                    : parts.article;
  return filled(form, {{'a', article},
                       {'m', parts.modifier},
                       {'t', noun},
                       {'p', parts.preposition},
                       {'b', several ? "are" : "is"},
                       {'i', several ? parts.verb.many : parts.verb.one}});
}

std::string_view draw_value_last(eval::Rng& rng) { return rng.below(5) < 2 ? kPlainForm : rng.pick(kValueLast); }
std::string_view draw_statement(eval::Rng& rng) {
  const int64_t drawn = rng.below(20);
  return drawn < 1 ? rng.pick(kValueFirst) : drawn < 3 ? rng.pick(kValueInside) : draw_value_last(rng);
}
bool has_value_last(std::string_view form) { return form.ends_with("{v}"); }

/// Draws the text before and after the value in an answer. Most answers have the words of the statement. A
/// statement that begins with its value cannot be used.
void draw_answer(eval::Rng& rng, std::string_view form, const SharedWords& parts, bool several,
                 FactWording& wording) {
  constexpr int64_t kOthers = 2;  // of ten answers have other words
  if (rng.below(10) < kOthers || form.starts_with("{v}") || form.starts_with("({v}") ||
      form.starts_with("with {v}") || (several && !has_value_last(form))) {
    SharedWords other = parts;
    other.verb = rng.pick(kVerbs);
    form = draw_value_last(rng);
    if (rng.below(2) == 0) other.preposition = rng.pick(kPrepositions);
    wording.lead = worded(form, other, several);
  } else {
    wording.lead = worded(form, parts, several);
  }
  const size_t value = wording.lead.find("{v}");
  wording.tail = wording.lead.substr(value + 3);
  wording.lead.resize(value);
}

std::string draw_preface(eval::Rng& rng, std::string_view noun) {
  if (rng.below(2) == 0) return "";
  const std::string form = concat(rng.pick(kPrefaceBegins), rng.pick(kPrefaceSubjects), rng.pick(kPrefacePlaces),
                                  rng.pick(kPrefaceEnds), rng.below(2) == 0 ? "\n" : "\n\n");
  return filled(form, {{'t', noun}});
}

}  // namespace

const Marks& draw_marks(eval::Rng& rng) { return rng.pick(kMarks); }

FactWording draw_fact_wording(eval::Rng& rng, bool several) {
  const SharedWords parts = draw_parts(rng);
  const Marks& marks = draw_marks(rng);
  const std::string_view form = draw_statement(rng);
  FactWording wording;
  wording.own_lines = rng.below(2) == 0;
  const std::string_view end = wording.own_lines ? rng.pick(kEnds) : ".";
  draw_answer(rng, form, parts, several, wording);
  const bool small = rng.below(6) == 0;
  const auto cased = [&](std::string text) { return small ? text : capital(std::move(text)); };
  wording.statement = cased(worded(form, parts, false)) + std::string(end);
  wording.lead = cased(wording.lead);
  wording.questions_on_lines = rng.below(4) != 0;
  wording.tail += end;
  if (!wording.questions_on_lines && wording.tail.empty()) wording.tail = ".";
  if (rng.below(4) != 0) {
    const std::string_view between = wording.questions_on_lines ? "\n" : " ";
    wording.question = concat(marks.question, cased(worded(rng.pick(kQuestions), parts, several)), between);
    wording.lead = concat(marks.answer, rng.below(12) == 0 ? "" : wording.lead);
  }
  wording.preface = draw_preface(rng, parts.noun);
  return wording;
}

FactWording draw_noun_wording(eval::Rng& rng) {
  SharedWords parts = draw_parts(rng);
  if (rng.below(2) == 0) parts.article = "the ";
  const Marks& marks = draw_marks(rng);
  FactWording wording;
  wording.own_lines = rng.below(2) == 0;
  const std::string_view end = wording.own_lines ? rng.pick(kEnds) : ".";
  const std::string form = capital(worded(rng.pick(kNounForms), parts, false));
  wording.statement = form + std::string(end);
  if (rng.below(2) == 0)
    wording.statement = concat(form, ". ", capital(worded(rng.pick(kNounRepetitions), parts, false)), end);
  wording.lead = form.substr(0, form.find("{v}"));
  wording.questions_on_lines = rng.below(4) != 0;
  wording.tail = wording.questions_on_lines ? end : ".";
  if (rng.below(4) != 0) {
    const std::string_view between = wording.questions_on_lines ? "\n" : " ";
    parts.article = "the ";
    wording.question = concat(marks.question, capital(worded(rng.pick(kNounQuestions), parts, false)), between);
    wording.lead = concat(marks.answer, rng.below(12) == 0 ? "" : wording.lead);
  }
  return wording;
}

std::string_view draw_modifier(eval::Rng& rng) { return rng.pick(kModifiers); }
std::string_view draw_noun(eval::Rng& rng) { return rng.pick(kTypicalNouns); }

void add_fact_templates(std::vector<std::string_view>& templates) {
  const auto add = [&](const auto& forms) {
    templates.insert(templates.end(), std::begin(forms), std::end(forms));
  };
  templates.push_back(kPlainForm);
  add(kValueLast), add(kValueInside), add(kValueFirst), add(kArticles), add(kManyArticles), add(kModifiers);
  add(kNounForms), add(kNounRepetitions), add(kNounQuestions);
  add(kTypicalNouns), add(kPrepositions), add(kQuestions), add(kPrefaceBegins), add(kPrefaceSubjects);
  add(kPrefacePlaces), add(kPrefaceEnds);
  for (const Verb& verb : kVerbs) templates.insert(templates.end(), {verb.one, verb.many});
  for (const Marks& marks : kMarks) templates.insert(templates.end(), {marks.question, marks.answer});
}

}  // namespace fathom::train
