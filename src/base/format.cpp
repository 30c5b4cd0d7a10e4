#include "base/format.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/error.h"
#include "base/utf8.h"

namespace fathom {

namespace {

/// Returns a number with three digits (four from 1000 to 1023), without trailing zeros: 1.5, 12.3, 100, 1023.
std::string three_digits(double value) {
  char text[32];
  const int decimals = value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  std::string digits = text;
  if (decimals == 0) return digits;
  digits.erase(digits.find_last_not_of('0') + 1);
  if (digits.back() == '.') digits.pop_back();
  return digits;
}

/// A value divided by 1024 `steps` times, until it is below 1024.
struct BinaryScaled {
  double value;
  int steps;
};

BinaryScaled scale(double value, int max_steps) {
  BinaryScaled scaled{value, 0};
  // 1023.5 would be rounded to 1024.
  while (scaled.steps < max_steps && scaled.value >= 1023.5) {
    scaled.value /= 1024;
    ++scaled.steps;
  }
  return scaled;
}

std::string with_unit(double value, const char* const (&units)[5]) {
  const BinaryScaled scaled = scale(std::abs(value), 4);
  return concat(value < 0 ? "-" : "", three_digits(scaled.value), units[scaled.steps]);
}

}  // namespace

std::string format_size(double size) { return with_unit(size, {"", "k", "m", "g", "t"}); }

std::string format_bytes(double bytes) { return with_unit(bytes, {" B", " KiB", " MiB", " GiB", " TiB"}); }

std::string format_seconds(double seconds) {
  if (!(seconds > 0)) return "0 s";
  if (seconds < 0.0995) return three_digits(seconds * 1e3) + " ms";
  if (seconds < 9.95) return three_digits(seconds) + " s";
  const long long whole = std::llround(std::min(seconds, 1e15));
  char text[48];
  if (whole < 60) {
    std::snprintf(text, sizeof text, "%lld s", whole);
  } else if (whole < 3600) {
    std::snprintf(text, sizeof text, "%lld min %02lld s", whole / 60, whole % 60);
  } else {
    std::snprintf(text, sizeof text, "%lld h %02lld min", whole / 3600, whole % 3600 / 60);
  }
  return text;
}

std::string format_hex(uint64_t number) {
  std::string text(16, '0');
  for (int i = 15; i >= 0; --i, number >>= 4) text[i] = "0123456789abcdef"[number & 15];
  return text;
}

namespace {

/// Appends the first character of a text, or its first byte escaped. Returns the number of bytes that it stands
/// for.
size_t append_escaped(std::string_view text, std::string& out) {
  const unsigned char c = text[0];
  const bool c1_control = text.size() > 1 && c == 0xc2 && static_cast<unsigned char>(text[1]) < 0xa0;
  const size_t length = c < 0x20 || c == 0x7f || c1_control ? 0 : utf8_length(text);
  if (length > 0) {
    out += text.substr(0, length);
    return length;
  }
  char bytes[8];
  std::snprintf(bytes, sizeof bytes, "\\x%02x", c);
  out += bytes;
  return 1;
}

}  // namespace

std::string escape(std::string_view text) {
  std::string result;
  for (size_t at = 0; at < text.size();) at += append_escaped(text.substr(at), result);
  return result;
}

std::string quote(std::string_view text) {
  constexpr size_t kMaxQuotedBytes = 60;  // enough to recognise the text, short enough for a message of one line
  std::string result = "'";
  size_t at = 0;
  while (at < text.size() && at < kMaxQuotedBytes) at += append_escaped(text.substr(at), result);
  if (at < text.size()) result += "…";
  return result + "'";
}

}  // namespace fathom
