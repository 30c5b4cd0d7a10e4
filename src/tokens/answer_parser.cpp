#include "tokens/answer_parser.h"

#include <algorithm>
#include <cctype>

#include "base/format.h"

namespace fathom {
namespace {

constexpr std::string_view kSpaces = " \t\r\n";
constexpr std::string_view kChannel = "<|channel|>", kMessage = "<|message|>", kEnd = "<|end|>",
                           kStart = "<|start|>", kCall = "<|call|>", kReturn = "<|return|>";

std::string_view trimmed(std::string_view text) {
  const size_t begin = std::min(text.find_first_not_of(kSpaces), text.size());
  return text.substr(begin, text.find_last_not_of(kSpaces) + 1 - begin);
}

/// Returns the tag that a text begins with, such as <tool_call> or [TOOL_CALLS]; empty: none.
std::string_view leading_tag(std::string_view text) {
  if (text.empty() || (text[0] != '<' && text[0] != '[')) return {};
  const size_t end = text.find(text[0] == '<' ? '>' : ']');
  // A bracket may also begin a JSON list.
  if (end == std::string_view::npos || text.substr(0, end).find('{') != std::string_view::npos) return {};
  return text.substr(0, end + 1);
}

/// Reads a quoted JSON string without escapes at `at` and moves `at` behind it. Returns nothing if there is none.
std::string_view quoted_at(std::string_view text, size_t& at) {
  if (at >= text.size() || text[at] != '"') return {};
  const size_t end = text.find_first_of("\"\\", at + 1);
  if (end == std::string_view::npos || text[end] != '"') return {};
  const std::string_view inside = text.substr(at + 1, end - at - 1);
  at = end + 1;
  return inside;
}

/// Returns the last quoted part of a text; empty: none.
std::string_view last_quoted(std::string_view text) {
  const size_t end = text.rfind('"');
  const size_t begin = end == std::string_view::npos || end == 0 ? end : text.rfind('"', end - 1);
  return begin == std::string_view::npos || begin >= end ? std::string_view()
                                                         : text.substr(begin + 1, end - begin - 1);
}

bool is_name_character(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '-' || c == '.';
}

void skip_spaces(std::string_view text, size_t& at) {
  while (at < text.size() && kSpaces.find(text[at]) != std::string_view::npos) ++at;
}

}  // namespace

AnswerParser::AnswerParser(const AnswerFormat& format, const Json& tools, AnswerHandler handler,
                           std::string_view forced)
    : format_(format), tools_(tools), handler_(std::move(handler)) {
  const std::string_view begin = trimmed(format_.call_begin), tag = leading_tag(begin);
  // "key": "NAME", "key": ARGUMENTS
  const size_t colon =
      begin.ends_with('"') ? begin.find_last_not_of(" \n", begin.size() - 2) : std::string_view::npos;
  wrapped_ = format_.style == AnswerFormat::Style::kJson && colon != std::string_view::npos && begin[colon] == ':';
  if (wrapped_) {
    name_key_ = last_quoted(begin.substr(0, colon));
    arguments_key_ = last_quoted(format_.call_middle);
  }
  marker_ = tag.empty() ? begin : tag;
  const std::string_view end = trimmed(format_.call_end);
  end_marker_ = end.substr(std::min(end.size(), std::min(end.find('<'), end.find('['))));
  if (format_.style == AnswerFormat::Style::kHarmony) {
    state_ = State::kHeader;
  } else if (format_.begins_reasoning && forced.empty()) {
    state_ = State::kReasoning;
  }
  add(forced);
}

void AnswerParser::add(std::string_view text) {
  buffer_ += text;
  while (step()) {
  }
}

void AnswerParser::finish() {
  ended_ = true;
  for (;;) {
    while (step()) {
    }
    if (buffer_.empty() || (state_ != State::kName && state_ != State::kParameters)) break;
    not_a_call();
  }
}

/// Divides a part of the buffer. Returns false if more text is needed for the next part.
bool AnswerParser::step() {
  switch (state_) {
    case State::kStart:
      return start();
    case State::kReasoning:
      return reasoning();
    case State::kText:
      return text();
    case State::kName:
      return wrapped_ ? wrapped_name() : name();
    case State::kArguments:
      return arguments();
    case State::kAfterArguments:
      return after_arguments();
    case State::kParameters:
      return parameters();
    case State::kHeader:
      return header();
  }
  return false;
}

/// Returns how many bytes of the buffer come before a marker, or cannot be a part of it; all once the answer ended.
size_t AnswerParser::safe_length(std::string_view marker) const {
  if (marker.empty() || ended_) return buffer_.size();
  for (size_t n = std::min(marker.size() - 1, buffer_.size()); n > 0; --n)
    if (std::string_view(buffer_).ends_with(marker.substr(0, n))) return buffer_.size() - n;
  return buffer_.size();
}

bool AnswerParser::start() {
  const size_t begin = buffer_.find_first_not_of(kSpaces);
  if (begin == std::string::npos) {
    if (!ended_) return false;
    state_ = State::kText;
    return !buffer_.empty();
  }
  const std::string_view rest = std::string_view(buffer_).substr(begin);
  const std::string& tag = format_.think_begin;
  if (!tag.empty() && rest.starts_with(tag)) {
    buffer_.erase(0, begin + tag.size());
    state_ = State::kReasoning;
  } else if (!tag.empty() && !ended_ && std::string_view(tag).starts_with(rest)) {
    return false;
  } else {
    state_ = State::kText;
  }
  return true;
}

bool AnswerParser::reasoning() {
  const size_t end = buffer_.find(format_.think_end);
  if (end != std::string::npos) {
    emit_reasoning(std::string_view(buffer_).substr(0, end));
    buffer_.erase(0, end + format_.think_end.size());
    spaces_.clear();
    state_ = State::kText;
    return true;
  }
  const size_t safe = safe_length(format_.think_end);
  emit_reasoning(std::string_view(buffer_).substr(0, safe));
  buffer_.erase(0, safe);
  return false;
}

bool AnswerParser::text() {
  const bool harmony = format_.style == AnswerFormat::Style::kHarmony;
  if (harmony) {
    size_t end = std::string::npos, size = 0;
    for (const std::string_view marker : {kEnd, kStart, kCall, kReturn, kChannel})
      if (const size_t at = buffer_.find(marker); at < end) end = at, size = marker.size();
    const size_t hold = end == std::string::npos && !ended_ ? buffer_.rfind('<') : std::string::npos;
    const bool partial = hold != std::string::npos && buffer_.size() - hold < kMessage.size() + 1;
    const size_t length = end != std::string::npos ? end : partial ? hold : buffer_.size();
    const std::string part = buffer_.substr(0, length);
    buffer_.erase(0, end == std::string::npos ? length : end + size);
    if (body_ == State::kReasoning) {
      emit_reasoning(part);
    } else if (body_ == State::kArguments) {
      if (handler_.on_arguments && !part.empty()) handler_.on_arguments(part);
    } else {
      emit_text(part);
    }
    if (end == std::string::npos) return false;
    state_ = State::kHeader;
    return true;
  }
  // A marker without a tag, such as an opening brace, begins a call only at the beginning of the answer.
  const bool tagged = !leading_tag(marker_).empty();
  const bool possible = !tools_.is_null() && (tagged || (!any_text_ && calls_ == 0) || after_call_);
  if (!possible) {
    emit_text(buffer_);
    buffer_.clear();
    return false;
  }
  size_t at = buffer_.find(marker_);
  if (!tagged && at != std::string::npos && at != std::min(buffer_.find_first_not_of(kSpaces), buffer_.size()))
    at = std::string::npos;
  if (at != std::string::npos) {
    emit_text(std::string_view(buffer_).substr(0, at));
    buffer_.erase(0, at);
    state_ = format_.style == AnswerFormat::Style::kParameters ? State::kParameters : State::kName;
    return true;
  }
  const size_t safe = safe_length(marker_);
  emit_text(std::string_view(buffer_).substr(0, safe));
  buffer_.erase(0, safe);
  return false;
}

/// What was held back as a call is none.
void AnswerParser::not_a_call() {
  size_t character = 1;  // is removed, so that the rest is not taken for this call again
  while (character < buffer_.size() && (static_cast<unsigned char>(buffer_[character]) & 0xc0) == 0x80) ++character;
  emit_text(std::string_view(buffer_).substr(0, character));
  buffer_.erase(0, character);
  state_ = State::kText;
}

/// The name of a call that its arguments follow: call_begin NAME … ARGUMENTS.
bool AnswerParser::name() {
  constexpr size_t kMostBetween = 256;  // bytes between name and arguments
  const std::string_view begin = trimmed(format_.call_begin), rest = buffer_;
  const size_t id = begin.find(AnswerFormat::kExampleId);
  size_t at = begin.size();
  if (id != std::string_view::npos) {  // the identifier of this call is another one
    const std::string_view tail = begin.substr(id + AnswerFormat::kExampleId.size());
    at = rest.find(tail, id);
    if (at == std::string_view::npos)
      return rest.size() > begin.size() + kMostBetween ? (not_a_call(), true) : false;
    at += tail.size();
  } else if (!rest.starts_with(begin)) {
    return begin.starts_with(rest) ? false : (not_a_call(), true);
  }
  skip_spaces(rest, at);
  size_t end = at;
  while (end < rest.size() && is_name_character(rest[end])) ++end;
  if (end == rest.size()) return false;
  const std::string_view found = rest.substr(at, end - at);
  if (!knows_tool(found)) return not_a_call(), true;
  const size_t open = rest.find('{', end);
  if (open == std::string_view::npos) return rest.size() - end > kMostBetween ? (not_a_call(), true) : false;
  begin_call(found);
  buffer_.erase(0, open);
  state_ = State::kArguments;
  return true;
}

/// The beginning of a JSON object with the fields "name" and "arguments" or "parameters".
bool AnswerParser::wrapped_name() {
  const std::string_view rest = buffer_;
  size_t at = rest.starts_with(marker_) && !marker_.starts_with('{') ? marker_.size() : 0;
  const auto next_is = [&](char c) {
    skip_spaces(rest, at);
    return at < rest.size() && rest[at] == c && ++at > 0;
  };
  const auto need_more = [&] {
    skip_spaces(rest, at);
    return at >= rest.size() || rest.find('"', at + 1) == std::string_view::npos;
  };
  skip_spaces(rest, at);
  if (at < rest.size() && rest[at] == '[') ++at;
  if (!next_is('{')) return at < rest.size() ? (not_a_call(), true) : false;
  std::string found;
  for (;;) {  // fields before the arguments
    skip_spaces(rest, at);
    size_t key_at = at;
    const std::string_view key = quoted_at(rest, key_at);
    if (key.empty()) return need_more() ? false : (not_a_call(), true);
    at = key_at;
    if (!next_is(':')) return at < rest.size() ? (not_a_call(), true) : false;
    skip_spaces(rest, at);
    if (key == arguments_key_ || key == "arguments" || key == "parameters") break;
    size_t value_at = at;
    const std::string_view value = quoted_at(rest, value_at);
    if (value.empty()) return need_more() ? false : (not_a_call(), true);
    at = value_at;
    if (key == name_key_ || key == "name") found = value;
    if (!next_is(',')) return at < rest.size() ? (not_a_call(), true) : false;
  }
  if (at >= rest.size()) return false;
  if (rest[at] != '{' || !knows_tool(found)) return not_a_call(), true;
  begin_call(found);
  buffer_.erase(0, at);
  state_ = State::kArguments;
  return true;
}

/// Moves `at` over the JSON value at the beginning of the buffer, or the rest of one. Returns whether it is
/// complete.
bool AnswerParser::scan_value(size_t& at) {
  while (at < buffer_.size()) {
    const char c = buffer_[at++];
    if (in_string_) {
      in_string_ = escaped_ || c != '"';
      escaped_ = !escaped_ && c == '\\';
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if ((c == '}' || c == ']') && --depth_ <= 0) {
      return true;
    }
  }
  return false;
}

/// A JSON object, up to its closing brace.
bool AnswerParser::arguments() {
  size_t at = 0;
  if (depth_ == 0) {
    skip_spaces(buffer_, at);
    if (at >= buffer_.size()) return false;
  }
  const size_t begin = at;
  const bool complete = scan_value(at);
  if (handler_.on_arguments && at > begin)
    handler_.on_arguments(std::string_view(buffer_).substr(begin, at - begin));
  buffer_.erase(0, at);
  if (!complete) return false;
  depth_ = wrapped_ ? 1 : 0;
  state_ = State::kAfterArguments;
  return true;
}

/// The end of a call: up to the marker that ends it, or to the next call.
bool AnswerParser::after_arguments() {
  after_call_ = true;
  spaces_.clear();
  if (depth_ > 0) {  // further fields of the object with the arguments
    size_t at = 0;
    const bool complete = scan_value(at);
    buffer_.erase(0, at);
    if (!complete) return false;
    depth_ = 0;
  }
  if (end_marker_.empty()) {
    size_t at = 0;
    skip_spaces(buffer_, at);
    if (at >= buffer_.size()) return false;
    const bool next = wrapped_ && (buffer_[at] == ',' || buffer_[at] == ';');
    if (next || buffer_[at] == ']') ++at;
    buffer_.erase(0, at);
    state_ = next ? State::kName : State::kText;
    return true;
  }
  const size_t end = buffer_.find(end_marker_), next = buffer_.find(marker_);
  if (end != std::string::npos && end < next) {
    buffer_.erase(0, end + end_marker_.size());
  } else if (next != std::string::npos) {
    buffer_.erase(0, next);
  } else {
    if (ended_) buffer_.clear();
    return false;
  }
  state_ = State::kText;
  return true;
}

/// A whole call with its arguments one by one.
bool AnswerParser::parameters() {
  const std::string_view begin = trimmed(format_.call_begin), rest = buffer_;
  const size_t end = end_marker_.empty() ? std::string_view::npos : rest.find(end_marker_);
  if (end == std::string_view::npos && !(ended_ && end_marker_.empty())) return false;
  const std::string_view whole = rest.substr(0, end);
  const std::string_view value_begin = trimmed(format_.value_begin), value_middle = trimmed(format_.value_middle),
                         value_end = trimmed(format_.value_end), middle = trimmed(format_.call_middle);
  size_t at = begin.size();
  const size_t first = std::min(whole.find(value_begin, std::min(at, whole.size())), whole.size());
  std::string_view called = whole.starts_with(begin) ? trimmed(whole.substr(at, first - at)) : std::string_view();
  if (!middle.empty()) called = trimmed(called.substr(0, called.find(middle)));
  if (!knows_tool(called)) return not_a_call(), true;
  name_ = called;
  Json found = Json::object();
  for (at = first; at < whole.size();) {
    at = whole.find(value_begin, at);
    if (at == std::string_view::npos) break;
    at += value_begin.size();
    const size_t key_end = whole.find(value_middle, at);
    if (key_end == std::string_view::npos) break;
    const std::string key(trimmed(whole.substr(at, key_end - at)));
    at = key_end + value_middle.size();
    const size_t value_stop = std::min(whole.find(value_end, at), whole.size());
    std::string_view value = whole.substr(at, value_stop - at);
    if (value.starts_with('\n')) value.remove_prefix(1);
    if (value.ends_with('\n')) value.remove_suffix(1);
    found[key] = parameter_value(key, value);
    at = value_stop + value_end.size();
  }
  begin_call(std::string(called));
  if (handler_.on_arguments) handler_.on_arguments(found.dump());
  buffer_.erase(0, end == std::string_view::npos ? buffer_.size() : end + end_marker_.size());
  after_call_ = true;
  spaces_.clear();
  state_ = State::kText;
  return true;
}

/// The header of a harmony message: <|channel|>NAME to=RECIPIENT …<|message|>.
bool AnswerParser::header() {
  const size_t end = buffer_.find(kMessage);
  if (end == std::string::npos) {
    if (ended_) {
      // A bare text: the model did not write a header.
      if (buffer_.find("<|") == std::string::npos && buffer_ != "assistant") emit_text(buffer_);
      buffer_.clear();
    }
    return false;
  }
  const std::string_view head = std::string_view(buffer_).substr(0, end);
  const size_t channel_at = head.find(kChannel);
  const std::string_view channel =
      channel_at == std::string_view::npos ? "final" : trimmed(head.substr(channel_at + kChannel.size()));
  constexpr std::string_view kTo = "to=functions.";
  body_ = channel.starts_with("analysis") ? State::kReasoning : State::kText;
  if (const size_t to = head.find(kTo); to != std::string_view::npos) {
    const std::string_view rest = head.substr(to + kTo.size());
    const std::string called(rest.substr(0, rest.find_first_of(" <\n")));
    if (knows_tool(called)) {
      begin_call(called);
      body_ = State::kArguments;
    }
  }
  buffer_.erase(0, end + kMessage.size());
  state_ = State::kText;
  return true;
}

void AnswerParser::begin_call(std::string_view name) {
  ++calls_;
  spaces_.clear();
  if (handler_.on_call) handler_.on_call(name);
}

/// Emits text, without whitespace at the beginning of the answer, around calls, and (not yet) at the end.
void AnswerParser::emit_text(std::string_view text) {
  const bool tools = !tools_.is_null();
  const bool strip = (!any_text_ && (any_reasoning_ || calls_ > 0)) || after_call_;
  if (strip && !any_text_) text.remove_prefix(std::min(text.find_first_not_of(kSpaces), text.size()));
  if (text.empty()) return;
  std::string whole = std::move(spaces_) + std::string(text);
  spaces_.clear();
  if (tools && !ended_) {
    const size_t last = whole.find_last_not_of(kSpaces);
    const size_t keep = last == std::string::npos ? 0 : last + 1;
    spaces_ = whole.substr(keep);
    whole.resize(keep);
  }
  if (whole.empty()) return;
  any_text_ = true;
  after_call_ = false;
  if (handler_.on_text) handler_.on_text(whole);
}

void AnswerParser::emit_reasoning(std::string_view text) {
  if (!any_reasoning_) text.remove_prefix(std::min(text.find_first_not_of(kSpaces), text.size()));
  std::string whole = std::move(spaces_) + std::string(text);
  const size_t last = whole.find_last_not_of(kSpaces);
  const size_t keep = last == std::string::npos ? 0 : last + 1;
  spaces_ = whole.substr(keep);
  whole.resize(keep);
  if (whole.empty()) return;
  any_reasoning_ = true;
  if (handler_.on_reasoning) handler_.on_reasoning(whole);
}

bool AnswerParser::knows_tool(std::string_view name) const {
  return tools_.is_array() && std::ranges::any_of(tools_.items(), [&](const Json& tool) {
           return tool.at("function").at("name").text() == name;
         });
}

/// Returns the value of an argument: text, unless its schema has another type and the text is JSON of it.
Json AnswerParser::parameter_value(std::string_view key, std::string_view text) const {
  for (const Json& tool : tools_.items()) {
    const Json& function = tool.at("function");
    if (function.at("name").text() != name_) continue;
    const Json* parameters = function.find("parameters");
    const Json* properties = parameters ? parameters->find("properties") : nullptr;
    const Json* schema = properties ? properties->find(key) : nullptr;
    const Json* type = schema ? schema->find("type") : nullptr;
    if (!type || (type->is_string() && type->text() == "string")) break;
    if (Json value = Json::parse_or_null(text); !value.is_null()) return value;
  }
  return text;
}

}  // namespace fathom
