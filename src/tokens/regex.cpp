#include "tokens/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <new>

#include "base/error.h"

namespace fathom {
namespace {

constexpr size_t kJitStackBytes = 16 << 20;  // limit for hostile texts; the built-in patterns need far less

template <auto Release>
struct Releaser {
  template <class T>
  void operator()(T* pointer) const {
    Release(pointer);
  }
};

std::string message(int code) {
  char text[256] = "unknown error";
  pcre2_get_error_message(code, reinterpret_cast<PCRE2_UCHAR*>(text), sizeof text);
  return text;
}

PCRE2_SPTR units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

struct Regex::Compiled {
  std::unique_ptr<pcre2_code, Releaser<pcre2_code_free>> code;
};

struct Regex::Matcher::Memory {
  std::unique_ptr<pcre2_match_data, Releaser<pcre2_match_data_free>> data{pcre2_match_data_create(1, nullptr)};
  std::unique_ptr<pcre2_match_context, Releaser<pcre2_match_context_free>> context{
      pcre2_match_context_create(nullptr)};
  std::unique_ptr<pcre2_jit_stack, Releaser<pcre2_jit_stack_free>> stack{
      pcre2_jit_stack_create(64 << 10, kJitStackBytes, nullptr)};
};

Regex::Regex(const char* pattern) : compiled_(std::make_unique<Compiled>()) {
  int error = 0;
  PCRE2_SIZE at = 0;
  compiled_->code.reset(pcre2_compile(units(pattern), PCRE2_ZERO_TERMINATED,
                                      PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &error, &at, nullptr));
  if (!compiled_->code) fail("pattern '", pattern, "', byte ", at, ": ", message(error));
  pcre2_jit_compile(compiled_->code.get(), PCRE2_JIT_COMPLETE);  // on failure PCRE2 uses its slower interpreter
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;

std::string Regex::replace(std::string_view text, const char* replacement) const {
  std::string out(text.size() + text.size() / 2 + 64, '\0');
  for (;;) {
    PCRE2_SIZE bytes = out.size();
    const int count = pcre2_substitute(
        compiled_->code.get(), units(text), text.size(), 0,
        PCRE2_NO_UTF_CHECK | PCRE2_SUBSTITUTE_GLOBAL | PCRE2_SUBSTITUTE_EXTENDED | PCRE2_SUBSTITUTE_OVERFLOW_LENGTH,
        nullptr, nullptr, units(replacement), PCRE2_ZERO_TERMINATED, reinterpret_cast<PCRE2_UCHAR*>(out.data()),
        &bytes);
    if (count < 0 && count != PCRE2_ERROR_NOMEMORY) fail("replacing matches of a pattern failed: ", message(count));
    out.resize(bytes);
    if (count >= 0) return out;
  }
}

Regex::Matcher::Matcher() : memory_(std::make_unique<Memory>()) {
  if (!memory_->data || !memory_->context) throw std::bad_alloc();
  if (memory_->stack) pcre2_jit_stack_assign(memory_->context.get(), nullptr, memory_->stack.get());
}

Regex::Matcher::~Matcher() = default;

Regex::Matcher::Match Regex::Matcher::find(const Regex& regex, std::string_view text, size_t from) {
  const int found = pcre2_match(regex.compiled_->code.get(), units(text), text.size(), from,
                                PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, memory_->data.get(), memory_->context.get());
  if (found == PCRE2_ERROR_NOMATCH) return {text.size(), text.size()};
  if (found < 0) fail("matching a pattern failed at byte ", from, " of ", text.size(), ": ", message(found));
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(memory_->data.get());
  return {ends[0], ends[1]};
}

}  // namespace fathom
