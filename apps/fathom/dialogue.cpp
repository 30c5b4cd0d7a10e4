#include "dialogue.h"

#include <algorithm>

#include "base/error.h"
#include "console.h"
#include "decode/constraint.h"

namespace fathom {
namespace {

std::string text_of(const Tokenizer& tokenizer, int32_t id) { return id == kNoToken ? "" : tokenizer.piece(id); }

}  // namespace

std::unique_ptr<const ChatTemplate> open_chat_template(const LoadedModel& loaded, const std::string& file) {
  const Vocabulary& vocabulary = loaded.tokenizer->vocabulary();
  const std::string source = file.empty() ? vocabulary.chat_template : read_input(file);
  const std::string name = file.empty() ? vocabulary.source : input_name(file);
  if (source.empty()) {
    fail(name,
         ": the model file has no chat template; give one with --template FILE (Jinja), or use `fathom run` "
         "without --chat");
  }
  try {
    return std::make_unique<ChatTemplate>(source, text_of(*loaded.tokenizer, vocabulary.bos),
                                          text_of(*loaded.tokenizer, vocabulary.eos));
  } catch (const Error& error) {
    throw Error(concat(name, ": chat template: ", error.what()), error.kind());
  }
}

Dialogue::Dialogue(const LoadedModel& loaded, const CommonOptions& options,
                   std::unique_ptr<const ChatTemplate> chat_template, const std::string& system,
                   const DecodeOptions& decode)
    : loaded_(loaded), template_(std::move(chat_template)), session_(loaded.session(options)), decode_(decode) {
  drafter();  // reports errors before the first message
  if (!system.empty()) start_.push_back({"system", system});
  reset();
}

void Dialogue::begin_with(Session session, const FramedText& text) {
  std::vector<ChatMessage> messages = start_;
  messages.push_back({"user", text.text});
  if (!text.chat || !template_->render(messages, true).starts_with(text.before + text.text))
    fail(
        "--context-file: expected a context that was read with --chat, this chat template and the same system "
        "prompt (-s)");
  session_ = std::move(session);
  first_text_ = text.text;
}

void Dialogue::reset() { messages_ = start_; }

Drafter Dialogue::drafter() {
  return Drafter(decode_.draft(),
                 {loaded_.model, loaded_.runtime, loaded_.tokenizer.get(), &session_, &draft_memory_});
}

Generated Dialogue::answer(const std::string& text, Sampler& sampler, const GenerateOptions& options,
                           const std::function<void(std::string_view)>& on_text) {
  std::vector<ChatMessage> messages = messages_;
  const bool first = messages.size() == start_.size();
  messages.push_back({"user", first ? first_text_ + text : text});
  const std::vector<int32_t> tokens = encode_prompt(*loaded_.tokenizer, template_->render(messages, true), true);
  read_after_common_prefix(session_, tokens);
  if (!decode_.constraint.empty())
    sampler.constrain(constraint_methods().make(decode_.constraint, ConstraintSetup{loaded_.tokenizer.get(), text}),
                      std::ssize(tokens));
  Drafter drafts = drafter();
  Generated result = generate(session_, *loaded_.tokenizer, sampler, tokens, options, on_text, &drafts);
  messages.push_back({"assistant", result.text});
  messages_ = std::move(messages);
  return result;
}

}  // namespace fathom
