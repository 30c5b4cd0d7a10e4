#include "context/framed_text.h"

#include <algorithm>

#include "base/error.h"
#include "base/format.h"
#include "tokens/prompt.h"

namespace fathom {
namespace {

/// Stands for the text while its frame is rendered.
constexpr std::string_view kPlaceholder = "FATHOM-TEXT-PLACEHOLDER";

}  // namespace

FramedText FramedText::of_chat(const ChatTemplate& chat_template, const std::string& system, std::string text) {
  std::vector<ChatMessage> messages;
  if (!system.empty()) messages.push_back({"system", system});
  messages.push_back({"user", std::string(kPlaceholder)});
  const std::string rendered = chat_template.render(messages, true);
  const size_t at = rendered.rfind(kPlaceholder);
  if (at == std::string::npos) fail("the chat template does not contain the user's message as it is");
  return {rendered.substr(0, at), std::move(text), rendered.substr(at + kPlaceholder.size()), true};
}

FramedText FramedText::of(const ContextFile& file) {
  const Json& notes = file.info().notes;
  try {
    return {notes.at("before").text(), std::string(file.text()), notes.at("after").text(),
            notes.at("chat").get<bool>(), notes.value("cartridge", false)};
  } catch (const JsonError&) {
    fail(file.path(), ": the context has no text: it was not written by `fathom read`");
  }
}

Json FramedText::to_json() const {
  return {{"chat", chat}, {"before", before}, {"after", after}, {"cartridge", cartridge}};
}

std::vector<int32_t> FramedText::tokens(const Tokenizer& tokenizer) const {
  return encode_prompt(tokenizer, before + text, chat);
}

std::vector<int32_t> FramedText::tokens(const Tokenizer& tokenizer, const std::string& question) const {
  return encode_prompt(tokenizer, concat(before, text, question, after), chat);
}

std::vector<int64_t> FramedText::offsets(const Tokenizer& tokenizer, std::span<const int32_t> tokens) const {
  StreamDecoder decoder(tokenizer, true);
  std::vector<int64_t> offsets;
  std::string all;
  const std::string whole = before + text;
  const auto bos = static_cast<size_t>(std::ssize(bos_tokens(tokenizer)));
  const bool skip_bos = bos > 0 && !tokens.empty() && tokens[0] == bos_tokens(tokenizer)[0] &&
                        !whole.starts_with(tokenizer.piece(tokens[0]));
  for (size_t i = 0; i < tokens.size(); ++i) {
    const auto at = static_cast<int64_t>(all.size()) - std::ssize(before);
    offsets.push_back(std::clamp<int64_t>(at, 0, std::ssize(text)));
    if (i > 0 || !skip_bos) all += decoder.add(tokens[i]);
  }
  all += decoder.flush();
  return all == whole ? offsets : std::vector<int64_t>();
}

void FramedText::save(const Session& session, const Tokenizer& tokenizer, const std::string& path,
                      SavedText saved) const {
  std::vector<int64_t> token_offsets;
  if (!cartridge) token_offsets = offsets(tokenizer, session.sequence().ids().copy(0, session.sequence().tokens()));
  Json notes = to_json();
  notes.update(saved.notes);
  saved.notes = std::move(notes);
  saved.text = text;
  saved.offsets = token_offsets;
  session.save(path, saved);
}

}  // namespace fathom
