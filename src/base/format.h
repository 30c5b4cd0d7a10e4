#pragma once

#include <string>
#include <string_view>

namespace fathom {

/// A count or rate as a person would write it, three digits: "0.35", "950", "12.3k", "4m", "1.5g"; k = 1024, as in
/// parse_size.
std::string format_size(double size);

/// Bytes with their unit, three digits: "512 B", "1.5 KiB", "12.3 GiB".
std::string format_bytes(double bytes);

/// A duration: "1.5 ms", "0.42 s", "59 s", "2 min 05 s", "1 h 03 min".
std::string format_seconds(double seconds);

/// Foreign text for an error message: in quotes, control characters and what is not UTF-8 escaped, cut after 60
/// bytes.
std::string quote(std::string_view text);

/// The parts joined by ", ".
template <class Strings>
std::string comma_list(const Strings& strings) {
  std::string list;
  for (const auto& string : strings) {
    if (!list.empty()) list += ", ";
    list += string;
  }
  return list;
}

/// The parts joined by ", " and, before the last one, " or ".
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
