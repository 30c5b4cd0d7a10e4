// Prose that a grammar makes up: sentences of many shapes about people, places and things, in paragraphs that keep
// to their people. It means little, but no sentence of it states what a task hides.
#include "eval/haystack.h"
#include "eval/words.h"

namespace fathom::eval {
namespace {

// Slots: P Q people of the paragraph, T town, A adjective, N noun, V what one does, G going on, W when, H how, E
// what happens. A slot in lower case is the same class again: its number of letters does not matter, each is drawn
// anew.
constexpr std::string_view kSentences[] = {
    "{W}, {P} walked along the {A} road towards {T}, where the {N} stood beside the {N}.",
    "{P} had never seen a {A} {N} before, and looked at it for a long while.",
    "It was said in {T} that whoever kept a {N} in the house would never want for a {N}.",
    "The {N} lay on the table, and nobody in the room seemed to mind that it was {A} and {A}.",
    "{P} and {Q} {V}, though neither of them spoke of it until the evening.",
    "There was a {A} wind from the hills, and the {N} by the gate moved {H} to and fro.",
    "When {P} came back, the {N} was gone, and in its place somebody had left a {A} {N}.",
    "{W} the people of {T} {V}, as they had done for as long as anyone could remember.",
    "{Q} laughed {H} and asked whether the {N} had been made by hand or bought at the fair.",
    "Behind the {N} there was a {A} garden, and behind the garden a path that led to the {N}.",
    "{P} thought of the {A} days in {T}, and of the {N} that used to hang above the door.",
    "Nothing pleased {Q} so much as {G} in the {A} hours before breakfast.",
    "The {A} {N} was older than the {A} one, but both had been brought from {T} in the same cart.",
    "At last {E}, and {P} took the {N} home under one arm.",
    "{P} knew very well that {E}, but said nothing of it to {Q}.",
    "A {A} light fell through the window, over the {N} and the {N} and the {A} floor.",
    "If {E}, thought {Q}, there would be time enough for {G}.",
    "The road to {T} was {A} and {A}, and hardly anyone took it after dark.",
    "{W} {E}; still, {P} went on {G} as if it were nothing.",
    "Some said the {N} was worth more than all of {T}, and some that it was worth nothing at all.",
    "{P}, who was fond of {G}, could not understand why {Q} preferred a {A} {N}.",
    "They {V}, they rested by the {N}, and they talked {H} of the years that were past.",
    "Between the {N} and the {N} ran a {A} stream, in which the children of {T} liked to play.",
    "{Q} put the {N} down {H}, and for a moment everything in the house was {A}.",
    "Far away a bell was ringing, and {P} counted the strokes while {G}.",
    "Every {N} in the street had its own {A} story, and {Q} had heard them all.",
    "{P} wrote a letter to a friend in {T}, and told at length how they {V}.",
    "The old {N} creaked {H}, as though it wished to remind them that {E}.",
    "In the market of {T} one could buy a {A} {N}, a {N} without a handle, or a basket of apples.",
    "{W} {Q} {V} with {P}, and the {A} afternoon went by before they noticed it.",
    "What became of the {A} {N} afterwards, nobody in {T} could ever tell.",
    "It took {P} the whole morning to mend the {N}, for it was {A} inside and {A} outside.",
};
constexpr std::string_view kDid[] = {
    "went down to the river",       "sat together under the tree",
    "looked for the missing key",   "mended the broken fence",
    "read the old letters again",   "waited for the coach",
    "cooked a large supper",        "climbed the hill behind the church",
    "spoke of the journey",         "carried water from the well",
    "watched the boats come in",    "sang in the hall",
    "gathered wood for the winter", "painted the shutters",
    "told one another stories",     "rowed across the lake",
    "searched the attic",           "fed the horses",
    "baked bread for the feast",    "listened to the rain",
};
constexpr std::string_view kDoing[] = {
    "reading by the fire",  "walking in the fields", "mending nets",           "looking after the bees",
    "playing the fiddle",   "writing long letters",  "drawing maps",           "watching the clouds",
    "picking berries",      "polishing the spoons",  "talking with strangers", "collecting shells",
    "keeping the accounts", "sweeping the yard",     "learning new songs",
};
constexpr std::string_view kWhen[] = {
    "In the morning",           "Late in the year",          "After supper",
    "On market days",           "Before the snow came",      "Towards evening",
    "Once in a while",          "When the rain had stopped", "In those days",
    "Not long afterwards",      "As soon as it was light",   "On the following day",
    "During the harvest",       "Sooner or later",           "Many years ago",
    "At the end of the summer",
};
constexpr std::string_view kHow[] = {
    "slowly",       "gently",       "without a word",      "with some care",
    "quietly",      "merrily",      "in great haste",      "rather sadly",
    "with a smile", "patiently",    "a little too loudly", "as usual",
    "half in jest", "thoughtfully",
};
constexpr std::string_view kHappened[] = {
    "the rain stopped",          "the clock struck",
    "the lamp went out",         "the coach arrived",
    "the wind turned",           "the neighbours came to visit",
    "the dog began to bark",     "the fog lifted",
    "the letter was found",      "the bridge was closed",
    "the guests went home",      "the snow began to melt",
    "the door opened by itself", "the music ended",
    "the last boat left",        "the moon rose over the roofs",
};

struct Paragraph {
  std::string_view first, second, town;
};

std::string_view fill(char slot, const Paragraph& paragraph, Rng& rng) {
  switch (slot) {
    case 'P':
      return paragraph.first;
    case 'Q':
      return paragraph.second;
    case 'T':
      return paragraph.town;
    case 'A':
      return rng.pick(adjectives());
    case 'N':
      return rng.pick(nouns());
    case 'V':
      return rng.pick(kDid);
    case 'G':
      return rng.pick(kDoing);
    case 'W':
      return rng.pick(kWhen);
    case 'H':
      return rng.pick(kHow);
    default:
      return rng.pick(kHappened);
  }
}

/// "a" before a vowel becomes "an".
void append_word(std::string& text, std::string_view word) {
  static constexpr std::string_view kVowels = "aeiou";
  const bool after_a = text.ends_with(" a ") || text.ends_with("A ") || text == "a ";
  if (after_a && kVowels.find(word[0]) != std::string_view::npos) text.insert(text.size() - 1, "n");
  text += word;
}

void append_sentence(std::string& text, const Paragraph& paragraph, Rng& rng) {
  const std::string_view shape = rng.pick(kSentences);
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == '{') {
      append_word(text, fill(shape[i + 1], paragraph, rng));
      i += 2;
    } else {
      text += shape[i];
    }
  }
}

int64_t count_words(std::string_view text) { return static_cast<int64_t>(word_ends(text).size()); }

class Prose final : public Haystack {
 public:
  const std::string& name() const override { return name_; }

  std::string text(Rng& rng, int64_t words) const override {
    std::string text;
    for (int64_t written = 0; written < words;) {
      if (!text.empty()) text += "\n";
      const std::vector<int64_t> people = rng.distinct(static_cast<int64_t>(first_names().size()), 2);
      const Paragraph paragraph{first_names()[people[0]], first_names()[people[1]], rng.pick(towns())};
      const size_t begin = text.size();
      for (int64_t sentences = rng.between(4, 8); sentences > 0; --sentences) {
        append_sentence(text, paragraph, rng);
        if (sentences > 1) text += ' ';
      }
      written += count_words(std::string_view(text).substr(begin));
    }
    const std::vector<size_t> ends = word_ends(text);
    if (static_cast<int64_t>(ends.size()) > words) text.resize(words > 0 ? ends[words - 1] : 0);
    return text;
  }

 private:
  std::string name_ = "prose";
};

}  // namespace

std::unique_ptr<Haystack> prose_haystack() { return std::make_unique<Prose>(); }

}  // namespace fathom::eval
