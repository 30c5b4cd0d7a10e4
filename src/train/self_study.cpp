#include "train/self_study.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "attend/methods.h"
#include "base/error.h"
#include "decode/sampler.h"
#include "eval/likelihood.h"

namespace fathom::train {
namespace {

/// The first words of the messages of each kind.
constexpr std::array kOpenings{"Question: List the",             // structuring
                               "Question: What happens to the",  // summarisation
                               "Question: What is the",          // question
                               "Question: Who needs the",        // use case
                               "Question: What would"};          // creative
constexpr const char* kClosing = "Answer:";

bool contains(const Tokenizer& tokenizer, int32_t token, std::string_view any_of) {
  return tokenizer.piece(token).find_first_of(any_of) != std::string::npos;
}

/// Returns the `top` most probable tokens.
std::vector<TokenShare> largest_shares(std::span<const float> logits, int top) {
  std::vector<TokenLogit> largest;
  append_top_logits(logits, static_cast<int>(std::min<int64_t>(top, std::ssize(logits))), largest);
  const double sum = eval::log_sum_exp(logits);
  std::vector<TokenShare> shares;
  for (const TokenLogit& t : largest) shares.push_back({t.token, static_cast<float>(std::exp(t.logit - sum))});
  return shares;
}

void check_study(const SelfStudyOptions& o) {
  const std::pair<const char*, int64_t> sizes[] = {{"shortest_chunk", o.shortest_chunk},
                                                   {"message_tokens", o.message_tokens},
                                                   {"answer_tokens", o.answer_tokens},
                                                   {"top", o.top}};
  for (const auto& [name, value] : sizes)
    if (value < 1) fail_usage("self-study: ", name, " is ", value, ", expected 1 or more");
  if (o.longest_chunk < o.shortest_chunk)
    fail_usage("self-study: longest_chunk is ", o.longest_chunk, ", expected at least shortest_chunk, ",
               o.shortest_chunk);
  if (!(o.temperature >= 0 && o.temperature <= 100))
    fail_usage("self-study: temperature is ", o.temperature, ", expected 0 to 100");
}

}  // namespace

std::vector<SeedPrompt> seed_prompts(const Tokenizer& tokenizer) {
  std::vector<SeedPrompt> prompts;
  for (const char* opening : kOpenings) {
    prompts.push_back(
        {tokenizer.encode(opening, {.add_bos_eos = false}), tokenizer.encode(kClosing, {.add_bos_eos = false})});
  }
  return prompts;
}

SelfStudyOptions text_study(const Tokenizer& tokenizer) {
  SelfStudyOptions options;
  options.ends_message = [&tokenizer](int32_t token) { return contains(tokenizer, token, "?\n"); };
  options.ends_answer = [&tokenizer](int32_t token) {
    return tokenizer.ends_generation(token) || contains(tokenizer, token, "\n");
  };
  return options;
}

SelfStudy::SelfStudy(std::shared_ptr<Engine> engine, std::vector<int32_t> bos, std::vector<int32_t> text,
                     std::vector<SeedPrompt> prompts, SelfStudyOptions options)
    : engine_(std::move(engine)),
      bos_(std::move(bos)),
      text_(std::move(text)),
      prompts_(std::move(prompts)),
      options_(std::move(options)) {
  check_study(options_);
  if (text_.empty()) fail_usage("self-study: the text has no tokens");
  if (prompts_.empty()) fail_usage("self-study: there are no prompts");
}

Session SelfStudy::read_part(eval::Rng& rng) {
  const int64_t all = std::ssize(text_), longest = std::min(options_.longest_chunk, all);
  const int64_t length = rng.between(std::min(options_.shortest_chunk, longest), longest);
  const std::span part = std::span(text_).subspan(rng.between(0, all - length), length);
  std::vector<int32_t> tokens = bos_;
  tokens.insert(tokens.end(), part.begin(), part.end());
  Session session(engine_);
  session.append(tokens);
  return session;
}

Conversation SelfStudy::converse(Session session, const SeedPrompt& prompt, uint64_t seed) {
  Conversation made;
  const auto read = [&](std::span<const int32_t> tokens) {
    session.append(tokens);
    made.tokens.insert(made.tokens.end(), tokens.begin(), tokens.end());
  };
  const std::vector<std::string> draws{concat("temperature:t=", options_.temperature)};
  Sampler sampler(draws, seed);
  if (!prompt.opening.empty()) read(prompt.opening);
  for (int64_t i = 0; i < options_.message_tokens; ++i) {
    const int32_t token = sampler.sample(session.logits(), made.tokens, i);
    read({&token, 1});
    if (options_.ends_message && options_.ends_message(token)) break;
  }
  if (!prompt.closing.empty()) read(prompt.closing);
  made.answer = std::ssize(made.tokens);
  for (int64_t i = 0; i < options_.answer_tokens; ++i) {
    made.shares.push_back(largest_shares(session.logits(), options_.top));
    const int32_t token = made.shares.back().front().token;
    read({&token, 1});
    if (options_.ends_answer && options_.ends_answer(token)) break;
  }
  return made;
}

std::vector<Conversation> SelfStudy::converse(int64_t count, uint64_t seed,
                                              const std::function<void(int64_t done)>& progress) {
  std::vector<Conversation> made;
  for (int64_t part = 0; std::ssize(made) < count; ++part) {
    eval::Rng rng(seed, "self-study", 0, part);
    const Session session = read_part(rng);
    for (const SeedPrompt& prompt : prompts_) {
      if (std::ssize(made) == count) break;
      made.push_back(converse(session.fork(), prompt, rng.bits()));
      if (progress) progress(std::ssize(made));
    }
  }
  return made;
}

std::vector<Conversation> next_token_pieces(std::span<const int32_t> text, int64_t length) {
  std::vector<Conversation> pieces;
  for (size_t begin = 0; begin + 1 < text.size(); begin += static_cast<size_t>(length)) {
    const std::span piece = text.subspan(begin, std::min<size_t>(length, text.size() - begin));
    if (piece.size() < 2) break;
    Conversation made;
    made.tokens.assign(piece.begin(), piece.end());
    for (const int32_t token : piece.subspan(1)) made.shares.push_back({{token, 1.0f}});
    pieces.push_back(std::move(made));
  }
  return pieces;
}

std::vector<float> answer_logits(Engine& engine, const Sequence& prefix, const Conversation& conversation) {
  const std::unique_ptr<Selector> dense = attend_methods().make("dense");
  Sequence sequence = prefix.fork();
  std::vector<int64_t> wanted(conversation.tokens.size() - conversation.answer);
  std::iota(wanted.begin(), wanted.end(), conversation.answer - 1);
  Rows rows;
  rows.sequence = &sequence;
  rows.policy.selector = dense.get();
  rows.tokens = conversation.tokens;
  rows.output_rows = wanted;
  engine.forward({&rows, 1});
  rows.result.throw_if_failed();
  return std::move(rows.result.logits);
}

double mean_divergence(std::span<const float> expected, std::span<const float> found, int64_t vocabulary) {
  const int64_t rows = std::ssize(expected) / vocabulary;
  double sum = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const std::span p = expected.subspan(row * vocabulary, vocabulary),
                    q = found.subspan(row * vocabulary, vocabulary);
    const double p_sum = eval::log_sum_exp(p), q_sum = eval::log_sum_exp(q);
    for (int64_t i = 0; i < vocabulary; ++i) {
      const double log_p = p[i] - p_sum;
      sum += std::exp(log_p) * (log_p - (q[i] - q_sum));
    }
  }
  return sum / static_cast<double>(rows);
}

}  // namespace fathom::train
