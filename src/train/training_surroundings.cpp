// Templates, enumerations, and the text around facts of training tasks.
#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "eval/haystack.h"
#include "train/training_parts.h"
#include "train/training_words.h"

namespace fathom::train {
namespace {

// Filler sentences; {n} noun, {a} adjective, {p} name, the same in all repetitions within a text.
constexpr std::string_view kFiller[] = {"The {n} is {a}.",
                                        "By the door stands the {n}.",
                                        "Nobody minds the {n}.",
                                        "{p} looks at the {a} {n}.",
                                        "Another {a} day goes past.",
                                        "Snow lies upon the roofs.",
                                        "The clock ticks, and ticks.",
                                        "{p} waits; {p} always waits.",
                                        "Bread is baked, bread is eaten.",
                                        "Rain again.",
                                        "So it goes, so it went.",
                                        "There is a {n}, {a} as ever.",
                                        "Is the {n} {a}? It is.",
                                        "Somebody closes the {a} gate.",
                                        "Dogs bark at dusk.",
                                        "Leaves fall, leaves are swept.",
                                        "{p} counts the days.",
                                        "One {n} is much like another {n}.",
                                        "Tea is served at four.",
                                        "Cows graze behind the {a} fence."};

/// Returns the filler that a text repeats: some of the sentences above, or a passage of a book.
std::string draw_filler(eval::Rng& rng, const ProseSource& prose) {
  std::string filler;
  if (rng.below(3) != 0) filler = prose(rng, rng.between(40, 250));
  if (!filler.empty()) return filler + (rng.below(2) == 0 ? ".\n" : ". ");
  const std::string_view noun = rng.pick(training_nouns()), adjective = rng.pick(training_adjectives()),
                         name = rng.pick(training_names());
  for (const int64_t i : rng.distinct(std::ssize(kFiller), rng.between(1, 5)))
    filler += filled(kFiller[i], {{'n', noun}, {'a', adjective}, {'p', name}}) + " ";
  filler.back() = rng.below(3) == 0 ? ' ' : '\n';
  return filler;
}

Surroundings::Kind any_kind(eval::Rng& rng) {
  using Kind = Surroundings::Kind;
  constexpr Kind kKinds[] = {Kind::kProse, Kind::kProse, Kind::kProse, Kind::kFiller, Kind::kFiller, Kind::kBoth};
  return rng.pick(kKinds);
}

void end_line(std::string& text) {
  while (!text.empty() && (text.back() == ' ' || text.back() == '\n')) text.pop_back();
  if (!text.empty()) text += '\n';
}

}  // namespace

std::string filled(std::string_view form, std::initializer_list<Placeholder> parts) {
  std::string text;
  for (size_t at = 0; at < form.size();) {
    const Placeholder* placeholder = nullptr;
    if (form[at] == '{' && at + 2 < form.size() && form[at + 2] == '}') {
      const auto found = std::ranges::find(parts, form[at + 1], &Placeholder::name);
      if (found != parts.end()) placeholder = found;
    }
    if (placeholder != nullptr) {
      text += placeholder->text;
      at += 3;
    } else {
      text += form[at++];
    }
  }
  return text;
}

std::string capital(std::string text) {
  if (!text.empty()) text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
  return text;
}

std::string joined(const std::vector<std::string>& items, std::string_view between) {
  std::string text;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) text += between;
    text += items[i];
  }
  return text;
}

std::string joined(const std::vector<std::string>& items, const Joining& joining) {
  if (items.size() < 2) return joined(items, "");
  return concat(joined({items.begin(), items.end() - 1}, joining.between), joining.last, items.back());
}

Joining draw_joining(eval::Rng& rng) {
  constexpr Joining kJoinings[] = {{", ", " and "}, {", ", " and "}, {", ", " and "}, {", ", ", and "},
                                   {", ", ", "},    {", ", ", "},    {"; ", "; "},    {" and ", " and "},
                                   {" / ", " / "},  {" + ", " + "}};
  return rng.pick(kJoinings);
}

void append_answer(std::string_view before, std::string_view answer, std::string_view after, MarkedText& marked) {
  marked.text += before;
  const bool ends = !after.empty() && after[0] != ' ';
  marked.answers.push_back({marked.text.size(), marked.text.size() + answer.size() + (ends ? 1 : 0)});
  marked.text += answer;
  marked.text += after;
}

void append(const MarkedText& more, MarkedText& marked) {
  for (const eval::TextSpan& answer : more.answers)
    marked.answers.push_back({marked.text.size() + answer.begin, marked.text.size() + answer.end});
  marked.text += more.text;
}

Surroundings::Surroundings(eval::Rng& rng, const ProseSource& prose, Kind kind)
    : prose_(prose), kind_(kind), filler_(draw_filler(rng, prose)) {}
Surroundings::Surroundings(eval::Rng& rng, const ProseSource& prose) : Surroundings(rng, prose, any_kind(rng)) {}

std::string Surroundings::text(eval::Rng& rng, int64_t bytes) const {
  if (bytes <= 0 || kind_ == Kind::kNone) return "";
  if (kind_ == Kind::kProse) return prose_(rng, bytes);
  std::string text;
  if (kind_ == Kind::kBoth) text = prose_(rng, bytes * rng.between(2, 8) / 10);
  if (!text.empty()) text += '\n';
  while (std::ssize(text) + std::ssize(filler_) / 2 < bytes) text += filler_;
  return text;
}

MarkedText Surroundings::insert(const std::vector<std::string>& pieces, const MarkedText& end, eval::Rng& rng,
                                int64_t bytes, bool own_lines) const {
  int64_t taken = std::ssize(end.text);
  for (const std::string& piece : pieces) taken += std::ssize(piece) + 1;
  const std::string around = text(rng, bytes - taken);
  const std::vector<std::string_view> parts = eval::split_sentences(around);
  std::vector<int64_t> positions;
  for (size_t i = 0; i < pieces.size(); ++i) positions.push_back(rng.between(0, std::ssize(parts)));
  std::ranges::sort(positions);
  // in a quarter of the texts the first piece is at the beginning; otherwise the largest distances would be rare
  if (!positions.empty() && rng.below(4) == 0) positions[0] = 0;
  MarkedText marked;
  size_t next = 0;
  for (size_t part = 0; part <= parts.size(); ++part) {
    for (; next < pieces.size() && positions[next] == static_cast<int64_t>(part); ++next) {
      const bool at_line = marked.text.empty() || marked.text.back() == '\n';
      if (own_lines && !at_line) marked.text += '\n';
      if (!own_lines && !at_line && marked.text.back() != ' ') marked.text += ' ';
      marked.text += pieces[next] + (own_lines ? '\n' : ' ');
    }
    if (part < parts.size()) marked.text += parts[part];
  }
  end_line(marked.text);
  append(end, marked);
  return marked;
}

void add_surroundings_templates(std::vector<std::string_view>& templates) {
  templates.insert(templates.end(), std::begin(kFiller), std::end(kFiller));
}

}  // namespace fathom::train
