#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "eval/metrics.h"

namespace fathom::eval {
namespace {

double by_name(std::string_view metric, const std::string& answer, const Sample& sample) {
  return find_metric(metric).score(answer, sample);
}

Sample with_references(std::vector<std::string> references) {
  Sample sample;
  sample.references = std::move(references);
  return sample;
}

TEST(Metrics, EnglishNormalisationRemovesPunctuationArticlesAndSpaces) {
  EXPECT_EQ(normalize_english("  The U.S. Army,\tan  anthem; a-theme "), "us army anthem atheme");
  EXPECT_EQ(normalize_english("Theatre and an analysis"), "theatre and analysis");
  EXPECT_EQ(normalize_english("“A cat”"), "“ cat”");  // as with the published regular expression
  EXPECT_EQ(normalize_english("ÉCOLE Ж Ω"), "école ж ω");
  EXPECT_EQ(normalize_english("the the"), "");
}

TEST(Metrics, ChineseNormalisationRemovesAsciiAndCjkPunctuationAndSpaces) {
  EXPECT_EQ(normalize_chinese("他 在　北京，ABC！（2019年）…"), "他在北京abc2019年");
}

TEST(Metrics, InvalidUtf8BytesAreSeparateCharacters) {
  EXPECT_EQ(characters("a\xff\xe6\x97").size(), 4u);
  EXPECT_EQ(normalize_english("\xff the \xc3"), "\xff \xc3");
  for (const NamedMetric& metric : metrics()) {
    const double score = metric.score("\xff\xfe\xe6", with_references({"\xe6\x97", "A"}));
    EXPECT_TRUE(score >= 0 && score <= 1) << metric.name;
  }
}

TEST(Metrics, QaF1CountsSharedWordsOfBothTexts) {
  EXPECT_DOUBLE_EQ(qa_f1("The cat sat on the mat", "a cat on a mat"), 2 * (3 / 4.0) * 1.0 / (3 / 4.0 + 1.0));
  EXPECT_DOUBLE_EQ(qa_f1("no no no", "no"), 2 * (1 / 3.0) / (1 / 3.0 + 1));  // a word counts once per occurrence
  EXPECT_DOUBLE_EQ(qa_f1_chinese("在北京。", "北京"), 0.8);                  // precision 2/3, recall 1
  EXPECT_DOUBLE_EQ(qa_f1("anything", ""), 0);
}

TEST(Metrics, ExactMatchAndSubstringsIgnoreTheCase) {
  EXPECT_TRUE(exact_match("The Answer!", "answer"));
  EXPECT_FALSE(exact_match("the", "a"));  // both are empty after normalisation
  EXPECT_TRUE(contains_text("It is ÉMILE.", "émile"));
  EXPECT_FALSE(contains_text("text", ""));
  const Sample sample = with_references({"red", "green", "blue", "white"});
  EXPECT_DOUBLE_EQ(by_name("substr_all", "Red and BLUE", sample), 0.5);
  EXPECT_DOUBLE_EQ(by_name("substr_any", "Red and BLUE", sample), 1);
  EXPECT_DOUBLE_EQ(by_name("same_text", " RED\n", sample), 1);
  EXPECT_DOUBLE_EQ(by_name("same_text", "red.", sample), 0);
}

TEST(Metrics, SetF1OfItemsBetweenCommasIgnoresOrderAndRepetition) {
  const Sample sample = with_references({"a1, b2, c3, d4"});
  EXPECT_DOUBLE_EQ(by_name("comma_f1", "d4,c3, b2,a1", sample), 1);
  EXPECT_DOUBLE_EQ(by_name("comma_f1", "a1，a1, x9", sample), 2 * 0.5 * 0.25 / 0.75);
}

TEST(Metrics, RougeMatchesLinsExamples) {
  const char* reference = "police killed the gunman";
  EXPECT_DOUBLE_EQ(rouge_n("police kill the gunman", reference, 2).recall, 1 / 3.0);
  EXPECT_DOUBLE_EQ(rouge_n("the gunman kill police", reference, 2).recall, 1 / 3.0);
  EXPECT_DOUBLE_EQ(rouge_l("police kill the gunman", reference).recall, 3 / 4.0);
  EXPECT_DOUBLE_EQ(rouge_l("the gunman kill police", reference).recall, 2 / 4.0);
  EXPECT_DOUBLE_EQ(rouge_l("the gunman police killed", reference).recall, 2 / 4.0);
}

TEST(Metrics, RougeNClipsCounts) {
  EXPECT_DOUBLE_EQ(rouge_n("a a a b", "a a c", 1).precision, 2 / 4.0);
  EXPECT_DOUBLE_EQ(rouge_n("a a a b", "a a c", 1).recall, 2 / 3.0);
  EXPECT_DOUBLE_EQ(rouge_n("a", "a", 2).f1, 0);  // too short for a pair
}

TEST(Metrics, RougeOfAReorderedSentenceIsItsLongestCommonSubsequence) {
  EXPECT_DOUBLE_EQ(rouge_l("five one two three four", "one two three four five").f1, 4 / 5.0);
}

TEST(Metrics, RougeOfSentencesUnitesSubsequencesAndCountsWordsOnce) {
  const Overlap score =
      rouge_l_sentences("the cat sat on the mat. it purred", "the cat lay on the mat. it slept. the dog sat");
  EXPECT_DOUBLE_EQ(score.precision, 6 / 7.0);  // matched: the cat on mat it sat; also answered: purred
  EXPECT_DOUBLE_EQ(score.recall, 6 / 9.0);     // not matched: lay, slept, dog
  EXPECT_DOUBLE_EQ(rouge_l_sentences("北京大学", "北大").recall, 0);
  EXPECT_DOUBLE_EQ(rouge_l_sentences("北京大学", "北大", true).recall, 1);
  EXPECT_DOUBLE_EQ(rouge_l_sentences("北京大学", "北大", true).precision, 0.5);
}

TEST(Metrics, RougeOfLinesIsTheUnionOfLinsExample) {
  const Overlap score = rouge_l_lines("w1 w2 w6 w7 w8\nw1, w3 w8 w9 W5", "w1 w2 w3 w4 w5");
  EXPECT_DOUBLE_EQ(score.recall, 4 / 5.0);
  EXPECT_DOUBLE_EQ(score.precision, 4 / 10.0);
  EXPECT_DOUBLE_EQ(rouge_l_lines("x", "x\nx").recall, 0.5);  // one x matches only once
}

TEST(Metrics, BleuIsTheMeanOfClippedPrecisionsTimesTheBrevityPenalty) {
  const std::vector<double> one{1};
  const std::vector<double> four{0.25, 0.25, 0.25, 0.25};
  const auto tokens = plain_tokens("the the the the the the the");
  EXPECT_DOUBLE_EQ(bleu(tokens, {plain_tokens("the cat is on the mat")}, one), 2 / 7.0);  // Papineni et al.
  EXPECT_NEAR(bleu(plain_tokens("the cat sat on the mat"), {plain_tokens("the cat sat on a mat")}, four),
              std::pow(5 / 6.0 * 3 / 5.0 * 2 / 4.0 * 1 / 3.0, 0.25), 1e-12);
  EXPECT_NEAR(bleu(plain_tokens("the cat"), {plain_tokens("the cat sat on")}, one), std::exp(1 - 4 / 2.0), 1e-12);
  EXPECT_NEAR(bleu(plain_tokens("the cat"), {plain_tokens("the cat sat on"), plain_tokens("cat the")}, one), 1,
              1e-12);
  EXPECT_DOUBLE_EQ(bleu(plain_tokens("the cat sat"), {plain_tokens("the cat sat on")}, four), 0);
}

TEST(Metrics, TranslationTokensSplitPunctuationButNotNumbers) {
  const auto joined = [](std::string_view text, bool chinese) {
    std::string line;
    for (const std::string& token : translation_tokens(text, chinese)) line += token + "|";
    return line;
  };
  EXPECT_EQ(joined("Well, it's 3.5% of $1,000 (5-6) &amp; more.", false),
            "Well|,|it's|3.5|%|of|$|1,000|(|5|-|6|)|&|more|.|");
  EXPECT_EQ(joined("我爱 C++。", true), "我|爱|C|+|+|。|");
}

TEST(Metrics, ChrfWeighsRecallTwice) {
  EXPECT_NEAR(chrf("ab", "abc"), 5 * (7 / 12.0) / (4 + 7 / 12.0), 1e-12);  // precision 1; recall of 2/3 and 1/2
  EXPECT_NEAR(chrf("the cat sat", "the cat sits"), 0.6103453442411408, 1e-12);
  EXPECT_NEAR(chrf("the cat sat.", "the cat sits.", 2), 0.5497742294852634, 1e-12);
}

// Python: difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()
TEST(Metrics, EditSimilarityEqualsDifflibRatio) {
  EXPECT_DOUBLE_EQ(edit_similarity("abcd", "bcde"), 0.75);
  EXPECT_DOUBLE_EQ(edit_similarity("private Thread currentThread;", "private volatile Thread currentThread;"),
                   0.8656716417910447);
  EXPECT_DOUBLE_EQ(edit_similarity("tide", "diet"), 0.25);  // not symmetric
  EXPECT_DOUBLE_EQ(edit_similarity("diet", "tide"), 0.5);
  EXPECT_DOUBLE_EQ(edit_similarity("abxab", "ab"), 0.5714285714285714);
  EXPECT_DOUBLE_EQ(edit_similarity("日本語テキスト", "日本のテキスト"), 0.8571428571428571);
  const std::string long_text(400, 'e');  // frequent letters are not junk
  EXPECT_DOUBLE_EQ(edit_similarity(long_text, long_text), 1);
}

TEST(Metrics, CodeSimilarityUsesTheFirstLineWithoutMarksInHundredths) {
  EXPECT_DOUBLE_EQ(code_similarity("\n\n```python\n# sum\n// sum\nreturn x + 1\nmore", "return y + 1"), 0.92);
  EXPECT_DOUBLE_EQ(code_similarity("# only a comment", "return"), 0);
}

TEST(Metrics, NumberScoreIsTheShareOfCorrectIntegers) {
  EXPECT_DOUBLE_EQ(by_name("number", "Paragraph 12", with_references({"Paragraph 12"})), 1);
  EXPECT_DOUBLE_EQ(by_name("number", "Paragraph 12 or 3", with_references({"Paragraph 12"})), 0.5);
  EXPECT_DOUBLE_EQ(by_name("number", "段落112", with_references({"段落12"})), 0);
}

TEST(Metrics, ClassScoreIsDividedByTheNumberOfNamedClasses) {
  const std::vector<std::string> classes{"City", "Other city", "Date", "State"};
  EXPECT_DOUBLE_EQ(class_score("Date", classes, "Date"), 1);
  EXPECT_DOUBLE_EQ(class_score("Date or State", classes, "Date"), 0.5);
  EXPECT_DOUBLE_EQ(class_score("Other city", {"city", "Other city"}, "Other city"),
                   1);  // "city" is a part of the gold name
  EXPECT_DOUBLE_EQ(class_score("State", classes, "Date"), 0);
}

TEST(Metrics, ChoiceLetterFollowsTheAnswerSentence) {
  EXPECT_EQ(choice_letter("Thus **the correct answer is (C)**."), 'C');
  EXPECT_EQ(choice_letter("The correct answer is B, not that the correct answer is (D)"), 'D');
  EXPECT_EQ(choice_letter("The correct answer is B."), 'B');
  EXPECT_EQ(choice_letter("B"), ' ');
  EXPECT_EQ(choice_letter("The correct answer is (E)"), ' ');
}

TEST(Metrics, BestAnswerIsTheHighestLabel) {
  EXPECT_EQ(best_answer_label("Answer: A12", 20), 12);  // not A1
  EXPECT_EQ(best_answer_label("A3 is better than A1", 3), 3);
  EXPECT_EQ(best_answer_label("the 2nd of 9", 5), 2);
  EXPECT_EQ(best_answer_label("none", 5), 0);
}

TEST(Metrics, PermutationIsReadAsJsonOrAsTheOnlySubsequence) {
  const std::vector<int64_t> order{2, 1, 4, 3};
  EXPECT_EQ(answered_permutation("Answer: [2, 1, 4, 3]", 4), order);
  EXPECT_EQ(answered_permutation("first 2, then 1, then 4 and 3", 4), order);
  EXPECT_TRUE(answered_permutation("1 2 3 4 1", 4).empty());  // 1234 and 2341 both fit
  EXPECT_TRUE(answered_permutation("[1, 1, 2, 3]", 4).empty());
}

TEST(Metrics, OrderDistancesOfTheReversalAreTheWorst) {
  const std::vector<std::vector<double>> worst{{5, 2, 3, 4}, {8, 2.4, 4, 6}, {35 / 3.0, 3, 5, 9}};
  for (int64_t n = 4; n <= 6; ++n) {
    const OrderDistances distances = worst_order_distances(n);
    EXPECT_DOUBLE_EQ(distances.square, worst[n - 4][0]);
    EXPECT_DOUBLE_EQ(distances.mean, worst[n - 4][1]);
    EXPECT_DOUBLE_EQ(distances.swaps, worst[n - 4][2]);
    EXPECT_DOUBLE_EQ(distances.swap_distance, worst[n - 4][3]);
  }
  const OrderDistances reversed = order_distances(std::vector<int64_t>{3, 2, 1, 0});
  EXPECT_EQ((std::vector<double>{reversed.square, reversed.mean, reversed.swaps, reversed.swap_distance}),
            (std::vector<double>{5, 2, 2, 4}));
}

TEST(Metrics, WorstOrderDistancesAreMaximal) {
  for (int64_t n = 1; n <= 6; ++n) {
    std::vector<int64_t> order(n);
    std::iota(order.begin(), order.end(), 0);
    EXPECT_EQ(order_distances(order).square, 0);
    OrderDistances most;
    do {
      const OrderDistances d = order_distances(order);
      most = {std::max(most.square, d.square), std::max(most.mean, d.mean), std::max(most.swaps, d.swaps),
              std::max(most.swap_distance, d.swap_distance)};
    } while (std::ranges::next_permutation(order).found);
    const OrderDistances worst = worst_order_distances(n);
    EXPECT_DOUBLE_EQ(most.square, worst.square);
    EXPECT_DOUBLE_EQ(most.mean, worst.mean);
    EXPECT_DOUBLE_EQ(most.swaps, worst.swaps);
    EXPECT_DOUBLE_EQ(most.swap_distance, worst.swap_distance);
  }
}

TEST(Metrics, OrdersAreReadFromNumbersAndRomanNumerals) {
  EXPECT_DOUBLE_EQ(by_name("order", "2, 1, 3", with_references({"2,1,3"})), 1);
  EXPECT_DOUBLE_EQ(by_name("order", "3,1,2", with_references({"2,1,3"})), 0);  // distances 2, 0, 2 of at most 4
  EXPECT_DOUBLE_EQ(by_name("order", "II, then I, III", with_references({"II,I,III"})), 1);
  EXPECT_DOUBLE_EQ(by_name("order", "2,1", with_references({"2,1,3"})), 0);
  EXPECT_DOUBLE_EQ(by_name("order", "2,1,1", with_references({"2,1,3"})), 0);
}

TEST(Metrics, WordsAreCjkCharactersAndRunsOfLetters) {
  EXPECT_EQ(count_words("It's 2 long days: 你好，world!"), 7);  // It s long days 你 好 world
  EXPECT_EQ(count_words("abc1 a_b"), 0);                        // no word boundary between letters and digits
  EXPECT_EQ(count_words(""), 0);
}

TEST(Metrics, LengthScoreFollowsLongWriter) {
  EXPECT_DOUBLE_EQ(length_score(1000, 1000), 1);
  EXPECT_DOUBLE_EQ(length_score(1000, 500), 0.5);
  EXPECT_DOUBLE_EQ(length_score(1000, 2000), 2 / 3.0);
  EXPECT_DOUBLE_EQ(length_score(1000, 4000), 0);
  EXPECT_DOUBLE_EQ(length_score(10000, 4000), 0.25);
  EXPECT_DOUBLE_EQ(length_score(1000, 0), 0);
}

TEST(Metrics, RepetitionIsTheShareOfRepeatedFourGrams) {
  EXPECT_DOUBLE_EQ(repetition("a b c d e f g"), 0);
  EXPECT_DOUBLE_EQ(repetition("a b c d a b c d"), 1 / 5.0);
  std::string paragraph;
  for (int i = 0; i < 100; ++i) paragraph += "the same ten words stand here again and again now ";
  EXPECT_GT(repetition(paragraph), 0.95);
  EXPECT_DOUBLE_EQ(repetition("a b c"), 0);
}

TEST(Metrics, SentencesEndWithAMarkAndClosingQuotes) {
  EXPECT_TRUE(ends_sentence("He said: “Go.”\n"));
  EXPECT_TRUE(ends_sentence("走吧。"));
  EXPECT_FALSE(ends_sentence("and then he"));
  EXPECT_FALSE(ends_sentence(""));
}

TEST(Metrics, InfiniteBenchReadsTheFirstAndTheLastInteger) {
  EXPECT_TRUE(infinite_first_integer("The pass key is 71432.", "71432"));
  EXPECT_FALSE(infinite_first_integer("1. 71432", "71432"));
  EXPECT_TRUE(infinite_last_integer("func_1(3) returns -12.", "-12"));
  EXPECT_FALSE(infinite_last_integer("-12 is it", "-12"));
  EXPECT_TRUE(infinite_first_number("it is 12.50, I think", 12.5));
  EXPECT_TRUE(infinite_first_number("12.", 12));
  EXPECT_FALSE(infinite_first_number("none", 0));
  EXPECT_DOUBLE_EQ(infinite_prefix("[1, 3, 4, -11]", {"1", "3", "-1", "-11"}), 0.5);
}

TEST(Metrics, InfiniteBenchSeparatesWordsAtPunctuation) {
  EXPECT_TRUE(infinite_word("{\"key\": \"4f-1\"}", "4f-1", false));
  EXPECT_FALSE(infinite_word("4f-12", "4f-1", false));
  EXPECT_TRUE(infinite_word("It is Marge.", "MARGE", true));
}

TEST(Metrics, InfiniteBenchAcceptsALetterOrItsOption) {
  EXPECT_TRUE(infinite_choice("B) because", 'B', "a dog"));
  EXPECT_TRUE(infinite_choice("the answer is: B", 'B', "a dog"));
  EXPECT_TRUE(infinite_choice("My answer is a dog", 'B', "a dog"));
  EXPECT_TRUE(infinite_choice("I choose B over C", 'B', "a dog"));
  EXPECT_FALSE(infinite_choice("the answer is", 'B', "a dog"));
  EXPECT_FALSE(infinite_choice("", 'B', "a dog"));
  EXPECT_TRUE(infinite_debug("C: parse", 'C', "parse"));
  EXPECT_TRUE(infinite_debug("the correct option is: `parse`", 'C', "parse"));
  EXPECT_TRUE(infinite_debug("C", 'C', "parse"));
  EXPECT_FALSE(infinite_debug("Could be B", 'C', "parse"));
}

/// Returns a sample whose first reference gets a full score from the metric.
Sample reference_for(const std::string& metric) {
  Sample sample = with_references({"The quick brown fox, jumping over a lazy dog, is 12 years old"});
  sample.details["classes"] = {sample.references[0], "fox"};
  if (metric == "best_answer") sample = with_references({"A12"});
  if (metric == "permutation") sample = with_references({"[3, 1, 2, 4]"});
  if (metric == "order") sample = with_references({"4,2,3,1"});
  if (metric == "letter") sample = with_references({"The correct answer is (C)"});
  if (metric.starts_with("infinite")) sample = with_references({"B. dog"});
  if (metric.starts_with("word")) sample = with_references({"fox"});
  if (metric.find("integer") != std::string::npos || metric == "first_number") sample = with_references({"12"});
  sample.details["choices"] = 20;
  sample.details["letter"] = "B";
  sample.details["option"] = "dog";
  return sample;
}

TEST(Metrics, TheReferenceScoresOneAndAnEmptyAnswerZero) {
  for (const NamedMetric& metric : metrics()) {
    const Sample sample = reference_for(metric.name);
    EXPECT_NEAR(metric.score(sample.references[0], sample), 1, 1e-12) << metric.name;
    EXPECT_EQ(metric.score("", sample), 0) << metric.name;
    EXPECT_EQ(metric.score("entirely elsewhere", with_references({})), 0) << metric.name;
  }
}

TEST(Metrics, TheBestReferenceCounts) {
  EXPECT_DOUBLE_EQ(by_name("qa_f1", "blue whale", with_references({"red", "blue", "blue whale"})), 1);
}

TEST(Metrics, AreSortedAndFoundByName) {
  for (size_t i = 1; i < metrics().size(); ++i) {
    EXPECT_LT(std::string_view(metrics()[i - 1].name), std::string_view(metrics()[i].name));
  }
  EXPECT_THROW(find_metric("rouge_I"), Error);
}

}  // namespace
}  // namespace fathom::eval
