#pragma once

#include <memory>
#include <string>
#include <vector>

#include "formats/context_file.h"
#include "loaded_model.h"

namespace fathom {

/// A text and what stands around it in the prompt: with a chat template, the beginning of the user's message before
/// it, and what ends the message after the question.
struct FramedText {
  std::string before, text, after;
  bool chat = false;
  bool cartridge = false;  // trained slots instead of a text

  /// Frames a text as a user message of a chat template, with a system prompt if it is not empty.
  static FramedText of_chat(const LoadedModel& loaded, const std::string& template_file, const std::string& system,
                            std::string text);
  /// Returns the frame and text of a context file. Throws Error if it was not written by `fathom read`.
  static FramedText of(const ContextFile& file);

  /// Returns the tokens of the text, or of the text and a question after it.
  std::vector<int32_t> tokens(const Tokenizer& tokenizer) const;
  std::vector<int32_t> tokens(const Tokenizer& tokenizer, const std::string& question) const;
  /// Returns the byte offset in `text` of each token; empty if the tokens do not spell the text exactly.
  std::vector<int64_t> offsets(const Tokenizer& tokenizer, std::span<const int32_t> tokens) const;
  Json to_json() const;
};

/// The value of a method option that is not given to a command whose contexts have one.
inline constexpr const char* kAsRead = "as read";

/// Opens a context file for a command. Sets what was not given in `options` to that of the context: the model, its
/// adapters, the context limit, and the methods that equal those in `unset`. Throws Error.
std::shared_ptr<const ContextFile> open_context_file(const std::string& path, CommonOptions& options,
                                                     const MethodSpecs& unset);
/// Returns methods that are all kAsRead.
MethodSpecs methods_as_read();
/// Opens the session of a context file.
Session open_session(const LoadedModel& loaded, const CommonOptions& options,
                     const std::shared_ptr<const ContextFile>& file);

/// Writes a session with its text to a context file, with progress. notes: added to those of the frame.
void save_context(const Session& session, const FramedText& text, const LoadedModel& loaded,
                  const CommonOptions& options, const std::string& path, const Json& notes);

}  // namespace fathom
