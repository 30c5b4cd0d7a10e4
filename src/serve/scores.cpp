// Embeddings of texts, and the relevance of documents for a query.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "base/error.h"
#include "base/format.h"
#include "decode/logprobs.h"
#include "serve/api.h"
#include "serve/api_error.h"
#include "tokens/prompt.h"

namespace fathom::serve {
namespace {

constexpr size_t kMostTexts = 2048;
constexpr size_t kTogether = 16;        // jobs of a request that are open at once
constexpr int64_t kLongestQuery = 512;  // tokens

std::string encode_base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += 3) {
    const size_t n = std::min<size_t>(3, bytes.size() - at);
    uint32_t group = 0;
    for (size_t i = 0; i < 3; ++i) group = group << 8 | (i < n ? static_cast<unsigned char>(bytes[at + i]) : 0);
    for (size_t i = 0; i < 4; ++i) text += i <= n ? kDigits[group >> (18 - 6 * i) & 63] : '=';
  }
  return text;
}

/// Returns the texts or lists of tokens of an input as prompts.
std::vector<std::vector<int32_t>> read_inputs(const Service& service, const Json& body) {
  const Json* input = body.find("input");
  if (!input) throw ApiError(400, "input: expected a text, or a list of texts or tokens", "missing_field");
  std::vector<Json> items;
  if (input->is_array() && !input->empty() && !input->at(0).is_number()) {
    items = input->items();
  } else {
    items.push_back(*input);
  }
  if (items.size() > kMostTexts)
    throw ApiError(400, concat("input: expected at most ", kMostTexts, " texts, found ", items.size()),
                   "invalid_value");
  std::vector<std::vector<int32_t>> prompts;
  for (const Json& item : items) {
    try {
      if (item.is_string()) {
        prompts.push_back(encode_prompt(service.tokenizer(), item.text(), false));
      } else {
        prompts.push_back(item.get<std::vector<int32_t>>());
        service.tokenizer().decode(prompts.back());  // checks the ids
      }
    } catch (const Error& error) {
      throw ApiError(400, concat("input: ", error.what()), "invalid_value");
    }
    if (prompts.back().empty()) throw ApiError(400, "input: a text is empty", "invalid_value");
  }
  return prompts;
}

/// Runs jobs, a few together, and returns the tokens of their prompts. make: returns the i-th.
int64_t run_all(Service& service, size_t count, const std::function<JobRequest(size_t)>& make,
                const std::function<bool()>& alive) {
  std::vector<std::shared_ptr<Job>> jobs;
  int64_t tokens = 0;
  try {
    for (size_t done = 0; done < count; ++done) {
      while (jobs.size() < std::min(count, done + kTogether))
        jobs.push_back(service.scheduler().submit(make(jobs.size())));
      tokens += service.scheduler().wait(*jobs[done], {.on_wait = alive})->prompt.total;
    }
  } catch (...) {
    for (const auto& job : jobs) service.scheduler().cancel(*job);
    throw;
  }
  return tokens;
}

/// Returns a vector of length 1: the first `dimensions` entries.
std::vector<float> normalised(std::span<const float> vector, int64_t dimensions) {
  std::vector<float> result(vector.begin(), vector.begin() + dimensions);
  double sum = 0;
  for (const float x : result) sum += static_cast<double>(x) * x;
  const double scale = sum > 0 ? 1 / std::sqrt(sum) : 0;
  for (float& x : result) x = static_cast<float>(x * scale);
  return result;
}

Json embedding_json(const std::vector<float>& vector, bool base64) {
  if (base64) {
    std::string bytes(vector.size() * sizeof(float), '\0');
    std::memcpy(bytes.data(), vector.data(), bytes.size());
    return encode_base64(bytes);
  }
  Json values = Json::array();
  for (const float x : vector) values.push_back(static_cast<double>(x));
  return values;
}

/// Returns the mean log-probability of tokens after those of a session, which reads them.
double mean_logprob(Session& session, std::span<const int32_t> tokens) {
  const int64_t vocabulary = session.model().config().vocabulary;
  double sum = token_logprobs(session.logits(), tokens[0], 0).token.logprob;
  const bool drafts = session.draft_shape() != Session::DraftShape::kNone;
  for (size_t at = 0; at + 1 < tokens.size();) {
    const size_t n = drafts ? std::min<size_t>(tokens.size() - 1 - at, DraftTree::kMaxNodes) : 1;
    const std::span<const int32_t> part = tokens.subspan(at, n);
    if (drafts) {
      const std::span<const float> logits = session.draft(DraftTree::chain(static_cast<int>(n)), part);
      for (size_t i = 0; i < n; ++i)
        sum += token_logprobs(logits.subspan(i * vocabulary, vocabulary), tokens[at + i + 1], 0).token.logprob;
      std::vector<int> path(n);
      for (size_t i = 0; i < n; ++i) path[i] = static_cast<int>(i);
      session.accept(path);
    } else {
      session.append(part);
      sum += token_logprobs(session.logits(), tokens[at + 1], 0).token.logprob;
    }
    at += n;
  }
  return sum / static_cast<double>(tokens.size());
}

std::string document_text(const Json& document) {
  if (document.is_string()) return document.text();
  return required_text(document, "text");
}

}  // namespace

ApiResponse embeddings(Service& service, const Caller& caller, const Json& body) {
  const std::vector<std::vector<int32_t>> prompts = read_inputs(service, body);
  const int width = service.model().config().width;
  const int64_t dimensions = integer(body, "dimensions", width, 1, width);
  std::string encoding = "float";
  if (const Json* given = body.find("encoding_format"); given && !given->is_null())
    encoding = required_text(body, "encoding_format");
  if (encoding != "float" && encoding != "base64")
    throw ApiError(400, concat("encoding_format: expected float or base64, found ", quote(encoding)),
                   "invalid_value");
  // Shared with jobs, which may outlive this function if the client leaves.
  const auto vectors = std::make_shared<std::vector<std::vector<float>>>(prompts.size());
  const int layers = service.model().config().layers;
  const int64_t tokens = run_all(
      service, prompts.size(),
      [&](size_t i) {
        JobRequest job = service.reading_job(caller.client, prompts[i]);
        job.open = [engine = service.engine(), options = job.session, layers] {
          Session session(engine, options);
          session.keep_hidden({layers});
          return session;
        };
        job.on_read = [vectors, i, dimensions](Session& session) {
          (*vectors)[i] = normalised(session.hidden(), dimensions);
        };
        return job;
      },
      caller.alive);
  Json data = Json::array();
  for (size_t i = 0; i < vectors->size(); ++i)
    data.push_back({{"object", "embedding"},
                    {"index", i},
                    {"embedding", embedding_json((*vectors)[i], encoding == "base64")}});
  return {{{"object", "list"},
           {"data", std::move(data)},
           {"model", service.options().name},
           {"usage", {{"prompt_tokens", tokens}, {"total_tokens", tokens}}}},
          {}};
}

ApiResponse rerank(Service& service, const Caller& caller, const Json& body) {
  const std::string query = required_text(body, "query");
  const std::vector<Json> documents = list_of(body, "documents");
  if (documents.empty() || documents.size() > kMostTexts)
    throw ApiError(400, concat("documents: expected 1 to ", kMostTexts, " texts, found ", documents.size()),
                   "invalid_value");
  const std::vector<int32_t> asked = service.tokenizer().encode(" " + query, {.add_bos_eos = false});
  if (query.empty() || std::ssize(asked) > kLongestQuery)
    throw ApiError(
        400, concat("query: expected 1 to ", kLongestQuery, " tokens, found ", query.empty() ? 0 : asked.size()),
        "invalid_value");
  const int64_t most = integer(body, "top_n", std::ssize(documents), 1, int64_t{1} << 40);
  const auto scores = std::make_shared<std::vector<double>>(documents.size());  // shared with jobs, as above
  const int64_t tokens = run_all(
      service, documents.size(),
      [&](size_t i) {
        const std::string text = document_text(documents[i]) + "\n\nQuestion:";
        JobRequest job = service.reading_job(caller.client, encode_prompt(service.tokenizer(), text, false));
        job.on_read = [scores, i, asked](Session& session) {
          (*scores)[i] = std::exp(mean_logprob(session, asked));
        };
        return job;
      },
      caller.alive);
  std::vector<size_t> order(documents.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return (*scores)[a] > (*scores)[b]; });
  Json results = Json::array();
  const bool returns = flag(body, "return_documents", false);
  for (const size_t i : std::span(order).first(std::min<size_t>(order.size(), static_cast<size_t>(most)))) {
    Json result = {{"index", i}, {"relevance_score", (*scores)[i]}};
    if (returns) result["document"] = {{"text", document_text(documents[i])}};
    results.push_back(std::move(result));
  }
  return {{{"object", "list"},
           {"id", new_id("rerank-")},
           {"model", service.options().name},
           {"results", std::move(results)},
           {"usage", {{"prompt_tokens", tokens}, {"total_tokens", tokens}}}},
          {}};
}

}  // namespace fathom::serve
