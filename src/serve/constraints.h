#pragma once

#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/json.h"
#include "decode/constraint.h"
#include "decode/token_bytes.h"
#include "tokens/answer_format.h"

namespace fathom::serve {

/// The tools that an answer may or must call.
struct ToolUse {
  enum class Choice { kAuto, kNone, kRequired };
  Json tools{};  // as TemplateInputs::tools; null: none
  Choice choice = Choice::kAuto;
  std::string name{};  // with kRequired: of the tool; empty: any
};

/// The JSON that a text must be.
struct JsonForm {
  enum class Kind { kNone, kAny, kSchema };
  Kind kind = Kind::kNone;
  Json schema{};
};

/// Makes the constraints of requests and keeps the newest ones, with what they have computed. Thread-safe.
class ConstraintCache {
 public:
  /// Both must outlive this.
  ConstraintCache(const Tokenizer& tokenizer, const AnswerFormat& format)
      : tokenizer_(tokenizer), format_(format) {}

  /// Returns the constraint of a text, or of an answer that begins with a call; null: any text. Throws ApiError for
  /// a schema that cannot be followed.
  std::shared_ptr<const Constraint> find(const JsonForm& form, const ToolUse& tools);

 private:
  std::shared_ptr<const Constraint> make(const JsonForm& form, const ToolUse& tools);

  const Tokenizer& tokenizer_;
  const AnswerFormat& format_;
  std::mutex mutex_;
  std::shared_ptr<const TokenBytes> tokens_;                              // made with the first constraint
  std::map<std::string, std::shared_ptr<const Constraint>> constraints_;  // by their definitions
  std::list<std::string> oldest_;
};

}  // namespace fathom::serve
