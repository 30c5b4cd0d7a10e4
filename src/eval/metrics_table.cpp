#include <algorithm>

#include "base/registry.h"
#include "eval/metrics.h"

namespace fathom::eval {
namespace {

/// Returns a metric: the best score of `compare` over the references.
template <class Compare>
std::function<Metric> best(Compare compare) {
  return [compare](const std::string& answer, const Sample& sample) {
    double highest = 0;
    for (const std::string& reference : sample.references) {
      highest = std::max(highest, static_cast<double>(compare(answer, reference)));
    }
    return highest;
  };
}

std::string detail(const Sample& sample, const char* key) {
  const auto found = sample.details.find(key);
  return found && found->is_string() ? found->get<std::string>() : std::string();
}

std::vector<std::string> detail_list(const Sample& sample, const char* key) {
  std::vector<std::string> list;
  const auto found = sample.details.find(key);
  if (!found || !found->is_array()) return list;
  for (const auto& item : found->items()) {
    if (item.is_string()) list.push_back(item.get<std::string>());
  }
  return list;
}

double class_metric(const std::string& answer, const Sample& sample) {
  const std::vector<std::string> classes = detail_list(sample, "classes");
  return best([&](const std::string& a, const std::string& gold) { return class_score(a, classes, gold); })(answer,
                                                                                                            sample);
}

double substr_all(const std::string& answer, const Sample& sample) {
  if (sample.references.empty()) return 0;
  const auto found = std::ranges::count_if(
      sample.references, [&](const std::string& reference) { return contains_text(answer, reference); });
  return static_cast<double>(found) / static_cast<double>(sample.references.size());
}

/// Returns a metric: BLEU against all references together.
std::function<Metric> bleu_metric(std::vector<double> weights,
                                  std::vector<std::string> (*tokens)(std::string_view)) {
  return [weights, tokens](const std::string& answer, const Sample& sample) {
    std::vector<std::vector<std::string>> references;
    for (const std::string& reference : sample.references) references.push_back(tokens(reference));
    return bleu(tokens(answer), references, weights);
  };
}

std::vector<std::string> english_tokens(std::string_view text) { return translation_tokens(text, false); }
std::vector<std::string> chinese_tokens(std::string_view text) { return translation_tokens(text, true); }

bool same_text(std::string_view answer, std::string_view reference) {
  return !trim(reference).empty() && lower_case(trim(answer)) == lower_case(trim(reference));
}

double comma_f1(std::string_view answer, std::string_view reference) {
  return set_f1(comma_items(answer), comma_items(reference)).f1;
}

/// Returns 1 minus the mean distance of the items from their positions, relative to the largest possible mean.
double order_metric(std::string_view answer, std::string_view reference) {
  const std::vector<std::string> expected = enumerated(reference);
  const std::vector<int64_t> positions = positions_in(enumerated(answer), expected);
  if (positions.empty()) return 0;
  if (positions.size() == 1) return 1;
  return 1 - order_distances(positions).mean / worst_order_distances(static_cast<int64_t>(positions.size())).mean;
}

/// Compares the integers of the answer with the first integer of the reference.
double number_metric(std::string_view answer, std::string_view reference) {
  const std::vector<std::string_view> numbers = digit_runs(reference);
  return numbers.empty() ? 0 : number_score(answer, numbers.front());
}

double permutation_metric(std::string_view answer, std::string_view reference) {
  constexpr int64_t kSegments = 4;
  const std::vector<int64_t> expected = answered_permutation(reference, kSegments);
  return !expected.empty() && answered_permutation(answer, kSegments) == expected ? 1 : 0;
}

double best_answer_metric(const std::string& answer, const Sample& sample) {
  const auto found = sample.details.find("choices");
  if (!found || !found->is_number_integer()) return 0;
  const int64_t label = best_answer_label(answer, found->get<int64_t>());
  return label > 0 && std::ranges::count(sample.references, "A" + std::to_string(label)) > 0 ? 1 : 0;
}

double letter_metric(std::string_view answer, std::string_view reference) {
  const char letter = choice_letter(answer);
  return letter != ' ' && letter == choice_letter(reference) ? 1 : 0;
}

double last_integer(std::string_view answer, std::string_view reference) {
  return infinite_last_integer(answer, reference) ? 1 : 0;
}

double first_number(std::string_view answer, std::string_view reference) {
  const std::string number(trim(reference));
  char* end = nullptr;
  const double expected = std::strtod(number.c_str(), &end);
  return end != number.c_str() && infinite_first_number(answer, expected) ? 1 : 0;
}

double integer_prefix(std::string_view answer, std::string_view reference) {
  std::vector<std::string> expected;
  for (const std::string_view run : digit_runs(reference)) expected.emplace_back(run);
  return infinite_prefix(answer, expected);
}

double infinite_choice_metric(const std::string& answer, const Sample& sample) {
  const std::string letter = detail(sample, "letter");
  return letter.size() == 1 && infinite_choice(answer, letter[0], detail(sample, "option")) ? 1 : 0;
}

double infinite_debug_metric(const std::string& answer, const Sample& sample) {
  const std::string letter = detail(sample, "letter");
  return letter.size() == 1 && infinite_debug(answer, letter[0], detail(sample, "option")) ? 1 : 0;
}

using Text = std::string_view;

std::vector<NamedMetric> make_table() {
  return {
      {"best_answer", "the highest label A<n> equals the reference; details.choices is the number of labels",
       best_answer_metric},
      {"bleu", "BLEU-4, mteval-13a tokens", bleu_metric({0.25, 0.25, 0.25, 0.25}, english_tokens)},
      {"bleu_1", "BLEU-1, words", bleu_metric({1}, plain_tokens)},
      {"bleu_4", "BLEU-4, words", bleu_metric({0.25, 0.25, 0.25, 0.25}, plain_tokens)},
      {"bleu_zh", "BLEU-4, each CJK character a token", bleu_metric({0.25, 0.25, 0.25, 0.25}, chinese_tokens)},
      {"chrf", "chrF", best([](Text a, Text b) { return chrf(a, b); })},
      {"chrf++", "chrF++", best([](Text a, Text b) { return chrf(a, b, 2); })},
      {"class", "1/n if the reference is among the n classes named; details.classes lists all classes",
       class_metric},
      {"code_similarity", "edit similarity of the first line of code, in hundredths", best(code_similarity)},
      {"comma_f1", "F1 of sets of items between commas", best(comma_f1)},
      {"edit_similarity", "share of characters in matching blocks", best(edit_similarity)},
      {"exact_match", "equal after normalisation", best(exact_match)},
      {"first_integer", "the first integer is the reference", best(infinite_first_integer)},
      {"first_number", "the first number equals the reference", best(first_number)},
      {"infinite_choice", "letter or text of the choice; details.letter, details.option", infinite_choice_metric},
      {"infinite_debug", "letter or name of the function; details.letter, details.option", infinite_debug_metric},
      {"integer_prefix", "share of the reference's integers before the first wrong one", best(integer_prefix)},
      {"last_integer", "the last word is the reference, an integer", best(last_integer)},
      {"letter", "letter after \"correct answer is\"", best(letter_metric)},
      {"number", "share of the answer's integers that equal the reference's first", best(number_metric)},
      {"order", "1 - mean distance from the correct order, relative to the worst", best(order_metric)},
      {"permutation", "the permutation of 1 to 4 equals the reference", best(permutation_metric)},
      {"qa_f1", "F1 of normalised words", best(qa_f1)},
      {"qa_f1_zh", "F1 of characters", best(qa_f1_chinese)},
      {"rouge_1", "F1 of words", best([](Text a, Text b) { return rouge_n(a, b, 1).f1; })},
      {"rouge_2", "F1 of pairs of words", best([](Text a, Text b) { return rouge_n(a, b, 2).f1; })},
      {"rouge_l", "F1 of the longest common subsequence", best([](Text a, Text b) { return rouge_l(a, b).f1; })},
      {"rouge_l_lines", "ROUGE-Lsum", best([](Text a, Text b) { return rouge_l_lines(a, b).f1; })},
      {"rouge_l_recall", "recall of the longest common subsequence",
       best([](Text a, Text b) { return rouge_l(a, b).recall; })},
      {"rouge_l_sentences", "F1 of united subsequences of sentences",
       best([](Text a, Text b) { return rouge_l_sentences(a, b).f1; })},
      {"rouge_l_sentences_recall", "recall of united subsequences of sentences",
       best([](Text a, Text b) { return rouge_l_sentences(a, b).recall; })},
      {"rouge_l_sentences_recall_zh", "recall of united subsequences of sentences over characters",
       best([](Text a, Text b) { return rouge_l_sentences(a, b, true).recall; })},
      {"rouge_l_sentences_zh", "F1 of united subsequences of sentences over characters",
       best([](Text a, Text b) { return rouge_l_sentences(a, b, true).f1; })},
      {"same_text", "equal, ignoring the case of letters", best(same_text)},
      {"substr_all", "share of the references that occur in the answer", substr_all},
      {"substr_any", "a reference occurs in the answer", best(contains_text)},
      {"word", "the reference is a word of the answer",
       best([](Text a, Text b) { return infinite_word(a, b, false); })},
      {"word_any_case", "the reference is a word of the answer, ignoring the case of letters",
       best([](Text a, Text b) { return infinite_word(a, b, true); })},
  };
}

}  // namespace

const std::vector<NamedMetric>& metrics() {
  static const std::vector<NamedMetric> table = make_table();
  return table;
}

const NamedMetric& find_metric(std::string_view name) {
  std::vector<std::string> known;
  for (const NamedMetric& metric : metrics()) {
    if (metric.name == name) return metric;
    known.emplace_back(metric.name);
  }
  fail_unknown_method("metric", name, known);
}

}  // namespace fathom::eval
