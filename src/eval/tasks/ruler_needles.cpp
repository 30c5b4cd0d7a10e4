// RULER's eight needle tasks (RULER: What's the Real Context Size of Your Long-Context Language Models?, 2024).
#include <algorithm>
#include <set>

#include "base/format.h"
#include "eval/tasks/hiding.h"
#include "eval/tasks/tasks.h"
#include "eval/words.h"

namespace fathom::eval {
namespace {

constexpr int64_t kNeedleReserve = 128;
constexpr int64_t kDepths = 40;  // needles in prose are at different depths of this many evenly spaced ones

struct NeedleSettings {
  std::string haystack;  // "noise", "text", "needles"
  bool uuid_keys = false, uuid_values = false;
  int64_t keys = 1, values = 1, queries = 1;
};

struct MagicNeedle {
  std::string key, value;
};

/// Returns "a, b and c".
std::string listed(const std::vector<std::string>& items) {
  std::string text;
  for (size_t i = 0; i < items.size(); ++i)
    text += (i == 0 ? "" : i + 1 == items.size() ? " and " : ", ") + items[i];
  return text;
}

/// Draws distinct keys: an adjective and a noun joined by a hyphen, with a second adjective if there are too few
/// pairs, or UUIDs.
class NeedleKeys {
 public:
  NeedleKeys(Rng& rng, int64_t count, bool uuid) : rng_(rng), uuid_(uuid) {
    const auto pairs = static_cast<int64_t>(adjectives().size() * nouns().size());
    triples_ = count > pairs / 2;
  }
  std::string next() {
    for (;;) {
      const std::string key = draw();
      if (used_.insert(key).second) return key;
    }
  }

 private:
  std::string draw() {
    if (uuid_) return random_uuid(rng_);
    const std::string_view noun = rng_.pick(nouns()), adjective = rng_.pick(adjectives());
    const std::string pair = concat(adjective, "-", noun);
    return triples_ ? concat(rng_.pick(adjectives()), "-", pair) : pair;
  }
  Rng& rng_;
  bool uuid_, triples_;
  std::set<std::string> used_;
};

class RulerNeedleTask final : public Task {
 public:
  RulerNeedleTask(std::string name, NeedleSettings settings)
      : Task(std::move(name)), settings_(std::move(settings)) {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    Rng rng = this->rng(input, length, index);
    const std::string text = settings_.haystack == "text" ? input.haystack->text(rng, length) : "";
    const std::vector<MagicNeedle> needles = draw_needles(rng, text);
    std::vector<MagicNeedle> order = needles;
    rng.shuffle(order);
    const Rng rng_state = rng;  // samples of every size continue with the same random numbers
    const std::vector<size_t> ends = word_ends(text);
    const auto build_of = [&](int64_t units) {
      Rng own = rng_state;
      return build(needles, settings_.haystack == "noise"  ? hide_in_noise(units, at_lines(order, units, own))
                            : settings_.haystack == "text" ? hide_in_text(text, ends, units, order, own)
                                                           : among_needles(order, units, own));
    };
    if (settings_.haystack != "text") return fit_sample(*this, input, length, 0, length, build_of);
    return fit_sample(*this, input, length, 0, static_cast<int64_t>(ends.size()), build_of, haystack_source(input));
  }

  Score score(const Sample& sample, const Answer& answer) const override { return recall_score(sample, answer); }

 private:
  std::string type() const { return settings_.uuid_values ? "uuid" : "number"; }
  std::string sentence(const MagicNeedle& needle) const {
    return concat("A magic ", type(), " for ", needle.key, " is ", needle.value, ".");
  }
  std::string draw_value(Rng& rng) const {
    return settings_.uuid_values ? random_uuid(rng) : random_number(rng, 7);
  }

  /// Draws keys in random order with their values. No value occurs in `text` or twice.
  std::vector<MagicNeedle> draw_needles(Rng& rng, const std::string& text) const {
    const int64_t count = std::max(settings_.keys, settings_.queries);
    NeedleKeys keys(rng, count, settings_.uuid_keys);
    std::set<std::string> used;
    std::vector<MagicNeedle> needles;
    for (int64_t k = 0; k < count; ++k) {
      const std::string key = keys.next();
      for (int64_t v = 0; v < settings_.values;) {
        const std::string value = draw_value(rng);
        if (text.find(value) != std::string::npos || !used.insert(value).second) continue;
        needles.push_back({key, value});
        ++v;
      }
    }
    return needles;
  }

  HiddenPieces sentences(const std::vector<MagicNeedle>& order) const {
    HiddenPieces hidden;
    for (const MagicNeedle& needle : order) hidden.texts.push_back(sentence(needle));
    return hidden;
  }

  /// Positions the needles before different lines of noise.
  HiddenPieces at_lines(const std::vector<MagicNeedle>& order, int64_t lines, Rng& rng) const {
    HiddenPieces hidden = sentences(order);
    const auto count = static_cast<int64_t>(order.size());
    for (const int64_t line : rng.distinct(std::max(lines, count), count))
      hidden.depths.push_back(static_cast<double>(line) / static_cast<double>(std::max(lines, count)));
    std::ranges::sort(hidden.depths);
    return hidden;
  }

  std::string hide_in_text(const std::string& text, const std::vector<size_t>& ends, int64_t words,
                           const std::vector<MagicNeedle>& order, Rng& rng) const {
    HiddenPieces hidden = sentences(order);
    for (const int64_t depth : rng.distinct(kDepths, static_cast<int64_t>(order.size())))
      hidden.depths.push_back(static_cast<double>(depth) / (kDepths - 1));
    std::ranges::sort(hidden.depths);
    const size_t bytes = words == 0 ? 0 : ends[words - 1];
    return hide_in_prose(std::string_view(text).substr(0, bytes), hidden) + "\n";
  }

  /// Returns a text whose lines are all needles. The queried needles are before different lines of the others.
  std::string among_needles(const std::vector<MagicNeedle>& order, int64_t lines, Rng& rng) const {
    const HiddenPieces hidden = at_lines(order, lines, rng);
    std::set<std::string> taken;
    for (const MagicNeedle& needle : order) taken.insert({needle.key, needle.value});
    NeedleKeys keys(rng, lines, settings_.uuid_keys);
    std::string text;
    size_t next = 0;
    for (int64_t line = 0; line <= lines; ++line) {
      const double depth = lines > 0 ? static_cast<double>(line) / static_cast<double>(lines) : 1;
      for (; next < order.size() && (hidden.depths[next] <= depth || line == lines); ++next)
        text += hidden.texts[next] + "\n";
      if (line == lines) break;
      MagicNeedle other{keys.next(), draw_value(rng)};
      while (taken.count(other.key) > 0) other.key = keys.next();
      while (!taken.insert(other.value).second) other.value = draw_value(rng);
      text += sentence(other) + "\n";
    }
    return text;
  }

  Sample build(const std::vector<MagicNeedle>& needles, const std::string& text) const {
    const size_t queried = settings_.queries * settings_.values;
    const bool one = queried == 1;
    Sample sample;
    const std::string target =
        one ? concat("the magic ", type(), " that stands") : concat("the magic ", type(), "s that stand");
    sample.context = concat("Read the text below and remember ", target, " in it: you will be asked for ",
                            one ? "it" : "them", " afterwards.\n\n", text);
    std::vector<std::string> keys;
    for (size_t i = 0; i < queried; ++i) {
      if (std::ranges::count(keys, needles[i].key) == 0) keys.push_back(needles[i].key);
      sample.references.push_back(needles[i].value);
      add_evidence(sample, sentence(needles[i]));
    }
    std::ranges::sort(sample.evidence, {}, &TextSpan::begin);
    if (queried == 1) set_depth(sample, text.size());
    const std::string item_name = one ? concat("magic ", type(), " for ") : concat("magic ", type(), "s for ");
    sample.question = one ? concat("\nQuestion: What is the ", item_name, keys[0], "?\n")
                          : concat("\nQuestion: What are all the ", item_name, listed(keys), " in the text?\n");
    sample.lead = one ? concat("Answer: A ", item_name, keys[0], " is")
                      : concat("Answer: The ", item_name, listed(keys), " are");
    sample.reserve = kNeedleReserve;
    sample.stop = {"\nQuestion:"};
    return sample;
  }

  static void set_depth(Sample& sample, size_t text_bytes) {
    const TextSpan& needle = sample.evidence[0];
    const size_t begin = needle.begin - (sample.context.size() - text_bytes);
    const size_t rng_state = text_bytes - (needle.end - needle.begin);
    sample.depth = rng_state > 0 ? std::min(1.0, static_cast<double>(begin) / static_cast<double>(rng_state)) : 0.0;
  }

  NeedleSettings settings_;
};

MethodInfo info(const char* name, const char* summary) {
  return {"",      name,
          summary, "RULER: What's the Real Context Size of Your Long-Context Language Models?, 2024",
          false,   "any model",
          "",      "",
          {}};
}

template <class Settings>
MethodTable<TaskMethod>::Entry entry(const char* name, const char* summary, Settings settings) {
  return {info(name, summary),
          [=](const Values&) -> TaskList { return {std::make_shared<RulerNeedleTask>(name, settings)}; }};
}

}  // namespace

std::vector<MethodTable<TaskMethod>::Entry> ruler_needle_tasks() {
  const auto needles = [](const char* haystack, bool uuid_keys, bool uuid_values, int64_t keys, int64_t values,
                          int64_t queries) {
    return NeedleSettings{haystack, uuid_keys, uuid_values, keys, values, queries};
  };
  return {
      entry("niah_single_1", "find one number hidden in repeated noise", needles("noise", false, false, 1, 1, 1)),
      entry("niah_single_2", "find one number hidden in prose", needles("text", false, false, 1, 1, 1)),
      entry("niah_single_3", "find one UUID hidden in prose", needles("text", false, true, 1, 1, 1)),
      entry("niah_multikey_1", "four numbers with different keys hidden in prose; find one",
            needles("text", false, false, 4, 1, 1)),
      entry("niah_multikey_2", "a text that consists only of keys and numbers; find one number",
            needles("needles", false, false, 1, 1, 1)),
      entry("niah_multikey_3", "a text that consists only of UUID keys and UUID values; find one value",
            needles("needles", true, true, 1, 1, 1)),
      entry("niah_multivalue", "four numbers with the same key hidden in prose; find all four",
            needles("text", false, false, 1, 4, 1)),
      entry("niah_multiquery", "four numbers with different keys hidden in prose; find all four",
            needles("text", false, false, 4, 1, 4)),
  };
}

}  // namespace fathom::eval
