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

// How answers are compared with references. Scores are in [0, 1]. No metric throws on any bytes: what is not UTF-8
// is taken byte by byte.

// ---- Text (metrics_text.cpp)

/// The characters of `text`; a byte that begins none is one of its own.
std::vector<std::string_view> characters(std::string_view text);
/// Whether one of characters() is a letter, digit or underscore (\w of regular expressions; near enough beyond
/// ASCII).
bool is_word_character(std::string_view character);
/// The words of `text`: what stands between Unicode white space.
std::vector<std::string_view> split_words(std::string_view text);
/// Without white space at both ends.
std::string_view trim(std::string_view text);
/// Lower case of ASCII, Latin-1, Greek and Cyrillic letters; the rest as it is.
std::string lower_case(std::string_view text);
/// Lower case, without ASCII punctuation and the words a, an, the, single spaces (SQuAD's normalisation).
std::string normalize_english(std::string_view text);
/// Lower case, without ASCII and CJK punctuation and any white space (LongBench's).
std::string normalize_chinese(std::string_view text);
/// Maximal runs of the digits 0 to 9.
std::vector<std::string_view> digit_runs(std::string_view text);

// ---- Equality and overlap (metrics_overlap.cpp)

/// Precision, recall and their harmonic mean.
struct Overlap {
  double precision = 0, recall = 0, f1 = 0;
};
/// Of `matched` things, of `answered` and `wanted` ones; all 0 where a divisor is 0.
Overlap overlap(double matched, double answered, double wanted);

/// F1 of the two bags of words after normalize_english.
double qa_f1(std::string_view answer, std::string_view reference);
/// F1 of the two bags of characters after normalize_chinese. LongBench segments words first; InfiniteBench counts
/// characters, as this does.
double qa_f1_chinese(std::string_view answer, std::string_view reference);
/// Equal after normalize_english, and not empty.
bool exact_match(std::string_view answer, std::string_view reference);
/// Whether `part`, which must not be empty, occurs in `text`, whatever the case of letters.
bool contains_text(std::string_view text, std::string_view part);
/// F1 of the two sets of items.
Overlap set_f1(const std::vector<std::string>& answer, const std::vector<std::string>& reference);
/// The items between commas (also the full-width one), trimmed, without empty ones.
std::vector<std::string> comma_items(std::string_view text);

// ---- N-grams and common subsequences (metrics_rouge.cpp)

/// ROUGE-N over words, a word counted as often as both have it (Lin, "ROUGE: A Package for Automatic Evaluation of
/// Summaries", 2004). n ≥ 1.
Overlap rouge_n(std::string_view answer, std::string_view reference, int n);
/// ROUGE-L: the longest common subsequence of words of the two texts.
Overlap rouge_l(std::string_view answer, std::string_view reference);
/// ROUGE-L of sentences, as LongBench, LooGLE and M4LE count it: texts are cut at full stops, the subsequences of
/// all pairs of sentences are united, and equal words count once. chinese: each character is a word.
Overlap rouge_l_sentences(std::string_view answer, std::string_view reference, bool chinese = false);
/// ROUGE-Lsum, as InfiniteBench counts it: texts are cut at line ends, words are runs of ASCII letters and digits
/// in lower case, and each word counts as often as both have it.
Overlap rouge_l_lines(std::string_view answer, std::string_view reference);

// ---- Translation (metrics_translation.cpp)

/// BLEU of one sentence (Papineni et al., 2002): the weighted geometric mean of the clipped precisions of 1-grams,
/// 2-grams, …, times the brevity penalty against the reference nearest in length. 0 when a weighted precision is;
/// an n for which all texts are too short does not count. weights: sum to 1; {1} for BLEU-1.
double bleu(const std::vector<std::string>& answer, const std::vector<std::vector<std::string>>& references,
            std::span<const double> weights);
/// Words at white space.
std::vector<std::string> plain_tokens(std::string_view text);
/// Words with punctuation apart, as WMT's mteval-v13a; chinese: each CJK character apart, too.
std::vector<std::string> translation_tokens(std::string_view text, bool chinese);
/// chrF (Popović, 2015), chrF++ (2017) with word_order 2: F-score, beta 2, of the mean precision and recall of 1 to
/// 6 characters (white space left out) and 1 to word_order words.
double chrf(std::string_view answer, std::string_view reference, int word_order = 0);

// ---- Similarity of strings (metrics_similarity.cpp)

/// 2M/T: M characters in matching blocks, found as the longest common substring and so on to its left and right
/// (Ratcliff and Obershelp, 1988; Python's difflib without its junk heuristic), T characters in both. Two empty
/// texts are alike: 1.
double edit_similarity(std::string_view answer, std::string_view reference);
/// edit_similarity rounded to hundredths, half to even, of the answer's first line without '`', '#' or "//"
/// (LongBench's code tasks).
double code_similarity(std::string_view answer, std::string_view reference);

// ---- Numbers, labels and orders in answers (metrics_extract.cpp)

/// The share of integers in the answer that are `wanted`, a run of digits; 0 without integers.
double number_score(std::string_view answer, std::string_view wanted);
/// 1/n if `gold` is among the n names of `classes` that occur in the answer; names that are a proper part of gold
/// are left out (LongBench).
double class_score(std::string_view answer, const std::vector<std::string>& classes, const std::string& gold);
/// The first A to D behind "correct answer is" in parentheses, or else the first bare one; asterisks are ignored
/// (LongBench v2). ' ': none.
char choice_letter(std::string_view answer);
/// The highest-numbered label A1 … A<count> in the answer, or else the highest bare number 1 … count; 0: none
/// (Ada-LEval BestAnswer).
int64_t best_answer_label(std::string_view answer, int64_t count);
/// A permutation of 1 … count: the JSON list after "Answer:", or else the only permutation whose digits occur in
/// the answer in that order; empty: none (Ada-LEval TSort). count ≤ 6.
std::vector<int64_t> answered_permutation(std::string_view answer, int64_t count);

// ---- Orders (metrics_order.cpp)

/// How far an order is from the right one (LooGLE). order: a permutation of 0 … n−1, best if sorted.
struct OrderDistances {
  double square = 0;         // LSD: mean (p_i − i)²
  double mean = 0;           // LMD: mean |p_i − i|
  double swaps = 0;          // SD: fewest swaps that sort it, n − cycles
  double swap_distance = 0;  // SDD: distances of these swaps when each is the most rewarding, half of Σ|p_i − i|
};
OrderDistances order_distances(std::span<const int64_t> order);
/// The worst of any permutation of n; also for what is no permutation.
OrderDistances worst_order_distances(int64_t n);
/// The places in `wanted` of what was answered: a permutation if `answered` has all of `wanted`, each once;
/// otherwise empty.
std::vector<int64_t> places_in(const std::vector<std::string>& answered, const std::vector<std::string>& wanted);
/// The items of an enumeration: runs of digits, or where there are none, Roman numerals standing alone.
std::vector<std::string> enumerated(std::string_view text);

// ---- Long writing (metrics_writing.cpp)

/// CJK characters and words of ASCII letters alone (LongWriter).
int64_t count_words(std::string_view text);
/// How near `words` is to what was wanted (LongWriter): too long loses a third, too short half of the excess ratio.
double length_score(double wanted, double words);
/// The share of 4-grams of words that stand earlier in the text, too; 0 below 4 words.
double repetition(std::string_view text);
/// Whether the last character ends a sentence, closing quotes and brackets aside.
bool ends_sentence(std::string_view text);

// ---- InfiniteBench's rules (metrics_infinite.cpp)

/// The first integer of the answer is the reference.
bool infinite_first_integer(std::string_view answer, std::string_view reference);
/// The reference is a word of the answer, punctuation being space.
bool infinite_word(std::string_view answer, std::string_view reference, bool any_case);
/// The last word of the answer is the integer `reference`.
bool infinite_last_integer(std::string_view answer, std::string_view reference);
/// The first number of the answer equals the reference.
bool infinite_first_number(std::string_view answer, double reference);
/// The share of `wanted` integers, in digits, that the answer's integers begin with; signs are not looked at.
double infinite_prefix(std::string_view answer, const std::vector<std::string>& wanted);
/// The letter is answered, at the start, after "answer is" and the like, or as the first lone letter A to D; or the
/// option itself stands there.
bool infinite_choice(std::string_view answer, char letter, std::string_view option);
/// The letter or the function's name is answered: the letter alone, "A." or "A:" at the start, or either after
/// "answer is:" and the like.
bool infinite_debug(std::string_view answer, char letter, std::string_view function);

// ---- By name (metrics_table.cpp)

/// Compares an answer with sample.references; the best of several references unless the metric says otherwise.
using Metric = double(const std::string& answer, const Sample& sample);
struct NamedMetric {
  const char* name;
  const char* summary;
  std::function<Metric> score;
};
/// All of them, in alphabetical order.
const std::vector<NamedMetric>& metrics();
/// Throws Error (usage) with the names nearest to `name`.
const NamedMetric& find_metric(std::string_view name);

}  // namespace fathom::eval
