// Keys and values of facts in training tasks.
#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "train/training_parts.h"
#include "train/training_words.h"

namespace fathom::train {
namespace {

constexpr int64_t kShort = 1000;      // texts with fewer bytes have short keys
constexpr size_t kFewWords = 12;      // passages with fewer words are not used for keys and values
constexpr int kShortGroups = 4;       // the first entries of kGroups, for short texts
const std::vector<int> kGroups[] = {  // digits of hex groups; a UUID would have 8, 4, 4, 4, 12
    {8},
    {5, 5},
    {4, 4},
    {3, 6},
    {12},
    {6, 6},
    {10, 6},
    {4, 4, 4},
    {7, 7, 7},
    {16},
    {6, 6, 6, 6},
    {9, 3, 3, 9},
    {5, 5, 5, 5, 5},
    {8, 8, 8},
    {10, 5, 5, 10},
    {4, 8, 8, 4, 8}};
constexpr std::string_view kHex = "0123456789abcdef";
constexpr int kMore = 4;  // size of a part that is added when almost all keys are used
constexpr std::string_view kMixed = "abcdefghjkmnpqrstuvwxyz23456789";

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Returns `text` extended to `count` characters with random ones of `from`, without five digits in a row.
std::string random_characters(eval::Rng& rng, std::string_view from, int count, std::string text = "") {
  auto digits = static_cast<int>(std::ranges::count_if(text, is_digit));
  while (static_cast<int>(text.size()) < count) {
    const char c = rng.pick(from);
    if (is_digit(c) && digits == 4) continue;
    digits = is_digit(c) ? digits + 1 : 0;
    text += c;
  }
  return text;
}

const std::vector<int>& draw_groups(eval::Rng& rng, int64_t bytes) {
  return kGroups[rng.below(bytes < kShort ? kShortGroups : static_cast<int64_t>(std::size(kGroups)))];
}

bool is_evaluated(std::string_view word) {
  return std::ranges::binary_search(eval::nouns(), word) || std::ranges::binary_search(eval::adjectives(), word);
}

}  // namespace

std::vector<std::string> passage_words(eval::Rng& rng, const ProseSource& prose) {
  const std::string text = prose(rng, 400);
  std::set<std::string> words;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin;
    while (end < text.size() && (std::isalnum(static_cast<unsigned char>(text[end])) || (text[end] & 0x80))) ++end;
    const std::string_view word = std::string_view(text).substr(begin, end - begin);
    const bool small = std::ranges::all_of(word, [](char c) { return c >= 'a' && c <= 'z'; });
    if (small && word.size() >= 4 && word.size() <= 10 && !is_evaluated(word)) words.emplace(word);
    begin = end + 1;
  }
  return {words.begin(), words.end()};
}

HexGroups::HexGroups(eval::Rng& rng, std::vector<int> sizes)
    : sizes_(std::move(sizes)), heads_(sizes_.size(), ' ') {
  if (sizes_.size() < 2 || rng.below(2) == 0) return;
  for (char& head : heads_)
    if (rng.below(2) == 0) head = rng.pick(kHex);
}

std::string HexGroups::draw(eval::Rng& rng, size_t index) const {
  // groups beyond sizes_ are those added because almost all keys were used
  const int size = index < sizes_.size() ? sizes_[index] : kMore;
  const bool free = index >= heads_.size() || heads_[index] == ' ';
  return random_characters(rng, kHex, size, free ? "" : std::string(1, heads_[index]));
}

int training_digits(eval::Rng& rng) {
  constexpr int kDigits[] = {2, 3, 3, 4, 4, 8, 8, 8, 9, 9};
  return rng.pick(kDigits);
}

FactKeys::FactKeys(eval::Rng& rng, const ProseSource& prose, int64_t bytes, int64_t count, bool hex)
    : rng_(rng), alike_(rng.below(3) == 0), words_(passage_words(rng, prose)) {
  draw_kind(bytes, count, hex);
}

FactKeys FactKeys::nouns(eval::Rng& rng, const ProseSource& prose) {
  FactKeys keys(rng, prose, 0, 0);
  keys.kind_ = Kind::kNoun;
  keys.alike_ = false;
  keys.sizes_ = {1};
  keys.before_ = keys.between_ = "";
  return keys;
}

void FactKeys::draw_kind(int64_t bytes, int64_t count, bool hex) {
  constexpr Kind kKinds[] = {Kind::kName, Kind::kWords, Kind::kWords, Kind::kWords,  Kind::kNonsense,
                             Kind::kCode, Kind::kHex,   Kind::kHex,   Kind::kPassage};
  constexpr std::string_view kJoins[] = {" ", "-", "-", "_"}, kCodeJoins[] = {"", "-", "/", "."};
  kind_ = hex ? Kind::kHex : rng_.pick(kKinds);
  if (kind_ == Kind::kPassage && words_.size() < kFewWords) kind_ = Kind::kWords;
  capitals_ = rng_.below(3) == 0;
  const bool many = count > 40;
  switch (kind_) {
    case Kind::kName:
      sizes_.resize(many || rng_.below(3) == 0 ? 2 : 1);
      between_ = " ";
      break;
    case Kind::kWords:
      sizes_.resize(count > 3000 || (bytes >= kShort && rng_.below(3) == 0) ? 3 : 2);
      between_ = rng_.pick(kJoins);
      if (between_ == " " && rng_.below(2) == 0) before_ = "the ";
      break;
    case Kind::kNonsense:
      sizes_ = {static_cast<int>(many ? 3 : rng_.between(2, 3))};
      break;
    case Kind::kCode:
      sizes_ = {static_cast<int>(rng_.between(2, 3)), static_cast<int>(rng_.between(many ? 3 : 2, 4))};
      between_ = rng_.pick(kCodeJoins);
      break;
    case Kind::kHex:
      sizes_ = draw_groups(rng_, bytes);
      hex_.emplace(rng_, sizes_);
      between_ = "-";
      break;
    case Kind::kPassage:
      sizes_.resize(count * 4 > std::ssize(words_) ? 3 : 1 + rng_.below(2));
      between_ = rng_.pick(kJoins);
      break;
    case Kind::kNoun:  // never drawn, see nouns()
      break;
  }
}

std::string FactKeys::part(size_t index) {
  const int size = sizes_[index];
  switch (kind_) {
    case Kind::kName:
      return std::string(rng_.pick(training_names()));
    case Kind::kWords:
      return std::string(rng_.pick(index + 1 < sizes_.size() ? training_adjectives() : training_nouns()));
    case Kind::kNonsense:
      return capitals_ ? capital(eval::nonsense_word(rng_, size)) : eval::nonsense_word(rng_, size);
    case Kind::kCode:
      return index == 0 ? eval::random_letters(rng_, size, capitals_ ? 'A' : 'a') : eval::random_number(rng_, size);
    case Kind::kHex:
      return hex_->draw(rng_, index);
    case Kind::kNoun:
      return std::string(rng_.below(2) == 0 ? draw_modifier(rng_) : "").append(draw_noun(rng_));
    default:
      return rng_.pick(words_);
  }
}

std::string FactKeys::next() {
  for (int tries = 1;; ++tries) {
    if (tries % 100 == 0) sizes_.push_back(kMore);  // almost all keys are used
    std::vector<std::string> parts;
    if (alike_ && sizes_.size() > 1 && !drawn_.empty() && rng_.below(5) < 2) parts = rng_.pick(drawn_);
    if (parts.size() == sizes_.size()) {
      const int64_t index = rng_.below(std::ssize(parts));
      parts[index] = part(index);
    } else {
      parts.clear();
      for (size_t i = 0; i < sizes_.size(); ++i) parts.push_back(part(i));
    }
    std::string key = before_ + joined(parts, between_);
    if (!used_.insert(key).second) continue;
    drawn_.push_back(std::move(parts));
    return key;
  }
}

FactValues::FactValues(eval::Rng& rng, const ProseSource& prose, int64_t bytes, bool hex)
    : rng_(rng), bytes_(bytes), any_kind_(!hex && rng.below(10) == 0), words_(passage_words(rng, prose)) {
  draw_kind(hex);
}

void FactValues::draw_kind(bool hex) {
  constexpr Kind kKinds[] = {Kind::kNumber, Kind::kNumber,   Kind::kNumber, Kind::kNumber, Kind::kNumber,
                             Kind::kHex,    Kind::kHex,      Kind::kHex,    Kind::kWord,   Kind::kWord,
                             Kind::kWord,   Kind::kNonsense, Kind::kMixed};
  kind_ = hex ? Kind::kHex : rng_.pick(kKinds);
  if (kind_ == Kind::kNumber) sizes_ = {training_digits(rng_)};
  if (kind_ == Kind::kHex) hex_.emplace(rng_, draw_groups(rng_, bytes_));
  if (kind_ == Kind::kNonsense) sizes_ = {static_cast<int>(rng_.between(2, 3))};
  if (kind_ == Kind::kMixed) sizes_ = {static_cast<int>(rng_.between(3, 8))};
}

std::string FactValues::draw() {
  switch (kind_) {
    case Kind::kNumber:
      return eval::random_number(rng_, sizes_[0]);
    case Kind::kNonsense:
      return eval::nonsense_word(rng_, sizes_[0]);
    case Kind::kMixed:
      return random_characters(rng_, kMixed, sizes_[0]);
    case Kind::kHex: {
      std::vector<std::string> groups;
      for (size_t i = 0; i < hex_->count(); ++i) groups.push_back(hex_->draw(rng_, i));
      return joined(groups, "-");
    }
    default:
      if (words_.size() >= kFewWords && rng_.below(5) != 0) return rng_.pick(words_);
      return std::string(rng_.pick(training_nouns()));
  }
}

std::string FactValues::next() {
  if (any_kind_) draw_kind();
  constexpr int kTries = 8;
  std::string drawn = draw();
  for (int tries = 1; tries < kTries && used_.contains(drawn); ++tries) drawn = draw();
  used_.insert(drawn);
  return drawn;
}

}  // namespace fathom::train
