#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "eval/sample.h"

namespace fathom::eval {

// Metrics that compare answers with references. Scores are in [0, 1]. No metric throws for any input bytes: invalid
// UTF-8 is treated byte by byte.

// ---- Text (metrics_text.cpp)

/// Splits `text` into UTF-8 characters; each invalid byte is a character of its own.
std::vector<std::string_view> characters(std::string_view text);
/// Returns whether one of characters() is a letter, digit or underscore (\w of regular expressions; approximate
/// beyond ASCII).
bool is_word_character(std::string_view character);
/// Splits `text` at Unicode white space.
std::vector<std::string_view> split_words(std::string_view text);
/// Removes Unicode white space at both ends.
std::string_view trim(std::string_view text);
/// Converts ASCII, Latin-1, Greek and Cyrillic letters to lower case and keeps everything else.
std::string lower_case(std::string_view text);
/// Returns the text in lower case without ASCII punctuation and the words a, an, the; words are separated by single
/// spaces (SQuAD's normalisation).
std::string normalize_english(std::string_view text);
/// Returns the text in lower case without white space and without ASCII and CJK punctuation (LongBench's
/// normalisation).
std::string normalize_chinese(std::string_view text);
/// Returns the maximal runs of the digits 0 to 9.
std::vector<std::string_view> digit_runs(std::string_view text);

// ---- Equality and overlap (metrics_overlap.cpp)

/// Precision, recall and their harmonic mean.
struct Overlap {
  double precision = 0, recall = 0, f1 = 0;
};
/// Returns the overlap of an answer with `answered` items and a reference with `expected` items that have `matched`
/// items in common. All values are 0 if one of the numbers is 0.
Overlap overlap(double matched, double answered, double expected);

/// Returns the F1 score of the two bags of words after normalize_english.
double qa_f1(std::string_view answer, std::string_view reference);
/// Returns the F1 score of the two bags of characters after normalize_chinese, as InfiniteBench computes it;
/// LongBench segments words first.
double qa_f1_chinese(std::string_view answer, std::string_view reference);
/// Returns whether both texts are equal and not empty after normalize_english.
bool exact_match(std::string_view answer, std::string_view reference);
/// Returns whether `part` is not empty and occurs in `text`, ignoring the case of letters.
bool contains_text(std::string_view text, std::string_view part);
/// Returns the overlap of the two sets of items.
Overlap set_f1(const std::vector<std::string>& answer, const std::vector<std::string>& reference);
/// Splits `text` at commas (also the full-width comma), trims the items and leaves out empty ones.
std::vector<std::string> comma_items(std::string_view text);

// ---- N-grams and common subsequences (metrics_rouge.cpp)

/// Returns ROUGE-N over words; a word counts at most as often as both texts contain it (Lin, "ROUGE: A Package for
/// Automatic Evaluation of Summaries", 2004). n ≥ 1.
Overlap rouge_n(std::string_view answer, std::string_view reference, int n);
/// Returns ROUGE-L, the overlap by the longest common subsequence of words of the two texts.
Overlap rouge_l(std::string_view answer, std::string_view reference);
/// Returns ROUGE-L of sentences, as LongBench, LooGLE and M4LE compute it: texts are split at full stops, the
/// common subsequences of all pairs of sentences are united, and equal words count once. chinese: each character is
/// a word.
Overlap rouge_l_sentences(std::string_view answer, std::string_view reference, bool chinese = false);
/// Returns ROUGE-Lsum, as InfiniteBench computes it: texts are split at line ends, words are runs of ASCII letters
/// and digits in lower case, and each word counts at most as often as both texts contain it.
Overlap rouge_l_lines(std::string_view answer, std::string_view reference);

// ---- Translation (metrics_translation.cpp)

/// Returns BLEU of one sentence (Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation",
/// 2002): the weighted geometric mean of the clipped precisions of 1-grams, 2-grams, …, times the brevity penalty
/// against the reference nearest in length. It is 0 if a precision with a weight above 0 is 0. An n for which all
/// texts are too short is ignored. weights: one per n from 1, with sum 1; {1} gives BLEU-1.
double bleu(const std::vector<std::string>& answer, const std::vector<std::vector<std::string>>& references,
            std::span<const double> weights);
/// Splits `text` at white space into words, for BLEU.
std::vector<std::string> plain_tokens(std::string_view text);
/// Splits `text` into words and punctuation marks, as WMT's mteval-v13a does. chinese: each CJK character is also a
/// separate token.
std::vector<std::string> translation_tokens(std::string_view text, bool chinese);
/// Returns chrF (Popović, "chrF: character n-gram F-score for automatic MT evaluation", 2015), or chrF++ (2017)
/// with word_order 2: the F-score with beta 2 of the mean precision and recall of n-grams of 1 to 6 characters
/// (without white space) and of 1 to word_order words.
double chrf(std::string_view answer, std::string_view reference, int word_order = 0);

// ---- Similarity of strings (metrics_similarity.cpp)

/// Returns 2M/T, where M is the number of characters in matching blocks and T that in both texts. Blocks are the
/// longest common substring and, recursively, those to its left and right (Ratcliff and Obershelp, 1988; Python's
/// difflib without its junk heuristic). Returns 1 for two empty texts.
double edit_similarity(std::string_view answer, std::string_view reference);
/// Returns edit_similarity of the answer's first line without '`', '#' or "//", rounded to hundredths, half to even
/// (LongBench's code tasks).
double code_similarity(std::string_view answer, std::string_view reference);

// ---- Numbers, labels and orders in answers (metrics_extract.cpp)

/// Returns the share of the integers in the answer that equal `expected`, a run of digits; 0 without integers.
double number_score(std::string_view answer, std::string_view expected);
/// Returns 1/n if `gold` is among the n names of `classes` that occur in the answer, else 0. Names that are a
/// proper part of gold are ignored (LongBench).
double class_score(std::string_view answer, const std::vector<std::string>& classes, const std::string& gold);
/// Returns the first letter A to D in parentheses after "correct answer is ", or else the first bare letter after
/// it. Asterisks are ignored. Returns ' ' if there is none (LongBench v2).
char choice_letter(std::string_view answer);
/// Returns the highest label A1 … A<count> in the answer, or else the highest bare number in 1 … count, or 0
/// (Ada-LEval BestAnswer).
int64_t best_answer_label(std::string_view answer, int64_t count);
/// Returns a permutation of 1 … count: the JSON list after "Answer:", or else the only permutation whose digits
/// occur in the answer in that order. Returns an empty list if there is none (Ada-LEval TSort). count ≤ 6.
std::vector<int64_t> answered_permutation(std::string_view answer, int64_t count);

// ---- Orders (metrics_order.cpp)

/// Distances of an order from the correct one (LooGLE). order: a permutation of 0 … n−1; sorted is correct.
struct OrderDistances {
  double square = 0;         // LSD: mean (p_i − i)²
  double mean = 0;           // LMD: mean |p_i − i|
  double swaps = 0;          // SD: least number of swaps that sort it, n − number of cycles
  double swap_distance = 0;  // SDD: least total distance of swaps that sort it, half of Σ|p_i − i|
};
/// Returns the distances of `order`.
OrderDistances order_distances(std::span<const int64_t> order);
/// Returns the largest value of each distance over all permutations of n items. An answer that is not a permutation
/// gets these.
OrderDistances worst_order_distances(int64_t n);
/// Returns the index in `expected` of each answered item if `answered` contains all of `expected`, each once;
/// otherwise an empty list.
std::vector<int64_t> positions_in(const std::vector<std::string>& answered,
                                  const std::vector<std::string>& expected);
/// Returns the items of an enumeration: the runs of digits or, if there are none, the separate Roman numerals.
std::vector<std::string> enumerated(std::string_view text);

// ---- Long writing (metrics_writing.cpp)

/// Counts CJK characters and words that consist of ASCII letters only (LongWriter).
int64_t count_words(std::string_view text);
/// Scores the number of words against the expected number (LongWriter): 1 − (words / expected − 1) / 3 for a text
/// that is too long, 1 − (expected / words − 1) / 2 for one that is too short; at least 0.
double length_score(double expected, double words);
/// Returns the share of 4-grams of words that occur earlier in the text; 0 for fewer than 4 words.
double repetition(std::string_view text);
/// Returns whether the last character ends a sentence, ignoring closing quotes and brackets.
bool ends_sentence(std::string_view text);

// ---- InfiniteBench's rules (metrics_infinite.cpp)

/// Returns whether the first integer of the answer is the reference.
bool infinite_first_integer(std::string_view answer, std::string_view reference);
/// Returns whether the reference is a word of the answer; punctuation separates words.
bool infinite_word(std::string_view answer, std::string_view reference, bool any_case);
/// Returns whether the last word of the answer is the integer `reference`.
bool infinite_last_integer(std::string_view answer, std::string_view reference);
/// Returns whether the first number of the answer equals the reference.
bool infinite_first_number(std::string_view answer, double reference);
/// Returns the share of the `expected` integers (in digits) with which the answer's integers begin; signs are
/// ignored.
double infinite_prefix(std::string_view answer, const std::vector<std::string>& expected);
/// Returns whether the answer is the letter (at the start, after "answer is" and similar phrases, or as the first
/// separate letter A to D) or the text of the option.
bool infinite_choice(std::string_view answer, char letter, std::string_view option);
/// Returns whether the answer is the letter or the function's name: the letter alone, "A." or "A:" at the start, or
/// either after "answer is:" and similar phrases.
bool infinite_debug(std::string_view answer, char letter, std::string_view function);

// ---- By name (metrics_table.cpp)

/// Compares an answer with sample.references. Returns the best score over the references unless the metric's
/// summary states otherwise.
using Metric = double(const std::string& answer, const Sample& sample);
struct NamedMetric {
  const char* name;
  const char* summary;
  std::function<Metric> score;
};
/// All metrics in alphabetical order.
const std::vector<NamedMetric>& metrics();
/// Returns the metric of this name. Throws Error (usage) that suggests the nearest names if there is none.
const NamedMetric& find_metric(std::string_view name);

}  // namespace fathom::eval
