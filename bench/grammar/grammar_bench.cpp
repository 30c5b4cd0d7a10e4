// The time to find the tokens that a JSON schema allows, with a vocabulary of 152,000 tokens:
//   scripts/build release --target bench_grammar && build/release/bin/bench_grammar
#include <benchmark/benchmark.h>

#include <cstdio>
#include <memory>
#include <random>
#include <string>

#include "decode/constraints/grammars.h"
#include "decode/grammar/json_schema.h"

namespace fathom {
namespace {

constexpr int kVocabulary = 152'000;

constexpr const char* kSchema = R"({"type": "object", "properties": {
  "name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}},
  "size": {"type": "number"}, "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}}},
  "required": ["name", "tags", "size", "parts"],
  "$defs": {"part": {"type": "object", "properties": {"id": {"type": "integer"}, "note": {"type": "string"}},
                     "required": ["id", "note"]}}})";
constexpr const char* kText =
    R"({"name": "A long name, with \"quotes\"", "tags": ["one", "two words", "three"], )"
    R"("size": -12.5e3, "parts": [{"id": 12, "note": "first"}, {"id": 345, "note": "second"}]})";

/// A vocabulary of bytes and random pieces, some of which hold quotes, braces and digits as those of real ones do.
const Tokenizer& tokenizer() {
  static const Tokenizer made = [] {
    Vocabulary vocabulary;
    vocabulary.pieces = {"</s>"};
    vocabulary.types = {TokenType::kControl};
    for (int byte = 0; byte < 256; ++byte) {
      char name[8];
      std::snprintf(name, sizeof name, "<0x%02X>", byte);
      vocabulary.pieces.emplace_back(name);
      vocabulary.types.push_back(TokenType::kByte);
    }
    std::mt19937 random(1);
    const std::string letters = "etaoinshrdlucmfwypvbgkjqxz", marks = "\"{}[]:,0123456789\n.\\-";
    while (vocabulary.size() < kVocabulary) {
      std::string piece = random() % 2 == 0 ? " " : "";
      const bool marked = random() % 20 == 0;
      for (unsigned n = 2 + random() % 7; n > 0; --n) {
        const unsigned letter = std::min(random() % 26, random() % 26);
        piece += marked && random() % 2 == 0 ? marks[random() % marks.size()] : letters[letter];
      }
      vocabulary.pieces.push_back(piece);
      vocabulary.types.push_back(TokenType::kNormal);
    }
    vocabulary.eos = 0;
    vocabulary.end_of_generation = {0};
    return Tokenizer(std::move(vocabulary));
  }();
  return made;
}

std::shared_ptr<const TokenBytes> tokens() {
  static const auto made = std::make_shared<const TokenBytes>(tokenizer());
  return made;
}

std::shared_ptr<const Constraint> constraint() {
  return make_grammar_constraint(tokens(), json_schema_grammar(Json::parse(kSchema), "schema"));
}

/// Takes the bytes of the text one after the other. Returns the number of restrictions.
int64_t walk(const Constraint& constraint) {
  static const std::vector<float> logits(kVocabulary, 0.0f);
  static Candidates candidates;
  const auto at = constraint.start();
  int64_t count = 0;
  for (const char* c = kText; *c; ++c, ++count) {
    candidates.assign(logits);
    at->restrict(candidates);
    at->take(1 + static_cast<unsigned char>(*c));
  }
  return count;
}

void compile(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(json_schema_grammar(Json::parse(kSchema), "schema"));
}
/// Per token: all states of the text are new.
void cold(benchmark::State& state) {
  int64_t count = 0;
  for (auto _ : state) count += walk(*constraint());
  state.counters["per_token"] =
      benchmark::Counter(static_cast<double>(count), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
/// Per token: the states are known.
void warm(benchmark::State& state) {
  const auto known = constraint();
  walk(*known);
  int64_t count = 0;
  for (auto _ : state) count += walk(*known);
  state.counters["per_token"] =
      benchmark::Counter(static_cast<double>(count), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
/// Per token: without a constraint, what is in the figures of the others beside it.
void candidates_alone(benchmark::State& state) {
  const std::vector<float> logits(kVocabulary, 0.0f);
  Candidates candidates;
  for (auto _ : state) candidates.assign(logits);
}

BENCHMARK(compile);
BENCHMARK(cold);
BENCHMARK(warm);
BENCHMARK(candidates_alone);

}  // namespace
}  // namespace fathom

BENCHMARK_MAIN();
