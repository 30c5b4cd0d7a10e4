#pragma once

#include <string>
#include <string_view>

namespace fathom {

/// Returns a count or rate with three digits and a suffix: "0.35", "950", "12.3k", "4m", "1.5g". Suffixes are
/// binary (k = 1024), as in parse_size.
std::string format_size(double size);

/// Returns a number of bytes with three digits and its unit: "512 B", "1.5 KiB", "12.3 GiB".
std::string format_bytes(double bytes);

/// Returns a duration with its unit: "1.5 ms", "0.42 s", "59 s", "2 min 05 s", "1 h 03 min".
std::string format_seconds(double seconds);

/// Returns a number as 16 hexadecimal digits.
std::string format_hex(uint64_t number);

/// Returns untrusted text for a terminal: control characters, line ends and invalid UTF-8 are escaped.
std::string escape(std::string_view text);

/// Returns untrusted text for an error message: in quotes, with control characters and invalid UTF-8 escaped, and
/// cut after 60 bytes.
std::string quote(std::string_view text);

/// Returns the strings joined by ", ".
template <class Strings>
std::string comma_list(const Strings& strings) {
  std::string list;
  for (const auto& string : strings) {
    if (!list.empty()) list += ", ";
    list += string;
  }
  return list;
}

/// Returns the strings joined by ", ", with " or " before the last one.
template <class Strings>
std::string or_list(const Strings& strings) {
  std::string list;
  size_t left = strings.size();
  for (const auto& string : strings) {
    if (!list.empty()) list += left > 1 ? ", " : " or ";
    list += string;
    --left;
  }
  return list;
}

}  // namespace fathom
