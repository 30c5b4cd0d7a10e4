#include <algorithm>

#include "base/error.h"
#include "base/format.h"
#include "tokens/pretokenizer.h"

// clang-format off
// Parts of which the patterns below are composed.
#define CONTRACTION R"~('(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL]))~"
#define WORD R"~([^\r\n\p{L}\p{N}]?\p{L}+)~"
#define MARKED_WORD R"~([^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+)~"
#define CASED_WORD(ENDING) \
  R"~([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)~" ENDING \
  R"~(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)~" ENDING
#define SYMBOLS R"~( ?[^\s\p{L}\p{N}]+[\r\n]*)~"
#define SYMBOLS_OR_PATH R"~( ?[^\s\p{L}\p{N}]+[\r\n/]*)~"
#define SPACE R"~(\s*[\r\n]+|\s+(?!\S)|\s+)~"

namespace fathom {
namespace {

constexpr const char* kGpt2 = R"~('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))~";
constexpr const char* kLlama3 = CONTRACTION "|" WORD R"~(|\p{N}{1,3}|)~" SYMBOLS "|" SPACE;
constexpr const char* kQwen2 = CONTRACTION "|" WORD R"~(|\p{N}|)~" SYMBOLS "|" SPACE;
constexpr const char* kQwen35 =
    CONTRACTION "|" MARKED_WORD R"~(|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|)~" SPACE;
// Splits a word of spaces into powers of two. A word with a line end is not split.
constexpr const char* kJais2Spaces =
    R"~(\A\s*[\r\n]+|[^\S\r\n]{512}|[^\S\r\n]{256}|[^\S\r\n]{128}|[^\S\r\n]{64}|[^\S\r\n]{32}|[^\S\r\n]{16})~"
    R"~(|[^\S\r\n]{8}|[^\S\r\n]{4}|[^\S\r\n]{2})~";
constexpr const char* kTekken = CASED_WORD("") R"~(|\p{N}|)~" SYMBOLS_OR_PATH "|" SPACE;
constexpr const char* kGpt4o = CASED_WORD("(?:" CONTRACTION ")?") R"~(|\p{N}{1,3}|)~" SYMBOLS_OR_PATH "|" SPACE;
constexpr const char* kYoutu = CASED_WORD("(?:" CONTRACTION ")?") R"~(|\p{N}|)~" SYMBOLS_OR_PATH "|" SPACE;
constexpr const char* kYoutuScripts =
    R"~([가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+)~";
// Letters and marks except Han, excluding lower or upper case. A character class cannot be subtracted from another, so
// each class is written as the complement of all other categories.
constexpr const char* kKimi =
    R"~(\p{sc:Han}+)~"
    R"~(|[^\r\n\p{L}\p{N}]?[^\p{Ll}\p{N}\p{P}\p{S}\p{Z}\p{C}\p{sc:Han}]*)~"
    R"~([^\p{Lu}\p{Lt}\p{N}\p{P}\p{S}\p{Z}\p{C}\p{sc:Han}]+(?:)~" CONTRACTION ")?"
    R"~(|[^\r\n\p{L}\p{N}]?[^\p{Ll}\p{N}\p{P}\p{S}\p{Z}\p{C}\p{sc:Han}]+)~"
    R"~([^\p{Lu}\p{Lt}\p{N}\p{P}\p{S}\p{Z}\p{C}\p{sc:Han}]*(?:)~" CONTRACTION ")?"
    R"~(|\p{N}{1,3}|)~" SYMBOLS "|" SPACE;
constexpr const char* kBailing = R"~('(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|)~" WORD
    R"~(|\p{N}|)~" SYMBOLS R"~(|\s*[\r\n]|\s+(?!\S)|\s+)~";
constexpr const char* kSeedCoder = CONTRACTION "|" WORD R"~(|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|)~" SPACE;
constexpr const char* kExaoneMoe = CONTRACTION
    R"~(|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*+(?: \p{L}\p{M}*+)*+)++|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?)~"
    R"~(|\s*[\r\n]|\s+(?!\S)|\s+)~";
constexpr const char* kBloom = R"~( ?[^(\s|.,!?…。，、।۔،)]+)~";
constexpr const char* kDeepseekLetters =
    R"~(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-)~"
    R"~(ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮ)~"
    R"~(ⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+)~";
constexpr const char* kDeepseekPunctuation = R"~(\s?[!-/:-~！-／：-～‘-‟　-。]+)~";
constexpr const char* kDeepseekCjk = R"~([一-龥ࠀ-一가-퟿]+)~";
constexpr const char* kDeepseek3Cjk = R"~([一-龥぀-ゟ゠-ヿ]+)~";
constexpr const char* kDeepseek3 =
    R"~([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)~"
    R"~(| ?[\p{P}\p{S}]+[\r\n]*|)~" SPACE;
constexpr const char* kAfmoeScripts =
    R"~([一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+)~";

const std::vector<PretokenizerInfo>& table() {
  static const std::vector<PretokenizerInfo> kTable = {
    {{"default"}, {{R"~([\p{P}$+<=>^~|]+)~"}, {kGpt2}, {R"~(\p{N}+)~"}, {"[0-9][0-9][0-9]"}}},
    {{"llama-bpe", "llama3", "llama-v3", "laguna", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
      "jina-v5-nano"}, {{kLlama3}}, true, true},
    {{"dbrx", "smaug-bpe", "chatglm-bpe", "glm4"}, {{kLlama3}}},
    {{"gpt-2", "phi-2", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "jina-v1-en", "jina-v2-code", "roberta-bpe",
      "gigachat", "a.x-4.0", "mellum", "modern-bert", "mpt", "olmo", "jais", "trillion", "granite-docling",
      "exaone4"}, {{kGpt2}}},
    {{"starcoder", "refact", "command-r", "cohere2_moe", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"},
     {{R"~(\p{N})~"}, {kGpt2}}},
    {{"qwen2", "deepseek-r1-qwen", "kormo", "openpangu", "f2llmv2", "stablelm2", "hunyuan", "solar-open", "grok-2",
      "megrez"}, {{kQwen2}}},
    {{"qwen35"}, {{kQwen35}}},
    {{"gpt-4o", "o200k", "llama4", "kanana2", "minimax-m2"}, {{kGpt4o}}},
    {{"tekken"}, {{kTekken}}, true, true},
    {{"deepseek-llm"}, {{R"~([\r\n])~"}, {kDeepseekLetters}, {kDeepseekPunctuation}, {R"~((?<!\s)\s++$)~"}, {kDeepseekCjk},
                        {R"~(\p{N}+)~"}}},
    {{"deepseek-coder"}, {{R"~([\r\n])~"}, {R"~(\s?\p{L}+)~"}, {R"~(\s?\p{P}+)~"}, {kDeepseekCjk}, {R"~(\p{N})~"}}},
    {{"deepseek-v3", "hunyuan-dense", "joyai-llm"}, {{R"~(\p{N}{1,3})~"}, {kDeepseek3Cjk}, {kDeepseek3}}},
    {{"youtu"}, {{kYoutuScripts}, {kYoutu}}, true},
    {{"falcon"}, {{R"~([\p{P}$+<=>^~|`]+)~"}, {kGpt2}, {"[0-9][0-9][0-9]"}}},
    {{"bloom", "poro-chat", "gpt3-finnish"}, {{kBloom}}},
    {{"viking"}, {{kBloom}, {R"~(\p{N})~"}}},
    {{"chameleon"}, {{"<sentinel:[0-9]+>"}, {"IMGIMG[A-I]{1,4}Z"}, {R"~([\t\n]|    |  )~"}, {R"~(\p{N})~"},
                     {R"~([\p{P}!-/:-@\[-`{-~])~"}, {kGpt2}}, false, true},
    {{"jais-2"}, {{kLlama3}, {kJais2Spaces}}},
    {{"tiny_aya"}, {{R"~(\d+)~", true}, {kGpt4o}}},
    {{"superbpe"}, {{R"~(\p{N}+)~", true}}},
    {{"kimi-k2"}, {{kKimi}}},
    {{"bailingmoe", "bailingmoe2", "llada-moe"}, {{kBailing}}},
    {{"seed-coder"}, {{kSeedCoder}}},
    {{"exaone-moe"}, {{kExaoneMoe}}},
    {{"afmoe"}, {{R"~(\p{N}+)~", true}, {kAfmoeScripts}, {kDeepseek3}}},
  };
  return kTable;
}
// clang-format on

}  // namespace

std::span<const PretokenizerInfo> pretokenizers() { return table(); }

const PretokenizerInfo& find_pretokenizer(std::string_view name, std::string_view source) {
  std::vector<std::string_view> known;
  for (const PretokenizerInfo& info : table()) {
    if (std::ranges::find(info.names, name) != info.names.end()) return info;
    known.insert(known.end(), info.names.begin(), info.names.end());
  }
  fail(source, ": metadata key 'tokenizer.ggml.pre': ", quote(name), " is not a known pre-tokenizer (",
       comma_list(known), ")");
}

}  // namespace fathom
