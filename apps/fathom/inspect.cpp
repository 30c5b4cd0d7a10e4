// fathom inspect: describes a model file, or draws the attention of an answer.
#include <algorithm>
#include <exception>
#include <map>
#include <variant>

#include "attention_map.h"
#include "base/error.h"
#include "base/format.h"
#include "base/json.h"
#include "commands.h"
#include "console.h"
#include "models/model.h"
#include "options.h"

namespace fathom {
namespace {

struct InspectOptions {
  std::string model;
  bool json = false, tensors = false;
  AttentionMapOptions attention;
};

const char* scaling_name(RotaryConfig::Scaling scaling) {
  switch (scaling) {
    case RotaryConfig::Scaling::kNone:
      return "none";
    case RotaryConfig::Scaling::kLinear:
      return "linear";
    case RotaryConfig::Scaling::kNtk:
      return "ntk";
    case RotaryConfig::Scaling::kYarn:
      return "yarn";
    case RotaryConfig::Scaling::kLongRope:
      return "longrope";
  }
  return "";
}

Json shape_json(const ModelConfig& c) {
  int64_t elements = 0;  // numbers in keys and values per token, all layers
  for (int i = 0; i < c.layers; ++i) {
    const LayerConfig layer = c.layer(i);
    elements += static_cast<int64_t>(layer.kv_heads) * (layer.key_dim + layer.value_dim);
  }
  return {{"layers", c.layers},
          {"width", c.width},
          {"heads", c.heads},
          {"kv_heads", c.kv_heads},
          {"key_dim", c.key_dim},
          {"value_dim", c.value_dim},
          {"ffn_width", c.ffn_width},
          {"trained_context", c.trained_context},
          {"sliding_window", c.sliding_window},
          {"attention", c.softplus ? "softplus" : "softmax"},
          {"softplus_power", c.softplus_power},
          {"landmark_block", c.landmarks.tokens},
          {"rotary_dims", c.rotary.dims},
          {"rotary_base", c.rotary.base},
          {"rotary_scaling", scaling_name(c.rotary.scaling)},
          {"rotary_factor", c.rotary.factor},
          {"rotary_divisors", !c.rotary.divisors.empty()},
          {"experts", c.experts.count},
          {"experts_used", c.experts.used},
          {"state_space", c.state_space.inner},
          {"cache_bytes_per_token", 2 * elements}};
}

/// Returns the number of tensors and bytes of each weight type, sorted by name.
Json weights_json(const Gguf& file) {
  std::map<std::string, std::pair<int64_t, uint64_t>> types;
  for (const GgufTensor& tensor : file.tensors()) {
    auto& [count, bytes] = types[info(tensor.type).name];
    ++count;
    bytes += tensor.bytes;
  }
  Json list = Json::array();
  for (const auto& [type, sums] : types) {
    list.push_back({{"type", type}, {"tensors", sums.first}, {"bytes", sums.second}});
  }
  return list;
}

std::string value_text(const GgufValue& value) {
  if (value.type == GgufType::kArray) return concat("[", value.array.count, " × ", name(value.array.type), "]");
  if (const auto* text = std::get_if<std::string_view>(&value.scalar)) return quote(*text);
  if (const auto* flag = std::get_if<bool>(&value.scalar)) return *flag ? "true" : "false";
  return std::visit([](const auto& number) { return concat(number); }, value.scalar);
}

Json tensors_json(const Gguf& file) {
  Json list = Json::array();
  for (const GgufTensor& tensor : file.tensors()) {
    list.push_back({{"name", std::string(tensor.name)},
                    {"type", info(tensor.type).name},
                    {"shape", tensor.shape},
                    {"bytes", tensor.bytes}});
  }
  return list;
}

/// Returns the description as JSON. config: null if the engine cannot run the file.
Json describe(const Gguf& file, const ModelConfig* config) {
  const auto* tokens = file.strings("tokenizer.ggml.tokens");
  Json json = {{"file", file.name()},
               {"bytes", file.file_bytes()},
               {"gguf_version", file.version()},
               {"architecture", std::string(file.string("general.architecture").value_or(""))},
               {"name", std::string(file.string("general.name").value_or(""))},
               {"vocabulary", tokens ? tokens->size() : 0},
               {"tokenizer", std::string(file.string("tokenizer.ggml.model").value_or(""))},
               {"chat_template", file.has("tokenizer.chat_template")}};
  if (config) json.update(shape_json(*config));
  json["weights"] = weights_json(file);
  return json;
}

std::string padded(std::string text, size_t width) {
  text.resize(std::max(width, text.size() + 1), ' ');
  return text;
}

class DescriptionText {
 public:
  template <class... Parts>
  void line(const char* label, const Parts&... parts) {
    text_ += concat(padded(label, 16), parts..., "\n");
  }
  template <class... Parts>
  void item(const std::string& label, const Parts&... parts) {
    text_ += concat("  ", padded(label, 40), parts..., "\n");
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

void describe_shape(DescriptionText& page, const ModelConfig& c) {
  page.line("layers", c.layers, ", width ", c.width, ", ffn ", c.ffn_width);
  if (c.heads > 0)
    page.line("heads", c.heads, " over ", c.kv_heads, " key/value, of ", c.key_dim, " (values ", c.value_dim, ")");
  if (c.experts.count > 0)
    page.line("experts", c.experts.count, " of width ", c.experts.width, ", ", c.experts.used, " used per token");
  if (c.state_space.inner > 0)
    page.line("recurrence", "state space of ", c.state_space.inner, " channels, state ", c.state_space.state);
  page.line("context", "trained to ", c.trained_context, " tokens",
            c.sliding_window > 0 ? concat(", sliding window ", c.sliding_window) : "",
            c.landmarks ? concat(", a landmark after every ", c.landmarks.tokens) : "");
  if (c.softplus) page.line("attention", "softplus, re-weighted by power ", c.softplus_power);
  if (c.rotary.dims == 0) {
    page.line("positions", "not rotary");
  } else {
    page.line("positions", "rotary, ", c.rotary.dims, " of ", c.key_dim, " dimensions, base ", c.rotary.base,
              ", scaling ", scaling_name(c.rotary.scaling),
              c.rotary.factor != 1 ? concat(" by ", c.rotary.factor) : "",
              c.rotary.divisors.empty() ? "" : ", with divisors");
  }
  const auto memory = [&](PageFormat format) {
    double bytes = 0;  // of a page of every layer and head
    for (int i = 0; i < c.layers; ++i) {
      const LayerConfig layer = c.layer(i);
      bytes += static_cast<double>(layer.kv_heads) * static_cast<double>(page_key_bytes(format, layer.key_dim) +
                                                                         page_value_bytes(format, layer.value_dim));
    }
    return format_bytes(1024.0 / kPageTokens * bytes);
  };
  page.line("memory", memory(PageFormat::kBF16), " per 1k tokens of context (cache bf16; q8 ",
            memory(PageFormat::kQ8), ", q4 ", memory(PageFormat::kQ4), ")");
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text;
  for (const int64_t size : shape) text += concat(text.empty() ? "" : " × ", size);
  return text;
}

std::string describe_text(const Gguf& file, const ModelConfig* config, bool tensors) {
  DescriptionText page;
  page.line("file", file.name(), ", ", format_bytes(static_cast<double>(file.file_bytes())), ", GGUF v",
            file.version());
  page.line("architecture", quote(file.string("general.architecture").value_or("")));
  page.line("name", quote(file.string("general.name").value_or("")));
  if (config) describe_shape(page, *config);
  const auto* tokens = file.strings("tokenizer.ggml.tokens");
  page.line("vocabulary", tokens ? tokens->size() : 0, " tokens, ",
            quote(file.string("tokenizer.ggml.model").value_or("")),
            file.has("tokenizer.chat_template") ? ", with a chat template" : ", no chat template");
  page.line("weights", file.tensors().size(), " tensors");
  for (const Json& type : weights_json(file).items()) {
    page.item(type["type"].text(), type["tensors"].get<int64_t>(), " tensors, ",
              format_bytes(type["bytes"].get<double>()));
  }
  if (tensors) {
    page.line("tensors");
    for (const GgufTensor& t : file.tensors())
      page.item(std::string(t.name), info(t.type).name, " ", shape_text(t.shape));
  }
  page.line("metadata");
  for (const std::string_view key : file.keys()) page.item(std::string(key), value_text(*file.find(key)));
  return page.text();
}

/// Describes the file even if the engine cannot run it, then throws the reason.
void run_inspect(const InspectOptions& options) {
  if (!options.attention.html.empty()) {
    AttentionMapOptions attention = options.attention;
    attention.common.model = options.model;
    attention.json = options.json;
    return map_attention(attention);
  }
  if (!options.attention.files.empty() || !options.attention.prompt.empty())
    fail_usage("-f and -p need --attention PAGE");
  const std::string path = find_model(options.model);
  const Gguf file = Gguf::open(path);
  std::shared_ptr<const Model> model;
  std::exception_ptr problem;
  try {
    model = Model::open(path);
  } catch (const Error&) {
    problem = std::current_exception();
  }
  const ModelConfig* config = model ? &model->config() : nullptr;
  if (options.json) {
    Json json = describe(file, config);
    if (options.tensors) json["tensors"] = tensors_json(file);
    Json metadata = Json::object();
    for (const std::string_view key : file.keys()) metadata[std::string(key)] = value_text(*file.find(key));
    json["metadata"] = metadata;
    write_out(json.dump() + "\n");
  } else {
    write_out(describe_text(file, config, options.tensors));
  }
  if (problem) std::rethrow_exception(problem);
}

}  // namespace

void add_inspect(Command program) {
  auto o = std::make_shared<InspectOptions>();
  Command command = program.add_command("inspect", "Describe a model file, or draw the attention of an answer");
  command.add_option("model", o->model, "model file (GGUF) [$FATHOM_MODEL, or fathom-reader]").type_name("FILE");
  command.add_flag("--tensors", o->tensors, "list every tensor");
  command.add_flag("--json", o->json, "print one JSON object");
  add_attention_options(command, o->attention);
  command.footer(R"(Examples:
  fathom inspect model.gguf --tensors
  fathom inspect model.gguf --attention map.html -f book.txt -p "The captain's name was" --attend quest:budget=1k
)");
  command.callback([o] { run_inspect(*o); });
}

}  // namespace fathom
