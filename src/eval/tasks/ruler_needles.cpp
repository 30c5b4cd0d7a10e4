// RULER's eight needle tasks (RULER: What's the Real Context Size of Your Long-Context Language Models?, 2024).
#include <algorithm>
#include <set>

#include "base/format.h"
#include "eval/tasks/hiding.h"
#include "eval/tasks/tasks.h"
#include "eval/words.h"

namespace fathom::eval {
namespace {

constexpr int64_t kReserve = 128;
constexpr int64_t kDepths = 40;  // needles in prose lie at different ones of so many even depths

struct NeedleSettings {
  std::string haystack;  // "noise", "text", "needles"
  bool uuid_keys = false, uuid_values = false;
  int64_t keys = 1, values = 1, queries = 1;
};

struct Needle {
  std::string key, value;
};

/// "a, b and c".
std::string listed(const std::vector<std::string>& items) {
  std::string text;
  for (size_t i = 0; i < items.size(); ++i)
    text += (i == 0 ? "" : i + 1 == items.size() ? " and " : ", ") + items[i];
  return text;
}

/// An adjective and a noun joined by a hyphen; with a second adjective when there are too few pairs.
class Keys {
 public:
  Keys(Rng& rng, int64_t count, bool uuid) : rng_(rng), uuid_(uuid) {
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
    const std::string pair = concat(rng_.pick(adjectives()), "-", rng_.pick(nouns()));
    return triples_ ? concat(rng_.pick(adjectives()), "-", pair) : pair;
  }
  Rng& rng_;
  bool uuid_, triples_;
  std::set<std::string> used_;
};

class RulerNeedles final : public Task {
 public:
  RulerNeedles(std::string name, NeedleSettings settings) : Task(std::move(name)), settings_(std::move(settings)) {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    Rng rng = this->rng(input, length, index);
    const std::string text = settings_.haystack == "text" ? input.haystack->text(rng, length) : "";
    const std::vector<Needle> needles = draw_needles(rng, text);
    std::vector<Needle> order = needles;
    rng.shuffle(order);
    const Rng rest = rng;  // every size of the sample goes on from the same numbers
    const std::vector<size_t> ends = word_ends(text);
    const auto build_of = [&](int64_t units) {
      Rng own = rest;
      return build(needles, settings_.haystack == "noise"  ? hide_in_noise(units, places(order, units, own))
                            : settings_.haystack == "text" ? hide_in_text(text, ends, units, order, own)
                                                           : among_needles(order, units, own));
    };
    if (settings_.haystack != "text") return fit_sample(*this, input, length, 0, length, build_of);
    return fit_sample(*this, input, length, 0, static_cast<int64_t>(ends.size()), build_of, haystack_source(input));
  }

  Score score(const Sample& sample, const Answer& answer) const override { return recall_score(sample, answer); }

 private:
  std::string type() const { return settings_.uuid_values ? "uuid" : "number"; }
  std::string sentence(const Needle& needle) const {
    return concat("A magic ", type(), " for ", needle.key, " is ", needle.value, ".");
  }
  std::string draw_value(Rng& rng) const {
    return settings_.uuid_values ? random_uuid(rng) : random_number(rng, 7);
  }

  /// Keys in random order with their values; no value occurs in `text` or twice.
  std::vector<Needle> draw_needles(Rng& rng, const std::string& text) const {
    const int64_t count = std::max(settings_.keys, settings_.queries);
    Keys keys(rng, count, settings_.uuid_keys);
    std::set<std::string> used;
    std::vector<Needle> needles;
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

  Hiding sentences(const std::vector<Needle>& order) const {
    Hiding hiding;
    for (const Needle& needle : order) hiding.pieces.push_back(sentence(needle));
    return hiding;
  }

  /// In noise: before different lines.
  Hiding places(const std::vector<Needle>& order, int64_t lines, Rng& rng) const {
    Hiding hiding = sentences(order);
    const auto count = static_cast<int64_t>(order.size());
    for (const int64_t line : rng.distinct(std::max(lines, count), count))
      hiding.depths.push_back(static_cast<double>(line) / static_cast<double>(std::max(lines, count)));
    std::ranges::sort(hiding.depths);
    return hiding;
  }

  std::string hide_in_text(const std::string& text, const std::vector<size_t>& ends, int64_t words,
                           const std::vector<Needle>& order, Rng& rng) const {
    Hiding hiding = sentences(order);
    for (const int64_t depth : rng.distinct(kDepths, static_cast<int64_t>(order.size())))
      hiding.depths.push_back(static_cast<double>(depth) / (kDepths - 1));
    std::ranges::sort(hiding.depths);
    const size_t bytes = words == 0 ? 0 : ends[words - 1];
    return hide_in_prose(std::string_view(text).substr(0, bytes), hiding) + "\n";
  }

  /// All lines are needles; those asked for lie before different ones of the others.
  std::string among_needles(const std::vector<Needle>& order, int64_t lines, Rng& rng) const {
    const Hiding hiding = places(order, lines, rng);
    std::set<std::string> taken;
    for (const Needle& needle : order) taken.insert({needle.key, needle.value});
    Keys keys(rng, lines, settings_.uuid_keys);
    std::string text;
    size_t next = 0;
    for (int64_t line = 0; line <= lines; ++line) {
      const double depth = lines > 0 ? static_cast<double>(line) / static_cast<double>(lines) : 1;
      for (; next < order.size() && (hiding.depths[next] <= depth || line == lines); ++next)
        text += hiding.pieces[next] + "\n";
      if (line == lines) break;
      Needle other{keys.next(), draw_value(rng)};
      while (taken.count(other.key) > 0) other.key = keys.next();
      while (!taken.insert(other.value).second) other.value = draw_value(rng);
      text += sentence(other) + "\n";
    }
    return text;
  }

  Sample build(const std::vector<Needle>& needles, const std::string& text) const {
    const size_t asked = settings_.queries * settings_.values;
    const bool one = asked == 1;
    Sample sample;
    const std::string wanted =
        one ? concat("the magic ", type(), " that stands") : concat("the magic ", type(), "s that stand");
    sample.context = concat("Read the text below and remember ", wanted, " in it: you will be asked for ",
                            one ? "it" : "them", " afterwards.\n\n", text);
    std::vector<std::string> keys;
    for (size_t i = 0; i < asked; ++i) {
      if (std::ranges::count(keys, needles[i].key) == 0) keys.push_back(needles[i].key);
      sample.references.push_back(needles[i].value);
      add_evidence(sample, sentence(needles[i]));
    }
    std::ranges::sort(sample.evidence, {}, &TextSpan::begin);
    if (asked == 1) set_depth(sample, text.size());
    const std::string what = one ? concat("magic ", type(), " for ") : concat("magic ", type(), "s for ");
    sample.question = one ? concat("\nQuestion: What is the ", what, keys[0], "?\n")
                          : concat("\nQuestion: What are all the ", what, listed(keys), " in the text?\n");
    sample.lead =
        one ? concat("Answer: A ", what, keys[0], " is") : concat("Answer: The ", what, listed(keys), " are");
    sample.reserve = kReserve;
    sample.stop = {"\nQuestion:"};
    return sample;
  }

  static void set_depth(Sample& sample, size_t text_bytes) {
    const TextSpan& needle = sample.evidence[0];
    const size_t begin = needle.begin - (sample.context.size() - text_bytes);
    const size_t rest = text_bytes - (needle.end - needle.begin);
    sample.depth = rest > 0 ? std::min(1.0, static_cast<double>(begin) / static_cast<double>(rest)) : 0.0;
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
          [=](const Values&) -> TaskList { return {std::make_shared<RulerNeedles>(name, settings)}; }};
}

}  // namespace

std::vector<MethodTable<TaskMethod>::Entry> ruler_needle_tasks() {
  const auto needles = [](const char* haystack, bool uuid_keys, bool uuid_values, int64_t keys, int64_t values,
                          int64_t queries) {
    return NeedleSettings{haystack, uuid_keys, uuid_values, keys, values, queries};
  };
  return {
      entry("niah_single_1", "one number hidden in repeated noise", needles("noise", false, false, 1, 1, 1)),
      entry("niah_single_2", "one number hidden in prose", needles("text", false, false, 1, 1, 1)),
      entry("niah_single_3", "one UUID hidden in prose", needles("text", false, true, 1, 1, 1)),
      entry("niah_multikey_1", "four numbers hidden in prose, one asked for",
            needles("text", false, false, 4, 1, 1)),
      entry("niah_multikey_2", "a text that is all numbers of different keys, one asked for",
            needles("needles", false, false, 1, 1, 1)),
      entry("niah_multikey_3", "the same with UUIDs for keys and values", needles("needles", true, true, 1, 1, 1)),
      entry("niah_multivalue", "four numbers of one key hidden in prose, all asked for",
            needles("text", false, false, 1, 4, 1)),
      entry("niah_multiquery", "four numbers of four keys hidden in prose, all asked for",
            needles("text", false, false, 4, 1, 4)),
  };
}

}  // namespace fathom::eval
