#include "text_options.h"

#include "base/error.h"

namespace fathom::train {

void TextOptions::check(const std::string& use) const {
  if (model.empty() || file.empty()) {
    fail_usage(use, ": no ", model.empty() ? "model" : "text", " given; expected -m MODEL -f FILE");
  }
}

void add_text_options(Command program, TextOptions& options) {
  const auto add = [&](const std::string& names, std::string& value, const std::string& help) {
    const auto set = [&options, &value, names](const std::string& text) {
      options.given.push_back(names.substr(names.find("--")));
      value = text;
    };
    program.add_option(names, set, "with --optimise-states or --cartridge: " + help).type_name("FILE");
  };
  add("-m,--model", options.model, "the model, a GGUF file of architecture llama");
  add("-f,--file", options.file, "the text; - is standard input");
}

}  // namespace fathom::train
